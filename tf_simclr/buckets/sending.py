"""A folder of this machine whose files are sent to a bucket while a command writes them: runs, prepared radiographs.

The command knows nothing of it.  Every file there appears whole, by a new name (`files.replacing`), and so does every
object; files are sent in the order in which they appeared.  So what lies in the bucket is at any moment what a process
that was killed could have left on a disk, from which every command goes on.  What decides is the **manifest**, one
object which names the files with sizes and checksums:

1. Whatever is new is sent; a checkpoint only where no object of its name is.
2. The manifest is written, on the condition that it is still the one that this process wrote or found.
3. What it names no more, such as checkpoints that are too many, is removed.

Who comes to go on takes the **lock**, an object too, and writes the manifest anew before anything else: from then on
condition 2 refuses a process that was away for long and still believes that it holds the folder.
"""

import contextlib
import re
import shutil
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from tf_simclr.buckets import locks
from tf_simclr.buckets.locks import LOCK, Lock
from tf_simclr.buckets.mirror import MANIFEST, Manifest, fetched, is_fixed, place_of, read_manifest
from tf_simclr.buckets.store import ABSENT, ANY, Raced, Store, crc32c
from tf_simclr.errors import InputError, check
from tf_simclr.files import write_json
from tf_simclr.files.lock import Beat
from tf_simclr.files.places import shown, stand_for
from tf_simclr.foreign import DAMAGED, parse_json
from tf_simclr.terminal import forget

LOOKS = 1.0
"""Seconds between two looks at the folder."""
_OF_LOGS = 30.0
"""Seconds between two sendings of logs, which grow all the time and are sent whole."""

_UNSENT = {"writer": "", "number": 0}
"""Note of a working folder of which no manifest has come into the bucket yet: all that is known of the run is here."""

SENDING: dict[Path, "Sending"] = {}
"""Working folder → what sends it, of this process."""


def check_sent(folder: Path) -> None:
    """Refuses to go on in a working folder that another process has taken over in the bucket.

    Raises:
        InputError: so it is.
    """
    if SENDING and (one := SENDING.get(folder.absolute())) is not None:
        one.check()


def send_now(folder: Path) -> None:
    """Sends what is whole in a working folder at once, and waits for that; of other folders nothing.

    Raises:
        InputError: it cannot be sent, or another process has taken the folder over.
    """
    if not SENDING or (one := SENDING.get(folder.absolute())) is None:
        return
    one.look(last=True)
    one.check()
    if one.trouble is not None:
        raise one.trouble


