"""TensorFlow's tensor bundle – the files `<prefix>.index` and `<prefix>.data-00000-of-00001` – in NumPy.

The index is a sorted table from tensor name to dtype, shape, place and checksum; the data files hold the tensors'
bytes one after the other.  Every tensor's checksum is verified when it is read.

References:
    TensorFlow, `core/util/tensor_bundle/tensor_bundle.h`, `core/protobuf/tensor_bundle.proto`,
    `core/framework/tensor_shape.proto`, `tensor_slice.proto`; for the keys of slices
    `core/lib/strings/ordered_code.cc` and `core/util/saved_tensor_slice_util.cc`
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import ml_dtypes
import numpy as np

from converters.tensorflow.sstable import read_table, write_table
from converters.tensors import MappedFile, bytes_of
from tf_simclr.errors import InputError, check, shortened
from tf_simclr.files import replacing
from tf_simclr.files.contents import crc32c, mask, masked_crc32c
from tf_simclr.foreign import AXES, TENSOR, checked_name, reading, spend
from tf_simclr.foreign.wire import Message, encode, encode_fixed32, encode_varint, varint

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
NUMBERS = {dtype: number for number, dtype in DTYPES.items() if number != STRING}
"""The inverse of `DTYPES`."""

HEADER = encode(1, 1) + encode(3, encode(1, 1))
"""Of what is written: one data file, little-endian, version 1."""

_Extent = tuple[int, int]
"""Start and length of a slice along one axis; (0, -1) is the whole axis."""


@dataclass(frozen=True)
class _Entry:
    """What the index says of one tensor, or of one slice of a partitioned tensor."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int
    slices: tuple[tuple[_Extent, ...], ...]

    @property
    def count(self) -> int:
        return math.prod(self.shape)


# The index.


def read_index(path: Path) -> tuple[int, dict[str | bytes, _Entry]]:
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
        shards = _read_header(table.pop(b"", b""), path)  # its key is empty, so that it is the first
        # What is left are tensors and slices, counted before they are parsed.
        spend(items=TENSOR * len(table))
        return shards, {_name_of(key, path): _parse_entry(value, key, index=path) for key, value in table.items()}


def _title(key: str | bytes) -> str:
    """The name of a tensor or slice, as an error message shows it."""
    if isinstance(key, str):
        return shortened(key, 200)
    return shortened(key.removeprefix(b"\0").split(b"\0")[0].decode("utf-8", "replace"), 200)


def _name_of(key: bytes, index: Path) -> str | bytes:
    """The name of a tensor; keys of slices, which begin with a zero, stay as they are."""
    try:
        return key if key.startswith(b"\0") else checked_name(key.decode())
    except UnicodeDecodeError:
        raise InputError(f"{index} must name tensors in UTF-8; it is damaged, copy it again") from None


def _read_header(value: bytes, index: Path) -> int:
    """Checks the `BundleHeaderProto`.

    Returns:
        The number of data files.
    """
    try:
        header = Message(value)
        # Field 1 the number of data files, 2 the order of bytes, 3 the version (2 the oldest reader).
        shards, endianness, oldest = header.integer(1), header.integer(2), header.message(3).integer(2)
    except InputError as error:
        raise InputError(f"the header in {index} must be intact, but {error}") from None
    check(shards >= 1, f"{index} must be a tensor bundle with at least one data file", num_shards=shards)
    check(endianness == 0, f"{index} must be little-endian", endianness=endianness)
    check(oldest <= 1, f"{index} needs a newer reader than version 1 of the format", min_consumer=oldest)
    return shards


def _parse_entry(value: bytes, key: bytes, *, index: Path) -> _Entry:
    """Parses a `BundleEntryProto`: 1 dtype, 2 shape, 3 shard, 4 offset, 5 size, 6 masked CRC-32C, 7 slices."""
    try:
        fields = Message(value)
        axes = fields.message(2).raw(2)
        # As many as TensorFlow's own limit, before they are made.
        check(len(axes) <= AXES, f"a tensor must have {AXES} axes at most", axes=len(axes))
        shape = tuple(Message(dim).signed(1) for dim in axes)
        slices = tuple(tuple(map(_parse_extent, part.messages(1))) for part in fields.messages(7))
        shard, offset, size = numbers = [fields.signed(number) for number in (3, 4, 5)]
        entry = _Entry(fields.integer(1), shape, shard, offset, size, fields.integer(6), slices)
    except InputError as error:
        raise InputError(f"the entry of tensor {_title(key)!r} in {index} must be intact, but {error}") from None
    # Sizes are 64 bits: negative ones, in two's complement, are damage.
    if min((*shape, *numbers), default=0) < 0:
        raise InputError(f"tensor {_title(key)!r} of {index} has a negative size; the index is damaged, copy it again")
    return entry


