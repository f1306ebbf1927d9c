"""HDF5 as others wrote it: plain data sets reached by plain links, in the machine's byte order, checksums compared.

HDF5 can point elsewhere – soft and external links, data sets whose bytes lie in other files – and links can form
circles; no file of weights does, and such files are refused.
"""

import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import h5py
import ml_dtypes
import numpy as np

from converters.other import integrity
from converters.tensors import Stored, bytes_of, checked_shape
from tf_simclr.errors import InputError, check
from tf_simclr.foreign import AXES, checked_name, deeper, spend

_FILTERS = frozenset({h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32})
_FILTERS |= {h5py.h5z.FILTER_SZIP, h5py.h5z.FILTER_NBIT, h5py.h5z.FILTER_SCALEOFFSET}
"""What HDF5 itself undoes; for others it would load code from a folder of plug-ins."""


def open_hdf5(path: Path, content: bytes | None = None) -> h5py.File:
    """Opens a file, or the content of one, for reading; call it inside `foreign.reading`."""
    return h5py.File(io.BytesIO(content) if content is not None else path, "r")


def objects(group: h5py.Group) -> Iterator[tuple[str, h5py.Group | h5py.Dataset]]:
    """Path and object of everything below a group, a group before what it holds, in the order of names.

    Raises:
        InputError: a link leads elsewhere, an object has two names, or a data set's bytes are not in this file.
    """
    # Addresses in the file tell objects apart, whatever their names.
    yield from _objects(group, "", {_address(group)})


def _address(item: h5py.Group | h5py.Dataset) -> int:
    return h5py.h5o.get_info(item.id).addr


def _objects(group: h5py.Group, prefix: str, seen: set[int]) -> Iterator[tuple[str, h5py.Group | h5py.Dataset]]:
    with deeper():
        for name in group:
            spend(items=1)
            path = checked_name(f"{prefix}/{name}" if prefix else str(name))
            # By the kind of link before it is followed: a soft or external link could lead out of the file.
            check(isinstance(group.get(name, getlink=True), h5py.HardLink), "a link in it leads elsewhere", link=path)
            item = group[name]
            # A second hard link to an object: a circle, or a tensor with two names.
            check(_address(item) not in seen, "an object in it has two names", name=path)
            seen.add(_address(item))
            if isinstance(item, h5py.Group):
                yield path, item
                yield from _objects(item, path, seen)
            elif isinstance(item, h5py.Dataset):
                # Opening such a data set would read whatever file it names.
                elsewhere = bool(item.external) or item.is_virtual
                check(not elsewhere, "a data set's bytes must be in the file, not in others", data_set=path)
                _check_layout(path, item)
                yield path, item
            else:
                raise InputError(f"it must hold groups and data sets, but {path} is a {type(item).__name__}")


def _check_layout(path: str, dataset: h5py.Dataset) -> None:
    """Refuses what was never written, whose values HDF5 makes up, and filters that a plug-in would have to undo."""
    check(dataset.shape is None or len(dataset.shape) <= AXES, "a data set has too many axes", data_set=path)
    written = dataset.size in (None, 0) or dataset.id.get_space_status() == h5py.h5d.SPACE_STATUS_ALLOCATED
    check(written, "a data set in it was never written, or not all of it", data_set=path)
    properties = dataset.id.get_create_plist()
    filters = {properties.get_filter(i)[0] for i in range(properties.get_nfilters())}
    check(filters <= _FILTERS, "a data set is packed by a filter that is none of HDF5's own", data_set=path)


def text_attribute(item: h5py.Group | h5py.Dataset, name: str) -> str:
    """An attribute that is a text; empty where there is none."""
    value = item.attrs.get(name, "")
    value = value.decode() if isinstance(value, bytes) else value
    # Strings may come as bytes, by the version of h5py that wrote them.
    check(isinstance(value, str), f"attribute {name} must be a text", found=type(value).__name__)
    spend(outline=len(value))
    return value


