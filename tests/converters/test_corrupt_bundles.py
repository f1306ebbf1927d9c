"""Hostile and broken checkpoints: each is refused in a sentence that names the file or the tensor, or read unharmed.

Nothing else may happen: no other exception, no endless loop, no memory by what a header claims.
"""

import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from converters.tensorflow.bundle import HEADER, Bundle, slice_key
from converters.tensorflow.folders import resolve_prefix
from converters.tensorflow.object_graph import read_variables
from converters.tensorflow.saved_model import variable_keys
from converters.tensorflow.sstable import FOOTER, append_block, write_table
from tests.converters import official
from tf_simclr.errors import InputError
from tf_simclr.files.contents import crc32c, mask
from tf_simclr.foreign.wire import encode, encode_fixed32, encode_varint

VALUES = {
    "base_model/conv2d/kernel": np.arange(108, dtype=np.float32).reshape(3, 3, 3, 4),
    "base_model/conv2d/kernel/Momentum": np.linspace(-1, 1, 108, dtype=np.float32).reshape(3, 3, 3, 4),
    "global_step": np.int64(7),
    "half": np.arange(8, dtype=np.float16),
    "strings": np.array([b"one", b"", b"three"], object),
}
HUGE = 1 << 62


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    folder = tmp_path_factory.mktemp("intact")
    official.save(folder / "model.ckpt-7", VALUES)
    official.write_state(folder, "model.ckpt-7")
    return folder


@pytest.fixture
def folder(intact, tmp_path):
    """A checkpoint of its own to break."""
    return Path(shutil.copytree(intact, tmp_path / "checkpoint"))


def index_of(folder: Path) -> Path:
    return folder / "model.ckpt-7.index"


def data_of(folder: Path) -> Path:
    return folder / "model.ckpt-7.data-00000-of-00001"


def read_all(folder: Path) -> dict[str, np.ndarray]:
    """Reads every tensor, as a conversion does."""
    with Bundle(resolve_prefix(folder).prefix) as bundle:
        return {name: bundle[key] for name, key in variable_keys(bundle, read_variables(bundle)).items()}