def _parse_extent(extent: Message) -> _Extent:
    return extent.signed(1), extent.signed(2) if 2 in extent.fields else -1


# Reading.


class Bundle(Mapping[str, np.ndarray]):
    """The open checkpoint `<prefix>.index`: tensor name -> array, in the order of names; usable in a `with` statement.

    Tensors are read when asked for, and checked against their checksums then.  Arrays are read-only views of the file
    where its alignment permits, and stay valid after closing.

    Attributes:
        prefix: Common start of the files, e.g. `folder/model.ckpt-250228`; `folders.resolve_prefix` finds it.
        entries: Tensor name -> what the index says of it.

    Raises:
        InputError: the index or a data file is missing, cut off or damaged; later, when a tensor is read, that its
            bytes do not match their checksum.
    """

    def __init__(self, prefix: str | Path):
        self.prefix = Path(prefix)
        self._shards, self._parsed = read_index(self.index)
        # Keys that begin with a zero are of slices, and no names.
        self._slices = {key: entry for key, entry in self._parsed.items() if isinstance(key, bytes)}
        self.entries = {key: entry for key, entry in self._parsed.items() if isinstance(key, str)}
        # Only data files in which something lies: a bundle may be split over many.
        self._maps = {shard: self._open_shard(shard) for shard in sorted({e.shard for e in self._stored().values()})}
        self._check_places()

    @property
    def index(self) -> Path:
        """The index file."""
        return self.prefix.with_name(self.prefix.name + ".index")

    def _shard_path(self, shard: int) -> Path:
        return self.prefix.with_name(f"{self.prefix.name}.data-{shard:05d}-of-{self._shards:05d}")

    def _stored(self) -> dict[str | bytes, _Entry]:
        """The entries that have bytes in a data file; a partitioned tensor's own entry only lists its slices."""
        return {key: entry for key, entry in self._parsed.items() if not entry.slices}

    def _open_shard(self, shard: int) -> MappedFile:
        path = self._shard_path(shard)
        if not 0 <= shard < self._shards or not path.is_file():
            raise InputError(f"{path} must exist: {self.index} has tensors in it; copy it as well")
        return MappedFile(path)

    def _check_places(self) -> None:
        """Every tensor lies within its file and is as long as its shape says; no bytes belong to two tensors."""
        # 1. Within the file; 2. as long as the shape says; 3. together no more than the files; 4. one behind the other.
        for key, entry in self._stored().items():
            size = len(self._maps[entry.shard])
            if entry.offset + entry.size > size:
                raise InputError(
                    f"{self._shard_path(entry.shard)} must hold tensor {_title(key)} at bytes {entry.offset} to "
                    f"{entry.offset + entry.size}, but has {size}; it is cut off, copy it again"
                )
            wanted = entry.count * DTYPES[entry.dtype].itemsize if entry.dtype in DTYPES else entry.size
            short = entry.dtype in DTYPES and entry.size < entry.count  # a string takes a byte at least: its length
            if short or (entry.dtype != STRING and entry.size != wanted):
                raise InputError(f"tensor {_title(key)} of {self.index} must have {wanted} bytes, not {entry.size}")

        total = sum(entry.size for entry in self._stored().values())
        if total > sum(map(len, self._maps.values())):
            raise InputError(f"{self.index} must give each tensor its own bytes, but they add up to {total}")
        # Overlaps are looked for among whole tensors, in the order of their places: neighbours suffice.
        whole = {key: e for key, e in self.entries.items() if e.size and not e.slices}
        places = [(e.shard, e.offset, e.size, key) for key, e in whole.items()]
        for (shard, offset, size, one), (following, start, _, other) in pairwise(sorted(places, key=lambda p: p[:3])):
            if shard == following and start < offset + size:
                both = f"{_title(one)} and {_title(other)}"
                raise InputError(f"{self.index} must give each tensor its own bytes, but {both} overlap; copy it again")

    def __enter__(self) -> "Bundle":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the files; each stays mapped as long as an array of it is alive."""
        self._maps = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def shape(self, name: str) -> tuple[int, ...]:
        """The tensor's shape."""
        return self.entries[name].shape

    def dtype(self, name: str) -> np.dtype:
        """The tensor's dtype; `object` for strings.

        Raises:
            InputError: it is one that no weight has.
        """
        number = self.entries[name].dtype
        if number not in DTYPES:
            raise InputError(f"tensor {name} of {self.index} has TensorFlow's dtype {number}, which no weight has")
        return DTYPES[number]

    def __getitem__(self, name: str) -> np.ndarray:
        """Reads and checks one tensor.

        Raises:
            KeyError: there is no such tensor.
            InputError: its bytes do not match their checksum.
        """
        dtype, entry = self.dtype(name), self.entries[name]
        if dtype.hasobject:  # strings: their checksum covers more than the bytes
            content = self._maps[entry.shard].view(entry.offset, entry.size)
            return _read_strings(content, entry, name=f"{name} of {self.index}")
        if entry.slices:
            return self._assemble(name, entry)
        return self._array(name, entry)

    def _array(self, key: str | bytes, entry: _Entry) -> np.ndarray:
        """A tensor, or a slice of one, that lies in one piece."""
        content = self._maps[entry.shard].view(entry.offset, entry.size)
        # The checksum in the index is masked, as the data may hold checksums of their own.
        if masked_crc32c(content) != entry.crc:
            raise InputError(
                f"tensor {_title(key)} must match its checksum, but its bytes in {self._shard_path(entry.shard)} were "
                "changed; copy the file again"
            )
        flat = np.frombuffer(content, DTYPES[entry.dtype])
        return np.require(flat.reshape(entry.shape), requirements="A")  # TensorFlow aligns nothing; torch needs it

    def _assemble(self, name: str, entry: _Entry) -> np.ndarray:
        """Puts a partitioned tensor together: every slice is there, and every element is in exactly one."""
        # Slices are found by keys made of the tensor's name and their extents.
        stored = {extents: self._slices.get(slice_key(name, extents)) for extents in entry.slices}
        slices = {extents: one for extents, one in stored.items() if one and one.dtype == entry.dtype}
        if len(slices) < len(entry.slices) or sum(one.count for one in slices.values()) != entry.count:
            raise InputError(f"the slices of tensor {name} in {self.index} must make up the whole; it is damaged")
        # Where a slice goes must be of its shape and still free: out and filled grow together.
        out, filled = np.empty(entry.shape, DTYPES[entry.dtype]), np.zeros(entry.shape, bool)
        for extents, one in slices.items():
            # A length of -1 is all of the axis.
            where = tuple(slice(start, None if n < 0 else start + n) for start, n in extents)
            if out[where].shape != one.shape or filled[where].any():
                raise InputError(f"a slice of tensor {name} in {self.index} must have a place of its shape for itself")
            out[where], filled[where] = self._array(name, one), True
        return out


