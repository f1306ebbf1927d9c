"""What a collection of radiographs holds before anything is decoded: files, labels, patients, official splits."""

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tf_simclr.errors import check
from tf_simclr.foreign import reading

ENDINGS = (".dcm", ".dicom", ".png", ".jpg", ".jpeg")
"""Files of a folder that count as radiographs, in any case of letters."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One image file and what the collection's tables say of it."""

    path: Path
    image: str
    """Its name in the tables."""
    labels: tuple[int, ...]
    """0 or 1 for each class."""
    patient: str = ""
    """Empty where only the DICOM knows."""
    study: str = ""
    split: str = ""
    """`train` or `test` of an official split."""
    boxes: int = 0
    """Findings that somebody drew a box around."""


@dataclass(frozen=True, kw_only=True)
class Collection:
    """A set of radiographs."""

    name: str
    classes: tuple[str, ...]
    entries: tuple[Entry, ...]
    problems: tuple[str, ...] = ()
    """What does not fit together: rows without a file, files without a row."""

    def __post_init__(self):
        check(self.entries, f"{self.name} must hold at least one radiograph with a label", problems=self.problems[:3])
        twice = [name for name, count in Counter(entry.image for entry in self.entries).items() if count > 1]
        check(not twice, f"each image of {self.name} must be listed once", twice=twice[:3], count=len(twice))
        places = defaultdict(set)
        for entry in self.entries:
            if entry.patient and entry.split:
                places[entry.patient].add(entry.split)
        both = sorted(patient for patient, splits in places.items() if len(splits) > 1)
        check(not both, f"no patient of {self.name} may be in two splits", patients=both[:3], count=len(both))


def read_table(path: Path, *, columns: Iterable[str]) -> list[dict[str, str]]:
    """The rows of a csv file.

    Raises:
        InputError: there is no such file, it lacks a column, or a row has more or fewer cells than the head.
    """
    with reading(path, "a readable csv file"), open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, strict=True)
        rows = list(reader)
        names = reader.fieldnames or []
    missing = [column for column in columns if column not in names]
    check(not missing, f"{path} must have the columns that its kind of collection has", missing=missing, has=names)
    uneven = [i for i, row in enumerate(rows, 2) if None in row or None in row.values()]
    check(not uneven, f"each row of {path} must have {len(names)} cells", uneven_lines=uneven[:3])
    return rows


def zero_or_one(text: str, *, where: str) -> int:
    """A label of a table.

    Raises:
        InputError: it is neither 0 nor 1.
    """
    check(text.strip() in ("0", "1", "0.0", "1.0"), f"a label must be 0 or 1, {where}", label=text)
    return int(float(text))


def unmatched(what: str, names: Iterable[str]) -> tuple[str, ...]:
    """One problem for each name, in order."""
    return tuple(f"{what}: {name}" for name in sorted(names))


def files_by_name(folder: Path) -> dict[str, Path]:
    """Every radiograph below a folder by its file name.

    Raises:
        InputError: there is no such folder, or two files have one name.
    """
    check(folder.is_dir(), "the folder of radiographs must exist", folder=str(folder))
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in ENDINGS and not p.name.startswith("."))
    found = {path.name: path for path in files}
    check(len(found) == len(files), f"file names below {folder} must differ", files=len(files), names=len(found))
    return found
