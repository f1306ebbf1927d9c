"""Identity by content: one digest for whatever is kept for later (features, fits, teachers' answers) and for splits.

What was computed of some bytes is found again by those bytes, never by a name and a size: a file of the same name and
size that lies in another folder, or was written over, is another file.  Digests of files are remembered, so that a
second pass over a million files costs their `stat` calls alone.  Files are told apart by BLAKE2b over their bytes,
arrays by type, shape and bytes, everything else by its JSON.

Formats of others have CRC-32C inside; google-crc32c computes it at some 14 GB/s by the processor's own instruction.
Where its C extension cannot be loaded it takes over in Python, a thousand times slower, and warns when it is imported
(`docs/conversion.md`).

References:
    RFC 3720, Appendix B.4 (CRC-32C's polynomial); LevelDB's `util/crc32c.h` (the mask)
"""

import concurrent.futures
import contextlib
import hashlib
import itertools
import json
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from tf_simclr.errors import InputError, check
from tf_simclr.files.places import expanded

SIZE = 16
"""Bytes of a digest, so 32 letters: two among a billion files are equal by chance once in 10²⁰ times."""
RESOLUTION = 2 * 10**9
"""Nanoseconds.  A file that changed less than this ago may change again without a new time (FAT counts in steps of two
seconds): its digest is right now, but is not remembered."""
LIMIT = 2**30
"""Bytes of the memory, about 100 a file; beyond it the files of the folders that were longest not asked for go."""
_LARGE = 2**30
"""Bytes to read of which a user is told."""
_BLOCK = 1 << 20
_AT_ONCE = 2048
"""Files between two writes into the memory: what an interrupt costs at most."""
_FEW = 50
"""Files of a folder that are looked up one by one; of more of them the folder's are fetched at once."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS folders (id INTEGER PRIMARY KEY, path BLOB UNIQUE NOT NULL, used INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS files (folder INTEGER NOT NULL, name BLOB NOT NULL, size INTEGER NOT NULL,
    mtime INTEGER NOT NULL, ctime INTEGER NOT NULL, digest BLOB NOT NULL, PRIMARY KEY (folder, name)) WITHOUT ROWID;
"""
_MASK_DELTA = 0xA282EAD8
_VERSION = 1
"""Of the memory: one of another version is not read."""
_DAY = 24 * 60 * 60

Say = Callable[[str], None]
_Stamp = tuple[int, int, int]
"""Size, and the times of the last change of content and of anything, in nanoseconds.  The second one cannot be set by
programs, so a file that was written over and given its old time back is seen, too."""


def silent(line: str) -> None:
    """What says nothing to the user."""


def crc32c(data: bytes | bytearray | memoryview, crc: int = 0) -> int:
    """The CRC-32C of bytes, or of what came before (`crc`) followed by them.

    Example:
        >>> hex(crc32c(b"123456789"))
        '0xe3069283'
        >>> crc32c(b"6789", crc32c(b"12345")) == crc32c(b"123456789")
        True
    """
    content = np.frombuffer(data, np.uint8)  # the C extension takes no memoryview, and Python none of NumPy's numbers
    return int(google_crc32c.extend(crc, content if google_crc32c.implementation == "c" else content.data))


def mask(crc: int) -> int:
    """The form in which TensorFlow and LevelDB store it, as the CRC of data that hold their own CRC is weak.

    It is turned right by 15 bits, plus a constant.

    Example:
        >>> hex(mask(0))
        '0xa282ead8'
    """
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def masked_crc32c(data: bytes | bytearray | memoryview) -> int:
    """The checksum of bytes as TensorFlow's files hold it."""
    return mask(crc32c(data))


def cache_folder() -> Path:
    """Where what can be computed again is kept: `TF_SIMCLR_CACHE`, else `~/.cache/tf_simclr`.

    Raises:
        InputError: an address is given, of which a path would be a folder called `gs:`; or nobody's home is known.
    """
    place = os.environ.get("TF_SIMCLR_CACHE") or "~/.cache/tf_simclr"
    check("://" not in place, "TF_SIMCLR_CACHE must be a path on this machine, not an address", received=place)
    return expanded(place)


def digest(path: str | os.PathLike) -> str:
    """The digest of a file's bytes, remembered.

    Raises:
        InputError: it cannot be read.
    """
    (found,) = digests([path])
    if found is None:
        raise InputError(f"{path} must be a file that can be read, to tell it from others by its content")
    return found


