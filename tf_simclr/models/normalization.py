"""BatchNorm as SimCLR uses it: over all replicas, by TensorFlow's fused kernel where nothing has to be gathered."""

import warnings
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod

import keras
from keras import layers, ops

from tf_simclr import replicas
from tf_simclr.errors import check


@keras.saving.register_keras_serializable("tf_simclr")
class BatchNormalization(layers.BatchNormalization):
    """Keras' BatchNormalization, computed by one fused kernel each way where that gives the same.

    That is so on TensorFlow, for images in float32, bfloat16 or float16, whose statistics are those of this replica.
    The kernel reads and keeps its input as it is, Keras' formula a chain of copies in float32.  Its name and weights
    are those of Keras' layer, so that either one loads the other's.
    """

    def call(self, inputs, training=None, *, mask=None):
        """Normalises by the batch's statistics in training, by the moving ones otherwise."""
        # 1. What the kernel does not do, Keras' own layer does.  2. Inference and frozen layers: the moving statistics.
        # 3. Training: the batch's, by which the moving ones move.
        if mask is not None or not self.fuses(inputs):
            return super().call(inputs, training=training, mask=mask)
        if not (training and self.trainable):
            return self.fused(inputs, mean=self.moving_mean, variance=self.moving_variance)[0]
        outputs, mean, variance = self.fused(inputs)
        n = _values_a_channel(inputs)  # n·h·w
        self.move(self.moving_mean, mean)
        # Unbiased is n / (n - 1) times biased.
        self.move(self.moving_variance, variance * ((n - 1) / n))  # the kernel's is unbiased, the reference's is not
        return outputs

    def fuses(self, x) -> bool:
        """Whether the fused kernel does what this layer does."""
        renorm = getattr(self, "renorm", False)  # Keras 3.12, the last one for Python 3.10, does not know it
        # Synchronised statistics have to be gathered between the two halves of the kernel, which is one.
        if keras.backend.backend() != "tensorflow" or renorm or (self.synchronized and replicas.synchronize()):
            return False
        last = self.axis in (-1, len(x.shape) - 1)
        # NHWC images in a type that the kernel has.
        return last and len(x.shape) == 4 and keras.backend.standardize_dtype(x.dtype) != "float64"

    def fused(self, x, *, mean=(), variance=()):
        """Outputs, and the mean and unbiased variance of the batch, or those that were given."""
        import tensorflow as tf

        size = (x.shape[-1],)
        scale = ops.convert_to_tensor(self.gamma) if self.scale else ops.ones(size, "float32")
        offset = ops.convert_to_tensor(self.beta) if self.center else ops.zeros(size, "float32")
        # tf.nn's wrapper raises epsilon to 1.001e-5.
        return tf.raw_ops.FusedBatchNormV3(
            x=x, scale=scale, offset=offset, mean=mean, variance=variance, epsilon=self.epsilon,
            # Without given statistics it computes the batch's.
            is_training=isinstance(mean, tuple),
        )[:3]  # fmt: skip

    def move(self, moving, value):
        """Moves a moving statistic towards a batch's."""
        moving.assign(moving * self.momentum + value * (1.0 - self.momentum))


