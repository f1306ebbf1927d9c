"""Indexes with Snappy-compressed blocks, as Google writes them; oracles: TensorFlow's reader, and Snappy itself."""

import contextlib
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from converters.loading import load
from converters.tensorflow.bundle import HEADER, NUMBERS, Bundle, read_index
from converters.tensorflow.snappy import decompress
from converters.tensorflow.sstable import FOOTER, TRAILER, handle, read_table
from tests import golden
from tests.converters import networks, official, tables
from tests.converters.test_bundle import equal_to_tensorflow
from tests.converters.test_corrupt_bundles import flip
from tf_simclr.errors import InputError
from tf_simclr.foreign.wire import encode

REAL = golden.ROOT.parent / "shared" / "real"
SAVED = sorted(path.parent.parent for path in REAL.rglob("variables/variables.index"))
ABSENT = pytest.mark.skipif(
    not SAVED, reason=f"runs with {golden.OTHERS['real']} in ../shared/real beside the checkout"
)
TEXTS = {
    "nothing": b"",
    "a byte": b"a",
    "runs": b"a" * 1000 + b"ab" * 300 + b"abc" * 100,
    "far copies": bytes(np.random.RandomState(0).bytes(70_000)) * 2,
    "names": "".join(f"layer_{i}/kernel" for i in range(2000)).encode(),
    "noise": np.random.RandomState(1).bytes(100_000),
}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("how", ["google", "literals", "copies"])
def test_what_snappy_compresses_is_what_comes_out(text, how):
    _, compressed = tables.COMPRESSORS[how](0, TEXTS[text])
    assert decompress(compressed) == TEXTS[text]


@pytest.mark.parametrize("width", [1, 2, 4])
@pytest.mark.parametrize("offset", [1, 2, 3, 7, 40])
@pytest.mark.parametrize("length", [4, 5, 7, 8, 11])
def test_a_copy_of_each_kind_repeats_what_it_has_just_made(width, offset, length):
    import cramjam

    start = bytes(range(40))
    compressed = tables.varint(40 + length) + tables.literal(start) + tables.copy(offset, length, width=width)
    assert decompress(compressed) == bytes(cramjam.snappy.decompress_raw(compressed))
    assert decompress(compressed)[40:] == (start[40 - offset :] * 12)[:length]


