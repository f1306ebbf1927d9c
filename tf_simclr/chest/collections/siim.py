"""SIIM-FISABIO-RSNA COVID-19 (Kaggle, 2021): 6,334 DICOM radiographs of 6,054 studies.

Layout: `train/<study>/<series>/<image>.dcm`, `train_study_level.csv` (ids end in `_study`; one of four appearances a
study), `train_image_level.csv` (ids end in `_image`; boxes).  Labels belong to studies: every image of a study has its
study's.  The patient stands in the DICOM alone.  Others have resized the images to PNG or JPEG, `train/<image>.png`: of
those nobody knows the patient, and the study stands for the patient.

References:
    Lakhani et al., The 2021 SIIM-FISABIO-RSNA Machine Learning COVID-19 Challenge, J Digit Imaging 36 (2023).
"""

import ast
from pathlib import Path

from tf_simclr.chest.collections.collection import (
    LINE,
    Collection,
    Entry,
    files_by_name,
    is_picture,
    read_table,
    unmatched,
    zero_or_one,
)
from tf_simclr.errors import InputError, check

CLASSES = ("Negative for Pneumonia", "Typical Appearance", "Indeterminate Appearance", "Atypical Appearance")
MADE_UP_NOTE = "MADE_UP.txt"
"""File in the folder of what `synthetic` writes."""


def collection(folder: Path, *, boxless_siblings: bool = True) -> Collection:
    """Reads the tables and finds the files.

    Args:
        folder: where `train` and the two tables are.
        boxless_siblings: keep images without boxes of studies that have another image with boxes: often poor repeats
            that nobody annotated.

    Raises:
        InputError: a table or a column is missing, or a cell is not what it should be.
    """
    # 1. Studies carry the labels, images their boxes.
    studies, table = _study_labels(folder / "train_study_level.csv"), folder / "train_image_level.csv"
    rows = read_table(table, columns=("id", "boxes", "StudyInstanceUID"))
    files = files_by_name(folder / "train" if (folder / "train").is_dir() else folder)
    made_up = (folder / MADE_UP_NOTE).exists()
    entries, listed = [], set()
    for row in rows:
        image, count = row["id"].removesuffix("_image"), boxes(row["boxes"], where=f"{table}, line {row[LINE]}")
        listed.add(image)
        if image in files:
            entries.append(_entry(image, files[image], study=row["StudyInstanceUID"], count=count, labels=studies))
    # 2. Without `boxless_siblings`, an image without boxes is left out where another of its study has some.
    boxed = {e.study for e in entries if e.boxes}
    kept = [e for e in entries if boxless_siblings or e.boxes or e.study not in boxed]
    nameless = sum(bool(entry.patient) for entry in kept)
    return Collection(
        name="made-up radiographs in SIIM's layout" if made_up else "SIIM-FISABIO-RSNA COVID-19",
        classes=CLASSES,
        made_up=made_up,
        entries=tuple(kept),
        problems=unmatched("a row of train_image_level.csv has no file", listed - files.keys())
        + unmatched("a file has no row in train_image_level.csv", files.keys() - listed)
        + (f"{nameless:,} images are no DICOM and name no patient; their study stands for it",) * bool(nameless),
    )


def _study_labels(path: Path) -> dict[str, tuple[int, ...]]:
    """Study → its appearance, one of four."""
    labels: dict[str, tuple[int, ...]] = {}
    for row in read_table(path, columns=("id", *CLASSES)):
        where = f"{path}, line {row[LINE]}"
        values = tuple(zero_or_one(row[name], where=where) for name in CLASSES)
        # One-hot: exactly one of four appearances.
        check(sum(values) == 1, f"a study must have one appearance, {where}", labels=values)
        study = row["id"].removesuffix("_study")
        there = labels.setdefault(study, values)
        check(there == values, f"a study must have one appearance, and has two, {where}", study=study)
    return labels


def boxes(text: str, *, where: str) -> int:
    """Number of boxes in a Python literal, a list of dictionaries; an empty cell has none.

    Example:
        >>> boxes("[{'x': 1.5, 'y': 2, 'width': 3, 'height': 4}]", where="here"), boxes("", where="here")
        (1, 0)
    """
    if not text.strip():
        return 0
    # A literal alone: `eval` would run what a table holds.
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise InputError(f"boxes must be a list of dictionaries, {where}. Received: {text[:40]!r}") from error
    check(isinstance(found, list) and all(isinstance(b, dict) for b in found), f"boxes must be a list, {where}")
    return len(found)


def _entry(image: str, path: Path, *, study: str, count: int, labels: dict[str, tuple[int, ...]]) -> Entry:
    """An image with its study's label."""
    # The table and the folders must tell the same: a file in another study's folder was sorted in by mistake.
    check(study in labels, "each study of train_image_level.csv must be in train_study_level.csv", study=study)
    other = [name for name in path.parts if name in labels and name != study]
    rule = "an image must lie in the folder of the study that train_image_level.csv gives it to"
    check(not other or study in path.parts, rule, image=image, table=study, folder=other)
    patient = study if is_picture(path) else ""  # a study is of one patient
    return Entry(path=path, image=image, labels=labels[study], patient=patient, study=study, boxes=count)
