"""The ARDS pipeline: its order, that it goes on where it was stopped, who sees test patients; and all of it, tiny."""

import dataclasses
import json
import string
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

pytest.importorskip("pydicom", reason="pydicom is not installed (extra `chest`)")
pytest.importorskip("optuna", reason="Optuna is not installed (extra `sweep`)")

from tests.chest import made
from tf_simclr import cli
from tf_simclr.chest.ards import command as chest_ards
from tf_simclr.chest.ards import report as ards_report
from tf_simclr.chest.ards import runs as ards_runs
from tf_simclr.chest.ards.numbers import Asked, Way
from tf_simclr.chest.ards.stages import STAGES
from tf_simclr.chest.model import deployed
from tf_simclr.commands import supervised
from tf_simclr.config import ChestArds, plain
from tf_simclr.data.radiographs.prepared import load
from tf_simclr.errors import InputError
from tf_simclr.evaluation.features import Features
from tf_simclr.evaluation.reports import read_answers
from tf_simclr.files import write_json


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return made.folder(tmp_path_factory.mktemp("ards") / "made", string.ascii_lowercase * 2, size=32).folder


@pytest.fixture
def calls(monkeypatch):
    """Instead of trainings and tests, what would have been run: name and folder within the pipeline's."""
    called = []

    def note(name, result):
        def run(pipeline, place, **options):
            called.append((name, str(place.relative_to(pipeline.config.model_dir)), options))
            return result

        return run

    def answer(pipeline, networks, *, part, result):
        note(f"asked about {part}", None)(pipeline, result.parent)

    def probe(config):
        called.append((f"probed on {config.eval_split}", config.result.parent.name, {}))

    def classifiers(pipeline, folder, **options):
        return [note("trained", folder / "seed-0")(pipeline, folder, **options)] * pipeline.config.seeds

    found = {"best": {}, "trial": "trial-000", "trials": []}
    initial = chest_ards.STEPS["initial"]._replace(run=note("initial", {"architecture": {}, "counts": {}}))
    monkeypatch.setitem(chest_ards.STEPS, "initial", initial)
    monkeypatch.setattr(chest_ards, "run_pretraining", note("pretrained", {"step": 1}))
    monkeypatch.setattr(chest_ards, "run_finetuning", note("fine-tuned", {}))
    monkeypatch.setattr(chest_ards, "search", note("searched", found))
    monkeypatch.setattr(chest_ards, "classifiers", classifiers)
    monkeypatch.setattr(chest_ards, "answer", answer)
    monkeypatch.setattr(chest_ards.linear_eval, "run", probe)
    monkeypatch.setattr(
        chest_ards.ards_report, "write", lambda pipeline, folder: called.append(("reported", "", {})) or ""
    )
    monkeypatch.setattr(chest_ards, "Pipeline", pipeline_with_encoder)
    return called


class pipeline_with_encoder(ards_runs.Pipeline):
    """A pipeline whose networks are nowhere."""

    @property
    def first_encoder(self):
        return self.stage("initial").path / "network.keras"


def config(prepared, folder, **changed) -> ChestArds:
    return ChestArds(radiographs=str(prepared), positive="ARDS", model_dir=folder, **changed)


def names(calls) -> list[str]:
    return [name for name, _, _ in calls]


def test_eight_stages_in_order_and_none_twice(prepared, calls, tmp_path, capsys):
    chest_ards.run(config(prepared, tmp_path / "run"))
    err = capsys.readouterr().err
    assert [f"stage {i} of 8, {name}: " in err for i, name in enumerate(STAGES, 1)] == [True] * 8
    assert names(calls)[:5] == ["initial", "pretrained", "probed on validation", "fine-tuned", "searched"]
    before = len(calls)
    chest_ards.run(config(prepared, tmp_path / "run"))
    assert names(calls)[before:] == ["reported"]
    assert "whole in" in capsys.readouterr().err


