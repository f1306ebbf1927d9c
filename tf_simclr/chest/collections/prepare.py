"""Radiographs to TFRecords, once: no epoch touches a DICOM again.

A prepared folder holds `records-00000-of-00012.tfrecord` …, beside each a `.json` with what the records say without
their pixels, `settings.json`, and `report.json`.  Shards appear whole, so that the same command goes on where it was
stopped.

The folder can be handed on: patients, studies and files of one's own are in it as pseudonyms.  What they are made with
(`<folder>.salt`) and whose they are (`<folder>.names.csv`) lies beside the folder, and stays with its owner.
"""

import csv
import io
import json
import os
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from tf_simclr.chest.collections.collection import LATERAL_VIEW, Collection, Entry
from tf_simclr.chest.files.about import decade
from tf_simclr.chest.files.radiograph import LATERAL
from tf_simclr.chest.files.squares import SHRUNK, pseudonym, unpacked
from tf_simclr.chest.files.worker import SECONDS, each
from tf_simclr.data.radiographs import MODALITIES, Fit
from tf_simclr.errors import InputError, check
from tf_simclr.files import begun_with, replacing_path, write_json
from tf_simclr.files.contents import Say, digests, silent
from tf_simclr.files.lock import hold
from tf_simclr.files.places import expanded
from tf_simclr.foreign import reading

SHARD = 512
"""Images a shard, and the most work that a stop can cost."""
_WHAT = {
    "image": "images",
    "content": "bytes of files",
    "labels": "labels",
    "stated": "labels",
    "split": "parts",
    "patient": "patients",
    "study": "studies",
    "boxes": "boxes",
    "told": "sex, age, view or device in the table",
}
"""Keys of a row that a second run compares → what a user calls them."""
_LATER = ("content", "told")
"""Those that rows of earlier versions lack."""


def prepare(
    collection: Collection,
    folder: Path,
    *,
    size: int,
    fit: Fit = "stretch",
    windowed: bool = True,
    modalities: tuple[str, ...] = MODALITIES,
    workers: int = 0,
    seconds: float = SECONDS,
    progress: Callable[[int], None] = lambda done: None,
    say: Say = silent,
) -> list[dict[str, Any]]:
    """Writes the shards that are missing and returns the rows of all, refused images among them.

    Args:
        collection: what to prepare.
        folder: where to.
        size: side of the squares in pixels.
        fit: how a radiograph becomes square.
        windowed: whether a DICOM's own window is applied.
        modalities: DICOM modalities that are read; `any` takes all.
        workers: processes that decode; 0: as many as there are cores.
        seconds: longest time for one image.
        progress: called with how many images are done.
        say: takes a line for the user.

    Raises:
        InputError: the folder holds another preparation, or one of files whose bytes have changed, another process has
            it, or no image could be read.
    """
    # 1. In an order that does not depend on the disk, and with settings that a second run compares.
    folder = expanded(folder)
    entries = sorted(collection.entries, key=lambda entry: entry.image)
    options: dict[str, Any] = {"size": size, "fit": fit, "windowed": windowed, "modalities": tuple(modalities)}
    known = {"name": collection.name, "classes": collection.classes, "images": len(entries)}
    settings = {**known, **options, "made_up": collection.made_up}
    # One process at a time: two would draw two salts, and patients of one collection would have two pseudonyms.
    with hold(folder, say=say):
        changed = begun_with(folder / "settings.json", settings, advice="take another folder")
        check(not changed, f"{folder} must hold the same preparation; take another folder for this one", **changed)
        salt = salt_of(folder, made_up=collection.made_up)
        names = Names(salt, private=collection.private)
        # 2. Shard by shard: one that has its rows is whole, and is not made again.
        parts = [entries[i : i + SHARD] for i in range(0, len(entries), SHARD)]
        rows: list[dict[str, Any]] = []
        earlier = 0
        for number, part in enumerate(parts):
            path = folder / f"records-{number:05d}-of-{len(parts):05d}.tfrecord"
            made = path.with_suffix(".json").exists()
            # Before the files are decoded, so that the next run notices one that is replaced meanwhile.
            contents = _known_by(part, salt=salt, say=say if made else silent)
            if not made:
                answers = decoded(part, options=options | {"salt": salt}, workers=workers, seconds=seconds)
                answers = _counted(answers, progress, done=len(rows))
                _write_shard(path, part, contents=contents, answers=answers, names=names)
            with reading(path.with_suffix(".json"), "the rows of a prepared part", advice="remove it"):
                kept = json.loads(path.with_suffix(".json").read_bytes())["rows"]
                _check_same(kept, part, contents=contents, names=names, folder=folder)
                earlier += sum(not row.keys() >= set(_LATER) for row in kept)
            rows += kept
        if earlier:
            say(f"{folder}: {earlier:,} images are of an earlier version, which did not note what files it read")
        # 3. Beside the folder, for its owner alone.
        names.write(beside(folder, ".names.csv"), entries=entries, problems=collection.problems)
        readable = any(not row["refused"] for row in rows)
        check(readable, "at least one radiograph must be readable", first=rows[0]["refused"])
        return rows


