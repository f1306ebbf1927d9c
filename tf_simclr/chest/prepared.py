"""A prepared folder as arrays of what is known, and as sources of what is seen."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from tf_simclr.chest.shrinking import Fit
from tf_simclr.data.sources import Records, Sequential, Source, in_graph
from tf_simclr.errors import InputError, check
from tf_simclr.places import expanded

FEATURES = {
    "picture": tf.io.FixedLenFeature((), tf.string),
    "image": tf.io.FixedLenFeature((), tf.string),
}


@dataclasses.dataclass(frozen=True)
class Prepared:
    """The readable radiographs of a prepared folder, in the order of their records."""

    folder: Path
    name: str
    classes: tuple[str, ...]
    size: int
    """Side of the squares in pixels."""
    fit: Fit
    """How a radiograph became square."""
    windowed: bool
    """Whether a DICOM's own window was applied."""
    images: np.ndarray
    """Names, `(n,)`."""
    labels: np.ndarray
    """0 or 1, int64 `(n, classes)`."""
    patients: np.ndarray
    """`(n,)` strings that tell patients apart and name none."""
    studies: np.ndarray
    splits: np.ndarray
    """Official split, or empty strings."""
    hashes: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def column(self, name: str) -> np.ndarray:
        """0 or 1 for each image: whether it has this label.

        Raises:
            InputError: there is no such class.
        """
        check(name in self.classes, f"the class must be one of {', '.join(self.classes)}", received=name)
        return self.labels[:, self.classes.index(name)]

    def source(
        self,
        rows: np.ndarray,
        labels: np.ndarray | None = None,
        *,
        class_names: tuple[str, ...] = (),
        side: int | None = None,
    ) -> Source:
        """The images with these numbers as examples, in the folder's order.

        Args:
            rows: indices of images, each once.
            labels: a class for each image of the folder `(n,)`, not of `rows` alone; or None.
            class_names: of those classes.
            side: pixels to which the images are made smaller first, antialiased; None: as they are kept.

        Raises:
            InputError: no image, or fewer pixels are kept than asked for.
        """
        wanted = np.zeros(len(self), bool)
        wanted[rows] = True
        check(wanted.any(), f"a part of {self.folder} must hold at least one image", rows=len(rows))
        side = side or self.size
        rule = f"{self.folder} keeps {self.size} pixels; prepare the radiographs again with --size {side} or above"
        check(8 <= side <= self.size, rule, side=side)
        classes = np.full(len(self), -1, np.int64) if labels is None else np.asarray(labels, np.int64)
        picture = tf.identity if side == self.size else in_graph(lambda encoded: smaller(encoded, side))
        chosen = hashlib.sha256(np.where(wanted, classes, -2).tobytes()).hexdigest()
        return Sequential(
            origin=str(self.folder),
            num_examples=int(wanted.sum()),
            class_names=class_names if labels is not None else (),
            identity=lambda: [(chosen, side), *((path.name, path.stat().st_size) for path in shards(self.folder))],
            read=picture,
            epoch=self.epochs(tf.constant(wanted), tf.constant(classes), labelled=labels is not None),
        )

    def epochs(self, wanted: tf.Tensor, classes: tf.Tensor, *, labelled: bool) -> Callable[[tf.Tensor | None], Records]:
        """Seed to the records of one epoch; the order of records is the folder's, whatever the seed."""
        files = [str(path) for path in shards(self.folder)]

        @in_graph
        def record(number: tf.Tensor, encoded: tf.Tensor) -> dict[str, tf.Tensor]:
            example = tf.io.parse_single_example(encoded, FEATURES)
            found = {"image": example["picture"], "name": example["image"]}
            return found | ({"label": classes[number]} if labelled else {})

        def epoch(seed: tf.Tensor | None) -> Records:
            numbered = tf.data.TFRecordDataset(files).enumerate()
            return numbered.filter(lambda number, _: wanted[number]).map(record)

        return epoch


def smaller(encoded: tf.Tensor, side: int) -> tf.Tensor:
    """A picture's bytes to its pixels at another size: uint16 `(side, side, 1)`, cubic and antialiased."""
    pixels = tf.image.resize(tf.io.decode_png(encoded, 1, tf.uint16), (side, side), "bicubic", antialias=True)
    return tf.cast(tf.round(tf.clip_by_value(pixels, 0, 65535)), tf.uint16)


def shards(folder: Path) -> list[Path]:
    """The record files, in their order."""
    return sorted(folder.glob("records-*.tfrecord"))


def load(folder: Path) -> Prepared:
    """Reads what a preparation left.

    Raises:
        InputError: it is none, or not finished.
    """
    folder = expanded(folder)
    try:
        settings = json.loads((folder / "settings.json").read_text())
        rows = [row for path in shards(folder) for row in json.loads(path.with_suffix(".json").read_text())["rows"]]
    except (OSError, ValueError, KeyError) as error:
        advice = "prepare it with `python -m tf_simclr chest prepare`"
        raise InputError(f"{folder} must be a whole prepared folder ({error}); {advice}") from error
    whole = len(rows) == settings["images"]
    check(whole, f"{folder} must be prepared to its end; run the same command again", images=len(rows))
    readable = [row for row in rows if not row["refused"]]
    columns = {name: np.array([row[key] for row in readable]) for name, key in COLUMNS.items()}
    columns["labels"] = np.array([row["labels"] for row in readable], np.int64)
    kept = {name: settings[name] for name in ("name", "size", "fit", "windowed")}
    return Prepared(folder=folder, classes=tuple(settings["classes"]), **kept, **columns)


COLUMNS = {"images": "image", "patients": "patient", "studies": "study", "splits": "split", "hashes": "hash"}
