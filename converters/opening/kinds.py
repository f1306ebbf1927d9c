"""What a file is, told by its first bytes; and what it is instead, where it is no checkpoint.

References:
    git-lfs/git-lfs, `docs/spec.md` (pointers); POSIX, `pax` (tar's header)
"""

import bz2
import codecs
import gzip
import lzma
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

from converters.opening.zips import opened_zip
from converters.other.safetensors_files import is_safetensors
from tf_simclr.errors import InputError
from tf_simclr.foreign import means_damaged, reading

_HEAD = 1024
_HDF5 = b"\x89HDF\r\n\x1a\n"
_ZIP = b"PK\x03\x04"
_PICKLES = tuple(bytes([0x80, protocol]) for protocol in (2, 3, 4, 5))
"""Beginnings of pickles: before version 1.6 `torch.save` wrote bare ones."""

_XZ_MEMORY = 128 << 20
"""Bytes that unpacking xz may take; its strongest setting takes 65 MiB."""


def _xz(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        # A first byte, under a memory limit: the header tells how much a decoder will take.
        lzma.LZMADecompressor(memlimit=_XZ_MEMORY).decompress(file.read(_HEAD), max_length=1)
    return cast(BinaryIO, lzma.LZMAFile(path))


_COMPRESSIONS: dict[bytes, tuple[str, Callable[[Path], BinaryIO]]] = {
    b"\x1f\x8b": ("gzip", lambda path: cast(BinaryIO, gzip.GzipFile(path))),
    b"BZh": ("bzip2", lambda path: cast(BinaryIO, bz2.BZ2File(path))),
    b"\xfd7zXZ\0": ("xz", _xz),
}
"""Beginning → name and opener of compressions that tars have."""

_OTHERS = (
    (0, b"\x93NUMPY", "one array of NumPy; save all weights of a network by name with numpy.savez"),
    (4, b"TFL3", "a TensorFlow Lite model, which keeps no names of weights; take the checkpoint that it was made from"),
    (0, b"GGUF", "a GGUF file, which holds language models; a SimCLR network is none"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first, and name what was in it"),
    (0, b"Rar!", "a RAR archive; unpack it first, and name what was in it"),
    (0, b"\x28\xb5\x2f\xfd", "compressed by zstd; unpack it first (zstd -d), and name what was in it"),
    (0, b"\x89PNG", "a picture"),
    (0, b"\xff\xd8\xff", "a picture"),
    (0, b"%PDF", "a PDF document"),
)
"""Place, bytes there, and what a file is that has them."""
_ONNX = re.compile(rb"\x08[\x01-\x1f]\x12.[\w.\- ]{2}", re.DOTALL)
"""Its version, then the name of the program that wrote it (onnx/onnx `onnx/onnx.proto`, `ModelProto`)."""

_BY_ENDING = {
    ".pb": "a graph without its weights, or one that was frozen; take the checkpoint or SavedModel that it is from",
    ".msgpack": "weights of Flax, which are not read; save them as safetensors",
}
"""Ending → what a file is that nothing else tells."""


def head_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD)


def kind_of(path: Path) -> str | None:
    """`torch`, `keras`, `hdf5`, `safetensors`, `npz`, `zip` or `tar`; None: nothing that tells itself by its bytes.

    By content alone, as an ending may be anything.

    Raises:
        InputError: it is a zip that is not whole.
    """
    head = head_of(path)
    # Unmistakable signatures first; a tar, whose sign is a checksum, last.
    if head.startswith(_HDF5):
        return "hdf5"
    if head.startswith(_ZIP):
        return _kind_of_zip(path)
    if is_safetensors(head):
        return "safetensors"
    if head.startswith(_PICKLES):
        return "torch"
    if path.name.endswith(".weights.json") and head.lstrip().startswith(b"{"):
        return "keras"
    return "tar" if _is_tar(path, head) else None


def _kind_of_zip(path: Path) -> str:
    with reading(path, "a whole zip file"), opened_zip(path) as archive:
        names = archive.namelist()
    # Zips of PyTorch, Keras and NumPy tell themselves by their members; any other is an archive.
    if any(name.endswith("/data.pkl") for name in names):
        return "torch"
    if {"config.json", "model.weights.h5"} <= set(names):
        return "keras"
    return "npz" if names and all(name.endswith(".npy") for name in names) else "zip"


def compression_of(head: bytes) -> tuple[str, Callable[[Path], BinaryIO]] | None:
    """Name and opener of the compression that a file begins with."""
    return next((found for mark, found in _COMPRESSIONS.items() if head.startswith(mark)), None)


def _is_tar(path: Path, head: bytes) -> bool:
    """Whether a file is a tar, compressed or not, by the checksum of its first header."""
    # Compressed or not, the first 512 bytes of a tar have a checksum over themselves.
    compression = compression_of(head)
    try:
        if compression:
            with compression[1](path) as file:
                head = file.read(tarfile.BLOCKSIZE)
        tarfile.TarInfo.frombuf(head[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except Exception as error:
        if not means_damaged(error):
            raise
        return False
    return True


def substitute(path: Path) -> str | None:
    """What lies in place of a file that was not downloaded, and what to do; None: it is a file of its own.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     substitute(Path(file.name))
        'empty: its download or copy broke off; get it again'
    """
    # The reasons why a download is not what it seems, from the most frequent on.
    head = head_of(path)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return "empty: its download or copy broke off; get it again"
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        size = re.search(rb"^size (\d+)$", head, re.MULTILINE)
        of = f" to {int(size[1]):,} bytes" if size else ""
        return f"a Git-LFS pointer{of} that lie elsewhere; run `git lfs pull` in its repository, or download the file"
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<script")):
        page = "an HTML page, as sites answer with instead of a file: a login, a warning, an error"
        return f"{page}; download it again by the link of its download button"
    if text.startswith((b"<?xml", b"<error>")):
        code = re.search(rb"<Code>(\w+)</Code>", head)
        why = f" ({code[1].decode()})" if code else ""
        return f"a server's answer in XML{why}, not the file; see whether the address is right, and download it again"
    return None


def check_itself(path: Path) -> None:
    """Raises `InputError` where something else lies in place of a file that was not downloaded."""
    instead = substitute(path)
    if instead:
        raise InputError(f"{path} must be a checkpoint's file, but is {instead}")


def unknown(path: Path) -> str:
    """The sentence for a file that is nothing which this project reads: what it is instead, and what to do."""
    head = head_of(path)
    instead = substitute(path) or _other(path, head) or f"none of these: it begins with the bytes {head[:8].hex(' ')}"
    formats = "a TensorFlow checkpoint, .pth, .safetensors, .keras, .h5, .npz, or a zip or tar of these"
    return f"{path} must be a checkpoint ({formats}), but is {instead}"


def _other(path: Path, head: bytes) -> str | None:
    """What a file of another program is, and what to do; None: nothing tells."""
    # Other programs' files, by what they begin with; then compressions, JSON and texts.
    known = next((what for at, mark, what in _OTHERS if head[at:].startswith(mark)), None)
    compression = compression_of(head)
    if known:
        return known
    if _ONNX.match(head):
        return "an ONNX model, whose weights have no layers' names; take the checkpoint that it was made from"
    if compression:
        return f"compressed by {compression[0]}, and no tar; unpack it first, and name what was in it"
    if head.lstrip()[:1] in (b"{", b"["):
        return "JSON, which may describe a network but holds no weights; name the file of weights, or their folder"
    return "text; name the file of weights, or their folder" if _is_text(head) else _BY_ENDING.get(path.suffix)


def _is_text(head: bytes) -> bool:
    """Whether these bytes are the beginning of a text that a person reads.

    Example:
        >>> _is_text("naïve".encode()[:3]), _is_text(b"\\0\\1")  # the cut is within a letter
        (True, False)
    """
    try:
        # A head may end within a letter: the incremental decoder takes that for no error.
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return all(letter.isprintable() or letter in "\t\r\n\f" for letter in text)
