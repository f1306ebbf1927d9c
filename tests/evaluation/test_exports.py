"""Exports, each loaded again in its own runtime."""

import dataclasses
import json
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_simclr import exports
from tf_simclr.data.images import evaluation_view
from tf_simclr.data.recipe import evaluation_proportion
from tf_simclr.errors import InputError
from tf_simclr.models import network
from tf_simclr.models.architecture import Architecture
from tf_simclr.models.evaluation_view import EvaluationView

ROOT = Path(__file__).parents[2]


def made(channels: int) -> keras.Model:
    """A network of one convolution, BatchNorm and two heads, with weights and statistics away from their start."""
    pixels = keras.Input((None, None, channels))
    x = keras.layers.Conv2D(8, 3, strides=2, name="conv", use_bias=False)(pixels)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(name="bn")(x))
    features = keras.layers.GlobalAveragePooling2D()(x)
    logits = keras.layers.Dense(5, name="dense")(features)
    model = keras.Model(pixels, {"final_avg_pool": features, "logits_sup": logits, "initial_conv": x})
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.uniform(0.5, 1.5, weight.shape) * rng.choice([-1, 1], weight.shape) ** (weight.ndim > 1))
    # Logits about zero on the images below, so that the largest one is not the bias'.
    dense = model.get_layer("dense")
    dense.bias.assign(-np.mean(model(images(64, channels=channels))["final_avg_pool"] @ dense.kernel, axis=0))
    return model


@pytest.fixture
def small():
    return made(3)


def images(n: int = 6, height: int = 16, width: int = 16, *, uint8: bool = False, channels: int = 3) -> np.ndarray:
    """Noise in a colour of its own each, so that the logits differ by more than eight bits' rounding."""
    rng = np.random.default_rng(height * width)
    pixels = rng.integers(0, 256, (n, height, width, channels)) * rng.uniform(0, 1, (n, 1, 1, channels))
    return pixels.astype(np.uint8) if uint8 else pixels.astype(np.uint8).astype(np.float32) / 255


def needed(kind: str) -> None:
    for package in exports.FORMATS[kind].needs:
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed (extra `export`)")


LARGEST = {"keras": 1e-6, "savedmodel": 1e-6, "onnx": 1e-5, "tflite": 1e-5, "tflite-int8": 0.03}
"""Differences over the largest magnitude; eight bits resolve 1/256 in each of three layers, and of the view inside."""


@pytest.mark.parametrize("resize", [0, 16], ids=["", "resize"])
@pytest.mark.parametrize("uint8", [False, True], ids=["float", "uint8"])
@pytest.mark.parametrize("kind", exports.FORMATS)
def test_an_export_gives_in_its_own_runtime_what_the_network_gives(small, tmp_path, kind, uint8, resize):
    """From raw pixels, one at a time and together: 23 % of one container's answers were others before."""
    needed(kind)
    serving = exports.Serving(network=small, image_size=resize, uint8=uint8)
    raw = [images(20, 16, 16, uint8=uint8)]
    raw += [images(10, 20, 31, uint8=uint8), images(10, 40, 18, uint8=uint8)] if resize else []
    if kind == "tflite-int8":  # eight bits tell apart what lies a few of their steps apart
        raw = [clear(serving, batch) for batch in raw]
    path = tmp_path / f"small{exports.FORMATS[kind].ending}"
    before = [weight.numpy() for weight in small.weights]
    report = exports.export(serving, path, kind=kind, images=raw)
    assert report.differences.keys() == {"final_avg_pool", "logits_sup"}
    assert max(report.differences.values()) <= LARGEST[kind]
    assert report.images == sum(map(len, raw))
    # An oracle of its own: pixels by hand, BatchNorm by its formula.
    run = exports.FORMATS[kind].opened(path)
    for batch in raw:
        seen = batch / np.float32(255) if uint8 else batch
        if resize:
            seen = np.stack([evaluation_view(tf.constant(image, tf.float32), size=resize) for image in seen])
        want = by_formula(small, seen)
        for rows in (slice(0, len(batch)), slice(3, 4)):
            got = run(batch[rows])["logits_sup"]
            assert np.abs(got - want[rows]).max() <= LARGEST[kind] * np.abs(want).max()
    for weight, old in zip(small.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), old)


