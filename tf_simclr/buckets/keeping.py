"""Caches in a bucket: what is kept there is brought when it is asked for, and sent as soon as it is made.

Neither a lock nor a manifest is needed.  What is kept is named by all that it depends on, or says so within, and holds
its own checksums, by which whoever reads it knows a part or a mixture of two writers' files, and makes it anew.
"""

import contextlib
from collections.abc import Callable, Collection
from pathlib import Path

from tf_simclr.buckets.mirror import fetched, place_of
from tf_simclr.buckets.sending import stamp
from tf_simclr.buckets.store import Object, Store, crc32c, normal
from tf_simclr.errors import InputError
from tf_simclr.files.places import stand_for

_KEEPING: dict[Path, str] = {}
"""Where a cache lies on this machine → its address; of this process."""
_KNOWN: dict[Path, tuple[Object, tuple[int, int, int]]] = {}
"""File → what it is in the store, and its mark when it was fetched or sent."""


def kept_at(address: str) -> Path:
    """Where a cache, or a file of one, that lies in a bucket is kept here; nothing of it is fetched yet.

    Raises:
        InputError: the address is of no store.
    """
    store = Store(address)
    path = place_of(store.address, "kept")
    _KEEPING[path] = store.address
    stand_for(path, store.address)
    return path


def bring(path: Path, *, last: str = "", say: Callable[[str], None]) -> None:
    """Fetches what a cache in a bucket has at a path, if it has anything there; of other paths nothing.

    Args:
        path: a file, or a folder that is whole once the file `last` is in it.
        last: name of that file.
        say: takes a line for the user where the store cannot be asked: then it is as if nothing were there.
    """
    address = _address_of(path)
    if address is None or (last and (path / last).exists()):
        return
    try:
        store = Store(address)
        found = store.find()
        if (last or "") not in found:
            return
        for name, one in sorted(found.items(), key=lambda item: item[0] == last):
            file = path / name
            if _is_known(file, one):
                continue
            got = fetched(store, name, path=file, wanted=one)
            if got is not None:
                _KNOWN[file] = (got, stamp(file))
    except InputError as error:
        say(f"nothing is taken from {address}: {error}")


def send(path: Path, *, last: str = "", say: Callable[[str], None]) -> None:
    """Sends what was made at a path of a cache in a bucket; of other paths nothing.

    Args:
        path: a file, or a folder.
        last: name of the file that is sent when all others are there.
        say: takes a line for the user where it cannot be sent: it is kept on this machine alone.
    """
    address = _address_of(path)
    if address is None:
        return
    files: Collection[Path] = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    try:
        store = Store(address)
        for file in sorted(files, key=lambda one: (one.name == last, str(one))):
            name = file.relative_to(path).as_posix() if file != path else ""
            store.put(name, file)
            if (there := store.stat(name)) is not None:
                _KNOWN[file] = (there, stamp(file))
    except (InputError, FileNotFoundError) as error:
        say(f"{address} is kept on this machine alone: {error}")


def _address_of(path: Path) -> str | None:
    """The address that a path of a cache stands for; None: it is in none that lies in a bucket."""
    for folder, address in _KEEPING.items():
        if path == folder or folder in path.parents:
            below = path.relative_to(folder).as_posix()
            return normal(address if below == "." else f"{address}/{below}")
    return None


def _is_known(file: Path, there: Object) -> bool:
    """Whether a file is what the store has; one that is not stays until the store's is here, for it may be read now."""
    known = _KNOWN.get(file)
    with contextlib.suppress(OSError):
        mark = stamp(file)
        if known is not None and known == (there, mark):
            return True
        # Of another process, or of an earlier start; not all stores tell a checksum.
        if there.crc32c is not None and mark[1] == there.size and crc32c(file) == there.crc32c:
            _KNOWN[file] = (there, mark)
            return True
    return False
