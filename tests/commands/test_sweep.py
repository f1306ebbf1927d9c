"""Searches: every combination once, interrupted and failed trials, one look at the test images."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("optuna", reason="Optuna is not installed (extra `sweep`)")

from tf_simclr import cli
from tf_simclr.commands import sweep
from tf_simclr.commands.search import plan as search_plan
from tf_simclr.config import Sweep
from tf_simclr.errors import InputError
from tf_simclr.files import write_json


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

    monkeypatch.setattr(subprocess, "run", run)
    return ran


def plan(folder: Path, **changed) -> Sweep:
    search = {"learning_rate": [0.01, 0.1, 1.0], "weight_decay": [0.0, 0.5]}
    splits = {"train_split": "train[:90%]", "eval_split": "train[90%:]"}
    options = {"options": {"train_epochs": 1, **splits}, "search": search} | changed
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
    run = subprocess.run

    def stop(command, **options):
        if len(trials) == 3:
            raise KeyboardInterrupt
        return run(command, **options)

    monkeypatch.setattr(subprocess, "run", stop)
    with pytest.raises(KeyboardInterrupt):
        sweep.run(plan(tmp_path))
    monkeypatch.setattr(subprocess, "run", run)
    sweep.run(plan(tmp_path))
    assert len(trials) == 6
    assert len({(c["learning_rate"], c["weight_decay"]) for c in trials}) == 6


def test_another_search_in_the_folder_is_refused(trials, tmp_path):
    sweep.run(plan(tmp_path))
    with pytest.raises(InputError, match=r"must hold the same search.*differing=\['search'\]"):
        sweep.run(plan(tmp_path, search={"learning_rate": [0.5]}))


def test_a_plan_noted_before_an_option_came_had_its_default(trials, tmp_path):
    sweep.run(plan(tmp_path))
    noted = json.loads((tmp_path / "plan.json").read_text())
    write_json(tmp_path / "plan.json", {key: value for key, value in noted.items() if key not in ("method", "metric")})
    sweep.run(plan(tmp_path))
    assert len(trials) == 6
    with pytest.raises(InputError, match=r"differing=\['seed'\]"):
        sweep.run(plan(tmp_path, seed=1))


def test_trials_that_always_fail_end_the_search_with_what_they_said(tmp_path, monkeypatch, capfd):
    def fail(command, stdout, **_):
        stdout.write(b"the checkpoint must exist\n")
        return subprocess.CompletedProcess(command, 2)

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(InputError, match="trials must not fail"):
        sweep.run(plan(tmp_path))
    assert capfd.readouterr().err.count("failed with code 2: the checkpoint must exist") == 3


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("way", ["itself", "by the shell's number"])
def test_a_trial_that_a_signal_has_ended_has_not_failed(trials, tmp_path, monkeypatch, name, way):
    number = getattr(signal, name)
    code = -number if way == "itself" else 128 + number
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, code))
    with pytest.raises(SystemExit, match=str(128 + number)):
        sweep.run(plan(tmp_path))
    assert not (tmp_path / "trials.json").exists()
    monkeypatch.setattr(subprocess, "run", run)
    sweep.run(plan(tmp_path))
    assert len(trials) == 6


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_to_the_search_ends_its_trial_too(tmp_path, monkeypatch, name):
    """As `kill` of the search alone; what the terminal sends reaches both."""
    seen = []

    def sent(command, **_):
        seen.append(command)
        os.kill(os.getpid(), getattr(signal, name))
        pytest.fail("the search went on")

    monkeypatch.setattr(subprocess, "run", sent)
    with pytest.raises(SystemExit, match=str(128 + getattr(signal, name))):
        sweep.run(plan(tmp_path))
    assert len(seen) == 1
    assert signal.getsignal(getattr(signal, name)) == signal.SIG_DFL


def tried(trials: list[dict]) -> list[tuple]:
    return [(c["learning_rate"], c["weight_decay"]) for c in trials]


@pytest.mark.parametrize("method", ["grid", "random", "tpe"])
def test_a_search_that_is_stopped_anywhere_is_the_search_that_never_was(trials, tmp_path, monkeypatch, method):
    """The same combinations in the same order, the same folders, the same best; none is trained twice."""
    sweep.run(plan(tmp_path / "whole", method=method, trials=5, seed=3))
    whole = tried(trials)
    assert len(set(whole)) == 5
    run = subprocess.run
    for stop in range(5):
        trials.clear()

        def stopped(command, *, stop=stop, **options):
            if len(trials) == stop:
                raise KeyboardInterrupt
            return run(command, **options)

        folder = tmp_path / f"stopped-{stop}"
        monkeypatch.setattr(subprocess, "run", stopped)
        with pytest.raises(KeyboardInterrupt):
            sweep.run(plan(folder, method=method, trials=5, seed=3))
        monkeypatch.setattr(subprocess, "run", run)
        sweep.run(plan(folder, method=method, trials=5, seed=3))
        assert tried(trials) == whole
        results = [json.loads((at / "result.json").read_text()) for at in (folder, tmp_path / "whole")]
        assert results[0]["best"] == results[1]["best"]
        assert results[0]["trial"] == results[1]["trial"]


def test_the_seed_orders_a_random_search_and_more_trials_go_on_with_it(trials, tmp_path):
    orders = []
    for seed in range(4):
        trials.clear()
        sweep.run(plan(tmp_path / str(seed), method="random", trials=6, seed=seed))
        orders.append(tried(trials))
        assert len(set(orders[-1])) == 6
    assert len(set(map(tuple, orders))) > 1
    trials.clear()
    sweep.run(plan(tmp_path / "more", method="random", trials=2, seed=1))
    sweep.run(plan(tmp_path / "more", method="random", trials=6, seed=1))
    assert tried(trials) == orders[1]


@pytest.mark.parametrize("method", ["grid", "random", "tpe"])
def test_more_trials_after_a_finished_search_test_another_best_again_and_say_so(trials, tmp_path, capsys, method):
    search = {"learning_rate": [1.0, 0.5, 0.1], "weight_decay": [0.0]}
    final = {"eval_split": "test"}
    sweep.run(plan(tmp_path, method=method, search=search, trials=1, final=final))
    first = json.loads((tmp_path / "result.json").read_text())
    assert "the images of final were looked at once, for the best alone: final/result.json" in first["note"]
    sweep.run(plan(tmp_path, method=method, search=search, trials=3, final=final))
    second = json.loads((tmp_path / "result.json").read_text())
    assert second["best"]["learning_rate"] == 0.1
    looks = 1 if first["best"] == second["best"] else 2
    assert second["looks_at_test_images"] == looks
    assert (f"looked at {looks} times" in second["note"]) is (looks == 2)
    assert len([c for c in trials if c["eval_split"] != "test"]) == 3


@pytest.mark.parametrize("bad", [None, float("nan"), float("inf")], ids=["failed", "nan", "inf"])
@pytest.mark.parametrize("method", ["grid", "random", "tpe"])
def test_a_failed_trial_is_tried_once_and_the_others_once(trials, tmp_path, monkeypatch, capsys, method, bad):
    run = subprocess.run

    def sometimes(command, **options):
        done = run(command, **options)
        if trials[-1]["learning_rate"] == 0.1 and trials[-1]["weight_decay"] == 0.0:
            write_json(Path(command[-1]).parent / "result.json", {"top1": {"accuracy": bad}})
            return subprocess.CompletedProcess(command, 1 if bad is None else 0)
        return done

    monkeypatch.setattr(subprocess, "run", sometimes)
    sweep.run(plan(tmp_path, method=method, trials=6))
    assert len(trials) == len(set(tried(trials))) == 6
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["failed"] == [{"learning_rate": 0.1, "weight_decay": 0.0}]
    assert result["top1.accuracy"] == pytest.approx(1 - 0.09)
    assert "failed  learning_rate=0.1, weight_decay=0.0" in capsys.readouterr().out
    monkeypatch.setattr(subprocess, "run", run)
    sweep.run(plan(tmp_path, method=method, trials=6))  # the next start tries it once more, in its folder
    assert tried(trials)[6:] == [(0.1, 0.0)]
    assert json.loads((tmp_path / "result.json").read_text())["best"]["learning_rate"] == 0.1


@pytest.mark.parametrize("method", ["grid", "random", "tpe"])
def test_of_equal_trials_the_first_of_the_search_is_the_best(tmp_path, trials, method):
    search = {"learning_rate": [0.2, 0.0, 0.1], "weight_decay": [0.5, 0.0]}  # 0.2 and 0.0 are equally far from 0.1
    for seed in range(3):
        sweep.run(plan(tmp_path / str(seed), method=method, search=search | {"learning_rate": [0.2, 0.0]}, seed=seed))
        best = json.loads((tmp_path / str(seed) / "result.json").read_text())["best"]
        assert best == {"learning_rate": 0.2, "weight_decay": 0.0}


SPLITS = {
    "nobody has named validation images": ({}, {}, "options must name the eval_split"),
    "the last test is the trials' own": (
        {"eval_split": "test"},
        {"train_epochs": 9},
        "final must test on images",
    ),
    "the last test is partly the trials'": (
        {"eval_split": "test[:50%]"},
        {"eval_split": "test"},
        "final must test on images",
    ),
}


@pytest.mark.parametrize("case", SPLITS)
def test_splits_that_contradict_a_search_are_refused_before_a_trial(trials, tmp_path, case):
    options, final, reason = SPLITS[case]
    with pytest.raises(InputError, match=reason):
        sweep.run(plan(tmp_path / "s", options=options, final=final))
    assert not trials
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"eval_split": "test"}, "chosen on the test images (test): the best one's number is too good"),
        ({"train_split": "train", "eval_split": "train[90%:]"}, "from which trials learned"),
        ({"train_split": "train[:90%]", "eval_split": "train[90%:]"}, "no test images were looked at"),
        ({"train_split": "train", "eval_split": "validation"}, "no test images were looked at"),
    ],
)
def test_what_a_number_may_be_taken_for_is_said_and_written(trials, tmp_path, capsys, options, said):
    sweep.run(plan(tmp_path, options=options))
    assert said in capsys.readouterr().out
    note = json.loads((tmp_path / "result.json").read_text())["note"]
    assert said in note
    assert ("no test images" in note) is (options["eval_split"] != "test")


@pytest.mark.parametrize(
    ("changed", "looks"),
    [
        ({"options": {"eval_split": "test[:50%]"}}, 6),
        ({"options": {}, "search": {"learning_rate": [0.1], "eval_split": ["validation", "test"]}}, 1),
        ({"options": {"eval_split": "train[90%:]", "train_split": "train[:90%]"}}, 0),
    ],
)
def test_trials_on_test_images_are_looks_at_them(trials, tmp_path, changed, looks):
    """Before, 0 stood beside "chosen on the test images"."""
    sweep.run(plan(tmp_path, **changed))
    assert json.loads((tmp_path / "result.json").read_text())["looks_at_test_images"] == looks


def test_what_of_a_plan_has_no_effect_is_said(trials, tmp_path, capsys):
    splits = {"train_split": "train[:90%]", "eval_split": "train[90%:]"}
    sweep.run(plan(tmp_path / "idle", options=splits | {"optimizer": "adam", "momentum": 0.8}, trials=1))
    assert "of the plan without effect but with the optimizers lars" in capsys.readouterr().err
    sweep.run(plan(tmp_path / "fine", options=splits | {"optimizer": "sgd", "momentum": 0.8}, trials=1))
    assert "without effect" not in capsys.readouterr().err


def test_linear_evaluations_are_searched_too(monkeypatch, tmp_path):
    ran = []

    def run(command, **_):
        config = json.loads(Path(command[-1]).read_text())
        ran.append(config)
        score = {"accuracy": config["l2_strengths"] / 45}
        write_json(Path(config["result"]), {"results": {"checkpoint": {"logistic_regression": score}}})
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(search_plan, "content_of_option", lambda name, value: value)  # there is no such file
    options = {"checkpoint": "x", "train_split": "train[:90%]", "eval_split": "train[90%:]"}
    config = Sweep(task="linear-eval", model_dir=tmp_path, options=options, search={"l2_strengths": [5, 45]})
    sweep.run(config)
    assert len(ran) == 2
    assert json.loads((tmp_path / "result.json").read_text())["best"] == {"l2_strengths": 45}


def test_tasks_without_numbers_are_refused(tmp_path):
    with pytest.raises(InputError, match="task must be one that writes numbers: pretrain, linear-eval"):
        sweep.run(Sweep(task="embed", model_dir=tmp_path / "s", search={"image_size": [32]}))


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
        (
            {"options": {"lerning_rate": 1}},
            r"options of finetune only \(did you mean learning_rate .*unknown=\['lerning_rate'\]",
        ),
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
