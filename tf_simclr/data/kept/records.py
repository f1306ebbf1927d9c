"""Folders of TFRecord files, `records-*.tfrecord`, of which any record can be read alone."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

from tf_simclr.data.sources import in_graph
from tf_simclr.errors import check
from tf_simclr.frameworks import tf

_HEAD, _FRAME = 12, 16
"""Bytes of a TFRecord file before a record, and before and behind it."""


def shards(folder: Path) -> list[Path]:
    """The record files, in their order."""
    return sorted(folder.glob("records-*.tfrecord"))


def reader(folder: Path) -> Callable[[tf.Tensor], tf.Tensor]:
    """Number of an image in the folder → its record, read from where it lies in its file and nothing else."""
    files = shards(folder)
    paths = tf.constant([str(path) for path in files])
    places = tf.constant([(number, *place) for number, path in enumerate(files) for place in _framed(path)], tf.int64)
    kind = {"output_types": [tf.string], "output_shapes": [tf.TensorShape([])]}

    @in_graph
    def encoded(row: tf.Tensor) -> tf.Tensor:
        # This one of TensorFlow's ways seeks; FixedLengthRecordDataset reads all that lies in the file before.
        number, begin, length = tf.unstack(places[row])
        rest = tf.raw_ops.TFRecordDatasetV2(
            filenames=paths[number][None],
            compression_type="",
            buffer_size=length + _FRAME,
            byte_offsets=(begin - _HEAD)[None],
        )
        only = tf.raw_ops.TakeDataset(input_dataset=rest, count=tf.constant(1, tf.int64), **kind)
        return tf.raw_ops.DatasetToSingleElement(dataset=only, **kind)[0]

    return encoded


def _framed(path: Path) -> list[tuple[int, int]]:
    """Where each record of a TFRecord file begins, and its length: 12 bytes stand before it, and 4 behind.

    Raises:
        InputError: the file ends within a record.
    """
    found, begin, size = [], _HEAD, path.stat().st_size
    with path.open("rb") as file:
        while begin - _HEAD < size:
            (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\xff"))
            check(begin + length + 4 <= size, f"{path} must be whole, but it is cut off; prepare the radiographs again")
            found.append((begin, length))
            begin += length + _FRAME
            file.seek(begin - _HEAD)
    return found
