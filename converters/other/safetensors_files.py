"""The safetensors format: a JSON header and raw little-endian data; read by memory map, written as a stream.

The format has no checksums; what this project writes carries its own (`integrity.py`).  Metadata are taken up where
they are this project's, which say so by the names that `integrity.py` gives; all others are somebody else's.

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

from converters.other import integrity
from converters.tensors import MappedFile, Source, Stored, check_room, checked_shape, dtype_of, each, put
from tf_simclr.errors import InputError, whole_number
from tf_simclr.files import replacing
from tf_simclr.foreign import parse_json, reading, spend
from tf_simclr.models.architecture import Architecture

_DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "C64": np.dtype("<c8"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_SMALL = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8}
"""Bits of the types that no weight of this project has."""

_LONGEST_HEADER = 100_000_000
"""Bytes; the reference implementation refuses longer ones, too."""

_WHOLE = "a whole safetensors file"


def open_safetensors(path: Path) -> Source:
    """Reads the outline.

    Raises:
        InputError: the header or a tensor's place does not fit the file, or the outline is not what this project wrote.
    """
    # 1. The header, whole. 2. Places. 3. Metadata that are ours.
    with reading(path, _WHOLE):
        data = MappedFile(path)
        header, start = _header(data)
        # The header is checked as a whole before a tensor is described: places without gaps, sizes that fit the shapes.
        metadata = _metadata(header.pop("__metadata__", {}))
        places = {key: _place(key, entry) for key, entry in header.items()}
        _check_places(places, len(data) - start)
        tensors = {key: _stored(path, data, start, key, header[key]) for key in header}
    source = Source(path, "safetensors file", tensors)
    if metadata.keys() & {integrity.ABOUT, integrity.SEAL}:
        with reading(path, _WHOLE):
            _take_up(source, metadata)
    return source


def is_safetensors(head: bytes) -> bool:
    """Whether a file that begins so is one: a length, then a JSON object."""
    # Eight bytes of length, a brace, and a length that a header can have: other files begin so by chance hardly ever.
    return len(head) > 9 and head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= _LONGEST_HEADER


def _header(data: MappedFile) -> tuple[dict[str, Any], int]:
    length = int.from_bytes(data.view(0, 8), "little")
    if not 2 <= length <= min(len(data) - 8, _LONGEST_HEADER):
        raise InputError(f"its header claims {length} of {len(data)} bytes; copy it again")
    spend(made=length)
    header = parse_json(bytes(data.view(8, length)))
    if not isinstance(header, dict):
        raise InputError("its header is no JSON object")
    return header, 8 + length


def _metadata(found: Any) -> dict[str, str]:
    if found is None:  # as the format's own reader takes it
        return {}
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise InputError(f"its metadata are not text by name: {str(found)[:80]}")
    return found


def _take_up(source: Source, metadata: Mapping[str, str]) -> None:
    """What a file of this project says of itself, and its checksums, which are compared when tensors are read."""
    if not metadata.keys() >= {integrity.ABOUT, integrity.SEAL}:
        # Damage to one of the two names must not pass for a file of others.
        raise InputError("of the metadata tf_simclr and tf_simclr_crc32c one is missing; copy it again, or remove both")
    text, outline = metadata[integrity.ABOUT], integrity.outline_of(source.tensors)
    checksums = integrity.unseal(metadata[integrity.SEAL], outline, path=source.path, description=text)
    about = parse_json(text)
    if not isinstance(about, dict) or not isinstance(about.get("architecture"), dict):
        raise InputError(f"its description by this project must name an architecture: {text[:80]}")
    Architecture(**about["architecture"])
    source.architecture = about["architecture"]
    source.step = None if about.get("step") is None else whole_number(about["step"], "step", least=0)
    for key, stored in source.tensors.items():
        source.tensors[key] = integrity.compared_when_read(stored, checksums[key], name=key, path=source.path)


def _place(key: str, entry: Any) -> tuple[int, int]:
    """Where a tensor's bytes begin and end, from the header's end on."""
    if not isinstance(entry, dict) or not entry.keys() >= {"dtype", "shape", "data_offsets"}:
        raise InputError(f"tensor {key} must be described by dtype, shape and data_offsets, but has {str(entry)[:80]}")
    offsets = entry["data_offsets"]
    if not isinstance(offsets, list) or len(offsets) != 2:
        raise InputError(f"tensor {key} must have two data_offsets, not {str(offsets)[:80]}")
    begin, end = (whole_number(offset, f"each of the data_offsets of {key}", least=0) for offset in offsets)
    return begin, end


def _check_places(places: Mapping[str, tuple[int, int]], size: int) -> None:
    """Raises `InputError` unless the tensors lie one behind the other and fill the file, as the format asks for."""
    # Sorted by place, each begins where the one before ended.
    last = 0
    for key, (begin, end) in sorted(places.items(), key=lambda item: item[1]):
        if begin != last or end < begin:
            what = "overlaps another one" if begin < last or end < begin else "leaves bytes before it to no tensor"
            raise InputError(f"tensor {key} at bytes {begin} to {end} {what}; copy it again")
        last = end
    if last != size:
        raise InputError(f"its tensors take {last} bytes, but {size} are there; copy it again")


def _stored(path: Path, data: MappedFile, start: int, /, key: str, entry: dict[str, Any]) -> Stored:
    name, (begin, end) = entry["dtype"], _place(key, entry)
    if not isinstance(name, str) or name not in _DTYPES | _SMALL:
        raise InputError(f"tensor {key} must have a dtype of the format, not {str(name)[:40]}")
    # Types below a byte: bits are counted, and rounded up to bytes.
    bits = _SMALL[name] if name in _SMALL else 8 * _DTYPES[name].itemsize
    shape = checked_shape(entry["shape"], key, itemsize=-(-bits // 8))
    size = -(-math.prod(shape) * bits // 8)
    if size != end - begin:
        raise InputError(f"tensor {key} of shape {shape} and type {name} must take {size} bytes, not {end - begin}")
    if name in _SMALL:
        return Stored.odd(shape, name, where=f"tensor {key} of {path}", reason=f"of the type {name}")
    dtype = _DTYPES[name]
    return Stored(shape, dtype.name, lambda: np.frombuffer(data.view(start + begin, size), dtype).reshape(shape))


def write_safetensors(path: Path, tensors: Mapping[str, Stored], *, description: Mapping[str, Any]) -> None:
    """Writes the tensors, holding two at most, and seals them.

    Args:
        path: Where to.
        tensors: By key; they lie in the file in this order.
        description: What the file says of itself under this project's name: plain types, `architecture` among them.

    Raises:
        InputError: the file cannot be written.
    """
    text = json.dumps(description, sort_keys=True)
    # Data are written in the order in which tensors come; their places are known before.
    places, end = {}, 0
    for key, stored in tensors.items():
        places[key], end = end, end + stored.nbytes
    outline, checksums = integrity.outline_of(tensors), dict.fromkeys(tensors, 0)

    def header() -> bytes:
        """The seal is last, and as long before the checksums are known as then."""
        ours = {integrity.ABOUT: text, integrity.SEAL: integrity.seal(outline, checksums, description=text)}
        content: dict[str, Any] = {"__metadata__": {"format": "pt", **ours}}
        for key, (dtype, shape) in outline.items():
            offsets = [places[key], places[key] + tensors[key].nbytes]
            content[key] = {"dtype": _NAMES[dtype_of(dtype)], "shape": list(shape), "data_offsets": offsets}
        packed = json.dumps(content, separators=(",", ":")).encode()
        packed += b" " * (-len(packed) % 8)  # data begin at a multiple of 8
        return len(packed).to_bytes(8, "little") + packed

    # The header's length is known before the checksums in it: they have eight digits whatever they are.
    start = len(header())
    with replacing(path) as (file,):

        def write(key: str, stored: Stored) -> None:
            place = start + places[key]
            for chunk in stored.byte_chunks():
                checksums[key] = integrity.checksum([chunk], checksums[key])
                place = put(file.fileno(), chunk, place=place)

        check_room(file.fileno(), start + end)
        each(tensors, write)
        # Last, and once more: now with the checksums of what was written.
        put(file.fileno(), header(), place=0)
