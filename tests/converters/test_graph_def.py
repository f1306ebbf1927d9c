"""`ft_proj_selector` from the graph beside a checkpoint."""

import contextlib
import json

import pytest
import tensorflow as tf

from converters.loading import load
from converters.tensorflow.graph_def import find_selector, in_meta, in_pbtxt
from tests import golden
from tests.converters import official
from tf_simclr.errors import InputError

SELECTORS = {"0": 0, "1": 1, "2": 2, "last": 3}


@pytest.fixture
def stored(tmp_path):
    """Unpacks a golden graph: name and end -> path."""

    def unpack(selector: str, end: str):
        path = tmp_path / (end if end == "graph.pbtxt" else f"model.ckpt-7.{end}")
        path.write_bytes(golden.content(f"graphs/r18_1x_sk0_cifar.selector_{selector}.{end}"))
        return path

    return unpack


@pytest.mark.parametrize("selector", SELECTORS)
def test_graph_pbtxt_tells_the_layer_that_feeds_the_classifier(stored, selector):
    assert in_pbtxt(stored(selector, "graph.pbtxt")) == SELECTORS[selector]


@pytest.mark.parametrize("selector", SELECTORS)
def test_meta_tells_the_layer_that_feeds_the_classifier(stored, selector):
    assert in_meta(stored(selector, "meta")) == SELECTORS[selector]


@pytest.mark.parametrize("selector", [0, 1, 2])
def test_saved_model_tells_the_layer_that_feeds_the_classifier(tmp_path, selector):
    official.write_saved_model(tmp_path / "saved", "r18_1x_sk0_cifar", selector=selector)
    for path in (tmp_path / "saved", tmp_path / "saved" / "variables" / "variables"):
        assert find_selector(path) == (selector, "saved_model.pb")


def as_text(folder) -> None:
    """Rewrites a SavedModel's graph as text, which TensorFlow's loader takes as well."""
    from google.protobuf import text_format
    from tensorflow.core.protobuf import saved_model_pb2

    graph = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    (folder / "saved_model.pbtxt").write_text(text_format.MessageToString(graph))
    (folder / "saved_model.pb").unlink()


@pytest.mark.parametrize("selector", [0, 1, 2])
def test_a_saved_model_in_text_form_tells_it_too_and_is_read(tmp_path, selector):
    official.write_saved_model(tmp_path / "saved", "r18_1x_sk0_cifar", selector=selector)
    values = {}
    for form in ("binary", "text"):
        if form == "text":
            as_text(tmp_path / "saved")
        for path in (tmp_path / "saved", tmp_path, *(tmp_path / "saved").glob("saved_model.pb*")):
            with contextlib.closing(load(path)) as network:
                assert network.container == "TF2 SavedModel"
                assert network.architecture.ft_proj_selector == selector
                values.setdefault(form, {name: network[name].tobytes() for name in network.weights})
    assert values["text"] == values["binary"]


@pytest.mark.parametrize("content", [b"", b"no graph", b"\xff\xfe" * 100, b"saved_model_schema_version: 1\n"])
def test_a_text_without_a_graph_is_refused(tmp_path, content):
    (tmp_path / "saved_model.pbtxt").write_bytes(content)
    with pytest.raises(InputError, match=r"saved_model\.pbtxt must be a graph in text form"):
        find_selector(tmp_path)


def test_the_meta_file_of_the_checkpoint_goes_before_the_folders_graph(stored, tmp_path):
    stored("1", "graph.pbtxt")
    assert find_selector(tmp_path / "model.ckpt-7")[0] == 1
    stored("2", "meta")
    assert find_selector(tmp_path / "model.ckpt-7")[0] == 2
    assert find_selector(tmp_path / "model.ckpt-8")[1] == "graph.pbtxt"


def test_flags_json_tells_where_no_graph_does(tmp_path):
    for stored, value in ((0, 0), (2, 2), (-1, 3), (-4, 0)):  # below 0: counted from the last layer
        (tmp_path / "flags.json").write_text(json.dumps({"ft_proj_selector": stored, "num_proj_layers": 3}))
        assert find_selector(tmp_path / "ckpt-7")[0] == value


def test_nothing_is_claimed_without_a_file_or_without_a_classifier(tmp_path):
    assert find_selector(tmp_path / "model.ckpt-7") == (None, "")
    (tmp_path / "flags.json").write_text("{}")
    with tf.Graph().as_default() as graph:
        tf.matmul(tf.ones([2, 2]), tf.ones([2, 2]), name="other")
        tf.io.write_graph(graph, str(tmp_path), "graph.pbtxt")
        tf.compat.v1.train.export_meta_graph(str(tmp_path / "model.ckpt-7.meta"))
    assert find_selector(tmp_path / "model.ckpt-7") == (None, "")


def classifier(features):
    with tf.name_scope("head_supervised/linear_layer/dense"):
        return tf.matmul(features, tf.ones([2, 2]), name="MatMul")


def test_nothing_is_claimed_where_a_function_call_hides_layers(tmp_path):
    hidden = tf.function(lambda x: tf.matmul(x, x), autograph=False)
    with tf.Graph().as_default() as graph:
        classifier(hidden(tf.ones([2, 2])))
        tf.io.write_graph(graph, str(tmp_path), "graph.pbtxt")
    assert in_pbtxt(tmp_path / "graph.pbtxt") is None


def test_gradients_and_other_towers_do_not_count(tmp_path):
    with tf.Graph().as_default() as graph:
        features = tf.compat.v1.placeholder(tf.float32, [2, 2])
        hidden = tf.nn.relu(tf.matmul(features, tf.ones([2, 2]), name="head_contrastive/nl_0/dense/MatMul"))
        tf.matmul(hidden, tf.ones([2, 2]), name="head_contrastive/nl_1/dense/MatMul")
        tf.gradients(classifier(hidden), features)
        tf.io.write_graph(graph, str(tmp_path), "graph.pbtxt")
        tf.compat.v1.train.export_meta_graph(str(tmp_path / "model.ckpt-7.meta"))
    assert in_pbtxt(tmp_path / "graph.pbtxt") == in_meta(tmp_path / "model.ckpt-7.meta") == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("graph.pbtxt", b"no graph", "graph.pbtxt must be a graph in text form"),
        ("model.ckpt-7.meta", b"\xff" * 40, "model.ckpt-7.meta must be an intact graph"),
        ("saved_model.pb", b"\x12\x7f\x01", "saved_model.pb must be an intact graph"),
        ("flags.json", b"{", "flags.json must be JSON"),
        ("flags.json", b'{"ft_proj_selector": "1"}', "flags.json must give a whole number"),
        ("flags.json", b'{"ft_proj_selector": -1}', "flags.json must give the num_proj_layers"),
        ("flags.json", b'{"ft_proj_selector": -5, "num_proj_layers": 3}', "flags.json must give the num_proj_layers"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        find_selector(tmp_path / "model.ckpt-7")