@pytest.mark.parametrize("channels", [1, 2, 4])
@pytest.mark.parametrize("kind", exports.FORMATS)
def test_images_of_other_channels_are_exported_too(tmp_path, kind, channels):
    """From bytes of several sizes: the view inside is of each channel alike."""
    needed(kind)
    network = made(channels)
    serving = exports.Serving(network=network, image_size=16, uint8=True)
    raw = [images(10, *size, uint8=True, channels=channels) for size in ((20, 31), (40, 18))]
    raw = [clear(serving, batch) for batch in raw] if kind == "tflite-int8" else raw
    path = tmp_path / f"small{exports.FORMATS[kind].ending}"
    exports.export(serving, path, kind=kind, images=raw)
    run = exports.FORMATS[kind].opened(path)
    for batch in raw:
        seen = np.stack([evaluation_view(tf.constant(x / np.float32(255)), size=16) for x in batch])
        want = by_formula(network, seen)
        for rows in (slice(0, len(batch)), slice(1, 2)):
            assert np.abs(run(batch[rows])["logits_sup"] - want[rows]).max() <= LARGEST[kind] * np.abs(want).max()


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_the_view_inside_of_eight_bits_is_neither_brighter_nor_darker(tmp_path, channels):
    """A factor too small for eight bits made every picture 4.9 % brighter; the largest logits were the same."""
    needed("tflite-int8")
    pixels = keras.Input((None, None, channels))
    network = keras.Model(pixels, {"final_avg_pool": keras.layers.ReLU()(pixels)})
    serving = exports.Serving(network=network, image_size=16, uint8=True)
    raw = [images(10, *size, uint8=True, channels=channels) for size in ((20, 31), (40, 18), (16, 16))]
    exports.export(serving, tmp_path / "view.tflite", kind="tflite-int8", images=raw)
    run = exports.FORMATS["tflite-int8"].opened(tmp_path / "view.tflite")
    for batch in raw:
        seen = np.stack([evaluation_view(tf.constant(x / np.float32(255)), size=16) for x in batch])
        got = run(batch)["final_avg_pool"]
        assert np.abs(got - seen).max() <= 2 / 255
        assert abs(np.vdot(got, seen) / np.vdot(seen, seen) - 1) < 2e-3


def clear(serving: exports.Serving, batch: np.ndarray) -> np.ndarray:
    """The images whose largest logit is a tenth of the largest magnitude above the next."""
    logits = serving.expected(batch)["logits_sup"]
    second, first = np.sort(logits, axis=1)[:, -2:].T
    return batch[first - second > 0.1 * np.abs(logits).max()]


def by_formula(model: keras.Model, x: np.ndarray) -> np.ndarray:
    """The logits with the moving statistics, never those of the batch."""
    conv, norm, dense = (model.get_layer(name) for name in ("conv", "bn", "dense"))
    y = tf.nn.conv2d(x, conv.kernel.numpy(), 2, "VALID").numpy() + 0
    mean, variance = norm.moving_mean.numpy(), norm.moving_variance.numpy()
    y = (y - mean) / np.sqrt(variance + norm.epsilon) * norm.gamma.numpy() + norm.beta.numpy()
    return np.maximum(y, 0).mean((1, 2)) @ dense.kernel.numpy() + dense.bias.numpy()


@pytest.mark.parametrize("kind", exports.FORMATS)
def test_grouped_convolutions_and_gelu_are_exported(tmp_path, kind):
    """As in ConvNeXt: Keras has XLA compile the first in a function that no file holds; the second is an erfc."""
    needed(kind)
    keras.utils.set_random_seed(0)
    pixels = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(8, 3, activation="relu")(pixels)
    x = keras.layers.Conv2D(8, 3, groups=8, padding="same")(x)  # a channel each, as ConvNeXt's
    x = keras.layers.Activation("gelu")(keras.layers.Conv2D(8, 3, groups=2)(x))
    model = keras.Model(pixels, {"final_avg_pool": keras.layers.GlobalAveragePooling2D()(x)})
    path = tmp_path / f"grouped{exports.FORMATS[kind].ending}"
    report = exports.export(exports.Serving(network=model), path, kind=kind, images=[images(8)])
    assert max(report.differences.values()) <= LARGEST[kind]
    assert not tf.config.functions_run_eagerly()


