"""Tensors that are described but not yet read, and the file that they came from."""

import errno
import math
import mmap
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from tf_simclr.errors import InputError, check, whole_number
from tf_simclr.foreign import checked_name


def dtype_of(name: str) -> np.dtype:
    """NumPy's dtype of a name; `bfloat16` is `ml_dtypes`'."""
    return np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)


def itemsize_of(name: str) -> int:
    """Bytes of an element; of a type that NumPy does not have, one."""
    # `bfloat16` and other types that NumPy does not know are looked up where they are.
    try:
        return dtype_of(name).itemsize
    except TypeError:
        return 1


_MOST_AXES = 32
"""NumPy's limit before version 2."""


def checked_shape(shape: Any, name: str, *, itemsize: int) -> tuple[int, ...]:
    """A shape that a file gives, as a tuple.

    Args:
        shape: Should be a row of whole numbers from 0 on.
        name: What error messages call the tensor.
        itemsize: Bytes of an element; 0: unknown.

    Raises:
        InputError: it is none, or NumPy could not address its elements.
    """
    if not isinstance(shape, list | tuple):
        raise InputError(f"tensor {name} must have a list of whole numbers as its shape, not {str(shape)[:80]}")
    # Whole numbers at least 0; NumPy takes -1 for "the rest", and True for 1.
    sizes = tuple(whole_number(size, f"each size of tensor {checked_name(name)}", least=0) for size in shape)
    # An axis of length 0 makes no element, but NumPy multiplies the others all the same.
    addressed = math.prod(size or 1 for size in sizes) * max(itemsize, 1)
    # 2^62 bytes: below what 64-bit addresses hold, above any file.
    fits = len(sizes) <= _MOST_AXES and addressed < 1 << 62
    check(fits, f"tensor {name} must have a shape that can be addressed", shape=str(sizes)[:80])
    return sizes


def bytes_of(array: np.ndarray) -> memoryview:
    """An array's bytes, row by row and without gaps, as checksums and files take them."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


WEIGHTS = frozenset({"float16", "bfloat16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64"})
"""Types that a weight can have: what all formats know, and float32 holds in its range or nearly."""


@dataclass(frozen=True)
class Stored:
    """One tensor of a file.

    Attributes:
        shape: As the file has it.
        dtype: NumPy's name of the element type; `bfloat16` is `ml_dtypes`'.
        read: Reads it; no array is kept.
        chunks: Reads it chunk by chunk, in the order of its bytes; each is valid until the next. None: at once.
        reason: What it is, where it is no tensor of plain numbers and cannot be read; empty: it can.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]
    chunks: Callable[[], Iterator[np.ndarray]] | None = None
    reason: str = ""

    @classmethod
    def odd(cls, shape: tuple[int, ...], dtype: str, *, where: str, reason: str) -> "Stored":
        """A tensor that cannot be read; that is an error only where it is asked for.

        Args:
            shape: As far as it is known.
            dtype: In the file's own words.
            where: File and key, for the error.
            reason: What it is, in words: `a sparse tensor`.
        """

        # The sentence comes when it is read: a tensor that nobody wants does no harm.
        def refuse() -> np.ndarray:
            raise InputError(f"{where} must be a tensor of plain numbers to be read, but is {reason}")

        return cls(shape, dtype, refuse, reason=reason)

    def within(self, block: Callable[[], AbstractContextManager[object]]) -> "Stored":
        """The same tensor, of which each part is read in a block that says what is wrong with it.

        A block does not go on while whoever asked for the chunks waits.
        """

        def read() -> np.ndarray:
            with block():
                return self.read()

        def chunks() -> Iterator[np.ndarray]:
            inner = self.chunks() if self.chunks else iter(())
            while True:
                with block():
                    chunk = next(inner, None)
                if chunk is None:
                    return
                yield chunk

        return replace(self, read=read, chunks=chunks if self.chunks else None)

    def changed(
        self, change: Callable[[np.ndarray], np.ndarray], *, shape: tuple[int, ...] | None = None, dtype: str = ""
    ) -> "Stored":
        """What `change` makes of the tensor, at once whenever it is read; of another shape or dtype, if it says so."""
        shape = self.shape if shape is None else shape
        return replace(self, shape=shape, dtype=dtype or self.dtype, read=lambda: change(self.read()), chunks=None)

    @property
    def unusable(self) -> str:
        """What it is, where it can be no weight; empty: it can.

        Example:
            >>> Stored((2,), "complex64", lambda: np.zeros(2)).unusable
            'complex64 numbers'
        """
        return self.reason or ("" if self.dtype in WEIGHTS else f"{self.dtype} numbers")

    def byte_chunks(self) -> Iterator[memoryview]:
        """Its bytes, without gaps, as they are read."""
        yield from map(bytes_of, self.chunks() if self.chunks else (self.read(),))

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return int(np.prod(self.shape, dtype=np.int64)) * itemsize_of(self.dtype)


