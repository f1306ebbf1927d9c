"""The safetensors format: a JSON header and raw little-endian data; read by memory map, written as a stream.

References:
    huggingface/safetensors README, "Format"
"""

import json
import mmap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from converters.stored import Source, Stored
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
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    header, start = _header(path, data)
    metadata = header.pop("__metadata__", {})
    tensors = {key: _stored(path, data, start, key, entry) for key, entry in header.items()}
    architecture = json.loads(metadata["architecture"]) if "architecture" in metadata else {}
    step = int(metadata["step"]) if metadata.get("step", "").isdigit() else None
    return Source(path, "safetensors file", tensors, step=step, architecture=architecture)


def is_safetensors(head: bytes) -> bool:
    """Whether a file that begins so is one: a length, then a JSON object."""
    return len(head) > 9 and head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= LONGEST_HEADER


def _header(path: Path, data: mmap.mmap) -> tuple[dict, int]:
    length = int.from_bytes(data[:8], "little")
    if not 2 <= length <= min(len(data) - 8, LONGEST_HEADER):
        raise InputError(
            f"{path} must be a whole safetensors file, but its header claims {length} of {len(data)} bytes"
        )
    try:
        header = json.loads(data[8 : 8 + length])
    except ValueError as error:
        raise InputError(f"{path} must be a whole safetensors file, but its header is no JSON ({error})") from error
    return header, 8 + length


def _stored(path: Path, data: mmap.mmap, start: int, key: str, entry: Any) -> Stored:
    try:
        dtype, shape = _DTYPES[entry["dtype"]], tuple(int(n) for n in entry["shape"])
        begin, end = entry["data_offsets"]
        fits = 0 <= begin <= end <= len(data) - start and min(shape, default=0) >= 0
        size = int(np.prod(shape, dtype=object)) * dtype.itemsize
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} must describe tensor {key} by dtype, shape and place, but has {entry!r:.80}"
        ) from error
    if not fits or size != end - begin:
        raise InputError(f"{path} must hold {size} bytes of tensor {key} at {begin}–{end}, but has {len(data) - start}")
    return Stored(
        shape, dtype.name, lambda: np.frombuffer(data, dtype, size // dtype.itemsize, start + begin).reshape(shape)
    )


def write_safetensors(
    path: Path, tensors: Mapping[str, Stored], *, arrays: Iterable[tuple[str, np.ndarray]], metadata: Mapping[str, str]
) -> None:
    """Writes tensor after tensor.

    Args:
        path: Where to.
        tensors: Key → shape and dtype of all, in the order of `arrays`.
        arrays: Key and contiguous array of each.
        metadata: Text by name.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    place = 0
    for key, stored in tensors.items():
        dtype = np.dtype(ml_dtypes.bfloat16) if stored.dtype == "bfloat16" else np.dtype(stored.dtype)
        size = int(np.prod(stored.shape, dtype=np.int64)) * dtype.itemsize
        header[key] = {"dtype": _NAMES[dtype], "shape": list(stored.shape), "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # data begin at a multiple of 8
    with replacing(path) as (file,):
        file.write(len(text).to_bytes(8, "little") + text)
        for _, array in arrays:
            file.write(np.ascontiguousarray(array).view(np.uint8).data if array.ndim else array.tobytes())
