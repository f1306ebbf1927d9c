"""`chest findings` on a few flat pictures, whole; what is unknown, and what nobody has, is told."""

import csv
import dataclasses
import json
import re
import shutil
import string

import numpy as np
import pytest

pytest.importorskip("pydicom", reason="pydicom is not installed (extra `chest`)")

from tests.chest import made
from tf_simclr import cli
from tf_simclr.chest.evaluate import models
from tf_simclr.chest.findings import command, fits
from tf_simclr.chest.model import of_findings
from tf_simclr.commands import finetune
from tf_simclr.commands.parts.images import labelled_sources
from tf_simclr.config import ChestFindings, Finetune, LinearEval, plain
from tf_simclr.data.pipeline import Unreadable, evaluation_batches
from tf_simclr.data.radiographs import NOT_MENTIONED, UNCERTAIN, partition
from tf_simclr.data.radiographs.prepared import load
from tf_simclr.errors import InputError
from tf_simclr.files import write_json

CLASSES = ("Mass", "Edema", "Hernia", "No Finding")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Two images a patient; a mass where the picture is bright, edema at random, a few uncertain, no hernia."""
    folder = made.folder(tmp_path_factory.mktemp("made") / "made", string.ascii_letters[:30] * 2, size=32).folder
    settings = json.loads((folder / "settings.json").read_bytes())
    write_json(folder / "settings.json", settings | {"classes": list(CLASSES)})
    rng, number = np.random.default_rng(0), 0
    for path in sorted(folder.glob("records-*.json")):
        rows = json.loads(path.read_bytes())["rows"]
        for row in rows:
            stated = [int(number % 30 > 15), int(rng.integers(0, 2)), 0, 0]
            stated[1] = UNCERTAIN if number % 10 == 3 else NOT_MENTIONED if number % 10 == 7 else stated[1]
            row["labels"], row["stated"] = [int(label == 1) for label in stated], stated
            number += 1
        write_json(path, {"rows": rows})
    return folder


def config(prepared, folder, **changed) -> ChestFindings:
    tiny = {"image_size": 32, "resnet_depth": 18, "l2_strengths": 3, "cache_dir": folder / "cache"}
    return ChestFindings(data=str(prepared), model_dir=folder / "run", **tiny | changed)


def test_uncertain_and_empty_labels_mean_what_is_asked_for(prepared):
    data = load(prepared)
    stated = data.stated[:, 1]
    assert {UNCERTAIN, NOT_MENTIONED, 0, 1} == set(stated.tolist())
    rows, names = partition.findings(data)
    assert names == ("Mass", "Edema", "Hernia")
    for uncertain, meaning in (("ignore", -1), ("ones", 1), ("zeros", 0)):
        for empty, nothing in (("ignore", -1), ("zeros", 0)):
            rows, _ = partition.findings(data, ["Edema"], uncertain=uncertain, not_mentioned=empty)
            assert set(rows[stated == UNCERTAIN, 0].tolist()) == {meaning}
            assert set(rows[stated == NOT_MENTIONED, 0].tolist()) == {nothing}
            np.testing.assert_array_equal(rows[stated >= 0, 0], stated[stated >= 0])
    with pytest.raises(InputError, match="Edema must be present or absent in each image"):
        data.column("Edema")
    with pytest.raises(InputError, match="findings must be among"):
        partition.findings(data, ["Fracture"])


def test_the_frozen_features_are_asked_and_the_report_says_what_has_no_auc(prepared, tmp_path, capsys):
    asked = config(prepared, tmp_path, labels_fractions=(0.5, 1.0), seeds=2)
    command.run(asked)
    run = tmp_path / "run"
    found = json.loads((run / "findings.json").read_bytes())
    assert list(found["lines"]) == [
        "random weights, frozen features, 50 % of the labels",
        "random weights, frozen features",
    ]
    line = found["lines"]["random weights, frozen features"]
    assert "none of the" in line["findings"]["Hernia"]["why"]
    assert line["mean_auc"]["over"] == 2
    assert line["mean_auc"]["without"] == ["Hernia"]
    assert line["findings"]["Edema"]["unknown"] > 0
    assert not found["published"]["comparable"]
    with (run / "findings.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    page = (run / "report.html").read_text()
    assert "Research use, not a diagnosis." in page
    assert "this is no comparison" in page
    assert "Hernia" in page
    out = capsys.readouterr().out
    assert "mean AUC of 2 findings" in out
    # What was done is not done again, and the model answers as the fit did.
    before = {path: path.stat().st_mtime_ns for path in (run / "fits").glob("*.npz")}
    assert len(before) == 4
    command.run(asked)
    assert {path: path.stat().st_mtime_ns for path in (run / "fits").glob("*.npz")} == before
    model = of_findings.load(run)
    assert model.findings == ("Mass", "Edema")
    known = model.held_labels[:, 0] >= 0
    assert known.all()
    asked_again = models.opened(run)
    rows = np.sort(partition.parts(load(prepared))["validation"])
    scores, _ = asked_again.answers(load(prepared), rows, batch_size=16)
    np.testing.assert_allclose(scores[:, 0], model.held_scores[:, 0], atol=1e-3)
    assert asked_again.findings[0] == "Mass"


def test_a_share_of_the_patients_lies_within_a_larger_one_and_takes_all_their_images(prepared, tmp_path):
    task = fits.Task(config(prepared, tmp_path), load(prepared), None)
    few, many = (task.drawn(share, seed=3)["train"] for share in (0.2, 0.6))
    assert set(few.tolist()) < set(many.tolist()) < set(task.rows["train"].tolist())
    patients = task.data.patients
    assert set(np.flatnonzero(np.isin(patients, patients[few])).tolist()) & set(task.rows["train"].tolist()) == set(
        few.tolist()
    )
    assert not set(patients[task.rows["test"]]) & set(patients[many])


def test_a_damaged_fit_is_made_again_and_nothing_to_learn_is_refused(prepared, tmp_path, capsys):
    asked = config(prepared, tmp_path, findings=("Mass",))
    command.run(asked)
    (path,) = (tmp_path / "run/fits").glob("*.npz")
    path.write_bytes(path.read_bytes()[:-30])
    command.run(asked)
    assert "a kept training is made again" in capsys.readouterr().err
    with pytest.raises(InputError, match="at least one finding must be present"):
        command.run(dataclasses.replace(asked, findings=("Hernia",)))
    write_json(tmp_path / "config.json", plain(asked))
    assert cli.parse(["--config", str(tmp_path / "config.json")]) == asked


def test_validation_patients_choose_and_are_not_learned_from(prepared, tmp_path, monkeypatch):
    """With one strength to choose from nothing may hang on their labels; and noise is not told from noise."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(len(load(prepared)), 200))
    monkeypatch.setattr(fits, "features_of", lambda task, network: noise)
    asked = config(prepared, tmp_path, l2_strengths=1, findings=("Mass",))
    first = fits.Task(asked, load(prepared), None)
    turned = fits.Task(asked, load(prepared), None)
    rows = first.rows["validation"]
    turned.labelled[0][rows] = 1 - turned.labelled[0][rows]
    one, other = (fits.linear(task, "any", drawn=task.drawn(1.0, seed=0)) for task in (first, turned))
    np.testing.assert_array_equal(one.kernel, other.kernel)
    np.testing.assert_array_equal(one.validation, other.validation)
    learned = first.truth[first.rows["train"]][:, 0]
    assert 0.1 < fits.validation_auc(first, one) < 0.9
    said = noise[first.rows["train"]] @ one.kernel[:, 0]
    assert said[learned == 1].min() > said[learned == 0].max()  # which it does tell apart


