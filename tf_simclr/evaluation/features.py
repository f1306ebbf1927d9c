"""Features of images, batch by batch."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import keras
import numpy as np

from tf_simclr.errors import check


@dataclass(frozen=True)
class Features:
    """What a model makes of a set of images, and what came with them."""

    values: np.ndarray
    """`(n, d)`, float32."""
    labels: np.ndarray | None
    """`(n,)`, or None if the batches had none."""
    names: np.ndarray | None
    """`(n,)` strings, or None if the batches had none."""


def extract(
    model: keras.Model,
    batches: Iterable,
    *,
    endpoint: str = "final_avg_pool",
    progress: Callable[[int], None] | None = None,
) -> Features:
    """Runs the model in inference mode over the batches; one batch of images is in memory at a time.

    Args:
        model: images to features `(n, d)`, or to a dictionary of endpoints.
        batches: `images`, `(images,)`, `(images, labels)` or `(images, labels, names)`; images are `(n, h, w, 3)` in
            [0, 1].
        endpoint: which of a dictionary's endpoints.
        progress: called with the number of images that are done after each batch.

    Raises:
        InputError: there is no batch, the endpoint does not exist or is not one vector an image, or a feature is not
            finite.
    """
    columns: list[list[np.ndarray]] = []
    done = 0
    for batch in batches:
        images, *rest = batch if isinstance(batch, tuple | list) else (batch,)
        # Compiled once a model, however often called; arrays are what every backend takes.
        values = vectors(model.predict_on_batch(np.asarray(images)), endpoint)
        check(np.isfinite(values).all(), "features must be finite", first_image=done, images=len(values))
        columns = columns or [[] for _ in range(1 + len(rest))]
        for column, part in zip(columns, (values, *map(np.asarray, rest)), strict=True):
            column.append(part)
        done += len(values)
        if progress:
            progress(done)
    check(done > 0, "there must be at least one batch of images", images=done)
    values, labels, names = [*map(join, columns), None, None][:3]
    return Features(values=values, labels=labels, names=None if names is None else text(names))


def vectors(outputs, endpoint: str) -> np.ndarray:
    """The endpoint `(n, d)` of a model's outputs as float32."""
    if isinstance(outputs, dict):
        check(endpoint in outputs, f"endpoint must be one of {', '.join(outputs)}", endpoint=endpoint)
        outputs = outputs[endpoint]
    check(
        len(outputs.shape) == 2, "features must be one vector an image", shape=tuple(outputs.shape), endpoint=endpoint
    )
    return np.asarray(outputs, np.float32)


def join(parts: list[np.ndarray]) -> np.ndarray:
    """The parts in one array; they are freed on the way, so that memory holds the result once, not twice."""
    joined = np.empty((sum(map(len, parts)), *parts[0].shape[1:]), np.result_type(*parts))
    end = len(joined)
    while parts:
        part = parts.pop()
        joined[end - len(part) : end] = part
        end -= len(part)
    return joined


def text(names: np.ndarray) -> np.ndarray:
    """File names as strings; tf.data gives bytes."""
    return np.array(
        [name.decode(errors="backslashreplace") if isinstance(name, bytes) else str(name) for name in names]
    )
