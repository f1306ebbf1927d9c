"""Radiographs with a partner each: another image of the same patient, where there are several.

A patient's disease is in all of the patient's images, so two of them are a positive pair as two views of one are; they
differ in what an augmentation cannot make: the day, the position, the exposure.

References:
    Azizi et al., Big Self-Supervised Models Advance Medical Image Classification, arXiv:2101.05224, Section 3.2 (MICLe)
"""

import numpy as np
import tensorflow as tf

from tf_simclr.data.radiographs import partition
from tf_simclr.data.radiographs.prepared import Prepared, Record
from tf_simclr.data.sources import Indexed, Source, in_graph
from tf_simclr.errors import check
from tf_simclr.files import contents
from tf_simclr.files.contents import silent


def source(prepared: Prepared, rows: np.ndarray, *, positive: str | None = None) -> Source:
    """The images with these numbers as examples that know their partners, labelled where there is a task.

    A record's `partner` is drawn by its seed among the patient's other images of these rows, all alike likely; of a
    patient with one image it is that image.  So no pair reaches out of a part of a split.

    Raises:
        InputError: there is no such class, or no image.
    """
    check(len(rows) > 0, f"a part of {prepared.folder} must hold at least one image", rows=0)
    labels, names = partition.task(prepared, positive)
    # Of every image, as a partner is found by its row in the folder.
    every = prepared.records(np.arange(len(prepared)), labels)
    known = [np.sort(rows), prepared.patients, *([] if labels is None else [labels])]
    chosen = tf.constant(np.sort(rows), tf.int64)
    # One array by patient, and for each image where its own patient begins in it.
    order, place, first, count = map(tf.constant, bags(prepared.patients, rows))

    @in_graph
    def of_row(row: tf.Tensor) -> Record:
        return every(row) | {"row": row}

    @in_graph
    def partner(record: Record, seed: tf.Tensor) -> Record:
        own = record["row"]
        # Around the patient's images from one's own place on, by 1 to
        # `others` steps: never the image itself, unless it is the only one.
        others = count[own] - 1
        step = 1 + tf.random.stateless_uniform((), seed, 0, tf.maximum(others, 1), tf.int64)
        return of_row(order[first[own] + (place[own] + tf.minimum(step, others)) % count[own]])

    return Indexed(
        origin=prepared.called,
        notes=prepared.notes,
        num_examples=len(rows),
        class_names=names,
        identity=lambda say=silent: [prepared.content(say), *map(contents.of_array, known)],
        record=in_graph(lambda index: of_row(chosen[index])),
        partner=partner,
        sides=(prepared.size, prepared.size),
    )


def part(prepared: Prepared, name: str, *, positive: str | None = None, seed: int = 0) -> Source:
    """As `partition.part`, with partners."""
    rows = partition.rows_of(prepared, name, positive=positive, seed=seed)
    return source(prepared, rows, positive=positive)


def bags(patients: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows ordered by patient, and for each image of the folder where its own place and its patient's images are.

    Args:
        patients: one name an image, `(n,)`.
        rows: images that count.

    Returns:
        int64: the rows, each patient's together `(len(rows),)`; and of each image `(n,)` its place among its patient's,
        the place of the first of them in that order, and their number; 0 for images that do not count.

    Example:
        >>> order, place, first, count = bags(np.array(["b", "a", "b", "c"]), np.array([0, 1, 2]))
        >>> order.tolist(), place.tolist(), first.tolist(), count.tolist()
        ([1, 0, 2], [0, 0, 1, 0], [1, 0, 1, 0], [2, 1, 2, 0])
    """
    # Sorted by patient, each patient's images are a stretch that begins where the ones before end.
    _, member, sizes = np.unique(patients[rows], return_inverse=True, return_counts=True)
    order = rows[np.argsort(member, kind="stable")]
    starts = np.cumsum(sizes) - sizes
    place, first, count = (np.zeros(len(patients), np.int64) for _ in range(3))
    first[rows], count[rows] = starts[member], sizes[member]
    place[order] = np.arange(len(rows)) - first[order]
    return order.astype(np.int64), place, first, count
