"""WebDataset's tar files: members that have a name in common up to its first dot are one example.

`a/0001.jpg` and `a/0001.cls` are the example `a/0001`: the class is the number, or the words, in `.cls`, or `label`,
`cls`, `class_id` or `class_name` of `.json`, or the words in `.txt`, or, where no example has any of them, the folder.
Other members are counted; no member is ever unpickled.
"""

import bz2
import gzip
import lzma
import re
import tarfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from tf_simclr.data.rasters import ENDINGS
from tf_simclr.data.shards.index import NO_LABEL, Columns, Copy, Listing
from tf_simclr.errors import InputError
from tf_simclr.files.contents import crc32c
from tf_simclr.files.places import shown
from tf_simclr.foreign import Headers, parse_json, spend

_MEMBER = re.compile(r"^((?:.*/)?[^./][^./]*)\.([^/]*)$", re.DOTALL)
"""WebDataset's key and extension."""
_BLOCK = 512
_MOST = 1 << 20
"""Bytes of a `.cls` and of a `.json`."""
_KEYS = ("label", "cls", "class_id", "class_name", "class", "category")
WORDS = 200
"""Letters of a class's name at most: a longer text is none."""
_Places = dict[str, tuple[int, int]]


def _zstandard(file: BinaryIO) -> Any:
    """What a file is of which Zstandard made this."""
    import pyarrow as pa

    return pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd")


PACKINGS: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b\x08": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
    b"\x28\xb5\x2f\xfd": _zstandard,
}
"""How a compressed file begins → who reads what it was."""


def unpacked(file: BinaryIO, copy: Copy, *, packings: Mapping[bytes, Callable[[BinaryIO], Any]] = PACKINGS) -> BinaryIO:
    """The file, or where it is compressed its bytes in the copy: no picture in it could be read without the others."""
    magic = file.read(8)
    file.seek(0)
    opened = next((one for start, one in packings.items() if magic.startswith(start)), None)
    if opened is None:
        return file
    with opened(file) as inside:
        while block := inside.read(1 << 20):
            copy.put(block)
    found = copy.begin()
    found.seek(0)
    return found


def listing(path: Path, columns: Columns, *, copy: Copy) -> Listing:
    """The examples of a tar file, which may be compressed (gzip).

    Raises:
        ValueError, tarfile.TarError: it is cut off or damaged.
        InputError: its examples have several pictures, and nothing says which is meant.
    """
    # 1. One pass over the headers: what each member says goes to its example.
    found = Listing()
    samples: dict[str, _Sample] = {}
    with path.open("rb") as given:
        file = unpacked(given, copy)
        for key, ending, member in _members(file, found):
            sample = samples.setdefault(key, _Sample())
            sample.take(ending, member=member, file=file, columns=columns, found=found)
        # 2. Which ending is the picture, if an example has several (`jpg` beside `seg.png`).
        if columns.image is not None:
            wanted = columns.image.lower().removeprefix(".")
            known = sorted({ending for sample in samples.values() for ending in sample.pictures})
            if samples and wanted not in known:
                raise InputError(f"image_column must be an ending of its pictures: {_some(known)}")
        else:
            wanted = ""
            several = {name for sample in samples.values() if len(sample.pictures) > 1 for name in sample.pictures}
            if several:
                rule = "an example has several pictures; name the one that is meant by image_column"
                raise InputError(f"{rule}: {_some(several)}")
        # 3. The examples in the order of their first members.
        for name, sample in samples.items():
            place = sample.pictures.get(wanted) if wanted else next(iter(sample.pictures.values()), None)
            if place is None:
                found.left_out["examples without an image"] += 1
                continue
            label, text, origin = sample.label(name, columns)
            found.add(name, place, label=label, text=text, origin=origin, checksum=_checksum(file, *place))
    found.column = wanted
    return found


def _checksum(file: BinaryIO, offset: int, size: int) -> int:
    """The CRC-32C of a range of a file, a MiB at a time."""
    file.seek(offset)
    crc = 0
    while size > 0 and (piece := file.read(min(size, 1 << 20))):
        crc, size = crc32c(piece, crc), size - len(piece)
    return crc


def _some(endings: Collection[str]) -> str:
    """Endings, for a sentence; of many, some, and what they may come from: a key ends at its first dot."""
    known = [shown(name[:60]) for name in sorted(endings)]
    dots = " (a name's key ends at its first dot: are these names with dots?)"
    return ", ".join(known[:10]) + f" and {len(known) - 10:,} more{dots}" if len(known) > 10 else ", ".join(known)


def _members(file: BinaryIO, found: Listing) -> Any:
    """Key, ending and header of each member that may belong to an example.

    Raises:
        ValueError: the file is cut off or damaged.
    """
    length = file.seek(0, 2)
    file.seek(0)
    # A tar without members begins with the mark of its end, a block of zeros.
    if length >= _BLOCK and file.read(_BLOCK) == bytes(_BLOCK):
        return _check_rest(file)
    file.seek(0)
    end, archive = 0, Headers(file)
    with tarfile.open(fileobj=archive, mode="r:") as tar:  # type: ignore[call-overload]
        while (member := tar.next()) is not None:
            setattr(tar, "members", [])  # noqa: B010 - else all are kept; its type does not tell of them
            spend(items=1, outline=len(member.name) + 64)
            sparse = getattr(member, "sparse", None) is not None
            # Where the next header is: behind the file's end, the member is cut off.
            end = tar.offset
            if end > length:
                raise ValueError(f"it is cut off within {member.name!r}")
            match = _MEMBER.match(member.name.removeprefix("./").lstrip("/"))
            if not member.isreg() or sparse:
                found.left_out["folders, links and holes"] += not member.isdir()
            elif match is None:
                found.left_out["members without a name or an ending"] += 1
            else:
                yield match[1], match[2].lower(), member
    file.seek(end)
    if file.read(_BLOCK) != bytes(_BLOCK):  # tarfile takes a damaged header for the end
        raise ValueError("it is cut off or damaged: it has no mark of its end")
    _check_rest(file)


