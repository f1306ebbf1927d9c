"""CheXpert's folder as it is handed out: its tables, paths, views and uncertain labels, as far as the numbers."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("pydicom", reason="pydicom is not installed (extra `chest`)")

from tf_simclr.chest.collections import chexpert, command
from tf_simclr.config import ChestPrepare
from tf_simclr.data.radiographs import NOT_MENTIONED, UNCERTAIN, partition
from tf_simclr.data.radiographs.prepared import load
from tf_simclr.errors import InputError

HEAD = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,"
    "Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)
RELEASE = "CheXpert-v1.0-small"
# The release's own first lines, and some of each kind: what is said of patient, view, and the fourteen cells.
ROWS = {
    "train": [
        ("patient00001/study1/view1_frontal.jpg", "Female,68,Frontal,AP", "1.0,,,,,,,,,0.0,,,,1.0"),
        ("patient00002/study2/view1_frontal.jpg", "Female,87,Frontal,AP", ",,-1.0,1.0,,-1.0,-1.0,,-1.0,,-1.0,,1.0,"),
        ("patient00002/study1/view2_lateral.jpg", "Female,83,Lateral,", ",,,1.0,,,-1.0,,,,,,1.0,"),
        ("patient00003/study1/view1_frontal.jpg", "Male,41,Frontal,PA", ",,0.0,,,1.0,,,,,,,,"),
    ],
    "valid": [
        ("patient64541/study1/view1_frontal.jpg", "Male,73,Frontal,AP", "0.0,1.0,1.0,1.0" + ",0.0" * 10),
    ],
}  # fmt: skip


@pytest.fixture
def release(tmp_path):
    """Writes the tables and a file a row, in the folder that is given or the release's own."""

    def write(called: str = RELEASE, tables=("train.csv", "valid.csv"), head: str = HEAD, rows=ROWS):
        for (part, of), table in zip(rows.items(), tables, strict=True):
            lines = [head]
            for number, (path, said, labels) in enumerate(of):
                lines.append(f"{RELEASE}/{part}/{path},{said},{labels}")
                file = tmp_path / called / part / path
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.random.default_rng(number).integers(0, 256, (40, 32), np.uint8)).save(file)
            (tmp_path / called / table).write_text("\n".join(lines) + "\n")
        return tmp_path / called

    return write


@pytest.mark.parametrize("called", [RELEASE, "downloads"])
def test_labels_patients_and_views_are_those_of_the_table(release, called):
    found = chexpert.collection(release(called))
    assert found.classes == tuple(HEAD.split(",")[5:])
    assert (found.problems, found.private) == ((), True)
    wanted = {"": NOT_MENTIONED, "1.0": 1, "0.0": 0, "-1.0": UNCERTAIN}
    written = [row for rows in ROWS.values() for row in rows]
    for entry, (path, _, labels) in zip(found.entries, written, strict=True):
        assert entry.image.endswith(path)
        assert entry.labels == tuple(wanted[cell] for cell in labels.split(","))
        assert entry.patient == path.split("/")[0]
        assert entry.path.is_file()
    assert len({e.study for e in found.entries}) == 5
    assert [e.attributes["view"] for e in found.entries] == ["AP", "AP", "LATERAL", "PA", "AP"]
    assert [e.split for e in found.entries] == ["train"] * 4 + ["test"]  # whom radiologists have labelled
    assert found.entries[3].attributes == {"sex": "Male", "age": "41", "view": "PA"}


def test_with_the_test_set_the_validation_part_is_one(release):
    test = [("patient64741/study1/view1_frontal.jpg", "Male,50,Frontal,AP", ",".join(["0.0"] * 14))]
    names = ("train.csv", "val_labels.csv", "test_labels.csv")
    found = chexpert.collection(release(tables=names, rows=ROWS | {"test": test}))
    assert [entry.split for entry in found.entries] == ["train"] * 4 + ["validation", "test"]


def test_a_missing_file_a_strange_label_and_a_missing_table_are_told(release):
    folder = release()
    (folder / "train" / ROWS["train"][0][0]).unlink()
    assert chexpert.collection(folder).problems == (f"a row has no file: {RELEASE}/train/{ROWS['train'][0][0]}",)
    table = folder / "train.csv"
    table.write_text(table.read_text().replace(",,0.0,,,1.0", ",,0.0,,,2.0"))
    with pytest.raises(InputError, match=r"must be 1, 0, -1 or empty, Edema in .*train.csv, line 5.*'2.0'"):
        chexpert.collection(folder)
    table.write_text(table.read_text().replace("Fracture,", ""))
    with pytest.raises(InputError, match=r"must have the columns.*missing=\['Fracture'\]"):
        chexpert.collection(folder)
    table.unlink()
    with pytest.raises(InputError, match=r"must hold CheXpert's train.csv"):
        chexpert.collection(folder)


def test_prepared_it_keeps_what_was_uncertain_and_names_no_patient(release, tmp_path, capsys):
    folder = release()
    command.run(ChestPrepare(raw=folder, source="chexpert", out=tmp_path / "ready", size=16, workers=1))
    said = capsys.readouterr().out
    assert "1 a lateral view by its table" in said
    data = load(tmp_path / "ready")
    written = list(
        csv.reader(line[2] for rows in ROWS.values() for line in sorted(rows))
    )  # kept in order of their names
    edema = data.classes.index("Edema")
    assert data.stated[:, edema].tolist() == [
        {"": NOT_MENTIONED, "-1.0": UNCERTAIN}.get(row[edema], row[edema] == "1.0") for row in written
    ]
    for uncertain, meaning in (("ignore", -1), ("zeros", 0), ("ones", 1)):  # U-Ignore, U-Zeros, U-Ones
        rows, names = partition.findings(data, ("Edema",), uncertain=uncertain)
        assert (names, rows[:, 0].tolist()) == (("Edema",), [0, 0, meaning, 1, 0])
    with pytest.raises(InputError, match="must be present or absent"):
        data.column("Edema")
    assert len(set(data.patients)) == 4
    assert data.patients[1] == data.patients[2]
    assert set(data.attributes["sex"]) == {"F", "M"}
    for file in (tmp_path / "ready").glob("*.json"):
        assert "patient0" not in json.dumps(json.loads(file.read_bytes()))