def digests(paths: Sequence[str | os.PathLike], *, say: Say = silent) -> list[str | None]:
    """The digests of many files' bytes, in their order, remembered; None for one that cannot be read.

    Args:
        paths: files; links are followed.
        say: takes a line for the user where much has to be read, or nothing can be remembered.
    """
    # 1. What is remembered, by path, size and times: nothing is read for it.
    places = [os.path.split(os.fsencode(path if os.path.isabs(path) else os.path.abspath(path))) for path in paths]
    stamps = [_stamp_of(os.path.join(*place)) for place in places]
    memory = _Memory(cache_folder() / "contents.sqlite", say=say)
    found = memory.recall(places, stamps)
    # 2. What must be read.
    missing = [i for i, one in enumerate(found) if one is None and stamps[i] is not None]
    size = sum(stamp[0] for i in missing if (stamp := stamps[i]) is not None)
    if size >= _LARGE:
        say(f"reading {len(missing):,} files ({size / 2**30:,.1f} GiB) once, to know them again by their content …")
    with concurrent.futures.ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        # 3. Read by threads, as disks serve several at once and hashing lets go of Python's lock; remembered in pieces.
        for start in range(0, len(missing), _AT_ONCE):
            numbers = missing[start : start + _AT_ONCE]
            read = list(pool.map(hashed, [os.path.join(*places[i]) for i in numbers]))
            for i, (value, _) in zip(numbers, read, strict=True):
                found[i] = value
            stamped = zip(numbers, read, strict=True)
            memory.keep([(*places[i], stamp, value) for i, (value, stamp) in stamped if stamp and value])
    return [None if one is None else one.hex() for one in found]


def of_bytes(*parts: bytes) -> str:
    """The digest of some bytes; of several parts that of their concatenation, as a file's would be."""
    found = hashlib.blake2b(digest_size=SIZE)
    for part in parts:
        found.update(part)
    return found.hexdigest()


def of_array(array: np.ndarray) -> str:
    """The digest of an array: type, shape and bytes in C's order.

    Raises:
        InputError: it holds Python objects.
    """
    # The type and shape go first: a (2, 3) and a (3, 2) of the same bytes are different arrays.
    array = np.asarray(array)
    check(not array.dtype.hasobject, "an array must hold numbers or text to be told by its content", dtype=array.dtype)
    found = hashlib.blake2b(f"{np.lib.format.dtype_to_descr(array.dtype)} {array.shape}\n".encode(), digest_size=SIZE)
    found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data if array.size else b"")
    return found.hexdigest()


def of_values(*values: Any) -> str:
    """The digest of values of JSON's types; the order of a dictionary's keys does not count."""
    # Sorted keys and no spaces: one text for one value.
    return of_bytes(json.dumps(values, sort_keys=True, separators=(",", ":")).encode())


def _stamp_of(path: bytes | int) -> _Stamp | None:
    """By what a file that has not changed is known again; None for what is missing, or no file."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns) if stat.S_ISREG(status.st_mode) else None


def hashed(path: bytes) -> tuple[bytes | None, _Stamp | None]:
    """A file's digest, and its stamp where the digest may be remembered by it."""
    content = hashlib.blake2b(digest_size=SIZE)
    try:
        with open(path, "rb", buffering=0) as file:
            before = _stamp_of(file.fileno())
            if before is None:
                return None, None
            # One byte more than there should be: the end is found without another read, and growth is noticed.
            while block := file.read(min(_BLOCK, before[0] + 1)):
                content.update(block)
            same = _stamp_of(file.fileno()) == before
    except OSError:
        return None, None
    # A file may only be trusted by its times once enough has passed since they changed.
    old = time.time_ns() - max(before[1:]) > RESOLUTION  # a time in the future is not trusted, either
    return content.digest(), before if same and old else None


