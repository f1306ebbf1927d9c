"""What is in a shard: of each example its name, place and class; read once, and kept until the shard changes."""

import io
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tf_simclr import contents
from tf_simclr.contents import Say
from tf_simclr.data.shards import opening
from tf_simclr.errors import InputError
from tf_simclr.files import replacing
from tf_simclr.foreign import DAMAGED, Budget, reading

_FORMAT = 1
"""Counts up when a shard's index would be another."""
NO_LABEL = -1
_MANY = 1 << 17
"""Classes at most: a label beyond is a mistake, or meant to take all memory."""


@dataclass
class Listing:
    """The examples of a shard, in its order.

    Attributes:
        names: which are different within the shard.
        places: `(offset, size)` of the image's bytes, or `(row, 0)`.
        labels: numbers, -1 for none.
        texts: the class in words, empty for none.
        left_out: reason → how many parts of the shard are no examples.
    """

    names: list[str] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, place: tuple[int, int], *, label: int = NO_LABEL, text: str = "") -> None:
        """One more example.

        Raises:
            ValueError: its label is no class's number.
        """
        if not NO_LABEL <= label < _MANY:
            raise ValueError(f"the label {label} of {name} is no number of a class")
        self.names.append(name)
        self.places.append(place)
        self.labels.append(label)
        self.texts.append(text)

    def packed(self) -> bytes:
        """As it is kept."""
        file = io.BytesIO()
        reasons = sorted(self.left_out)
        texts = {"names": self.names, "texts": self.texts, "reasons": reasons}
        columns: dict[str, Any] = {
            key: np.frombuffer("\0".join(value).encode(), np.uint8) for key, value in texts.items()
        }
        columns |= {"places": np.array(self.places, np.int64), "labels": np.array(self.labels, np.int64)}
        np.savez(file, **columns, counts=np.array([self.left_out[reason] for reason in reasons], np.int64))
        return file.getvalue()

    @classmethod
    def unpacked(cls, path: Path) -> "Listing":
        """What `packed` gave."""
        with np.load(path, allow_pickle=False) as kept:
            count = len(kept["labels"])
            split = {key: kept[key].tobytes().decode().split("\0") for key in ("names", "texts", "reasons")}
            found = cls(
                split["names"] if count else [],
                [tuple(place) for place in kept["places"].tolist()],
                kept["labels"].tolist(),
                split["texts"] if count else [],
            )
            found.left_out = Counter(dict(zip(split["reasons"], kept["counts"].tolist(), strict=False)))
        if len({count, len(found.names), len(found.places), len(found.texts)}) != 1:
            raise ValueError("columns of different lengths")
        return found


def of_shard(path: Path, read: Callable[[Path], Listing], *, what: str) -> Listing:
    """The index of a shard, by its reader or from the last time.

    Raises:
        InputError: the shard is damaged or cut off.
    """
    with reading(path, what, budget=Budget(made=1 << 40, outline=2 << 30, items=50_000_000, seconds=1e6)):
        before = opening.stamp(path)
        key = contents.of_values(_FORMAT, what, os.path.abspath(path), before)
        kept = contents.cache_folder() / "shards" / f"{key}.npz"
        if kept.exists():
            try:
                return Listing.unpacked(kept)
            except DAMAGED:
                kept.unlink(missing_ok=True)  # it only holds what can be computed again
        found = read(path)
        if len(set(found.names)) != len(found.names):
            twice = next(name for name, count in Counter(found.names).items() if count > 1)
            raise InputError(f"two of its examples have the name {twice!r}")
        if opening.stamp(path) != before:
            raise InputError("it changed while it was read; try again when it is whole")
    if not _young(before):
        try:
            with replacing(kept) as [file]:
                file.write(found.packed())
        except InputError:
            return found  # a cache that cannot be written costs time, nothing else
    return found


def _young(stamp: list[int]) -> bool:
    """Whether a file may change again without a new time."""
    return time.time_ns() - max(stamp[1:]) <= contents.RESOLUTION


def of_all(paths: list[Path], read: Callable[[Path], Listing], *, what: str, say: Say) -> list[Listing]:
    """The indices of all shards; where much has to be read, that is said."""
    total = sum(path.stat().st_size for path in paths if path.exists())
    if total >= 2**30:
        say(f"making the index of {len(paths):,} shards ({total / 2**30:,.1f} GiB), unless it is kept …")
    return [of_shard(path, read, what=what) for path in paths]
