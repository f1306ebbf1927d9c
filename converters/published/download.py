"""Checkpoints out of a public bucket into a folder, whole or not at all; what was interrupted goes on."""

import base64
import hashlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from converters.published import bucket as buckets
from converters.published.bucket import BLOCK, Interrupted, Remote
from tf_simclr.errors import InputError, check
from tf_simclr.files import write_json
from tf_simclr.files.contents import crc32c
from tf_simclr.foreign import DAMAGED, is_plain, open_unlinked, read_json

TRIES = 5
"""How often in a row a connection may break without one new byte."""
PAUSE = 1.0
"""Seconds before the first new try; they double."""
RECORD = "download.json"
"""File in a downloaded folder that lists the others with their checksums."""
_BEGINNINGS = ("checkpoint", "saved_model.pb")
"""Files that a checkpoint's folder has, beside a bundle's `.index`."""


def fetch(address: str, folder: Path, *, progress: Callable[[int, int], None] = lambda done, total: None) -> Path:
    """Downloads a checkpoint's files, and returns what the converters can be given.

    Until all are there with the bucket's sizes and checksums they lie in `FOLDER.part`, where the next call goes on.

    Args:
        address: `gs://…`, of a checkpoint's folder or of one file.
        folder: to make; if it holds what its record lists, by checksum, the network is not asked.
        progress: is told how many bytes are there, and of how many.

    Raises:
        InputError: the network is cut, the address is no checkpoint's, a checksum differs, or the disk is too small.
    """
    # 1. What is whole needs no network. 2. Files go into `….part`, and what is
    #    there is gone on with. 3. Compared, recorded, and put in place at once.
    if not is_whole(folder, address):
        part = folder.with_name(folder.name + ".part")
        try:
            for path in (folder, part):
                check(not path.is_symlink(), f"{path} must be a folder to download into, and no link; remove it")
            if folder.exists() and not part.exists():
                folder.rename(part)  # files are missing: keep the others
            wanted = _chosen(address, buckets.files(address))
            _fill(part, wanted, progress=progress)
            write_json(part / RECORD, {"address": address, "files": {one.relative: vars(one) for one in wanted}})
            part.rename(folder)
        except OSError as error:
            raise InputError(f"{part} must be writable: {error.strerror or error}; choose another folder") from error
    return _content(folder)


def kept(folder: Path, address: str) -> Path | None:
    """What `fetch` returns where all is there, which then needs neither network nor writing; None: it is not.

    Raises:
        InputError: the folder holds what lies at another address.
    """
    return _content(folder) if is_whole(folder, address) else None


def _content(folder: Path) -> Path:
    """The downloaded file where it is one alone, else its folder."""
    # The record is ours.
    names = [path for path in folder.iterdir() if path.name != RECORD]
    return names[0] if len(names) == 1 and names[0].is_file() else folder


def is_whole(folder: Path, address: str) -> bool:
    """Whether a folder has every file that its record lists, with the checksums that the bucket gave.

    Raises:
        InputError: it holds what lies at another address.
    """
    try:
        record = read_json(folder / RECORD)
        known = [Remote(**entry) for entry in record["files"].values()]
        held = record["address"]
        whole = all(is_plain(one.relative) and _is_same(folder, one) for one in known)
    except DAMAGED:
        return False  # it is not known what it holds
    check(held == address, f"{folder} must hold {address}; choose another folder", it_holds=held)
    return whole and bool(known)


def _is_same(folder: Path, file: Remote) -> bool:
    """Whether a file is here as the bucket described it: its size, and one checksum, the fast one where there is it."""
    path = folder / file.relative
    if not _is_inside(path, folder) or _length(path) != file.size:
        return False
    # CRC32C is some ten times faster than MD5, and each start compares gigabytes.
    only = ("crc32c",) if file.crc32c else ("md5",)
    return all(getattr(file, name) in ("", value) for name, value in checksums(path, only).items())


def _is_inside(path: Path, folder: Path) -> bool:
    """Whether no link leads from a folder's file to somewhere else."""
    return not path.is_symlink() and path.parent.resolve() == folder.resolve() / path.parent.relative_to(folder)


def _chosen(address: str, files: list[Remote]) -> list[Remote]:
    """The files of the one checkpoint at an address: of a TF1 folder those directly in it, else all.

    Raises:
        InputError: it is no checkpoint's folder, but one of several.
    """
    # A folder of TF1 may hold the hub module of the same network: twice as much for nothing.
    top = [one for one in files if "/" not in one.relative]
    if any(one.relative == "checkpoint" or one.relative.endswith(".index") for one in top):
        return top  # not the hub module beside it, which holds the same weights
    one_file = len(files) == 1 and bool(top)
    below = sorted({one.relative.split("/")[0] for one in files} - {one.relative for one in top})
    rule = f"{address} must be a checkpoint's folder or file"
    check(one_file or any(one.relative in _BEGINNINGS for one in top), rule, folders_in_it=below[:20])
    return files


