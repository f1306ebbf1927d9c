"""Endless batches of views."""

from __future__ import annotations

import collections
import functools
import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_simclr.data import check_batch, draws
from tf_simclr.data.examples import Unreadable
from tf_simclr.data.in_python.reading import Batches, Reader, check_readable, padded, rows_of, side_for
from tf_simclr.data.recipe import Recipe
from tf_simclr.data.sources import Source
from tf_simclr.errors import check

if TYPE_CHECKING:
    from tf_simclr.data.pipeline import Stream

_AHEAD = 2
"""Batches that are made before they are asked for."""
ONLY_FLIP = Recipe(jitter_probability=0, grayscale_probability=0, use_blur=False, blur_probability=0)
"""What fine-tuning changes besides the crop."""


def training_views(
    source: Source,
    *,
    stream: Stream,
    image_size: int,
    unreadable: Unreadable,
    recipe: Recipe,
    views: int = 2,
    central: bool = False,
) -> Batches:
    """Endless batches of views, with labels where there are any; on the device of Keras' backend.

    Args:
        source: examples.
        stream: which batches; encoded images are not cached but by the system.
        image_size: side of the views in pixels.
        unreadable: receives the names of corrupt images.
        recipe: how the views come about.
        views: 2, float32 `(n, 2, size, size, 3)`; or 1, `(n, size, size, 3)`, as fine-tuning trains on.
        central: whether a view is the central square that evaluation sees, of which nothing is changed.

    Raises:
        InputError: as `pipeline.training_batches`.
    """
    from tf_simclr.data.device_views import Held

    rows = rows_of(source)
    seed, batch_size, share = stream.seed, stream.batch_size, stream.share
    check(not stream.data_service, "data_service is tf.data's and needs TensorFlow", data_service=stream.data_service)
    keeps = source.pixels is not None or rows.images.ndim > 1
    rule = "cache_dataset needs TensorFlow; leave it out: the system keeps the files that it has room for"
    check(keeps or not stream.cache, rule, cache_dataset=stream.cache)
    check_batch(source.origin, len(rows), batch_size=batch_size)
    check_readable(source)
    side = side_for(image_size, rows) if source.pixels is None else source.pixels.shape[1:3]
    reader = Reader(source, rows, seed=seed, unreadable=unreadable, side=side)
    # All images where the views are made, if they are few and small: rows to images (n, 1, h, w, 3).
    held = None if source.pixels is None else Held(source.pixels)

    def batch(step: int, pool: ThreadPoolExecutor) -> Callable[[], tuple]:
        """Begins a batch; what it returns waits for its images and finishes it."""
        # This process's rows of the batch: (count,) of the stream's positions.
        count = batch_size // share[1]
        positions = step * batch_size + share[0] * count + np.arange(count)
        numbers = reader.numbers(positions)
        # All images lie where the views are made: their numbers are enough.
        if held is not None:
            shapes = np.broadcast_to(side, (count, 2))
            return lambda: finished(positions, numbers, shapes=shapes, images=held(np.array(numbers, np.int32)))
        # Another image may stand for a corrupt one: the label is that image's own.
        loaded = list(pool.map(reader.at, positions.tolist(), numbers))
        pixels, found = [one for one, _ in loaded], [number for _, number in loaded]
        shapes = np.array([one.shape[:2] for one in pixels])
        return lambda: finished(positions, found, shapes=shapes, images=padded(pixels, side))

    def finished(positions: np.ndarray, numbers: list[int], *, shapes: np.ndarray, images: Any) -> tuple:
        how: dict[str, Any] = {"size": image_size, "recipe": recipe}
        drawn = draws.batch(seed, positions, shapes=shapes, views=views, central=central, **how)
        made = _on_device(**how)({"images": images, **drawn})
        # (n, 1, size, size, 3) → (n, size, size, 3) of single views.
        made = made[:, 0] if views == 1 else made
        if not source.labelled:
            return (made,)
        labels = rows.labels if rows.labels is not None else np.zeros(len(rows), np.int64)
        return made, labels[numbers]

    def batches() -> Iterator[tuple]:
        # One thread begins batches in their order, many read their images; the views are made by whoever takes a batch,
        # since a device's work is begun and not waited for.
        with ThreadPoolExecutor(1) as ahead, ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as pool:
            waiting: collections.deque[Future] = collections.deque()
            steps = itertools.count(stream.start_step)
            try:
                while True:
                    while len(waiting) <= _AHEAD:
                        waiting.append(ahead.submit(batch, next(steps), pool))
                    yield waiting.popleft().result()()
            finally:  # whoever iterates has stopped
                for one in waiting:
                    one.cancel()

    return Batches(batches)


def picture_views(picture: np.ndarray, seeds: np.ndarray, *, size: int, recipe: Recipe) -> np.ndarray:
    """What `augment.view` makes of one picture with each of the seeds, but for rounding.

    Args:
        picture: float `(h, w, 3)` in [0, 1].
        seeds: `(n, 2)`; all that the draws of a view depend on.
        size: side of the views in pixels.
        recipe: how they come about.

    Returns:
        float32 `(n, size, size, 3)` in [0, 1].
    """
    pixels = np.rint(picture * np.iinfo(np.uint16).max).astype(np.uint16)  # 8 bits are the same numbers in 16
    shapes = np.broadcast_to(picture.shape[:2], (len(seeds), 2))
    batch = draws.of_seeds(seeds, shapes=shapes, size=size, recipe=recipe, views=1)
    batch["images"] = padded([pixels] * len(seeds), pixels.shape[:2])
    return np.asarray(_on_device(size=size, recipe=recipe)(batch))[:, 0]


@functools.cache
def _on_device(*, size: int, recipe: Recipe) -> Callable[[dict[str, np.ndarray]], Any]:
    """What makes the views of a padded batch; JAX compiles it, and does not wait for it."""
    import keras

    from tf_simclr.data import device_views

    make = functools.partial(device_views.views, size=size, recipe=recipe)
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(make)
    return lambda batch: make({name: keras.ops.convert_to_tensor(part) for name, part in batch.items()})