LONG = tables.varint(8) + tables.literal(b"abcd") + tables.copy(4, 4, width=2)
DAMAGED = {
    "no length": (b"", "number in a protocol buffer or table"),
    "a length without an end": (b"\xff" * 12, "number in a protocol buffer or table"),
    "a length that the bytes cannot make": (tables.varint(1 << 31) + LONG[1:], "cannot make the 2147483648"),
    "a length of more than 32 bits": (tables.varint(1 << 40) + LONG[1:], "cannot make"),
    "a length above the content's": (tables.varint(9) + LONG[1:], "must make the 9 bytes that it claims, not 8"),
    "a length below the content's": (tables.varint(7) + LONG[1:], "must make the 7 bytes that it claims, not 8"),
    "a length below, and more behind it": (tables.varint(3) + LONG[1:], "must make the 3 bytes"),
    "a length of 0 with content": (tables.varint(0) + LONG[1:], "must make the 0 bytes"),
    "content of nothing": (tables.varint(4), "must make the 4 bytes that it claims, not 0"),
    "a literal past the end": (tables.varint(60) + bytes([59 << 2]) + b"abc", "a literal of 60 bytes reaches past"),
    "a literal's length past the end": (tables.varint(9) + bytes([63 << 2, 1, 0]), "ends within an element"),
    "a literal of 4 GiB": (tables.varint(9) + bytes([63 << 2]) + b"\xff" * 4 + b"a", "a literal of 4294967296 bytes"),
    "a copy of offset 0": (tables.varint(8) + tables.literal(b"abcd") + tables.copy(0, 4, width=2), "begins 0 bytes"),
    "a copy from before the start": (
        tables.varint(8) + tables.literal(b"abcd") + tables.copy(5, 4, width=2),
        "begins 5 bytes before byte 4",
    ),
    "a copy from far before it": (
        tables.varint(8) + tables.literal(b"abcd") + tables.copy(1 << 31, 4, width=4),
        "begins 2147483648 bytes before byte 4",
    ),
    "a copy before any literal": (tables.varint(4) + tables.copy(1, 4, width=1), "begins 1 bytes before byte 0"),
    "a copy without its offset": (LONG[:-1], "ends within an element"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damage_in_each_field_is_refused_as_snappy_itself_does(tmp_path, case):
    import cramjam

    compressed, message = DAMAGED[case]
    with pytest.raises(cramjam.DecompressionError):
        cramjam.snappy.decompress_raw(compressed)
    index = tmp_path / "model.ckpt-7.index"
    index.write_bytes(
        tables.table([(b"", HEADER)], lambda number, content: (1, compressed) if not number else (0, content))
    )
    with pytest.raises(
        InputError, match=f"model.ckpt-7.index must be an intact .* the block at 0 is damaged: .*{message}"
    ):
        read_index(index)


@ABSENT
@pytest.mark.parametrize("folder", SAVED or [REAL], ids=lambda path: path.parent.name)
def test_every_tensor_of_a_file_by_others_equals_tensorflows_reader(folder):
    assert equal_to_tensorflow(folder / "variables" / "variables") > 0


@ABSENT
def test_most_of_the_files_by_others_are_compressed():
    def kind(index: Path) -> int:
        """The type of the first block, whose trailer is in front of the empty one that the footer begins with."""
        content = index.read_bytes()
        empty, _ = handle(content, len(content) - FOOTER)
        return content[empty[0] - TRAILER]

    kinds = [kind(folder / "variables" / "variables.index") for folder in SAVED]
    assert sorted(kinds) == [0, 0, 1, 1, 1, 1]


def written(folder: Path, name: str) -> Path:
    return (official.write_tf2 if ".tf2" in name else official.write_tf1)(folder, name.removesuffix(".tf2"))


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Official-style checkpoints of small networks, written once: name → folder."""
    made = {}

    def write(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("plain")
            written(made[name], name)
        return made[name]

    return write


@pytest.mark.parametrize("name", ["r18_1x_sk0_cifar", "r18_1x_sk0_cifar.pretrain.adam", "r18_1x_sk0_cifar.tf2"])
@pytest.mark.parametrize("how", tables.COMPRESSORS)
@pytest.mark.parametrize(("rows", "interval"), [(1 << 30, 16), (40, 3), (1, 1)])
def test_a_compressed_index_is_read_as_tensorflow_reads_it(checkpoints, tmp_path, name, how, rows, interval):
    folder = shutil.copytree(checkpoints(name), tmp_path / "ckpt")
    prefix = next(folder.glob("*.index")).with_suffix("")
    plain = read_index(prefix.with_name(prefix.name + ".index"))
    tables.compress_index(prefix, how, rows=rows, interval=interval)
    assert read_index(prefix.with_name(prefix.name + ".index")) == plain
    reader = tf.train.load_checkpoint(str(prefix))
    with Bundle(prefix) as bundle:
        assert {key: list(bundle.shape(key)) for key in bundle} == reader.get_variable_to_shape_map()
        for key in list(bundle)[::10]:
            np.testing.assert_array_equal(bundle[key], reader.get_tensor(key))


@pytest.mark.parametrize("name", ["r18_1x_sk0_cifar", "r18_1x_sk0_cifar.tf2", "saved model", "hub"])
def test_a_checkpoint_with_a_compressed_index_is_the_same_network(tmp_path, name):
    if name == "saved model":
        official.write_saved_model(tmp_path, "r18_1x_sk0_cifar", selector=1)
    elif name == "hub":
        official.write_tf1(tmp_path, "r18_1x_sk0_cifar", hub=True)
        (tmp_path / "tfhub_module.pb").touch()
    else:
        written(tmp_path, name)
    with contextlib.closing(load(tmp_path)) as network:
        plain = network.architecture, network.step, {key: network[key].tobytes() for key in network.weights}
    tables.compress_index(next(tmp_path.rglob("*.index")).with_suffix(""))
    with contextlib.closing(load(tmp_path)) as network:
        assert (network.architecture, network.step, {key: network[key].tobytes() for key in network.weights}) == plain


MANIFESTS = [
    *networks.TF1_MANIFESTS,
    *(path.name.removesuffix(".json.xz") for path in sorted((golden.GOLDENS / "manifests" / "tf1_training").iterdir())),
]


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_compressed_index_of_every_golden_network_is_read_as_tensorflow_reads_it(tmp_path, name):
    """Names, shapes and dtypes of all; their gigabytes are holes in a file."""
    pairs, offset = {b"": HEADER}, 0
    for key, (shape, dtype) in official.manifest(name).items():
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        dims = b"".join(encode(2, encode(1, n)) for n in shape)
        number = encode(1, NUMBERS[np.dtype(dtype)])
        pairs[key.encode()] = number + encode(2, dims) + encode(4, offset) + encode(5, size)
        offset += size
    content = tables.table(sorted(pairs.items()), tables.COMPRESSORS["mixed"], rows=150)
    (tmp_path / "model.ckpt-7.index").write_bytes(content)
    with (tmp_path / "model.ckpt-7.data-00000-of-00001").open("wb") as file:
        file.truncate(offset)
    reader = tf.train.load_checkpoint(str(tmp_path / "model.ckpt-7"))
    with Bundle(tmp_path / "model.ckpt-7") as bundle:
        assert {key: list(bundle.shape(key)) for key in bundle} == reader.get_variable_to_shape_map()
        types = reader.get_variable_to_dtype_map()
        assert {key: bundle.dtype(key) for key in bundle} == {key: types[key].as_numpy_dtype for key in types}


def test_a_flipped_bit_anywhere_in_a_compressed_index_is_refused_or_does_no_harm(tmp_path):
    values = {f"base_model/conv2d_{i}/kernel": np.arange(4, dtype=np.float32) + i for i in range(20)}
    official.save(tmp_path / "model.ckpt-7", values)
    tables.compress_index(tmp_path / "model.ckpt-7", "mixed", rows=5)
    index = tmp_path / "model.ckpt-7.index"
    content, refusals = index.read_bytes(), 0
    for position in range(len(content)):
        index.write_bytes(content)
        flip(index, position, position % 8)
        try:
            with Bundle(tmp_path / "model.ckpt-7") as bundle:
                found = {name: bundle[name] for name in bundle}
        except InputError as error:
            refusals += str(index) in str(error)
            continue
        assert {name: value.tolist() for name, value in found.items()} == {k: v.tolist() for k, v in values.items()}
    unread = FOOTER + 14 + 20  # padding of the footer, and the empty block
    assert refusals >= len(content) - unread


def test_a_checksum_is_compared_before_anything_is_decompressed():
    def compress(number, content):
        return (0, content) if number else (1, tables.varint(1 << 31) + content)

    content = bytearray(tables.table([(b"", HEADER)], compress))
    with pytest.raises(InputError, match="cannot make the 2147483648"):
        read_table(bytes(content), "x")
    content[0] ^= 1
    with pytest.raises(InputError, match="checksum of the block at"):
        read_table(bytes(content), "x")


def test_blocks_that_lie_over_each_other_are_refused():
    rows = tables.block([(b"a", b"1")], interval=1)
    good = tables.table([(b"a", b"1")], lambda _, content: (0, content))
    handle = re.escape(tables.varint(0) + tables.varint(len(rows)))
    assert re.search(handle, good)
    twice = [(b"a", tables.varint(0) + tables.varint(len(rows))), (b"b", tables.varint(0) + tables.varint(len(rows)))]
    out = bytearray(rows + b"\0" + tables.masked(rows + b"\0"))
    index = tables.block(twice, interval=1)
    place = len(out)
    out += index + b"\0" + tables.masked(index + b"\0")
    footer = tables.varint(0) + tables.varint(len(rows)) + tables.varint(place) + tables.varint(len(index))
    out += footer.ljust(40, b"\0") + good[-8:]
    with pytest.raises(InputError, match="its blocks overlap or are out of order"):
        read_table(bytes(out), "x")