@dataclass
class Source:
    """What a file or folder holds, before names are understood.

    Attributes:
        path: As the user gave it.
        container: What it is, in words.
        tensors: Key → tensor; optimizer slots are keys that end in the slot's name.
        slots: Keys of optimizer state, where the container tells them from weights.
        step: Training step, where stored.
        selector: `ft_proj_selector`, where a stored graph or file tells.
        selector_from: The file that tells.
        expected: `ft_proj_selector` by the catalogue of official checkpoints, where nothing stored tells it.
        architecture: Stored architecture as a dictionary; empty: none.
        notes: What the user should know.
        writer: The program that wrote it, where the file tells and its layout depends on it.
        skipped: Class → places of objects that are no tensors.
        left: Why something that the file holds is no key → what.
        close: Releases files.
    """

    path: Path
    container: str
    tensors: dict[str, Stored]
    slots: frozenset[str] = frozenset()
    step: int | None = None
    selector: int | None = None
    selector_from: str = ""
    expected: int | None = None
    architecture: dict = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    writer: str = ""
    skipped: dict[str, list[str]] = field(default_factory=dict)
    left: dict[str, list[str]] = field(default_factory=dict)
    close: Callable[[], None] = lambda: None


SMALL = 1 << 20
"""Bytes below which pages are not worth giving back."""


class MappedFile:
    """An open file, read from any thread; views stay valid as long as they are referred to."""

    def __init__(self, path: Path):
        with path.open("rb") as file:
            # An empty file cannot be mapped.
            empty = os.fstat(file.fileno()).st_size == 0
            self._map = None if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._content = memoryview(self._map or b"")
        # A thread gives back its own pages: others may still read theirs.
        self._former = threading.local()

    def __len__(self) -> int:
        return len(self._content)

    def whole(self) -> memoryview:
        """All bytes, of which those that are looked at are read."""
        return self._content

    def view(self, start: int, size: int) -> memoryview:
        """Bytes of the file; gives back the pages of what this thread looked at before, which stays readable."""
        # Pages of a map count as this process' memory until they are given back; the system keeps them in its cache.
        if self._map is not None and size > SMALL and hasattr(mmap, "MADV_DONTNEED"):
            former = getattr(self._former, "place", None)
            if former:
                self._map.madvise(mmap.MADV_DONTNEED, *former)
            # Only whole pages can be given back.
            # First byte of the page in which the range begins.
            first = start - start % mmap.PAGESIZE
            self._former.place = first, start + size - first
        _fetch(self._content[start : start + size])
        return self._content[start : start + size]


def _fetch(content: memoryview) -> None:
    """Has the system read a range in, one page after the other, while other threads run.

    What looks at it next – checksums – would hold them up while the disk is busy.
    """
    if len(content) > SMALL:
        # One byte a page: reading it has the system fetch the page.
        np.frombuffer(content, np.uint8)[:: mmap.PAGESIZE].max()


_WORKERS = 2
"""Reading, checking, transposing and writing run beside each other; more workers would hold more tensors in memory."""

_WRITING = threading.Lock()
"""File systems let one write at a file at a time; a second one would wait in a busy loop."""


def check_room(descriptor: int, size: int) -> None:
    """Raises `OSError` where the disk has no room for a file of this size: now, and not after minutes.

    Allocating it would do as well, but takes ten times longer than writing.
    """
    if hasattr(os, "fstatvfs"):
        disk = os.fstatvfs(descriptor)
        # Blocks that are free for this user times their size.
        if disk.f_bavail * disk.f_frsize < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def put(descriptor: int, data: bytes | memoryview, *, place: int) -> int:
    """Writes at an offset of a file; from any thread.

    Returns:
        The offset behind it.
    """
    content, done = memoryview(data), 0
    with _WRITING:
        while done < len(content):
            # A write may take a part only: on network file systems, and near the end of the disk.
            done += os.pwrite(descriptor, content[done:], place + done)
    return place + done


def each(tensors: Mapping[str, Stored], use: Callable[[str, Stored], None]) -> None:
    """Hands every tensor over, to be read and used; the first failure, an interrupt too, ends it.

    Args:
        tensors: By key.
        use: (key, tensor) → None; called in any order and from two threads.
    """
    with ThreadPoolExecutor(_WORKERS) as pool:
        for _ in pool.map(use, tensors, tensors.values()):  # on a failure, what has not begun is given up
            continue
