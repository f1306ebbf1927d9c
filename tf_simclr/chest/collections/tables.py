"""One's own radiographs: a csv file, or a folder in which folders are classes."""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from tf_simclr.chest.collections.collection import (
    EMPTY,
    ENDINGS,
    LINE,
    TEXTS,
    Collection,
    Entry,
    attributes,
    check_classes,
    files_below,
    is_picture,
    read_table,
    spelling,
    unmatched,
    visible,
    within,
    written_here,
    zero_one_or_unsure,
)
from tf_simclr.data.radiographs.splits import NAMES, named
from tf_simclr.errors import InputError, check
from tf_simclr.files.places import shown

_SHORTENED = re.compile(r"\d([.,]\d+)?e\+\d+", re.IGNORECASE)
"""A number as a spreadsheet shows a long one, of which it has thrown the last digits away: `1.23E+11`."""
_OF_SPLITS = re.compile(r"split|subset|partition|(?<![a-z])folds?(?![a-z])")
"""In names of columns, in small letters, that divide images into parts."""
_OF_A_PART = re.compile(r"(?:is|in)[ _-]?(\w+?)(?:[ _-]?(?:set|split))?")
"""The name of a column, in small letters, that says which images are in one part: `is_test`, `in_val_set`."""


def from_csv(
    table: Path, *, path: str = "path", label: str | Sequence[str] = "label", patient: str = "patient"
) -> Collection:
    """Radiographs that a csv file lists, their paths as they are or beside the file.

    A column `split`, or the one column whose cells all are names of parts, gives each image a part: train, validation
    (val, dev …) or test, in any case of letters.  Patients that capitals, zeros in front or `.0` alone tell apart are
    one patient.

    Args:
        table: the csv file.
        path: column with the file.
        label: column with the class, any text; `a|b` means both.  Or several columns, a finding each: 1, 0, -1 where it
            is uncertain, empty where it is not mentioned.
        patient: column with the patient.  Without it a split by patient is impossible, so it is needed; empty: the
            patients are those of the DICOMs.

    Raises:
        InputError: the file or a column is missing, a cell is empty, a name stands for several files, a part has an
            unknown name, or several columns are splits that differ.
    """
    # 1. Columns that are needed, and none of their cells empty.
    own = [label] if isinstance(label, str) else list(label)
    listed = read_table(table, columns=[column for column in (path, *own, patient) if column])
    needed = [column for column in (path, patient) if column]
    needed += [label] if isinstance(label, str) else []
    full = [all(row[column].strip("| ").lower() not in EMPTY for column in needed) for row in listed]
    empty = [int(row[LINE]) for row, whole in zip(listed, full, strict=True) if not whole]
    check(not empty, f"each row of {table} must have a file, a label and a patient", empty_lines=empty[:3])
    # 2. Patients by how people write them, and a split that the table may have.
    shortened = [int(row[LINE]) for row in listed if patient and _SHORTENED.fullmatch(row[patient])]
    rule = f"patients of {table} must have all of their digits; store the column as text in the spreadsheet"
    check(not shortened, rule, shortened_lines=shortened[:3])
    people, of_people = _people([row[patient] for row in listed] if patient else [])
    split, of_split = _split_column(listed, without=(path, *own, patient), table=table)
    # 3. Files; a row without one is told of, and left out.
    located = [(row, beside(table.parent, within(row[path]), where=_where(row, table))) for row in listed]
    there = [(row, file) for row, file in located if file is not None]
    missing = {within(row[path]) for row, file in located if file is None}
    # 4. Labels of one column with names, or of a column a finding.
    rows = [row for row, _ in there]
    classes, labels = _of_column(rows, label) if isinstance(label, str) else _of_columns(rows, own, table=table)
    found = [
        Entry(
            path=file,
            image=(name := within(row[path])),
            labels=kind,
            patient=people[row[patient]] if patient else "",
            study=row.get("study") or name,
            split=part(row, column=split, table=table),
            attributes=attributes(row),
            place=_where(row, table),
        )
        for (row, file), kind in zip(there, labels, strict=True)
    ]
    return Collection(
        name=table.name,
        classes=classes,
        entries=tuple(found),
        problems=unmatched("a row has no file", missing) + of_people + of_split,
        private=True,
    )


