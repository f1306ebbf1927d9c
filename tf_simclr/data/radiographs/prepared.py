"""A prepared folder as arrays of what is known, and as sources of what is seen."""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tf_simclr import terminal
from tf_simclr.buckets import local
from tf_simclr.data.kept.records import Reader, shards
from tf_simclr.data.radiographs import MADE_UP, UNCERTAIN, Fit
from tf_simclr.data.radiographs.patients import reconciled
from tf_simclr.data.radiographs.settings import ATTRIBUTES, check_class
from tf_simclr.data.sources import Indexed, Source, in_graph, only_class
from tf_simclr.errors import check
from tf_simclr.files import contents
from tf_simclr.files.contents import Say, silent
from tf_simclr.foreign import reading

Record = dict[str, tf.Tensor]
_FEATURES = {
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
    """`(n,)` strings that tell patients apart and name none; see `patients.reconciled`."""
    splits: np.ndarray
    """The collection's own split, or empty strings; see `partition.given`."""
    hashes: np.ndarray
    uncertain: np.ndarray | None = None
    """Labels as tables have them where any is neither 1 nor 0, see `stated`; None where none is."""
    attributes: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    """What headers and tables say beside the labels, `(n,)` strings, empty where they say nothing (`ATTRIBUTES`)."""
    made_up: bool = False
    """Whether any of the images is made up: then nothing that is found in them holds for patients."""
    doubts: tuple[str, ...] = ()
    """What is to be said before a split is made: sentences."""

    # As many as could be read.
    def __len__(self) -> int:
        return len(self.images)

    @property
    def stated(self) -> np.ndarray:
        """Labels as tables have them: 1, 0, `UNCERTAIN` or `NOT_MENTIONED`, int64 `(n, classes)`."""
        return self.labels if self.uncertain is None else self.uncertain

    @property
    def called(self) -> str:
        """What messages call it."""
        return f"{self.folder} (made up)" if self.made_up else str(self.folder)

    @property
    def notes(self) -> tuple[str, ...]:
        """What every command that reads it says."""
        return (f"{self.folder}: {MADE_UP}",) if self.made_up else ()

    def column(self, name: str) -> np.ndarray:
        """0 or 1 for each image: whether it has this label.

        Raises:
            InputError: there is no such class, or it is uncertain in some images, which `partition.findings` settles.
        """
        check_class(name, self.classes)
        unsure = int((self.stated[:, self.classes.index(name)] == UNCERTAIN).sum())
        rule = f"{name} must be present or absent in each image; `chest findings` can leave uncertain ones out"
        check(not unsure, rule, uncertain=unsure)
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
            labels: a class for each image of the folder `(n,)`, not of `rows` alone, or a row of findings
                `(n, classes)` of 1, 0 and -1 for unknown; or None.
            class_names: of those classes.
            side: pixels to which the images are made smaller first, antialiased; None: as they are kept.

        Raises:
            InputError: no image, or fewer pixels are kept than asked for.
        """
        # 1. Which images, in the folder's order.
        wanted = np.zeros(len(self), bool)
        wanted[rows] = True
        check(wanted.any(), f"a part of {self.folder} must hold at least one image", rows=len(rows))
        side = side or self.size
        rule = f"{self.folder} keeps {self.size} pixels; prepare the radiographs again with --size {side} or above"
        check(8 <= side <= self.size, rule, side=side)
        # 2. Labels of all images, −1 where there are none; −2 in the identity for images that are not asked for.
        classes = np.full(len(self), -1, np.int64) if labels is None else np.asarray(labels, np.int64)
        known = np.where(wanted if classes.ndim == 1 else wanted[:, None], classes, -2)
        # 3. As kept, or made smaller as they are read.
        picture = tf.identity if side == self.size else in_graph(lambda encoded: smaller(encoded, side))
        roster = contents.of_values(self.hashes[wanted].tolist(), classes[wanted].tolist(), side)
        return Indexed(
            origin=self.called,
            num_examples=int(wanted.sum()),
            notes=self.notes,
            class_names=class_names if labels is not None else (),
            identity=lambda say=silent: [self.content(say), side, contents.of_array(known)],
            several=classes.ndim == 2,
            only=only_class(None if labels is None else classes[wanted], class_names),
            read=picture,
            record=self.records(np.flatnonzero(wanted), None if labels is None else classes),
            roster=roster,
            sides=(side, side),
        )

    def content(self, say: Say = silent) -> list[str | None]:
        """The digests of the record files."""
        return contents.digests(shards(self.folder), say=say)

    def records(self, rows: np.ndarray, labels: np.ndarray | None = None) -> Callable[[tf.Tensor], Record]:
        """Place among the rows → the record of that image, with its label where there is one."""
        encoded, chosen = Reader(self.folder), tf.constant(rows, tf.int64)
        # Labels lie in the graph, images on the disk.
        known = {} if labels is None else {"label": tf.constant(labels, tf.int64)}

        @in_graph
        def record(index: tf.Tensor) -> Record:
            row = chosen[index]
            example = tf.io.parse_single_example(encoded(row), _FEATURES)
            found = {"image": example["picture"], "name": example["image"]}
            return found | {key: column[row] for key, column in known.items()}

        return record


def smaller(encoded: tf.Tensor, side: int) -> tf.Tensor:
    """A picture's bytes to its pixels at another size: uint16 `(side, side, 1)`, cubic and antialiased."""
    # Cubic overshoots at edges: clipped before it is a whole number again.
    pixels = tf.image.resize(tf.io.decode_png(encoded, 1, tf.uint16), (side, side), "bicubic", antialias=True)
    return tf.cast(tf.round(tf.clip_by_value(pixels, 0, 65535)), tf.uint16)


def load(folder: Path, *, say: Say | None = None) -> Prepared:
    """Reads what a preparation left.

    Args:
        folder: where it is.
        say: takes what is to be said of its patients, before a split is made of them; None: standard error.

    Raises:
        InputError: it is none, or not finished.
    """
    folder = local(folder)
    advice = "prepare it with `python -m tf_simclr chest prepare`"
    with reading(folder, "a whole prepared folder", advice=advice):
        # 1. The notes of each shard, together the rows of all images.
        settings = json.loads((folder / "settings.json").read_bytes())
        rows = [row for path in shards(folder) for row in json.loads(path.with_suffix(".json").read_bytes())["rows"]]
        whole = len(rows) == settings["images"]
        check(whole, f"{folder} must be prepared to its end; run the same command again", images=len(rows))
        # 2. A column a property, of readable images.
        readable = [row for row in rows if not row["refused"]]
        columns: dict[str, Any] = {name: np.array([row[key] for row in readable]) for name, key in _COLUMNS.items()}
        columns["labels"] = np.array([row["labels"] for row in readable], np.int64)
        if any("stated" in row for row in readable):
            columns["uncertain"] = np.array([row.get("stated", row["labels"]) for row in readable], np.int64)
        # 3. Patients, by the table and the files.
        of_files = [row.get("patient_of_file", "") for row in readable]
        of_table = [row.get("patient_of_table", row["patient"]) for row in readable]
        columns["patients"], doubts = reconciled(of_table, of_files, images=[row["image"] for row in readable])
        # 4. How pictures were made.
        kept: dict[str, Any] = {name: settings[name] for name in ("name", "size", "fit", "windowed")}
        kept["made_up"] = bool(settings.get("made_up")) or any(row.get("made_up") for row in readable)
        attributes = {key: np.array([str(row.get(key, "")) for row in readable]) for key in ATTRIBUTES}
        kept |= {"attributes": attributes, "doubts": doubts}
        found = Prepared(folder=folder, classes=tuple(settings["classes"]), **kept, **columns)
    for line in found.doubts:
        (say or once)(f"{found.name}: {line}")
    return found


@functools.cache
def once(line: str) -> None:
    """Says a line on standard error, the first time in a program."""
    terminal.say(line)


_COLUMNS = {"images": "image", "splits": "split", "hashes": "hash"}
"""Column → what the rows of a preparation call it."""
