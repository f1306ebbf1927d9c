"""`tf-simclr sweep`: a search over the knobs of another command.

Trials are processes of their own, each with a folder, so that one that fails or is killed costs itself alone.  A trial
is a combination of values: it has one folder, is finished once, and goes on there when the search was stopped within
it.  Which combination comes next depends on the seed and on the results so far, not on where the search was stopped.

The metric must come from validation images; `final` names what changes when the best trial is run on the test images.
What the splits' names say against that is refused, or said with the result.
"""

import contextlib
import csv
import dataclasses
import io
import itertools
import json
import math
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tf_simclr import contents, plots
from tf_simclr.cli import configured, read_config
from tf_simclr.config import COMMANDS, Sweep, plain, plain_defaults
from tf_simclr.config.effects import passed_over
from tf_simclr.config.first_look import kept_at
from tf_simclr.config.parts import CODE
from tf_simclr.config.splits import is_test, shared
from tf_simclr.data.folders import content_of
from tf_simclr.errors import InputError, check
from tf_simclr.files import begun_with, read_json, replacing, write_json
from tf_simclr.frameworks import check_installed
from tf_simclr.own.named import is_code, look
from tf_simclr.places import expanded, is_address
from tf_simclr.run_folder import WEIGHTS
from tf_simclr.terminal import say, show
from tf_simclr.weights import content_of_option

PLACES = {"model_dir": "", "result": "result.json"}
"""Option of a task that says where its numbers go → what it has to name of a trial's folder: that itself, or a file."""
_METRICS = {
    "linear-eval": "results.checkpoint.logistic_regression.accuracy",
    "pretrain": "knn_acc",
}
"""Task → what is maximised where the metric is not named and `top1.accuracy` is not among the task's numbers."""
_IN_A_ROW = 3
"""Failed trials after which a search ends: the rest would fail, too."""
_ENDINGS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""Signals that end a search, whoever of it and its trial was sent them; a trial that they end has not failed."""
_SPLITS = ("train_split", "eval_split")

_Values = dict[str, Any]


@dataclass(frozen=True)
class _Trial:
    """A combination of values and what came of it.

    Attributes:
        number: of its folder.
        params: knob → value.
        value: the metric; None: the trial failed.
    """

    number: int
    params: _Values
    value: float | None


def run(config: Sweep) -> None:
    """Searches as configured, then runs the best trial once on the test images, and prints one table."""
    # 1. What is asked for: a plan that can be run, and what its trials would look at.
    _check_plan(config)
    splits = _splits_of(config)
    if splits.tests or splits.learned:
        say(splits.note(looks=0, folder=""))

    # 2. The folder: begun now, or begun with the same plan earlier.
    config.model_dir.mkdir(parents=True, exist_ok=True)
    _note_plan(config)

    # 3. The trials, those that lie there counted; the best one is trained and tested last, once.
    trials = search(config)
    best = _best_of(config, trials)
    final, looks = last(config, best.params) if config.final else (None, 0)

    # 4. What is left: the numbers, the figure, and last the screen.
    note = splits.note(looks=looks, folder=_final_folder(looks))
    write_json(
        config.model_dir / "result.json",
        {
            "command": plain(config),
            "best": best.params,
            "trial": best.number,
            _metric_of(config): best.value,
            "failed": [trial.params for trial in trials if trial.value is None],
            "chosen_on": splits.compared,
            "looks_at_test_images": looks + sum(_on_test(config, trial) for trial in trials),
            "note": note,
            "final": final,
        },
    )
    picture = plots.save(_figure(config, trials), config.model_dir / "sweep.png")
    show(table(config, trials) + f"\n{note}")
    show(f"figure  {picture}\ntable   {config.model_dir / 'trials.csv'}")


def _metric_of(config: Sweep) -> str:
    """What to maximise, as a trial's result names it."""
    return _METRICS.get(config.task, config.metric) if config.metric == Sweep.metric else config.metric


