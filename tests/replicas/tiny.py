"""A small SimCLR with all parts – convolution, BatchNorm, projection head, probe – trained on any devices.

`python -m tests.replicas.tiny FILE [MICROBATCH_SIZE [float64]]` trains it on what `find("auto")` finds, and writes all
that came of it.
"""

import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tf_simclr import optimizers
from tf_simclr.losses import NTXent
from tf_simclr.models.normalization import Normalization
from tf_simclr.models.resnet import projection_head
from tf_simclr.models.simclr import SimCLR
from tf_simclr.replicas import Devices, find
from tf_simclr.run_folder import state

BATCH, SIZE, CLASSES = 8, 8, 3


def stream(step: int, *, share: tuple[int, int] = (0, 1)) -> tf.data.Dataset:
    """Endless batches, each a function of its number alone."""
    rows, first = BATCH // share[1], share[0] * (BATCH // share[1])

    def batch(number):
        seed = tf.stack([number, 7])
        views = tf.random.stateless_uniform((BATCH, 2, SIZE, SIZE, 3), seed, dtype=keras.config.floatx())
        labels = tf.random.stateless_uniform((BATCH,), seed, maxval=CLASSES, dtype=tf.int32)
        return views[first : first + rows], labels[first : first + rows]

    return tf.data.Dataset.counter(step).map(batch)


def model(
    devices: Devices, *, optimizer: str = "lars", jit_compile: bool | None = None, microbatch_size: int = 0
) -> SimCLR:
    """A compiled model whose weights are the same on all backends, and none of them zero."""
    with devices.scope():
        normalization = Normalization()
        x = images = keras.Input((SIZE, SIZE, 3))
        x = keras.layers.Conv2D(4, 3, use_bias=False, name="conv")(x)
        x = keras.layers.ReLU()(normalization.layer("bn")(x))
        encoder = keras.Model(images, keras.layers.GlobalAveragePooling2D()(x), name="encoder")
        head = projection_head(4, 2, proj_out_dim=6, normalization=normalization)
        made = SimCLR(encoder, head, num_classes=CLASSES, weight_decay=1e-3, microbatch_size=microbatch_size)
        chosen = optimizers.build(optimizer, 0.1, weight_decay=1e-3)
        made.compile(chosen, NTXent(0.5), jit_compile=devices.jit_compile(jit_compile))
        chosen.build(made.trainable_variables)
    random = np.random.RandomState(0)
    for name, variable in sorted(state(made).items()):
        if name.startswith("model/"):
            positive = name.endswith(("gamma", "moving_variance"))
            size = tuple(variable.shape)
            variable.assign(random.uniform(0.5, 1.5, size) if positive else random.standard_normal(size))
    return made


def permuted(seed: int):
    """`stream` with each batch's rows in another order, which changes nothing but the order of sums."""
    order = np.random.RandomState(seed).permutation(BATCH)

    def changed(step: int, *, share: tuple[int, int] = (0, 1)) -> tf.data.Dataset:
        assert share == (0, 1)
        return stream(step).map(lambda *parts: tuple(tf.gather(part, order) for part in parts))

    return changed


def trained(devices: Devices, *, at_once: int = 1, stream=stream, **options) -> dict[str, np.ndarray]:
    """State and logs after the first step, under `1/…`, and after the fifth, under `5/…`; the last four `at_once`.

    With the optimizer `momentum` the first step's accumulators are the gradients.
    """
    made, found = model(devices, **options), {}
    for step, steps in ((0, 1), (1, 4)):
        if steps == 4 and at_once != 1:
            made.steps_per_execution = at_once
            made.make_train_function(force=True)
        logs = devices.fit(made, stream, step=step, steps_per_epoch=steps, verbose=0)
        values = {name: variable.numpy() for name, variable in state(made).items()}
        values |= {f"logs/{name}": np.array(value) for name, value in logs.items()}
        found |= {f"{step + steps}/{name}": value for name, value in values.items()}
    return found


def differences(found: dict, expected: dict) -> dict[str, float]:
    """Largest difference relative to the largest magnitude, over the values of a kind: `5/model`, `1/logs`, …"""
    assert found.keys() == expected.keys()
    worst: dict[str, float] = {}
    for name, value in expected.items():
        kind = "/".join(name.split("/")[:2])
        difference = np.abs(found[name] - value).max() / max(np.abs(value).max(), 1e-30)
        worst[kind] = max(worst.get(kind, 0.0), float(difference))
    return worst


def compute_in(floatx: str) -> None:
    """Has Keras compute in `float32`, or in `float64`, also on JAX, if nothing has computed yet."""
    if floatx == "float64" and keras.backend.backend() == "jax":
        import jax
        from keras.src.backend.common import dtypes

        jax.config.update("jax_enable_x64", True)
        dtypes.BIT64_TO_BIT32_DTYPE["float64"] = "float64"  # on JAX, Keras' BatchNorm computes in float32 else
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(floatx)


if __name__ == "__main__":
    if len(sys.argv) > 3:
        compute_in(sys.argv[3])
    here = find()
    sys.stderr.write(f"{here.description}\n")
    options = {"microbatch_size": int(sys.argv[2]) if len(sys.argv) > 2 else 0}
    results = {
        f"{name}|{key}": value
        for name in ("lars", "momentum")
        for key, value in trained(here, optimizer=name, **options).items()
    }
    if here.chief:
        np.savez(Path(sys.argv[1]), **results)