def test_test_patients_are_asked_about_after_every_choice_of_their_way_and_nowhere_else(prepared, calls, tmp_path):
    chest_ards.run(config(prepared, tmp_path / "run"))
    where = [(name, place.split("/")) for name, place, _ in calls]
    asked = [(i, place) for i, (name, place) in enumerate(where) if name.endswith("test")]
    assert [place[-1] for _, place in asked if place[0] != "6-evaluate"] == ["supervised", "moco"]
    assert len(asked) == 4  # by the choice, its frozen features, and two other ways: once each
    for at, place in asked:
        chosen = [i for i, (name, of) in enumerate(where) if name == "searched" and of[:-1][1:] == place[1:]]
        assert all(i < at for i in chosen)


def test_a_stopped_pipeline_goes_on_with_the_stage_that_was_stopped(prepared, calls, tmp_path, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    whole = chest_ards.search
    monkeypatch.setattr(chest_ards, "search", stopped)
    with pytest.raises(KeyboardInterrupt):
        chest_ards.run(config(prepared, tmp_path / "run"))
    monkeypatch.setattr(chest_ards, "search", whole)
    before = len(calls)
    chest_ards.run(config(prepared, tmp_path / "run"))
    assert names(calls)[before] == "searched"
    assert names(calls).count("pretrained") == 2  # SimCLR, MoCo


def test_more_seeds_and_ways_are_added_and_other_knobs_are_refused(prepared, calls, tmp_path):
    chest_ards.run(config(prepared, tmp_path / "run", seeds=2, moco=False))
    before = len(calls)
    chest_ards.run(config(prepared, tmp_path / "run", seeds=2))
    assert {place.split("/")[0] for _, place, _ in calls[before:-1]} == {"7-compare"}
    assert names(calls)[before] == "searched"
    assert "7-compare/moco/pretrain" in {place for _, place, _ in calls[before:]}
    before = len(calls)
    chest_ards.run(config(prepared, tmp_path / "run", seeds=3))
    assert {place.split("/")[0] for _, place, _ in calls[before:-1]} == {"6-evaluate", "7-compare"}
    with pytest.raises(
        InputError, match=r"2-pretrain must be of the same settings.*pretrain_epochs='100 there, 7 here'"
    ):
        chest_ards.run(config(prepared, tmp_path / "run", pretrain_epochs=7))


@pytest.mark.parametrize("damage", [b"", b"[1]", b"{}", b'{"settings": 1}', b'{"settings": {}, "result": 2}'], ids=repr)
def test_a_damaged_stage_is_one_sentence_that_names_it(prepared, calls, tmp_path, damage):
    chest_ards.run(config(prepared, tmp_path / "run", stage="initial"))
    note = tmp_path / "run" / "1-initial" / "stage.json"
    note.write_bytes(damage)
    for stage in ("initial", "pretrain"):
        with pytest.raises(InputError, match=r"1-initial/stage\.json must "):
            chest_ards.run(config(prepared, tmp_path / "run", stage=stage))


def test_a_stage_alone_runs_alone(prepared, calls, tmp_path):
    with pytest.raises(InputError, match="must have stage initial before it"):
        chest_ards.run(config(prepared, tmp_path / "run", stage="pretrain"))
    for stage in ("initial", "pretrain", "finetune"):
        chest_ards.run(config(prepared, tmp_path / "run", stage=stage))
    assert names(calls) == ["initial", "pretrained", "fine-tuned"]


def test_the_ways_differ_in_where_they_begin_and_in_nothing_else(prepared, calls, tmp_path, monkeypatch):
    monkeypatch.setattr(chest_ards, "content_of", lambda path, **_: str(path))
    chest_ards.run(config(prepared, tmp_path / "run", checkpoint=tmp_path))
    starts = {place: options["checkpoint"] for name, place, options in calls if name == "searched"}
    root = tmp_path / "run"
    assert starts == {
        "5-grid/search": root / "2-pretrain/run",
        "7-compare/supervised/search": None,
        "7-compare/checkpoint/search": root / "1-initial/network.keras",
        "7-compare/moco/search": root / "7-compare/moco/pretrain",
    }


def test_the_configuration_comes_back_from_its_file(prepared, tmp_path):
    given = config(prepared, tmp_path, grid_epochs=(3, 5), stage="grid")
    write_json(tmp_path / "config.json", plain(given))
    assert cli.parse(["--config", str(tmp_path / "config.json")]) == given


def test_a_class_must_be_named_and_be_there(prepared, tmp_path):
    with pytest.raises(InputError, match="positive must name the class"):
        ChestArds(radiographs=str(prepared))
    with pytest.raises(InputError, match="the class must be one of ARDS, No Finding"):
        chest_ards.run(dataclasses.replace(config(prepared, tmp_path), positive="Mass"))


def test_fine_tuning_says_the_auc_of_two_classes_that_both_occur():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(40, 2)).astype(np.float32), np.arange(40) % 2
    found = supervised.ranked(Features(logits, labels, None))["auc"]
    assert found["value"] == pytest.approx(roc_auc_score(labels, logits[:, 1] - logits[:, 0]))
    assert found["low"] < found["value"] < found["high"]
    assert supervised.ranked(Features(logits, np.zeros(40, int), None)) == {}
    assert supervised.ranked(Features(rng.normal(size=(40, 3)), labels, None)) == {}