def _check_plan(config: Sweep) -> None:
    """Refuses a plan that cannot be run before anything is."""
    # From the cheapest to the dearest question.
    check(config.task in COMMANDS, f"task must be one of {', '.join(COMMANDS)}", task=config.task)
    rule = "search must name knobs with lists of values, in a JSON file that --config names"
    lists = bool(config.search) and all(isinstance(v, list) and v for v in config.search.values())
    check(lists, rule, search=config.search)
    # By their JSON: 1, 1.0 and True are three values.
    twice = {name: values for name, values in config.search.items() if len(set(map(key, values))) < len(values)}
    check(not twice, "search must name each value of a knob once", **twice)
    place = _place_of(config)
    own = sorted({place, "command"} & (config.options.keys() | config.search.keys() | config.final.keys()))
    check(not own, f"options and search must leave {place} to the sweep", received=own)
    _check_code(config)
    if config.method == "tpe":
        check_installed("method tpe", "optuna")


def _check_code(config: Sweep) -> None:
    """Refuses code that is not there, and code that the plan alone names: a file's word runs nothing.

    Raises:
        InputError: so it is.
    """
    given = {name: code for name in CODE if is_code(code := getattr(config, name, ""))}
    # Modules that the command line itself names.
    modules = {code.split(":")[0] for code in given.values()}
    unknown = [name for name in given if name not in _fields_of(config.task)]
    check(not unknown, f"{config.task} takes no {' and no '.join(unknown)}; leave it out", **given)
    for name in CODE:
        values = [of[name] for of in (config.options, config.final) if name in of] + config.search.get(name, [])
        for code in (value for value in values if is_code(value)):
            rule = f"code is not run because a file names it: give --{name} {code}, too, if it is yours"
            check(code.split(":")[0] in modules, rule)
            look(code, name)


def _fields_of(task: str) -> dict[str, Any]:
    """The options of a task by name."""
    return {field.name: field for field in dataclasses.fields(COMMANDS[task])}


def _place_of(config: Sweep) -> str:
    """The option by which the task is told where its numbers go.

    Raises:
        InputError: it has none: there would be nothing to maximise.
    """
    fields = _fields_of(config.task)
    found = next((name for name in PLACES if name in fields), None)
    able = [name for name in COMMANDS if not {*PLACES}.isdisjoint(_fields_of(name))]
    check(found is not None, f"task must be one that writes numbers: {', '.join(able)}", task=config.task)
    return str(found)


def words(config: Sweep, folder: Path, *, changes: _Values) -> _Values:
    """The configuration of a run of the task with these changes, as JSON."""
    place = _place_of(config)
    own = folder if config.task == "transfer" else folder / PLACES[place]
    code = {name: getattr(config, name) for name in CODE if getattr(config, name, "") and name not in config.search}
    # Later ones win: the plan's options, the trial's values, and where its numbers go.
    return {"command": config.task, **code, **config.options, **changes, place: str(own)}


@dataclass(frozen=True)
class _Splits:
    """What the names of the splits tell.

    Attributes:
        compared: those that trials are compared on.
        tests: whether one of them is called a test.
        learned: whether a trial learns from images that it is compared on.
    """

    compared: str
    tests: bool = False
    learned: bool = False

    def note(self, *, looks: int, folder: str) -> str:
        """What the numbers of a search may be taken for, after so many looks at the images of `final`."""
        kind = "the test images" if self.tests else "validation images"
        lines = [f"chosen on {kind} ({self.compared})"]
        if self.tests:
            lines[0] += ": the best one's number is too good for new images"
        if self.learned:
            lines[0] += ", from which trials learned: name other images, or these will always do well"
        if looks:
            times = "once, for the best alone" if looks == 1 else f"{looks} times: another trial was the best before"
            lines.append(f"the images of final were looked at {times}: {folder}/result.json")
        elif not self.tests:
            lines.append("no test images were looked at")
        return "; ".join(lines)


