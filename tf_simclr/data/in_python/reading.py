"""Images by their place in a stream, and batches that can be iterated again."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from tf_simclr.data import draws, examples
from tf_simclr.data.examples import Unreadable
from tf_simclr.data.sources import Rows, Source
from tf_simclr.errors import InputError
from tf_simclr.foreign import DAMAGED
from tf_simclr.frameworks import needs_tensorflow

_READ_AT_ONCE = 1024


@dataclasses.dataclass(frozen=True)
class Batches:
    """Batches that are made anew each time that they are iterated, as those of a `tf.data.Dataset` are."""

    make: Callable[[], Iterator[tuple]]

    def __iter__(self) -> Iterator[tuple]:
        return self.make()

    def take(self, count: int) -> Batches:
        """The first batches alone."""
        return Batches(lambda: itertools.islice(self.make(), count))


def rows_of(source: Source) -> Rows:
    """The records of a source.

    Raises:
        InputError: TensorFlow alone can read them.
    """
    if source.rows is None:
        raise needs_tensorflow(f"reading {source.origin}")
    return source.rows


@dataclasses.dataclass(frozen=True)
class Reader:
    """Images by their positions in an endless stream; the place of a corrupt one is taken by another."""

    source: Source
    rows: Rows
    _: dataclasses.KW_ONLY
    seed: int
    unreadable: Unreadable
    side: tuple[int, int]

    def numbers(self, positions: np.ndarray) -> list[int]:
        """The rows at positions, each epoch in an order of its own."""
        # Position = epoch · images + rank, and the epoch's own permutation has a row for each rank.
        epochs, ranks = np.divmod(positions, len(self.rows))
        pairs = zip(epochs.tolist(), ranks.tolist(), strict=True)
        return [int(order(self.seed, epoch, count=len(self.rows))[rank]) for epoch, rank in pairs]

    def at(self, position: int, number: int) -> tuple[np.ndarray, int]:
        """The pixels at a position, whose row has this number, and the row that they are of.

        Raises:
            InputError: no image can be read any more.
        """
        pixels = self.read(number)
        if pixels is not None:
            return pixels, number
        # The same spare image that TensorFlow's pipeline takes: drawn by the position's seed, then the rows behind it.
        own = draws.fold_in((self.seed, draws.VIEWS), np.array([position]))[0]
        # TensorFlow folds a Python number in as 32 bits, and so keeps 32 bits of the hash.
        hashed = draws.words(own[None], 1).view(np.int32)[0, 0]
        spare = np.array([[hashed, draws.SPARE]], np.int64)
        first = int(draws.int64s(spare, 1).view(np.uint64)[0, 0] % np.uint64(len(self.rows)))
        for number in (np.arange(first, first + len(self.rows)) % len(self.rows)).tolist():
            if (pixels := self.read(number)) is not None:
                return pixels, number
        rule = f"at least one image of {self.source.origin} must stay readable while it is trained on"
        raise InputError(f"{rule}, but none is any more")

    def read(self, number: int) -> np.ndarray | None:
        """The pixels of a row, small enough to be padded; None where it cannot be read, which is noted."""
        try:
            return _fitting(self.rows.pixels(number), self.side)
        except DAMAGED:
            self.unreadable.add(str(self.rows.names[number]).encode(errors="surrogateescape"))
            return None


@functools.lru_cache(maxsize=4)
def order(seed: int, epoch: int, *, count: int) -> np.ndarray:
    """The rows in the order of an epoch: that of their random keys, as `sources.Indexed` has it."""
    keys = draws.int64s(draws.fold_in((seed, draws.ORDER), np.array([epoch])), count)[0]
    return np.argsort(keys, kind="stable")


def side_for(image_size: int, rows: Rows) -> tuple[int, int]:
    """Height and width that images are padded to; larger ones are shrunk to that."""
    side = examples.side_for(image_size)
    known = rows.images.shape[1:3] if rows.images.ndim > 1 else (side, side)
    return min(side, known[0]), min(side, known[1])


def _fitting(pixels: np.ndarray, side: tuple[int, int]) -> np.ndarray:
    """The pixels, or where they are too many the means of areas of them, in the same proportions."""
    height, width = pixels.shape[:2]
    # One scale for both sides, so that nothing is stretched; images are never made larger.
    scale = min(side[0] / height, side[1] / width)
    if scale >= 1:
        return pixels
    size = tuple(min(limit, max(1, round(length * scale))) for limit, length in zip(side, (height, width), strict=True))

    def means(part: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(part).resize(size[::-1], Image.Resampling.BOX))

    if pixels.dtype == np.uint8:
        return means(pixels)
    # Pillow has no colours of 16 bits.
    planes = [means(pixels[..., i].astype(np.float32)) for i in range(pixels.shape[-1])]
    return np.rint(np.stack(planes, -1)).astype(pixels.dtype)


def padded(pixels: list[np.ndarray], side: tuple[int, int]) -> np.ndarray:
    """Integers `(n, 1, height, width, channels)`, each image in the upper left corner; of 16 bits where one has."""
    deep = any(one.dtype == np.uint16 for one in pixels)
    made = np.zeros((len(pixels), 1, *side, pixels[0].shape[-1]), np.uint16 if deep else np.uint8)
    for place, one in zip(made, pixels, strict=True):
        # 8 bits to 16: 255 · 257 = 65535, so white stays white.
        whole = one.astype(np.uint16) * 257 if deep and one.dtype == np.uint8 else one
        place[0, : one.shape[0], : one.shape[1]] = whole
    return made


def all_pixels(source: Source, *, most: int, limit: int) -> np.ndarray | None:
    """All images of a source `(n, h, w, 3)`, integers over their full range, where they are small and of one size.

    Args:
        source: whose list memory holds; else None comes back.
        most: side in pixels.
        limit: bytes that they may take, at 8 bits a channel.
    """
    rows = source.rows
    if rows is None:
        return None
    if rows.images.ndim > 1 and not rows.opacity:
        return rows.images[..., np.minimum(range(3), rows.images.shape[-1] - 1)]
    # Given up at the first image that is too large, of another size, or damaged: then each is read when it is wanted.
    held: np.ndarray | None = None
    with ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as pool:
        for begin in range(0, len(rows), _READ_AT_ONCE):
            numbers = range(begin, min(begin + _READ_AT_ONCE, len(rows)))
            try:
                read = list(pool.map(rows.pixels, numbers))
            except DAMAGED:
                return None
            first = read[0] if held is None else held[0]
            if max(first.shape[:2]) > most or first.nbytes // first.itemsize * len(rows) > limit:
                return None
            if any(one.shape != first.shape or one.dtype != first.dtype for one in read):
                return None
            held = np.empty((len(rows), *first.shape), first.dtype) if held is None else held
            held[numbers.start : numbers.stop] = read
    return held


def check_readable(source: Source) -> None:
    """Raises `InputError` where no image of a source can be read."""
    rows = rows_of(source)
    for number in range(len(rows)):
        try:
            rows.pixels(number)
        except DAMAGED:
            continue
        return
    raise InputError(f"at least one image of {source.origin} must be readable, but none of {source.num_examples} is")
