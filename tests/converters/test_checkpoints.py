"""Which checkpoint a path means, and TF1 checkpoints that TensorFlow's `Saver` restores."""

import numpy as np
import pytest
import tensorflow as tf

from converters.loading import open_source
from converters.tensorflow.bundle import write_bundle
from converters.tensorflow.folders import read_state, resolve_prefix, write_state, write_tf1
from tests.converters import official
from tf_simclr.errors import InputError

WEIGHTS = {
    "base_model/conv2d/kernel": np.arange(12, dtype=np.float32).reshape(1, 1, 3, 4),
    "head/bias": np.ones(4, "f4"),
}


@pytest.fixture
def folder(tmp_path):
    """Three checkpoints; the `checkpoint` file names the middle one."""
    for step in (9, 10, 800):
        write_bundle(tmp_path / f"model.ckpt-{step}", WEIGHTS.items())
    official.write_state(tmp_path, "model.ckpt-10", "model.ckpt-9")
    return tmp_path


def test_of_several_the_checkpoint_files_newest_is_taken_and_the_others_are_told(folder):
    found = resolve_prefix(folder)
    assert found.prefix == folder / "model.ckpt-10"
    assert found.notes == (
        "Took model.ckpt-10, the newest by the file `checkpoint`; model.ckpt-800, model.ckpt-9 also there "
        "(--step takes another).",
    )


def test_a_step_takes_another(folder):
    found = resolve_prefix(folder, step=9)
    assert found.prefix == folder / "model.ckpt-9"
    assert "model.ckpt-10, model.ckpt-800 also there" in found.notes[0]
    with pytest.raises(InputError, match=r"has model.ckpt-10, model.ckpt-800, model.ckpt-9.*step=11"):
        resolve_prefix(folder, step=11)


def test_without_a_checkpoint_file_the_highest_step_is_taken_as_a_number(folder):
    (folder / "checkpoint").unlink()
    found = resolve_prefix(folder)
    assert found.prefix == folder / "model.ckpt-800"
    assert "the highest step, as there is no file `checkpoint`" in found.notes[0]


@pytest.mark.parametrize("name", ["model.ckpt-9", "model.ckpt-9.index", "model.ckpt-9.data-00000-of-00001"])
def test_any_file_of_a_checkpoint_means_that_checkpoint(folder, name):
    assert resolve_prefix(folder / name).prefix == folder / "model.ckpt-9"
    assert resolve_prefix(folder / name).notes == ()


@pytest.mark.parametrize("name", ["checkpoint", "graph.pbtxt"])
def test_a_file_beside_the_checkpoints_means_their_folder(folder, name):
    (folder / "graph.pbtxt").touch()
    assert resolve_prefix(folder / name).prefix == folder / "model.ckpt-10"


@pytest.mark.parametrize("graph", ["saved_model.pb", "tfhub_module.pb", None])
def test_hub_modules_and_saved_models_are_found_by_their_variables(tmp_path, graph):
    (tmp_path / "variables").mkdir()
    write_bundle(tmp_path / "variables" / "variables", WEIGHTS.items())
    for name in filter(None, [graph]):
        (tmp_path / name).touch()
    for path in (tmp_path, tmp_path / "variables", tmp_path / "variables" / "variables.index"):
        found = resolve_prefix(path)
        assert found.prefix == tmp_path / "variables" / "variables"
        assert found.saved_model == (tmp_path if graph else None)


def test_a_path_of_the_machine_where_it_was_written_counts_by_its_last_component(tmp_path):
    write_bundle(tmp_path / "model.ckpt-10", WEIGHTS.items())
    official.write_state(tmp_path, "gs://bucket/r50/model.ckpt-10")
    assert resolve_prefix(tmp_path).prefix == tmp_path / "model.ckpt-10"