def beside(folder: Path, ending: str) -> Path:
    """A file beside a prepared folder: who gets the folder does not get it."""
    return folder.with_name(folder.name + ending)


def salt_of(folder: Path, *, made_up: bool = False) -> str:
    """What pseudonyms are made with: drawn once, and kept beside the folder for its owner alone.

    Made-up patients need no protection, and have the same pseudonyms and so the same numbers wherever they are made.

    Raises:
        InputError: the folder has records, and the salt that they were made with is gone.
    """
    path = beside(folder.resolve(), ".salt")
    # Another salt would give patients of later shards other pseudonyms.
    begun = any(folder.glob("records-*.json"))
    if not path.exists():
        rule = f"{path}, which the pseudonyms in {folder} were made with, must be there; prepare in another folder"
        check(not begun, rule)
        _write_for_owner(path, ("made up" if made_up else secrets.token_hex(16)) + "\n")
    with reading(path, "the salt of a prepared folder"):
        return path.read_text().strip()


def _write_for_owner(path: Path, text: str) -> None:
    """Writes a file that nobody else may read."""
    with replacing_path(path) as temporary:
        # Its rights before its content.
        temporary.touch(mode=0o600)
        temporary.write_text(text, encoding="utf-8")


@dataclass(frozen=True)
class Names:
    """What images are called in what is written: as in a public collection, a file of one's own by a pseudonym."""

    salt: str
    private: bool

    def shown(self, image: str) -> str:
        """The name of an image; one that is a UID is none to be shown, whatever the collection."""
        hidden = self.private or re.fullmatch(r"\d+(\.\d+){3,}", image)
        return pseudonym(image, salt=self.salt) if hidden else image

    def told(self, problem: str) -> str:
        """A problem of a collection without a hidden name."""
        # What is said has no colon, and a name may have one.
        what, _, name = problem.partition(": ")
        return f"{what}: {self.shown(name)}" if name else problem

    def write(self, path: Path, *, entries: Sequence[Entry], problems: Sequence[str]) -> None:
        """Leaves the names that are not shown beside the folder, for its owner alone."""
        known = [entry.image for entry in entries] + [
            problem.partition(": ")[2] for problem in problems if ": " in problem
        ]
        hidden = {self.shown(name): name for name in known if self.shown(name) != name}
        if hidden:
            text = io.StringIO(newline="")
            csv.writer(text).writerows([("image", "file"), *hidden.items()])
            _write_for_owner(path, text.getvalue())


def _counted(answers: Iterator, progress: Callable[[int], None], *, done: int) -> Iterator:
    """The same answers, each told."""
    for number, answer in enumerate(answers, done + 1):
        progress(number)
        yield answer


def decoded(
    entries: Sequence[Entry], *, options: dict, workers: int = 0, seconds: float = SECONDS
) -> Iterator[bytes | InputError]:
    """What the workers make of each file; 0 of them: as many as there are cores."""
    requests = [{"path": str(entry.path), **options} for entry in entries]
    return each(SHRUNK, requests, workers=min(workers or os.cpu_count() or 1, len(requests)), seconds=seconds)


def _known_by(entries: Sequence[Entry], *, salt: str, say: Say = silent) -> list[str]:
    """What tells each file from another of its name, empty for one that cannot be read.

    A pseudonym of its digest: who is handed the folder, and has files, cannot look theirs up in it.
    """
    return [pseudonym(found or "", salt=salt) for found in digests([entry.path for entry in entries], say=say)]