class Sending:
    """A folder in a bucket with its working folder here; `begin`, then `close`.

    Attributes:
        path: the working folder.
        lost: the sentence by which this process has lost the folder to another one; None: it has it.
        trouble: what kept the last look from being sent, if anything.
    """

    def __init__(self, address: str, *, say: Callable[[str], None]):
        self.store, self.say = Store(address), say
        # The working folder lies in the cache, by the address: the same command finds it again.
        self.address = self.store.address
        self.path = place_of(self.address, "written")
        # Beside it, what was written last: by it a folder that could not be sent whole is known again.
        self.note = self.path.with_name(f".{self.path.name}.manifest.json")
        self.lock = Lock(self.store, say=say)
        self.writer = uuid.uuid4().hex
        self.manifest = Manifest({}, writer=self.writer, number=0, version=ABSENT)
        # What the manifest in the bucket names: what was sent behind it is nobody's until it is written again.
        self.named: dict[str, tuple[int, int]] = {}
        self.sent: dict[str, tuple[int, int, int]] = {}
        self.lost: InputError | None = None
        self.trouble: InputError | None = None
        self.one_at_a_time, self.logs_sent = threading.Lock(), 0.0
        self.beats = [Beat(self.look, seconds=LOOKS), Beat(self._show_life, seconds=locks.BEAT)]

    def begin(self) -> None:
        """Takes the lock, brings the working folder to what lies in the bucket, and begins to send.

        Raises:
            InputError: another process has the folder, or the store cannot be asked.
        """
        # The order is important: the lock, then what is there, and only then anything is sent.
        self.lock.take()
        try:
            self._fetch()
        except BaseException:
            self.lock.free()
            raise
        stand_for(self.path, self.address)
        SENDING[self.path] = self
        for beat in self.beats:
            beat.start()

    def check(self) -> None:
        """Raises what this process lost the folder by.

        Raises:
            InputError: so it is.
        """
        if self.lost is not None:
            raise self.lost

    def close(self) -> None:
        """Sends what is left, and frees the lock.

        Raises:
            InputError: it cannot be sent; it lies in the working folder.
        """
        # First the beats end, then the last looks: nobody sends beside this.
        for beat in self.beats:
            beat.stop()
        SENDING.pop(self.path, None)
        if self.lost is None:
            self.look(last=True)
            if self.trouble is None:  # it was tried for long
                self.look(last=True)  # what appeared meanwhile
        self.lock.free()
        self.check()
        if self.trouble is not None:
            forget(str(self.path))  # this once the path itself is meant
            where = f"what is not there yet lies in {self.path}, from which the same command sends it"
            raise InputError(f"{self.trouble}; {where}") from self.trouble

    def _fetch(self) -> None:
        """Brings the working folder to what lies in the bucket, unless it is what this machine wrote there last.

        What a command could not send any more is then still in the folder, and newer than what is in the bucket.
        """
        found, listed = read_manifest(self.store), self.store.find()
        # What the manifest names; of other people's folders what is listed.
        there = listed if found is None else found.objects()
        there = {name: one for name, one in there.items() if name not in ("", LOCK, MANIFEST)}
        if found is not None:
            self.manifest = Manifest(found.files, writer=self.writer, number=found.number, version=found.version)
        # What is here may be newer than what is there: a command that could not send its last files, or any.
        if found is None and self._noted() == _UNSENT and _files(self.path):
            return
        if not self._is_newer(found):
            _clear(self.path, keep=set(there))
            self.note.unlink(missing_ok=True)  # one that is stopped in the midst begins anew
            for name, one in there.items():
                if self._has(name, one.size, one.crc32c):
                    continue
                exact = found is not None and is_fixed(name)
                got = fetched(self.store, name, path=self.path / name, wanted=one, exact=exact)
                rule = f"{self.address} must hold what its {MANIFEST} names, but lacks {shown(name)}"
                check(got is not None or not exact, rule)
            if found is None:
                write_json(self.note, _UNSENT)
        if not there:
            return
        # What is here already as it is there need not be sent.
        for name, one in there.items():
            path = self.path / name
            if path.is_file() and path.stat().st_size == one.size:
                known = self.manifest.files.get(name)
                mine = (one.size, crc32c(path))
                if known in (None, mine):
                    self.manifest.files[name], self.sent[name] = mine, stamp(path)
        self._write_manifest()  # from now on a former holder is refused
        # Checkpoints that no manifest names: of a process that was killed between both.
        orphans = [name for name in listed if is_fixed(name) and name not in self.manifest.files]
        self.store.delete(orphans)

    def _is_newer(self, found: Manifest | None) -> bool:
        """Whether the working folder is what this machine wrote last, with what it could not send."""
        # The same writer and number: nobody has written since.
        same = found is not None and self._noted() == {"writer": found.writer, "number": found.number}
        return same and self.path.is_dir()

    def _noted(self) -> object:
        """What this machine noted last of the folder; None where it noted nothing."""
        try:
            return parse_json(self.note.read_bytes())
        except DAMAGED:
            return None

    def _has(self, name: str, size: int, checksum: int | None) -> bool:
        """Whether a file is here as it is there."""
        path = self.path / name
        return checksum is not None and path.is_file() and path.stat().st_size == size and crc32c(path) == checksum

    def look(self, *, last: bool = False) -> None:
        """Sends what has appeared since the last look."""
        # One look at a time: that of the beat, and the last ones.
        with self.one_at_a_time:
            if self.lost is not None:
                return
            try:
                self._send(logs=last or time.monotonic() - self.logs_sent > _OF_LOGS)
                if self.trouble is not None:
                    self.say(f"{self.address} is reached again: all that is whole is there")
                self.trouble = None
            except Raced as error:
                self.lost = self._lost_by(error)
            except InputError as error:
                if self.trouble is None and not last:
                    self.say(f"{error}; the command goes on, and tries again")
                self.trouble = error
            except Exception as error:  # whatever it is: a thread must not die in silence
                self.trouble = InputError(f"{self.address} must be writable: {type(error).__name__}: {error}")

    def _send(self, *, logs: bool) -> None:
        """One round: what is new, the manifest, what is to go."""
        # 1. What is new, the oldest first.  2. The manifest, which then names it.  3. What it names no more goes.
        files = _files(self.path)
        fresh = [name for name, mark in files.items() if self.sent.get(name) != mark and (logs or not _is_log(name))]
        missing = [name for name in self.named | self.manifest.files if name not in files]
        if not fresh and not missing and self.named == self.manifest.files:
            return
        for name in fresh:
            self._send_file(name)
        if logs:
            self.logs_sent = time.monotonic()
        # First out of the manifest, then out of the bucket: a reader of the manifest finds all that it names.
        for name in missing:
            self.manifest.files.pop(name, None)
            self.sent.pop(name, None)
        self._write_manifest()
        self.store.delete([name for name in missing if not (self.path / name).exists()])

    def _send_file(self, name: str) -> None:
        """Sends a file; one that was removed or replaced meanwhile is left to the next look."""
        path = self.path / name
        try:
            mark = stamp(path)
            # Small files are read at once: what is sent is then of one moment.
            content: bytes | Path = path.read_bytes() if mark[1] <= _SMALL else path
            checksum = crc32c(content)
            size = len(content) if isinstance(content, bytes) else mark[1]
            if is_fixed(name):
                self._send_fixed(name, content)
            else:
                self.store.put(name, content)
            # A large one that changed while it was sent is sent again.
            if isinstance(content, Path) and stamp(path) != mark:
                return
        except FileNotFoundError as error:
            if path.exists():  # not the file is gone, but the bucket
                raise InputError(f"{self.address} must be in a bucket that is there: {error}") from error
            return
        self.sent[name], self.manifest.files[name] = mark, (size, checksum)

    def _send_fixed(self, name: str, content: bytes | Path) -> None:
        """Sends a checkpoint where there is none of this name; one that no manifest names is nobody's.

        Raises:
            Raced: it is somebody's.
        """
        try:
            self.store.put(name, content, only=ABSENT)
        except Raced:
            # There is one of this name, and the manifest is still ours: it is left of one that was killed.
            found = read_manifest(self.store)
            if (ABSENT if found is None else found.version) != self.manifest.version:
                raise
            self.store.put(name, content, only=ANY)

    def _write_manifest(self) -> None:
        """Writes the manifest where it is still the one that this process knows.

        Raises:
            Raced: it is another one.
        """
        old = self.manifest
        new = Manifest(old.files, writer=self.writer, number=old.number + 1, version=old.version)
        # On the condition that it is still the one that this process wrote or read.
        new.version = self.store.put(MANIFEST, new.text(), only=old.version)
        self.manifest, self.named = new, dict(new.files)
        write_json(self.note, {"writer": new.writer, "number": new.number})

    def _lost_by(self, error: Raced) -> InputError:
        """The sentence of a process that another one has replaced."""
        return InputError(f"{error}; this process has lost {self.address} to another one and stops")

    def _show_life(self) -> None:
        """Renews the lock; a store that is away is no reason to stop, another holder is."""
        try:
            self.lock.renew()
        except Raced as error:
            self.lost = self.lost or self._lost_by(error)
        except Exception:
            return  # the store is away: if it stays so, what is to be sent says it


