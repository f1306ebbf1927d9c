"""Keras' files: the encoder by its layers' names, what surrounds it, and what is refused.

The table of writers (`writers_keras.py`) reads what Keras itself saves; here are the rules, on small configurations and
HDF5 files made by hand, and the commands.
"""

import contextlib
import json
import subprocess
import sys

import h5py
import numpy as np
import pytest

import converters
import tf_simclr
from converters.keras_files import config as keras_config
from converters.keras_files import hdf5
from converters.keras_files.layers import LAYER, kind_of
from tests.converters import writers_keras
from tf_simclr.errors import InputError
from tf_simclr.models.architecture import Architecture
from tf_simclr.models.network import build_encoder, leaves, weights_by_name


def layer(kind, name, *inputs, **config):
    nodes = [{"args": [{"class_name": "__keras_tensor__", "config": {"keras_history": [i, 0, 0]}} for i in inputs]}]
    return {"class_name": kind, "config": {"name": name, **config}, "inbound_nodes": nodes if inputs else []}


def functional(*layers):
    return {"class_name": "Functional", "config": {"name": "model", "layers": [layer("InputLayer", "x"), *layers]}}


def conv(name, *inputs, stride=1, **config):
    padding = "valid" if stride > 1 else "same"
    return layer("Conv2D", name, *inputs, strides=[stride, stride], padding=padding, activation="linear", **config)


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("sk", [0.0, 0.0625])
@pytest.mark.parametrize("cifar", [False, True])
def test_every_layer_of_our_encoders_has_the_name_and_the_settings_that_are_looked_for(depth, sk, cifar):
    if depth == 18 and sk:
        return
    encoder = build_encoder(Architecture(depth, sk_ratio=sk, cifar_stem=cifar))
    named = {one.name: type(one).__name__ for one in leaves(encoder) if one.weights}
    assert all(LAYER.fullmatch(name) for name in named)
    kinds = {"Conv2D": "conv", "BatchNormalization": "bn"}
    assert {name: kinds[kind] for name, kind in named.items()} == {name: kind_of(name) for name in named}
    around = keras_config.read_config(json.loads(encoder.to_json()))  # raises where a setting differs
    assert (around.before, around.after) == ([], [])


def test_what_leads_to_the_encoder_is_before_it_and_all_else_is_after():
    config = functional(
        layer("Rescaling", "r", "x", scale=0.5, offset=0.0),
        layer("Dense", "aside", "x", units=3),
        conv("stem_conv1", "r"),
        layer("Dense", "out", "stem_conv1", units=10),
    )
    around = keras_config.read_config(config)
    assert (around.before, around.after) == (["Rescaling(0.5)"], ["Dense(3)", "Dense(10)"])


def test_models_in_models_are_gone_through():
    inner = {**functional(conv("stem_conv1", "x")), "inbound_nodes": []}
    inner["config"]["name"] = "encoder"
    sequence = [layer("RandomFlip", "f"), inner, layer("Dense", "d", units=2)]
    config = {"class_name": "Sequential", "config": {"name": "s", "layers": sequence}}
    around = keras_config.read_config(config)
    assert (around.before, around.after) == (["RandomFlip"], ["Dense(2)"])


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (conv("stem_conv1", "x", stride=2), r"strides=\[2, 2\]"),
        (conv("stem_conv1", "x", dilation_rate=[2, 2]), "dilation_rate"),
        (conv("stem_conv1", "x") | {"config": {"name": "stem_conv1", "activation": "relu"}}, "activation='relu'"),
        (layer("BatchNormalization", "stem_bn1", "stem_conv1", epsilon=1e-3), "epsilon=0.001"),
        (layer("BatchNormalization", "proj1_bn", "stem_conv1", scale=False), "scale=False"),
    ],
)
def test_settings_with_which_it_is_another_network_are_refused(wrong, told):
    with pytest.raises(InputError, match=told):
        keras_config.read_config(functional(wrong))


