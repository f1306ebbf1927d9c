"""NIH ChestX-ray14: 112,120 PNG radiographs of 30,805 patients, 14 findings that may occur together.

Layout: `Data_Entry_2017.csv` (any year) or `sample_labels.csv` (Kaggle's sample of 5,606), the images anywhere below,
as PNG or, resized by others, as JPEG; and where present the official split by patient, `train_val_list.txt` and
`test_list.txt`.

References:
    Wang et al., ChestX-ray8, CVPR 2017, arXiv:1705.02315.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from tf_simclr.chest.collections.collection import (
    LINE,
    Collection,
    Entry,
    attributes,
    decoded,
    files_by_name,
    read_table,
    spelling,
    unmatched,
    within,
    without_ending,
)
from tf_simclr.errors import InputError, check
from tf_simclr.foreign import reading

_FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Hernia",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pleural_Thickening",
    "Pneumonia",
    "Pneumothorax",
)
_NOTHING = "No Finding"
_CLASSES = (*_FINDINGS, _NOTHING)
_LISTS = {"train": "train_val_list.txt", "test": "test_list.txt"}
"""Part → the list of its images, in any case of letters."""
_TABLES = ("Data_Entry_*.csv", "sample_labels.csv")


def collection(folder: Path) -> Collection:
    """Reads the table and finds the files, whose endings may be others than the table's.

    Raises:
        InputError: the table or a column is missing, or a finding is none of the 14.
    """
    # 1. The tables. 2. The files by name without ending. 3. The official parts. 4. An entry a row.
    table = _entries_table(folder)
    rows = read_table(table, columns=("Image Index", "Finding Labels", "Patient ID"))
    named = [(row, without_ending(row["Image Index"])) for row in rows]
    files, splits = files_by_name(folder), _official_split(folder)
    there = [(row, name) for row, name in named if name in files]
    parts = _parts_of([name for _, name in there], splits)
    # What does not fit together.
    fileless = [row["Image Index"] for row, name in named if name not in files]
    misnamed = [
        row["Image Index"]
        for row, name in named
        if (number := re.match(r"(\d{8})_", name)) and spelling(number[1]) != spelling(row["Patient ID"])
    ]
    rowless = [files[name].name for name in files.keys() - {name for _, name in named}]
    return Collection(
        name="NIH ChestX-ray14",
        classes=_CLASSES,
        entries=tuple(
            Entry(
                path=files[name],
                image=row["Image Index"],
                labels=labels(row["Finding Labels"], where=f"{table}, line {row[LINE]}"),
                patient=row["Patient ID"],
                study=name,  # one image a visit
                split=part,
                attributes=attributes(row),
            )
            for (row, name), part in zip(there, parts, strict=True)
        ),
        problems=unmatched(f"a row of {table.name} has no file", fileless)
        + unmatched("a row's patient is not the one that its file is named after", misnamed)
        + unmatched(f"a file has no row in {table.name}", rowless),
    )


def _entries_table(folder: Path) -> Path:
    """`Data_Entry_2017.csv`, or `sample_labels.csv` of Kaggle's sample; in the folder or one below.

    Raises:
        InputError: there is none, or several that differ.
    """
    check(folder.is_dir(), "the folder of radiographs must exist", folder=str(folder))
    found = [path for name in _TABLES for below in ("", "*/") for path in sorted(folder.glob(below + name))]
    # The same table twice is no contradiction.
    contents = {path.read_bytes() for path in found}
    rule = f"the folder must hold one of {', '.join(_TABLES)}"
    check(len(contents) == 1, rule, folder=str(folder), found=[path.name for path in found])
    return found[0]


def labels(text: str, *, where: str) -> tuple[int, ...]:
    """0 or 1 for each class.

    Example:
        >>> [_CLASSES[i] for i, there in enumerate(labels("Mass|Effusion", where="here")) if there]
        ['Effusion', 'Mass']
    """
    # `A|B`: findings that occur together.
    found = [name.strip() for name in text.split("|")]
    unknown = sorted(set(found) - set(_CLASSES))
    if unknown:
        raise InputError(f"findings must be among {', '.join(_CLASSES)}, {where}. Received: {unknown}")
    alone = _NOTHING not in found or set(found) == {_NOTHING}
    check(alone, f"{_NOTHING} must stand alone, {where}", received=found)
    return tuple(int(name in found) for name in _CLASSES)


def _official_split(folder: Path) -> dict[str, set[str]]:
    """`train` and `test` → images, as far as their lists are there.

    Raises:
        InputError: an image is in both.
    """
    lists = {part: _list_file(folder, name) for part, name in _LISTS.items()}
    with reading(folder, "a folder whose lists of images are text"):
        names = {
            part: {without_ending(within(name)) for name in re.split(r"[\s,;]+", decoded(path.read_bytes())) if name}
            for part, path in lists.items()
            if path is not None
        }
    both = set.intersection(*names.values()) if len(names) == 2 else set()
    check(not both, f"no image may be in {lists['train']} and in {lists['test']}", both=sorted(both)[:3])
    return names


def _list_file(folder: Path, name: str) -> Path | None:
    """A list of the official split, in the folder or one below; None where there is none.

    Raises:
        InputError: there are several that differ.
    """
    found = [path for path in sorted([*folder.glob("*.txt"), *folder.glob("*/*.txt")]) if path.name.lower() == name]
    rule = f"there must be one {name} in {folder}"
    check(len({path.read_bytes() for path in found}) <= 1, rule, found=[str(path) for path in found])
    return found[0] if found else None


def _parts_of(images: Sequence[str], splits: Mapping[str, set[str]]) -> list[str]:
    """A part for each image; where only one of the lists is there, the images that it does not name are the other's.

    Raises:
        InputError: both are there, and an image is in neither.
    """
    # The official lists divide what they name; without any of them a split is drawn later.
    if not splits:
        return [""] * len(images)
    if len(splits) == 1:
        ((known, named),) = splits.items()
        check(not named.isdisjoint(images), f"{_LISTS[known]} must name images that are there", named=len(named))
        other = "train" if known == "test" else "test"
        return [known if image in named else other for image in images]
    neither = [image for image in images if not any(image in named for named in splits.values())]
    rule = "each image must be in train_val_list.txt or in test_list.txt; remove both for a split of our own"
    check(not neither, rule, neither=neither[:3], count=len(neither))
    return ["train" if image in splits["train"] else "test" for image in images]
