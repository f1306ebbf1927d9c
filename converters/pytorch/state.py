"""Reads PyTorch's files by memory map, without PyTorch: its zips, what it wrote before 1.6, and bare pickles.

Nothing in a file is imported or called (`inert_pickle.py`).  Tensors are found in nested dictionaries and lists, in
pickled modules by their `_parameters`, `_buffers` and `_modules`, and in TorchScript's objects by their attributes; of
all other objects the class and the place are kept, to be told.

References:
    pytorch caffe2/serialize/inline_container.cc, torch/serialization.py (`_save`, `_legacy_save`)
"""

import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from converters.pytorch import inert_pickle
from converters.pytorch.inert_pickle import DamagedPickleError, Name, OddKey, Placeholder
from converters.pytorch.state_pickle import (
    BROKEN,
    CALLS,
    Array,
    OddTensor,
    Storage,
    Tensor,
    decode,
    described,
    storage,
)
from converters.pytorch.zip_file import LOCAL
from converters.tensors import MappedFile, Source, Stored, dtype_of
from tf_simclr.errors import InputError, check
from tf_simclr.foreign import TENSOR, checked_name, reading, spend

_DEEPEST, _MOST = 32, 100_000
"""Dictionaries within each other, and tensors in one, that no checkpoint reaches; a hostile one may hold itself."""

_WHOLE = "a whole PyTorch file"
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
"""What a file of PyTorch before 1.6 begins with: two pickled numbers."""

_UNCHECKED = "The file has no checksums (it was written with torch.serialization.set_crc32_options(False))."
_CLASSES = 4
"""Classes of objects that a note names."""


def open_state(path: Path) -> Source:
    """Reads the outline of a `.pth`, `.pt` or `.ckpt` file that is a zip; nested keys are joined with dots.

    Every member's CRC-32 is compared when it is read: the outline's at once, a tensor's with the tensor.

    Raises:
        InputError: the file is damaged, holds no tensor, or more than any checkpoint.
    """
    with reading(path, _WHOLE):
        archive = _Archive(path)
        content = decode(archive.content("data.pkl"))
        # Files of big-endian machines say so in a member.
        big = "byteorder" in archive.members and bytes(archive.content("byteorder")) == b"big"
        script = "constants.pkl" in archive.members
        read = _Reader(archive.size, lambda name: archive.content(f"data/{name}"), ">" if big else "<")
        source = _source(path, "TorchScript file" if script else "PyTorch file", content, read)
    source.notes += [] if archive.checked else [_UNCHECKED]
    source.notes += ["TorchScript's program was not read: its weights alone were."] if script else []
    return source


def open_legacy(path: Path) -> Source:
    """Reads the outline of what `torch.save` wrote before 1.6, and of a bare pickle; neither has checksums.

    Raises:
        InputError: as `open_state`.
    """
    with reading(path, _WHOLE):
        data = MappedFile(path)
        loose: dict[str, memoryview] = {}  # storages that `pickle.dump` put into the pickle itself

        def loaded(blob: bytes) -> Storage:
            """`torch.storage._load_from_bytes`: such a storage is a file of before 1.6 of its own."""
            inner = _Legacy(memoryview(blob), CALLS)
            if not isinstance(inner.content, Storage):
                raise DamagedPickleError("a storage within its pickle is none")
            name = f"within the pickle, {len(loose)}"
            loose[name] = inner.view[slice(*inner.places[inner.content.storage])]
            return replace(inner.content, storage=name)

        file = _Legacy(data.whole(), CALLS | {"torch.storage _load_from_bytes": loaded})

        def size(name: str) -> int:
            start, end = file.places.get(name) or (0, len(loose[name]))
            return end - start

        def content(name: str) -> memoryview:
            if name in loose:
                return loose[name]
            start, end = file.places[name]
            return data.view(start, end - start)

        return _source(path, file.container, file.content, _Reader(size, content))


