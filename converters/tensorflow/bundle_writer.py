"""Writes TensorFlow's tensor bundle, a tensor at a time; `bundle.py` reads it and cites the format."""

from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from converters.tensorflow.bundle_index import DTYPES, STRING
from converters.tensorflow.crc32c import crc32c, mask
from converters.tensorflow.sstable import write_table
from converters.tensorflow.wire import encode, encode_fixed32, encode_varint
from tf_simclr.errors import InputError, check
from tf_simclr.files import replacing

HEADER = encode(1, 1) + encode(3, encode(1, 1))
"""One data file, little-endian, version 1."""

NUMBERS = {dtype: number for number, dtype in DTYPES.items() if number != STRING}


def write_bundle(prefix: str | Path, tensors: Iterable[tuple[str, np.ndarray | bytes]]) -> None:
    """Writes `<prefix>.index` and `<prefix>.data-00000-of-00001`, which appear when they are whole.

    The files equal, byte for byte, those that TensorFlow writes for the same tensors in the same order.

    Args:
        prefix: The files' common start; its folder must exist.
        tensors: Names and values, in any order, taken one at a time; `bytes` are a scalar string tensor.

    Raises:
        InputError: a name comes twice, a dtype is not TensorFlow's, or the disk does not take it.
    """
    start = Path(prefix)
    data, index = (start.with_name(start.name + end) for end in (".data-00000-of-00001", ".index"))
    with replacing(data, index) as (data_file, index_file):
        entries: dict[bytes, bytes] = {}
        for name, value in tensors:
            check(name != "" and name.encode() not in entries, "each tensor must have a name of its own", name=name)
            entries[name.encode()] = append(data_file, value, name=name)
        index_file.write(write_table([(b"", HEADER), *sorted(entries.items())]))


def append(file: BinaryIO, value: np.ndarray | bytes, *, name: str) -> bytes:
    """Appends a tensor's bytes.

    Returns:
        Its `BundleEntryProto`.
    """
    offset = file.tell()
    shape: tuple[int, ...] = ()
    if isinstance(value, bytes):
        dtype, (content, crc) = STRING, encode_string(value)
    else:
        dtype, shape = number_of(name, value), value.shape
        content = value.astype(DTYPES[dtype], order="C", copy=False).reshape(-1).view(np.uint8).data
        crc = crc32c(content)
    file.write(content)
    dims = b"".join(encode(2, encode(1, size)) for size in shape)
    place = encode(4, offset) + encode(5, len(content))
    return encode(1, dtype) + encode(2, dims) + place + encode_fixed32(6, mask(crc))


def number_of(name: str, value: np.ndarray) -> int:
    """TensorFlow's number of an array's dtype."""
    number = NUMBERS.get(value.dtype.newbyteorder("<"))
    if number is None:
        raise InputError(f"tensor {name} must have a dtype that TensorFlow has. Received: dtype={value.dtype}")
    return number


def encode_string(value: bytes) -> tuple[bytes | memoryview, int]:
    """The stored form of a scalar string tensor, and its checksum (see `bundle.read_strings`)."""
    crc = crc32c(len(value).to_bytes(4, "little"))
    check_length = mask(crc).to_bytes(4, "little")
    return encode_varint(len(value)) + check_length + value, crc32c(check_length + value, crc)
