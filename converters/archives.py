"""Zips that hold a checkpoint, as SimCLR v1's were published: what is needed is unpacked to a temporary folder."""

import re
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from converters.stored import Source
from tf_simclr.errors import InputError, check

_NEEDED = re.compile(
    r"(^|/)(checkpoint|graph\.pbtxt|flags\.json|config\.json|architecture\.json|saved_model\.pb|tfhub_module\.pb)$"
    r"|\.(index|data-\d+-of-\d+|meta|pth|pt|ckpt|safetensors|h5|keras|npz)$"
)

BLOCK = 1 << 20


def open_archive(path: Path, *, step: int | None, open_folder: Callable[..., Source]) -> Source:
    """Unpacks the checkpoint in a zip and opens it; the temporary folder goes when the source is closed.

    Args:
        path: The zip.
        step: Which of the checkpoints in it.
        open_folder: `formats.open_source`.

    Raises:
        InputError: a member would be written outside of the folder, the zip is damaged, or holds no checkpoint.
    """
    folder = tempfile.TemporaryDirectory(prefix="simclr-")
    try:
        _unpack(path, Path(folder.name))
        source = open_folder(_innermost(Path(folder.name)), step=step)
    except BaseException:
        folder.cleanup()
        raise
    source.path, source.container = path, f"{source.container} in a zip"
    source.close = _both(source.close, folder.cleanup)
    return source


def _both(first: Callable[[], None], second: Callable[[], None]) -> Callable[[], None]:
    def close() -> None:
        first()
        second()

    return close


def _unpack(path: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            needed = [member for member in archive.infolist() if _is_needed(path, member)]
            check(bool(needed), f"{path} must hold a checkpoint", members=archive.namelist()[:10])
            size, free = sum(member.file_size for member in needed), shutil.disk_usage(folder).free
            check(size < free, f"{path} must fit the disk at {folder} when unpacked", bytes=size, free=free)
            for member in needed:
                _extract(archive, member, folder)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise InputError(f"{path} must be a whole zip file without a password, but {error}") from error


def _is_needed(path: Path, member: zipfile.ZipInfo) -> bool:
    name = PurePosixPath(member.filename.replace("\\", "/"))
    outside = name.is_absolute() or ".." in name.parts or ":" in member.filename
    link = stat.S_ISLNK(member.external_attr >> 16)
    if outside or link:
        raise InputError(
            f"{path} must hold plain files below its folder only, but has {member.filename!r}; not unpacked"
        )
    return not member.is_dir() and bool(_NEEDED.search(str(name)))


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path) -> None:
    """Writes one member; no more bytes than it claims to have."""
    target = folder / PurePosixPath(member.filename.replace("\\", "/"))
    target.parent.mkdir(parents=True, exist_ok=True)
    left = member.file_size
    with archive.open(member) as source, target.open("xb") as sink:
        while block := source.read(min(BLOCK, left + 1)):
            left -= len(block)
            check(left >= 0, f"member {member.filename} must be as long as the zip says", bytes=member.file_size)
            sink.write(block)


def _innermost(folder: Path) -> Path:
    """The first folder that holds more than one folder."""
    children = list(folder.iterdir())
    while len(children) == 1 and children[0].is_dir() and children[0].name != "variables":
        folder = children[0]
        children = list(folder.iterdir())
    return folder