def texts_attribute(item: h5py.Group, name: str) -> list[str]:
    """An attribute that is a list of texts, which writers cut into `name0`, `name1`, … where it is long."""
    # An attribute holds 64 KB; Keras cuts longer lists and numbers the pieces.
    pieces = [item.attrs[name]] if name in item.attrs else []
    while f"{name}{len(pieces)}" in item.attrs and name not in item.attrs:
        pieces.append(item.attrs[f"{name}{len(pieces)}"])
    values = [value for piece in pieces for value in np.atleast_1d(np.asarray(piece)).tolist()]
    return [checked_name(value.decode() if isinstance(value, bytes) else str(value)) for value in values]


def _is_number(dataset: h5py.Dataset) -> bool:
    """Whether a data set holds numbers that a weight can have."""
    return dataset.shape is not None and (dataset.dtype.kind in "fiu" or _is_bfloat16(dataset))


def _is_bfloat16(dataset: h5py.Dataset) -> bool:
    """Keras keeps the type, which HDF5 does not know, in an attribute."""
    return dataset.dtype.kind == "V" and dataset.dtype.itemsize == 2 and dataset.attrs.get("dtype") == "bfloat16"


def stored(path: Path, key: str, *, dataset: h5py.Dataset, checksums: Mapping[str, int]) -> Stored:
    """A data set as a tensor that is read when asked for; in the machine's byte order, whatever the file's is.

    One that holds no numbers is listed, and only reading it is an error.

    Args:
        path: The file.
        key: Of the data set.
        dataset: Opened.
        checksums: What `checksums_of` returned.

    Raises:
        InputError: its shape cannot be; when it is read: it is damaged, or its checksum does not fit.
    """
    # Text and records are listed with a reason, and refused only if somebody asks for them.
    if not _is_number(dataset):
        kind = str(dataset.dtype)
        return Stored.odd(dataset.shape or (), kind, where=f"{key} of {path}", reason=f"of HDF5's type {kind}")
    dtype = np.dtype(ml_dtypes.bfloat16) if _is_bfloat16(dataset) else dataset.dtype.newbyteorder("=")
    shape = checked_shape(dataset.shape, key, itemsize=dtype.itemsize)

    def read() -> np.ndarray:
        array = np.asarray(dataset[()])
        # HDF5 hands bfloat16 over as two opaque bytes.
        return array.view(dtype) if dtype == ml_dtypes.bfloat16 else array.astype(dtype, copy=False)

    plain = Stored(shape, dtype.name, read)
    return integrity.compared_when_read(plain, checksums[key], name=key, path=path) if key in checksums else plain


def checksums_of(path: Path, root: h5py.Group) -> dict[str, int]:
    """Data set → checksum of what this project wrote there; empty for a file of others.

    Raises:
        InputError: names, types, shapes or layers are not those that were written.
    """
    if not {integrity.ABOUT, integrity.SEAL} & set(root.attrs):
        return {}
    # The outline is made of the file as it is: an array more or less changes it, and the seal does not fit.
    outline, description = _outline(root)
    return integrity.unseal(text_attribute(root, integrity.SEAL), outline, path=path, description=description)


def seal(path: Path) -> None:
    """Gives a file that was just written its checksums: HDF5 as Keras writes it has none."""
    with h5py.File(path, "r+") as file:
        outline, description = _outline(file)
        # Array by array, so that one at a time is in memory.
        checksums = {key: integrity.checksum([bytes_of(np.asarray(file[key][()]))]) for key in outline}
        file.attrs[integrity.ABOUT] = json.dumps({"form": "Keras weights"})
        file.attrs[integrity.SEAL] = integrity.seal(outline, checksums, description=description)


def _outline(root: h5py.Group) -> tuple[integrity.Outline, str]:
    """Every data set's type and shape, and every group's name of its layer."""
    items = dict(objects(root))
    names = {key: text_attribute(item, "name") for key, item in items.items() if isinstance(item, h5py.Group)}
    datasets = {key: item for key, item in items.items() if isinstance(item, h5py.Dataset)}
    outline = {key: (item.dtype.str, tuple(item.shape or ())) for key, item in datasets.items()}
    return outline, json.dumps(names, sort_keys=True)
