"""`--cache resized`: every image once shrunk, and kept on disk beside what else can be made again.

    ~/.cache/tf_simclr/resized/KEY/        KEY is the digest of the images' content, the size and the format
        records-00000.tfrecord             1,024 pictures in the source's order
        records-00000.json                 name, shape and label of each; written behind the pictures
        whole.json                         written last: how many there are

Pictures are JPEG files (PNG where they have 16 bits), or raw: their pixels `(h, w, 3)` of 8 or 16 bits, little-endian.

Each file appears whole or not at all; what is there is not made again, so that a run that was stopped goes on.  An
image that cannot be read stays one, under its name: training replaces it, and says so, as it would without the cache.
"""

from __future__ import annotations

import functools
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tf_simclr.data import images
from tf_simclr.data.kept.pictures import Jpegs, Raw
from tf_simclr.data.sources import CORES, Indexed, Rows, Source, in_graph
from tf_simclr.errors import InputError, check, surfacing
from tf_simclr.files import clear_unfinished, contents, replacing_path, write_json
from tf_simclr.files.contents import Say, silent
from tf_simclr.files.lock import InUse, hold
from tf_simclr.foreign import reading
from tf_simclr.frameworks import has_tensorflow, needs_tensorflow, tf, untuned

_Format = Literal["jpeg", "raw"]
_PATIENCE = 1.0
"""Seconds between two looks at another process that makes the same."""
SHARD = 1024
"""Pictures in a file."""
_QUALITY = 90
_BYTES = {"jpeg": 27_000, "raw": 260_000}
"""Of a picture of 256 px, about; other sizes take as much a pixel."""
_VERSION = {"jpeg": 1, "raw": 2}
"""Counted up where a format changes: what is kept in an older one is made anew.  Raw pixels were BMPs before."""


def resized(
    source: Source, *, size: int, kind: _Format = "jpeg", say: Say = silent, place: Path | None = None
) -> Source:
    """The same images, none with a shorter side above `size`, from a disk where all of them are kept.

    They are made at the first use, by the means of areas, and a later run finds them by their content.  Labels and
    names stay; the order of a training is that of a source that can be read anywhere.

    Args:
        source: images whose content can be told.
        size: of the shorter side in pixels; smaller images stay as they are.
        kind: JPEG of quality 90, or the pixels themselves.  Images of 16 bits are kept as PNG, which loses nothing.
        say: takes lines for the user.
        place: where caches lie; by default `resized` in `contents.cache_folder()`.

    Raises:
        InputError: nothing tells the images' content, or there is no room on the disk.
    """
    if not has_tensorflow():
        raise needs_tensorflow("cache resized")
    rule = "cache resized keeps one image an example; a patient's pairs are read as they are prepared"
    check(source.partner is None, rule, pairs="patient")
    # 1. Where it lies: by the content of the images, the size and the format.
    known = source.identity
    if known is None:
        raise InputError(f"cache resized must know its images by their content, which nothing tells of {source.origin}")
    identity = functools.cache(lambda: [known(say), "resized", size, kind, _VERSION[kind]])
    folder = _folder(source, identity(), place=place)
    for version in range(1, _VERSION[kind]):
        old = _folder(source, [*identity()[:-1], version], place=place)
        if old.exists():
            say(f"the cache in {old} is of an older version, and nothing reads it any more: remove it")
    # 2. Made by one process, which the others wait for; if it dies, the next one goes on with what is there.
    told = False
    while not (folder / "whole.json").exists():
        try:
            with hold(folder, say=silent if told else say):
                make(source, folder, size=size, kind=kind, say=say, settled=lambda: known(silent) == identity()[0])
        except InUse as error:  # another run, or another process of this one, makes the same: it is waited for
            if not told:
                say(f"{error.args[0].split(';')[0]}, which shrinks the same images; waiting for it …")
            told = True
            time.sleep(_PATIENCE)
    # 3. A source of what was kept.  Names, labels and shapes are in memory, pictures are read by their number.
    found = _listed(folder, source.num_examples)
    shapes = np.array([one["shape"][:2] for one in found], np.int64).reshape(-1, 2)
    rows = Rows(
        images=np.arange(len(found)),
        names=np.array([one["name"] for one in found], object),
        labels=np.array([one["label"] for one in found], np.int64) if source.labelled else None,
    )
    height, width = source.sides or (0, 0)
    tall, wide = shapes.max(0).tolist()
    largest = (max(tall, 1), max(wide, 1))  # 0: none can be read
    others: dict[str, Any] = {
        "origin": f"{source.origin} (at most {size} px, {kind})",
        "identity": lambda say=silent: identity(),
        "sides": source.sides if source.sides and min(height, width) <= size else None,
        "largest": largest,
        "vectorised": False,
        "channels": 3,
    }
    pictures = (Jpegs if kind == "jpeg" else Raw)(folder, shapes)
    return Indexed(**(source.told() | others), read=pictures, record=rows.tensors(), gathers=True)


def _folder(source: Source, identity: list[Any], *, place: Path | None) -> Path:
    """Where the pictures of an identity lie."""
    key = contents.of_values(source.num_examples, list(source.class_names), identity)
    return (place or contents.cache_folder() / "resized") / key