def test_the_state_file_is_read_as_tensorflow_reads_it(tmp_path):
    names = ["model.ckpt-1", "model.ckpt-2", 'a "quoted" name-3', "übung-4"]
    for newest in names:
        tf.compat.v1.train.update_checkpoint_state(str(tmp_path), newest, list(names))  # it appends
        assert read_state(tmp_path)[0] == newest
        assert set(read_state(tmp_path)) == set(names)
        write_state(tmp_path, newest)
        assert tf.train.get_checkpoint_state(str(tmp_path)).model_checkpoint_path == str(tmp_path / newest)
        assert read_state(tmp_path) == [newest]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (b"\xff\xfe\0", "must name one model_checkpoint_path"),
        (b"", "must name one model_checkpoint_path"),
        (b'model_checkpoint_path: ""', "must name one model_checkpoint_path"),
        (b'model_checkpoint_path: "model.ckpt-11"', "must name a checkpoint beside it"),
        (b'model_checkpoint_path: "../../model.ckpt-11"', "must name a checkpoint beside it"),
    ],
)
def test_a_damaged_state_file_is_named(folder, state, message):
    (folder / "checkpoint").write_bytes(state)
    with pytest.raises(InputError, match=message):
        resolve_prefix(folder)


def test_a_path_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no \*.index file is in it. Received: files=\[\]"):
        resolve_prefix(tmp_path)
    with pytest.raises(InputError, match=r"model.index is not in"):
        resolve_prefix(tmp_path / "model")
    (tmp_path / "a.index").touch()
    (tmp_path / "b.index").touch()
    with pytest.raises(InputError, match="name the one meant"):
        resolve_prefix(tmp_path)


def test_a_checkpoint_from_before_the_tensor_bundle_is_refused_with_the_reason(tmp_path):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.get_variable("v", initializer=1.0, use_resource=False)
        session.run(tf.compat.v1.global_variables_initializer())
        saver = tf.compat.v1.train.Saver(write_version=tf.compat.v1.train.SaverDef.V1)
        path = saver.save(session, str(tmp_path / "old"), write_meta_graph=False)
    with pytest.raises(InputError, match=r"before 1\.0"):
        resolve_prefix(path)


def test_the_saver_of_tf1_restores_what_is_written_from_its_folder(tmp_path):
    prefix = write_tf1(tmp_path / "new", WEIGHTS.items(), step=250228)
    assert prefix.name == "model.ckpt-250228"
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        for name, value in WEIGHTS.items():
            tf.compat.v1.get_variable(name, shape=value.shape)
        step = tf.compat.v1.train.create_global_step()
        latest = tf.train.latest_checkpoint(str(tmp_path / "new"))
        tf.compat.v1.train.Saver().restore(session, latest)
        restored = {v.op.name: session.run(v) for v in tf.compat.v1.global_variables()}
    assert latest == str(prefix)
    assert restored.pop(step.op.name) == 250228
    assert restored.keys() == WEIGHTS.keys()
    for name, value in WEIGHTS.items():
        np.testing.assert_array_equal(restored[name], value)


def test_the_global_step_of_the_source_is_replaced_by_the_given_one(tmp_path):
    prefix = write_tf1(tmp_path, [("global_step", np.int64(3)), *WEIGHTS.items()], step=4)
    assert tf.train.load_checkpoint(str(prefix)).get_tensor("global_step") == 4


def test_the_format_before_the_bundle_is_read_by_tensorflow(tmp_path):
    values = {"base_model/conv2d/kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4), "global_step": np.int64(9)}
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = [tf.compat.v1.get_variable(name, initializer=tf.constant(value)) for name, value in values.items()]
        slot = tf.compat.v1.get_variable("base_model/conv2d/kernel/Momentum", initializer=tf.zeros([2, 3, 4]))
        session.run(tf.compat.v1.global_variables_initializer())
        saver = tf.compat.v1.train.Saver([*variables, slot], write_version=tf.compat.v1.train.SaverDef.V1)
        path = saver.save(session, str(tmp_path / "old.ckpt"), write_meta_graph=False)
    source = open_source(path)
    assert (source.step, source.slots) == (9, {"base_model/conv2d/kernel/Momentum"})
    for name, value in values.items():
        np.testing.assert_array_equal(source.tensors[name].read(), value)
        assert source.tensors[name].shape == value.shape
    content = (tmp_path / "old.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(content[:20] + content[60:])
    with pytest.raises(InputError, match=r"cut\.ckpt must be a whole checkpoint"):
        open_source(tmp_path / "cut.ckpt")
