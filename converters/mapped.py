"""A file's bytes by memory map, of which only what is looked at counts as this process' memory."""

import mmap
import os
import threading
from pathlib import Path

import numpy as np

SMALL = 1 << 20
"""Bytes below which pages are not worth giving back."""


class MappedFile:
    """An open file, read from any thread; views stay valid as long as they are referred to."""

    def __init__(self, path: Path):
        with path.open("rb") as file:
            empty = os.fstat(file.fileno()).st_size == 0
            self._map = None if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._content = memoryview(self._map or b"")
        self._former = threading.local()

    def __len__(self) -> int:
        return len(self._content)

    def whole(self) -> memoryview:
        """All bytes, of which those that are looked at are read."""
        return self._content

    def view(self, start: int, size: int) -> memoryview:
        """Bytes of the file; gives back the pages of what this thread looked at before, which stays readable."""
        if self._map is not None and size > SMALL and hasattr(mmap, "MADV_DONTNEED"):
            former = getattr(self._former, "place", None)
            if former:
                self._map.madvise(mmap.MADV_DONTNEED, *former)
            first = start - start % mmap.PAGESIZE
            self._former.place = first, start + size - first
        fetch(self._content[start : start + size])
        return self._content[start : start + size]


def fetch(content: memoryview) -> None:
    """Has the system read a range in, one page after the other, while other threads run.

    What looks at it next – checksums – would hold them up while the disk is busy.
    """
    if len(content) > SMALL:
        np.frombuffer(content, np.uint8)[:: mmap.PAGESIZE].max()
