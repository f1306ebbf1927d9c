"""`tf-simclr sweep`: a search over the knobs of another command, by Optuna.

Trials are processes of their own, each with a run folder, so that one that fails or is killed costs itself alone.  The
metric must come from validation images; `final` names what changes when the best trial is run on the test images, once.
"""

import csv
import io
import itertools
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna

from tf_simclr import diagnostics, plots
from tf_simclr.checkpoint import read_json
from tf_simclr.cli import read_config
from tf_simclr.config import COMMANDS, Sweep, plain
from tf_simclr.errors import InputError, check
from tf_simclr.files import replacing, write_json
from tf_simclr.tasks.inputs import say, show

FAIL = optuna.trial.TrialState.FAIL


def run(config: Sweep) -> None:
    """Searches as configured, then runs the best trial once on the test images, and prints one table."""
    check_plan(config)
    config.model_dir.mkdir(parents=True, exist_ok=True)
    study = open_study(config)
    while len(finished(study)) < count(config):
        trial = study.ask(distributions(config))
        say(f"trial {trial.number}: {describe(trial.params)} …")
        result = outcome(config, config.model_dir / f"trial-{trial.number:03d}", changes=trial.params)
        study.tell(trial, result) if result is not None else study.tell(trial, state=FAIL)
        check(failed(study) < 3, "trials must not fail; their lines above say why", failed=failed(study))
        write_table(config, study)
    best = study.best_trial
    final = last(config, best.params) if config.final else None
    write_json(
        config.model_dir / "result.json",
        {"command": plain(config), "best": best.params, config.metric: best.value, "final": final},
    )
    picture = plots.save(figure(config, study), config.model_dir / "sweep.png")
    show(table(config, study, final=final))
    show(f"figure  {picture}\ntable   {config.model_dir / 'trials.csv'}")


def check_plan(config: Sweep) -> None:
    """Refuses a plan that cannot be run before anything is."""
    check(config.task in COMMANDS, f"task must be one of {', '.join(COMMANDS)}", task=config.task)
    rule = "search must name knobs with lists of values, in a JSON file that --config names"
    lists = bool(config.search) and all(isinstance(v, list) and v for v in config.search.values())
    check(lists, rule, search=config.search)
    own = sorted({"model_dir", "command"} & (config.options.keys() | config.search.keys() | config.final.keys()))
    check(not own, "options and search must leave model_dir to the sweep", received=own)


def distributions(config: Sweep) -> dict[str, optuna.distributions.BaseDistribution]:
    """The values of each knob."""
    return {name: optuna.distributions.CategoricalDistribution(values) for name, values in config.search.items()}


def count(config: Sweep) -> int:
    """Number of trials."""
    combinations = math.prod(map(len, config.search.values()))
    if config.method == "grid":
        return min(config.trials or combinations, combinations)
    return config.trials or 20


def open_study(config: Sweep) -> optuna.Study:
    """The search in the folder, with its interrupted trials set up again."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    samplers = {
        "grid": optuna.samplers.RandomSampler,  # all its trials are set up below
        "random": lambda: optuna.samplers.RandomSampler(seed=config.seed),
        "tpe": lambda: optuna.samplers.TPESampler(seed=config.seed),
    }
    note, plan = config.model_dir / "plan.json", plain(config)
    if note.exists():
        there = read_json(note)
        changed = sorted(key for key in plan if there.get(key) != plan[key] and key != "trials")
        check(not changed, f"{config.model_dir} must hold the same search; take another folder", differing=changed)
    write_json(note, plan)
    journal = optuna.storages.journal.JournalFileBackend(str(config.model_dir / "journal.log"))
    study = optuna.create_study(
        storage=optuna.storages.JournalStorage(journal),
        study_name="sweep",
        direction="maximize",
        sampler=samplers[config.method](),
        load_if_exists=True,
    )
    for trial in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
        study.tell(trial.number, state=FAIL)
        study.enqueue_trial(trial.params)
    if config.method == "grid":
        for values in itertools.product(*config.search.values()):
            study.enqueue_trial(dict(zip(config.search, values, strict=True)), skip_if_exists=True)
    return study


def finished(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Trials with a result."""
    return study.get_trials(states=[optuna.trial.TrialState.COMPLETE])