@pytest.mark.slow
def test_all_of_the_network_is_fine_tuned(prepared, tmp_path, capsys):
    command.run(config(prepared, tmp_path, ways=("finetune",), train_epochs=1, train_batch_size=16))
    found = json.loads((tmp_path / "run/findings.json").read_bytes())["lines"]["random weights, fine-tuned"]
    assert found["mean_auc"]["over"] == 2
    assert of_findings.load(tmp_path / "run").findings == ("Mass", "Edema")
    capsys.readouterr()
    command.run(config(prepared, tmp_path, ways=("finetune",), train_epochs=1, train_batch_size=16))
    assert "step 1/" not in capsys.readouterr().err


@pytest.mark.slow
def test_all_of_the_network_is_fine_tuned_for_one_finding(prepared, tmp_path):
    command.run(config(prepared, tmp_path, ways=("finetune",), findings=("Mass",), train_epochs=1, train_batch_size=16))
    found = json.loads((tmp_path / "run/findings.json").read_bytes())["lines"]["random weights, fine-tuned"]
    assert found["mean_auc"]["over"] == 1
    assert models.opened(tmp_path / "run").findings == ("Mass",)


def test_finetune_takes_several_columns_and_linear_eval_says_which_command_does(prepared, tmp_path):
    known = {"radiographs": prepared, "train_split": "train", "eval_split": "test"}
    train, test = labelled_sources(Finetune(**known), several=True)
    assert train.several
    assert train.class_names == test.class_names == ("Mass", "Edema", "Hernia")
    _, labels, _ = next(iter(evaluation_batches(test, batch_size=4, image_size=8, unreadable=Unreadable())))
    assert labels.shape == (4, 3)
    assert set(np.unique(labels)) <= {-1, 0, 1}
    with pytest.raises(InputError, match="have several findings each: name one by --positive, or use `chest findings`"):
        labelled_sources(LinearEval(**known, checkpoint=tmp_path))
    with pytest.raises(InputError, match="labels_fraction takes each class alike"):
        finetune.labels(Finetune(**known, labels_fraction=0.5), train)


def test_made_up_radiographs_are_told_in_every_file_and_stand_beside_nobodys_numbers(prepared, tmp_path, capsys):
    again = shutil.copytree(prepared, tmp_path / "ready")
    settings = json.loads((again / "settings.json").read_bytes())
    write_json(again / "settings.json", settings | {"made_up": True})
    command.run(config(again, tmp_path, findings=("Mass",)))
    run = tmp_path / "run"
    left = {name: (run / name).read_text() for name in ("findings.json", "findings.csv", "report.html")}
    left |= {"card": (run / of_findings.FOLDER / "card.json").read_text(), "screen": capsys.readouterr().out}
    assert {name: bool(re.search("made.up", text)) for name, text in left.items()} == dict.fromkeys(left, True)
    assert not [name for name, text in left.items() if "Xiao" in text or "82.2" in text or "0.822" in text]
    assert models.opened(run).made_up
