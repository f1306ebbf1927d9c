"""TF2 object checkpoints: the stored graph tells what each key is, and ours restores into TensorFlow's objects."""

import numpy as np
import pytest
import tensorflow as tf

from converters.tensorflow.bundle import Bundle, write_bundle
from converters.tensorflow.object_graph import (
    GRAPH_KEY,
    SUFFIX,
    Node,
    canonical,
    encode_graph,
    read_variables,
    write_tf2,
)
from tests import golden
from tests.converters import official
from tf_simclr.errors import InputError

MANIFESTS = [
    "r18_1x_sk0_cifar",
    pytest.param("r18_1x_sk0_cifar.pretrain.adam", marks=pytest.mark.slow),
    pytest.param("r18_1x_sk0_cifar.pretrain.momentum", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module", params=MANIFESTS)
def written(request, tmp_path_factory):
    """An official-style checkpoint: its manifest's name and its prefix."""
    return request.param, official.write_tf2(tmp_path_factory.mktemp("tf2"), request.param)


def object_keys(bundle) -> dict[str, str]:
    """Object path -> key, as far as attributes lead to the variables."""
    return {canonical(v.path): v.key for v in read_variables(bundle) if v.path is not None}


def bundle_with(tmp_path, nodes: list[Node], *tensors: str):
    """A checkpoint with this object graph."""
    values = [(name, np.ones(2, np.float32)) for name in tensors]
    write_bundle(tmp_path / "ckpt-1", [*values, (GRAPH_KEY, encode_graph(nodes))])
    return Bundle(tmp_path / "ckpt-1")


def test_every_key_of_an_official_checkpoint_is_the_path_that_the_graph_gives(written):
    name, prefix = written
    with Bundle(prefix) as bundle:
        keys = object_keys(bundle)
    assert {path + SUFFIX: key for path, key in keys.items()} == {key: key for key in keys.values()}
    assert set(keys.values()) == set(golden.data(f"manifests/tf2/{name}.json")["checkpoint_keys"]) - {GRAPH_KEY}


def test_slots_come_after_the_variables(written):
    _, prefix = written
    with Bundle(prefix) as bundle:
        slots = ["/.OPTIMIZER_SLOT/" in variable.path for variable in read_variables(bundle)]
    assert any(slots)
    assert slots == sorted(slots)


def test_tensorflow_restores_what_is_written_slots_too(written, tmp_path):
    name, prefix = written
    with Bundle(prefix) as bundle:
        expected = {path: bundle[key] for path, key in object_keys(bundle).items()}
    ours = write_tf2(tmp_path / "ours", expected.items(), step=11)
    empty = {key: np.zeros_like(value) for key, value in official.tf2_values(name).items()}
    root, variables = official.tf2_objects(empty)
    status = tf.train.Checkpoint(root=root).restore(str(ours))
    status.assert_consumed()
    status.assert_existing_objects_matched()
    assert variables.pop("global_step").numpy() == 11
    for path, variable in variables.items():
        np.testing.assert_array_equal(variable.numpy(), expected[path], err_msg=path)
    by_id = {variable._unique_id: path for path, variable in variables.items()}
    for (slot, owner), variable in root.optimizer.slots.items():
        path = f"{by_id[owner]}/.OPTIMIZER_SLOT/optimizer/{slot}"
        np.testing.assert_array_equal(variable.numpy(), expected[path], err_msg=path)


def test_the_official_codes_restore_call_finds_model_and_step_in_the_folder(tmp_path):
    values = official.tf2_values("r18_1x_sk0_cifar", slots=False)
    write_tf2(tmp_path, ((key.removesuffix(SUFFIX), value) for key, value in values.items()), step=11)
    root, variables = official.tf2_objects({key: np.zeros_like(value) for key, value in values.items()})
    step = tf.Variable(0, dtype=tf.int64)
    tf.train.Checkpoint(model=root.model, global_step=step).restore(
        tf.train.latest_checkpoint(str(tmp_path))
    ).assert_existing_objects_matched()
    assert step.numpy() == 11
    kernel = "model/supervised_head/linear_layer/dense/kernel"
    np.testing.assert_array_equal(variables[kernel].numpy(), values[kernel + SUFFIX])


def test_a_model_that_is_saved_under_another_name_keeps_its_official_paths(tmp_path):
    nodes = [Node([("net", 1)]), Node([("resnet_model", 2)]), Node([("kernel", 3)]), Node(key="k/0")]
    with bundle_with(tmp_path, nodes, "k/0") as bundle:
        assert object_keys(bundle) == {"model/resnet_model/kernel": "k/0"}


def test_generated_edges_are_passed_by_even_where_they_are_shorter(tmp_path):
    nodes = [Node([("variables", 1), ("model", 2)]), Node([("0", 3)]), Node([("bn", 4)]), Node(key="variables/0")]
    nodes.append(Node([("gamma", 3)]))
    with bundle_with(tmp_path, nodes, "variables/0") as bundle:
        assert object_keys(bundle) == {"model/bn/gamma": "variables/0"}


def test_a_checkpoint_without_an_object_graph_has_no_objects(tmp_path):
    write_bundle(tmp_path / "model.ckpt-1", [("base_model/conv2d/kernel", np.ones(2))])
    with Bundle(tmp_path / "model.ckpt-1") as bundle:
        assert read_variables(bundle) == []


def test_objects_that_refer_to_each_other_in_a_circle_are_walked_once(tmp_path):
    nodes = [Node([("a", 1), ("self", 0)]), Node([("parent", 0), ("a", 1), ("kernel", 2)]), Node(key="k")]
    with bundle_with(tmp_path, nodes, "k") as bundle:
        assert object_keys(bundle) == {"a/kernel": "k"}


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([Node([("a", 7)])], "an edge leads to an object that does not exist"),
        ([Node([("a", 1)]), Node(slots=[(0, "m", 9)])], "a slot belongs to an object that does not exist"),
        ([Node([("a", 1)]), Node(key="absent")], r"must have every key of its object graph.*absent"),
    ],
)
def test_a_graph_that_points_at_nothing_is_refused(tmp_path, nodes, message):
    with bundle_with(tmp_path, nodes) as bundle, pytest.raises(InputError, match=message):
        read_variables(bundle)


@pytest.mark.parametrize(
    "graph", [b"\x0a\xff\xff\xff\xff\x0f", b"\x07", b"\x0a\x04\x0a\x02\x12\x7f", b"\x0a\x03\x0a\x01\xff"]
)
def test_a_graph_of_damaged_bytes_is_refused_and_the_file_named(tmp_path, graph):
    write_bundle(tmp_path / "ckpt-1", [(GRAPH_KEY, graph)])
    with Bundle(tmp_path / "ckpt-1") as bundle, pytest.raises(InputError, match=r"object graph in .*ckpt-1.index"):
        read_variables(bundle)
