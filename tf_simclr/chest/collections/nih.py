"""NIH ChestX-ray14: 112,120 PNG radiographs of 30,805 patients, 14 findings that may occur together.

Layout: `Data_Entry_2017.csv` (any year), the images in `images/` or in the archives' `images_001/images/` …, and
where present the official split by patient, `train_val_list.txt` and `test_list.txt`.

References:
    Wang et al., ChestX-ray8, CVPR 2017, arXiv:1705.02315.
"""

from pathlib import Path

from tf_simclr.chest.collections.collection import Collection, Entry, files_by_name, read_table, unmatched
from tf_simclr.errors import InputError, check
from tf_simclr.foreign import reading

FINDINGS = (
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
CLASSES = (*FINDINGS, "No Finding")


def collection(folder: Path) -> Collection:
    """Reads the table and finds the files.

    Raises:
        InputError: the table or a column is missing, or a finding is none of the 14.
    """
    tables = sorted(folder.glob("Data_Entry_*.csv"))
    check(len(tables) == 1, "the folder must hold one Data_Entry_2017.csv", folder=str(folder), found=len(tables))
    rows = read_table(tables[0], columns=("Image Index", "Finding Labels", "Patient ID"))
    files, splits = files_by_name(folder), official_split(folder)
    listed = {row["Image Index"] for row in rows}
    return Collection(
        name="NIH ChestX-ray14",
        classes=CLASSES,
        entries=tuple(
            Entry(
                path=files[row["Image Index"]],
                image=row["Image Index"],
                labels=labels(row["Finding Labels"], where=f"{tables[0]}, line {line}"),
                patient=row["Patient ID"],
                study=row["Image Index"].rsplit(".", 1)[0],  # one image a visit
                split=splits.get(row["Image Index"], ""),
            )
            for line, row in enumerate(rows, 2)
            if row["Image Index"] in files
        ),
        problems=unmatched(f"a row of {tables[0].name} has no file", listed - files.keys())
        + unmatched(f"a file has no row in {tables[0].name}", files.keys() - listed),
    )


def labels(text: str, *, where: str) -> tuple[int, ...]:
    """0 or 1 for each class.

    Example:
        >>> [CLASSES[i] for i, there in enumerate(labels("Mass|Effusion", where="here")) if there]
        ['Effusion', 'Mass']
    """
    found = text.split("|")
    unknown = sorted(set(found) - set(CLASSES))
    if unknown:
        raise InputError(f"findings must be among {', '.join(CLASSES)}, {where}. Received: {unknown}")
    return tuple(int(name in found) for name in CLASSES)


def official_split(folder: Path) -> dict[str, str]:
    """Image → `train` or `test`, empty where the lists are absent.

    Raises:
        InputError: an image is in both.
    """
    lists = {"train": folder / "train_val_list.txt", "test": folder / "test_list.txt"}
    with reading(folder, "a folder whose lists of images are text"):
        names = {split: set(path.read_text().split()) for split, path in lists.items() if path.exists()}
    both = set.intersection(*names.values()) if len(names) == 2 else set()
    check(not both, f"no image may be in {lists['train']} and in test_list.txt", both=sorted(both)[:3])
    return {image: split for split, images in names.items() for image in images}
