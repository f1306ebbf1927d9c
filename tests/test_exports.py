"""Exports, each loaded again in its own runtime."""

from importlib.util import find_spec

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_simclr import exports
from tf_simclr.errors import InputError
from tf_simclr.models import network
from tf_simclr.models.architecture import Architecture


@pytest.fixture(scope="module")
def small():
    """A network of two endpoints and one convolution, with weights away from their start."""
    images = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(8, 3, strides=2, name="conv", use_bias=False)(images)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(name="bn")(x))
    features = keras.layers.GlobalAveragePooling2D()(x)
    logits = keras.layers.Dense(5, name="dense")(features)
    model = keras.Model(images, {"final_avg_pool": features, "logits_sup": logits, "initial_conv": x})
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.uniform(0.5, 1.5, weight.shape) * rng.choice([-1, 1], weight.shape[-1:]) ** (weight.ndim > 1))
    return model


def images(n: int = 6, size: int = 16, *, uint8: bool = False) -> np.ndarray:
    """Noise in a colour of its own each, so that the logits differ by more than eight bits' rounding."""
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (n, size, size, 3)) * rng.uniform(0, 1, (n, 1, 1, 3))
    return pixels.astype(np.uint8) if uint8 else pixels.astype(np.uint8).astype(np.float32) / 255


def needed(kind: str) -> None:
    for package in exports.FORMATS[kind].needs:
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed (extra `export`)")


LARGEST = {"keras": 1e-6, "savedmodel": 1e-6, "onnx": 1e-5, "tflite": 1e-5, "tflite-int8": 0.05}
"""Differences over the largest magnitude; eight bits resolve 1/256 in each of three layers."""


@pytest.mark.parametrize("uint8", [False, True], ids=["float", "uint8"])
@pytest.mark.parametrize("kind", exports.FORMATS)
def test_an_export_gives_in_its_own_runtime_what_the_network_gives(small, tmp_path, kind, uint8):
    needed(kind)
    model = exports.serving(small, uint8=uint8)
    path = tmp_path / f"small{exports.FORMATS[kind].ending}"
    exports.write(model, path, kind=kind, samples=[images(8, uint8=uint8)])
    report = exports.compare(model, path, kind=kind, images=images(uint8=uint8))
    assert report.keys() == {"final_avg_pool", "logits_sup", "top1"}
    assert max(report["final_avg_pool"], report["logits_sup"]) <= LARGEST[kind]
    assert report["top1"] >= 5 / 6


def test_bytes_are_divided_by_255_inside(small):
    got = exports.serving(small, uint8=True)(images(uint8=True))["logits_sup"]
    np.testing.assert_allclose(got, small(images())["logits_sup"], rtol=1e-4, atol=1e-5)


def test_a_savedmodel_trains_on(small, tmp_path):
    model = exports.serving(small)
    exports.write(model, tmp_path / "saved", kind="savedmodel")
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(loaded(tf.constant(images()), trainable=True)["logits_sup"] ** 2)
    gradients = tape.gradient(loss, loaded.trainable_variables)
    assert len(gradients) == len(small.trainable_variables) == 5
    assert all(np.abs(g).max() > 0 for g in gradients if g is not None)
    assert sum(g is None for g in gradients) == 0


def test_images_of_any_size_are_resized_inside_if_asked(small, tmp_path):
    model = exports.serving(small, image_size=16)
    exports.write(model, tmp_path / "saved", kind="savedmodel")
    got = exports.run_savedmodel(tmp_path / "saved", images(size=32))["final_avg_pool"]
    resized = tf.image.resize(images(size=32), (16, 16))
    np.testing.assert_allclose(got, small(resized)["final_avg_pool"], rtol=1e-4, atol=1e-5)


def test_a_changed_export_is_noticed(small, tmp_path):
    model = exports.serving(small)
    exports.write(model, tmp_path / "m.keras", kind="keras")
    before = small.get_layer("dense").kernel.numpy()
    small.get_layer("dense").kernel.assign(before * 1.5)
    report = exports.compare(model, tmp_path / "m.keras", kind="keras", images=images())
    small.get_layer("dense").kernel.assign(before)
    assert report["logits_sup"] > 0.1
    assert report["final_avg_pool"] < 1e-6


def test_what_is_missing_is_named(small, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"endpoints must be among .*endpoints=\['proj_1'\]"):
        exports.serving(small, endpoints=("proj_1",))
    monkeypatch.setattr(exports, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"onnx needs tf2onnx, onnx, onnxruntime: pip install 'tf-simclr\[export\]'"):
        exports.write(exports.serving(small), tmp_path / "x", kind="onnx", samples=[images()])
    monkeypatch.undo()
    needed("tflite")
    with pytest.raises(InputError, match="tflite needs images"):
        exports.write(exports.serving(small), tmp_path / "x", kind="tflite")


@pytest.mark.slow
@pytest.mark.parametrize("kind", exports.FORMATS)
def test_a_resnet_is_exported_to_every_format(tmp_path, kind):
    needed(kind)
    model = exports.serving(network.build(Architecture(depth=18, num_classes=10, proj_head_mode="none")))
    path = tmp_path / f"resnet{exports.FORMATS[kind].ending}"
    exports.write(model, path, kind=kind, samples=[images(16, 32)])
    report = exports.compare(model, path, kind=kind, images=images(8, 32))
    assert report["final_avg_pool"] <= {**LARGEST, "tflite-int8": 0.15}[kind]
