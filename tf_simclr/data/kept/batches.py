"""Batches of kept pictures, each in the upper left corner of zeros: written in place, into memory that is used again.

What a host does for an image, if a device makes its views, is to decode it and to copy it to its place.  A batch of
pictures takes tens of megabytes: memory that is fresh from the system costs more than the copies do, page by page.
So a batch that nobody holds any more is the place of the next one; of what lay there only the edges that a smaller
picture leaves are cleared.
"""

from __future__ import annotations

import collections
import itertools
import weakref

import numpy as np

_ALIGNED = 64
"""Bytes; TensorFlow takes an array that begins there as it is, and copies another."""
_SPARE = 4
"""Batches that wait to be used again; what is more goes back to the system."""


class _Batch:
    """Memory of one batch, zeros but for the pictures in it.

    Attributes:
        pixels: `(n, 1, height, width, 3)`.
        sizes: height and width of the picture at each place, int32 `(n, 1, 2)`.
    """

    def __init__(self, shape: tuple[int, ...], dtype: type[np.integer]):
        # A few bytes more than it takes, of which it begins at the first multiple of 64.
        memory = np.zeros(int(np.prod(shape)) * np.dtype(dtype).itemsize + _ALIGNED, np.uint8)
        begin = -memory.ctypes.data % _ALIGNED
        self.shape, self.dtype = shape, dtype
        self.memory = memory[begin : memory.size - (_ALIGNED - begin)]
        self.pixels = self.memory.view(dtype).reshape(shape)
        self.sizes = np.zeros((shape[0], 1, 2), np.int32)

    def put(self, row: int, picture: np.ndarray) -> None:
        """A picture `(h, w, 3)` at its place, and zeros where the last one there was larger."""
        (height, width), (tall, wide) = picture.shape[:2], self.sizes[row, 0].tolist()
        place = self.pixels[row, 0]
        # The picture, then zeros below it and to its right, as far as the last one reached: the rest is zero already.
        place[:height, :width] = picture
        place[height:tall, :wide] = 0
        place[: min(height, tall), width:wide] = 0
        self.sizes[row, 0] = height, width


class Batches:
    """Memory for batches of one shape; may be used by many threads."""

    def __init__(self, shape: tuple[int, ...], dtype: type[np.integer]):
        self.shape, self.dtype = shape, dtype
        self.free: collections.deque[_Batch] = collections.deque(maxlen=_SPARE)
        self.open: dict[int, _Batch] = {}
        self.numbers = itertools.count()

    def taken(self) -> _Batch:
        """One that nobody sees."""
        try:
            return self.free.pop()
        except IndexError:
            return _Batch(self.shape, self.dtype)

    def given(self, batch: _Batch) -> tuple[np.ndarray, np.ndarray]:
        """Pixels and sizes of a whole batch, which is free again as soon as the pixels are let go."""
        # A view of a view hangs on whoever owns the memory; of a buffer, on the first array: it goes when the last
        # view of it does, and not before.
        first = np.frombuffer(batch.memory.data, self.dtype)
        weakref.finalize(first, self.free.append, batch).atexit = False
        return first.reshape(self.shape), batch.sizes.copy()

    # By number, for a graph, which fills a batch in parts:

    def begin(self) -> np.int64:
        """The number of a batch that is filled from now on."""
        number = next(self.numbers)
        self.open[number] = self.taken()
        return np.int64(number)

    def put(self, number: np.int64, rows: np.ndarray, *pictures: np.ndarray) -> np.int64:
        """Pictures `(h, w, 3)` to their rows; returns how many they are."""
        batch = self.open[int(number)]
        for row, picture in zip(rows.tolist(), pictures, strict=True):
            batch.put(row, picture)
        return np.int64(len(pictures))

    def end(self, number: np.int64) -> tuple[np.ndarray, np.ndarray]:
        """As `given`."""
        return self.given(self.open.pop(int(number)))
