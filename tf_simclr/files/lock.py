"""One process a run folder: while it lives, a second one is refused."""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tf_simclr.errors import InputError
from tf_simclr.files.places import check_local
from tf_simclr.foreign import open_unlinked

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

BEAT = 20.0
"""Seconds between two signs of life."""
SILENCE = 60.0
"""Seconds without one, after which a holder on another machine counts as gone."""


class InUse(InputError):
    """Another process holds the folder."""


HELD: set[Path] = set()
"""Folders that this process holds: a training within a task that holds its folder needs no second lock."""


@contextlib.contextmanager
def hold(folder: Path, *, say: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """Keeps other processes out of a folder as long as the block runs, by a file `lock` in it.

    On one machine the kernel frees the lock of a process that has died (`flock`), whatever killed it; so it does over
    NFS 4.  Where file locks do not reach other machines, or do not work at all (Google Drive, some network folders),
    the holder's sign of life decides, the time of the file, which it renews every 20 seconds: a holder without one for
    a minute is gone.  Two processes that take over from it within the same minute on two machines are not noticed.

    A folder that the block leaves empty, and that was not there before, is removed: whatever was refused left nothing.

    Args:
        folder: made if it is missing.
        say: takes a line for the user where there is something to wait for.

    Raises:
        InputError: another process holds the folder, nothing can be written there, or it is an address.
    """
    check_local(folder)
    folder = folder.resolve()
    # A second time in this process nobody is kept out, and leaving it must not let go.
    if folder in HELD:
        yield
        return
    # Folders that are made for the lock alone go again with it, where nothing came into them.
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    file = _acquire(folder, say)
    HELD.add(folder)

    def show_life() -> None:
        with contextlib.suppress(OSError):  # the network folder may be away for a moment
            os.utime(file)

    try:
        # It has ended before the file is closed, whose number another one may have then.
        with Beat(show_life, seconds=BEAT):
            yield
    finally:
        HELD.discard(folder)
        with contextlib.suppress(OSError):  # a folder that was removed meanwhile holds nobody out
            (folder / "lock").unlink()
        os.close(file)
        with contextlib.suppress(OSError):  # the innermost first; one that holds something stays, with those around it
            for place in made:
                place.rmdir()


def _acquire(folder: Path, say: Callable[[str], None]) -> int:
    """Opens, locks and signs the folder's `lock`, and returns its descriptor.

    What lies at that name may be anybody's: a link is not followed, and the content is believed only as far as it
    names a process.
    """
    path = folder / "lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The lock is of the file, not of its name: between opening and locking, the holder may have removed the name.
        while True:
            file = open_unlinked(path, os.O_RDWR | os.O_CREAT)
            safe = take(file, folder)
            if _is_at(file, path):
                break
            os.close(file)  # its holder left and removed it between our two calls
        # Locks do not reach over some network file systems: a holder elsewhere is only known by its signs of life.
        if not safe:
            who = named(_holder_of(file))
            say(f"{folder} was in use by {who}; waiting {SILENCE:.0f} seconds for a sign of life")
            wait_for_silence(file, folder)
        sign(file)
    except OSError as error:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise InputError(f"{path} must be a plain file, and no link; remove it") from error
        raise InputError(f"{folder} must be writable: {error.strerror}; choose another folder") from error
    return file


def take(file: int, folder: Path) -> bool:
    """Locks the file; whether that alone proves that its former holder is gone.

    Raises:
        InputError: a living process has it.
    """
    locked = False
    # 1. The system's own lock, which ends with its process, however that ends.
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = True
        except BlockingIOError:
            _refuse(file, folder)
        except OSError:
            locked = False  # this file system has no locks: the signs of life decide
    # 2. What the file says of who took it last: nobody, somebody here who is gone, or somebody elsewhere.
    found = _holder_of(file)
    return not found or (is_here(found) and (locked or not is_alive(found["pid"])))


def _refuse(file: int, folder: Path) -> None:
    """Raises `InputError` with who holds the folder."""
    who = named(_holder_of(file))
    os.close(file)
    raise InUse(f"{folder} is in use by {who}; wait for it, stop it, or take another folder")


def _holder_of(file: int) -> dict[str, Any]:
    """Process and machine that signed the file; nothing if nobody did, whatever it holds."""
    try:
        return holder(os.pread(file, 1000, 0))
    except OSError:
        return {}


def holder(content: bytes) -> dict[str, Any]:
    """What a lock holds, `pid` and `host` of who signed it among it; nothing if nobody did, whatever it holds."""
    # Anybody can write into the file: a number or a name of a host that is none is nobody's signature.
    try:
        found = json.loads(content)
        pid, host = found["pid"], found["host"]
    except (ValueError, TypeError, LookupError, RecursionError):
        return {}
    fits = type(pid) is int and 0 < pid < 1 << 31 and type(host) is str and host.isprintable()
    return dict(found) if fits else {}


def signature() -> dict[str, Any]:
    """What a holder signs with: this process, its machine's name, and which machine of that name it is."""
    return {"pid": os.getpid(), "host": socket.gethostname(), "machine": _machine()}


def is_here(found: dict[str, Any]) -> bool:
    """Whether a holder's number is that of a process which can be looked for here.

    Machines and containers may have one name, and each a process 1: a name alone is not believed.
    """
    return (found.get("host"), found.get("machine", "")) == (socket.gethostname(), _machine())


def _machine() -> str:
    """This start of this machine, and the space of its processes' numbers; nothing where the system does not say."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except (OSError, UnicodeDecodeError):
        return ""


def named(found: dict[str, Any]) -> str:
    """A holder in words."""
    return f"process {found['pid']} on {found['host']}" if found else "another process"


def sign(file: int) -> None:
    """Writes this process and machine into the file."""
    # Emptied first: a shorter text would leave the end of a longer one.
    os.truncate(file, 0)
    os.pwrite(file, json.dumps(signature()).encode(), 0)
    os.fsync(file)


def _is_at(file: int, path: Path) -> bool:
    """Whether an open file is still the one at its path."""
    try:
        return os.path.samestat(os.fstat(file), path.lstat())
    except FileNotFoundError:
        return False


def is_alive(pid: int) -> bool:
    """Whether another process of this number may run; where that cannot be told, it may."""
    if os.name != "posix" or pid == os.getpid():
        return pid != os.getpid()
    # Signal 0 is none: the system only says whether it could be sent.
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def wait_for_silence(file: int, folder: Path) -> None:
    """Waits until a holder has shown no life for `SILENCE` seconds, by this machine's clock.

    Raises:
        InputError: it has shown life.
    """
    # By the file's time as it was and this machine's monotonic clock: the other machine's clock may be wrong by hours.
    seen, end = os.fstat(file).st_mtime_ns, time.monotonic() + SILENCE
    while time.monotonic() < end:
        time.sleep(min(1.0, SILENCE / 10))
        if os.fstat(file).st_mtime_ns != seen:
            _refuse(file, folder)


class Beat:
    """A thread that does something every so many seconds until the block ends: a sign of life, a look at something."""

    def __init__(self, do: Callable[[], None], *, seconds: float):
        self.do, self.seconds, self.done = do, seconds, threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Beat":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Begins."""
        self.thread.start()

    def stop(self) -> None:
        """Ends, after what is being done; nothing is done afterwards."""
        self.done.set()
        # What it does may itself end the block.
        if self.thread.is_alive() and self.thread is not threading.current_thread():
            self.thread.join()

    def _run(self) -> None:
        # `wait` returns True as soon as the end is asked for, and False after the seconds.
        while not self.done.wait(self.seconds):
            self.do()
