"""Writes PyTorch's zip files without PyTorch, tensor by tensor, from two threads; `state.py` reads them.

A file `name.pth` is a zip without compression: `name/data.pkl` describes the tensors (`state_pickle.py`), and each
`name/data/N` holds one storage, beginning at a multiple of 64 bytes.

References:
    pytorch caffe2/serialize/inline_container.cc, torch/serialization.py; PKWARE, APPNOTE.TXT 4.3.7 (local header),
    4.3.12 (central directory), 4.3.14–4.3.16 (its ends), 4.5.3 (Zip64)
"""

import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converters.names.pytorch import NESTED
from converters.pytorch.state_pickle import Content, Tensor, contiguous, encode
from converters.tensors import Stored, check_room, each, put
from tf_simclr.errors import check
from tf_simclr.files import replacing

_TOP = "archive"
"""Folder of all members; PyTorch takes any."""

_ALIGNMENT = 64
_MARKS = {".format_version": b"1", ".storage_alignment": b"64", "byteorder": b"little", "version": b"3\n"}
"""Members that PyTorch adds; `version` it asks for."""

LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR64 = struct.Struct("<4sIQI")
_DATE = 1 << 5 | 1
"""The first day that zips know, 1980-01-01: equal weights give equal files."""

LIMIT = _FULL = 0xFFFFFFFF
"""From here on, sizes and places need Zip64; the plain fields are full of ones then."""


@dataclass
class _Member:
    """A file in the zip.

    Attributes:
        name: Within the zip.
        size: In bytes.
        header: Offset of its local header.
        start: Offset of its data.
        checksum: CRC-32 of its data.
    """

    name: str
    size: int
    header: int
    start: int
    checksum: int = 0


def write_state(path: Path, tensors: Mapping[str, Stored], *, wrapper: str = "") -> None:
    """Writes a state_dict, inside the dictionaries that `wrapper` names, holding two tensors at most.

    Args:
        path: Where to.
        tensors: Key → tensor.
        wrapper: Keys, joined by slashes.

    Raises:
        InputError: the file cannot be written.
    """
    # 1. What is in the file is known from shapes alone, so that every member's place is fixed before one is written.
    described = {key: _described(str(number), stored) for number, (key, stored) in enumerate(tensors.items())}
    content: Content = dict(described)
    for key in reversed(wrapper.split("/") if wrapper else ()):
        content = _split(content) if key == NESTED else {key: content}
    fixed = {"data.pkl": encode(content), **_MARKS}
    # 2. Members are laid out; 3. they are written in any order, from two threads; 4. the directory comes last.
    sizes = {f"data/{tensor.storage}": tensors[key].nbytes for key, tensor in described.items()}
    members = _places({name: len(data) for name, data in fixed.items()} | sizes)
    with replacing(path) as (file,):
        zip_file = _Zip(file.fileno(), members)
        for name, data in fixed.items():
            zip_file.write(name, [data])
        each(tensors, lambda key, stored: zip_file.write(f"data/{described[key].storage}", stored.byte_chunks()))
        zip_file.finish()


def _described(number: str, stored: Stored) -> Tensor:
    count = int(np.prod(stored.shape, dtype=np.int64))
    return Tensor(number, stored.dtype, count, stored.shape, contiguous(stored.shape))


def _split(state: Mapping[str, Any]) -> Content:
    """One dictionary per first component of the keys.

    Example:
        >>> _split({"head.fc.weight": 1, "head.fc.bias": 2})
        {'head': {'fc.weight': 1, 'fc.bias': 2}}
    """
    content: Content = {}
    for key, tensor in state.items():
        first, rest = key.split(".", 1)
        content.setdefault(first, {})[rest] = tensor
    return content


