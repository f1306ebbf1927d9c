"""Encoder × model: each trains, is built, backed up, exported and saved; what cannot be used is said in a sentence."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tests.models import encoders
from tf_simclr import Classifier, SimCLR, resnet
from tf_simclr.errors import InputError
from tf_simclr.models.moco import MoCo

ROOT = Path(__file__).parents[2]
ALL = [(name, kind) for name in encoders.ENCODERS for kind in encoders.MODELS]
QUICK = {("own class", "MoCo"), ("own class of one size", "SimCLR"), ("sequential of one size", "Classifier"),
         ("resizing first", "Classifier"), ("resizing first", "SimCLR"), ("feature maps", "MoCo"),
         ("dict of one", "Distiller"), ("layer", "Classifier"), ("network", "Classifier"),
         ("sequential of one size", "MoCo")}  # fmt: skip


def python(*arguments: str, **environment: str) -> str:
    """What a fresh process prints."""
    variables = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"} | environment
    run = subprocess.run([sys.executable, *arguments], env=variables, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout


@pytest.mark.parametrize(
    ("name", "kind"), [pytest.param(*x, marks=[] if x in QUICK else pytest.mark.slow) for x in ALL]
)
def test_a_model_of_any_encoder_trains_and_is_saved(tmp_path, name, kind):
    encoders.walk(encoders.ENCODERS[name], kind, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", encoders.LARGE)
@pytest.mark.parametrize("kind", ["SimCLR", "MoCo", "Classifier"])
def test_a_model_of_a_library_s_encoder_trains_and_is_saved(tmp_path, name, kind):
    if name == "KerasHub":
        pytest.importorskip("keras_hub")
    encoders.walk(encoders.LARGE[name], kind, tmp_path, size=32)


@pytest.mark.parametrize(
    ("names", "kinds"),
    [
        ("own class,sequential of one size,resizing first", "Classifier"),
        pytest.param(",".join(encoders.ENCODERS), "SimCLR,MoCo,Classifier,Distiller", marks=pytest.mark.slow),
    ],
)
def test_models_of_any_encoder_on_jax(names, kinds):
    pytest.importorskip("jax")
    lines = python("-m", "tests.models.encoders", names, kinds, KERAS_BACKEND="jax").splitlines()
    assert len(lines) == len(names.split(",")) * len(kinds.split(","))
    assert all(line.startswith("jax: ") for line in lines)


class Batches(keras.utils.PyDataset):
    """Two batches of two."""

    def __init__(self, *arrays):
        super().__init__()
        self.arrays = arrays

    def __len__(self):
        return 2

    def __getitem__(self, number):
        return tuple(array[2 * number : 2 * number + 2] for array in self.arrays)


def _generator(*arrays):
    yield from (Batches(*arrays)[number] for number in range(2))


def _loader(*arrays):
    torch = pytest.importorskip("torch")
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*map(torch.tensor, arrays)), batch_size=2)


WAYS = {
    "arrays": lambda *arrays: arrays,
    "tf.data": lambda *arrays: (tf.data.Dataset.from_tensor_slices(arrays).batch(2),),
    "PyDataset": lambda *arrays: (Batches(*arrays),),
    "generator": lambda *arrays: (_generator(*arrays),),
    "DataLoader": lambda *arrays: (_loader(*arrays),),
}
"""Images and labels as `fit` takes them; of all but arrays in batches of two."""


@pytest.mark.filterwarnings("ignore:Your input ran out of data")  # Keras, of every generator
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["SimCLR", "MoCo", "Classifier"])
def test_whatever_brings_the_first_batch_builds_the_model(kind, way):
    random = np.random.default_rng(0)
    shape = (4, 16, 16, 3) if kind == "Classifier" else (4, 2, 16, 16, 3)
    images, labels = random.uniform(size=shape).astype("float32"), np.arange(4) % 2

    def unbuilt():
        model = encoders.MODELS[kind](encoders.Flat())
        model.compile(keras.optimizers.SGD(0.1))
        assert not model.built
        return model

    # Each twice: what a model does that is not built yet, and the same weights' answer when they are.
    model = unbuilt()
    logs = model.fit(*WAYS[way](images, labels), shuffle=False, verbose=0).history
    assert np.isfinite(logs["loss"][0])
    model = unbuilt()
    first, again = (model.evaluate(*WAYS[way](images, labels), verbose=0, return_dict=True) for _ in range(2))
    if kind != "MoCo":  # its queue is filled by the first
        assert first == again
    model = unbuilt()
    first, again = (keras.tree.flatten(model.predict(*WAYS[way](images), verbose=0)) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("data", "message"), [((x for x in ()), "at least one batch"), (5, "Unrecognized data type")])
def test_what_brings_no_batch_is_refused_in_keras_words(data, message):
    model = encoders.MODELS["Classifier"](encoders.Flat())
    model.compile(keras.optimizers.SGD(0.1))
    with pytest.raises(ValueError, match=message):
        model.fit(data, shuffle=False)


@pytest.mark.parametrize("method", ["train_on_batch", "test_on_batch", "predict_on_batch"])
@pytest.mark.parametrize("kind", ["SimCLR", "MoCo", "Classifier"])
def test_one_batch_builds_the_model(kind, method):
    model = encoders.MODELS[kind](encoders.Flat())
    model.compile(keras.optimizers.SGD(0.1))
    shape = (2, 16, 16, 3) if kind == "Classifier" else (2, 2, 16, 16, 3)
    answer = getattr(model, method)(np.random.default_rng(0).uniform(size=shape).astype("float32"), *(
        [] if method == "predict_on_batch" else [np.arange(2)]))  # fmt: skip
    assert all(np.isfinite(np.asarray(one)).all() for one in keras.tree.flatten(answer))


def test_two_replicas_build_by_the_first_batch():
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice())
    views = np.random.default_rng(0).uniform(size=(4, 2, 16, 16, 3)).astype("float32")
    with strategy.scope():
        model = SimCLR(encoders.Flat(), num_classes=3)
        model.compile(keras.optimizers.SGD(0.1))
    logs = model.fit(views, np.arange(4) % 3, batch_size=4, verbose=0).history
    assert np.isfinite(logs["loss"][0])


@pytest.mark.slow
@pytest.mark.parametrize("order", ["import keras, tf_simclr", "import tf_simclr, keras"])
def test_saved_models_load_in_a_fresh_process_that_imports_the_package_alone(tmp_path, order):
    views = np.random.default_rng(0).uniform(size=(2, 2, 8, 8, 3)).astype("float32")
    makers = {"SimCLR": lambda e: SimCLR(e), "MoCo": lambda e: MoCo(e, queue_length=4),
              "Classifier": lambda e: Classifier(e, num_classes=2)}  # fmt: skip
    expected = {}
    for name, make in makers.items():
        model = make(encoders.functional(encoders.pool, size=8))
        model.compile(keras.optimizers.SGD(0.1))
        model.save(tmp_path / f"{name}.keras")
        model.network().save(tmp_path / f"{name}-network.keras")
        expected[name] = float(np.sum(model.network()(views[:, 0])["final_avg_pool"]))
    np.save(tmp_path / "images.npy", views[:, 0])
    code = f"""