def failed(study: optuna.Study) -> int:
    """Trials in a row, up to the last that ended, without a result."""
    ended = [trial for trial in study.get_trials() if trial.state.is_finished()]
    return len(list(itertools.takewhile(lambda trial: trial.state == FAIL, reversed(ended))))


def outcome(config: Sweep, folder: Path, *, changes: dict[str, Any]) -> float | None:
    """Runs a trial and returns its metric, none if it fails."""
    result = settled(config, folder, changes=changes)
    if result is None:
        return None
    value: Any = result
    for name in config.metric.split("."):
        known = isinstance(value, dict) and name in value
        check(known, "metric must name a number in a trial's result.json", metric=config.metric, has=keys_of(value))
        value = value[name]
    return float(value)


def keys_of(value: Any) -> Any:
    """What could have been named."""
    return sorted(value) if isinstance(value, dict) else value


def settled(config: Sweep, folder: Path, *, changes: dict[str, Any]) -> dict[str, Any] | None:
    """The result of a run of the task with these changes, from the folder if it is finished there."""
    words = {"command": config.task, **config.options, **changes, "model_dir": str(folder)}
    folder.mkdir(parents=True, exist_ok=True)
    plan = folder / "trial.json"
    write_json(plan, words)
    read_config(plan)  # refuses unknown knobs and values before a process is started
    log = folder / "log.txt"
    with open(log, "ab") as file:
        command = [sys.executable, "-m", "tf_simclr", "--config", str(plan)]
        code = subprocess.run(command, stdout=file, stderr=file, check=False).returncode
    if code:
        last_line = (log.read_text(errors="replace").strip().splitlines() or ["nothing"])[-1]
        say(f"  failed with code {code}: {last_line} ({log})")
        return None
    return read_json(folder / "result.json")


def last(config: Sweep, best: dict[str, Any]) -> dict[str, Any]:
    """The best trial again with the changes of `final`: the only look at the test images."""
    say(f"the best, {describe(best)}, with {describe(config.final)} …")
    result = settled(config, config.model_dir / "final", changes=best | config.final)
    if result is None:
        raise InputError(f"the final run must not fail; {config.model_dir / 'final' / 'log.txt'} says why")
    return result


def describe(values: dict[str, Any]) -> str:
    """Knobs and values in one line."""
    return ", ".join(f"{name}={value}" for name, value in values.items())


def write_table(config: Sweep, study: optuna.Study) -> None:
    """Every finished trial in `trials.csv`."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["trial", *config.search, config.metric])
    for trial in finished(study):
        writer.writerow([trial.number, *(json.dumps(trial.params[name]) for name in config.search), trial.value])
    with replacing(config.model_dir / "trials.csv") as [file]:
        file.write(text.getvalue().encode())


def table(config: Sweep, study: optuna.Study, *, final: dict | None) -> str:
    """The trials, the best first."""
    trials = sorted(finished(study), key=lambda trial: -trial.value)
    lines = [f"{config.metric:>16}  knobs"]
    lines += [f"{trial.value:>16.4f}  {describe(trial.params)}" for trial in trials[:20]]
    lines += [f"… and {len(trials) - 20} more"] if len(trials) > 20 else []
    closing = "chosen on validation images; test images were looked at once, for the best alone: final/result.json"
    return "\n".join([*lines, closing if final else "chosen on validation images; no test images were looked at"])


def figure(config: Sweep, study: optuna.Study):
    """The metric against each knob."""
    trials = finished(study)
    values = {name: [trial.params[name] for trial in trials] for name in config.search}
    return diagnostics.search(values, [trial.value for trial in trials], metric=config.metric)
