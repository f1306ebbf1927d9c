"""TensorFlow's tensor bundle – the files `<prefix>.index` and `<prefix>.data-00000-of-00001` – in NumPy.

The index is a sorted table from tensor name to dtype, shape, place and checksum; the data files hold the tensors'
bytes one after the other.  Every tensor's checksum is verified when it is read.

References:
    TensorFlow, `core/util/tensor_bundle/tensor_bundle.h`, `core/protobuf/tensor_bundle.proto`
"""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np

from converters.mapped import MappedFile
from converters.tensorflow.bundle_index import DTYPES, STRING, Entry, read_index, title
from converters.tensorflow.crc32c import crc32c, mask
from converters.tensorflow.ordered_code import slice_key
from converters.tensorflow.wire import varint
from tf_simclr.errors import InputError
from tf_simclr.foreign import spend


def open_bundle(prefix: str | Path, *, verify: bool = True) -> "Bundle":
    """Opens the checkpoint `<prefix>.index`; tensors are read when asked for.

    Args:
        prefix: The files' common start, e.g. `folder/model.ckpt-250228`; `checkpoints.resolve_prefix` finds it.
        verify: Whether to check each tensor that is read against its checksum.

    Returns:
        A mapping from name to array, usable in a `with` statement.  Arrays are read-only views of the file where its
        alignment permits, and stay valid after closing.

    Raises:
        InputError: the index or a data file is missing, cut off or damaged; later, when a tensor is read, that its
            bytes do not match their checksum.
    """
    return Bundle(prefix, verify=verify)


class Bundle(Mapping[str, np.ndarray]):
    """An open checkpoint: tensor name -> array, in the order of names."""

    def __init__(self, prefix: str | Path, *, verify: bool = True):
        self.prefix = Path(prefix)
        self.verify = verify
        self.shards, self.parsed = read_index(self.index)
        self.sliced = {key: entry for key, entry in self.parsed.items() if isinstance(key, bytes)}
        self.entries = {key: entry for key, entry in self.parsed.items() if isinstance(key, str)}
        self.maps = {shard: self.open_shard(shard) for shard in sorted({e.shard for e in self.stored().values()})}
        self.check_places()

    @property
    def index(self) -> Path:
        return self.prefix.with_name(self.prefix.name + ".index")

    def shard_path(self, shard: int) -> Path:
        return self.prefix.with_name(f"{self.prefix.name}.data-{shard:05d}-of-{self.shards:05d}")

    def stored(self) -> dict[str | bytes, Entry]:
        """The entries that have data of their own."""
        return {key: entry for key, entry in self.parsed.items() if not entry.slices}

    def open_shard(self, shard: int) -> MappedFile:
        path = self.shard_path(shard)
        if not 0 <= shard < self.shards or not path.is_file():
            raise InputError(f"{path} must exist: {self.index} has tensors in it; copy it as well")
        return MappedFile(path)

    def check_places(self) -> None:
        """Every tensor lies within its file and is as long as its shape says; no bytes belong to many tensors."""
        for key, entry in self.stored().items():
            size = len(self.maps[entry.shard])
            if entry.offset + entry.size > size:
                raise InputError(
                    f"{self.shard_path(entry.shard)} must hold tensor {title(key)} at bytes {entry.offset} to "
                    f"{entry.offset + entry.size}, but has {size}; it is cut off, copy it again"
                )
            wanted = entry.count * DTYPES[entry.dtype].itemsize if entry.dtype in DTYPES else entry.size
            short = entry.dtype in DTYPES and entry.size < entry.count
            if short or (entry.dtype != STRING and entry.size != wanted):
                raise InputError(f"tensor {title(key)} of {self.index} must have {wanted} bytes, not {entry.size}")

        total = sum(entry.size for entry in self.stored().values())
        if total > sum(map(len, self.maps.values())):
            raise InputError(f"{self.index} must give each tensor its own bytes, but they add up to {total}")
        whole = {key: e for key, e in self.entries.items() if e.size and not e.slices}
        places = [(e.shard, e.offset, e.size, key) for key, e in whole.items()]
        for (shard, offset, size, one), (following, start, _, other) in pairwise(sorted(places, key=lambda p: p[:3])):
            if shard == following and start < offset + size:
                both = f"{title(one)} and {title(other)}"
                raise InputError(f"{self.index} must give each tensor its own bytes, but {both} overlap; copy it again")

    def __enter__(self) -> "Bundle":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the files; each stays mapped as long as an array of it is alive."""
        self.maps = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def shape(self, name: str) -> tuple[int, ...]:
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

    def nbytes(self, name: str) -> int:
        """Bytes of the tensor in memory (of a string tensor: in the file)."""
        entry = self.entries[name]
        return entry.size if entry.dtype == STRING else entry.count * self.dtype(name).itemsize

    def __getitem__(self, name: str) -> np.ndarray:
        """Reads and checks one tensor.

        Raises:
            KeyError: there is no such tensor.
            InputError: its bytes do not match their checksum.
        """
        dtype, entry = self.dtype(name), self.entries[name]
        if dtype.hasobject:
            return read_strings(self.content(name, entry, verify=False), entry, name=f"{name} of {self.index}")
        if entry.slices:
            return self.assemble(name, entry)
        return self.array(name, entry)

    def array(self, key: str | bytes, entry: Entry) -> np.ndarray:
        flat = np.frombuffer(self.content(key, entry), DTYPES[entry.dtype])
        return np.require(flat.reshape(entry.shape), requirements="A")  # TensorFlow aligns nothing; torch needs it

    def content(self, key: str | bytes, entry: Entry, *, verify: bool | None = None) -> memoryview:
        """The bytes of a tensor."""
        content = self.maps[entry.shard].view(entry.offset, entry.size)
        if (self.verify if verify is None else verify) and mask(crc32c(content)) != entry.crc:
            raise InputError(
                f"tensor {title(key)} must match its checksum, but its bytes in {self.shard_path(entry.shard)} were "
                "changed; copy the file again"
            )
        return content

    def assemble(self, name: str, entry: Entry) -> np.ndarray:
        """Puts a partitioned tensor together."""
        stored = {extents: self.sliced.get(slice_key(name, extents)) for extents in entry.slices}
        parts = {extents: part for extents, part in stored.items() if part and part.dtype == entry.dtype}
        if len(parts) < len(entry.slices) or sum(part.count for part in parts.values()) != entry.count:
            raise InputError(f"the slices of tensor {name} in {self.index} must make up the whole; it is damaged")
        out, filled = np.empty(entry.shape, DTYPES[entry.dtype]), np.zeros(entry.shape, bool)
        for extents, part in parts.items():
            where = tuple(slice(start, None if n < 0 else start + n) for start, n in extents)
            if out[where].shape != part.shape or filled[where].any():
                raise InputError(f"a slice of tensor {name} in {self.index} must have a place of its shape for itself")
            out[where], filled[where] = self.array(name, part), True
        return out


def read_strings(content: memoryview, entry: Entry, *, name: str) -> np.ndarray:
    """A string tensor: the lengths, their checksum, then the bytes.

    The checksum covers each length as a 32-bit number, not the varint that is stored.
    """
    spend(items=entry.count)
    lengths, position = [], 0
    for _ in range(entry.count):
        length, position = varint(content, position)
        lengths.append(length)
    if position + 4 + sum(lengths) != len(content):
        raise InputError(f"the strings of tensor {name} must fill its bytes; the file is damaged, copy it again")
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