import sys, numpy as np
{order}
images = np.load("images.npy")
for name in ("SimCLR", "MoCo", "Classifier"):
    for path in (f"{{name}}.keras", f"{{name}}-network.keras"):
        model = keras.saving.load_model(path)
        network = model if "network" in path else model.network()
        print(name, type(model).__module__, float(np.sum(network(images)["final_avg_pool"])))
"""
    (tmp_path / "load.py").write_text(f"import os; os.chdir({str(tmp_path)!r})\n{code}")
    for line in python(str(tmp_path / "load.py")).splitlines():
        name, _, value = line.split()
        np.testing.assert_allclose(float(value), expected[name], rtol=1e-5)


@pytest.mark.parametrize("size", [16, 24])
def test_an_encoder_of_any_size_takes_any_size(size):
    model = SimCLR(encoders.ENCODERS["any size"]())
    model.compile(keras.optimizers.SGD(0.1))
    model.train_on_batch(np.random.default_rng(0).uniform(size=(2, 2, size, size, 3)).astype("float32"))
    assert model.network()(np.zeros((1, size + 8, size, 3), "float32"))["final_avg_pool"].shape == (1, 4)


@pytest.fixture
def channels_first():
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format("channels_last")


def test_a_user_whose_channels_come_first_gets_the_same_network_or_a_sentence(channels_first):
    model = SimCLR(resnet(18, cifar_stem=True), num_classes=3)
    assert model.encoder.output_shape == (None, 512)
    assert model.network()(np.zeros((1, 32, 32, 3), "float32"))["final_avg_pool"].shape == (1, 512)
    for make in (encoders.Own, lambda: encoders.functional(encoders.pool)):
        with pytest.raises(InputError, match=r"channels last, \(n, h, w, 3\), .*keras.json"):
            Classifier(make(), num_classes=2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lambda x: x, "encoder must be a Keras model or layer"),
        (lambda: encoders.functional(lambda x: {"a": x, "b": encoders.pool(x)}), "choose one of its outputs"),
        (lambda: encoders.functional(lambda x: layers.Reshape((-1, 4))(x)), r"encoder must give features \(n, d\)"),
        (lambda: keras.Sequential([keras.Input((12,)), layers.Dense(2)]), "encoder must take one tensor of images"),
        (lambda: two_inputs(), "encoder must take one tensor of images"),
    ],
)
def test_an_encoder_that_cannot_be_used_is_refused(make, message):
    for model in encoders.MODELS.values():
        with pytest.raises(InputError, match=message):
            model(make())


def two_inputs() -> keras.Model:
    images = [keras.Input((8, 8, 3), name=name) for name in "ab"]
    return keras.Model(images, layers.GlobalAveragePooling2D()(layers.Add()(images)))


def test_moco_says_that_it_cannot_copy_an_encoder():
    class Closed(encoders.Flat):
        def get_config(self):
            raise NotImplementedError

    model = MoCo(Closed(), queue_length=4)
    with pytest.raises(InputError, match=r"Closed must have a get_config\(\)"):
        model(np.zeros((2, 2, 8, 8, 3), "float32"))
