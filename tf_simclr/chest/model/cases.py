"""Training cases beside a new radiograph: the nearest in feature space, with their labels.

No identity is kept: a case is a number, and the images of one patient share another one, both drawn anew.  The small
pictures are patients' radiographs all the same: whoever hands a model on hands them on.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import tensorflow as tf

from tf_simclr.chest.files.squares import perceptual_hash
from tf_simclr.data.radiographs.duplicates import looks_like
from tf_simclr.data.radiographs.prepared import Prepared
from tf_simclr.errors import InputError, check
from tf_simclr.foreign import reading

SIDE = 96
"""Of a case's small picture, in pixels."""
_MOST = 10_000
"""Cases that are kept; of more, so many are drawn."""
_SAMPLE = 500
"""Cases that tell what similarity is usual."""
KINDS = {
    "features": (np.float16, 2),
    "centre": (np.float32, 1),
    "labels": (np.uint8, 2),
    "people": (np.int32, 1),
    "pictures": (np.uint8, 3),
}
"""Array → its type and number of axes."""


@dataclass(frozen=True)
class Case:
    """A training image beside a new one."""

    number: int
    findings: tuple[str, ...]
    """Its labels; none where the collection found nothing."""
    similarity: float
    """Cosine of the two feature vectors about the mean of all cases: 1 the same direction, 0 unrelated."""
    picture: np.ndarray
    """uint8 `(96, 96)`, as it was prepared."""


@dataclass(frozen=True)
class Cases:
    """What is kept of the images that the heads learned from."""

    classes: tuple[str, ...]
    features: np.ndarray
    """float16 `(m, d)`, of unit length about the centre."""
    centre: np.ndarray
    """float32 `(d,)`: mean of the features."""
    labels: np.ndarray
    """0 or 1, uint8 `(m, classes)`."""
    people: np.ndarray
    """int32 `(m,)`: alike for images of one patient."""
    pictures: np.ndarray
    """uint8 `(m, 96, 96)`."""

    def nearest(self, features: np.ndarray, count: int = 5) -> list[Case]:
        """The most similar cases, the nearest first, at most one of each patient.

        Args:
            features: of the new image, `(d,)`.
            count: how many.
        """
        # The cosine of the new image with each of m cases: (m, d) · (d,) → (m,).
        similarity = np.asarray(self.features, np.float32) @ directions(features[None], self.centre)[0]
        ranked = np.argsort(-similarity, kind="stable")
        # `unique` gives where each patient is first in the ranking: their
        # best image. Sorted, these places are the ranking of patients.
        _, first = np.unique(self.people[ranked], return_index=True)
        return [self.case(int(i), float(similarity[i])) for i in ranked[np.sort(first)[:count]]]

    @cached_property
    def usual(self) -> float:
        """Similarity that 95 % of training cases exceed to the nearest case of another patient; −1 of one patient.

        An image whose nearest case is further off is unlike what the heads learned from.
        """
        # Some hundred cases against all: (500, d) · (d, m) → (500, m), and not m × m.
        drawn = np.random.default_rng(0).permutation(len(self.people))[:_SAMPLE]
        features = np.asarray(self.features, np.float32)
        similarity = features[drawn] @ features.T
        # A patient's own images, the case itself among them, are no neighbours.
        similarity[self.people[drawn][:, None] == self.people] = -1
        return float(np.quantile(similarity.max(axis=1), 0.05))

    @cached_property
    def hashes(self) -> list[str]:
        """Perceptual hashes of the pictures."""
        return [hash_of(picture) for picture in self.pictures]

    def knows(self, picture: np.ndarray) -> bool:
        """Whether a case looks like this picture `(96, 96)`, by the rule for near-duplicates of a collection."""
        # Both are pictures of 96 pixels, so their hashes were made alike.
        return any(looks_like(hash_of(picture), self.hashes))

    def case(self, number: int, similarity: float) -> Case:
        """One of them."""
        found = np.flatnonzero(self.labels[number])
        return Case(number, tuple(self.classes[i] for i in found), similarity, np.asarray(self.pictures[number]))


def hash_of(picture: np.ndarray) -> str:
    """The perceptual hash of a small picture, uint8 `(96, 96)`."""
    return perceptual_hash(np.asarray(picture, np.float32) / 255)


