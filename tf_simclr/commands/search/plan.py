"""What a search is asked for: a plan that can be run, of which images its numbers are, and what lies where it looks.

The metric must come from validation images; `final` names what changes when the best trial is run on the test images.
What the splits' names say against that is refused, or said with the result.
"""

import dataclasses
import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tf_simclr.cli import configured
from tf_simclr.config import COMMANDS, Sweep, plain, plain_defaults
from tf_simclr.config.effects import passed_over
from tf_simclr.config.first_look import kept_at
from tf_simclr.config.parts import CODE
from tf_simclr.config.splits import is_test, shared
from tf_simclr.data.folders import content_of
from tf_simclr.errors import InputError, check
from tf_simclr.files import begun_with, contents, read_json, write_json
from tf_simclr.files.places import expanded, is_address
from tf_simclr.frameworks import check_installed
from tf_simclr.own.named import check_typed, is_code, look
from tf_simclr.run_folder import WEIGHTS
from tf_simclr.terminal import say
from tf_simclr.weights import content_of_option

_PLACES = {"model_dir": "", "result": "result.json"}
"""Option of a task that says where its numbers go → what it has to name of a trial's folder: that itself, or a file."""
_METRICS = {
    "linear-eval": "results.checkpoint.logistic_regression.accuracy",
    "pretrain": "knn_acc",
}
"""Task → what is maximised where the metric is not named and `top1.accuracy` is not among the task's numbers."""
_SPLITS = ("train_split", "eval_split")
Values = dict[str, Any]
"""Knob → value."""


@dataclass(frozen=True)
class Trial:
    """A combination of values and what came of it.

    Attributes:
        number: of its folder.
        params: knob → value.
        value: the metric; None: the trial failed.
    """

    number: int
    params: Values
    value: float | None


def key(params: Any) -> str:
    """Values as a string that is equal where they are: 1, 1.0 and True are three values."""
    return json.dumps(params, sort_keys=True)


def check_plan(config: Sweep) -> None:
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
            check_typed(code, name, typed=code.split(":")[0] in modules)
            look(code, name)


def metric_of(config: Sweep) -> str:
    """What to maximise, as a trial's result names it."""
    return _METRICS.get(config.task, config.metric) if config.metric == Sweep.metric else config.metric


def _fields_of(task: str) -> dict[str, Any]:
    """The options of a task by name."""
    return {field.name: field for field in dataclasses.fields(COMMANDS[task])}


def _place_of(config: Sweep) -> str:
    """The option by which the task is told where its numbers go.

    Raises:
        InputError: it has none: there would be nothing to maximise.
    """
    fields = _fields_of(config.task)
    found = next((name for name in _PLACES if name in fields), None)
    able = [name for name in COMMANDS if not {*_PLACES}.isdisjoint(_fields_of(name))]
    check(found is not None, f"task must be one that writes numbers: {', '.join(able)}", task=config.task)
    return str(found)


def words(config: Sweep, folder: Path, *, changes: Values) -> Values:
    """The configuration of a run of the task with these changes, as JSON."""
    place = _place_of(config)
    own = folder if config.task == "transfer" else folder / _PLACES[place]
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


def splits_of(config: Sweep) -> _Splits:
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


def on_test(config: Sweep, trial: Trial) -> bool:
    """Whether a trial gave a number of test images."""
    fields = _fields_of(config.task)
    if trial.value is None or "eval_split" not in fields:
        return trial.value is not None
    train, tested = ((config.options | trial.params).get(name, fields[name].default) for name in _SPLITS)
    return is_test(str(tested or train))


def note_plan(config: Sweep) -> None:
    """Notes what is searched, or checks that it is what the folder holds."""
    note, plan = config.model_dir / "plan.json", plain(config)
    # A journal of Optuna's, of before searches were noted here.
    older = (config.model_dir / "journal.log").exists()
    rule = f"{config.model_dir} holds a search of an earlier version; take another folder"
    check(not older, rule, journal="journal.log")
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
