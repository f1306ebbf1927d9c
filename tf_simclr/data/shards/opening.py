"""Which shards there are, and their bytes: the one place through which they are listed and opened.

Whoever brings another store (a bucket) does so here: `_listed`, `stamp`, `opened` and `bytes_at` are all that readers
call.  Nothing here loads a framework.
"""

import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

from tf_simclr.data.folders import PARTS, entries
from tf_simclr.errors import InputError, check
from tf_simclr.places import expanded, shown

ENDINGS = {
    ".tar": "tar",
    ".tfrecord": "tfrecord",
    ".tfrecords": "tfrecord",
}
"""Ending → kind of shard."""
_COUNTED = re.compile(r"-\d{5,}-of-\d{5,}$")
"""How TensorFlow's tools number shards, after the ending."""
_FOLDERS = ("data",)
"""Folders in which shards are looked for, beside those called like splits."""


def kind_of(path: str | Path) -> str | None:
    """The kind of a shard by its name; None for what is none.

    Example:
        >>> kind_of("train-000001.tar"), kind_of("train-00000-of-01024"), kind_of("x.tfrecord-00000-of-00002")
        ('tar', 'tfrecord', 'tfrecord')
    """
    name = os.path.basename(path).lower()
    bare = _COUNTED.sub("", name)
    ending = os.path.splitext(bare)[1]
    return ENDINGS.get(ending, "tfrecord" if bare != name and not ending else None)


def _listed(place: Path) -> list[Path]:
    """The shards at a place, sorted: a file; or those of a folder, of its splits' folders and of `data`."""
    place = expanded(place)
    if place.is_file():
        return [place] if kind_of(place) else []
    if not place.is_dir():
        return []
    found: list[Path] = []
    with os.scandir(place) as entries:
        for entry in entries:
            path = place / entry.name
            if entry.is_dir() and (entry.name.lower() in PARTS or entry.name in _FOLDERS):
                found += [one for one in path.iterdir() if kind_of(one) and one.is_file()]
            elif kind_of(path) and entry.is_file():
                found.append(path)
    return sorted(path for path in found if not path.name.startswith("."))


def are_at(place: Path) -> bool:
    """Whether a place holds shards and no pictures: a tar left beside its pictures does not take their place."""
    place = expanded(place)
    return bool(_listed(place)) and (place.is_file() or all(reason for _, reason in entries(place)))


def of_split(place: Path, split: str, *, asked: Collection[str] = ()) -> tuple[list[Path], str | None]:
    """The shards of a split: of a folder of its name, or with its name as a word in theirs.

    Args:
        place: where they lie.
        split: train, validation, test, or another word.
        asked: other names that are splits, since somebody asks for them.

    Returns:
        The shards, and None; or all shards and the part of them that is meant, where they have no splits.

    Raises:
        InputError: there is none, they are of several kinds, or the split is missing beside others.
    """
    files = _listed(place)
    check(bool(files), "there must be shards (.tar, .tfrecord, train-00000-of-00010)", place=shown(place))
    kinds = sorted({str(kind_of(file)) for file in files})
    check(len(kinds) == 1, "the shards of a place must be of one kind; give the folder of one of them", kinds=kinds)
    groups = _groups(files, expanded(place), {name.lower() for name in (split, *asked)})
    meant = PARTS.get(split.lower(), split.lower())
    if meant in groups:
        return groups[meant], None
    if set(groups) == {""} and meant in PARTS.values():
        return files, meant
    known = ", ".join(sorted(name for name in groups if name)) or "train, validation and test, since none is named"
    raise InputError(f"the split of the shards in {shown(place)} must be one of {known}. Received: {split!r}")


def splits_in(place: Path) -> list[str]:
    """The splits that shards are named after."""
    return sorted(name for name in _groups(_listed(place), expanded(place), set()) if name)


def _groups(files: list[Path], place: Path, names: set[str]) -> dict[str, list[Path]]:
    """Split → its shards; the others under no name."""
    groups: dict[str, list[Path]] = {}
    for file in files:
        parts = [file.parent.name.lower()] * (file.parent != place) + re.split(r"[^a-z]+", file.name.lower())
        word = next((part for part in parts if part in PARTS or part in names), "")
        groups.setdefault(PARTS.get(word, word), []).append(file)
    return groups


def stamp(path: Path) -> list[int]:
    """Size and times of a shard, by which it is known not to have changed.

    Raises:
        OSError: it is gone.
    """
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def opened(path: Path) -> BinaryIO:
    """A shard, to read and to seek in.

    Raises:
        OSError: it cannot be read.
    """
    return open(path, "rb")


def bytes_at(path: Path, offset: int, *, size: int) -> bytes:
    """A range of a shard; from any thread.

    Raises:
        OSError: it cannot be read, or is shorter.
    """
    file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        data = os.pread(file, size, offset) if hasattr(os, "pread") else _sought(file, offset, size)
    finally:
        os.close(file)
    if len(data) != size:
        raise OSError(f"{path} has been cut off")
    return data


def _sought(file: int, offset: int, size: int) -> bytes:
    """The same on Windows."""
    os.lseek(file, offset, os.SEEK_SET)
    return os.read(file, size)
