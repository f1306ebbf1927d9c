"""Fills the holes of a zip file that PyTorch laid out without data, and sets their checksums.

References:
    PKWARE, APPNOTE.TXT 4.3.7 (local header), 4.3.9 (data descriptor), 4.3.12 (central directory)
"""

import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

LOCAL = struct.Struct("<26xHH")
"""Lengths of name and extra field in a local header of 30 bytes."""

CENTRAL = struct.Struct("<16xI8xHHH12x")
"""Checksum and lengths of name, extra field and comment in a central header of 46 bytes."""

DESCRIPTOR = b"PK\x07\x08"


@dataclass(frozen=True)
class Hole:
    """Where a member's data belong.

    Attributes:
        start: Offset of its data.
        size: Their length in bytes.
        checksum: Offset of its checksum in the central directory.
    """

    start: int
    size: int
    checksum: int


def data_members(path: Path) -> list[Hole]:
    """The members `data/0`, `data/1`, … of a PyTorch file, in this order."""
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        place, found = archive.start_dir, {}
        for member in archive.infolist():
            file.seek(member.header_offset)
            start = member.header_offset + LOCAL.size + sum(LOCAL.unpack(file.read(LOCAL.size)))
            folder, _, number = member.filename.rpartition("/")
            if folder.endswith("/data"):
                found[int(number)] = Hole(start, member.file_size, place + 16)
            file.seek(place)
            place += CENTRAL.size + sum(CENTRAL.unpack(file.read(CENTRAL.size))[1:])
    return [found[number] for number in sorted(found)]


def fill(file: BinaryIO, holes: Mapping[str, Hole], *, arrays: Iterable[tuple[str, np.ndarray]]) -> None:
    """Writes each array into its hole, and its checksum behind it and into the central directory.

    Raises:
        ValueError: an array is not as long as its hole, or one is missing.
    """
    left = set(holes)
    for key, array in arrays:
        hole, data = holes[key], np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        if len(data) != hole.size:
            raise ValueError(f"{key} must have {hole.size} bytes, not {len(data)}")
        checksum = struct.pack("<I", zlib.crc32(data))
        file.seek(hole.start)
        file.write(data)
        file.write(DESCRIPTOR + checksum)
        file.seek(hole.checksum)
        file.write(checksum)
        left.discard(key)
    if left:
        raise ValueError(f"every hole must be filled; {sorted(left)} are not")
