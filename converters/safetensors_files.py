"""The safetensors format: a JSON header and raw little-endian data; read by memory map, written as a stream.

References:
    huggingface/safetensors README, "Format"
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from converters.mapped import MappedFile
from converters.stored import Source, Stored, dtype_of
from converters.streams import check_room, each, put
from tf_simclr.errors import InputError
from tf_simclr.files import replacing

_DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}

LONGEST_HEADER = 100_000_000
"""Bytes; the reference implementation refuses longer ones, too."""


def open_safetensors(path: Path) -> Source:
    """Reads the outline; metadata that `write_safetensors` wrote is taken up.

    Raises:
        InputError: the header or a tensor's place does not fit the file.
    """
    data = MappedFile(path)
    header, start = _header(path, data)
    metadata = header.pop("__metadata__", {})
    tensors = {key: _stored(path, data, start, key, entry) for key, entry in header.items()}
    architecture = json.loads(metadata["architecture"]) if "architecture" in metadata else {}
    step = int(metadata["step"]) if metadata.get("step", "").isdigit() else None
    return Source(path, "safetensors file", tensors, step=step, architecture=architecture)


def is_safetensors(head: bytes) -> bool:
    """Whether a file that begins so is one: a length, then a JSON object."""
    return len(head) > 9 and head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= LONGEST_HEADER


def _header(path: Path, data: MappedFile) -> tuple[dict, int]:
    length = int.from_bytes(data.view(0, 8), "little")
    if not 2 <= length <= min(len(data) - 8, LONGEST_HEADER):
        raise InputError(
            f"{path} must be a whole safetensors file, but its header claims {length} of {len(data)} bytes"
        )
    try:
        header = json.loads(bytes(data.view(8, length)))
    except ValueError as error:
        raise InputError(f"{path} must be a whole safetensors file, but its header is no JSON ({error})") from error
    return header, 8 + length


def _stored(path: Path, data: MappedFile, start: int, key: str, entry: Any) -> Stored:
    try:
        dtype, shape = _DTYPES[entry["dtype"]], tuple(int(n) for n in entry["shape"])
        begin, end = entry["data_offsets"]
        fits = 0 <= begin <= end <= len(data) - start and min(shape, default=0) >= 0
        size = math.prod(shape) * dtype.itemsize
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} must describe tensor {key} by dtype, shape and place, but has {entry!r:.80}"
        ) from error
    if not fits or size != end - begin:
        raise InputError(f"{path} must hold {size} bytes of tensor {key} at {begin}–{end}, but has {len(data) - start}")
    return Stored(shape, dtype.name, lambda: np.frombuffer(data.view(start + begin, size), dtype).reshape(shape))


def write_safetensors(path: Path, tensors: Mapping[str, Stored], *, metadata: Mapping[str, str]) -> None:
    """Writes the tensors, holding two at most.

    Args:
        path: Where to.
        tensors: By key; they lie in the file in this order.
        metadata: Text by name.

    Raises:
        InputError: the file cannot be written.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    places, end = {}, 0
    for key, stored in tensors.items():
        places[key], end = end, end + stored.nbytes
        name = _NAMES[dtype_of(stored.dtype)]
        header[key] = {"dtype": name, "shape": list(stored.shape), "data_offsets": [places[key], end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # data begin at a multiple of 8
    text = len(text).to_bytes(8, "little") + text
    with replacing(path) as (file,):

        def write(key: str, stored: Stored) -> None:
            place = len(text) + places[key]
            for data in stored.pieces():
                place = put(file.fileno(), data, place=place)

        check_room(file.fileno(), len(text) + end)
        put(file.fileno(), text, place=0)
        each(tensors, write)