def test_an_exported_keras_file_keeps_its_statistics_when_it_is_called(small, tmp_path):
    path = tmp_path / "m.keras"
    exports.export(exports.Serving(network=small, image_size=16), path, kind="keras", images=[images(4)])
    loaded = keras.saving.load_model(path, compile=False)
    before = [weight.numpy() for weight in loaded.weights]
    plain, told = loaded(images(4)), loaded(images(4), training=False)
    np.testing.assert_array_equal(plain["logits_sup"], told["logits_sup"])
    for weight, old in zip(loaded.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), old)
    loaded(images(4), training=True)  # who asks for it trains on
    assert any((weight.numpy() != old).any() for weight, old in zip(loaded.weights, before, strict=True))


@pytest.mark.parametrize("sides", [(50, 60, 32), (33, 47, 48), (375, 500, 224), (17, 90, 64), (7, 5, 32), (64, 64, 64)])
def test_the_view_inside_is_the_view_of_evaluation(sides):
    height, width, size = sides
    x = np.random.default_rng(0).uniform(0, 1, (2, height, width, 3)).astype(np.float32)
    got = EvaluationView(size, evaluation_proportion(size))(x)
    want = [evaluation_view(tf.constant(image), size=size) for image in x]
    np.testing.assert_allclose(got, want, atol=1e-6)
    in_integers = EvaluationView(size, evaluation_proportion(size), fixed_point=True)(x)
    np.testing.assert_allclose(in_integers, want, atol=1.5 / 255)


def test_a_file_with_a_view_inside_loads_where_the_package_is_imported(small, tmp_path):
    path = tmp_path / "m.keras"
    exports.export(exports.Serving(network=small, image_size=16), path, kind="keras", images=[images(4)])
    code = f"import tf_simclr, keras; print(sorted(keras.saving.load_model({str(path)!r}).output))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "['final_avg_pool', 'logits_sup']" in done.stdout, done.stderr


def test_an_export_replaces_an_older_one(small, tmp_path):
    for kind in ("keras", "savedmodel"):
        for _ in range(2):
            exports.export(
                exports.Serving(network=small),
                tmp_path / f"m{exports.FORMATS[kind].ending}",
                kind=kind,
                images=[images(4)],
            )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m", "m.keras"]


def test_a_savedmodel_trains_on(small, tmp_path):
    exports.export(exports.Serving(network=small), tmp_path / "saved", kind="savedmodel", images=[images()])
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(loaded(tf.constant(images()), trainable=True)["logits_sup"] ** 2)
    gradients = tape.gradient(loss, loaded.trainable_variables)
    assert len(gradients) == len(small.trainable_variables) == 5
    assert all(np.abs(g).max() > 0 for g in gradients if g is not None)
    assert sum(g is None for g in gradients) == 0


@pytest.mark.parametrize("kind", exports.FORMATS)
def test_a_file_that_answers_otherwise_is_not_put_in_place(small, tmp_path, monkeypatch, kind):
    """Whatever goes wrong on the way: here the written file is of other weights."""
    needed(kind)
    path, form = tmp_path / f"m{exports.FORMATS[kind].ending}", exports.FORMATS[kind]

    def wrong(serving, place, *, samples):
        kernel = serving.network.get_layer("dense").kernel
        right = kernel.numpy()
        kernel.assign(-right)
        form.write(serving, place, samples=samples)
        kernel.assign(right)

    monkeypatch.setitem(exports.FORMATS, kind, dataclasses.replace(form, write=wrong))
    with pytest.raises(InputError, match=r"must answer as the network does on at least 9\d% of the images"):
        exports.export(exports.Serving(network=small), path, kind=kind, images=[images(8)])
    assert not list(tmp_path.iterdir())


def test_answers_agree_by_largest_logit_or_direction():
    logits = np.array([1.0, 3.0, 3.0 - 1e-6])
    assert exports.agree(np.array([1.0, 2.9, 3.1]), logits, logits=True)  # a tie within rounding
    assert not exports.agree(np.array([4.0, 3.0, 3.0]), logits, logits=True)
    assert not exports.agree(np.array([np.nan, 3.0, 3.0]), logits, logits=True)
    assert exports.agree(2 * logits, logits, logits=False)
    assert not exports.agree(logits[::-1].copy(), logits, logits=False)


