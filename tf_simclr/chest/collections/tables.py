"""One's own radiographs: a csv file, or a folder in which folders are classes."""

from pathlib import Path

from tf_simclr.chest.collections.collection import Collection, Entry, files_by_name, read_table, unmatched
from tf_simclr.errors import check


def from_csv(table: Path, *, path: str = "path", label: str = "label", patient: str = "patient") -> Collection:
    """Radiographs that a csv file lists, their paths as they are or beside the file.

    Args:
        table: the csv file.
        path: column with the file.
        label: column with the class, any text; `a|b` means both.
        patient: column with the patient.  Without it a split by patient is impossible, so it is needed.

    Raises:
        InputError: the file or a column is missing, or a cell is empty.
    """
    rows = read_table(table, columns=(path, label, patient))
    empty = [i for i, row in enumerate(rows, 2) if not (row[path] and row[label].strip("| ") and row[patient])]
    check(not empty, f"each row of {table} must have a file, a label and a patient", empty_lines=empty[:3])
    classes = tuple(sorted({name for row in rows for name in row[label].split("|") if name}))
    there = [row for row in rows if (table.parent / row[path]).is_file()]
    return Collection(
        name=table.name,
        classes=classes,
        entries=tuple(
            Entry(
                path=table.parent / row[path],
                image=row[path],
                labels=tuple(int(name in row[label].split("|")) for name in classes),
                patient=row[patient],
                study=row.get("study") or row[path],
                split=row.get("split") or "",
            )
            for row in there
        ),
        problems=unmatched("a row has no file", {row[path] for row in rows} - {row[path] for row in there}),
    )


def from_folder(folder: Path) -> Collection:
    """Radiographs in class folders.  Their patients are those of the DICOMs; other files name none, each is its own."""
    files = [path for path in files_by_name(folder).values() if path.parent != folder]
    classes = tuple(sorted({path.relative_to(folder).parts[0] for path in files}))
    return Collection(
        name=str(folder),
        classes=classes,
        entries=tuple(
            Entry(
                path=path,
                image=str(path.relative_to(folder)),
                labels=tuple(int(name == path.relative_to(folder).parts[0]) for name in classes),
                patient="" if path.suffix.lower() in (".dcm", ".dicom") else str(path.relative_to(folder)),
                study="",
            )
            for path in files
        ),
    )
