"""What a prepared folder says of itself, and what may be asked of it: told in a moment, without a framework."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tf_simclr.data.radiographs import Fit
from tf_simclr.data.radiographs.splits import NAMES
from tf_simclr.errors import InputError, check, meant
from tf_simclr.foreign import reading

_FILE = "settings.json"
ALL = "all"
"""The part that every image is in."""
ATTRIBUTES = ("sex", "age", "view", "device", "modality", "body_part", "bits", "brightness", "contrast")
"""What is kept of an image beside its labels; coarse, so that none of it names a patient: decades of age, manufacturer
and model, the mean and the standard deviation of the grey levels."""


@dataclass(frozen=True)
class _Settings:
    """Of `settings.json`."""

    name: str
    classes: tuple[str, ...]
    images: int
    """Readable ones and refused ones."""
    size: int
    """Side of the squares in pixels."""
    fit: Fit
    windowed: bool
    made_up: bool

    def called(self, folder: Path) -> str:
        """What messages call it."""
        return f"{folder} (made up)" if self.made_up else str(folder)


def settings(folder: Path) -> _Settings:
    """Of a prepared folder.

    Raises:
        InputError: it is none.
    """
    with reading(folder, "a whole prepared folder", advice="prepare it with `python -m tf_simclr chest prepare`"):
        found = json.loads((folder / _FILE).read_bytes())
        kept = {name: found[name] for name in ("name", "images", "size", "fit", "windowed")}
        return _Settings(classes=tuple(map(str, found["classes"])), made_up=bool(found.get("made_up")), **kept)


def check_class(name: str, classes: Sequence[str]) -> None:
    """Raises `InputError` unless a folder has this class."""
    if name not in classes:
        near = meant(name, classes) or "; --positive names it"
        raise InputError(f"the class must be one of {', '.join(classes)}{near}. Received: {name!r}")


def check_findings(names: Sequence[str], classes: Sequence[str]) -> None:
    """Raises `InputError` unless a folder has these classes, each named once."""
    _check_among(names, classes, rule="findings must be among")
    check(len(set(names)) == len(names), "findings must be named once each", received=list(names))


def check_part(name: str, *, folder: object) -> None:
    """Raises `InputError` unless this is a part that radiographs have."""
    names = (*NAMES, ALL)
    if name not in names:
        rule = f"a split of {folder} must be one of {', '.join(names)}{meant(name, names)}"
        raise InputError(f"{rule}. Received: {name!r}")


def check_columns(names: Sequence[str], columns: Sequence[str]) -> None:
    """Raises `InputError` unless subgroups can be made of these columns."""
    _check_among(names, columns, rule="subgroups must be columns:")


def _check_among(names: Sequence[str], known: Sequence[str], *, rule: str) -> None:
    """Raises `InputError` unless all names are known; a rule is followed by what is."""
    unknown = [name for name in names if name not in known]
    if unknown:
        near = meant(unknown[0], known)
        raise InputError(f"{rule} {', '.join(known)}{near}. Received: {', '.join(unknown)}")


def check_one_class(folder: object, classes: Sequence[str], *, single: bool) -> None:
    """Raises `InputError` unless each image has exactly one class, so that all can be told apart at once."""
    rule = f"images of {folder} have several findings each: name one by --positive, or use `chest findings`"
    check(single, rule, classes=list(classes))


def seems_single(folder: Path) -> bool:
    """Whether each image of the first part of a prepared folder has exactly one class."""
    # The first part tells: all of a large collection would take seconds.
    for path in sorted(folder.glob("records-*.json"))[:1]:
        with reading(path, "the rows of a prepared part", advice="remove it, and prepare again"):
            rows = json.loads(path.read_bytes())["rows"]
            return all(sum(row["labels"]) == 1 for row in rows if not row["refused"])
    return True