def _splits_of(config: Sweep) -> _Splits:
    """Looks at which images trials learn from, are compared on, and the best is tested on.

    Raises:
        InputError: nobody has said on which images trials are compared, and it would be those of the last test; or the
            last test is on images that trials were compared on.
    """
    changes = {name: values[0] for name, values in config.search.items()}
    # One trial is read as a configuration, before any is run; its log would say what of the plan counts for nothing.
    trial = words(config, config.model_dir / "trial-000", changes=changes)
    for line in passed_over(configured(trial, where=f"the plan of {config.model_dir}"), typed=config.search):
        say(f"of the plan {line}")
    fields = _fields_of(config.task)
    if "eval_split" not in fields:
        return _Splits("those that the task tests on", tests=True)
    default = fields["eval_split"].default
    advice = 'such as "train_split": "train[:90%]", "eval_split": "train[90%:]", or a folder of validation images'
    named = default is None or "eval_split" in config.options or "eval_split" in config.search
    rule = f"options must name the eval_split that trials are compared on, {advice}; else it is the last test's"
    check(named, rule, eval_split=default)
    # Every combination of splits that a trial may have.
    possible = [config.search.get(name, [config.options.get(name, fields[name].default)]) for name in _SPLITS]
    compared, learned = set(), False
    for train, tested in itertools.product(*possible):
        compared.add(str(tested or train))
        if tested is None:
            continue
        # Images in both: a trial learns from what it is compared on.
        learned = learned or shared(train, tested) is True
        # The last look must be at images that chose nothing.
        then = config.final.get("eval_split", tested)
        rule = "final must test on images that no trial was compared on; name its eval_split"
        check(not config.final or shared(then, tested) is not True, rule, trials=tested, final=then)
    return _Splits(", ".join(sorted(compared)), tests=any(map(is_test, compared)), learned=learned)


def _on_test(config: Sweep, trial: _Trial) -> bool:
    """Whether a trial gave a number of test images."""
    fields = _fields_of(config.task)
    if trial.value is None or "eval_split" not in fields:
        return trial.value is not None
    train, tested = ((config.options | trial.params).get(name, fields[name].default) for name in _SPLITS)
    return is_test(str(tested or train))


def _note_plan(config: Sweep) -> None:
    """Notes what is searched, or checks that it is what the folder holds."""
    note, plan = config.model_dir / "plan.json", plain(config)
    # A journal of Optuna's, of before searches were noted here.
    older = (config.model_dir / "journal.log").exists()
    check(
        not older,
        f"{config.model_dir} holds a search of an earlier version; take another folder",
        journal="journal.log",
    )
    # Images and weights by content, so that moved ones are known and exchanged ones refused.
    content = _contents_of(config)
    noted = read_json(note).get("contents") if note.exists() else content
    noted = noted if isinstance(noted, dict) else {}
    free = ("trials", "model_dir", "contents")  # more of the same search, and another path to it
    changed = begun_with(note, plan, defaults=plain_defaults("sweep"), free=free)
    others = [path for path in noted.keys() & content.keys() if noted[path] != content[path]]
    rule = f"{config.model_dir} must hold a search with the same images and weights, but others lie there by now"
    check(not others, f"{rule}; bring those back, or take another folder", paths=sorted(others))
    # What is gone and what has come: equal contents under two paths are a move.
    gone, come = (
        {path: of[path] for path in of.keys() - other.keys()} for of, other in ((noted, content), (content, noted))
    )
    moved = {path: new for path, of in gone.items() for new, here in come.items() if of == here}
    differing = [name for name, (there, here) in changed.items() if _with_paths(there, moved) != here]
    check(not differing, f"{config.model_dir} must hold the same search; take another folder", differing=differing)
    trials = config.model_dir / "trials.json"
    if moved and trials.exists():  # first: a search that is stopped between the two is moved again
        write_json(trials, _with_paths(read_json(trials), moved))
    write_json(note, plan | {"contents": content})


def _contents_of(config: Sweep) -> dict[str, Any]:
    """Path → what tells the images or weights there from others, wherever they lie; of every path in the plan.

    Raises:
        InputError: they are not there, or cannot be read.
    """
    found: dict[str, Any] = {}
    every = [config.options, config.final, *({name: v} for name, vs in config.search.items() for v in vs)]
    averages = any(options.get("ema") is True for options in every)
    for name, value in ((name, value) for options in every for name, value in options.items()):
        if not (isinstance(value, str) and value):
            continue
        if name in WEIGHTS and (content := content_of_option(name, value)) is not None:
            found[value] = content
            if averages:
                found[f"{value} (ema)"] = _averages(name, value)
        elif name in ("image_dir", "radiographs") and not is_address(value):
            found[value] = content_of(expanded(value), say=say)
    return found | _data_sets(config)


