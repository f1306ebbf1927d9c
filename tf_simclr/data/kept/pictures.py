"""The pictures of a cache, a batch of them read, checked and decoded at once, each to its place in the batch.

Which of a batch's pictures can be: those of as many bits as the batch has, that fit into it, and whose records are
whole.  All others are made one by one, as any other source's, and put to their places afterwards.
"""

from __future__ import annotations

import functools
import io
import os
from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tf_simclr.data.kept.batches import Batches
from tf_simclr.data.kept.records import Reader
from tf_simclr.errors import check
from tf_simclr.frameworks import tf

_PART = 64
"""Pictures that one round of a loop decodes at most: so many operations stand beside each other in a graph."""
_PARTS = 4
"""Rounds that run at the same time."""
_BEGINS, _ENDS = b"\xff\xd8\xff", b"\xff\xd9"
"""What a JPEG begins and ends with."""


_Filled = tuple["tf.Tensor", "tf.Tensor"]
"""The number of a batch, and which of its rows it has, `(n,)`."""


class Pictures(Reader):
    """A reader that knows the shapes of its pictures.

    Attributes:
        shapes: heights and widths `(n, 2)`; zeros of what could not be read.
    """

    anew = "remove the folder that it lies in, and it is made anew"

    def __init__(self, folder: Path, shapes: np.ndarray):
        super().__init__(folder)
        rule = f"the files in {folder} must hold a picture for each that is listed; remove it, and it is made anew"
        check(len(self.places) == len(shapes), rule, pictures=len(self.places), listed=len(shapes))
        self.shapes = shapes

    def fitting(self, rows: np.ndarray, sides: tuple[int, int]) -> np.ndarray:
        """Which pictures can be read and fit, `(n,)`."""
        return np.all((self.shapes[rows] > 0) & (self.shapes[rows] <= sides), axis=1)

    @abstractmethod
    def suits(self, *, deep: bool) -> bool:
        """Whether most of them can be decoded at once for batches of 16 bits, or of 8."""

    @abstractmethod
    def fill(self, batches: Batches, rows: tf.Tensor, *, sides: tuple[int, int], deep: bool) -> _Filled:
        """Begins a batch with the pictures of rows `(n,)` that can be decoded at once."""


