"""Reads PyTorch's zip files by memory map, without PyTorch, where they hold tensors and plain values only."""

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converters.mapped import MappedFile
from converters.stored import Source, Stored, dtype_of
from converters.torch_pickle import Tensor, UnknownPickleError, decode
from converters.torch_zip import LOCAL
from tf_simclr.errors import check

DEEPEST, MOST = 32, 100_000
"""Dictionaries within each other, and tensors, that no checkpoint reaches; a hostile one may contain itself."""

Place = tuple[int, int]
"""Offset and size in bytes."""


def open_state(path: Path) -> Source | None:
    """Reads the outline of a `.pth`, `.pt` or `.ckpt` file; nested dictionaries' keys are joined with dots.

    Returns:
        None where PyTorch is needed: for files of older versions, for other objects than plain ones, and for most
        damaged files, whose fault it names.

    Raises:
        InputError: dictionaries in it contain each other without end, or a tensor reaches past its data.
    """
    try:
        data = MappedFile(path)
        members = _members(path, data)
        content = decode(bytes(data.view(*members["data.pkl"])))
        tensors = {key: _stored(key, tensor, members, data) for key, tensor in flatten(content, Tensor)}
    except (UnknownPickleError, zipfile.BadZipFile, KeyError, NotImplementedError):
        return None
    step = content.get("global_step") if isinstance(content, Mapping) else None
    return Source(path, "PyTorch file", tensors, step=step if type(step) is int else None)


def flatten(content: Any, kind: type, *, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Key and value of everything of a kind in nested dictionaries.

    Raises:
        InputError: there is no end to it.
    """
    check(depth < DEEPEST, f"a PyTorch file must have less than {DEEPEST} dictionaries within each other", key=prefix)
    if isinstance(content, kind):
        yield prefix, content
    elif isinstance(content, Mapping):
        check(len(content) < MOST, f"a dictionary must have less than {MOST} entries", key=prefix)
        for key, value in content.items():
            yield from flatten(value, kind, prefix=f"{prefix}.{key}" if prefix else str(key), depth=depth + 1)


def _members(path: Path, data: MappedFile) -> dict[str, Place]:
    """Where each member's data lie, by its name in the folder of `data.pkl`.

    Raises:
        UnknownPickleError: the zip is built otherwise than PyTorch builds it.
    """
    with zipfile.ZipFile(path) as archive:
        found = archive.infolist()
    names = [member.filename for member in found]
    tops = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
    if len(tops) != 1 or len(set(names)) < len(names) or any(member.compress_type for member in found):
        raise UnknownPickleError("the zip is not PyTorch's")
    places = {member.filename.removeprefix(tops[0]): _place(member, data) for member in found}
    if "byteorder" in places and bytes(data.view(*places["byteorder"])) != b"little":
        raise UnknownPickleError("its numbers are big-endian")
    return places


def _place(member: zipfile.ZipInfo, data: MappedFile) -> Place:
    header = bytes(data.view(member.header_offset, LOCAL.size))
    if len(header) < LOCAL.size or header[:4] != b"PK\x03\x04":
        raise UnknownPickleError(f"{member.filename} has no header")
    name, extra = LOCAL.unpack(header)[-2:]
    start = member.header_offset + LOCAL.size + name + extra
    if start + member.file_size > len(data):
        raise UnknownPickleError(f"{member.filename} is cut off")
    return start, member.file_size


def _stored(key: str, tensor: Tensor, members: Mapping[str, Place], data: MappedFile, /) -> Stored:
    """A tensor that lies within its storage, and a storage that is as long as it says; PyTorch does not look."""
    dtype, place = dtype_of(tensor.dtype), members["data/" + tensor.storage]
    last = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride, strict=True))
    within = 0 in tensor.shape or tensor.offset + last < tensor.count
    whole = place[1] == tensor.count * dtype.itemsize
    check(within and whole, f"tensor {key} must lie within its storage of {place[1]} bytes", described=tensor)

    def read() -> np.ndarray:
        flat = np.frombuffer(data.view(*place), dtype)[tensor.offset :]
        steps = [step * dtype.itemsize for step in tensor.stride]
        return np.require(np.lib.stride_tricks.as_strided(flat, tensor.shape, steps), requirements=("C", "A"))

    return Stored(tensor.shape, tensor.dtype, read)
