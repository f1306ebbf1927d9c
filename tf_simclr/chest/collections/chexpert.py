"""CheXpert: 224,316 radiographs of 65,240 patients, 14 observations that may be uncertain or not mentioned.

Layout: `train.csv`, `valid.csv` and, where it is there, `test.csv` (in the release of the test set `val_labels.csv` and
`test_labels.csv`), with a path, sex, age, view and a column an observation: 1, 0, -1 (uncertain), empty (not said).
Paths begin with the release's name, `CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg`; the folder may
be called otherwise.  Without a table to test on the 200 patients of `valid.csv`, whom radiologists have labelled, are
those to test on, as in papers.

References:
    Irvin et al., CheXpert, AAAI 2019, arXiv:1901.07031
"""

from pathlib import Path

from tf_simclr.chest.collections.collection import (
    LATERAL_VIEW,
    LINE,
    Collection,
    Entry,
    attributes,
    read_table,
    unmatched,
    within,
    zero_one_or_unsure,
)
from tf_simclr.errors import check

_OBSERVATIONS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)

_TABLES = {
    "train": ("train.csv",),
    "validation": ("valid.csv", "val_labels.csv"),
    "test": ("test.csv", "test_labels.csv"),
}
"""Part → what its table is called, the first that is there."""


def collection(folder: Path) -> Collection:
    """Reads the tables and finds the files.

    Raises:
        InputError: a table or a column is missing, or a label is none of 1, 0, -1 and empty.
    """
    # 1. The tables that are there; some releases call them otherwise.
    tables = {part: [folder / name for name in names if (folder / name).is_file()] for part, names in _TABLES.items()}
    there = {part: paths[0] for part, paths in tables.items() if paths}
    check("train" in there, "the folder must hold CheXpert's train.csv", folder=str(folder), found=sorted(there))
    # Without a test table the validation table is what is tested on.
    if "test" not in there and "validation" in there:
        there["test"] = there.pop("validation")
    # 2. Row by row: the file, the labels, the patient by the path.
    entries, missing = [], []
    for part, table in there.items():
        for row in read_table(table, columns=("Path", *_OBSERVATIONS)):
            name = within(row["Path"])
            file = _placed(folder, name)
            if file is None:
                missing.append(name)
                continue
            where = f"{table}, line {row[LINE]}"
            sideways = row.get("Frontal/Lateral", "").lower().startswith("l") or name.lower().endswith("_lateral.jpg")
            view = {"view": LATERAL_VIEW} if sideways else {}
            entries.append(
                Entry(
                    path=file,
                    image=name,
                    labels=tuple(zero_one_or_unsure(row[one], where=f"{one} in {where}") for one in _OBSERVATIONS),
                    patient=_patient_of(name),
                    study=name.rsplit("/", 1)[0],
                    split=part if len(there) > 1 else "",
                    attributes=attributes(row) | view,
                    place=f"{table.name}, line {row[LINE]}",
                )
            )
    return Collection(
        name="CheXpert",
        classes=_OBSERVATIONS,
        entries=tuple(entries),
        problems=unmatched("a row has no file", missing),
        private=True,  # the names hold the patients' numbers
    )


def _placed(folder: Path, name: str) -> Path | None:
    """The file of a path that begins with the release's name, which the folder need not have; None without one.

    The patient's folder is always asked for: all patients have a `study1/view1_frontal.jpg`.
    """
    # Archives differ in how many folders they have around the patients' folders.
    parts, patient = name.split("/"), _patient_of(name)
    starts = range(parts.index(patient) + 1) if patient else range(1)
    places = [folder.parent / name, *(folder.joinpath(*parts[start:]) for start in starts)]
    return next((path for path in places if path.is_file()), None)


def _patient_of(name: str) -> str:
    """The patient's folder in a path.

    Example:
        >>> _patient_of("CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg")
        'patient00001'
    """
    found = [part for part in name.split("/") if part.startswith("patient")]
    return found[0] if found else ""
