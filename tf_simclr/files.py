"""Files and folders that appear whole or not at all, and notes of what a folder was begun with."""

import contextlib
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

from tf_simclr.errors import InputError
from tf_simclr.foreign import parse_json, reading, spend
from tf_simclr.places import check_local


@contextlib.contextmanager
def replacing(*paths: str | Path, durable: bool = False) -> Iterator[list[BinaryIO]]:
    """Opens a temporary file beside each path, and puts them in place, in this order, when the block ends well.

    On any exception, an interrupt too, the temporary files are removed and what was at the paths stays.

    Args:
        *paths: files to write.
        durable: whether the content, and then the new name, are on the disk when the block has ended: a machine that
            loses power has the old files or the new ones, never empty ones.

    Raises:
        InputError: the folder cannot be written or the disk is full.
    """
    with contextlib.ExitStack() as stack:
        temporary = [stack.enter_context(replacing_path(path)) for path in reversed(paths)][::-1]
        with contextlib.ExitStack() as files:
            opened: list[BinaryIO] = [files.enter_context(path.open("wb")) for path in temporary]
            yield opened
            for file in opened if durable else ():
                file.flush()
                os.fsync(file.fileno())
    for folder in {Path(path).parent for path in paths} if durable else ():
        sync(folder)


def sync(folder: Path) -> None:
    """Has the disk keep a folder's names, and the folder's own."""
    for place in (folder, folder.parent):
        with contextlib.suppress(OSError):  # Windows and some network folders cannot, and have other ways
            descriptor = os.open(place, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


@contextlib.contextmanager
def replacing_path(path: str | Path) -> Iterator[Path]:
    """A temporary name beside the path, with its ending, for writers that want a name; else as `replacing`."""
    check_local(path)
    path = Path(path)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path} must be writable: {error.strerror or error}; choose another place") from error
    finally:
        with contextlib.suppress(OSError):  # the folder itself may be missing; the error above tells
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside the path, put in its place when the block ends well; what was there is then removed.

    On any exception, an interrupt too, what was written is removed and what was at the path stays.

    Raises:
        InputError: it cannot be written.
    """
    check_local(path)
    path = Path(path)
    temporary, old = (path.with_name(f".{os.getpid()}.{mark}{path.name}") for mark in ("", "old."))
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if path.exists():
            path.rename(old)
        temporary.rename(path)
    except OSError as error:
        if old.exists() and not path.exists():
            old.rename(path)
        raise InputError(f"{path} must be writable: {error.strerror or error}; choose another place") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def write_json(path: Path, content: Any) -> None:
    """Writes plain types as JSON that a person can read."""
    with replacing(path) as [file]:
        file.write((json.dumps(content, indent=2, default=str) + "\n").encode())


def read_json(path: Path, *, advice: str = "put it back, or start in another folder") -> dict[str, Any]:
    """The object that `write_json` wrote.

    Raises:
        InputError: the file is missing or damaged.
    """
    with reading(path, "readable JSON", advice=advice):
        spend(outline=path.stat().st_size)
        content = parse_json(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("it holds no object")
        return content


def begun_with(
    note: Path,
    settings: Mapping[str, Any],
    *,
    defaults: Mapping[str, Any] = MappingProxyType({}),
    free: Collection[str] = (),
    within: str | None = None,
    advice: str = "put it back, or start in another folder",
) -> dict[str, tuple[Any, Any]]:
    """Notes what a folder is begun with; where that is noted already, says what is asked for otherwise now.

    Whatever is made in parts and goes on after a stop begins so: its parts must not be of two kinds.

    Args:
        note: the file, JSON.
        settings: all that the parts depend on.
        defaults: settings of a note from before they could be set.
        free: names that may change.
        within: the name under which the note has them, beside what else it will hold; by default it holds them alone.
        advice: what to do where the note is damaged.

    Returns:
        Setting → what is noted and what is given, where these differ; empty: begun, or to go on with.

    Raises:
        InputError: the note is damaged, or cannot be written.
    """
    given = json.loads(json.dumps(dict(settings), default=str))  # as it is read again: a tuple is a list
    if not note.exists():
        write_json(note, given if within is None else {within: given})
        return {}
    noted = read_json(note, advice=advice)
    there = {**defaults, **(noted if within is None else noted.get(within, {}))}
    names = sorted((there.keys() | given.keys()) - set(free))
    return {name: (there.get(name), given.get(name)) for name in names if there.get(name) != given.get(name)}
