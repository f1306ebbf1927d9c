"""What a path holds, told by content: a file, a prefix, a folder or a zip of any framework."""

import contextlib
import json
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from converters.safetensors_files import is_safetensors, open_safetensors
from converters.stored import Source, Stored, itemsize_of
from converters.torch_state import open_legacy, open_state
from tf_simclr.checkpoint import reading_arrays
from tf_simclr.errors import InputError, check, whole_number
from tf_simclr.foreign import Budget, checked_name, reading, spend_tensor
from tf_simclr.places import expanded

ARCHITECTURE = "architecture.json"
"""What marks a run folder (tf_simclr/checkpoint.py)."""

HDF5 = b"\x89HDF\r\n\x1a\n"
ZIP = b"PK\x03\x04"


def open_source(path: str | Path, *, step: int | None = None) -> Source:
    """Opens whatever is at a path; no weight is read yet.

    Args:
        path: A file, a checkpoint's prefix or a folder.
        step: Which of a folder's checkpoints; by default the newest.

    Raises:
        InputError: there is nothing, or nothing that this project reads, or it is damaged.
    """
    path, step = expanded(path), None if step is None else whole_number(step, "step")
    with reading(path, "a readable checkpoint") as budget:
        source = _open_any(path, step=step)
        try:
            for key, stored in source.tensors.items():
                checked_name(key)
                spend_tensor(stored.shape, itemsize_of(stored.dtype))
        except BaseException:
            source.close()
            raise
    source.tensors = {key: _guarded(path, stored, budget) for key, stored in source.tensors.items()}
    return source


def _guarded(path: Path, stored: Stored, budget: Budget) -> Stored:
    """The same tensor; damage that only its reading meets is a sentence, too."""

    def read() -> np.ndarray:
        with reading(path, "a readable checkpoint", budget=budget):
            return stored.read()

    def parts() -> Iterator[np.ndarray]:
        pieces = stored.parts() if stored.parts else iter(())
        while True:  # the reading must not go on while this generator waits
            with reading(path, "a readable checkpoint", budget=budget):
                part = next(pieces, None)
            if part is None:
                return
            yield part

    return replace(stored, read=read, parts=parts if stored.parts else None)


def _open_any(path: Path, *, step: int | None) -> Source:
    if path.is_dir():
        return _open_folder(path, step=step)
    if path.is_file():
        return _open_file(path, step=step)
    if path.with_name(path.name + ".index").is_file():
        return _open_tensorflow(path, step=step)
    raise InputError(f"{path} must exist: no file, folder or checkpoint prefix of that name is there")


def _open_folder(folder: Path, *, step: int | None) -> Source:
    if (folder / ARCHITECTURE).is_file():
        return _open_run(folder, step=step)
    names = {path.name for path in folder.iterdir()}
    check(bool(names), f"{folder} must hold a checkpoint, but the folder is empty", files=0)
    if "checkpoint" in names or any(name.endswith(".index") for name in names) or (folder / "variables").is_dir():
        return _open_tensorflow(folder, step=step)
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and _kind(path)]
    check(
        len(files) == 1,
        f"{folder} must hold one checkpoint; name the file you mean",
        files=[path.name for path in files] or sorted(names)[:10],
    )
    return _open_file(files[0], step=step)


def _kind(path: Path) -> str | None:
    """What a file's first bytes tell; None: nothing that this project reads."""
    with path.open("rb") as file:
        head = file.read(16)
    if head.startswith(HDF5):
        return "hdf5"
    if head.startswith(ZIP):
        return _kind_of_zip(path)
    if is_safetensors(head):
        return "safetensors"
    # Before 1.6 torch.save wrote bare pickles; those of protocols 2 to 5 begin so.
    return "torch" if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05") else None


def _kind_of_zip(path: Path) -> str | None:
    with reading(path, "a whole zip file"), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.endswith("/data.pkl") for name in names):
        return "torch"
    if {"config.json", "model.weights.h5"} <= set(names):
        return "keras"
    return "npz" if names and all(name.endswith(".npy") for name in names) else "archive"


def _open_file(path: Path, *, step: int | None) -> Source:
    kind = _kind(path)
    if kind == "torch":
        return _open_torch(path)
    if kind in ("keras", "hdf5"):
        from converters.keras_files import open_keras

        return open_keras(path)
    if kind == "safetensors":
        return open_safetensors(path)
    if kind == "npz":
        return _open_npz(path)
    if kind == "archive":
        from converters.archives import open_archive

        return open_archive(path, step=step, open_folder=open_source)
    return _open_tensorflow(path, step=step)


def _open_torch(path: Path) -> Source:
    return open_state(path) if zipfile.is_zipfile(path) else open_legacy(path)


def _open_tensorflow(path: Path, *, step: int | None) -> Source:
    from converters.tensorflow_files import open_tensorflow

    return open_tensorflow(path, step=step)


def _open_run(folder: Path, *, step: int | None) -> Source:
    """A run folder's newest training state, or the one of `step`; its exported weights where there is none."""
    states = {int(path.stem.split("-")[1]): path for path in (folder / "checkpoints").glob("step-*.npz")}
    architecture = _json(folder / ARCHITECTURE)
    if not states:
        files = sorted(path for path in folder.iterdir() if path.is_file() and _kind(path))
        check(bool(files), f"{folder} must hold a checkpoint; the run has saved none yet", checkpoints=0)
        source = _open_file(files[0], step=step)
    else:
        check(step is None or step in states, f"--step must be one of {sorted(states)}", step=step)
        newest = max(states) if step is None else step
        source = _open_npz(states[newest])
        source.step = newest
        others = sorted(states.keys() - {newest})
        source.notes += [f"Took step {newest}; {others} also there (--step takes another)."] if others else []
    source.path, source.container, source.architecture = folder, "run folder", architecture
    return source


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} must be JSON ({error})") from error


def _open_npz(path: Path) -> Source:
    with reading_arrays(path), contextlib.ExitStack() as opened:
        file = opened.enter_context(np.load(opened.enter_context(path.open("rb")), allow_pickle=False))
        tensors = {key: _npz_entry(path, file, key) for key in file.files}
        close = opened.pop_all().close  # from here on it is the source's
    return Source(path, ".npz file", tensors, close=close)


def _npz_entry(path: Path, file: Any, key: str) -> Stored:
    with file.zip.open(key + ".npy") as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(member)
    check(dtype.kind != "O", f"{path} must hold plain arrays, as objects could run code when read", tensor=key)

    def array() -> np.ndarray:
        with reading_arrays(path, what=f"tensor {key} of "):
            return np.asarray(file[key])

    return Stored(shape, dtype.name, array)
