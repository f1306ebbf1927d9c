"""Folders of TFRecord files, `records-*.tfrecord`, of which any record can be read alone."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

from tf_simclr.data.sources import in_graph
from tf_simclr.errors import check
from tf_simclr.frameworks import tf


def shards(folder: Path) -> list[Path]:
    """The record files, in their order."""
    return sorted(folder.glob("records-*.tfrecord"))


def reader(folder: Path) -> Callable[[tf.Tensor], tf.Tensor]:
    """Number of an image in the folder → its record, read from where it lies in its file and nothing else."""
    files = shards(folder)
    paths, sizes = tf.constant([str(path) for path in files]), tf.constant([path.stat().st_size for path in files])
    places = tf.constant([(number, *place) for number, path in enumerate(files) for place in _framed(path)], tf.int64)

    @in_graph
    def encoded(row: tf.Tensor) -> tf.Tensor:
        number, begin, length = tf.unstack(places[row])
        rest = tf.cast(sizes[number], tf.int64) - begin - length
        only = tf.data.FixedLengthRecordDataset(
            paths[number], length, header_bytes=begin, footer_bytes=rest, buffer_size=length
        )
        return only.get_single_element()

    return encoded


def _framed(path: Path) -> list[tuple[int, int]]:
    """Where each record of a TFRecord file begins, and its length: 12 bytes stand before it, and 4 behind.

    Raises:
        InputError: the file ends within a record.
    """
    found, begin, size = [], 12, path.stat().st_size
    with path.open("rb") as file:
        while begin - 12 < size:
            (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\xff"))
            check(begin + length + 4 <= size, f"{path} must be whole, but it is cut off; prepare the radiographs again")
            found.append((begin, length))
            begin += length + 16
            file.seek(begin - 12)
    return found
