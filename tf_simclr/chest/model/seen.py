"""What a network makes of prepared radiographs: of every one that it is asked about, else a sentence says which not."""

from typing import Any

import keras
import numpy as np

from tf_simclr.data.pipeline import Unreadable, evaluation_batches
from tf_simclr.data.radiographs.prepared import Prepared
from tf_simclr.errors import check
from tf_simclr.evaluation.features import Extractor, extract


def all_features(extractor: Extractor, data: Prepared, *, image_size: int, side: int | None = None) -> np.ndarray:
    """Features `(n, d)` of all radiographs, in the folder's order, kept on disk.

    Args:
        extractor: of the network.
        data: the radiographs.
        image_size: side of the network's input in pixels.
        side: to which radiographs are made smaller first; None: not at all.

    Raises:
        InputError: one cannot be read.
    """
    found = extractor.features(data.source(np.arange(len(data)), side=side), image_size=image_size)
    return _whole(found.values, data, count=len(data), unreadable=extractor.unreadable)


def answers(
    network: keras.Model, data: Prepared, *, rows: np.ndarray, side: int | None = None, **sizes: Any
) -> np.ndarray:
    """What a network says `(n, d)` of these radiographs, in the folder's order, which is that of sorted rows.

    Args:
        network: images to vectors.
        data: the radiographs.
        rows: those that are asked about.
        side: as of `all_features`.
        **sizes: as of `evaluation_batches`: `batch_size`, `image_size` and `crop_proportion`.

    Raises:
        InputError: one cannot be read.
    """
    unreadable = Unreadable()
    batches = evaluation_batches(data.source(rows, side=side), unreadable=unreadable, **sizes)
    return _whole(extract(network, batches).values, data, count=len(rows), unreadable=unreadable.names)


def _whole(values: np.ndarray, data: Prepared, *, count: int, unreadable: list[str]) -> np.ndarray:
    """The values, one for each radiograph: what is compared must be of the same ones."""
    rule = f"all images of {data.folder} must be readable; prepare again"
    check(len(values) == count, rule, unreadable=unreadable)
    return np.asarray(values)