def test_what_is_missing_is_named(small, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"endpoints must be among .*endpoints=\['proj_1'\]"):
        exports.Serving(network=small, endpoints=("proj_1",))
    serving = exports.Serving(network=small)
    with pytest.raises(InputError, match="an export needs images"):
        exports.export(serving, tmp_path / "x", kind="keras", images=[])
    needed("tflite")
    with pytest.raises(InputError, match="tflite needs images of one size unless it resizes them"):
        exports.export(serving, tmp_path / "x", kind="tflite", images=[images(), images(6, 20, 16)])
    monkeypatch.setattr(exports, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"onnx needs tf2onnx, onnx, onnxruntime: pip install 'tf-simclr\[export\]'"):
        exports.export(serving, tmp_path / "x", kind="onnx", images=[images()])


@pytest.mark.slow
@pytest.mark.parametrize("kind", exports.FORMATS)
@pytest.mark.parametrize("resize", [0, 32])
def test_a_resnet_is_exported_to_every_format(tmp_path, kind, resize):
    needed(kind)
    rng = np.random.default_rng(0)
    model = network.build(Architecture(depth=18, num_classes=10, proj_head_mode="none", cifar_stem=True))
    for layer in network.leaves(model):  # a new network's residual branches are zero, and would hide what they do
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.gamma.assign(rng.uniform(0.3, 0.6, layer.gamma.shape))
            layer.moving_mean.assign(rng.normal(0, 0.1, layer.gamma.shape))
            layer.moving_variance.assign(rng.uniform(0.5, 1.5, layer.gamma.shape))
    path = tmp_path / f"resnet{exports.FORMATS[kind].ending}"
    serving = exports.Serving(network=model, endpoints=("final_avg_pool",), image_size=resize)
    raw = [images(8, 32, 32)] + ([images(4, 40, 64)] if resize else [])
    report = exports.export(serving, path, kind=kind, images=raw)
    assert report.differences["final_avg_pool"] <= {**LARGEST, "tflite-int8": 0.15}[kind]