def _values_a_channel(x):
    """How many values a channel has: a number where the shape is known, which keeps a traced network small."""
    sizes = x.shape[:-1]
    # A size of the graph where the shape is free, in float32: (n·h·w - 1) / (n·h·w) is a factor.
    return ops.cast(ops.size(x) // x.shape[-1], "float32") if None in sizes else prod(sizes)


@dataclass(frozen=True)
class Normalization:
    """How the BatchNorm layers of a network behave.

    Their epsilon is 1e-5; moving statistics use the biased variance of the batch, as the reference's do.
    """

    batch_norm_decay: float = 0.9
    """Momentum of the moving statistics, in [0, 1)."""
    global_bn: bool = True
    """Statistics over the batch of all replicas (SimCLR, Section 2.2), not of each one alone."""
    fused: bool = True
    """Whether they may use the fused kernel; without, a saved network needs nothing but Keras to be loaded."""

    def layer(self, name: str, *, zero: bool = False, center: bool = True) -> layers.Layer:
        """A BatchNorm layer; `zero` starts it at zero (arXiv:1706.02677, Section 5.1), `center` gives it a beta."""
        return (BatchNormalization if self.fused else layers.BatchNormalization)(
            momentum=self.batch_norm_decay,
            # 1e-5 upstream; Keras' default is 1e-3.
            epsilon=1e-5,
            center=center,
            synchronized=self.global_bn and replicas.synchronize(),
            gamma_initializer="zeros" if zero else "ones",
            name=name,
        )


def mixes(parts: Iterable[layers.Layer]) -> bool:
    """Whether a BatchNorm of these parts normalises what a replica computes at once by that alone."""
    shared = replicas.synchronize()
    return any(
        isinstance(layer, layers.BatchNormalization) and layer.trainable and not (shared and layer.synchronized)
        for part in parts
        for layer in part._flatten_layers()
    )


_decided: "weakref.WeakSet[layers.Layer]" = weakref.WeakSet()
"""Layers of others of which `share_statistics` has said over what their statistics are."""


def share_statistics(model: layers.Layer, *, global_bn: bool = True) -> list[str]:
    """Has the BatchNorm layers of a model that somebody else made see the batch of all replicas, or each its own part.

    Keras' layer sees one replica's part unless it was made `synchronized`, which Keras can do on TensorFlow alone.  On
    JAX the batch of all devices is one array, and so are its statistics; with one replica there is nothing to share.

    Args:
        model: it has not been traced.
        global_bn: of all replicas.

    Returns:
        Lines for the user: how many layers see what, and which layers with statistics of their own nobody can know.
    """
    said: list[str] = []
    # One replica, or JAX, whose devices compute one batch: there is nothing to share.
    if not replicas.synchronize():
        return said
    found = [layer for layer in model._flatten_layers() if isinstance(layer, layers.BatchNormalization)]
    for layer in found:
        # Read when the layer is called: nothing has to be built anew.
        layer.synchronized = global_bn
        _decided.add(layer)
    if found:
        seen = f"the batch of all {replicas.count()} replicas" if global_bn else "their own replica's part of a batch"
        said.append(f"{len(found)} BatchNormalization layers of the encoder see {seen}")
    if own := _own_statistics(model):
        said.append(
            f"layers that keep statistics of their own see their replica's part of a batch alone: {', '.join(own[:3])}"
            f"{' …' * (len(own) > 3)} ({len(own)}); make them of keras.layers.BatchNormalization, train on one "
            "replica, or on JAX, where the devices share one batch"
        )
    return said


def _own_statistics(model: layers.Layer) -> list[str]:
    """Layers of code that is not Keras' nor ours whose batch statistics cannot be shared from here.

    These are layers that keep numbers which are not trained, besides seeds of random numbers, and layers that are
    BatchNormalization but compute by themselves.
    """
    found = []
    for layer in model._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            # A class that computes by itself may not look at `synchronized` at all.
            foreign = type(layer).call not in (layers.BatchNormalization.call, BatchNormalization.call)
        else:
            # What is no BatchNorm yet keeps numbers that do not train, in code of others: likely statistics, too.
            kept = [v for v in layer._non_trainable_variables if keras.backend.is_float_dtype(v.dtype)]
            foreign = bool(kept) and type(layer).__module__.split(".")[0] not in ("keras", "tf_simclr")
        found += [f"{layer.name} ({type(layer).__name__})"] * foreign
    return found


def warn_of_local_statistics(model: layers.Layer) -> None:
    """Warns whoever gives an encoder whose BatchNorm sees one replica's part of a batch, unsaid, on several."""
    if not replicas.synchronize():
        return
    # An encoder from `resnet` or with Keras' synchronised layers is as SimCLR wants it; `share_statistics` has
    # told its caller already.
    local = [
        layer.name
        for layer in model._flatten_layers()
        if isinstance(layer, layers.BatchNormalization) and not isinstance(layer, BatchNormalization)
        if not layer.synchronized and layer not in _decided
    ]
    if local:
        warnings.warn(
            f"{len(local)} BatchNormalization layers of the encoder ({', '.join(local[:3])}{' …' * (len(local) > 3)}) "
            f"see one replica's part of a batch, which is divided among {replicas.count()}: make them with "
            "synchronized=True for statistics of all",
            stacklevel=2,
        )


_NAMES = ("float32", "bfloat16", "float16")


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Layers and models made within compute in `name`; weights, BatchNorm's statistics and losses stay in floatx.

    A model that computes in float16 needs its loss scaled: `optimizers.LossScale`.

    Args:
        name: float32 (whatever Keras is set to), bfloat16 or float16.

    Raises:
        InputError: another name.

    Example:
        >>> with precision("bfloat16"):
        ...     layer = keras.layers.Dense(3)
        >>> layer.compute_dtype, layer.variable_dtype, keras.layers.Dense(3).compute_dtype
        ('bfloat16', 'float32', 'float32')
    """
    check(name in _NAMES, f"precision must be one of {', '.join(_NAMES)}", precision=name)
    # Keras' policy is global: it is put back even where building fails.
    before = keras.config.dtype_policy()
    try:
        if name != "float32":
            keras.config.set_dtype_policy(f"mixed_{name}")
        yield
    finally:
        keras.config.set_dtype_policy(before)
