"""What is in a shard: of each example its name, place and class; read once, and kept for the shard's content.

Pictures are read where they lie in the shard.  Those of some shards do not lie there as they are (compressed tars,
compressed Parquet): they are copied once, beside the index, and read from there.
"""

import contextlib
import dataclasses
import io
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tf_simclr.data.shards import opening
from tf_simclr.errors import InputError, check
from tf_simclr.files import contents, replacing
from tf_simclr.files.contents import Say
from tf_simclr.files.lock import InUse, hold
from tf_simclr.files.places import shown
from tf_simclr.foreign import DAMAGED, Budget, parse_json, reading

_FORMAT = 5
"""Counts up when a shard's index would be another."""
NO_LABEL = -1
OWN = -1
"""Checksum of a picture whose kind of shard has checksums of its own."""
_MANY = 1 << 17
"""Classes at most: a label beyond is a mistake, or meant to take all memory."""
_RESERVE = 1 << 28
"""Bytes of the disk that a copy leaves free."""
_LOOK = 1 << 26
"""Bytes of a copy between two looks at the disk."""
_WAIT = 0.5
"""Seconds between two looks whether another process has finished a copy."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """What is the picture, and what the class, where somebody says so.

    Attributes:
        image: a column of a table, a feature of an Example, an ending of a tar's members (`jpg`, `seg.png`).
        label: the same; of a tar a key of its JSON, too.
        anywhere: whether pictures that are only named may lie anywhere: the names are this machine's own.
    """

    image: str | None = None
    label: str | None = None
    anywhere: bool = False


_NUMBERS = ("checksums", "labels", "damaged")
"""Fields of a `Listing` that are kept as an array of integers each."""
_NOTED = ("left_out", "classes", "column", "origins", "doubt", "copied")
"""Those that are kept together, as JSON."""


@dataclass
class Listing:
    """The examples of a shard, in its order.

    Attributes:
        names: which are different within the shard.
        places: what its kind finds the image's bytes by, integers.
        checksums: CRC-32C of each image's bytes, by which what changes later is told; -1 where its kind has its own.
        labels: numbers, -1 for none.
        texts: the class in words, empty for none.
        left_out: reason → how many parts of the shard are no examples.
        damaged: rows of examples whose bytes are not what was written; they are examples that cannot be read.
        classes: names of all classes, where the shard has them.
        column: what was taken for the picture; empty where nothing names it.
        origins: what an example's class was taken from (a column, an ending) → how many have it from there.
        doubt: why no class was taken where several could be.
        copied: bytes of the pictures' copy; -1 where they are read in the shard.
        file: where they are read.
        stamp: size and time of that, as it was when the index was made or found again.
        why: what was wrong with what was left out last.
    """

    names: list[str] = field(default_factory=list)
    places: list[tuple[int, ...]] = field(default_factory=list)
    checksums: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    damaged: list[int] = field(default_factory=list)
    classes: tuple[str, ...] = ()
    column: str = ""
    origins: Counter[str] = field(default_factory=Counter)
    doubt: str = ""
    copied: int = -1
    file: Path = Path()
    stamp: tuple[int, int] = (0, 0)
    why: ValueError | None = None

    def not_empty(self) -> "Listing":
        """Itself.

        Raises:
            ValueError: all that could be an example was left out.
        """
        if self.why is not None and not self.names:
            raise self.why
        return self

    def add(
        self,
        name: str,
        place: tuple[int, ...],
        *,
        label: int = NO_LABEL,
        text: str = "",
        origin: str = "",
        checksum: int = OWN,
        damaged: bool = False,
    ) -> None:
        """One more example.

        Raises:
            InputError: its label is no class's number.
        """
        if damaged:
            self.damaged.append(len(self.names))
        elif not NO_LABEL <= label < _MANY:
            rule = f"is no number of a class: 0 to {_MANY - 1}, or {NO_LABEL} for none"
            raise InputError(f"the label {label} of {shown(name)} {rule}")
        elif origin:
            self.origins[origin] += 1
        self.names.append(name)
        self.places.append(place)
        self.checksums.append(checksum)
        self.labels.append(NO_LABEL if damaged else label)
        self.texts.append("" if damaged else text)

    def packed(self) -> bytes:
        """As it is kept."""
        file = io.BytesIO()
        noted = {name: getattr(self, name) for name in _NOTED}
        # Texts as one array of bytes each, parted by zeros: a million strings would be a million objects.
        texts = {"names": "\0".join(self.names), "texts": "\0".join(self.texts), "noted": json.dumps(noted)}
        columns: dict[str, Any] = {key: np.frombuffer(os.fsencode(value), np.uint8) for key, value in texts.items()}
        for key in ("places", *_NUMBERS):
            columns[key] = np.array(getattr(self, key), np.int64)
        np.savez(file, **columns)
        return file.getvalue()

    @classmethod
    def unpacked(cls, path: Path) -> "Listing":
        """What `packed` gave."""
        with np.load(path, allow_pickle=False) as kept:
            count = len(kept["labels"])
            text = {key: os.fsdecode(kept[key].tobytes()) for key in ("names", "texts", "noted")}
            noted = parse_json(text["noted"])
            noted |= {name: Counter(noted[name]) for name in ("left_out", "origins")}
            found = cls(
                names=text["names"].split("\0") if count else [],
                texts=text["texts"].split("\0") if count else [],
                places=[tuple(place) for place in kept["places"].tolist()],
                **{key: kept[key].tolist() for key in _NUMBERS},
                **{name: noted[name] for name in _NOTED} | {"classes": tuple(noted["classes"])},
            )
        if len({count, len(found.names), len(found.places), len(found.checksums), len(found.texts)}) != 1:
            raise ValueError("columns of different lengths")
        return found


class Copy:
    """Where a reader puts what cannot be read in the shard, a piece after the other; a file once something is put."""

    def __init__(self, path: Path):
        self.path, self.size = path, 0
        self.file: BinaryIO | None = None
        self._looked = -_LOOK

    def begin(self) -> BinaryIO:
        """The file, to read in it, too.

        Raises:
            InputError: there is no place for it.
        """
        if self.file is None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.file = self.path.open("w+b")
            except OSError as error:
                rule = f"{self.path.parent} must be writable for the pictures, which are copied there once"
                raise InputError(f"{rule} ({error.strerror}); set TF_SIMCLR_CACHE to another folder") from error
        return self.file

    def put(self, data: Any) -> int:
        """Adds bytes; returns where they begin.

        Raises:
            InputError: the disk is full.
        """
        file = self.begin()
        if self.size - self._looked >= _LOOK:
            self._looked = self.size
            free = shutil.disk_usage(self.path.parent).free
            rule = (
                f"{self.path.parent} must have room for the pictures, which do not lie in the shard as they are; free "
                "some, set TF_SIMCLR_CACHE to another disk, or make other shards of them (prepare-shards)"
            )
            check(free > _RESERVE + _LOOK, rule, free=f"{free / 2**30:.1f} GiB")
        file.write(data)
        self.size += len(data)
        return self.size - len(data)


Reader = Callable[..., Listing]
"""(path, columns, copy=) → the index of a shard."""


def of_shard(path: Path, read: Reader, *, what: str, columns: Columns = Columns()) -> Listing:
    """The index of a shard, by its reader or from an earlier time.

    Args:
        path: the shard.
        read: its kind's reader.
        what: completes "the shard must be …".
        columns: what is the picture, and what the class.

    Raises:
        InputError: the shard is damaged or cut off, or the disk has no room for what must be copied.
    """
    with reading(path, what, budget=Budget(made=1 << 40, outline=2 << 30, items=50_000_000, seconds=1e6)):
        if not path.is_file():
            raise FileNotFoundError(2, "it is not there")
        # Kept by content, not by name.  The stamp tells whether somebody writes it meanwhile.
        before = opening.stamp(path)
        key = contents.of_values(_FORMAT, what, *dataclasses.astuple(columns), contents.digest(path))
        kept = contents.cache_folder() / "shards" / f"{key}.npz"
        found = _known(kept, path)
        if found is None:
            # Asked again behind the lock: another process may have made it while this one waited.
            with _alone(kept) as usable:
                found = _known(kept, path) or _made(path, read, columns=columns, usable=usable, kept=kept)
        if opening.stamp(path) != before:
            raise InputError("it changed while it was read; try again when it is whole")
        found.stamp = opening.written(found.file)
    return found


def _known(kept: Path, path: Path) -> Listing | None:
    """What was kept for a shard; None where nothing is, or not all."""
    if not kept.exists():
        return None
    copy = kept.with_suffix(".pictures")
    try:
        found = Listing.unpacked(kept)
        if found.copied >= 0 and copy.stat().st_size != found.copied:
            raise ValueError("another copy")
    except DAMAGED:
        kept.unlink(missing_ok=True)  # it only holds what can be computed again
        return None
    found.file = path if found.copied < 0 else copy
    return found


@contextlib.contextmanager
def _alone(kept: Path) -> Iterator[bool]:
    """Waits until no other process makes the same; whether there is a place to keep anything."""
    with contextlib.ExitStack() as stack:
        usable = None
        while usable is None:
            try:
                stack.enter_context(hold(kept.with_suffix(".making")))
                usable = True
            except InUse:
                time.sleep(_WAIT)
            except InputError:
                usable = False
        yield usable


def _made(path: Path, read: Reader, *, columns: Columns, usable: bool, kept: Path) -> Listing:
    """Reads a shard, and keeps what was found."""
    pictures = kept.with_suffix(".pictures")
    for left in kept.parent.glob(f".*.{pictures.name}") if usable else ():  # by a process that was killed
        left.unlink(missing_ok=True)
    temporary = pictures.with_name(f".{os.getpid()}.{pictures.name}")
    copy = Copy(temporary)
    try:
        found = read(path, columns, copy=copy)
        # The pictures are put in place before the index that points into them.
        if copy.file is not None:
            copy.file.close()
            os.replace(temporary, pictures)
            found.copied = copy.size
        found.file = path if found.copied < 0 else pictures
    finally:
        if copy.file is not None:
            copy.file.close()
            temporary.unlink(missing_ok=True)
    if len(set(found.names)) != len(found.names):
        twice = next(name for name, count in Counter(found.names).items() if count > 1)
        raise InputError(f"two of its examples have the name {twice!r}")
    try:
        with replacing(kept) as [file]:
            file.write(found.packed())
    except InputError:
        if found.copied >= 0:
            raise
    return found  # an index that cannot be kept costs time, nothing else


def of_all(paths: Sequence[Path], read: Reader, *, what: str, say: Say, columns: Columns = Columns()) -> list[Listing]:
    """The indices of all shards; where much has to be read, that is said."""
    total = sum(path.stat().st_size for path in paths if path.exists())
    if total >= 2**30:
        say(f"making the index of {len(paths):,} shards ({total / 2**30:,.1f} GiB), unless it is kept …")
    return [of_shard(path, read, what=what, columns=columns) for path in paths]
