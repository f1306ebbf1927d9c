"""The trials of a search: processes of their own, each with a folder, that run once and go on where they were stopped.

One that fails or is killed costs itself alone.
"""

import json
import math
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tf_simclr.cli import read_config
from tf_simclr.commands.search.plan import Trial, Values, key, metric_of, words
from tf_simclr.commands.search.proposals import count, done, proposed
from tf_simclr.config import Sweep
from tf_simclr.config.parts import CODE
from tf_simclr.errors import InputError, check
from tf_simclr.files import csv_of, read_json, replacing, write_json
from tf_simclr.machine.signals import ENDINGS, raising
from tf_simclr.own.named import is_code
from tf_simclr.terminal import say

_IN_A_ROW = 3
"""Failed trials after which a search ends: the rest would fail, too."""


def search(config: Sweep) -> list[Trial]:
    """Runs trials until there are as many as wanted, those that lie in the folder counted; returns them all.

    A trial that has failed is tried again once by each start of the command.
    """
    trials = {key(trial.params): trial for trial in _known_trials(config)}
    new: set[str] = set()
    row = 0
    # As many as wanted have a result, or were tried by this command.
    while len(new | done(trials)) < count(config):
        params = proposed(config, trials, new=new)
        own = key(params)
        # A failed one is tried again under its old number.
        number = trials[own].number if own in trials else len(trials)
        say(f"trial {number}: {describe(params)} …")
        value = _outcome(config, config.model_dir / f"trial-{number:03d}", changes=params)
        trials[own] = Trial(number, params, value)
        new.add(own)
        # Written after each, so that a stop costs the trial in hand.
        _write_trials(config, list(trials.values()))
        row = row + 1 if value is None else 0
        check(row < _IN_A_ROW, "trials must not fail; their lines above say why", failed=row)
    check(done(trials), "trials must not fail; their lines above say why", failed=len(trials))
    _write_trials(config, list(trials.values()))
    return list(trials.values())


def _known_trials(config: Sweep) -> list[Trial]:
    """The trials that `trials.json` holds."""
    path = config.model_dir / "trials.json"
    if not path.exists():
        return []
    rows = read_json(path).get("trials")
    fits = isinstance(rows, list) and all(
        isinstance(row, dict)
        and type(row.get("number")) is int
        and isinstance(row.get("params"), dict)
        and row["params"].keys() == config.search.keys()
        and all(key(row["params"][name]) in map(key, values) for name, values in config.search.items())
        and (row.get("value") is None or type(row["value"]) in (int, float))
        for row in rows
    )
    check(fits, f"{path} must hold the trials of this search; put it back, or take another folder", trials=rows)
    return [Trial(row["number"], row["params"], row["value"]) for row in rows or []]


def _write_trials(config: Sweep, trials: list[Trial]) -> None:
    """Every trial in `trials.json`, by which the search goes on, and the finished ones in `trials.csv`."""
    finished = [
        [trial.number, *(json.dumps(trial.params[name]) for name in config.search), trial.value]
        for trial in trials
        if trial.value is not None
    ]
    with replacing(config.model_dir / "trials.csv") as [file]:
        file.write(csv_of([["trial", *config.search, metric_of(config)], *finished]))
    rows = [{"number": trial.number, "params": trial.params, "value": trial.value} for trial in trials]
    write_json(config.model_dir / "trials.json", {"trials": rows})


def _outcome(config: Sweep, folder: Path, *, changes: Values) -> float | None:
    """Runs a trial and returns its metric; None if it fails, or if the metric is not a finite number."""
    result = _settled(config, folder, changes=changes)
    if result is None:
        return None
    value: Any = result
    rule = "metric must name a number in a trial's result.json"
    # `top1.accuracy` → result["top1"]["accuracy"].
    for name in metric_of(config).split("."):
        known = isinstance(value, dict) and name in value
        check(known, rule, metric=metric_of(config), has=_keys_of(value))
        value = value[name]
    check(type(value) in (int, float), rule, metric=metric_of(config), has=_keys_of(value))
    if not math.isfinite(value):
        say(f"  failed: its {metric_of(config)} is {value}")
        return None
    return float(value)


def _keys_of(value: Any) -> Any:
    """What could have been named."""
    return sorted(value) if isinstance(value, dict) else value


def _settled(config: Sweep, folder: Path, *, changes: Values) -> dict[str, Any] | None:
    """The result of a run of the task with these changes, from the folder if it is finished there; None if it fails."""
    folder.mkdir(parents=True, exist_ok=True)
    plan = folder / "trial.json"
    told = words(config, folder, changes=changes)
    write_json(plan, told)
    read_config(plan)  # refuses unknown knobs and values before a process is started
    log = folder / "log.txt"
    with open(log, "ab") as file, raising():  # else a signal would leave the process of the trial behind
        # Code is named on the command line, as a file's word runs nothing.
        code = [word for name in CODE if is_code(told.get(name)) for word in (f"--{name}", told[name])]
        command = [sys.executable, "-m", "tf_simclr", "--config", str(plan), *code]
        status = subprocess.run(command, stdout=file, stderr=file, check=False).returncode
    # Ended by a signal, itself or by way of a shell: the search ends likewise.
    if status in (-signal.SIGINT, 128 + signal.SIGINT):
        raise KeyboardInterrupt  # both were meant
    for number in ENDINGS:  # whoever of the search and its trial was sent one; a trial that it ends has not failed
        if status in (-number, 128 + number):
            raise SystemExit(128 + number)
    if status:
        last_line = (log.read_text(errors="replace").strip().splitlines() or ["nothing"])[-1]
        say(f"  failed with code {status}: {last_line} ({log})")
        return None
    return read_json(folder / "result.json")


def last(config: Sweep, best: Values) -> tuple[dict[str, Any], int]:
    """The best trial again with the changes of `final`, and how often the test images have been looked at.

    A search that was given more trials may have another best: the one before keeps its folder, and counts.
    """
    # Another best than last time is another folder: how often the test images were looked at stays on record.
    for looks in range(1, 1000):
        folder = config.model_dir / final_folder(looks)
        plan = folder / "trial.json"
        if not plan.exists() or read_json(plan) == words(config, folder, changes=best | config.final):
            break
    say(f"the best, {describe(best)}, with {describe(config.final)} …")
    result = _settled(config, folder, changes=best | config.final)
    if result is None:
        raise InputError(f"the final run must not fail; {folder / 'log.txt'} says why")
    return result, looks


def final_folder(looks: int) -> str:
    """The folder of the run of `final` that was this look at the test images."""
    return "final" if looks <= 1 else f"final-{looks}"


def describe(values: Values) -> str:
    """Knobs and values in one line."""
    return ", ".join(f"{name}={value}" for name, value in values.items())