def _read_strings(content: memoryview, entry: _Entry, *, name: str) -> np.ndarray:
    """A string tensor: the lengths as varints, their checksum in four bytes, then the strings' bytes.

    The first checksum covers each length as a 32-bit number, not the varint that is stored; the tensor's own goes on
    from there over the stored checksum and the bytes.
    """
    # So many strings, each with a length: counted before one is read.
    spend(items=entry.count)
    # 1. All lengths; 2. their checksum in four bytes; 3. the strings one behind the other.
    lengths, position = [], 0
    for _ in range(entry.count):
        length, position = varint(content, position)
        lengths.append(length)
    if position + 4 + sum(lengths) != len(content):
        raise InputError(f"the strings of tensor {name} must fill its bytes; the file is damaged, copy it again")
    # TensorFlow takes the checksum of lengths as fixed integers, of 4 bytes or, where they need it, of 8.
    crc = crc32c(b"".join(length.to_bytes(4 if length < 1 << 32 else 8, "little") for length in lengths))
    stored = int.from_bytes(content[position : position + 4], "little")
    if stored != mask(crc) or mask(crc32c(content[position:], crc)) != entry.crc:
        raise InputError(f"tensor {name} must match its checksum, but its bytes were changed; copy the file again")
    out = np.empty(entry.count, object)
    position += 4
    for i, length in enumerate(lengths):
        out[i] = bytes(content[position : position + length])
        position += length
    return out.reshape(entry.shape)


# The keys under which a partitioned tensor's slices are stored: numbers and text, encoded so that bytes sort as values.


