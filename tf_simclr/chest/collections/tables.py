"""One's own radiographs: a csv file, or a folder in which folders are classes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tf_simclr.chest.collections.collection import (
    ENDINGS,
    LINE,
    Collection,
    Entry,
    attributes,
    files_below,
    read_table,
    unmatched,
    within,
    zero_one_or_unsure,
)
from tf_simclr.data.radiographs.splits import named
from tf_simclr.errors import InputError, check

DICOM = (".dcm", ".dicom", ".dic")


def from_csv(
    table: Path, *, path: str = "path", label: str | Sequence[str] = "label", patient: str = "patient"
) -> Collection:
    """Radiographs that a csv file lists, their paths as they are or beside the file.

    A column `split` gives each image a part: train, validation (val, dev …) or test, in any case of letters.

    Args:
        table: the csv file.
        path: column with the file.
        label: column with the class, any text; `a|b` means both.  Or several columns, a finding each: 1, 0, -1 where it
            is uncertain, empty where it is not mentioned.
        patient: column with the patient.  Without it a split by patient is impossible, so it is needed; empty: the
            patients are those of the DICOMs.

    Raises:
        InputError: the file or a column is missing, a cell is empty, or a part has an unknown name.
    """
    own = [label] if isinstance(label, str) else list(label)
    rows = read_table(table, columns=[column for column in (path, *own, patient) if column])
    needed = [column for column in (path, patient) if column]
    full = [all(row[column] for column in needed) for row in rows]
    if isinstance(label, str):
        full = [whole and bool(row[label].strip("| ")) for row, whole in zip(rows, full, strict=True)]
    empty = [int(row[LINE]) for row, whole in zip(rows, full, strict=True) if not whole]
    check(not empty, f"each row of {table} must have a file, a label and a patient", empty_lines=empty[:3])
    classes, labels = _of_column(rows, label) if isinstance(label, str) else _of_columns(rows, own, table=table)
    found, missing = [], []
    for row, kind in zip(rows, labels, strict=True):
        name = within(row[path])
        file = beside(table.parent, name)
        if file is None:
            missing.append(name)
            continue
        found.append(
            Entry(
                path=file,
                image=name,
                labels=kind,
                patient=row[patient] if patient else "",
                study=row.get("study") or name,
                split=part(row, table=table),
                attributes=attributes(row),
            )
        )
    return Collection(
        name=table.name,
        classes=classes,
        entries=tuple(found),
        problems=unmatched("a row has no file", set(missing)),
        private=True,
    )


Labels = list[tuple[int, ...]]


def _of_column(rows: Sequence[Mapping[str, str]], label: str) -> tuple[tuple[str, ...], Labels]:
    """Classes, and those of each row, of a column that names them."""
    kinds = [sorted({name.strip() for name in row[label].split("|")} - {""}) for row in rows]
    classes = tuple(sorted({name for kind in kinds for name in kind}))
    spelt: dict[str, list[str]] = {}
    for name in classes:
        spelt.setdefault("".join(name.lower().split()), []).append(name)
    alike = [names for names in spelt.values() if len(names) > 1]
    check(not alike, f"classes of the column {label} must differ by more than capitals and spaces", alike=alike[:3])
    return classes, [tuple(int(each in kind) for each in classes) for kind in kinds]


def _of_columns(
    rows: Sequence[Mapping[str, str]], columns: Sequence[str], *, table: Path
) -> tuple[tuple[str, ...], Labels]:
    """Classes, and those of each row, of columns that are a finding each.

    Raises:
        InputError: a cell is none of 1, 0, -1 and empty.
    """
    where = [f"{table}, line {row[LINE]}" for row in rows]
    found = [
        tuple(zero_one_or_unsure(row[column], where=f"{column} in {place}") for column in columns)
        for row, place in zip(rows, where, strict=True)
    ]
    return tuple(columns), found


def beside(folder: Path, name: str) -> Path | None:
    """The file of a table's path, which may lack its ending; None where there is none."""
    with_endings = (folder / f"{name}{ending}" for ending in ("", *ENDINGS))
    return next((path for path in with_endings if path.is_file()), None)


def part(row: dict[str, str], *, table: Path) -> str:
    """The part of a split that a row names, in a column of any case of letters, or nothing.

    Raises:
        InputError: no part is called so.
    """
    text = next((value for name, value in row.items() if name.lower() == "split"), "")
    try:
        return named(text)
    except InputError as error:
        raise InputError(f"{error}, in {table}, line {row[LINE]}") from None


def from_folder(folder: Path) -> Collection:
    """Radiographs in class folders.

    Their patients are those of the DICOMs.  Of other files each folder below a class's is a patient's, where there are
    several; else they name none, and each image is its own.
    """
    files = [path for path in files_below(folder) if path.parent != folder]
    places = {path: path.relative_to(folder).parts for path in files}
    classes = tuple(sorted({parts[0] for parts in places.values()}))
    below = {parts[1] for parts in places.values() if len(parts) > 2}
    return Collection(
        name=folder.name,
        classes=classes,
        entries=tuple(
            Entry(
                path=path,
                image=path.relative_to(folder).as_posix(),
                labels=tuple(int(name == parts[0]) for name in classes),
                patient=parts[1] if len(parts) > 2 and len(below) > 1 and _is_picture(path) else "",
            )
            for path, parts in places.items()
        ),
        private=True,
    )


def _is_picture(path: Path) -> bool:
    """Whether a file is no DICOM by its ending, which would know its patient."""
    return path.suffix.lower() in ENDINGS and path.suffix.lower() not in DICOM
