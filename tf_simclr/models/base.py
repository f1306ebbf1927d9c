"""What all models of this package share as Keras models: how they are built, fed, weighed and protected."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Protocol

import keras
from keras import ops

from tf_simclr import replicas
from tf_simclr.errors import InputError, check, in_one_line, surfacing
from tf_simclr.models import labels as labelled
from tf_simclr.models import parts
from tf_simclr.models.normalization import warn_of_local_statistics
from tf_simclr.optimizers import left_to_loss
from tf_simclr.replicas.fitting import strategy_of

_PARTS = ("encoder", "projection")
"""Arguments of the constructor that are models."""


class _Step:
    """The number of the training step that is being computed; 0 outside of one."""

    number = 0


class MakesViews(Protocol):
    """A batch of any kind to its views: `(n, 2, *shape)` for contrast, `(n, *shape)` for a classifier."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a view: height, width, channels."""

    def __call__(self, batch: dict) -> Any:
        """The views."""


class Trained(replicas.FitOnReplicas, keras.Model):
    """A model around an encoder of any kind: `compile` and `fit` are the only loop.

    A subclass makes the parts that depend on the encoder's features in `make_parts`, says in `label_range` which labels
    it takes, computes `compute_loss` and gives what it observes to `self.means` by `observe`.

    An encoder that knows the shape of its images, or takes any, is built at once; another one by the first batch.

    Batches that are dictionaries are none of images yet: `views_of` makes them within the step.
    """

    OPTIONS: tuple[str, ...]
    """Arguments of the constructor that are plain values; a saved model keeps them."""
    encoder: keras.Model
    projection: Any
    weight_decay: float
    means: dict[str, keras.metrics.Mean]
    views_of: MakesViews | None = None
    jit_compile: bool

    def begin(self, encoder) -> None:
        """Builds what can be built before the first batch."""
        self.clock = _Step()
        # None: the encoder has no shape yet, as a Sequential without an input: the first batch gives it.
        shape = parts.images_shape(encoder)
        warn_of_local_statistics(encoder)
        if shape is not None:
            self.build_parts(shape)
            self.built = True

    def build_parts(self, images: tuple) -> None:
        """Builds the encoder for images of a shape, and what its features go into."""
        self.images_shape = images
        # A symbolic call: no pixel is computed, yet the encoder's variables come into being.
        width = parts.features_spec(self.encoder, images).shape[-1]
        rule = "encoder must give features of a known length; give it images of one size, by keras.Input((h, w, 3))"
        check(width is not None, rule, input_shape=images)
        self.make_parts(width)

    def make_parts(self, width: int) -> None:
        """Makes and builds what takes features `(n, width)`."""
        raise NotImplementedError

    def build(self, images_shape):
        """Builds the parts for a first batch."""
        if isinstance(images_shape, dict):
            # A dictionary has no shape of images; what makes its views has.
            images_shape = (None, *self.maker(keys=sorted(images_shape)).shape)
        if not hasattr(self, "images_shape"):
            # The last three of (n, h, w, c), and of (n, 2, h, w, c).
            self.build_parts((None, *images_shape[-3:]))

    def build_for(self, data):
        """Builds by the first batch of data what is not built yet: callbacks such as BackupAndRestore need it.

        Returns:
            What to read in place of the data: a generator has the batch that was looked at in front again.
        """
        if self.built or data is None:
            return data
        # A tf.data.Dataset tells its elements' shapes, an array its own; anything else makes its first batch, which
        # but for a generator's it makes once more.
        first = getattr(data, "element_spec", data)
        plain = isinstance(data, dict | list | tuple) or hasattr(data, "shape")
        if first is data and not plain and (hasattr(data, "__iter__") or hasattr(data, "__getitem__")):
            batches = iter(data)
            first = next(batches, None)
            if batches is data and first is not None:
                data = _with_first(first, batches)
        # (images, labels) has the images first.
        while isinstance(first, list | tuple) and first and not hasattr(first, "shape"):
            first = first[0]
        shape: Any = {name: one.shape for name, one in first.items()} if isinstance(first, dict) else None
        if shape is None and getattr(first, "shape", None) is not None:
            shape = tuple(first.shape)
        if shape is not None:
            # Variables made within the strategy's scope are mirrored
            # on its replicas; outside they would be on one device.
            strategy = strategy_of(self)
            with strategy.scope() if strategy else contextlib.nullcontext():
                self.build(shape)
        return data

    def maker(self, **received) -> MakesViews:
        """What makes views of batches.

        Raises:
            InputError: nothing does.
        """
        if self.views_of is None:
            raise InputError(f"batches that are dictionaries need views_of, which makes views. Received: {received}")
        return self.views_of

    def viewed(self, batch):
        """The images of a batch, which may be what they are to be made of.

        Raises:
            InputError: they are integers.
        """
        if isinstance(batch, dict):
            return self.maker(keys=sorted(batch))(batch)
        kind = keras.backend.standardize_dtype(batch.dtype)
        rule = "images must be floats in [0, 1]; divide integers by the largest that they can be (255 for uint8)"
        check("int" not in kind and kind != "bool", rule, dtype=kind)
        return batch

    def label_range(self) -> tuple[int, int] | None:
        """The number of classes, 0 for any, and the smallest label; None where labels are not looked at."""
        raise NotImplementedError

    def compile_from_config(self, config):
        """As Keras' own, which refuses a model whose `compile` does more."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            # A loaded model has its optimizer's slots at once: a checkpoint that is read next finds places for them.
            self.optimizer.build(self.trainable_variables)

    def fit(self, x=None, y=None, *rest, **options):
        """As Keras' own; labels that lie in memory are looked at before the first step."""
        _check_any(x)
        x = self.build_for(x)  # first: layers tell what may be alone in a batch
        size = _batch_size(rest, options, split=options.get("validation_split"))
        self.check_batches(x, batch_size=size, training=True)
        held = options.get("validation_data")
        # (images, labels, weights): what comes behind the labels is handed on as it is.
        if isinstance(held, list | tuple) and len(held) > 1:
            options["validation_data"] = (held[0], self.given(held[1]), *held[2:])
        with replicas.evenly(self):
            return super().fit(x, self.given(y, options), *rest, **options)

    def evaluate(self, x=None, y=None, *rest, **options):
        """As Keras' own; every number is a mean over examples, however they are in batches."""
        _check_any(x)
        x = self.build_for(x)
        self.check_batches(x, batch_size=_batch_size(rest, options), training=False)
        with replicas.evenly(self):
            return super().evaluate(x, self.given(y, options), *rest, **options)

    def predict(self, x, *rest, **options):
        """As Keras' own."""
        x = self.build_for(x)
        with replicas.evenly(self):
            return super().predict(x, *rest, **options)

    def train_on_batch(self, x, y=None, *rest, **options):
        """As Keras' own."""
        # Keras gives weights by position, too: `given` has to see them to refuse them.
        weights = dict(zip(("sample_weight", "class_weight"), rest, strict=False))
        x = self.build_for(x)
        with replicas.evenly(self):
            return super().train_on_batch(x, self.given(y, weights | options), *rest, **options)

    def test_on_batch(self, x, y=None, *rest, **options):
        """As Keras' own."""
        weights = dict(zip(("sample_weight",), rest, strict=False))
        x = self.build_for(x)
        with replicas.evenly(self):
            return super().test_on_batch(x, self.given(y, weights | options), *rest, **options)

    def predict_on_batch(self, x):
        """As Keras' own."""
        return super().predict_on_batch(self.build_for(x))

    def check_batches(self, x, *, batch_size: int | None, training: bool) -> None:
        """Refuses examples in memory that make a batch which the model cannot use, before the first step.

        Args:
            x: anything that `fit` and `evaluate` take.
            batch_size: of arrays; None where it is not known beforehand.
            training: whether it is to learn from them.
        """

    def several(self, data, *, training: bool):
        """A batch, whose step fails where the model cannot use so few examples."""
        return data

    def prepared(self, y):
        """The targets as the loss takes them, whose step fails where they are none; as they are if it takes none."""
        if (wanted := self.label_range()) is None:
            return y
        classes, least = wanted
        return labelled.prepared(y, classes=classes, least=least)

    def given(self, y, options: Mapping = MappingProxyType({})):
        """The targets to use, of those that a method of Keras was called with.

        Raises:
            InputError: the model cannot use them, or the weights that came with them.
        """
        labelled.check_weights(options, classes=getattr(self, "num_classes", 0))
        if y is None or (wanted := self.label_range()) is None:
            return y
        classes, least = wanted
        # Targets with a teacher's answers beside the labels.
        if isinstance(y, dict):
            own = {"label": labelled.given(y["label"], classes=classes, least=least)} if "label" in y else {}
            return y | own
        y = labelled.given(y, classes=classes, least=least)
        labelled.check_weighable(y, options)
        return y

    def _make_function(self, step_function: Callable, **options):
        """As Keras' own; labels out of their range are said in one sentence."""
        if keras.backend.backend() == "jax":
            function = super()._make_function(step_function, **options)
            # JAX compiles the step whole and can fail nowhere in it: labels are looked at on their way in.
            return replicas.given_back(self, lambda state, iterator: function(state, map(self.seen, iterator)))
        with self._looking(step_function) as step:
            function = super()._make_function(step, **options)

        def checked(iterator):
            import tensorflow as tf

            try:
                with surfacing():  # what was refused while a step of several replicas was traced
                    return function(iterator)
            # TensorFlow's error is a page of graph nodes; the sentences that the step itself asserted are within it.
            except tf.errors.InvalidArgumentError as error:
                raise labelled.told(error) or replicas.told(error) or error from None

        return checked

    @contextlib.contextmanager
    def _looking(self, step_function: Callable) -> Iterator[Callable]:
        """A step whose batches are looked at where something can fail: in front of what XLA compiles, not in it."""
        if not self.jit_compile or self.run_eagerly or strategy_of(self) is not None:
            yield step_function
            return
        import tensorflow as tf

        compiled = tf.function(step_function, jit_compile=True, reduce_retracing=True, autograph=False)
        training = step_function == self.train_step

        def step(data):
            data = self.several(data, training=training)
            images, *others = data if isinstance(data, list | tuple) else [data]
            labels = others[0] if others else None
            labels = labels.get("label") if isinstance(labels, dict) else labels
            looks = [] if labels is None else keras.tree.flatten(self.prepared(labels))
            with tf.control_dependencies(looks):
                images = keras.tree.map_structure(tf.identity, images)
            return compiled((images, *others))

        self.jit_compile = False  # Keras would compile the looks, too
        try:
            yield step
        finally:
            self.jit_compile = True

    def seen(self, batch):
        """A batch whose labels were looked at, with its images: within a step JAX refuses nothing and holds nothing."""
        if isinstance(batch, list | tuple) and len(batch) > 1:
            # Labels of several processes are looked at by each for its own rows.
            self.given(keras.tree.map_structure(replicas.rows_here, batch[1]))
        with_images = getattr(self.views_of, "with_images", None)
        if with_images is not None and isinstance(batch, list | tuple) and batch:
            batch = (with_images(batch[0]), *batch[1:])
        return batch

    def train_step(self, *inputs):
        """As Keras' own; where float16 overflows, nothing that is not a number stays in the model's state.

        A scaled loss skips the step of the weights. What the forward pass has moved itself, statistics of BatchNorm or
        MoCo's queue, is put back.
        """
        if keras.backend.backend() == "jax":
            return self.train_step_of_jax(*inputs)
        # 1. What the forward pass will move, as it is.  2. Keras' step, at the step's own number, by which losses draw.
        # 3. Where something is no number now, all of it goes back: a skipped step has not happened.
        kept = [(v, ops.copy(v)) for v in self.protected()]
        # The optimizer's count, which also a resumed run has: the same step draws the same numbers.
        self.clock.number = self.optimizer.iterations if self.optimizer else 0
        try:
            logs = super().train_step(*inputs)
        finally:
            self.clock.number = 0
        if kept:
            finite = _all_finite([v for v, _ in kept])
            for variable, value in kept:
                # One scalar decides: all variables keep their new values, or none does.
                variable.assign(ops.where(finite, variable, value))
        return logs

    def train_step_of_jax(self, state, data):
        """The same for a step that is a function of its state."""
        # JAX's optimizer is a list of tensors: the count of steps is found by its place among the variables.
        places = {id(v): i for i, v in enumerate(self.optimizer.variables)}
        inner: Any = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        counts = (self.optimizer.iterations, inner._iterations)
        # With loss scaling one of two counts is among them (`LossScale`), else there is one.
        self.clock.number = state[2][next(places[id(v)] for v in counts if id(v) in places)]
        try:
            logs, after = super().train_step(state, data)
        finally:
            self.clock.number = 0
        protected = {id(v) for v in self.protected()}
        # JAX's state is (trainable, non-trainable, optimizer, metrics), new beside old.
        pairs = list(zip(self.non_trainable_variables, state[1], after[1], strict=True))
        finite = _all_finite([new for v, _, new in pairs if id(v) in protected])
        states = [ops.where(finite, new, old) if id(v) in protected else new for v, old, new in pairs]
        return logs, (after[0], states, *after[2:])

    def protected(self) -> list:
        """Variables that a forward pass moves and that have to stay numbers."""
        # Nothing overflows in float32 and bfloat16, whose range is the same: the copies would be for nothing.
        if not isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            return []
        return [v for v in self.non_trainable_variables if keras.backend.is_float_dtype(v.dtype)]

    def observe(self, name: str, value, *, weight=None) -> None:
        """Adds a number a replica, or an example, to a mean.

        Args:
            name: of the mean.
            value: this replica's mean over its examples, a scalar, or one number an example.
            weight: how many examples a scalar stands for, or the weight of each.
        """
        self.means[name].update_state(value, sample_weight=weight)

    def observe_losses(self, losses: dict, *, examples):
        """Adds this replica's parts of the losses, each with its number of examples; returns their sum."""
        # A replica's mean stands for its examples: means of replicas with fewer weigh less.
        weight = ops.cast(examples, keras.config.floatx())
        for name, loss in losses.items():
            # Losses come divided by the number of replicas, as their
            # sum over replicas is the gradient's; a metric is a mean.
            self.observe(name, loss * replicas.count(), weight=weight)
        return sum(losses.values())

    def decay_of(self, variables: list, *, head: list):
        """This replica's part of the L2 term of variables, as far as the optimizer does not decay them itself.

        Args:
            variables: that are decayed.
            head: kernels that are, whatever the optimizer does (`optimizers.left_to_loss`).
        """
        variables = left_to_loss(self.optimizer, variables, head=head)
        # Without decay nothing is summed: the squares of all weights would be computed each step for a zero.
        squares = sum(ops.sum(ops.square(v)) for v in variables) if self.weight_decay else 0.0
        # A part a replica, as losses are summed over them.
        return ops.cast(0.5 * self.weight_decay * squares / replicas.count(), keras.config.floatx())

    def get_config(self):
        parts = {n: keras.saving.serialize_keras_object(getattr(self, n)) for n in _PARTS}
        return super().get_config() | parts | {name: getattr(self, name) for name in self.OPTIONS}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        parts = {n: keras.saving.deserialize_keras_object(config[n], custom_objects) for n in _PARTS}
        return cls(**config | parts)

    def compiled_metrics(self, y, y_pred, *, sample_weight=None) -> None:
        """Updates the metrics that `compile` took, of labels and logits."""
        if self._compile_metrics is None:
            return
        try:
            self._compile_metrics.update_state(y, y_pred, sample_weight)
        except (TypeError, ValueError) as error:
            rule = f"each of compile's metrics must take labels {tuple(y.shape)} and logits {tuple(y_pred.shape)}"
            raise InputError(
                f"{rule} (some take one-hot rows alone, or probabilities); Keras says: {in_one_line(error)}"
            ) from error


