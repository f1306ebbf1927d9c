"""Searches: every combination once, interrupted and failed trials, one look at the test images."""

import json
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("optuna", reason="Optuna is not installed (extra `sweep`)")

from tf_simclr import cli
from tf_simclr.config import Sweep
from tf_simclr.errors import InputError
from tf_simclr.files import write_json
from tf_simclr.tasks import sweep


@pytest.fixture
def trials(monkeypatch):
    """Instead of training, a trial's result is a formula of its knobs; returns the configurations that were run."""
    ran = []

    def run(command, **_):
        plan = Path(command[-1])
        config = json.loads(plan.read_text())
        ran.append(config)
        score = 1 - abs(config["learning_rate"] - 0.1) - config.get("weight_decay", 0)
        write_json(plan.parent / "result.json", {"top1": {"accuracy": score}})
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(sweep.subprocess, "run", run)
    return ran


def plan(folder: Path, **changed) -> Sweep:
    search = {"learning_rate": [0.01, 0.1, 1.0], "weight_decay": [0.0, 0.5]}
    options = {"options": {"train_epochs": 1, "eval_split": "train[90%:]"}, "search": search} | changed
    return Sweep(model_dir=folder, **options)


def test_a_grid_is_searched_whole_and_the_best_is_tested_once(trials, tmp_path, capsys):
    sweep.run(plan(tmp_path, final={"eval_split": "test"}))
    tried = [(c["learning_rate"], c["weight_decay"]) for c in trials[:-1]]
    assert sorted(tried) == [(rate, decay) for rate in (0.01, 0.1, 1.0) for decay in (0.0, 0.5)]
    assert all(c["eval_split"] == "train[90%:]" and c["train_epochs"] == 1 for c in trials[:-1])
    final = trials[-1]
    assert (final["learning_rate"], final["weight_decay"], final["eval_split"]) == (0.1, 0.0, "test")
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["best"] == {"learning_rate": 0.1, "weight_decay": 0.0}
    assert result["top1.accuracy"] == 1.0
    out = capsys.readouterr().out
    assert "1.0000  learning_rate=0.1, weight_decay=0.0" in out.splitlines()[1]
    assert len((tmp_path / "trials.csv").read_text().splitlines()) == 7
    assert (tmp_path / "sweep.png").stat().st_size > 5000


def test_an_interrupted_search_goes_on_without_doing_a_trial_twice(trials, tmp_path, monkeypatch):
    run = sweep.subprocess.run

    def stop(command, **options):
        if len(trials) == 3:
            raise KeyboardInterrupt
        return run(command, **options)

    monkeypatch.setattr(sweep.subprocess, "run", stop)
    with pytest.raises(KeyboardInterrupt):
        sweep.run(plan(tmp_path))
    monkeypatch.setattr(sweep.subprocess, "run", run)
    sweep.run(plan(tmp_path))
    assert len(trials) == 6
    assert len({(c["learning_rate"], c["weight_decay"]) for c in trials}) == 6


def test_another_search_in_the_folder_is_refused(trials, tmp_path):
    sweep.run(plan(tmp_path))
    with pytest.raises(InputError, match=r"must hold the same search.*differing=\['search'\]"):
        sweep.run(plan(tmp_path, search={"learning_rate": [0.5]}))


def test_trials_that_always_fail_end_the_search_with_what_they_said(tmp_path, monkeypatch, capfd):
    def fail(command, stdout, **_):
        stdout.write(b"the checkpoint must exist\n")
        return subprocess.CompletedProcess(command, 2)

    monkeypatch.setattr(sweep.subprocess, "run", fail)
    with pytest.raises(InputError, match="trials must not fail"):
        sweep.run(plan(tmp_path))
    assert capfd.readouterr().err.count("failed with code 2: the checkpoint must exist") == 3


@pytest.mark.parametrize("method", ["random", "tpe"])
def test_other_methods_try_as_many_as_asked(trials, tmp_path, method):
    sweep.run(plan(tmp_path, method=method, trials=4))
    assert len(trials) == 4


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"task": "fine-tune"}, "task must be one of pretrain"),
        ({"search": {}}, "search must name knobs with lists of values"),
        ({"search": {"learning_rate": 0.1}}, "search must name knobs with lists of values"),
        ({"options": {"model_dir": "x"}}, r"leave model_dir to the sweep"),
        ({"options": {"lerning_rate": 1}}, r"options of finetune only. Received: unknown=\['lerning_rate'\]"),
        ({"metric": "top9"}, r"metric must name a number.*has=\['top1'\]"),
    ],
)
def test_plans_that_cannot_be_run_are_refused(trials, tmp_path, changed, reason):
    with pytest.raises(InputError, match=reason):
        sweep.run(plan(tmp_path, **changed))


def test_a_plan_is_a_file(tmp_path):
    file = tmp_path / "sweep.json"
    content = {"command": "sweep", "search": {"learning_rate": [0.1]}, "options": {"train_epochs": 2}, "model_dir": "m"}
    file.write_text(json.dumps(content))
    found = cli.parse(["sweep", "--config", str(file), "--trials", "1"])
    assert found == Sweep(model_dir=Path("m"), search={"learning_rate": [0.1]}, options={"train_epochs": 2}, trials=1)