class _Memory:
    """Digests of files in an SQLite file, which processes share; without it everything is read again.

    Args:
        path: the file; made with its folder when there is something to keep.
        say: takes a line for the user where it cannot be used.
    """

    def __init__(self, path: Path, *, say: Say = silent):
        self.path, self.say, self.usable = path, say, True

    @contextlib.contextmanager
    def opened(self) -> Iterator[sqlite3.Connection | None]:
        """A connection within a transaction; None where there is none to be had.

        A damaged file, or one of another version, is removed: it only holds what can be computed again.
        """
        connection = None
        try:
            connection = self.connect()
            # `with connection` commits at the end of the block, and rolls back where it raises.
            with connection:
                yield connection
        except (sqlite3.Error, OSError, OverflowError) as error:
            if self.usable:
                self.say(f"digests of files are not remembered: {self.path} cannot be used ({error})")
            self.usable = False
            if connection is None:  # else the block was left by this error, and its caller sees no result
                yield None
        finally:
            if connection is not None:
                connection.close()

    def connect(self) -> sqlite3.Connection:
        """The file with its tables."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return prepared(self.path)
        except sqlite3.DatabaseError as error:
            # A damaged file is thrown away and made anew: all of it can be computed again.
            if isinstance(error, sqlite3.OperationalError):  # locked, no place: the file may be good
                raise
            self.path.unlink(missing_ok=True)
            return prepared(self.path)

    def recall(self, places: Sequence[tuple[bytes, bytes]], stamps: Sequence[_Stamp | None]) -> list[bytes | None]:
        """What is remembered of files `(folder, name)` that have these stamps; None for others."""
        found: list[bytes | None] = [None] * len(places)
        if not self.path.exists():
            return found
        order = sorted(range(len(places)), key=lambda i: places[i][0])
        with self.opened() as connection:
            if connection is None:
                return found
            # By folder: one question for a folder's files instead of one a file.
            for folder, numbers in itertools.groupby(order, key=lambda i: places[i][0]):
                wanted = list(numbers)
                known = rows(connection, folder, names=[places[i][1] for i in wanted])
                for i in wanted:
                    *stamp, value = known.get(places[i][1], (None,))
                    whole = isinstance(value, bytes) and len(value) == SIZE
                    found[i] = value if whole and tuple(stamp) == stamps[i] else None
            # Reading is over here; the note of when the folders were used needs the lock for writing but for a moment.
            connection.commit()
            touch(connection, {folder for folder, _ in places})
        return found

    def keep(self, entries: Sequence[tuple[bytes, bytes, _Stamp, bytes]]) -> None:
        """Remembers digests: folder, name, stamp, digest."""
        if not (entries and self.usable):
            return
        with self.opened() as connection:
            if connection is None:
                return
            # The lock for writing at once, and not when the first row is written:
            # two readers that both want to write then would refuse each other.
            connection.execute("BEGIN IMMEDIATE")
            now = int(time.time())
            numbers = {folder: _number_of(connection, folder, now=now) for folder in {entry[0] for entry in entries}}
            connection.executemany(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)",
                [(numbers[folder], name, *stamp, value) for folder, name, stamp, value in entries],
            )
            _forget(connection, keep=set(numbers.values()))


def prepared(path: Path) -> sqlite3.Connection:
    """A connection to a memory of this version."""
    # It waits this long for another process that is writing.
    connection = sqlite3.connect(path, timeout=30)
    try:
        connection.execute("PRAGMA synchronous = OFF")  # what a power cut damages is computed again
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, _VERSION):
            raise sqlite3.DatabaseError(f"version {version}")
        if version == 0:
            connection.executescript(_SCHEMA + f"PRAGMA user_version = {_VERSION};")
    except BaseException:
        connection.close()
        raise
    return connection


def rows(connection: sqlite3.Connection, folder: bytes, *, names: Sequence[bytes]) -> dict[bytes, tuple]:
    """Name → stamp and digest, of these files of a folder at least."""
    number = connection.execute("SELECT id FROM folders WHERE path = ?", (folder,)).fetchone()
    if number is None:
        return {}
    query = "SELECT name, size, mtime, ctime, digest FROM files WHERE folder = ?"
    # Few are asked for by their names; for many, one pass over the folder is cheaper.
    if len(names) > _FEW:
        found: Iterable[tuple] = connection.execute(query, number)
    else:
        found = [row for name in names for row in connection.execute(f"{query} AND name = ?", (*number, name))]
    return {name: tuple(rest) for name, *rest in found}


def touch(connection: sqlite3.Connection, folders: set[bytes]) -> None:
    """Notes once a day that these folders are asked for."""
    now = int(time.time())
    # Once a day is enough to know what was longest not used; else every reading would be a writing.
    old = connection.execute("SELECT path FROM folders WHERE used < ?", (now - _DAY,)).fetchall()
    asked = [(now, path) for (path,) in old if path in folders]
    if asked:
        connection.executemany("UPDATE folders SET used = ? WHERE path = ?", asked)


def _number_of(connection: sqlite3.Connection, folder: bytes, *, now: int) -> int:
    """A folder's number in the memory, after noting `now` as when it was last used."""
    connection.execute(
        "INSERT INTO folders (path, used) VALUES (?, ?) ON CONFLICT (path) DO UPDATE SET used = excluded.used",
        (folder, now),
    )
    return int(connection.execute("SELECT id FROM folders WHERE path = ?", (folder,)).fetchone()[0])


def _forget(connection: sqlite3.Connection, *, keep: set[int]) -> None:
    """Drops the folders that were longest not asked for while the memory is too large; last of all those of `keep`."""
    if taken(connection) <= LIMIT:
        return
    old = connection.execute("SELECT id FROM folders ORDER BY used").fetchall()
    # False sorts before True: what was just stored goes last.
    for (number,) in sorted(old, key=lambda row: row[0] in keep):
        connection.execute("DELETE FROM files WHERE folder = ?", (number,))
        connection.execute("DELETE FROM folders WHERE id = ?", (number,))
        if taken(connection) <= LIMIT:
            return


def taken(connection: sqlite3.Connection) -> int:
    """Bytes that hold something; those of what was dropped are used again."""
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)