def flip(path: Path, position: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


def refused(folder: Path, message: str) -> None:
    """Reading ends in one sentence, and takes a few MiB at most, whatever sizes the files claim."""
    tracemalloc.start()
    with pytest.raises(InputError, match=message) as caught:
        read_all(folder)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert peak < 1 << 24


def test_the_intact_checkpoint_is_read(folder):
    values = read_all(folder)
    assert values.keys() == VALUES.keys()
    for name, value in VALUES.items():
        np.testing.assert_array_equal(values[name], value)


# Bits and bytes of the data file


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("seed", range(5))
def test_a_flipped_bit_is_found_in_its_tensor_and_in_no_other(folder, name, seed):
    with Bundle(folder / "model.ckpt-7") as bundle:
        entry = bundle.entries[name]
    random = np.random.RandomState(seed)
    flip(data_of(folder), entry.offset + random.randint(entry.size), random.randint(8))
    with Bundle(folder / "model.ckpt-7") as bundle:
        for other in VALUES:
            if other != name:
                np.testing.assert_array_equal(bundle[other], VALUES[other])
        with pytest.raises(InputError, match=rf"tensor {name}( of .*)? must|the strings of tensor {name} |number in a"):
            bundle[name]


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_data_file_is_refused_and_a_tensor_named(folder, kept):
    content = data_of(folder).read_bytes()
    data_of(folder).write_bytes(content[: int(kept * len(content))])
    refused(
        folder, r"model.ckpt-7.data-00000-of-00001 must hold tensor \S+ at bytes \d+ to \d+, but has \d+; it is cut"
    )


def test_a_missing_data_file_is_named(folder):
    data_of(folder).unlink()
    refused(folder, r"model.ckpt-7.data-00000-of-00001 must exist")


def test_a_folder_in_place_of_a_data_file_is_refused(folder):
    data_of(folder).unlink()
    data_of(folder).mkdir()
    refused(folder, r"model.ckpt-7.data-00000-of-00001 must exist")


def test_the_data_of_another_checkpoint_is_found(folder):
    content = np.frombuffer(data_of(folder).read_bytes(), np.uint8)
    data_of(folder).write_bytes(content[::-1].tobytes())
    refused(folder, "must")


def test_longer_data_than_the_index_knows_do_no_harm(folder):
    data_of(folder).write_bytes(data_of(folder).read_bytes() + b"more")
    assert read_all(folder).keys() == VALUES.keys()


# Bits and bytes of the index


def test_an_index_cut_at_any_byte_is_refused(folder):
    content = index_of(folder).read_bytes()
    for size in range(len(content)):
        index_of(folder).write_bytes(content[:size])
        with pytest.raises(InputError, match=r"model.ckpt-7.index must end with a table's magic number"):
            read_all(folder)


def test_an_index_cut_in_the_middle_is_refused(folder):
    content = index_of(folder).read_bytes()
    for size in range(0, len(content) - FOOTER, 7):
        index_of(folder).write_bytes(content[:size] + content[-FOOTER:])
        with pytest.raises(InputError, match=r"model.ckpt-7.index must"):
            read_all(folder)


def test_a_flipped_bit_anywhere_in_the_index_is_refused_or_does_no_harm(folder):
    content = index_of(folder).read_bytes()
    refusals = 0
    for position in range(len(content)):
        index_of(folder).write_bytes(content)
        flip(index_of(folder), position, position % 8)
        try:
            values = read_all(folder)
        except InputError as error:
            refusals += "model.ckpt-7.index" in str(error)
            continue
        for name, value in VALUES.items():
            np.testing.assert_array_equal(values[name], value)
    unread = FOOTER + 14  # padding of the footer, and a block of the format that TensorFlow leaves empty
    assert refusals >= len(content) - unread


@pytest.mark.parametrize("content", [b"", b"not a table", bytes(FOOTER), b"\xff" * 500])
def test_a_file_that_is_no_table_is_refused(folder, content):
    index_of(folder).write_bytes(content)
    refused(folder, "model.ckpt-7.index must end with a table's magic number")


def test_a_missing_index_and_an_empty_folder_are_refused(folder, tmp_path):
    index_of(folder).unlink()
    refused(folder, r"must hold a TensorFlow checkpoint, but no \*.index file is in it")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", r"must hold a TensorFlow checkpoint, but no \*.index file is in it")
    with pytest.raises(InputError, match="must exist"):
        Bundle(folder / "model.ckpt-7")


# Tables with right checksums and wrong contents


def table(content: bytes, *, kind: int = 0, where: tuple[int, int] | None = None) -> bytes:
    """A table of one data block with this content; `where` is what its index claims of it."""
    out = bytearray(content) + bytes([kind])
    out += mask(crc32c(bytes(out))).to_bytes(4, "little")
    offset, size = where or (0, len(content))
    handle = append_block(out, [(b"z", encode_varint(offset) + encode_varint(size))], interval=1)
    footer = (encode_varint(0) * 2 + handle).ljust(FOOTER - 8, b"\0")
    return bytes(out) + footer + (0xDB4775248B80FB57).to_bytes(8, "little")


def rows(*entries: bytes) -> bytes:
    return b"".join(entries) + bytes(4) + (1).to_bytes(4, "little")


def row(shared: int, fresh: int, length: int, content: bytes = b"") -> bytes:
    return encode_varint(shared) + encode_varint(fresh) + encode_varint(length) + content


TABLES = {
    "a block of a compression that no table has": (table(rows(), kind=2), r"otherwise than by Snappy \(type 2\)"),
    "a block past the end": (table(rows(), where=(HUGE, 8)), "reaches past its end"),
    "a block of absurd size": (table(rows(), where=(0, HUGE)), "reaches past its end"),
    "an absurd number of restart points": (table(b"\xff\xff\xff\xff"), "shorter than its restart points"),
    "a block without restart points": (table(b""), "shorter than its restart points|checksum"),
    "a key longer than its block": (table(rows(row(0, HUGE, 0))), "reaches past its block"),
    "a value longer than its block": (table(rows(row(0, 1, HUGE, b"a"))), "reaches past its block"),
    "a key that shares more than there is": (table(rows(row(5, 1, 0, b"a"))), "reaches past its block"),
    "a number without an end": (table(rows(b"\xff" * 30)), "number in a protocol buffer or table"),
    "keys out of order": (table(rows(row(0, 1, 0, b"b"), row(0, 1, 0, b"a"))), "does not hold its keys in order"),
    "a key twice": (table(rows(row(0, 1, 0, b"a"), row(0, 1, 0, b"a"))), "does not hold its keys in order"),
}


@pytest.mark.parametrize("case", TABLES)
def test_a_hostile_table_is_refused(folder, case):
    content, message = TABLES[case]
    index_of(folder).write_bytes(content)
    refused(folder, message)


def entry(shape=(2,), *, dtype=1, shard=0, offset=0, size=8, crc=0, slices=b"") -> bytes:
    dims = b"".join(encode(2, encode(1, n)) for n in shape)
    place = encode(3, shard) + encode(4, offset) + encode(5, size)
    return encode(1, dtype) + encode(2, dims) + place + encode_fixed32(6, crc) + slices


def part(*extents: tuple[int, int]) -> bytes:
    return encode(7, b"".join(encode(1, encode(1, start) + encode(2, length)) for start, length in extents))


def checked(content: bytes) -> int:
    return mask(crc32c(content))


DATA = bytes(range(64))
ROW = entry((1, 2), crc=checked(DATA[:8]))
ENTRIES = {
    "a shape that is not as long as its bytes": (entry((3,)), "tensor w of .* must have 12 bytes, not 8"),
    "an absurd shape": (entry((HUGE, HUGE)), "tensor w of .* must have"),
    "a negative dimension": (entry((-2,)), "tensor 'w' of .* has a negative size"),
    "a negative offset": (entry(offset=-8), "tensor 'w' of .* has a negative size"),
    "a negative size": (entry(size=-8), "tensor 'w' of .* has a negative size"),
    "an absurd size": (entry((HUGE // 4,), size=HUGE), "must hold tensor w at bytes 0 to"),
    "an absurd offset": (entry(offset=HUGE), "must hold tensor w at bytes"),
    "a file number past the number of files": (entry(shard=1), "data-00001-of-00001 must exist"),
    "an absurd file number": (entry(shard=HUGE), "must exist"),
    "a dtype that does not exist": (entry(dtype=99), "tensor w .* dtype 99"),
    "a dtype of no weight": (entry(dtype=20), "tensor w .* dtype 20"),
    "a checksum of other bytes": (entry(crc=1), "tensor w must match its checksum"),
    "an entry of damaged bytes": (b"\x0b\xff", "the entry of tensor 'w' in .* must be intact"),
    "an entry whose field is of another kind": (encode(1, b"text"), "the entry of tensor 'w' in .* must be intact"),
    "an entry whose shape is a number": (encode(2, 5), "the entry of tensor 'w' in .* must be intact"),
    "an entry that is cut off": (entry()[:-2], "the entry of tensor 'w' in .* must be intact"),
    "slices that are not there": (entry((2, 2), size=0, slices=part((0, 2), (0, 2))), "must make up the whole"),
    "slices that leave a part out": (entry((2, 2), size=0, slices=part((0, 1), (0, 2))), "must make up the whole"),
    "a slice twice": (entry((2, 2), size=0, slices=part((0, 1), (0, 2)) * 2), "must make up the whole"),
    "slices of an absurd whole": (entry((HUGE, 2), size=0, slices=part((0, 1), (0, 2))), "must make up the whole"),
    "a slice outside the whole": (
        entry((1, 2), size=0, slices=part((9, 1), (0, 2))),
        "must make up the whole",
    ),
    "a string longer than its bytes": (entry((1,), dtype=7, size=8), "strings of tensor w|must match"),
    "absurdly many strings": (entry((HUGE,), dtype=7, size=8), "must have"),
}


@pytest.mark.parametrize("case", ENTRIES)
def test_a_hostile_entry_is_refused(folder, case):
    content, message = ENTRIES[case]
    pairs = {b"": HEADER, slice_key("w", [(0, 1), (0, 2)]): ROW, b"w": content}
    index_of(folder).write_bytes(write_table(pairs.items()))
    data_of(folder).write_bytes(DATA)
    refused(folder, message)


HEADERS = {
    "no header": (b"", "num_shards=0"),
    "no data file": (encode(2, 0), "num_shards=0"),
    "big-endian data": (encode(1, 1) + encode(2, 1), "must be little-endian"),
    "a newer format": (encode(1, 1) + encode(3, encode(1, 9) + encode(2, 9)), "needs a newer reader"),
    "absurdly many files": (encode(1, HUGE), "must exist"),
    "damaged bytes": (b"\xff", "model.ckpt-7.index"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_hostile_header_is_refused(folder, case):
    header, message = HEADERS[case]
    index_of(folder).write_bytes(write_table([(b"", header), (b"w", entry())]))
    refused(folder, message)


def test_a_name_that_is_no_text_is_refused(folder):
    index_of(folder).write_bytes(write_table([(b"", HEADER), (b"\xff\xfe", entry())]))
    refused(folder, "must name tensors in UTF-8")


def test_a_slice_of_another_shape_than_its_place_is_refused(folder):
    key = slice_key("w", [(0, 1), (0, 2)])
    wrong = entry((2, 1), crc=checked(DATA[:8]))
    whole = entry((1, 2), size=0, slices=part((0, 1), (0, 2)))
    index_of(folder).write_bytes(write_table([(b"", HEADER), (key, wrong), (b"w", whole)]))
    data_of(folder).write_bytes(DATA)
    refused(folder, "must have a place of its shape for itself")


def test_overlapping_slices_that_count_as_the_whole_are_refused(folder):
    across, down = [(0, 1), (0, 2)], [(0, 2), (0, 1)]
    column = entry((2, 1), offset=8, crc=checked(DATA[8:16]))
    whole = entry((2, 2), size=0, slices=part(*across) + part(*down))
    pairs = {slice_key("w", across): ROW, slice_key("w", down): column, b"": HEADER, b"w": whole}
    index_of(folder).write_bytes(write_table(sorted(pairs.items())))
    data_of(folder).write_bytes(DATA)
    refused(folder, "must have a place of its shape for itself")


def test_many_tensors_of_the_same_bytes_are_refused_as_they_would_grow_when_converted(folder):
    pairs = [(f"w{i:04d}".encode(), entry((16,), size=64, crc=checked(DATA))) for i in range(1000)]
    index_of(folder).write_bytes(write_table([(b"", HEADER), *pairs]))
    data_of(folder).write_bytes(DATA)
    refused(folder, "must give each tensor its own bytes, but they add up to 64000")


@pytest.mark.parametrize("offset", [0, 4, 7])
def test_tensors_that_lie_over_each_other_are_refused(folder, offset):
    second = entry(offset=offset, crc=checked(DATA[offset : offset + 8]))
    pairs = [(b"", HEADER), (b"a", entry(crc=checked(DATA[:8]))), (b"b", second)]
    index_of(folder).write_bytes(write_table(pairs))
    data_of(folder).write_bytes(DATA)
    refused(folder, "must give each tensor its own bytes, but a and b overlap")


def test_bytes_between_tensors_do_no_harm(folder):
    """A writer may align them."""
    pairs = [(b"", HEADER), (b"a", entry(crc=checked(DATA[:8]))), (b"b", entry(offset=32, crc=checked(DATA[32:40])))]
    index_of(folder).write_bytes(write_table(pairs))
    data_of(folder).write_bytes(DATA)
    with Bundle(folder / "model.ckpt-7") as bundle:
        assert [bundle[name].tobytes() for name in bundle] == [DATA[:8], DATA[32:40]]