def test_a_layer_between_the_encoders_is_refused_unless_it_does_nothing_in_inference():
    def config(kind):
        between = layer(kind, "mine", "stem_conv1")
        return functional(conv("stem_conv1", "x"), between, conv("group1_block1_conv1", "mine"))

    keras_config.read_config(config("Dropout"))
    with pytest.raises(InputError, match="Received: between=\\['Softmax'\\]"):
        keras_config.read_config(config("Softmax"))


def of_keras_2(kind, name, history):
    return {"class_name": kind, "config": {"name": name}, "inbound_nodes": [[[*history, {}]]]}


def of_keras_3(kind, name, history):
    described = layer(kind, name, "x")
    described["inbound_nodes"][0]["args"][0]["config"]["keras_history"] = history
    return described


@pytest.mark.parametrize("entry", [of_keras_2, of_keras_3])
@pytest.mark.parametrize("zero", [0, False])
def test_a_layer_between_is_found_however_its_input_is_written(entry, zero):
    """Keras takes false for 0."""
    between, behind = (
        layer(kind, name, "x") for kind, name in (("Softmax", "mine"), ("Conv2D", "group1_block1_conv1"))
    )
    behind["config"] = conv("group1_block1_conv1")["config"]
    between["inbound_nodes"] = entry("Softmax", "mine", ["stem_conv1", zero, zero])["inbound_nodes"]
    behind["inbound_nodes"] = entry("Conv2D", "b", ["mine", zero, zero])["inbound_nodes"]
    with pytest.raises(InputError, match="Received: between=\\['Softmax'\\]"):
        keras_config.read_config(functional(conv("stem_conv1", "x"), between, behind))


@pytest.mark.parametrize("entry", [of_keras_2, of_keras_3])
@pytest.mark.parametrize(("output", "selector"), [(0, 0), (2, 2), (True, 1)])
def test_the_head_s_output_that_feeds_the_classifier_is_told(entry, output, selector):
    classifier = entry("Dense", "logits_sup", ["projection_head", 0, output])
    assert keras_config.read_config(functional(conv("stem_conv1", "x"), classifier)).selector == selector


@pytest.mark.parametrize("config", [None, [], "text", {"class_name": 3}, {"config": {}}])
def test_a_configuration_that_describes_no_model_is_refused(config):
    with pytest.raises(InputError, match="describe a Keras model"):
        keras_config.read_config(config)


def write(path, **links):
    with h5py.File(path, "w") as file:
        file["a/b"] = np.arange(3.0)
        for name, link in links.items():
            file[name] = link
    return path


@pytest.mark.parametrize("link", [h5py.SoftLink("/a/b"), h5py.ExternalLink("other.h5", "/a"), h5py.SoftLink("/none")])
def test_links_to_elsewhere_are_refused(tmp_path, link):
    with h5py.File(write(tmp_path / "a.h5", c=link)) as file, pytest.raises(InputError, match="leads elsewhere"):
        list(hdf5.objects(file))


def test_circles_and_second_names_are_refused(tmp_path):
    for name, target in (("circle.h5", "a"), ("twice.h5", "a/b")):
        with h5py.File(write(tmp_path / name), "r+") as file:
            file["a/again"] = file[target]
            with pytest.raises(InputError, match="two names"):
                list(hdf5.objects(file))


def test_data_in_other_files_are_refused(tmp_path):
    with h5py.File(write(tmp_path / "a.h5"), "r+") as file:
        file.create_dataset("raw", (3,), "f4", external=[("other.bin", 0, 12)])
        with pytest.raises(InputError, match="must be in the file"):
            list(hdf5.objects(file))
        del file["raw"]
        layout = h5py.VirtualLayout((3,), "f8")
        layout[:] = h5py.VirtualSource("other.h5", "x", (3,))
        file.create_virtual_dataset("virtual", layout)
        with pytest.raises(InputError, match="must be in the file"):
            list(hdf5.objects(file))


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f2", ">i8"])
def test_numbers_come_in_the_machines_byte_order(tmp_path, dtype):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.arange(5).astype(dtype)
    with h5py.File(tmp_path / "a.h5") as file:
        stored = hdf5.stored(tmp_path, "x", dataset=file["x"], checksums={})
        assert stored.read().dtype == np.dtype(dtype).newbyteorder("=") == np.dtype(stored.dtype)
        np.testing.assert_array_equal(stored.read(), np.arange(5))