def directions(features: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Feature vectors about a centre, of unit length: float32 `(n, d)`."""
    # The mean is taken off: of features behind a ReLU all are positive, and all cosines near 1. Never divided by 0.
    about = np.asarray(features, np.float32) - centre
    return np.asarray(about / np.maximum(np.linalg.norm(about, axis=1, keepdims=True), 1e-12))


def gather(prepared: Prepared, rows: np.ndarray, *, features: np.ndarray, seed: int = 0) -> Cases:
    """Cases of some images of a prepared folder.

    Args:
        prepared: the radiographs.
        rows: numbers of images in it, each once.
        features: of these rows, `(len(rows), d)`.
        seed: of the order in which patients are numbered, and of the draw where there are too many.

    Raises:
        InputError: another number of features than rows, or an image that cannot be read.
    """
    rows, features = np.asarray(rows), np.asarray(features)
    fits = rows.ndim == 1 and features.ndim == 2 and len(rows) == len(features) > 0
    check(fits, "cases must have one feature vector a row", rows=rows.shape, features=features.shape)
    check(len(np.unique(rows)) == len(rows), "each row of the cases must be given once")
    rng = np.random.default_rng(seed)
    # Drawn, and not the first: a folder is ordered by patient or by source.
    kept = rng.permutation(len(rows))[:_MOST]
    kept = kept[np.argsort(rows[kept], kind="stable")]  # the folder's order, in which its pictures come
    rows, features = rows[kept], features[kept]
    # Patients become numbers in an order drawn anew: the file tells who is the same, and nothing of who it is.
    _, member = np.unique(prepared.patients[rows], return_inverse=True)
    centre = features.mean(axis=0, dtype=np.float64).astype(np.float32)  # float64 for the mean of many
    return Cases(
        classes=prepared.classes,
        # float16 is exact enough for a cosine, and half the file.
        features=directions(features, centre).astype(np.float16),
        centre=centre,
        labels=prepared.labels[rows].astype(np.uint8),
        people=rng.permutation(member.max() + 1)[member].astype(np.int32),
        pictures=small_pictures(prepared, rows),
    )


def small_pictures(prepared: Prepared, rows: np.ndarray) -> np.ndarray:
    """Prepared images at 96 px: uint8 `(n, 96, 96)`."""
    source = prepared.source(rows)

    try:
        images = source.ordered().map(lambda record: small_picture(source.decoded(record)["image"]))
        return np.concatenate([batch.numpy() for batch in images.batch(64)])
    except tf.errors.OpError as error:
        raise InputError(f"{prepared.folder} must hold whole pictures ({error.message}); prepare it again") from error


def small_picture(image: tf.Tensor) -> tf.Tensor:
    """A prepared image `(s, s, 3)` in [0, 1] at 96 px: uint8 `(96, 96)`."""
    # The three channels of a grey picture are one and the same.
    image = tf.image.resize(image, (SIDE, SIDE), antialias=True)
    return tf.cast(tf.math.rint(255 * tf.clip_by_value(image[..., 0], 0, 1)), tf.uint8)


def write(cases: Cases, folder: Path) -> None:
    """Writes `case_<what>.npy` for each array."""
    for name in KINDS:
        np.save(folder / f"case_{name}.npy", getattr(cases, name), allow_pickle=False)


def read(folder: Path, *, classes: tuple[str, ...]) -> Cases:
    """Reads what `write` left; arrays stay on the disk until they are looked at.

    Raises:
        InputError: an array is missing, damaged, or of another type, or they do not belong together.
    """
    found = {
        name: array(folder / f"case_{name}.npy", kind=kind, axes=axes, what="cases")
        for name, (kind, axes) in KINDS.items()
    }
    # Each array is the others' length, and its type and axes were looked at as its header was read.
    count, width = found["features"].shape
    wanted = {"centre": (width,), "labels": (count, len(classes)), "people": (count,), "pictures": (count, SIDE, SIDE)}
    shapes = {name: found[name].shape for name in wanted}
    rule = f"the arrays of the cases in {folder} must have shapes that fit each other"
    check(shapes == wanted and count > 0, rule, **shapes)
    finite = np.isfinite(found["features"]).all() and np.isfinite(found["centre"]).all()
    check(bool(finite), f"the cases of {folder} must have finite features")
    return Cases(classes=classes, **found)


def array(path: Path, *, kind: type, axes: int, what: str) -> np.ndarray:
    """An array of this type and number of axes, mapped from the disk: a header cannot claim more than is there.

    Raises:
        InputError: it is none.
    """
    with reading(path, f"a whole array of {what}"):
        found = np.lib.format.open_memmap(path, mode="r")
    fits = isinstance(found, np.ndarray) and found.dtype == kind and found.ndim == axes
    rule = f"{path} must be an array of {what}, {np.dtype(kind).name} of {axes} axes"
    check(fits, rule, received=str(getattr(found, "dtype", type(found))))
    return found
