"""Folders of TFRecord files, `records-*.tfrecord`, of which any record can be read alone.

    uint64 length, uint32 its checksum, the record, uint32 its checksum          all little-endian; CRC-32C, masked

References:
    TensorFlow, core/lib/io/record_writer.h
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tf_simclr.errors import check
from tf_simclr.files.contents import masked_crc32c
from tf_simclr.frameworks import tf

_HEAD, _FRAME = 12, 16
"""Bytes of a TFRecord file before a record, and before and behind it."""


def shards(folder: Path) -> list[Path]:
    """The record files, in their order."""
    return sorted(folder.glob("records-*.tfrecord"))


class Reader:
    """Number of an image in a folder → its record, read from where it lies in its file and nothing else.

    In a graph TensorFlow reads each one; `together` reads many, by Python in this process: a fourth of the time.
    """

    anew = "prepare the radiographs again"
    """What is to be done where a file is damaged."""

    def __init__(self, folder: Path):
        files = shards(folder)
        places = [(number, *place) for number, path in enumerate(files) for place in _framed(path, self.anew)]
        self.places = np.array(places, np.int64)
        self.paths = [str(path) for path in files]
        self._tensors = tf.constant(self.places), tf.constant(self.paths)

    def __call__(self, row: tf.Tensor) -> tf.Tensor:
        """What `images.to_rgb` takes of a row; fails where its record is damaged."""
        return self.opened(row, self.record(row))

    def opened(self, row: tf.Tensor, record: tf.Tensor) -> tf.Tensor:
        """The same of a row's record, which has been read: here a picture's file, as it is."""
        return record

    def record(self, row: tf.Tensor) -> tf.Tensor:
        """The record of a row; fails where it is damaged."""
        # This one of TensorFlow's ways seeks; FixedLengthRecordDataset reads all that lies in the file before.
        places, paths = self._tensors
        number, begin, length = tf.unstack(places[row])
        kind = {"output_types": [tf.string], "output_shapes": [tf.TensorShape([])]}
        rest = tf.raw_ops.TFRecordDatasetV2(
            filenames=paths[number][None],
            compression_type="",
            buffer_size=length + _FRAME,
            byte_offsets=(begin - _HEAD)[None],
        )
        only = tf.raw_ops.TakeDataset(input_dataset=rest, count=tf.constant(1, tf.int64), **kind)
        return tf.raw_ops.DatasetToSingleElement(dataset=only, **kind)[0]

    def together(self, rows: tf.Tensor) -> tf.Tensor:
        """The records `(n,)` of rows `(n,)`, strings; empty where one is damaged or gone."""
        found = tf.numpy_function(self.read, [rows], tf.string, stateful=False)
        return tf.ensure_shape(found, rows.shape)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """As `together`, of numbers."""
        files: dict[int, int] = {}
        try:
            return np.array([self._checked(place, files) for place in self.places[rows].tolist()], object)
        finally:
            for file in files.values():
                os.close(file)

    def _checked(self, place: Sequence[int], files: dict[int, int]) -> bytes:
        number, begin, length = place
        try:
            if number not in files:
                files[number] = os.open(self.paths[number], os.O_RDONLY)
            framed = os.pread(files[number], length + 4, begin)
        except OSError:
            return b""
        record, checksum = framed[:length], framed[length:]
        return record if masked_crc32c(record) == int.from_bytes(checksum, "little") else b""


def _framed(path: Path, anew: str) -> list[tuple[int, int]]:
    """Where each record of a TFRecord file begins, and its length: 12 bytes stand before it, and 4 behind.

    Raises:
        InputError: the file ends within a record.
    """
    found, begin, size = [], _HEAD, path.stat().st_size
    with path.open("rb") as file:
        while begin - _HEAD < size:
            (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\xff"))
            check(begin + length + 4 <= size, f"{path} must be whole, but it is cut off; {anew}")
            found.append((begin, length))
            begin += length + _FRAME
            file.seek(begin - _HEAD)
    return found
