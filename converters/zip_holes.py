"""Fills the holes of a zip file that PyTorch laid out without data, and sets their checksums.

References:
    PKWARE, APPNOTE.TXT 4.3.7 (local header), 4.3.9 (data descriptor), 4.3.12 (central directory)
"""

import os
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
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
    with ThreadPoolExecutor(1) as writer:  # writes one array while the next is read and laid out
        written: Future[None] | None = None
        for key, array in arrays:
            data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
            if len(data) != holes[key].size:
                raise ValueError(f"{key} must have {holes[key].size} bytes, not {len(data)}")
            if written is not None:
                written.result()
            written = writer.submit(_write, file.fileno(), holes[key], data)
            left.discard(key)
        if written is not None:
            written.result()
    if left:
        raise ValueError(f"every hole must be filled; {sorted(left)} are not")


def _write(descriptor: int, hole: Hole, data: memoryview) -> None:
    checksum = struct.pack("<I", zlib.crc32(data))
    done = 0
    while done < hole.size:
        done += os.pwrite(descriptor, data[done:], hole.start + done)
    os.pwrite(descriptor, DESCRIPTOR + checksum, hole.start + hole.size)
    os.pwrite(descriptor, checksum, hole.checksum)