def share(losses):
    """This replica's part of the mean of the losses `(n,)` of all replicas; 0 of a replica without an example.

    The last batch of arrays may give replicas unequal parts.  The gradient is then that of the mean over all examples;
    the value is a part of the mean over this replica's, since Keras' own mean weighs it by their number.
    """
    # Gradients are summed over replicas, and Keras divides no scalar by them (docs/official-code.md#scalar-losses).
    # At least 1: a replica without an example in the last batch has the sum 0 and must not divide it by 0.
    count = ops.shape(losses)[0]
    whole, mean = replicas.total(count), ops.sum(losses) / ops.cast(ops.maximum(count, 1), losses.dtype)
    mean = mean / replicas.count()
    if replicas.count() == 1 or isinstance(count, int):
        return mean
    part = ops.sum(losses) / ops.cast(ops.maximum(whole, 1), losses.dtype)
    return part + ops.stop_gradient(mean - part)


def _batch_size(rest: tuple, options: Mapping, *, split: float | None = None) -> int | None:
    """Examples a batch of arrays, by what came behind them; None where a part of them is held back first."""
    given = rest[0] if rest else options.get("batch_size")
    return None if split else given or _USUAL


_USUAL = 32
"""Examples a batch of arrays where nothing is said: Keras' number."""


def _check_any(x) -> None:
    """Raises `InputError` where there is no example: Keras would do nothing, and say nothing."""
    counted = hasattr(x, "shape") and len(x.shape) > 0
    check(
        not counted or x.shape[0] != 0, "there must be at least one example", shape=tuple(x.shape) if counted else None
    )


def _with_first(first, rest: Iterator) -> Iterator:
    """A batch that was taken from a generator, and those behind it; a generator, which is what Keras takes."""
    yield first
    yield from rest


def _all_finite(values):
    """Whether every number is finite, a scalar tensor."""
    return ops.all(ops.stack([ops.all(ops.isfinite(v)) for v in values])) if values else True


def no_loss_of_ones_own(loss, *, what: str) -> None:
    """Raises `InputError` where `compile` was given a loss that the model would not use."""
    if loss is not None:
        raise InputError(f"{what}; compile it without a loss. Received: loss={loss!r}")