def test_bfloat16_as_keras_stores_it_is_read(tmp_path):
    import ml_dtypes

    values = np.arange(5).astype(ml_dtypes.bfloat16)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=values).attrs["dtype"] = "bfloat16"
    with h5py.File(tmp_path / "a.h5") as file:
        stored = hdf5.stored(tmp_path, "x", dataset=file["x"], checksums={})
        assert (stored.dtype, stored.read().tobytes()) == ("bfloat16", values.tobytes())


def test_any_change_of_a_sealed_file_is_told(tmp_path):
    def changes():
        yield lambda file: file["a/b"].write_direct(np.arange(1.0, 4.0))
        yield lambda file: file["a"].attrs.modify("name", "other")
        yield lambda file: file.create_dataset("more", data=[1.0])
        yield lambda file: file.pop("a/b")
        yield lambda file: file.attrs.pop("tf_simclr_crc32c")

    for change in changes():
        path = write(tmp_path / "a.h5")
        with h5py.File(path, "r+") as file:
            file["a"].attrs["name"] = "stem_conv1"
        hdf5.seal(path)
        with h5py.File(path) as file:
            assert hdf5.checksums_of(path, file).keys() == {"a/b"}
        with h5py.File(path, "r+") as file:
            change(file)
        with h5py.File(path) as file, pytest.raises(InputError, match="checksum"):
            read_sealed(path, file)


def read_sealed(path, file):
    checksums = hdf5.checksums_of(path, file)
    hdf5.stored(path, "a/b", dataset=file["a/b"], checksums=checksums).read()


@pytest.fixture(scope="module")
def wrapped(tmp_path_factory):
    """A model with the encoder in it, saved by Keras."""
    model, encoder = writers_keras.sequential()
    path = tmp_path_factory.mktemp("keras") / "wrapped.keras"
    model.save(path)
    return path, encoder


def test_the_commands_and_functions_agree_with_keras_on_the_encoder(wrapped, tmp_path):
    path, encoder = wrapped
    images = np.random.RandomState(0).uniform(0, 1, (2, 32, 32, 3)).astype(np.float32)
    theirs = np.asarray(encoder(images, training=False))
    ours = np.asarray(tf_simclr.load_encoder(path)(images, training=False))
    assert np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()
    command = [sys.executable, "-m", "converters.tf2torch", str(path), str(tmp_path / "encoder.pth")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for text in ("Rescaling(0.00392157)", "Dense(10)", "weights bit-equal"):
        assert text in done.stdout
    read = converters.load(tmp_path / "encoder.pth")
    for name, weight in weights_by_name(encoder).items():
        np.testing.assert_array_equal(read[name], np.asarray(weight))


def test_an_optimizer_under_any_name_is_the_optimizers_state(tmp_path):
    keras, tf = pytest.importorskip("keras"), pytest.importorskip("tensorflow")
    encoder = writers_keras.resnet()
    optimizer = keras.optimizers.AdamW(1e-3, use_ema=True)
    optimizer.build(encoder.trainable_variables)
    tf.train.Checkpoint(an_opt=optimizer, net=encoder).save(str(tmp_path / "ckpt"))
    with contextlib.closing(converters.load(tmp_path)) as network:
        for name, array in writers_keras.made(tmp_path, encoder).weights.items():
            np.testing.assert_array_equal(network[name], array)
        assert network.left.keys() == {
            "metrics, queues and random states of the training",
            "optimizer state, which inference has no use for",
        }