def slice_key(name: str, extents: Iterable[_Extent]) -> bytes:
    """The index key of the slice of tensor `name` at these extents.

    Example:
        >>> slice_key("w", [(0, 2), (0, -1)])
        b'\\x00w\\x00\\x01\\x01\\x02\\x80\\x82\\x80\\x7f'
    """
    extents = list(extents)
    numbers = b"".join(ordered_signed(number) for extent in extents for number in extent)
    return _ordered_unsigned(0) + _ordered_text(name) + _ordered_unsigned(len(extents)) + numbers


def _ordered_unsigned(value: int) -> bytes:
    """How many bytes follow, then the number with its highest byte first."""
    # No byte for 0, one for up to 255: the length comes first, so that shorter numbers sort first.
    length = (value.bit_length() + 7) // 8
    return bytes([length]) + value.to_bytes(length, "big")


def _ordered_text(value: str) -> bytes:
    return value.encode().replace(b"\0", b"\0\xff") + b"\0\1"  # UTF-8 has no 0xff, which would be escaped, too


def ordered_signed(value: int) -> bytes:
    """As many leading one bits as bytes, flipped for negative numbers, then the number in two's complement."""
    length = (value if value >= 0 else ~value).bit_length() // 7 + 1  # each byte gives one bit to the header
    # Ones at the top, as many as bytes: larger numbers sort behind smaller ones.
    header = ((1 << length) - 1) << (8 * length - length)
    return ((value & (1 << 8 * length) - 1) ^ header).to_bytes(length, "big")


# Writing.


def write_bundle(prefix: str | Path, tensors: Iterable[tuple[str, np.ndarray | bytes]]) -> None:
    """Writes `<prefix>.index` and `<prefix>.data-00000-of-00001`, which appear when they are whole.

    The files equal, byte for byte, those that TensorFlow writes for the same tensors in the same order.

    Args:
        prefix: The files' common start; its folder must exist.
        tensors: Names and values, in any order, taken one at a time; `bytes` are a scalar string tensor.

    Raises:
        InputError: a name comes twice, a dtype is not TensorFlow's, or the disk does not take it.
    """
    start = Path(prefix)
    # Both appear together, or neither does.
    data, index = (start.with_name(start.name + end) for end in (".data-00000-of-00001", ".index"))
    with replacing(data, index) as (data_file, index_file):
        # Data lie in the order in which they come; only the index is sorted.
        entries: dict[bytes, bytes] = {}
        for name, value in tensors:
            check(name != "" and name.encode() not in entries, "each tensor must have a name of its own", name=name)
            entries[name.encode()] = _append(data_file, value, name=name)
        # The header's key is empty, so that it sorts first.
        index_file.write(write_table([(b"", HEADER), *sorted(entries.items())]))


def _append(file: BinaryIO, value: np.ndarray | bytes, *, name: str) -> bytes:
    """Appends a tensor's bytes.

    Returns:
        Its `BundleEntryProto`.
    """
    offset = file.tell()
    shape: tuple[int, ...] = ()
    if isinstance(value, bytes):
        dtype, (content, crc) = STRING, _encode_string(value)
    else:
        dtype, shape = _number_of(name, value), value.shape
        # Little-endian: what the checksum is of, and what lies in the file.
        content = bytes_of(value.astype(DTYPES[dtype], copy=False))
        crc = crc32c(content)
    file.write(content)
    # A shape is a message of dimensions, each a message with its size.
    dims = b"".join(encode(2, encode(1, size)) for size in shape)
    place = encode(4, offset) + encode(5, len(content))
    return encode(1, dtype) + encode(2, dims) + place + encode_fixed32(6, mask(crc))


def _number_of(name: str, value: np.ndarray) -> int:
    """TensorFlow's number of an array's dtype."""
    number = NUMBERS.get(value.dtype.newbyteorder("<"))
    if number is None:
        raise InputError(f"tensor {name} must have a dtype that TensorFlow has. Received: dtype={value.dtype}")
    return number


def _encode_string(value: bytes) -> tuple[bytes | memoryview, int]:
    """The stored form of a scalar string tensor, and its checksum (`_read_strings` is the inverse)."""
    crc = crc32c(len(value).to_bytes(4, "little"))
    check_length = mask(crc).to_bytes(4, "little")
    return encode_varint(len(value)) + check_length + value, crc32c(check_length + value, crc)
