"""Whose images are whose, and where they go: drawn at random, alike in all parts, and said where nobody knows."""

import dataclasses
import json
import os
import stat

import keras
import numpy as np
import pytest
from pyarrow import parquet

from tests.chest.dicoms import content, dataset, stored
from tf_simclr.chest.collections import command, nih, prepare, siim, synthetic, tables
from tf_simclr.chest.files.squares import pseudonym
from tf_simclr.commands import embed, linear_eval
from tf_simclr.config import ChestPrepare, Embed, LinearEval
from tf_simclr.data.examples import Unreadable
from tf_simclr.data.radiographs import partition, splits
from tf_simclr.data.radiographs.patients import reconciled
from tf_simclr.data.radiographs.prepared import load
from tf_simclr.errors import InputError
from tf_simclr.run_folder import RunFolder
from tf_simclr.training.results import Result

SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}


@pytest.fixture(scope="module")
def hospital():
    """1,500 patients, most with one image, some with a hundred and more; the ill come more often."""
    rng = np.random.default_rng(3)
    ill = rng.random(1500) < 0.2
    images = np.minimum(1 + rng.zipf(2.0 - 0.3 * ill), 150)
    patients = np.repeat([f"p{i}" for i in range(1500)], images)
    labels = np.repeat(ill, images) & (rng.random(len(patients)) < 0.7)  # and not in each of their images
    order = rng.permutation(len(patients))
    return patients[order], labels[order].astype(int)


def test_a_simulated_hospital_has_equal_images_a_patient_in_all_parts(hospital):
    patients, labels = hospital
    known = len(patients) / len(set(patients))
    found = {name: [] for name in SHARES}
    often = max(set(patients), key=list(patients).count)
    trained = 0
    for seed in range(40):
        parts = splits.by_patient(list(patients), SHARES, labels=labels, seed=seed)
        assert set(splits.shared(list(patients), parts).values()) == {0}
        for name, rows in parts.items():
            found[name].append([len(rows) / len(set(patients[rows])), labels[rows].mean()])
        trained += often in set(patients[parts["train"]])
    for name, numbers in found.items():
        mean, error = np.mean(numbers, axis=0), np.std(numbers, axis=0) / np.sqrt(40)
        assert abs(mean[0] - known) < 4 * error[0] + 0.01 * known, name
        assert abs(mean[1] - labels.mean()) < 4 * error[1] + 0.005, name
    assert 18 <= trained <= 37  # of 40: in 28 on average, and not always


def test_a_split_does_not_depend_on_what_patients_are_called(hospital):
    patients, labels = hospital
    renamed = [pseudonym(name, salt="another") for name in patients]
    first = splits.by_patient(list(patients), SHARES, labels=labels, seed=1)
    again = splits.by_patient(renamed, SHARES, labels=labels, seed=1)
    for name, rows in first.items():
        np.testing.assert_array_equal(rows, again[name])


