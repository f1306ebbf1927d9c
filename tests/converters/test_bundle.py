"""Tensor bundles: ours and TensorFlow's reader and writer agree to the last byte."""

import os
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from converters.tensorflow.bundle import Bundle, ordered_signed, write_bundle
from converters.tensorflow.object_graph import GRAPH_KEY
from converters.tensorflow.sstable import BLOCK_SIZE, read_table, write_table
from tests.converters import official
from tf_simclr.errors import InputError

DTYPES = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "c8", "c16", "?", ml_dtypes.bfloat16]


def equal_to_tensorflow(prefix) -> int:
    """Compares every tensor with TensorFlow's own reader; returns their number."""
    reader = tf.train.load_checkpoint(str(prefix))
    with Bundle(prefix) as bundle:
        assert set(bundle) == set(reader.get_variable_to_shape_map())
        for name in bundle:
            theirs = reader.get_tensor(name)
            if bundle.dtype(name).hasobject:
                np.testing.assert_array_equal(bundle[name], np.asarray(theirs, object))
                continue
            assert bundle[name].dtype == bundle.dtype(name) == theirs.dtype
            assert bundle[name].shape == bundle.shape(name) == theirs.shape
            assert bundle[name].tobytes() == theirs.tobytes()
        return len(bundle)


def files(prefix) -> list[bytes]:
    return [prefix.with_name(prefix.name + end).read_bytes() for end in (".index", ".data-00000-of-00001")]


def in_stored_order(bundle) -> list[str]:
    """Names by place; of those at one place the empty one comes first."""
    return sorted(bundle, key=lambda name: (bundle.entries[name].offset, bundle.entries[name].size))


@pytest.fixture(scope="module")
def tf1(tmp_path_factory):
    return official.write_tf1(tmp_path_factory.mktemp("tf1"), "r18_1x_sk0_cifar")


@pytest.fixture(scope="module")
def tf2(tmp_path_factory):
    return official.write_tf2(tmp_path_factory.mktemp("tf2"), "r18_1x_sk0_cifar")


def test_every_tensor_of_a_tf1_checkpoint_equals_tensorflows_reader(tf1):
    assert equal_to_tensorflow(tf1) == 122


def test_every_tensor_of_an_object_checkpoint_equals_tensorflows_reader(tf2):
    assert equal_to_tensorflow(tf2) == 198


def test_every_dtype_shape_and_string_equals_tensorflows_reader(tmp_path):
    values = {np.dtype(dtype).name: np.arange(6).reshape(2, 3).astype(dtype) for dtype in DTYPES}
    values |= {"scalar": np.float32(-1.5), "empty": np.zeros((0, 3), np.float32), "deep": np.ones((1,) * 8, np.int32)}
    values["strings"] = np.array([[b"a", b""], [b"\0x\xff" * 300, "é".encode()]], object)
    official.save(tmp_path / "odd", values)
    assert equal_to_tensorflow(tmp_path / "odd") == len(values)


def test_an_index_of_several_blocks_is_read_and_written_as_tensorflow_does(tmp_path):
    values = {f"layer_{i:05d}/a/name/that/fills/the/index/kernel": np.float32(i) for i in range(6000)}
    official.save(tmp_path / "theirs", values)
    assert (tmp_path / "theirs.index").stat().st_size > BLOCK_SIZE
    write_bundle(tmp_path / "ours", values.items())
    assert files(tmp_path / "ours") == files(tmp_path / "theirs")
    with Bundle(tmp_path / "theirs") as bundle:
        assert {name: bundle[name] for name in bundle} == values


def test_a_checkpoint_in_many_files_with_partitioned_tensors_is_put_together(tmp_path):
    values = np.arange(7000, dtype=np.float32).reshape(1000, 7)
    parts = [
        {"w": ("1000 7 0,100:-", values[:100]), "x": ("", values[:1])},
        {"w": ("1000 7 100,899:0,3", values[100:999, :3])},
        {"w": ("1000 7 100,899:3,4", values[100:999, 3:])},
        {"w": ("1000 7 999,1:-", values[999:])},
    ]
    prefixes = [str(tmp_path / f"part{i}") for i in range(4)]
    for prefix, part in zip(prefixes, parts, strict=True):
        slices, tensors = zip(*part.values(), strict=True)
        tf.raw_ops.SaveV2(prefix=prefix, tensor_names=list(part), shape_and_slices=list(slices), tensors=tensors)
    tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=prefixes, destination_prefix=str(tmp_path / "whole"))
    assert (tmp_path / "whole.data-00003-of-00004").is_file()
    assert equal_to_tensorflow(tmp_path / "whole") == 2
    with Bundle(tmp_path / "whole") as bundle:
        np.testing.assert_array_equal(bundle["w"], values)
        assert bundle.shape("w") == (1000, 7)