def make(source: Source, folder: Path, *, size: int, kind: _Format, say: Say, settled: Callable[[], bool]) -> None:
    """Shrinks what is not there yet, a file after the other; call it within the folder's lock.

    Args:
        source: the images.
        folder: where they are kept.
        size: of the shorter side, in pixels, at most.
        kind: their format.
        say: takes lines for the user.
        settled: whether the images are still those that the folder is named after.

    Raises:
        InputError: the disk has not room enough, or images have changed meanwhile.
    """
    clear_unfinished(folder)
    files = [folder / f"records-{i:05}.tfrecord" for i in range(-(-source.num_examples // SHARD))]
    missing = [i for i, file in enumerate(files) if not file.with_suffix(".json").exists()]
    need = len(missing) * min(SHARD, source.num_examples) * _BYTES[kind] * (size / 256) ** 2
    free = shutil.disk_usage(folder).free
    about = f"about {need / 2**30:,.1f} GiB of {free / 2**30:,.1f} GiB that are free"
    rule = f"cache resized must have room in {folder}: {about}; take a smaller cache_size, or set TF_SIMCLR_CACHE"
    check(need < free, rule)
    done = len(files) - len(missing)
    state = f"{done:,} of {len(files):,} files are there" if done else about
    say(f"shrinking {source.num_examples:,} images of {source.origin} to {size} px once, into {folder} ({state}) …")

    @in_graph
    def shrunk(record: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        # An image that cannot be read gives an empty picture in its place, of shape 0: an error would end all of them.
        own = tf.data.Dataset.from_tensors(record["image"]).map(source.read).map(in_graph(small)).ignore_errors()
        nothing = tf.data.Dataset.from_tensors(("", tf.zeros(3, tf.int32)))
        picture, shape = own.concatenate(nothing).take(1).get_single_element()
        return record | {"image": picture, "shape": shape}

    def small(raw: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return images.to_rgb(raw, functools.partial(_encoded, size=size, kind=kind))

    for i in missing:
        records = source.ordered().skip(i * SHARD).take(SHARD)
        made = untuned(records.map(shrunk, num_parallel_calls=CORES, deterministic=True))
        rows = []
        try:
            # What cannot be read is no matter of the disk (`surfacing`).
            with replacing_path(files[i]) as temporary, tf.io.TFRecordWriter(str(temporary)) as writer, surfacing():
                for one in made.as_numpy_iterator():
                    writer.write(one["image"])
                    rows.append(row_of(one))
        except tf.errors.OpError as error:  # TensorFlow's word for a disk that is full meanwhile
            reason = str(error.message).strip().splitlines()[0][:200]
            advice = "make room, and begin again: what is there stays"
            raise InputError(f"{files[i]} must be writable: {reason}; {advice}") from error
        # Behind the pictures: where it is there, they are whole.
        write_json(files[i].with_suffix(".json"), rows)
    if not settled():
        for made_of_others in folder.glob("records-*"):  # nobody knows which
            made_of_others.unlink(missing_ok=True)
        rule = "must stay as they are while they are shrunk, but some have changed meanwhile; begin again"
        raise InputError(f"the images of {source.origin} {rule}")
    write_json(folder / "whole.json", {"images": source.num_examples, "origin": source.origin, "size": size})


def row_of(record: dict[str, Any]) -> dict[str, Any]:
    """What is noted of a picture beside it."""
    row = {"name": record["name"].decode(errors="surrogateescape"), "shape": record["shape"].tolist()}
    return row | ({"label": record["label"].tolist()} if "label" in record else {})


def _encoded(pixels: tf.Tensor, *, size: int, kind: _Format) -> tuple[tf.Tensor, tf.Tensor]:
    """A picture's file, and its shape: its integers `(h, w, 3)`, shrunk so that the shorter side is `size` at most."""
    shape = tf.shape(pixels)
    scale = tf.cast(size, tf.float32) / tf.cast(tf.reduce_min(shape[:2]), tf.float32)
    smaller = tf.cast(tf.round(tf.cast(shape[:2], tf.float32) * scale), tf.int32)

    def means() -> tf.Tensor:
        found = tf.raw_ops.ResizeArea(images=pixels[None], size=smaller, align_corners=False)[0]
        return tf.cast(tf.round(found), pixels.dtype)

    pixels = tf.cond(scale < 1, means, lambda: pixels)
    if kind == "raw":
        return tf.numpy_function(_bytes, [pixels], tf.string, stateful=False), tf.shape(pixels)
    if pixels.dtype == tf.uint16:
        return tf.io.encode_png(pixels), tf.shape(pixels)
    return tf.io.encode_jpeg(pixels, quality=_QUALITY), tf.shape(pixels)


def _bytes(pixels: np.ndarray) -> bytes:
    """The numbers, little-endian."""
    return pixels.astype(pixels.dtype.newbyteorder("<"), copy=False).tobytes()


def _listed(folder: Path, count: int) -> list[dict[str, Any]]:
    """What is noted of the pictures, in their order.

    Raises:
        InputError: the cache is damaged.
    """
    with reading(folder, "a whole cache of resized images", advice=f"remove {folder}, and it is made anew"):
        rows = [row for file in sorted(folder.glob("records-*.json")) for row in json.loads(file.read_bytes())]
        if len(rows) != count or not all(isinstance(row["name"], str) for row in rows):
            raise ValueError(f"{len(rows)} of {count} pictures")
        if not all(len(row["shape"]) == 3 and all(isinstance(side, int) for side in row["shape"]) for row in rows):
            raise ValueError("a picture without its shape")
    return rows