def _write_shard(
    path: Path,
    entries: Sequence[Entry],
    *,
    contents: Sequence[str],
    answers: Iterator[bytes | InputError],
    names: Names,
) -> None:
    """Writes the records, and then their rows: a shard with rows is whole."""
    rows = []
    # Records first, rows last: rows tell that the records are whole.
    with replacing_path(path) as temporary, tf.io.TFRecordWriter(str(temporary)) as writer:
        for entry, content, answer in zip(entries, contents, answers, strict=True):
            row, picture = described(entry, answer, names=names)
            rows.append(row | {"content": content})
            if picture:
                writer.write(record(row, picture))
    write_json(path.with_suffix(".json"), {"rows": rows})


def _check_same(
    rows: Sequence[dict[str, Any]], entries: Sequence[Entry], *, contents: Sequence[str], names: Names, folder: Path
) -> None:
    """Refuses rows of a shard that was made of other bytes, or when the table said something else."""
    # 1. What differs, and in which images.
    differ: dict[str, list[str]] = {}
    for row, entry, content in zip(rows, entries, contents, strict=True):
        now = _of_table(entry, names=names) | {"content": content}
        then = row | {"patient": row.get("patient_of_table", row["patient"])}
        then |= {} if now["study"] else {"study": ""}  # no table's, but the file's
        keys = [key for key in _WHAT if then.get(key) != now.get(key) and (key in row or key not in _LATER)]
        for what in {_WHAT[key] for key in keys}:
            differ.setdefault(what, []).append(now["image"])
    # 2. In one sentence.
    images = sorted({image for of in differ.values() for image in of})
    known = beside(folder, ".names.csv")
    whose = f" (files behind the names: {known})" if known.exists() else ""
    what = " and ".join(sorted(differ))
    rule = f"{folder} must be of the files and tables as they are, and {what} have changed{whose}; take another folder"
    check(not differ, rule, changed=images[:3], count=len(images))


def _of_table(entry: Entry, *, names: Names) -> dict[str, Any]:
    """What a row has of the collection's tables."""
    # Trained on are 1 and the rest; what a table stated beyond that is kept beside it.
    labels = [int(label == 1) for label in entry.labels]
    study, patient = (pseudonym(of, salt=names.salt) for of in (entry.study, entry.patient))
    row: dict[str, Any] = {"image": names.shown(entry.image), "study": study, "labels": labels}
    row |= {} if set(entry.labels) <= {0, 1} else {"stated": list(entry.labels)}
    told = dict(entry.attributes)
    told |= {"age": decade(told["age"])} if "age" in told else {}
    told |= {"sex": told["sex"].strip().upper()[:1]} if "sex" in told else {}
    return row | {"split": entry.split, "patient": patient, "boxes": entry.boxes, "told": told}


def described(entry: Entry, answer: bytes | InputError, *, names: Names) -> tuple[dict[str, Any], bytes]:
    """A row and its picture, none for a refused file.  No path is in it, and no name or UID of patient or study."""
    row = _of_table(entry, names=names) | {"refused": ""}
    image = row["image"]
    # A reason may quote the path, which may name a patient.
    if isinstance(answer, InputError):
        reason = str(answer)
        for known in (str(entry.path), entry.path.name):
            reason = reason.replace(known, image)
        return row | {"refused": reason}, b""
    about, picture = unpacked(answer)
    # In the order of trust: the table, then the file, then each image for itself.
    row["study"] = row["study"] or about["study"] or image
    row |= {"patient_of_table": row["patient"], "patient_of_file": about.pop("patient")}
    row["patient"] = row["patient_of_table"] or row["patient_of_file"] or image
    row |= {name: value for name, value in about.items() if name != "study"}
    # What the header does not say the table may.
    row |= {name: value for name, value in row["told"].items() if not row.get(name)}
    doubted = any("lateral" in doubt for doubt in row["doubts"])
    if row["told"].get("view", "").upper() in (LATERAL_VIEW, *LATERAL) and not doubted:
        row["doubts"] = [*row["doubts"], "a lateral view by its table"]
    return row, picture


def record(row: dict[str, Any], picture: bytes) -> bytes:
    """One example of a TFRecord file."""

    def text(value: str) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))

    features = {name: text(row[name]) for name in ("image", "study", "patient", "split")}
    features["picture"] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[picture]))
    features["labels"] = tf.train.Feature(int64_list=tf.train.Int64List(value=row["labels"]))
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