def _fill(folder: Path, files: list[Remote], *, progress: Callable[[int, int], None]) -> None:
    """Completes every file in the folder, and compares it with what the bucket says of it.

    Raises:
        InputError: see `fetch`.
        OSError: the folder cannot be written.
    """
    total = sum(file.size for file in files)
    folder.mkdir(parents=True, exist_ok=True)
    # Before the first byte: a disk that is full after an hour helps nobody.
    missing = total - sum(_length(folder / file.relative) for file in files)
    free = shutil.disk_usage(folder).free
    check(missing < free, f"the disk at {folder} must have room for the download", bytes=missing, free=free)
    before = 0
    for file in files:
        path = folder / file.relative
        path.parent.mkdir(parents=True, exist_ok=True)
        check(_is_inside(path, folder), f"{path} must be a plain file below {folder}, and no link; remove it")
        if _length(path) == file.size > 0 and not _is_same(folder, file):
            path.unlink()  # it was changed after it had arrived
        _complete(path, file, progress=_within(progress, before, total=total))
        _compare(path, file)
        before += file.size


def _within(progress: Callable[[int, int], None], before: int, *, total: int) -> Callable[[int], None]:
    """One file's progress as a part of all files'."""
    return lambda done: progress(before + done, total)


def _length(path: Path) -> int:
    """Bytes of a file; 0 for none."""
    return path.stat().st_size if path.exists() else 0


def _complete(path: Path, file: Remote, *, progress: Callable[[int], None]) -> None:
    """Appends what is missing of a file, over as many connections as it takes.

    Raises:
        InputError: no connection brings anything any more, or the server refuses.
    """
    if _length(path) > file.size:
        path.unlink()
    os.close(open_unlinked(path, os.O_RDWR | os.O_CREAT))
    failures, reason = 0, Interrupted("the connection ends too early")
    while (start := _length(path)) < file.size:
        try:
            append(path, file, progress=progress)
        except Interrupted as error:
            reason = error
        # Any new byte is progress: slow connections may break as often as they like.
        failures = 0 if _length(path) > start else failures + 1
        if failures >= TRIES:
            raise InputError(f"{buckets.unreachable(reason)}; {start:,} of {file.size:,} bytes of {file.path} are here")
        if failures:
            time.sleep(PAUSE * 2 ** (failures - 1))
    progress(file.size)


def append(path: Path, file: Remote, *, progress: Callable[[int], None]) -> None:
    """One connection's bytes to the end of a file."""
    with os.fdopen(open_unlinked(path, os.O_RDWR), "r+b") as sink:
        for position, block in buckets.read(file, _length(path)):
            # A server that ignores the wish for a part sends all: it is written from 0 on again.
            sink.seek(position)
            sink.truncate()
            sink.write(block)
            check(
                position + len(block) <= file.size, f"{file.path} must be as long as the bucket says", bytes=file.size
            )
            progress(position + len(block))


def _compare(path: Path, file: Remote) -> None:
    """Compares a file with the bucket's size and checksums; one that differs is removed.

    Raises:
        InputError: it differs.
    """
    # Size and both checksums: this is done once.
    ours = {"size": _length(path)} | checksums(path, ("md5", "crc32c"))
    differing = [name for name, value in ours.items() if getattr(file, name) not in ("", value)]
    if differing:
        path.unlink()
        rule = f"{file.path} must have the {' and '.join(differing)} that the bucket lists, but has not"
        raise InputError(f"{rule}; it was removed: run the same command again")


def checksums(path: Path, names: tuple[str, ...]) -> dict[str, str]:
    """A file's `md5` and `crc32c` as the bucket writes them."""
    md5, crc = hashlib.md5(usedforsecurity=False), 0
    with os.fdopen(open_unlinked(path, os.O_RDONLY), "rb") as content:
        while block := content.read(BLOCK):
            if "md5" in names:
                md5.update(block)
            if "crc32c" in names:
                crc = crc32c(block, crc)
    return {name: text({"md5": md5.digest(), "crc32c": crc.to_bytes(4, "big")}[name]) for name in names}


def text(checksum: bytes) -> str:
    """A checksum as the bucket writes it."""
    return base64.b64encode(checksum).decode()