class _Legacy:
    """The pickles that a file of before 1.6 begins with, and where its storages lie behind them.

    Attributes:
        view: The file.
        container: What it is.
        content: What was saved.
        places: Storage → where it begins and ends.
    """

    def __init__(self, view: memoryview, calls: inert_pickle.Calls):
        self.view = view
        self.places: dict[str, tuple[int, int]] = {}
        self._sizes: dict[str, int] = {}
        self.container = "PyTorch file of before 1.6"
        parts: list[Any] = []
        place = 0
        # Five pickles in a row, then the storages: each one's length is known only when it has been read.
        while len(parts) < 5:  # magic number, version, writing machine, content, storages
            part, place = inert_pickle.read(view, start=place, calls=calls, persistent=self._seen)
            parts.append(part)
            if parts[0] != _MAGIC:  # a bare pickle
                self.container, self.content = "pickle file", part
                return
        _, version, _, self.content, keys = parts
        check(version == _PROTOCOL, "its version must be one that PyTorch wrote", version=version)
        check(type(keys) is list and set(map(type, keys)) <= {str}, "it must list its storages by their names")
        for key in keys:
            place = self._locate(key, place)

    def _seen(self, identity: Any) -> Any:
        found = storage(identity)
        if isinstance(found, Storage):
            self._sizes[found.storage] = found.size
        return found

    def _locate(self, key: str, place: int) -> int:
        """A storage is a count of numbers and the numbers; the place behind it."""
        spend(items=TENSOR)
        # Eight bytes of a count, then the numbers.
        size, count = self._sizes.get(key, 0), int.from_bytes(self.view[place : place + 8], "little", signed=True)
        check(size > 0, f"storage {key} must be of a known type")
        # As many as fit behind it, before anything is multiplied.
        check(0 <= count <= (len(self.view) - place - 8) // size, f"storage {key} must be whole", numbers=count)
        end = place + 8 + count * size
        self.places[key] = (place + 8, end)
        return end


class _Archive:
    """A zip's members, each read and compared with its CRC-32 when it is first asked for."""

    def __init__(self, path: Path):
        self.path, self.data = path, MappedFile(path)
        with zipfile.ZipFile(path) as archive:
            found = archive.infolist()
        spend(items=len(found))
        names = [checked_name(member.filename) for member in found]
        # One folder holds all, of any name: the one with data.pkl.
        tops = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
        check(len(tops) == 1, "it must hold one data.pkl", found=len(tops))
        double = [name for name, count in Counter(names).items() if count > 1]
        check(not double, "each of its members must be there once", double=double[:3])
        self.members = {member.filename.removeprefix(tops[0]): member for member in found}
        # `torch.save` can be told to leave the checksums out: then all are zero.
        self.checked = any(member.CRC for member in found if member.file_size)
        self.seen: set[str] = set()

    def size(self, storage: str) -> int:
        """Bytes of a storage.

        Raises:
            KeyError: there is none of this name.
        """
        return self.members[f"data/{storage}"].file_size

    def content(self, name: str) -> memoryview:
        """A member's bytes.

        Raises:
            InputError: they are not those that were written.
        """
        member = self.members[name]
        # Compressed or encrypted: read by Python, which compares checksums; PyTorch itself stores.
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            spend(made=member.file_size)
            with zipfile.ZipFile(self.path) as archive:
                return memoryview(archive.read(member))  # compares the checksum
        # Stored without compression, as PyTorch writes it: a view of the map, no copy.
        content = self.data.view(*self._place(member))
        if name not in self.seen:
            same = not self.checked or zlib.crc32(content) == member.CRC
            check(same, f"{self.path} must hold {member.filename} as it was written, but its CRC-32 differs")
            self.seen.add(name)
        return content

    def _place(self, member: zipfile.ZipInfo) -> tuple[int, int]:
        header = bytes(self.data.view(member.header_offset, LOCAL.size))
        whole = len(header) == LOCAL.size and header[:4] == b"PK\x03\x04"
        # The local header has lengths of its own, which may differ from the directory's.
        check(whole, f"member {member.filename} must have its header")
        name, extra = LOCAL.unpack(header)[-2:]
        start = member.header_offset + LOCAL.size + name + extra
        check(start + member.file_size <= len(self.data), f"member {member.filename} must be whole")
        return start, member.file_size


@dataclass
class _Reader:
    """From descriptions to tensors.

    Attributes:
        size: Storage → its bytes; `KeyError`: it is not there.
        content: Storage → its content.
        order: Of the bytes in a number.
    """

    size: Callable[[str], int]
    content: Callable[[str], memoryview]
    order: str = "<"

    def stored(self, path: Path, key: str, tensor: Tensor | OddTensor | Array) -> Stored:
        """A tensor, to be read when asked for."""
        if isinstance(tensor, OddTensor):
            check(tensor.dtype != BROKEN, f"tensor {key} must lie within its storage, but is {tensor.reason}")
            return Stored.odd(tensor.shape, tensor.dtype, where=f"{path}: {key}", reason=tensor.reason)
        return _array(path, key, tensor) if isinstance(tensor, Array) else self._tensor(key, tensor)

    def _tensor(self, key: str, tensor: Tensor) -> Stored:
        """A tensor that lies within its storage, and a storage that is as long as it says; PyTorch does not look."""
        try:
            dtype, size = dtype_of(tensor.dtype), self.size(tensor.storage)
        except KeyError:
            raise InputError(f"tensor {key} must lie within its storage, but {tensor.storage!r} is not there") from None
        # The place of the last element by the strides: PyTorch would read whatever lies behind the storage.
        last = sum((length - 1) * step for length, step in zip(tensor.shape, tensor.stride, strict=True))
        within = 0 in tensor.shape or tensor.offset + last < tensor.count
        whole = size == tensor.count * dtype.itemsize
        check(within and whole, f"tensor {key} must lie within its storage of {size} bytes", described=tensor)

        def read() -> np.ndarray:
            flat = np.frombuffer(self.content(tensor.storage), dtype)
            # From the offset on, in strides of bytes; copied only where it has gaps.
            flat = (flat if self.order == "<" else flat.byteswap())[tensor.offset :]
            steps = [step * dtype.itemsize for step in tensor.stride]
            return np.require(np.lib.stride_tricks.as_strided(flat, tensor.shape, steps), requirements=("C", "A"))

        return Stored(tensor.shape, tensor.dtype, read)


def _array(path: Path, key: str, array: Array) -> Stored:
    """A NumPy array: its numbers lie in the pickle."""
    found = described(array)
    if found is None:
        return Stored.odd((), "object", where=f"{path}: {key}", reason="an array of objects or texts")
    code, shape, fortran, data = found
    dtype = np.dtype(code)

    def read() -> np.ndarray:
        # Fortran's order is that of columns.
        numbers = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
        return np.require(numbers.astype(dtype.newbyteorder("=")), requirements=("C", "A"))

    return Stored(shape, dtype.name, read)


def _source(path: Path, container: str, content: Any, read: _Reader) -> Source:
    """Tensors by their keys, and what else there is.

    Raises:
        InputError: there is no tensor.
    """
    tensors: dict[str, Stored] = {}
    things: dict[str, list[str]] = {}
    for key, value in flatten(content, (Tensor, OddTensor, Array, Placeholder, Name)):
        if isinstance(value, (Placeholder, Name)):
            kind = value.kind if isinstance(value, Placeholder) else value.text.replace(" ", ".", 1)
            things.setdefault(kind, []).append(key)
            continue
        check(key not in tensors, "no two of its tensors may have one name", name=key)
        tensors[key] = read.stored(path, key, value)
    if not tensors:
        raise InputError(_nothing(path, content, things))
    # Lightning's and others' count of steps.
    step = content.get("global_step") if isinstance(content, Mapping) else None
    source = Source(path, container, tensors, step=step if type(step) is int else None, skipped=things)
    source.notes += [_skipped(things)] if things else []
    meta = content.get("meta") if isinstance(content, Mapping) else None
    source.writer = "mmengine" if isinstance(meta, Mapping) and "mmengine_version" in meta else ""
    return source


def _nothing(path: Path, content: Any, things: Mapping[str, list[str]]) -> str:
    if things:
        return (
            f"{path} must hold tensors and plain values, but has no tensor: its pickle asks for other code, which was "
            f"not run ({_classes(things)}); if you trust it, save its state_dict() alone where it came from"
        )
    kind = "a dictionary without tensors" if isinstance(content, dict) else f"a {type(content).__name__}"
    return f"{path} must hold tensors, but holds {kind}; save a state_dict()"


def _skipped(things: Mapping[str, list[str]]) -> str:
    count = sum(map(len, things.values()))
    objects = "1 object that is no tensor" if count == 1 else f"{count} objects that are no tensors"
    return f"Skipped {objects}, of which nothing was imported or called: {_classes(things)}."


def _classes(things: Mapping[str, list[str]]) -> str:
    """Classes with counts, and where the first of each lies."""
    texts = [
        f"{checked_name(kind)[:80]}{f' × {len(keys)}' if len(keys) > 1 else ''} at {keys[0] or 'the top'}"
        for kind, keys in list(things.items())[:_CLASSES]
    ]
    return ", ".join(texts) + (f" and {len(things) - _CLASSES} more classes" if len(things) > _CLASSES else "")


def flatten(
    content: Any, kind: type | tuple[type, ...], *, prefix: str = "", depth: int = 0
) -> Iterator[tuple[str, Any]]:
    """Key and value of everything of a kind in nested dictionaries, lists, and pickled modules.

    Raises:
        InputError: there is no end to it.
    """
    check(depth < _DEEPEST, f"a PyTorch file must have less than {_DEEPEST} dictionaries within each other", key=prefix)
    if isinstance(content, kind):
        spend(items=TENSOR)
        yield checked_name(prefix), content
    # A history of a million losses is no reason to refuse a file: numbers and texts are passed over.
    children = [(key, value) for key, value in _children(content) if not isinstance(value, _VALUES)]
    check(len(children) < _MOST, f"a dictionary must have less than {_MOST} tensors and dictionaries", key=prefix)
    spend(items=2 * len(children))  # each is found here, and gone through below
    for key, value in children:
        yield from flatten(value, kind, prefix=f"{prefix}.{key}" if prefix else key, depth=depth + 1)


_VALUES = (int, float, str, bytes, type(None))


def _children(content: Any) -> Iterator[tuple[str, Any]]:
    """What lies one level down, by the names that a `state_dict` has."""
    if isinstance(content, (list, tuple)):
        yield from ((str(number), value) for number, value in enumerate(content))
        return
    pairs: Mapping = content if isinstance(content, Mapping) else {}
    if isinstance(content, Placeholder):
        pairs = content.pairs
        if isinstance(content.state, dict):
            # A module that was pickled whole: parameters, buffers and modules by their names.
            if {"_parameters", "_modules"} <= content.state.keys():  # torch.nn.Module
                groups = [content.state.get(name) for name in ("_parameters", "_buffers", "_modules")]
                pairs = {key: value for group in groups if isinstance(group, dict) for key, value in group.items()}
            elif content.kind.startswith("__torch__."):  # TorchScript
                pairs = content.state
    for number, (key, value) in enumerate(pairs.items()):
        yield f"<key {number}>" if isinstance(key, OddKey) else str(key), value
