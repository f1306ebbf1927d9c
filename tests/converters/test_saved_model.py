"""SavedModels: variables found by the object graph, else by their names; ours are used like the official ones."""

import os
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from converters import convert
from converters.names.naming import TF1, TF2
from converters.names.walk import ENDPOINTS
from converters.tensorflow.bundle import Bundle
from converters.tensorflow.graph_def import find_selector
from converters.tensorflow.object_graph import Variable, read_variables
from converters.tensorflow.saved_model import by_name, variable_keys, write_saved_model
from tests import golden
from tests.converters import official
from tf_simclr.errors import InputError
from tf_simclr.models.architecture import Architecture
from tf_simclr.models.network import build, weights_by_name

NAME = "r18_1x_sk0_cifar"
CIFAR = Architecture(18, cifar_stem=True, proj_head_mode="nonlinear", num_proj_layers=3, num_classes=10)
ALL = ["r18_1x_sk0_cifar", "r50_1x_sk0", "r50_1x_sk0_se", "r50_1x_sk1", "r50_1x_sk0.finetune.lars"]


def shifted(name: str) -> str:
    """The name in a process that built other models before."""
    return re.sub(
        r"(conv2d|batch_normalization|dense)(?:_(\d+))?/(\w+)$",
        lambda found: f"{found[1]}_{int(found[2] or 0) + 100}/{found[3]}",
        name,
    )


def variables_of(folder):
    with Bundle(folder / "variables" / "variables") as bundle:
        keys = variable_keys(bundle, read_variables(bundle))
        return keys, {name: bundle[key] for name, key in keys.items()}


def test_the_object_graph_tells_what_each_numbered_key_is(tmp_path):
    official.write_saved_model(tmp_path / "saved", NAME)
    keys, values = variables_of(tmp_path / "saved")
    manifest = golden.data(f"manifests/tf2/{NAME}.json")
    tf1 = {key.removesuffix(official.SUFFIX): name for key, name in manifest["checkpoint_key_to_tf1"].items()}
    assert {tf1[path]: key for path, key in keys.items()} == {
        name: key for key, name in manifest["saved_model_key_to_tf1"].items()
    }
    for path, value in values.items():
        np.testing.assert_array_equal(value, golden.fill(tf1[path], value.shape))


@pytest.mark.parametrize("rename", [None, shifted])
def test_names_tell_where_only_lists_lead_to_the_variables(tmp_path, rename):
    official.write_saved_model(tmp_path / "saved", NAME, attributes=False, rename=rename)
    keys, values = variables_of(tmp_path / "saved")
    assert keys.keys() == set(TF1.table(CIFAR).values())
    for name, value in values.items():
        np.testing.assert_array_equal(value, golden.fill(name, value.shape))


@pytest.mark.parametrize("rename", [str, shifted])
@pytest.mark.parametrize("manifest", ALL)
def test_the_names_of_every_architecture_are_understood(manifest, rename):
    names = golden.data(f"manifests/tf2/{manifest}.json")["tf2_variable_name_to_tf1"]
    variables = [Variable(None, name, rename(name.removesuffix(":0"))) for name in names]
    assert {key: name for name, key in by_name(variables, "index").items()} == names


def test_a_tf1_checkpoint_and_a_hub_module_need_no_graph(tmp_path):
    for hub in (False, True):
        prefix = official.write_tf1(tmp_path / str(hub), NAME, hub=hub)
        with Bundle(prefix) as bundle:
            assert variable_keys(bundle, read_variables(bundle)) == {name: name for name in official.manifest(NAME)}


def test_a_saved_model_of_something_else_is_refused_with_its_names(tmp_path):
    root = tf.Module()
    root.variables_list = {"trainable_variables": [tf.Variable(1.0, name="other/weight")]}
    tf.saved_model.save(root, str(tmp_path / "saved"))
    with pytest.raises(InputError, match=r"neither its object graph nor the names.*other/weight"):
        variables_of(tmp_path / "saved")