def test_each_part_has_both_classes_where_two_patients_have_them():
    for seed in range(30):
        parts = splits.by_patient(list("abcdefgh"), {"train": 0.85, "test": 0.15}, labels=np.arange(8) // 6, seed=seed)
        assert all(len(set((np.arange(8) // 6)[rows])) == 2 for rows in parts.values())


# --- who a patient is ---------------------------------------------------------------------------------------------


def test_patients_that_table_and_files_group_differently_are_one():
    others = list("hijklm")
    patients, said = reconciled(list("aabbc") + others, list("12233") + [""] * 6, images=list("vwxyz") + others)
    assert len(set(patients[:5])) == 1
    assert list(patients[5:]) == others
    assert "contradict each other in 2 patients" in said[0]
    patients, said = reconciled(["a", "a", "b", "c"], ["1", "2", "3", "4"], images=list("wxyz"))
    assert (len(set(patients)), len(set(patients[:2]))) == (3, 1)
    assert "contradict each other in 1 patient:" in said[0]


def test_a_placeholder_for_all_is_no_patient():
    patients, said = reconciled(list("abcd"), ["anonymous"] * 4, images=list("wxyz"))
    assert list(patients) == list("abcd")
    assert said == ("the files name one patient for all, and are not heard; the table's patients count",)
    patients, said = reconciled(list("abcde"), ["anonymous"] * 4 + ["e"], images=list("vwxyz"))
    assert list(patients) == list("abcde")
    assert "so the table's count" in said[0]


def test_no_patient_and_one_for_all_are_said():
    patients, said = reconciled([""] * 3, ["", "", "p"], images=list("xyz"))
    assert list(patients) == ["x", "y", "p"]
    assert said[0].startswith("2 of 3 images name no patient")
    assert "all 3 images name one patient" in reconciled([""] * 3, ["p"] * 3, images=list("xyz"))[1][0]
    assert reconciled(list("aab"), list("112"), images=list("xyz"))[1] == ()


def files(folder, patients, *, kind="sick"):
    for number, patient in enumerate(patients):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        data = dataset(stored(12, shape=(32, 32)), bits=12, PatientID=patient)
        (folder / kind / f"{number}.dcm").write_bytes(content(data))


def test_contradictions_are_said_before_a_split_is_made(tmp_path, capsys):
    files(tmp_path / "raw", ["P1", "P1", "P2", "P3"])
    rows = "".join(f"sick/{i}.dcm,{'ab'[i % 2]},{p}\n" for i, p in enumerate(["t1", "t2", "t3", "t4"]))
    (tmp_path / "raw" / "own.csv").write_text("path,label,patient\n" + rows)
    prepare.prepare(tables.from_csv(tmp_path / "raw" / "own.csv"), tmp_path / "ready", size=16, workers=1)
    found = load(tmp_path / "ready")
    assert "contradict each other in 1 patient" in capsys.readouterr().err
    assert found.patients[0] == found.patients[1]
    assert len(set(found.patients)) == 3


# --- the split that a collection comes with -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chest")
    synthetic.write(folder / "raw", 24, size=32, seed=0)
    prepare.prepare(siim.collection(folder / "raw"), folder / "ready", size=16)
    return load(folder / "ready")


def given(ready, words):
    _, patient = np.unique(ready.patients, return_inverse=True)
    return dataclasses.replace(ready, splits=np.array(words)[patient % len(words)]), patient


@pytest.mark.parametrize(
    "words", [("train", "VAL", "Test"), ("Training", "dev", "testing"), ("TRAIN", " valid", "TST")]
)
def test_a_given_split_is_used_whatever_its_parts_are_called(ready, words):
    own, patient = given(ready, words)
    parts = partition.parts(own, positive="Typical Appearance")
    for number, name in enumerate(("train", "validation", "test")):
        np.testing.assert_array_equal(parts[name], np.flatnonzero(patient % 3 == number))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("train", "val"), "must have images to train and to test on"),
        (("train", "test", ""), "must name a part for each image or for none"),
        (("train", "test", "fold3"), "a split must be one of train, validation, test"),
    ],
)
def test_a_given_split_that_cannot_be_used_is_refused_and_never_ignored(ready, words, reason):
    with pytest.raises(InputError, match=reason):
        partition.parts(given(ready, words)[0], positive="Typical Appearance")


@pytest.mark.parametrize("only", ["test_list.txt", "train_val_list.txt"])
def test_one_of_nihs_lists_says_where_the_other_images_are(tmp_path, only):
    rows = [f"0000000{i}_000.png,No Finding,0,{i}" for i in range(1, 5)]
    (tmp_path / "Data_Entry_2017.csv").write_text(
        "\n".join(["Image Index,Finding Labels,Follow-up #,Patient ID", *rows])
    )
    (tmp_path / "images").mkdir()
    for row in rows:
        (tmp_path / "images" / row.split(",")[0]).write_bytes(b"")
    (tmp_path / only).write_text("00000002_000.png\n\n00000004_000.png\n")
    named = "test" if only == "test_list.txt" else "train"
    other = {"test": "train", "train": "test"}[named]
    assert [entry.split for entry in nih.collection(tmp_path).entries] == [other, named, other, named]


# --- what is written ----------------------------------------------------------------------------------------------


def test_no_path_no_uid_and_no_patient_is_in_what_is_written_or_said(tmp_path, capsys):
    raw = tmp_path / "Saint Elsewhere"
    files(raw, ["4711", "4712", "4713"])
    files(raw, ["4714", "4715"], kind="well")
    (raw / "well" / "smith_jane.dcm").write_bytes(b"not a radiograph at all")
    command.run(ChestPrepare(raw=raw, out=tmp_path / "ready", source="folder", size=16, workers=1))
    said = capsys.readouterr()
    written = b"".join(path.read_bytes() for path in (tmp_path / "ready").iterdir())
    secrets = ["4711", "4715", "1.2.1", "1.2.3", "smith", "0.dcm", str(raw), str(tmp_path)]
    for secret in secrets:
        assert secret.encode() not in written, secret
        assert secret not in (said.out + said.err).replace(str(tmp_path / "ready"), ""), secret
    names = (tmp_path / "ready.names.csv").read_text()
    assert "well/smith_jane.dcm" in names
    report = json.loads((tmp_path / "ready" / "report.json").read_text())
    ((code, reason),) = report["refused"].items()
    assert f"{code},well/smith_jane.dcm" in names
    assert "first bytes" in reason
    for name in ("ready.salt", "ready.names.csv"):
        assert stat.S_IMODE(os.stat(tmp_path / name).st_mode) == 0o600


def test_pseudonyms_differ_from_folder_to_folder_and_cannot_be_made_without_the_salt(tmp_path):
    files(tmp_path / "raw", ["4711", "4711", "4712"])
    found = []
    for name in ("one", "two"):
        prepare.prepare(tables.from_folder(tmp_path / "raw"), tmp_path / name, size=16, workers=1)
        found.append(load(tmp_path / name))
    assert not set(found[0].patients) & set(found[1].patients)
    assert [len(set(f.patients)) for f in found] == [2, 2]
    assert pseudonym("4711", salt="") not in set(found[0].patients)
    (tmp_path / "one.salt").unlink()
    with pytest.raises(InputError, match=r"one\.salt, which the pseudonyms in .* were made with, must be there"):
        prepare.prepare(tables.from_folder(tmp_path / "raw"), tmp_path / "one", size=16, workers=1)


def test_a_class_that_its_grey_levels_tell_and_a_device_that_stands_out_are_named(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for kind, grey in (("bright", 3000), ("dark", 1000)):
        (tmp_path / "raw" / kind).mkdir(parents=True)
        for number in range(12):
            values = np.clip(rng.normal(grey, 300, (32, 32)), 0, 4095).astype(np.uint16)
            more = {"Manufacturer": "Maker" if kind == "dark" else "Other", "PatientID": f"{kind}{number}"}
            data = dataset(values, bits=12, WindowCenter=2048, WindowWidth=4096, PatientSex="F", **more)
            (tmp_path / "raw" / kind / f"{number}.dcm").write_bytes(content(data))
    command.run(ChestPrepare(raw=tmp_path / "raw", out=tmp_path / "ready", source="folder", size=16, workers=1))
    said = capsys.readouterr().out
    assert "bright can be told by its grey levels alone (AUC 1.00 by brightness" in said
    assert "the images of Maker have a median grey level of 0.24" in said
    found = load(tmp_path / "ready")
    assert set(found.attributes["sex"]) == {"F"}
    assert set(found.attributes["device"]) == {"Maker", "Other"}
    assert not found.made_up


def test_made_up_radiographs_say_so_wherever_they_are_prepared(tmp_path, capsys):
    synthetic.write(tmp_path / "raw", 8, size=32)
    options = {"out": tmp_path / "ready", "size": 16, "workers": 1}
    command.run(ChestPrepare(raw=tmp_path / "raw", source="siim", **options))  # as if they were SIIM's
    assert "radiographs are made up" in capsys.readouterr().out
    found = load(tmp_path / "ready")
    assert found.made_up
    assert "SIIM-FISABIO" not in found.name
    source = partition.part(found, "train", positive="Typical Appearance")
    assert "made up" in source.notes[0]
    assert "made up" in source.origin
    (tmp_path / "raw" / "MADE_UP.txt").unlink()  # the files themselves know it, too
    command.run(ChestPrepare(raw=tmp_path / "raw" / "train", source="folder", **options | {"out": tmp_path / "again"}))
    assert load(tmp_path / "again").made_up
    assert json.loads((tmp_path / "again" / "report.json").read_text())["made_up"]


def test_made_up_radiographs_are_said_to_be_so_in_a_commands_numbers(ready, tmp_path, capsys, monkeypatch):
    images = keras.Input((16, 16, 3))
    encoder = keras.Model(images, keras.layers.GlobalAveragePooling2D()(images))
    monkeypatch.setattr(linear_eval, "load_features_network", lambda config: encoder)
    linear_eval.run(
        LinearEval(
            checkpoint=tmp_path / "encoder.keras",
            radiographs=ready.folder,
            positive="Typical Appearance",
            eval_split="test",
            image_size=16,
            l2_strengths=2,
            cache_dir=tmp_path / "cache",
            result=tmp_path / "result.json",
        )
    )
    (note,) = json.loads((tmp_path / "result.json").read_text())["notes"]
    assert "made up" in note
    said = capsys.readouterr()
    assert "made up" in said.err
    assert "(made up)" in said.out


@pytest.mark.parametrize("ending", [".npz", ".parquet"])
def test_made_up_radiographs_are_said_to_be_so_in_a_file_of_features(ready, tmp_path, monkeypatch, ending):
    images = keras.Input((16, 16, 3))
    pool = {"final_avg_pool": keras.layers.GlobalAveragePooling2D()(images)}
    monkeypatch.setattr(embed, "load_model", lambda path, ema: keras.Model(images, pool))
    out = tmp_path / f"features{ending}"
    embed.run(Embed(checkpoint=tmp_path / "encoder.keras", radiographs=ready.folder, image_size=16, out=out))
    if ending == ".npz":
        with np.load(out) as stored:
            notes = stored["notes"].tolist()
    else:
        notes = json.loads(parquet.read_schema(out).metadata[b"notes"])
    assert any("made up" in note for note in notes)


def test_made_up_radiographs_are_said_to_be_so_in_a_trainings_result(ready, tmp_path):
    source = partition.part(ready, "train", positive="Typical Appearance")
    folder = RunFolder(tmp_path)
    Result(folder, Unreadable(), notes=source.notes).write()
    assert "made up" in json.loads(folder.result.read_text())["notes"][0]