def _averages(name: str, value: str) -> str | None:
    """What tells the moving averages of a checkpoint's weights from others; None where it has none."""
    try:
        return content_of_option(name, value, ema=True)
    except InputError:
        return None


def _data_sets(config: Sweep) -> dict[str, str]:
    """What tells the data sets that libraries keep from others, as far as they are there: under their folder's option.

    Before the first trial they may not be downloaded: they are noted by the next start.
    """
    fields = _fields_of(config.task)
    if not {"dataset", "data_dir"} <= fields.keys() or {"image_dir", "radiographs"} & config.options.keys():
        return {}
    names, folders = (
        {of.get(name, fields[name].default) for of in (config.options, config.final)} | {*config.search.get(name, ())}
        for name in ("dataset", "data_dir")
    )
    found = {}
    for folder in folders:
        places = {name: kept_at(str(name), folder) for name in names}
        listings = {str(name): content_of(place, say=say) for name, place in places.items() if place.exists()}
        if folder is not None and listings:
            found[str(folder)] = contents.of_values(listings)
        elif folder is None:
            found |= listings
    return found


def _with_paths(values: Any, moved: dict[str, str]) -> Any:
    """JSON in which paths stand where what lay there lies now."""
    if isinstance(values, dict):
        return {name: _with_paths(value, moved) for name, value in values.items()}
    if isinstance(values, list):
        return [_with_paths(value, moved) for value in values]
    return moved.get(values, values) if isinstance(values, str) else values


def key(params: Any) -> str:
    """Values as a string that is equal where they are: 1, 1.0 and True are three values."""
    return json.dumps(params, sort_keys=True)


def size(config: Sweep) -> int:
    """How many combinations there are."""
    return math.prod(map(len, config.search.values()))


def count(config: Sweep) -> int:
    """How many trials are wanted."""
    wanted = config.trials or (size(config) if config.method == "grid" else 20)
    return min(wanted, size(config))


def combination(config: Sweep, index: int) -> _Values:
    """The combination at a place of the grid, whose last knob changes first."""
    chosen = []
    # The last knob changes first, as digits do.
    for values in reversed(config.search.values()):
        index, at = divmod(index, len(values))
        chosen.append(values[at])
    return dict(zip(config.search, reversed(chosen), strict=True))


def _in_order(config: Sweep) -> Iterator[int]:
    """Places of the grid without repetition: as they come, or shuffled by the seed, however many are taken.

    The shuffle is Fisher and Yates' with the exchanged places alone in memory, since a grid may be huge.
    """
    draw, total = random.Random(config.seed), size(config)
    moved: dict[int, int] = {}
    # A shuffle of which only the exchanges are kept: memory for the trials that are taken, not for the grid.
    for i in range(total):
        j = i if config.method == "grid" else draw.randrange(i, total)
        yield moved.get(j, j)
        moved[j] = moved.get(i, i)


def search(config: Sweep) -> list[_Trial]:
    """Runs trials until there are as many as wanted, those that lie in the folder counted; returns them all.

    A trial that has failed is tried again once by each start of the command.
    """
    trials = {key(trial.params): trial for trial in _known_trials(config)}
    new: set[str] = set()
    row = 0
    # As many as wanted have a result, or were tried by this command.
    while len(new | done(trials)) < count(config):
        params = _proposed(config, trials, new=new)
        own = key(params)
        # A failed one is tried again under its old number.
        number = trials[own].number if own in trials else len(trials)
        say(f"trial {number}: {_describe(params)} …")
        value = _outcome(config, config.model_dir / f"trial-{number:03d}", changes=params)
        trials[own] = _Trial(number, params, value)
        new.add(own)
        # Written after each, so that a stop costs the trial in hand.
        _write_trials(config, list(trials.values()))
        row = row + 1 if value is None else 0
        check(row < _IN_A_ROW, "trials must not fail; their lines above say why", failed=row)
    check(done(trials), "trials must not fail; their lines above say why", failed=len(trials))
    _write_trials(config, list(trials.values()))
    return list(trials.values())