_SMALL = 16 << 20
"""Bytes up to which a file is read whole before it is sent: what grows or is replaced is then sent as it was."""


def _is_log(name: str) -> bool:
    return name.startswith("logs/") or "/logs/" in name or name.endswith("/log.txt")


def stamp(path: Path) -> tuple[int, int, int]:
    """Tells a file from the one that it was."""
    found = path.stat()
    return found.st_mtime_ns, found.st_size, found.st_ino


def _files(folder: Path) -> dict[str, tuple[int, int, int]]:
    """The whole files below a folder, the oldest first: name → mark.

    Temporary names (`files.replacing`) and the local lock are none.  Checkpoints are looked for first: whatever is
    found after that is as new as they are.
    """
    found: dict[str, tuple[int, int, int]] = {}
    # Checkpoints first: the search for others takes a while on large folders.
    places = sorted(folder.glob("**/checkpoints/*.npz")) + sorted(folder.rglob("*"))
    for path in places:
        name = path.relative_to(folder).as_posix()
        if name in found or _is_temporary(name) or path.name == LOCK or name == MANIFEST:
            continue
        with contextlib.suppress(OSError):  # it was removed meanwhile
            if path.is_file() and not path.is_symlink():
                found[name] = stamp(path)
    # In the order of their times, so that a reader never sees a later file without the earlier ones.
    return dict(sorted(found.items(), key=lambda one: one[1][0]))


def _is_temporary(name: str) -> bool:
    # Files that are being written begin with a dot, the process's number and a dot (`files.replacing`).
    return any(re.match(r"\.\d+\.", part) for part in name.split("/"))


def _clear(folder: Path, *, keep: set[str]) -> None:
    """Removes what is not to be kept from a working folder."""
    # The deepest first, so that folders are empty when they come.
    for path in sorted(folder.rglob("*"), reverse=True) if folder.is_dir() else ():
        if path.is_dir() and not path.is_symlink():
            with contextlib.suppress(OSError):
                path.rmdir()
        elif path.relative_to(folder).as_posix() not in keep:
            path.unlink(missing_ok=True)
    for name in keep:
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
