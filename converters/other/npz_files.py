"""NumPy's `.npz`: a zip of arrays; a run folder's training states are such files.

References:
    NumPy, `numpy/lib/format.py`
"""

import contextlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from converters.opening.zips import opened_zip
from converters.tensors import Source, Stored, checked_shape
from tf_simclr.errors import InputError
from tf_simclr.foreign import reading

_WHOLE = "a whole .npz file of plain arrays"
_ENDING = ".npy"


def open_npz(path: Path) -> Source:
    """Reads the outline; the zip's checksums are compared when arrays are read.

    Raises:
        InputError: the file is damaged, or holds arrays that no weights are.
    """
    # The zip is open as long as the source: arrays are read when they are asked for.
    with reading(path, _WHOLE), contextlib.ExitStack() as opened:
        archive = opened.enter_context(opened_zip(path))
        tensors = {name.removesuffix(_ENDING): _entry(path, archive, name) for name in archive.namelist()}
        close = opened.pop_all().close  # from here on it is the source's
    return Source(path, ".npz file", tensors, close=close)


def _entry(path: Path, archive: zipfile.ZipFile, name: str) -> Stored:
    """One array, whose header must account for every byte of its member."""
    key = name.removesuffix(_ENDING)
    with archive.open(name) as member:
        shape, dtype = _header(member, key)
        header = member.tell()
    # The header's own shape must account for each byte: neither a rest nor a want.
    size, held = int(np.prod(shape, dtype=object)) * dtype.itemsize, archive.getinfo(name).file_size - header
    if size != held:
        raise InputError(f"array {key} must have {size} bytes by its shape {shape}, but has {held}")

    def array() -> np.ndarray:
        with reading(path, f"a whole .npz file, also in {key}"), archive.open(name) as member:
            found = np.lib.format.read_array(member, allow_pickle=False)
            if member.read(1):  # at a member's end its checksum is compared
                raise InputError(f"array {key} is longer than its shape says")
            return np.asarray(found)

    return Stored(shape, dtype.name, array)


def _header(member: Any, key: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of an array, of which nothing is allocated yet."""
    version = np.lib.format.read_magic(member)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        # Version 3 has names of fields in UTF-8: only records have fields.
        raise InputError(f"array {key} is of version {version} of NumPy's format; save it again with plain types")
    shape, _, dtype = readers[version](member)
    # Objects are pickles.
    if dtype.hasobject:
        raise InputError(f"array {key} holds objects, which could run code when read")
    if dtype.names or dtype.subdtype:
        raise InputError(f"array {key} holds records, as no weight does")
    if dtype.byteorder == ">" or (dtype.byteorder == "=" and np.little_endian is False):
        raise InputError(f"array {key} is big-endian; save it again as {dtype.newbyteorder('<').str}")
    return checked_shape(tuple(shape), key, itemsize=dtype.itemsize), dtype