def done(trials: dict[str, _Trial]) -> set[str]:
    """The combinations that have a result."""
    return {name for name, trial in trials.items() if trial.value is not None}


def _proposed(config: Sweep, trials: dict[str, _Trial], *, new: set[str]) -> _Values:
    """The next combination that has no result, and has not been tried since the command was started."""
    out = new | done(trials)
    if config.method == "tpe":
        # In a fixed order, as the estimators hang on it.
        params = _by_estimators(config, [trials[name] for name in sorted(done(trials))], taken=len(out))
        # One that is there already: the next of a shuffle instead.
        if key(params) not in out:
            return params
    rest = (combination(config, index) for index in _in_order(config))
    return next(params for params in rest if key(params) not in out)


def _by_estimators(config: Sweep, finished: list[_Trial], *, taken: int) -> _Values:
    """Where Parzen estimators expect most, by Optuna: a function of the seed, the results, and how many are taken."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # Values go by their places, since Optuna knows no lists.
    ranges: dict[str, Any] = {
        name: optuna.distributions.CategoricalDistribution(range(len(values))) for name, values in config.search.items()
    }
    # A seed for each trial, whatever ran before it.
    seed = random.Random(f"{config.seed} {taken}").getrandbits(32)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    for trial in finished:
        places = {
            name: [key(v) for v in values].index(key(trial.params[name])) for name, values in config.search.items()
        }
        study.add_trial(optuna.trial.create_trial(params=places, distributions=ranges, value=trial.value))
    places = study.ask(ranges).params
    return {name: values[places[name]] for name, values in config.search.items()}


def place(config: Sweep, trial: _Trial) -> list[int]:
    """Where each of a trial's values stands in the search."""
    return [[key(v) for v in values].index(key(trial.params[name])) for name, values in config.search.items()]


def _best_of(config: Sweep, trials: list[_Trial]) -> _Trial:
    """The largest metric; of equal ones the first combination of the grid, in whatever order they were run."""
    finished = [trial for trial in trials if trial.value is not None]
    # Of equal ones by place, so that the order of running decides nothing.
    return min(finished, key=lambda trial: (-float(trial.value or 0), place(config, trial)))


def _known_trials(config: Sweep) -> list[_Trial]:
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
    return [_Trial(row["number"], row["params"], row["value"]) for row in rows or []]


