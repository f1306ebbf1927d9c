"""The fused kernel does what Keras' formula does in double precision."""

import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_simclr.models import network
from tf_simclr.models.normalization import BatchNormalization, Normalization, precision
from tf_simclr.models.resnet import projection_head

ROUNDING = {"float32": 3e-6, "bfloat16": 2e-2, "float16": 2e-3}
"""Of the largest value; outputs and gradients of images are rounded to the type, sums over them accumulate."""
STATISTICS = 1e-5
"""Moving statistics are float32 in any precision."""


def filled(kind, channels: int, **options):
    """A layer with random weights, always the same ones."""
    rng = np.random.default_rng(1)
    layer = kind(momentum=0.9, epsilon=1e-5, **options)
    layer.build((None, None, None, channels))
    for variable in layer.variables:
        low = 0.5 if variable.name in ("gamma", "moving_variance") else -1.0
        variable.assign(rng.uniform(low, 1.5, channels))
    return layer


def step(layer, x, upstream, *, training: bool, graph: dict | None = None):
    """Outputs, gradients of images, scale and offset, and the moving statistics afterwards."""

    def gradients():
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=training)
            total = tf.reduce_sum(tf.cast(y, upstream.dtype) * upstream)
        sources = [x, *(v.value for v in (layer.gamma, layer.beta) if v is not None)]
        return [y, *tape.gradient(total, sources)]

    found = gradients() if graph is None else tf.function(gradients, **graph)()
    return [tf.cast(v, tf.float64).numpy() for v in (*found, layer.moving_mean.value, layer.moving_variance.value)]


def in_double(x, upstream, *, training: bool, **options):
    """The same by Keras' layer in float64."""
    layer = filled(keras.layers.BatchNormalization, x.shape[-1], dtype="float64", **options)
    return step(layer, tf.cast(x, tf.float64), tf.cast(upstream, tf.float64), training=training)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("shape", [(4, 7, 5, 6), (1, 1, 1, 3), (16, 8, 8, 32)])
def test_the_fused_kernel_equals_the_formula(shape, kind, training):
    rng = np.random.default_rng(0)
    x = tf.cast(rng.normal(size=shape) * 3 + 2, kind)
    upstream = tf.constant(rng.normal(size=shape), "float32")
    layer = filled(BatchNormalization, shape[-1], dtype=kind if kind == "float32" else f"mixed_{kind}")
    assert layer.fuses(x)
    ours, theirs = step(layer, x, upstream, training=training), in_double(x, upstream, training=training)
    for place, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        limit = ROUNDING[kind] if place < 4 else STATISTICS
        assert abs(a - b).max() <= limit * max(1, abs(b).max()), place


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["graph", "XLA"])
def test_it_does_so_in_a_graph_and_without_an_offset(compiled):
    rng = np.random.default_rng(0)
    x, upstream = (tf.constant(rng.normal(size=(4, 3, 3, 2)), "float32") for _ in range(2))
    ours = step(
        filled(BatchNormalization, 2, center=False), x, upstream, training=True, graph={"jit_compile": compiled}
    )
    for a, b in zip(ours, in_double(x, upstream, training=True, center=False), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_features_double_precision_and_masks_take_keras_formula():
    layer = BatchNormalization()
    layer.build((None, 4))
    assert not layer.fuses(tf.zeros((3, 4)))
    assert not layer.fuses(tf.zeros((3, 2, 2, 4), tf.float64))
    assert layer.fuses(tf.zeros((3, 2, 2, 4)))


def test_global_statistics_on_replicas_take_keras_formula():
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        assert not BatchNormalization(synchronized=True).fuses(tf.zeros((3, 2, 2, 4)))
        assert BatchNormalization(synchronized=False).fuses(tf.zeros((3, 2, 2, 4)))


def test_a_plain_copy_has_the_same_weights_and_needs_nothing_but_keras(tmp_path):
    with precision("bfloat16"):
        images = keras.Input((8, 8, 3), name="images")
        x = Normalization().layer("bn")(keras.layers.Conv2D(4, 3, name="conv")(images))
        x = keras.ops.reshape(keras.layers.GlobalAveragePooling2D(name="pool")(x), (-1, 4))
        model = keras.Model(images, {"features": x, "z": projection_head(4, 2)(x)[-1]})
    copy = network.plain(model)
    copy.save(tmp_path / "network.keras")
    with zipfile.ZipFile(tmp_path / "network.keras") as file:
        config = file.read("config.json").decode()
    assert "tf_simclr" not in config
    assert "bfloat16" not in config
    theirs = network.weights_by_name(model)
    for name, weight in network.weights_by_name(copy).items():
        np.testing.assert_array_equal(weight, theirs[name])
    images = np.random.default_rng(0).uniform(size=(2, 8, 8, 3)).astype("float32")
    for name, end in model(images).items():
        expected = copy(images)[name]
        np.testing.assert_allclose(tf.cast(end, "float32"), expected, atol=0.03 * np.abs(expected).max(), err_msg=name)


def test_it_needs_nothing_that_keras_3_12_lacks():
    """Python 3.10 has no later Keras, and its layer no `renorm`."""
    layer, x = filled(BatchNormalization, 3), tf.ones((2, 4, 4, 3))
    expected = layer(x, training=False)
    del layer.renorm
    np.testing.assert_array_equal(layer(x, training=False), expected)