def test_too_few_test_patients_leave_a_report_a_sentence_and_a_model_of_raw_scores(
    prepared, tmp_path, monkeypatch, capsys
):
    pipeline = ards_runs.Pipeline(config(prepared, tmp_path, image_size=32), load(prepared), "ARDS", None)
    images = keras.Input((None, None, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(images)
    network = keras.Model(images, keras.layers.Dense(2, name="logits_sup")(pooled))
    rows = pipeline.rows["test"]
    asked = Asked(pipeline.target.images[rows], pipeline.target.column("ARDS")[rows], pipeline.target.patients[rows])
    way = Way("way", validation=np.zeros((1, 0)), test=np.random.default_rng(0).random((1, len(rows))))
    found = SimpleNamespace(ways=[way], estimates=[{}], test=asked, counts={"test": {}}, positive="ARDS")
    found.collection, found.steps, found.synthetic = "made", [""] * 8, False
    assert len(set(asked.patients)) < 10
    write_json(tmp_path / "6-evaluate/stage.json", {"settings": {}, "result": {"networks": ["network"]}})
    for name, value in {
        "_gathered": lambda _: found,
        "written": lambda _: "<html>",
        "table": lambda *_, **__: "the table",
        "load_model": lambda _: network,
        "load_encoder": lambda _: keras.Model(images, pooled),
    }.items():
        monkeypatch.setattr(ards_report, name, value)
    assert ards_report.write(pipeline, tmp_path).startswith("the table")
    assert (tmp_path / "report.html").read_text() == "<html>"
    assert "the model is left with its raw scores" in capsys.readouterr().err
    assert deployed.load(tmp_path).calibration.missing


@pytest.mark.slow
def test_the_whole_pipeline_on_a_few_flat_pictures(tmp_path, capsys):
    patients = string.ascii_letters + string.ascii_letters[:8]  # enough to calibrate by; of eight there are two images
    prepared = made.folder(tmp_path / "made", patients, size=32).folder
    tiny = {"image_size": 32, "pretrain_steps": 2, "pretrain_batch_size": 4, "pairs": "patient", "seeds": 2}
    tiny |= {"finetune_epochs": 1, "grid_epochs": (1,), "grid_learning_rates": (0.05,)}
    whole = config(prepared, tmp_path / "run", **tiny)
    chest_ards.run(whole)
    page = (tmp_path / "run/8-report/report.html").read_text()
    assert "MoCo v2 on radiographs" in page
    numbers = json.loads((tmp_path / "run/8-report/numbers.json").read_text())["ways"]
    assert len(numbers) == 5
    answers = read_answers(tmp_path / "run/6-evaluate/test.json")
    assert list(answers.scores) == ["seed 0", "seed 1"]
    np.testing.assert_allclose(answers.scores["seed 0"].sum(axis=1), 1, atol=1e-5)
    model = deployed.load(tmp_path / "run")
    assert model.positive == "ARDS"
    out = capsys.readouterr().out
    assert "SimCLR on radiographs, fine-tuned" in out
    written = (tmp_path / "run/8-report/report.html").stat().st_mtime_ns
    chest_ards.run(dataclasses.replace(whole, stage="report"))
    assert (tmp_path / "run/8-report/report.html").stat().st_mtime_ns > written