def test_an_onnx_file_names_its_axes_and_says_what_it_is_for(small, tmp_path):
    """Read by ONNX Runtime and by onnx, not by what wrote it."""
    needed("onnx")
    import onnx
    import onnxruntime

    classes, notes = tuple("abcde"), ("these are made up",)
    serving = exports.Serving(network=small, image_size=16, uint8=True, classes=classes, notes=notes)
    exports.export(serving, tmp_path / "x.onnx", kind="onnx", images=[images(uint8=True)])
    session = onnxruntime.InferenceSession(str(tmp_path / "x.onnx"), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", "height", "width", 3]
    assert {one.name: one.shape for one in session.get_outputs()} == {
        "final_avg_pool": ["batch", 8],
        "logits_sup": ["batch", 5],
    }
    told = session.get_modelmeta().custom_metadata_map
    assert json.loads(told["classes"]) == list(classes)
    assert json.loads(told["notes"]) == list(notes)
    assert json.loads(told["input_range"]) == [0, 255]
    assert json.loads(told["input_axes"]) == ["batch", "height", "width", "channels"]
    assert "bicubic" in told["preprocessing"]
    onnx.checker.check_model(str(tmp_path / "x.onnx"))


def test_a_savedmodel_and_a_keras_file_say_what_they_are_for(small, tmp_path):
    serving = exports.Serving(network=small, classes=tuple("abcde"), seen_at=16, notes=("these are made up",))
    exports.export(serving, tmp_path / "saved", kind="savedmodel", images=[images()])
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    path = loaded.about.asset_path.numpy().decode()
    assert path.endswith("assets/about.json")
    told = json.loads(Path(path).read_text())
    _, taken = loaded.signatures["serving_default"].structured_input_signature
    assert list(taken) == ["images"]
    assert sorted(loaded.signatures["serving_default"].structured_outputs) == ["final_avg_pool", "logits_sup"]

    exports.export(serving, tmp_path / "x.keras", kind="keras", images=[images()])
    with zipfile.ZipFile(tmp_path / "x.keras") as archive:
        assert json.loads(archive.read("metadata.json"))["tf_simclr"] == told
    assert told["classes"] == list("abcde")
    assert told["images"]["range"] == [0, 1]
    assert told["images"]["axes"] == ["batch", "height", "width", "channels"]
    assert "16 × 16 pixels" in told["preprocessing"]
    assert told["notes"] == ["these are made up"]


def told_by(path: Path, kind: str) -> dict:
    """What a file says of itself, read by Python's own zip reader, ONNX Runtime or TensorFlow."""
    if kind == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return json.loads(session.get_modelmeta().custom_metadata_map["about"])
    if kind == "savedmodel":
        return json.loads(Path(tf.saved_model.load(str(path)).about.asset_path.numpy().decode()).read_text())
    with zipfile.ZipFile(path) as archive:
        if kind == "keras":
            return json.loads(archive.read("metadata.json"))["tf_simclr"]
        return json.loads(archive.read("about.json"))


@pytest.mark.parametrize("task", ["features", "classes", "bytes resized"])
@pytest.mark.parametrize("kind", exports.FORMATS)
def test_every_format_says_what_each_task_is_for(small, tmp_path, kind, task):
    needed(kind)
    classes = () if task == "features" else ("cat", "dög", "a bird", "d", "e")
    options = {"image_size": 16, "uint8": True} if task == "bytes resized" else {"seen_at": 16}
    endpoints = ("final_avg_pool",) if task == "features" else ()
    serving = exports.Serving(network=small, classes=classes, endpoints=endpoints, notes=("made up",), **options)
    path = tmp_path / f"m{exports.FORMATS[kind].ending}"
    exports.export(serving, path, kind=kind, images=[images(8, uint8=serving.uint8)])
    told = told_by(path, kind)
    assert told["classes"] == list(classes)
    assert told["images"]["range"] == ([0, 255] if serving.uint8 else [0, 1])
    assert told["images"]["axes"] == ["batch", "height", "width", "channels"]
    assert told["images"]["channels"] == "RGB"
    axes = {name: of["axes"] for name, of in told["outputs"].items()}
    wanted = {"final_avg_pool": ["batch", "features"], "logits_sup": ["batch", "classes"]}
    assert axes == {name: wanted[name] for name in serving.endpoints}
    assert told["notes"] == ["made up"]
    if kind.startswith("tflite"):
        with zipfile.ZipFile(path) as archive:
            assert ("labels.txt" in archive.namelist()) == bool(classes)
            if classes:
                assert archive.read("labels.txt").decode().splitlines() == list(classes)


@pytest.mark.parametrize("kind", exports.FORMATS)
@pytest.mark.parametrize("who", ["writer", "runtime"])
def test_what_a_writer_or_a_runtime_refuses_is_a_sentence(small, tmp_path, monkeypatch, kind, who):
    needed(kind)
    path, form = tmp_path / f"m{exports.FORMATS[kind].ending}", exports.FORMATS[kind]

    def refusing(*_, **__):
        raise RuntimeError("[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED :\n Could not find an implementation for Odd(1)")

    changes = {"write": refusing} if who == "writer" else {"opened": refusing}
    monkeypatch.setitem(exports.FORMATS, kind, dataclasses.replace(form, **changes))
    rule = "a network that .* can hold" if who == "writer" else "a file that its own runtime takes"
    with pytest.raises(InputError, match=rf"must be {rule}; nothing was put there, .*NOT_IMPLEMENTED : Could not find"):
        exports.export(exports.Serving(network=small), path, kind=kind, images=[images(8)])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", exports.FORMATS)
def test_a_normalization_by_constants_is_exported(tmp_path, kind):
    """As ConvNeXt of `keras.applications` begins with one."""
    needed(kind)
    keras.utils.set_random_seed(0)
    pixels = keras.Input((None, None, 3))
    x = keras.layers.Normalization(mean=[0.4, 0.5, 0.6], variance=[0.05, 0.06, 0.07])(pixels)
    features = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(8, 3)(x))
    model = keras.Model(pixels, {"final_avg_pool": features})
    before = model(images())["final_avg_pool"]
    path = tmp_path / f"m{exports.FORMATS[kind].ending}"
    report = exports.export(exports.Serving(network=model), path, kind=kind, images=[images(8)])
    assert report.differences["final_avg_pool"] <= LARGEST[kind]
    np.testing.assert_array_equal(model(images())["final_avg_pool"], before)
