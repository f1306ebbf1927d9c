"""Files and folders that appear whole or not at all, and notes of what a folder was begun with.

Beside this: paths as people write them (`places`), what is known by its content (`contents`), and one process a folder
(`lock`).
"""

import contextlib
import csv
import io
import json
import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

from tf_simclr import foreign
from tf_simclr.errors import InputError
from tf_simclr.files.places import check_local


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
        # Entered in reverse: contexts end with the last that began, so the first path is the first in its place.
        temporary = [stack.enter_context(replacing_path(path)) for path in reversed(paths)][::-1]
        # The files are closed before the outer stack puts them in place: Windows renames no open file.
        with contextlib.ExitStack() as files:
            opened: list[BinaryIO] = [files.enter_context(path.open("wb")) for path in temporary]
            yield opened
            # The content must be on the disk before the name leads
            # to it, else a power cut leaves a name and no content.
            for file in opened if durable else ():
                file.flush()
                os.fsync(file.fileno())
    for folder in {Path(path).parent for path in paths} if durable else ():
        sync(folder)


def clear_unfinished(folder: Path) -> None:
    """Removes what processes that were killed were writing in a folder, which this one holds alone (`lock.hold`)."""
    for path in folder.glob(".[0-9]*"):
        if re.match(r"\.\d+\.", path.name) and path.is_file():
            path.unlink(missing_ok=True)


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
    # Beside it, as a rename is at once only within one file system; hidden and with
    # the process' number, so that listings pass over it and two processes do not meet.
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
        # A folder that holds files cannot be replaced in one step: the old one
        # steps aside, and comes back if the new one does not get to its place.
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


def csv_of(rows: Iterable[Sequence[object]]) -> bytes:
    """Rows as the bytes of a csv file.

    Example:
        >>> csv_of([("name", "share"), ("a,b", 0.5)])
        b'name,share\\r\\n"a,b",0.5\\r\\n'
    """
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def write_json(path: Path, content: Any) -> None:
    """Writes plain types as JSON that a person can read."""
    with replacing(path) as [file]:
        file.write((json.dumps(content, indent=2, default=str) + "\n").encode())


def read_json(path: Path, *, advice: str = "put it back, or start in another folder") -> dict[str, Any]:
    """The object that `write_json` wrote.

    Raises:
        InputError: the file is missing or damaged.
    """
    content = foreign.read_json(path, "readable JSON", advice=advice)
    if not isinstance(content, dict):
        raise InputError(f"{path} must be readable JSON, but it holds no object; {advice}")
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
    # Compared as JSON gives them back: a tuple is a list.
    given = json.loads(json.dumps(dict(settings), default=str))
    if not note.exists():
        write_json(note, given if within is None else {within: given})
        return {}
    # What was noted before an option existed had what the option's default does.
    noted = read_json(note, advice=advice)
    there = {**defaults, **(noted if within is None else noted.get(within, {}))}
    names = sorted((there.keys() | given.keys()) - set(free))
    return {name: (there.get(name), given.get(name)) for name in names if there.get(name) != given.get(name)}