def _where(row: Mapping[str, str], table: Path) -> str:
    """Where a row stands, as messages say it."""
    return f"{table.name}, line {row[LINE]}"


def _people(patients: Sequence[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Name of a patient in the table → the one that it counts as, and what is to be said of it."""
    first: dict[str, str] = {}
    # The first spelling stands for the others.
    known = {name: first.setdefault(spelling(name), name) for name in dict.fromkeys(patients)}
    several = len({one for name, one in known.items() if one != name})
    said = f"patients that capitals, zeros in front or .0 alone tell apart count as one ({several:,})"
    return known, (said,) * bool(several)


def _split_column(
    rows: Sequence[Mapping[str, str]], *, without: Sequence[str], table: Path
) -> tuple[str, tuple[str, ...]]:
    """The column that divides images into parts, or nothing, and what is to be said of it.

    Raises:
        InputError: several do, each otherwise; or a column says of one part which images are in it.
    """
    # By its name; else by its cells: only a column whose every cell names a part can be a split.
    columns = [name for name in rows[0] if name not in (*without, LINE)] if rows else []
    own = [name for name in columns if name.lower() == "split"]
    if own:
        return own[0], ()
    parts = {name: [_named_or_none(row[name]) for row in rows] for name in columns}
    found = [name for name, of in parts.items() if None not in of and {"train", "test"} <= set(of)]
    differ = [name for name in found if parts[name] != parts[found[0]]]
    rule = f"one column of {table} must be the split; call it split"
    check(not differ, rule, columns=found)
    if found:
        return found[0], (f"the column {found[0]} is taken for the split",)
    filled = [name for name in columns if any(row[name] for row in rows)]
    flags = [name for name in filled if (of := _OF_A_PART.fullmatch(name.lower())) and _named_or_none(of[1])]
    rule = f"a split of {table} must be one column, split, whose cells name a part: {', '.join(NAMES)}"
    check(not flags, rule, columns=flags)
    odd = [name for name in filled if _OF_SPLITS.search(name.lower()) or _named_or_none(name)]
    return "", tuple(f"the column {name} does not name parts to train and to test on, and is not used" for name in odd)


def _named_or_none(text: str) -> str | None:
    """The part that a cell names, empty for an empty one; None where it names none."""
    try:
        return named(text)
    except InputError:
        return None


Labels = list[tuple[int, ...]]


def _of_column(rows: Sequence[Mapping[str, str]], label: str) -> tuple[tuple[str, ...], Labels]:
    """Classes, and those of each row, of a column that names them."""
    # Sorted without repetitions: `B|A|A` is A and B.
    kinds = [sorted({name.strip() for name in row[label].split("|")} - {""}) for row in rows]
    classes = tuple(sorted({name for kind in kinds for name in kind}))
    check_classes(classes, where=f"the column {label}")
    return classes, [tuple(int(each in kind) for each in classes) for kind in kinds]


def _of_columns(
    rows: Sequence[Mapping[str, str]], columns: Sequence[str], *, table: Path
) -> tuple[tuple[str, ...], Labels]:
    """Classes, and those of each row, of columns that are a finding each.

    Raises:
        InputError: a cell is none of 1, 0, -1 and empty.
    """
    check(len(set(columns)) == len(columns), "columns of findings must be named once each", received=list(columns))
    found = [
        tuple(zero_one_or_unsure(row[name], where=f"{name} in {table}, line {row[LINE]}") for name in columns)
        for row in rows
    ]
    return tuple(columns), found


def beside(folder: Path, name: str, *, where: str) -> Path | None:
    """The file of a table's path, which may lack its ending; None where there is none.

    Args:
        folder: of the table.
        name: the path.
        where: the table has it, for messages.

    Raises:
        InputError: it lacks its ending, and there are several files of that name.
    """
    for form in dict.fromkeys((name, unicodedata.normalize("NFD", name))):  # as a Mac names files
        if (folder / form).is_file():
            return folder / form
        cases = [written for ending in ENDINGS for written in (ending, ending.upper())]
        found = [path for ending in cases if (path := folder / f"{form}{ending}").is_file()]
        # On a disk that takes capitals for small letters both are one file.
        found = [path for i, path in enumerate(found) if not any(path.samefile(other) for other in found[:i])]
        endings = [path.suffix for path in found]
        check(len(found) <= 1, f"a path without an ending must stand for one file, {where}", endings=endings)
        if found:
            return found[0]
    return None


def part(row: Mapping[str, str], *, column: str, table: Path) -> str:
    """The part of a split that a row names, or nothing.

    Raises:
        InputError: no part is called so.
    """
    try:
        return named(row[column]) if column else ""
    except InputError as error:
        raise InputError(f"{error}, in {table}, line {row[LINE]}") from None


def from_folder(folder: Path) -> Collection:
    """Radiographs in class folders, which may lie in folders of the parts of a split: `train/sick/0.png`.

    Their patients are those of the DICOMs.  Of other files each folder below a class's is a patient's, where there are
    several; else they name none, and each image is its own.

    Raises:
        InputError: some of the folders are parts of a split, and others are not; or two are one class misspelt.
    """
    files = files_below(folder)
    # Parts below the folder: `train/sick/7/0.png` is part, class, patient, file; a name may be no UTF-8.
    inside = {path: tuple(map(shown, path.relative_to(folder).parts)) for path in files}
    tops = sorted({parts[0] for parts in inside.values() if len(parts) > 1})
    of_split = {top: _named_or_none(top) for top in tops}
    # Folders called train and test are a split, and the classes lie below them.
    divided = {"train", "test"} <= set(of_split.values())
    rule = f"the folders in {folder} must all be classes, or all be parts of a split"
    check(not divided or None not in of_split.values(), rule, folders=tops[:8])
    above = int(divided)  # folders above a class's
    places = {path: parts for path, parts in inside.items() if len(parts) > above + 1}
    classes = tuple(sorted({parts[above] for parts in places.values()}))
    check_classes(classes, where=str(folder))
    # One folder below a class may be anything; several are patients.
    below = {parts[above + 1] for parts in places.values() if len(parts) > above + 2}
    return Collection(
        name=shown(folder.name),
        classes=classes,
        entries=tuple(
            Entry(
                path=path,
                image="/".join(parts),
                labels=tuple(int(name == parts[above]) for name in classes),
                patient=parts[above + 1] if len(parts) > above + 2 and len(below) > 1 and is_picture(path) else "",
                split=(of_split[parts[0]] or "") if divided else "",
                place="/".join(parts[: above + 1]),
            )
            for path, parts in places.items()
        ),
        problems=_passed_over(folder, files, homeless=len(files) - len(places)),
        private=True,
    )


def _passed_over(folder: Path, files: Sequence[Path], *, homeless: int) -> tuple[str, ...]:
    """What lies in a folder and is not taken: radiographs without a class, and other pictures, volumes and archives."""
    taken, ours = set(files), written_here(folder)
    # Told of, so that nobody wonders where half a folder went.
    others = Counter(
        path.suffix.lower() or "without an ending"
        for path in visible(folder)
        if path not in taken and path.suffix.lower() not in (*TEXTS, ".salt") and path.is_file()
    )
    kinds = ", ".join(f"{count:,} {ending}" for ending, count in sorted(others.items()))
    lines = [f"radiographs that lie in no class's folder are passed over ({homeless:,})"] * bool(homeless)
    lines += [f"folders that this program wrote are passed over ({len(ours):,})"] * bool(ours)
    return (*lines, *[f"files that are no DICOM, PNG or JPEG are passed over ({kinds})"] * bool(others))
