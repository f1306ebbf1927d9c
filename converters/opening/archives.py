"""Zips and tars that hold a checkpoint, as SimCLR v1's and TF Hub's are published: unpacked to a temporary folder.

Both are read member by member under the same rules: plain files below the archive's own folder only – no absolute
names, no `..`, no links, no devices –, each no longer than it says, and all of them together no larger than `Limit`
allows and the disk has room for.

References:
    PKWARE, APPNOTE.TXT; POSIX, `pax`; Apple's AppleDouble files (`__MACOSX`, `._x`)
"""

import contextlib
import re
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from converters.opening.folders import PASSED, SeveralError
from converters.opening.kinds import compression_of, head_of
from converters.opening.zips import opened_zip
from converters.tensors import Source
from tf_simclr.errors import InputError, check
from tf_simclr.foreign import TENSOR, Headers, checked_name, reading, spend

_NEEDED = re.compile(
    r"(checkpoint|graph\.pbtxt|flags\.json|config\.json|architecture\.json|saved_model\.pb(txt)?|tfhub_module\.pb)"
    r"|.*\.(index|data-\d+-of-\d+|meta|pth|pt|ckpt|bin|pkl|tar|safetensors|h5|hdf5|keras|npz|index\.json)"
)
"""Names of files that are unpacked; `x.pth.tar` is PyTorch's, too."""

_BLOCK = 1 << 20
_MEMBER = 10 * TENSOR
"""Items of the budget that a member costs: a file is made of it, so that there are 6,250 at most."""
SMALLEST = 256 << 20
RATIO = 8
"""An archive may become so many bytes, or so many times its own: weights hardly compress."""
_TAIL = 64 << 20
"""Bytes of padding that may follow the last member."""


@dataclass(frozen=True)
class _Member:
    """One entry of an archive.

    Attributes:
        name: With slashes.
        size: Bytes, as it says.
        kind: `file`, `folder` or what else it is, in words.
        open: Opens its bytes.
    """

    name: str
    size: int
    kind: str
    open: Callable[[], IO[bytes]]


def open_archive(path: Path, *, kind: str, step: int | None, open_folder: Callable[..., Source]) -> Source:
    """Unpacks the checkpoint in an archive and opens it; the temporary folder goes when the source is closed.

    Args:
        path: The archive.
        kind: `zip` or `tar`.
        step: Which of the checkpoints in it.
        open_folder: Opens a folder.

    Raises:
        InputError: a member would be written outside of the folder, the archive is damaged, or holds no checkpoint.
    """
    # Gone with the source's end, and at once where opening fails.
    with contextlib.ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="simclr-")))
        try:
            with _as_in(path, folder):
                _unpack(path, folder, kind=kind)
                source = open_folder(folder, step=step)
        except SeveralError as error:
            text = str(error).replace("name the file you mean, or its folder", "unpack it, and name the one you mean")
            raise SeveralError(text) from None
        opened.callback(source.close)
        close = opened.pop_all().close
    # What was unpacked is called by the archive's name in everything that a user sees.
    source.path, source.container = path, f"{source.container} in a {kind}"
    source.tensors = {key: stored.within(lambda: _as_in(path, folder)) for key, stored in source.tensors.items()}
    source.notes = [_plain(note, path, folder) for note in source.notes]
    source.close = close
    return source


def _plain(text: str, path: Path, folder: Path) -> str:
    """A sentence with the archive where the temporary folder was, which nobody knows."""
    return text.replace(f"{folder}/", f"{path}/").replace(str(folder), str(path))


@contextlib.contextmanager
def _as_in(path: Path, folder: Path) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise type(error)(_plain(str(error), path, folder)) from None