@pytest.fixture(scope="module")
def loaded(exported):
    return tf.saved_model.load(str(exported[1]))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A network with weights by formula, and the SavedModel of it: (network, folder)."""
    architecture = Architecture(**{**vars(CIFAR), "ft_proj_selector": 1})
    network = build(architecture)
    weights = weights_by_name(network)
    for name, tf1 in TF1.table(architecture).items():
        weights[name].assign(golden.fill(tf1, weights[name].shape))
    folder = tmp_path_factory.mktemp("ours") / "saved"
    write_saved_model(folder, network, architecture=architecture)
    return network, folder


IMAGES = golden.images(4, 32)


def test_the_saved_models_endpoints_equal_the_networks_and_the_goldens(exported, loaded):
    network, _ = exported
    expected = network(IMAGES)
    outputs = loaded(IMAGES, trainable=False)
    assert set(outputs) == set(ENDPOINTS)
    for name, output in outputs.items():
        np.testing.assert_allclose(output, expected[name], rtol=0, atol=1e-5 * np.abs(expected[name]).max())
    forward = golden.arrays(f"forward/{NAME}.npz")
    features = loaded(golden.images(2, 32), trainable=False)["final_avg_pool"]
    tolerance = 1e-4 * np.abs(forward["final_avg_pool"]).max()
    np.testing.assert_allclose(features, forward["final_avg_pool"], rtol=0, atol=tolerance)


def test_its_variables_hang_on_the_official_attributes_and_read_back_the_same(exported):
    network, folder = exported
    keys, values = variables_of(folder)
    weights = weights_by_name(network)
    assert keys.keys() == set(TF2.table(CIFAR).values())
    for name, path in TF2.table(CIFAR).items():
        np.testing.assert_array_equal(values[path], weights[name])


def test_its_graph_tells_the_selector(exported):
    _, folder = exported
    assert find_selector(folder / "variables" / "variables")[0] == 1


def test_gradients_reach_every_weight_and_training_moves_the_statistics(exported):
    _, folder = exported
    loaded = tf.saved_model.load(str(folder))
    statistic = loaded.model.resnet_model.initial_conv_relu_max_pool
    moving = getattr(statistic, "2").bn.moving_mean
    before, weights = moving.numpy(), loaded.trainable_variables_list
    with tf.GradientTape() as tape:
        outputs = loaded(IMAGES, trainable=True)
        loss = tf.reduce_sum(outputs["logits_sup"] ** 2) + tf.reduce_sum(outputs["proj_head_output"] ** 2)
    assert len(weights) == 73
    assert all(np.abs(gradient).max() > 0 for gradient in tape.gradient(loss, list(weights)))
    batch = outputs["initial_conv"].numpy().mean((0, 1, 2))
    np.testing.assert_allclose(moving.numpy(), 0.9 * before + 0.1 * batch, rtol=1e-4, atol=1e-6)


def test_inference_leaves_the_statistics_alone(loaded):
    moving = getattr(loaded.model.resnet_model.initial_conv_relu_max_pool, "2").bn.moving_mean
    before = moving.numpy()
    loaded(IMAGES)
    np.testing.assert_array_equal(moving.numpy(), before)


def test_keras_uses_it_as_a_layer(exported):
    network, folder = exported
    layer = keras.layers.TFSMLayer(str(folder), call_endpoint="__call__")
    logits = layer(IMAGES)["logits_sup"]
    np.testing.assert_allclose(logits, network(IMAGES)["logits_sup"], rtol=0, atol=1e-5)


def test_a_taken_folder_is_refused_and_left_as_it_was(exported, tmp_path):
    (tmp_path / "mine").touch()
    with pytest.raises(InputError, match="must be new or empty"):
        convert(exported[1], tmp_path, to="savedmodel")
    assert os.listdir(tmp_path) == ["mine"]


@pytest.mark.parametrize("to", ["savedmodel", "tf1", "tf2", "huggingface"])
def test_what_a_killed_conversion_left_is_not_mixed_with_this_one(exported, tmp_path, to):
    """Process numbers come again, in containers soon: it may lie where this process writes; of every kind of folder."""
    stale = tmp_path / f".{os.getpid()}.written" / "variables" / "variables.data-00000-of-00002"
    stale.parent.mkdir(parents=True)
    stale.touch()
    convert(exported[1], tmp_path / "written", to=to)
    assert os.listdir(tmp_path) == ["written"]
    assert not list((tmp_path / "written").rglob(stale.name))


def test_a_linear_projection_head_is_refused_as_the_official_code_cannot_build_it(tmp_path):
    architecture = Architecture(18, cifar_stem=True, proj_head_mode="linear", num_proj_layers=1)
    with pytest.raises(InputError, match="linear projection head"):
        write_saved_model(tmp_path / "saved", build(architecture), architecture=architecture)
    assert os.listdir(tmp_path) == []


def test_an_interrupted_export_leaves_nothing(exported, tmp_path, monkeypatch):
    def interrupted(root, folder):
        os.mkdir(folder)
        raise KeyboardInterrupt

    monkeypatch.setattr(tf.saved_model, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert(exported[1], tmp_path / "saved", to="savedmodel")
    assert os.listdir(tmp_path) == []
