"""Radiographs to TFRecords, once: no epoch touches a DICOM again.

A prepared folder holds `records-00000-of-00012.tfrecord` …, beside each a `.json` with what the records say without
their pixels, `settings.json`, and `report.json`.  Shards appear whole, so that the same command goes on where it was
stopped.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from tf_simclr.chest.collections.collection import Collection, Entry
from tf_simclr.chest.files.squares import pseudonym, unpacked
from tf_simclr.chest.files.worker import SECONDS, each
from tf_simclr.data.radiographs import Fit
from tf_simclr.errors import InputError, check
from tf_simclr.files import begun_with, replacing_path, write_json
from tf_simclr.foreign import reading
from tf_simclr.places import expanded

SHARD = 512
"""Images a shard, and the most work that a stop can cost."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a prepared folder is made of; the same command must find the same settings there."""

    name: str
    classes: tuple[str, ...]
    images: int
    size: int
    fit: Fit
    windowed: bool


def prepare(
    collection: Collection,
    folder: Path,
    *,
    size: int,
    fit: Fit = "stretch",
    windowed: bool = True,
    workers: int = 0,
    seconds: float = SECONDS,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Writes the shards that are missing and returns the rows of all, refused images among them.

    Args:
        collection: what to prepare.
        folder: where to.
        size: side of the squares in pixels.
        fit: how a radiograph becomes square.
        windowed: whether a DICOM's own window is applied.
        workers: processes that decode; 0: as many as there are cores.
        seconds: longest time for one image.
        progress: called with the images done and all.

    Raises:
        InputError: the folder holds another preparation, or no image could be read.
    """
    folder = expanded(folder)
    entries = sorted(collection.entries, key=lambda entry: entry.image)
    settings = Settings(
        name=collection.name, classes=collection.classes, images=len(entries), size=size, fit=fit, windowed=windowed
    )
    changed = begun_with(folder / "settings.json", asdict(settings), advice="take another folder")
    check(not changed, f"{folder} must hold the same preparation; take another folder for this one", **changed)
    options = {"size": size, "fit": fit, "windowed": windowed}
    parts = [entries[i : i + SHARD] for i in range(0, len(entries), SHARD)]
    rows: list[dict[str, Any]] = []
    for number, part in enumerate(parts):
        path = folder / f"records-{number:05d}-of-{len(parts):05d}.tfrecord"
        if not path.with_suffix(".json").exists():
            answers = decoded(part, options=options, workers=workers or os.cpu_count() or 1, seconds=seconds)
            write_shard(path, part, answers=counted(answers, progress, done=len(rows), total=len(entries)))
        with reading(path.with_suffix(".json"), "the rows of a prepared part", advice="remove it"):
            rows += json.loads(path.with_suffix(".json").read_bytes())["rows"]
    check(any(not row["refused"] for row in rows), "at least one radiograph must be readable", first=rows[0]["refused"])
    return rows


def counted(answers: Iterator, progress: Callable[[int, int], None] | None, *, done: int, total: int) -> Iterator:
    """The same answers, each told."""
    for number, answer in enumerate(answers, done + 1):
        if progress:
            progress(number, total)
        yield answer


def decoded(entries: Sequence[Entry], *, options: dict, workers: int, seconds: float) -> Iterator[bytes | InputError]:
    """What the workers make of each file."""
    requests = [{"path": str(entry.path), **options} for entry in entries]
    return each("tf_simclr.chest.files.squares:shrunk", requests, workers=min(workers, len(requests)), seconds=seconds)


def write_shard(path: Path, entries: Sequence[Entry], *, answers: Iterator[bytes | InputError]) -> None:
    """Writes the records, and then their rows: a shard with rows is whole."""
    rows = []
    with replacing_path(path) as temporary, tf.io.TFRecordWriter(str(temporary)) as writer:
        for entry, answer in zip(entries, answers, strict=True):
            row, picture = described(entry, answer)
            rows.append(row)
            if picture:
                writer.write(record(row, picture))
    write_json(path.with_suffix(".json"), {"rows": rows})


def described(entry: Entry, answer: bytes | InputError) -> tuple[dict[str, Any], bytes]:
    """A row and its picture, none for a refused file."""
    row = {"image": entry.image, "study": entry.study, "labels": list(entry.labels), "split": entry.split}
    row |= {"patient": pseudonym(entry.patient), "boxes": entry.boxes, "refused": ""}
    if isinstance(answer, InputError):
        return row | {"refused": str(answer)}, b""
    about, picture = unpacked(answer)
    row["patient"] = row["patient"] or about["patient"] or pseudonym(entry.image)
    row["study"] = row["study"] or about["study"] or entry.image
    return row | {key: about[key] for key in ("bits", "height", "width", "hash")}, picture


def record(row: dict[str, Any], picture: bytes) -> bytes:
    """One example of a TFRecord file."""

    def text(value: str) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))

    features = {name: text(row[name]) for name in ("image", "study", "patient", "split")}
    features["picture"] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[picture]))
    features["labels"] = tf.train.Feature(int64_list=tf.train.Int64List(value=row["labels"]))
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