def _unpack(path: Path, folder: Path, *, kind: str) -> None:
    """Writes every member that a checkpoint may need."""
    # Three limits for the whole: items, bytes by the archive's own claim, and room on the disk.
    what = "a whole zip file without a password" if kind == "zip" else "a whole tar file"
    free = shutil.disk_usage(folder).free
    most, total = max(SMALLEST, RATIO * path.stat().st_size), 0
    names: list[str] = []
    unpacked = (_zip_members if kind == "zip" else _tar_members)(path)
    with reading(path, what), contextlib.closing(unpacked) as members:
        for member in members:
            spend(items=_MEMBER)
            name = _place(path, checked_name(member.name), kind=member.kind)
            # What the archive says is summed before a byte is written; `_extract` holds each member to it.
            total += member.size
            check(total <= most, f"{path} must not become more than {most:,} bytes when unpacked", bytes=total)
            check(total < free, f"{path} must fit the disk at {folder.parent} when unpacked", bytes=total, free=free)
            # What no checkpoint needs is not written; the first names of it are shown if nothing else is there.
            if member.kind == "file" and _is_needed(name):
                once = not (folder / name).exists()
                check(once, f"{path} must hold each file once; pack it again", twice=member.name)
                _extract(member, folder / name)
            elif len(names) < 10:
                names.append(member.name)
    check(any(folder.iterdir()), f"{path} must hold a checkpoint", members=names)


def _place(path: Path, name: str, *, kind: str) -> PurePosixPath:
    """Where a member belongs.

    Raises:
        InputError: it is outside of the archive's folder, or no plain file or folder.
    """
    place = PurePosixPath(name.replace("\\", "/"))
    # `:` begins a drive or a stream on Windows; a backslash was made a slash above.
    outside = place.is_absolute() or ".." in place.parts or ":" in name or "\0" in name
    if outside or kind not in ("file", "folder"):
        raise InputError(
            f"{path} must hold plain files below its folder only, but has {name!r}"
            f"{'' if outside else f', {kind}'}; not unpacked"
        )
    return place


def _is_needed(place: PurePosixPath) -> bool:
    return bool(_NEEDED.fullmatch(place.name)) and not any(PASSED.fullmatch(part) for part in place.parts)


def _extract(member: _Member, target: Path) -> None:
    """Writes one member; as many bytes as it claims to have."""
    target.parent.mkdir(parents=True, exist_ok=True)
    # One byte more than claimed is read for, so that a longer member is told.
    left = member.size
    with member.open() as source, target.open("xb") as sink:
        while block := source.read(min(_BLOCK, left + 1)):
            left -= len(block)
            check(left >= 0, f"member {member.name} must be as long as the archive says", bytes=member.size)
            sink.write(block)
    check(left == 0, f"member {member.name} must be as long as the archive says, but ends early", bytes=member.size)


def _zip_members(path: Path) -> Generator[_Member, None, None]:
    with opened_zip(path) as archive:
        for info in archive.infolist():
            # The upper half has Unix' mode, where the zip was made on such a system; 0: it was not.
            form = stat.S_IFMT(info.external_attr >> 16)
            special = {0: "", stat.S_IFREG: "", stat.S_IFDIR: "", stat.S_IFLNK: "a link"}.get(form, "a device")
            kind = special or ("folder" if info.is_dir() else "file")
            yield _Member(info.filename, info.file_size, kind, partial(archive.open, info))


def _tar_members(path: Path) -> Generator[_Member, None, None]:
    """The members of a tar; at its end its compression's checksum is compared."""
    compression = compression_of(head_of(path))
    with compression[1](path) if compression else path.open("rb") as content:
        with tarfile.open(fileobj=cast(Any, Headers(content)), mode="r:") as archive:
            for info in archive:
                # Of a plain file, which is all that is opened, there is always something to open.
                opened = cast(Callable[[], IO[bytes]], partial(archive.extractfile, info))
                yield _Member(info.name, info.size, _kind_of(info), opened)
        left = _TAIL
        while compression and (block := content.read(_BLOCK)):
            left -= len(block)
            check(left >= 0, f"{path} must end behind its last member", bytes=_TAIL)


def _kind_of(info: tarfile.TarInfo) -> str:
    # Neither links nor devices are unpacked: either could make a later member go to another place.
    if info.issym() or info.islnk():
        return "a link"
    if info.isdir():
        return "folder"
    return "file" if info.isreg() and not info.issparse() else "a device or another special file"