class Jpegs(Pictures):
    """JPEG files; those of 16 bits are PNGs."""

    def suits(self, *, deep: bool) -> bool:
        return not deep

    def fill(self, batches: Batches, rows: tf.Tensor, *, sides: tuple[int, int], deep: bool) -> _Filled:
        """Each call of the decoder is an operation of its own: a data set of pictures would cost a tenth more."""
        # 1. Python reads and checks the files; what is damaged or does not fit is a picture of one pixel meanwhile.
        count = rows.shape[0]
        part = max(size for size in range(1, min(count, _PART) + 1) if count % size == 0)
        plain = functools.partial(self._plain, sides=sides)
        encoded, good = tf.numpy_function(plain, [rows], [tf.string, tf.bool], stateful=False)
        # 2. (count,) → (rounds, part): a graph has `part` decoders side by side, and goes round them.
        parts, numbers = tf.reshape(encoded, (-1, part)), tf.reshape(tf.range(count), (-1, part))
        number = tf.numpy_function(batches.begin, [], tf.int64)

        def decoded(i: tf.Tensor, done: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            pictures = [tf.io.decode_jpeg(parts[i, k], 3) for k in range(part)]
            # Each picture is copied to its place as soon as its round is decoded: no batch of them is put together.
            put = tf.numpy_function(batches.put, [number, numbers[i], *pictures], tf.int64)
            return i + 1, done + tf.ensure_shape(put, ())

        start = tf.constant(0), tf.constant(0, tf.int64)
        if part == count:
            _, done = decoded(*start)
        else:
            _, done = tf.while_loop(lambda i, _: i < count // part, decoded, start, parallel_iterations=_PARTS)
        # 3. The number is given on when all rounds are done, and not before.
        with tf.control_dependencies([done]):
            return tf.ensure_shape(tf.identity(number), ()), tf.ensure_shape(good, (count,))

    def _plain(self, rows: np.ndarray, *, sides: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """The files of rows, and which of them are whole JPEGs that fit."""
        found = self.read(rows)
        whole = [one.startswith(_BEGINS) and one.endswith(_ENDS) for one in found]
        good = self.fitting(rows, sides) & np.array(whole)
        return np.array([one if fits else _one_pixel() for one, fits in zip(found, good, strict=True)], object), good


@functools.cache
def _one_pixel() -> bytes:
    """A JPEG that stands where a picture cannot be decoded."""
    Image.new("L", (1, 1)).save(file := io.BytesIO(), "JPEG")
    return file.getvalue()


class Raw(Pictures):
    """Pixels as they are, row by row, of 8 or 16 bits."""

    def __init__(self, folder: Path, shapes: np.ndarray):
        super().__init__(folder, shapes)
        # Nothing but the length of a record tells its bits: h · w · 3 numbers of one byte or of two.
        self.deep = (shapes[:, 0] > 0) & (self.places[:, 2] == 2 * 3 * shapes.prod(1))
        self._tensors_of_shapes = tf.constant(shapes, tf.int64), tf.constant(self.deep)

    def fitting(self, rows: np.ndarray, sides: tuple[int, int]) -> np.ndarray:
        values, length = self.shapes[rows].prod(1) * 3, self.places[rows, 2]
        return super().fitting(rows, sides) & (length == np.where(self.deep[rows], 2, 1) * values)

    def opened(self, row: tf.Tensor, record: tf.Tensor) -> tf.Tensor:
        """Pixels `(h, w, 3)`, of 16 bits where any of the folder's have them; fails where the record is damaged."""
        shapes, deep = self._tensors_of_shapes
        shape = tf.concat([tf.maximum(shapes[row], 1), [3]], 0)  # no picture is no picture of nothing: it must fail

        # A record's bytes → (h · w · 3,) numbers of one or two bytes → (h, w, 3).
        def of(kind: tf.DType) -> tf.Tensor:
            return tf.ensure_shape(tf.reshape(tf.io.decode_raw(record, kind), shape), (None, None, 3))

        if not self.deep.any():
            return of(tf.uint8)
        return tf.cond(deep[row], lambda: of(tf.uint16), lambda: tf.cast(of(tf.uint8), tf.uint16) * 257)

    def suits(self, *, deep: bool) -> bool:
        return bool(np.mean(self.deep == deep) > 0.5)

    def fill(self, batches: Batches, rows: tf.Tensor, *, sides: tuple[int, int], deep: bool) -> _Filled:
        """Read, checked and copied by Python: there is nothing to decode."""

        # What fits and has the batch's bits is read and checked; any other place gets a picture of no pixel.
        def copied(rows: np.ndarray) -> tuple[np.int64, np.ndarray]:
            number = batches.begin()
            good, files = self.fitting(rows, sides) & (self.deep[rows] == deep), dict[int, int]()
            try:
                for i, row in enumerate(rows.tolist()):
                    record = self._checked(self.places[row].tolist(), files) if good[i] else b""
                    good[i] = len(record) > 0
                    shape = (*self.shapes[row].tolist(), 3) if good[i] else (0, 0, 3)
                    batches.put(number, np.array([i]), np.frombuffer(record, batches.dtype).reshape(shape))
            finally:
                for file in files.values():
                    os.close(file)
            return number, good

        number, good = tf.numpy_function(copied, [rows], [tf.int64, tf.bool])
        return tf.ensure_shape(number, ()), tf.ensure_shape(good, rows.shape)


class Places:
    """Batches of a cache's pictures, for one pipeline: begun, mended where that is needed, and ended.

    Args:
        pictures: what is read.
        sides: height and width of the batches.
        deep: whether they have 16 bits.
    """

    def __init__(self, pictures: Pictures, *, sides: tuple[int, int], deep: bool):
        self.pictures, self.sides, self.deep = pictures, sides, deep
        self.batches: dict[int, Batches] = {}

    def begun(self, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The number of a batch of rows `(n,)`, and which of them it has already."""
        count = rows.shape[0]
        made = Batches((count, 1, *self.sides, 3), np.uint16 if self.deep else np.uint8)
        batches = self.batches.setdefault(count, made)
        return self.pictures.fill(batches, rows, sides=self.sides, deep=self.deep)

    def mended(self, number: tf.Tensor, places: tf.Tensor, *, seen: dict[str, Any], count: int) -> tf.Tensor:
        """The number of the batch, of `count` pictures, when what was seen for some of its places is in it."""
        batches = self.batches[count]

        def put_all(number: np.int64, places: np.ndarray, *images_and_sizes: np.ndarray) -> np.int64:
            pairs = zip(*images_and_sizes, strict=True)
            return batches.put(number, places, *(one[:height, :width] for one, (height, width) in pairs))

        # (k, 1, height, 3 width), as the pipeline has rows of numbers → (k, height, width, 3).
        images = tf.reshape(seen["images"], (-1, *self.sides, 3))
        put = tf.numpy_function(put_all, [number, places, images, seen["shapes"][:, 0]], tf.int64)
        with tf.control_dependencies([put]):
            return tf.identity(number)

    def ended(self, number: tf.Tensor, *, count: int) -> dict[str, Any]:
        """What `examples.Packing` has of images: rows of numbers `(n, 1, height, 3 width)`, and shapes `(n, 1, 2)`."""
        kinds = [tf.uint16 if self.deep else tf.uint8, tf.int32]
        pixels, sizes = tf.numpy_function(self.batches[count].end, [number], kinds)
        # (count, 1, h, w, 3) → (count, 1, h, 3 w), rows of numbers.
        rows = tf.reshape(pixels, (count, 1, self.sides[0], self.sides[1] * 3))
        return {"images": rows, "shapes": tf.ensure_shape(sizes, (count, 1, 2))}