def _check_rest(file: BinaryIO) -> None:
    """Refuses what lies behind the mark of a tar's end, where no reader looks.

    Raises:
        InputError: so it does.
    """
    while block := file.read(1 << 20):
        if block.count(0) < len(block):
            advice = "as where tars were joined by `cat`: join them by `tar -A`, or give each alone"
            raise InputError(f"nothing may follow the mark of its end, but something does, {advice}")


class _Sample:
    """What the members of an example say of it."""

    __slots__ = ("cls", "noted", "pictures", "told", "words")

    def __init__(self) -> None:
        self.pictures: _Places = {}
        self.cls: int | str | None = None
        self.noted: int | str | None = None
        self.words = ""
        self.told: tuple[str, ...] = ()

    def take(self, ending: str, *, member: tarfile.TarInfo, file: BinaryIO, columns: Columns, found: Listing) -> None:
        """Notes what a member says.

        Raises:
            InputError: another one has its name.
            ValueError: it holds no class.
        """
        if ending in self.pictures or ending in self.told:
            rule = "each of its members must have a name of its own, but two are called"
            raise InputError(f"{rule} {shown(member.name)}; make it anew without the older one")
        # `seg.png` is a picture, too, of the ending `seg.png`.
        last = ending.rpartition(".")[2]
        if f".{last}" in ENDINGS:
            self.pictures[ending] = (member.offset_data, member.size)
        elif last in ("cls", "json", "txt"):
            if last == "txt" and member.size > 4 * WORDS:
                found.left_out["members .txt"] += 1
                return
            if member.size > _MOST:
                raise ValueError(f"{member.name!r} is too large to hold a class")
            file.seek(member.offset_data)
            data = file.read(member.size)
            # `1.json` counts before `1.boxes.json`, which counts where that one names no class.
            self.told += (ending,)
            if last == "cls":
                cls = _number_or_words(member.name, data)
                self.cls = cls if self.cls is None or ending == last else self.cls
            elif last == "json":
                noted = _noted(parse_json(data), columns.label, found=found)
                self.noted = noted if noted is not None and (self.noted is None or ending == last) else self.noted
            elif not self.words or ending == last:
                self.words = data.decode("utf-8-sig", errors="replace").strip()
        else:
            found.left_out[f"members .{last[:20]}"] += 1

    def label(self, name: str, columns: Columns) -> tuple[int, str, str]:
        """Number, words, and the ending that they are of."""
        # In the order in which they are trusted: .cls, .json, .txt, and last the folder.
        wanted = None if columns.label is None else columns.label.lower().removeprefix(".")
        if self.cls is not None and wanted in (None, "cls"):
            return (self.cls, "", "cls") if isinstance(self.cls, int) else (NO_LABEL, self.cls, "cls")
        if self.noted is not None and wanted not in ("cls", "txt"):
            number = self.noted if isinstance(self.noted, int) else NO_LABEL
            return number, self.noted if isinstance(self.noted, str) else "", "json"
        if self.words and wanted in (None, "txt") and len(self.words) <= WORDS and self.words.isprintable():
            if self.words.isdecimal():
                return int(self.words), "", "txt"
            return NO_LABEL, self.words, "txt"
        folder = name.rpartition("/")[0] if wanted in (None, FOLDER) else ""
        return NO_LABEL, folder, FOLDER if folder else ""


FOLDER = "folder"
"""What a class is of that no member names: the words are then all folders above an example (`class_of_folders`)."""


def class_of_folders(folders: Collection[str]) -> dict[str, str]:
    """Folders above examples → the class that they mean: the first one that they do not all have in common.

    Example:
        >>> class_of_folders(["pets/cat/a", "pets/cat", "pets/dog"])
        {'pets/cat/a': 'cat', 'pets/cat': 'cat', 'pets/dog': 'dog'}
        >>> class_of_folders(["pets"])
        {'pets': 'pets'}
    """
    # How many parts at the start all paths share; at least one stays, so that each has a class.
    parts = {folder: folder.split("/") for folder in folders}
    common = 0
    while len({tuple(one[: common + 1]) for one in parts.values()}) == 1 and min(map(len, parts.values())) > common + 1:
        common += 1
    return {folder: one[common] for folder, one in parts.items()}


def _number_or_words(name: str, data: bytes) -> int | str:
    """What stands in a `.cls`.

    Raises:
        ValueError: it is neither a number nor a class's name.
    """
    text = data.decode("utf-8-sig").strip()
    if re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    if not text or len(text) > WORDS or not text.isprintable():
        raise ValueError(f"{name!r} holds neither a class's number nor its name")
    return text


def _noted(content: Any, wanted: str | None, *, found: Listing) -> int | str | None:
    """The class that an example's JSON names: a number, or words; of a key with dots that within others."""
    if not isinstance(content, dict):
        return None
    for key in (wanted.removeprefix("json.").split("."),) if wanted else [[key] for key in _KEYS]:
        value: Any = content
        for part in key:
            value = value.get(part) if isinstance(value, dict) else None
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if isinstance(value, bool | int) or (isinstance(value, float) and value.is_integer()):
            return int(value)
        if isinstance(value, str) and 0 < len(value) <= WORDS:
            return value
        if value is not None:
            found.left_out[f"{key[-1][:40]} in .json that are neither a class's number nor its name"] += 1
    return None