def _places(sizes: Mapping[str, int]) -> dict[str, _Member]:
    """Lays the members out, one behind the other, each one's data at a multiple of `_ALIGNMENT`."""
    # Sorted by nothing: members keep the order of the network.
    members, place = {}, 0
    for name, size in sizes.items():
        check(size < LIMIT, "a tensor in a PyTorch file must have less than 4 GiB; use --to safetensors", bytes=size)
        # Behind the header, its name and the four bytes of an empty padding field.
        begin = place + LOCAL.size + len(f"{_TOP}/{name}") + 4
        # -begin % 64 bytes fill up to the next multiple.
        members[name] = _Member(f"{_TOP}/{name}", size, place, begin + -begin % _ALIGNMENT)
        place = members[name].start + size
    return members


class _Zip:
    """The zip that is being written; members in any order and from any thread."""

    def __init__(self, descriptor: int, members: Mapping[str, _Member]):
        self.descriptor, self.members = descriptor, members
        self.written: set[str] = set()
        last = list(members.values())[-1]
        self.end = last.start + last.size
        check_room(descriptor, self.end)

    def write(self, name: str, chunks: Iterable[bytes | memoryview]) -> None:
        """Writes a member, chunk by chunk.

        Raises:
            ValueError: the data are not as long as was said.
        """
        member = self.members[name]
        place = member.start
        for chunk in chunks:
            member.checksum = zlib.crc32(chunk, member.checksum)
            place = put(self.descriptor, chunk, place=place)
        if place != member.start + member.size:
            raise ValueError(f"{name} must have {member.size} bytes, not {place - member.start}")
        # The header holds the checksum, which is known only now.
        put(self.descriptor, _local(member), place=member.header)
        self.written.add(name)

    def finish(self) -> None:
        """Writes the central directory.

        Raises:
            ValueError: a member is missing.
        """
        missing = sorted(self.members.keys() - self.written)
        if missing:
            raise ValueError(f"every member must be written; {missing[:5]} are not")
        # The directory, from places that are known and checksums that are now.
        entries = b"".join(map(_central, self.members.values()))
        put(self.descriptor, entries + _ends(len(self.members), len(entries), start=self.end), place=self.end)


def _local(member: _Member) -> bytes:
    """The header before the data; a field `FB`, as PyTorch's, pads it."""
    name = member.name.encode()
    # The padding field's length fills the gap that the layout left.
    gap = member.start - member.header - LOCAL.size - len(name)
    sizes = (member.checksum, member.size, member.size, len(name), gap)
    padding = struct.pack("<2sH", b"FB", gap - 4) + bytes(gap - 4)
    return LOCAL.pack(b"PK\x03\x04", 20, 0, 0, 0, _DATE, *sizes) + name + padding


def _central(member: _Member) -> bytes:
    """The entry in the central directory; places from 4 GiB on stand in a Zip64 field."""
    name, far = member.name.encode(), member.header >= LIMIT
    extra = struct.pack("<2HQ", 1, 8, member.header) if far else b""
    head = (b"PK\x01\x02", 45 if far else 20, 45 if far else 20, 0, 0, 0, _DATE)
    sizes = (member.checksum, member.size, member.size, len(name), len(extra))
    return _CENTRAL.pack(*head, *sizes, 0, 0, 0, 0, _FULL if far else member.header) + name + extra


def _ends(count: int, size: int, *, start: int) -> bytes:
    """What follows the central directory: its place, in Zip64's form too where the plain one does not suffice."""
    # 4 GiB or 65,535 members: then the fields are full, and Zip64's count.
    far = start + size >= LIMIT or count >= 0xFFFF
    large = _END64.pack(b"PK\x06\x06", _END64.size - 12, 45, 45, 0, 0, count, count, size, start)
    large += _LOCATOR64.pack(b"PK\x06\x07", 0, start + size, 1)
    fields = (0xFFFF, 0xFFFF, _FULL, _FULL) if far else (count, count, size, start)
    return (large if far else b"") + _END.pack(b"PK\x05\x06", 0, 0, *fields, 0)