def _write_trials(config: Sweep, trials: list[_Trial]) -> None:
    """Every trial in `trials.json`, by which the search goes on, and the finished ones in `trials.csv`."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["trial", *config.search, _metric_of(config)])
    for trial in trials:
        if trial.value is not None:
            writer.writerow([trial.number, *(json.dumps(trial.params[name]) for name in config.search), trial.value])
    with replacing(config.model_dir / "trials.csv") as [file]:
        file.write(text.getvalue().encode())
    rows = [{"number": trial.number, "params": trial.params, "value": trial.value} for trial in trials]
    write_json(config.model_dir / "trials.json", {"trials": rows})


def _outcome(config: Sweep, folder: Path, *, changes: _Values) -> float | None:
    """Runs a trial and returns its metric; None if it fails, or if the metric is not a finite number."""
    result = _settled(config, folder, changes=changes)
    if result is None:
        return None
    value: Any = result
    # `top1.accuracy` → result["top1"]["accuracy"].
    for name in _metric_of(config).split("."):
        known = isinstance(value, dict) and name in value
        check(
            known, "metric must name a number in a trial's result.json", metric=_metric_of(config), has=_keys_of(value)
        )
        value = value[name]
    number = type(value) in (int, float)
    check(number, "metric must name a number in a trial's result.json", metric=_metric_of(config), has=_keys_of(value))
    if not math.isfinite(value):
        say(f"  failed: its {_metric_of(config)} is {value}")
        return None
    return float(value)


def _keys_of(value: Any) -> Any:
    """What could have been named."""
    return sorted(value) if isinstance(value, dict) else value


def _settled(config: Sweep, folder: Path, *, changes: _Values) -> dict[str, Any] | None:
    """The result of a run of the task with these changes, from the folder if it is finished there; None if it fails."""
    folder.mkdir(parents=True, exist_ok=True)
    plan = folder / "trial.json"
    told = words(config, folder, changes=changes)
    write_json(plan, told)
    read_config(plan)  # refuses unknown knobs and values before a process is started
    log = folder / "log.txt"
    with open(log, "ab") as file, _terminable():
        # Code is named on the command line, as a file's word runs nothing.
        code = [word for name in CODE if is_code(told.get(name)) for word in (f"--{name}", told[name])]
        command = [sys.executable, "-m", "tf_simclr", "--config", str(plan), *code]
        status = subprocess.run(command, stdout=file, stderr=file, check=False).returncode
    # Ended by a signal, itself or by way of a shell: the search ends likewise.
    if status in (-signal.SIGINT, 128 + signal.SIGINT):
        raise KeyboardInterrupt  # both were meant
    for number in _ENDINGS:
        if status in (-number, 128 + number):
            raise SystemExit(128 + number)
    if status:
        last_line = (log.read_text(errors="replace").strip().splitlines() or ["nothing"])[-1]
        say(f"  failed with code {status}: {last_line} ({log})")
        return None
    return read_json(folder / "result.json")


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """A block that SIGTERM and SIGHUP end as an exception, so that the process of a trial is not left behind."""

    def end(number: int, _frame: Any) -> None:
        raise SystemExit(128 + number)

    able = threading.current_thread() is threading.main_thread()
    # The default alone is replaced: who ignores a signal goes on ignoring it.
    taken = [number for number in _ENDINGS if able and signal.getsignal(number) == signal.SIG_DFL]  # `nohup` stays
    for number in taken:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def last(config: Sweep, best: _Values) -> tuple[dict[str, Any], int]:
    """The best trial again with the changes of `final`, and how often the test images have been looked at.

    A search that was given more trials may have another best: the one before keeps its folder, and counts.
    """
    # Another best than last time is another folder: how often the test images were looked at stays on record.
    for looks in range(1, 1000):
        folder = config.model_dir / _final_folder(looks)
        plan = folder / "trial.json"
        if not plan.exists() or read_json(plan) == words(config, folder, changes=best | config.final):
            break
    say(f"the best, {_describe(best)}, with {_describe(config.final)} …")
    result = _settled(config, folder, changes=best | config.final)
    if result is None:
        raise InputError(f"the final run must not fail; {folder / 'log.txt'} says why")
    return result, looks


def _final_folder(looks: int) -> str:
    """Where the run of `final` lies that was the so-manieth."""
    return "final" if looks <= 1 else f"final-{looks}"


def _describe(values: _Values) -> str:
    """Knobs and values in one line."""
    return ", ".join(f"{name}={value}" for name, value in values.items())


def table(config: Sweep, trials: list[_Trial]) -> str:
    """The trials, the best first, equal ones in the order of the grid."""
    left = [trial for trial in trials if trial.value is not None]
    ordered = []
    while left:
        ordered.append(_best_of(config, left))
        left.remove(ordered[-1])
    lines = [f"{_metric_of(config):>16}  knobs"]
    lines += [f"{trial.value:>16.4f}  {_describe(trial.params)}" for trial in ordered[:20]]
    lines += [f"… and {len(ordered) - 20} more"] if len(ordered) > 20 else []
    failed = [trial for trial in trials if trial.value is None]
    lines += [f"{'failed':>16}  {_describe(trial.params)}" for trial in failed[:5]]
    lines += [f"… and {len(failed) - 5} more have failed"] if len(failed) > 5 else []
    return "\n".join(lines)


def _figure(config: Sweep, trials: list[_Trial]) -> Any:
    """The metric against each knob."""
    # Failed ones have no place in the figure.
    finished = [trial for trial in trials if trial.value is not None]
    values = {name: [trial.params[name] for trial in finished] for name in config.search}
    return plots.search(values, [float(trial.value or 0) for trial in finished], metric=_metric_of(config))