@pytest.mark.parametrize("value", [0, 1, -1, 63, 64, -64, -65, 8191, 8192, -8193, 2**20, 2**40, -(2**40), 2**62])
def test_ordered_numbers_sort_like_their_values(value):
    assert ordered_signed(value - 1) < ordered_signed(value) < ordered_signed(value + 1)


def test_what_is_written_equals_tensorflows_files_byte_for_byte(tmp_path, tf1, tf2):
    for prefix in (tf1, tf2):
        with Bundle(prefix) as bundle:
            names = in_stored_order(bundle)
            write_bundle(tmp_path / "ours", ((n, bundle[n].item() if n == GRAPH_KEY else bundle[n]) for n in names))
        assert files(tmp_path / "ours") == files(prefix)


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensorflow_reads_what_is_written(tmp_path, dtype):
    values = {"b/matrix": np.arange(6).reshape(2, 3).astype(dtype), "a": np.ones((), dtype), "none": np.zeros(0, dtype)}
    write_bundle(tmp_path / "ours", values.items())
    reader = tf.train.load_checkpoint(str(tmp_path / "ours"))
    for name, value in values.items():
        assert reader.get_tensor(name).dtype == value.dtype
        assert reader.get_tensor(name).tobytes() == value.tobytes()


def test_transposed_views_and_foreign_byte_order_are_written_by_value(tmp_path):
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    write_bundle(tmp_path / "ours", [("view", values.T), ("big_endian", values.astype(">f4"))])
    with Bundle(tmp_path / "ours") as bundle:
        np.testing.assert_array_equal(bundle["view"], values.T)
        np.testing.assert_array_equal(bundle["big_endian"], values)


def test_table_keeps_keys_that_share_nothing_or_everything():
    pairs = {b"": b"head", b"a": b"", b"ab": b"1", b"b\xff": b"2", b"b\xff\xff": b"3" * BLOCK_SIZE, b"c": b"4"}
    assert read_table(write_table(pairs.items()), "a table") == pairs


def test_arrays_are_aligned_and_read_only_and_stay_valid_after_closing(tmp_path):
    write_bundle(
        tmp_path / "ours", [("odd", np.ones(3, np.uint8)), ("w", np.arange(4.0)), ("x", np.arange(4, dtype="u1"))]
    )
    with Bundle(tmp_path / "ours") as bundle:
        aligned, view = bundle["w"], bundle["x"]
    assert aligned.flags.aligned
    assert not view.flags.writeable
    assert aligned.tolist() == view.tolist() == [0, 1, 2, 3]


def test_reading_some_tensors_leaves_the_damage_of_others_alone(tmp_path):
    write_bundle(tmp_path / "ours", [("kernel", np.ones(8)), ("kernel/Momentum", np.ones(8))])
    data = tmp_path / "ours.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-1] + b"\xff")
    with Bundle(tmp_path / "ours") as bundle:
        assert bundle["kernel"].sum() == 8
        with pytest.raises(InputError, match="tensor kernel/Momentum must match its checksum"):
            bundle["kernel/Momentum"]


def test_a_missing_tensor_is_a_key_error(tmp_path):
    write_bundle(tmp_path / "ours", [("kernel", np.ones(8))])
    with Bundle(tmp_path / "ours") as bundle, pytest.raises(KeyError):
        bundle["bias"]


def test_writing_and_reading_stream_a_tensor_at_a_time(tmp_path):
    size = 1 << 22
    tracemalloc.start()
    write_bundle(tmp_path / "ours", ((f"v{i}", np.full(size // 4, i, np.float32)) for i in range(16)))
    with Bundle(tmp_path / "ours") as bundle:
        assert [float(bundle[name][-1]) for name in bundle] == sorted(map(float, range(16)), key=str)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * size


@pytest.mark.parametrize("exception", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_write_leaves_the_old_checkpoint_and_no_other_file(tmp_path, exception):
    write_bundle(tmp_path / "ours", [("kernel", np.ones(8))])
    before = files(tmp_path / "ours")

    def tensors():
        yield "kernel", np.zeros(8)
        raise exception

    with pytest.raises(exception):
        write_bundle(tmp_path / "ours", tensors())
    assert files(tmp_path / "ours") == before
    assert len(os.listdir(tmp_path)) == 2


def test_a_full_disk_leaves_nothing_and_says_so(tmp_path):
    def tensors():
        yield "kernel", np.zeros(8)
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match="No space left on device"):
        write_bundle(tmp_path / "ours", tensors())
    assert os.listdir(tmp_path) == []


def test_a_file_as_folder_a_repeated_name_and_a_foreign_dtype_are_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="must be writable"):
        write_bundle(tmp_path / "file" / "ours", [("kernel", np.ones(8))])
    (tmp_path / "file").unlink()
    with pytest.raises(InputError, match="name of its own"):
        write_bundle(tmp_path / "ours", [("kernel", np.ones(8)), ("kernel", np.ones(8))])
    with pytest.raises(InputError, match="must have a dtype"):
        write_bundle(tmp_path / "ours", [("kernel", np.array(["text"]))])
    assert os.listdir(tmp_path) == []
