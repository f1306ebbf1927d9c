"""The index of a tensor bundle: for each tensor its dtype, shape, place and checksum.

References:
    TensorFlow, `core/protobuf/tensor_bundle.proto`, `core/framework/tensor_shape.proto`, `tensor_slice.proto`
"""

import math
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np

from converters.tensorflow.ordered_code import Extent
from converters.tensorflow.sstable import read_table
from converters.tensorflow.wire import Message
from tf_simclr.errors import InputError, check, shortened
from tf_simclr.foreign import AXES, TENSOR, checked_name, reading, spend

DTYPES: dict[int, np.dtype] = {
    1: np.dtype("<f4"),
    2: np.dtype("<f8"),
    3: np.dtype("<i4"),
    4: np.dtype("u1"),
    5: np.dtype("<i2"),
    6: np.dtype("i1"),
    7: np.dtype(object),  # strings, as Python's bytes
    8: np.dtype("<c8"),
    9: np.dtype("<i8"),
    10: np.dtype(bool),
    14: np.dtype(ml_dtypes.bfloat16),
    17: np.dtype("<u2"),
    18: np.dtype("<c16"),
    19: np.dtype("<f2"),
    22: np.dtype("<u4"),
    23: np.dtype("<u8"),
}
"""NumPy's dtype of each of TensorFlow's (`core/framework/types.proto`) that a weight can have."""

OTHER_DTYPES = {
    11: "qint8",
    12: "quint8",
    13: "qint32",
    15: "qint16",
    16: "quint16",
    20: "resource",
    21: "variant",
    24: "float8_e5m2",
    25: "float8_e4m3fn",
    29: "int4",
    30: "uint4",
}
"""TensorFlow's names of its other dtypes, which no weight has."""

STRING = 7


@dataclass(frozen=True)
class Entry:
    """What the index says of one tensor, or of one slice of a partitioned tensor."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int
    slices: tuple[tuple[Extent, ...], ...]

    @property
    def count(self) -> int:
        return math.prod(self.shape)


def read_index(path: Path) -> tuple[int, dict[str | bytes, Entry]]:
    """Reads `<prefix>.index`.

    Returns:
        The number of data files, and the entries: tensors by name, slices of partitioned tensors by their key.

    Raises:
        InputError: the file is missing, cut off, damaged or of another format.
    """
    if not path.is_file():
        raise InputError(f"{path} must exist: it is the index of a TensorFlow checkpoint")
    with reading(path, "an intact checkpoint index"):
        table = read_table(path.read_bytes(), str(path))
        shards = read_header(table.pop(b"", b""), path)
        spend(items=TENSOR * len(table))
        return shards, {decode(key, path): parse_entry(value, key, index=path) for key, value in table.items()}


def title(key: str | bytes) -> str:
    """The name of a tensor or slice, as an error message shows it."""
    if isinstance(key, str):
        return shortened(key, 200)
    return shortened(key.removeprefix(b"\0").split(b"\0")[0].decode("utf-8", "replace"), 200)


def decode(key: bytes, index: Path) -> str | bytes:
    """The name of a tensor; keys of slices stay as they are."""
    try:
        return key if key.startswith(b"\0") else checked_name(key.decode())
    except UnicodeDecodeError:
        raise InputError(f"{index} must name tensors in UTF-8; it is damaged, copy it again") from None


def read_header(value: bytes, index: Path) -> int:
    """Checks the bundle's header.

    Returns:
        The number of data files.
    """
    try:
        header = Message(value)
        shards, endianness, oldest = header.integer(1), header.integer(2), header.message(3).integer(2)
    except InputError as error:
        raise InputError(f"the header in {index} must be intact, but {error}") from None
    check(shards >= 1, f"{index} must be a tensor bundle with at least one data file", num_shards=shards)
    check(endianness == 0, f"{index} must be little-endian", endianness=endianness)
    check(oldest <= 1, f"{index} needs a newer reader than version 1 of the format", min_consumer=oldest)
    return shards


def parse_entry(value: bytes, key: bytes, *, index: Path) -> Entry:
    """Parses a `BundleEntryProto`."""
    try:
        fields = Message(value)
        axes = fields.message(2).raw(2)
        check(len(axes) <= AXES, f"a tensor must have {AXES} axes at most", axes=len(axes))
        shape = tuple(Message(dim).signed(1) for dim in axes)
        slices = tuple(tuple(map(parse_extent, part.messages(1))) for part in fields.messages(7))
        shard, offset, size = numbers = [fields.signed(number) for number in (3, 4, 5)]
        entry = Entry(fields.integer(1), shape, shard, offset, size, fields.integer(6), slices)
    except InputError as error:
        raise InputError(f"the entry of tensor {title(key)!r} in {index} must be intact, but {error}") from None
    if min((*shape, *numbers), default=0) < 0:
        raise InputError(f"tensor {title(key)!r} of {index} has a negative size; the index is damaged, copy it again")
    return entry


def parse_extent(extent: Message) -> Extent:
    """Start and length along one axis; a length of -1 is all of it."""
    return extent.signed(1), extent.signed(2) if 2 in extent.fields else -1
