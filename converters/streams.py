"""Many tensors from where they lie to where they go, two at a time."""

import errno
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from converters.tensors import Stored

WORKERS = 2
"""Reading, checking, transposing and writing run beside each other; more workers would hold more tensors in memory."""

WRITING = threading.Lock()
"""File systems let one write at a file at a time; a second one would wait in a busy loop."""


def check_room(descriptor: int, size: int) -> None:
    """Raises `OSError` where the disk has no room for a file of this size: now, and not after minutes.

    Allocating it would do as well, but takes ten times longer than writing.
    """
    if hasattr(os, "fstatvfs"):
        disk = os.fstatvfs(descriptor)
        if disk.f_bavail * disk.f_frsize < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def put(descriptor: int, data: bytes | memoryview, *, place: int) -> int:
    """Writes at an offset of a file; from any thread.

    Returns:
        The offset behind it.
    """
    content, done = memoryview(data), 0
    with WRITING:
        while done < len(content):
            done += os.pwrite(descriptor, content[done:], place + done)
    return place + done


def each(tensors: Mapping[str, Stored], use: Callable[[str, Stored], None]) -> None:
    """Hands every tensor over, to be read and used; the first failure, an interrupt too, ends it.

    Args:
        tensors: By key.
        use: (key, tensor) → None; called in any order and from two threads.
    """
    with ThreadPoolExecutor(WORKERS) as pool:
        for _ in pool.map(use, tensors, tensors.values()):  # on a failure, what has not begun is given up
            continue
