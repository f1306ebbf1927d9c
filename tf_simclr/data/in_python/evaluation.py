"""Every image once, as evaluation sees it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tf_simclr.data import draws
from tf_simclr.data.examples import Unreadable
from tf_simclr.data.in_python.reading import Batches, check_readable, rows_of
from tf_simclr.data.recipe import Bicubic, evaluation_proportion
from tf_simclr.data.sources import Source
from tf_simclr.errors import check
from tf_simclr.foreign import DAMAGED


def evaluation_batches(
    source: Source,
    *,
    batch_size: int,
    image_size: int,
    unreadable: Unreadable,
    crop_proportion: float | None = None,
    bicubic: Bicubic = "tf1",
) -> Batches:
    """Every readable image once, in the source's order: `(images, labels, names)`, as `pipeline.evaluation_batches`."""
    rows = rows_of(source)
    check(batch_size > 0, "batch_size must be at least 1", batch_size=batch_size)
    proportion = evaluation_proportion(image_size, crop_proportion)
    check_readable(source)

    def seen(number: int) -> np.ndarray | None:
        try:
            pixels = rows.pixels(number)
        except DAMAGED:
            unreadable.add(str(rows.names[number]).encode(errors="surrogateescape"))
            return None
        return evaluation_view(pixels, size=image_size, proportion=proportion, bicubic=bicubic)

    def stream() -> Iterator[tuple]:
        with ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as pool:
            # What cannot be read is left out, so batches are filled up from the next images: only the last is smaller.
            found: list[tuple[np.ndarray, int]] = []
            for begin in range(0, len(rows), batch_size):
                numbers = range(begin, min(begin + batch_size, len(rows)))
                found += [(one, i) for one, i in zip(pool.map(seen, numbers), numbers, strict=True) if one is not None]
                while len(found) >= batch_size:
                    yield together(found[:batch_size])
                    found = found[batch_size:]
            if found:
                yield together(found)

    def together(found: list[tuple[np.ndarray, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        numbers = [number for _, number in found]
        labels = np.full(len(numbers), -1, np.int64)
        if source.labelled and rows.labels is not None:
            labels = rows.labels[numbers]
        return np.stack([one for one, _ in found]), labels, np.array([str(rows.names[i]) for i in numbers])

    return Batches(stream)


def evaluation_view(pixels: np.ndarray, *, size: int, proportion: float, bicubic: Bicubic = "tf1") -> np.ndarray:
    """What `images.evaluation_view` makes of RGB integers `(h, w, 3)`: float32 `(size, size, 3)` in [0, 1]."""
    y, x, height, width = draws.central_boxes(np.array(pixels.shape[:2]), proportion=proportion)
    # Cut first, as integers: of a photograph the square alone becomes floats.
    square = pixels[y : y + height, x : x + width].astype(np.float32) * np.float32(1 / np.iinfo(pixels.dtype).max)
    return np.clip(_resized(square, size, bicubic=bicubic), 0, 1)


def _resized(image: np.ndarray, size: int, *, bicubic: Bicubic) -> np.ndarray:
    """Cubic interpolation `(h, w, 3)` to `(size, size, 3)` without antialiasing: down, then across, four taps each."""
    from tf_simclr.data.device_views import cubic_weights

    for axis in (0, 1):
        length = image.shape[axis]
        if length == size:
            continue  # both cubics are the identity
        # Each result's pixel before it, and the weights of the four around it: two before, two behind.
        (before,), (weights,) = cubic_weights(np.array([length]), size, bicubic=bicubic)
        taps = np.clip(before[:, None] + np.arange(-1, 3), 0, length - 1)  # (size, 4)
        # Weights (size,) along this axis: (size, 1, 1) for rows, (size, 1) for columns.
        shape = (size, *[1] * (2 - axis))
        image = sum(np.take(image, taps[:, i], axis) * weights[:, i].reshape(shape) for i in range(4))
    return image
