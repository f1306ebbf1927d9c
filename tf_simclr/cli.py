"""`python -m tf_simclr COMMAND`: words to a configuration to its task.  A task's imports begin when it runs."""

import contextlib
import dataclasses
import importlib
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args, get_origin

import tf_simclr
from tf_simclr.config import COMMANDS, Pretrain, options
from tf_simclr.config.effects import check_effect, passed_over
from tf_simclr.config.parts import CODE, ENCODERS
from tf_simclr.config.presets import PRESETS, settings
from tf_simclr.errors import InputError, check, exit_on_input_error, meant
from tf_simclr.files.places import is_bucket, shown, written
from tf_simclr.foreign import read_json
from tf_simclr.frameworks import EXTRAS, check_chosen, installed, to_install
from tf_simclr.machine.accelerators import Accelerator, complaint, quietly, seen, settle_tensorflow, unused
from tf_simclr.machine.launchers import launched, meeting, started
from tf_simclr.own.named import check_typed, find, is_code
from tf_simclr.terminal import say, typed, write

_ELSEWHERE = {
    "checkpoints list": "commands.checkpoints",
    "checkpoints get": "commands.checkpoints",
    "checkpoints convert": "commands.checkpoints",
    "prepare-shards": "commands.shards.command",
    "presets": "config.presets",
    "chest prepare": "chest.collections.command",
    "chest covid": "chest.covid.command",
    "chest ards": "chest.ards.command",
    "chest findings": "chest.findings.command",
    "chest evaluate": "chest.evaluate.command",
    "chest explain": "chest.model.command",
    "chest app": "chest.page.command",
    "official": "official.command",  # of `python -m tf_simclr.run`, which has flags of its own
}
"""Command → its module, where it has not the command's name."""


def main() -> None:
    """Runs the command that the command line names."""
    with exit_on_input_error():
        execute(sys.argv[1:])


_OF_TENSORFLOW = ("demo", "distill", "export", "transfer")
"""Commands that would be halfway through before they found that it is missing."""


def execute(words: str | Sequence[str]) -> None:
    """Runs a command in this process, as notebooks do, which shares its GPU or TPU.

    Args:
        words: as behind `python -m tf_simclr`, in one string or apart.

    Raises:
        InputError: something in them cannot be used.
    """
    words = shlex.split(words) if isinstance(words, str) else list(words)
    # 1. What is no command: the version and the overview, without a framework.
    if words[:1] in (["--version"], ["-V"]) or words[-1:] == ["--version"]:
        write(f"tf-simclr {tf_simclr.__version__}\n")
        return
    if _wants_overview(words):
        write(overview(words))
        return
    # 2. Words → a configuration, which has checked itself.
    asked = parse(words)
    # 3. Addresses in buckets → folders here, and back at the end; 4. the task itself.
    from tf_simclr.buckets.staging import staged  # not above: --help waits for no NumPy

    with staged(asked, say=say, several=several(asked)) as config:
        _run(config)


def several(config: Any) -> bool:
    """Whether several processes were started for a command that fills a folder in a bucket."""
    if not is_bucket(getattr(config, "model_dir", None)):
        return False
    return started() is not None or getattr(config, "coordinator", None) is not None


def _run(config: Any) -> None:
    """Runs a command whose paths are all of this machine.

    Raises:
        InputError: something in it cannot be used.
    """
    # 1. What would fail later is asked first: inputs, packages, several processes.
    from tf_simclr.config.first_look import look_first  # not above: --help waits for no NumPy

    name = next(name for name, kind in COMMANDS.items() if kind is type(config))
    look_first(config)
    if name.startswith("chest "):
        with extras_named(name):
            importlib.import_module("tf_simclr.chest.first_look").look_first(config)
    if name in _OF_TENSORFLOW and not installed("tensorflow"):
        raise InputError(f"{name} needs tensorflow: {to_install('tensorflow')}")
    if name not in _LOOKING and not hasattr(config, "coordinator"):
        _check_alone(name)
    # 2. Code that the user names, before a file that may hold its layers is opened; it may make layers of its own.
    _number_layers_anew()
    for option in ENCODERS:  # before a network that is made of it is loaded
        if is_code(code := getattr(config, option, "")) and name != "sweep":  # whose trials are processes
            _check_backend(name)
            with quietly():
                find(code, option)
    # 3. The task, of which some meet other processes before they compute.
    with extras_named(name):
        meets = getattr(config, "coordinator", None)
        (task(name) if meets is None else task(name, coordinator=meets)).run(config)


def _number_layers_anew() -> None:
    """Has Keras count the layers that nobody named from one again, as in a process of its own.

    They are numbered through a process, and checkpoints go by their names: so a notebook goes on with what it began.
    """
    if "keras" in sys.modules:
        with contextlib.suppress(ImportError, AttributeError):  # Keras has no public name for it
            importlib.import_module("keras.src.utils.naming").reset_uids()


def _wants_overview(words: Sequence[str]) -> bool:
    """Whether the words ask what commands there are: none at all, a group's name like `chest`, `--help` with either."""
    plain = [word for word in words if word not in options.HELP]
    return not named(words) and bool(group(" ".join(plain)))


def group(name: str) -> dict[str, type]:
    """The commands whose names begin with this word; all for none."""
    return {command: kind for command, kind in COMMANDS.items() if not name or command.startswith(name + " ")}


def overview(words: Sequence[str]) -> str:
    """The commands, of a group if the words name one, each with the first line of what it says of itself."""
    commands = group(" ".join(word for word in words if not word.startswith("-")))
    wide = options.width()
    about = {name: (kind.__doc__ or "").splitlines()[0] for name, kind in commands.items()}
    lines = [line for name, text in about.items() for line in options.columns(name, text, wide=wide, column=22)]
    usage = "usage: tf-simclr COMMAND [OPTIONS], or python -m tf_simclr COMMAND [OPTIONS]"
    closing = (
        "COMMAND --help explains the options that matter, --help-all all;\n--config RUN/config.json repeats a run."
    )
    return "\n".join([usage, "", f"SimCLR in Keras 3, version {tf_simclr.__version__}", "", *lines, "", closing, ""])


def task(name: str, *, coordinator: str | None = None) -> ModuleType:
    """Imports a command's task, without what its framework's libraries write while they are loaded.

    Those lines are no news (which CPU kernels there are) and no setting of TensorFlow 2.21 silences them.  They are
    looked at where the machine has an accelerator that the framework does not see, and what explains it is said.
    """
    _check_backend(name)
    # Importing a framework is when its libraries complain: what they say is kept, and shown if an accelerator is idle.
    with quietly() as noise:
        module = importlib.import_module(f"tf_simclr.{place(name)}")
        settle_tensorflow()
        # What Keras computes with, if the task has loaded it.
        keras = sys.modules.get("keras") if name in _COMPUTING else None
        computing = keras.config.backend() if keras is not None and hasattr(keras, "config") else None
        if computing == "jax" and (coordinator is not None or meeting() is not None or launched() is not None):
            computing = None  # JAX must not look at its devices before its processes have met
        devices = seen(computing) if computing is not None else []
    if computing is not None:
        idle = unused(computing, devices)
        if idle is not None and idle not in TOLD:
            TOLD.append(idle)
            write(complaint(computing, idle, noise=noise.text) + "\n", sys.stderr)
    return module


def _check_backend(name: str) -> None:
    """Refuses a backend that Keras would fail with, before a command loads it.

    Raises:
        InputError: there is no such backend.
    """
    if name not in _FREE and "keras" not in sys.modules:
        check_chosen()


_COMPUTING: tuple[str, ...] = ("pretrain", "finetune", "distill", "linear-eval", "transfer", "embed", "demo")
_COMPUTING += ("official", "chest covid", "chest ards", "chest findings", "chest evaluate", "chest explain")
"""Commands for which it matters whether an accelerator is used."""
_LOOKING: tuple[str, ...] = ("compare", "checkpoints list", "checkpoints get", "doctor", "presets", "augmentations")
"""Commands that each of several processes may run: they write nothing that another one writes, or hold it alone."""
_FREE: tuple[str, ...] = ("checkpoints list", "checkpoints get", "doctor", "presets")
"""Commands that load no framework, or tell themselves what keeps it from loading."""
TOLD: list[Accelerator] = []
"""Accelerators whose idleness was said in this process."""


def _check_alone(name: str) -> None:
    """Refuses to compute the same in each of several processes, which would write the same files.

    Raises:
        InputError: this is one of several.
    """
    who = started()
    rule = f"{name} must be started once, in one process, but {who} has started several; start it without that"
    check(who is None, rule)


@contextlib.contextmanager
def extras_named(name: str) -> Iterator[None]:
    """A command's block: a package that is missing, sooner or later, is named with the extra that has it.

    Raises:
        InputError: so it is.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = str(error.name).split(".")[0]
        if package not in EXTRAS:
            raise
        raise InputError(f"{name} needs {package}: {to_install(package)}") from error


def place(name: str) -> str:
    """The module of a command: by its name among the commands, unless the table says where else it is."""
    return _ELSEWHERE.get(name, f"commands.{name.replace('-', '_')}")


def parse(words: Sequence[str]) -> Any:
    """The configuration that the words of a command line mean.

    `--config FILE`, a run folder's `config.json`, sets the command and its options; `--preset NAME` the options of
    `pretrain` that the preset has; the others change them.  What images a run saw, and how, a command that is given
    the run takes from there (`_inherited`).

    Raises:
        InputError: there is no such command or preset, or the file is not a configuration.
        SystemExit: with code 0, after help.
    """
    # `--help COMMAND` asks what `COMMAND --help` does, as does a help within a command of two words.
    asked = [word for word in words if word in options.HELP]
    words = [word for word in words if word not in asked]
    command = named(words)
    # 1. A file of options or a preset, which may name the command, too.
    stored = None if command is not None and asked else _stored_config(words) or preset(words)
    command = named(words)
    # 2. A question for help is answered, whatever else is there.
    if command is not None and asked:
        whole = any(word.startswith("--help") and word != "--help" for word in asked)
        write(options.explained(command, COMMANDS[command], whole=whole, more=besides(command)))
        raise SystemExit(0)
    if command is None:
        start = " ".join(words[: 2 if group("".join(words[:1])) and words else 1])
        near = meant(start, COMMANDS) if words else ""
        # Options in front of the command: which one is it, and how is it typed?
        later = next((i for i in range(1, len(words)) if named(words[i:])), 0) if start.startswith("-") else 0
        near = f": {typed(*words[later:], *words[:later], program='tf-simclr')}" if later else near
        rule = f"the first word must be a command{near}; `tf-simclr --help` lists them"
        raise InputError(f"{rule}. Received: {' '.join(words[:2])}")
    # 3. Options of the command line, which go over those.
    kind = COMMANDS[command]
    given = options.read(command, kind, words=words[len(command.split()) :], old=kind.RENAMED, say=say)
    # 4. All together: over a stored configuration, or with what the given checkpoint's run says of images.
    if stored is not None:
        _check_named(stored, given)
        config = dataclasses.replace(stored, **given)
    else:
        options.check_whole(command, kind, given=given)
        config = kind(**_inherited(command, given, say=say), **given)
    # 5. What was typed has an effect, or is refused; what a preset or a file sets beside it is said.
    check_effect(config, given)
    for line in passed_over(config, typed=given):
        say(line)
    return config


def _check_named(stored: Any, given: Mapping[str, Any]) -> None:
    """Refuses code that a file alone names: it runs where a person has typed its name.

    Raises:
        InputError: so it is.
    """
    for name in CODE:
        if is_code(code := getattr(stored, name, "")):
            check_typed(code, name, typed=name in given)


def besides(command: str) -> list[tuple[str, str]]:
    """Options that are none of a configuration, and what they mean."""
    found = [("--config FILE", "Options of a run folder's config.json; options given beside it override them.")]
    if command == "pretrain":
        text = "Options of a preset (`tf-simclr presets` lists them); options given beside it override them."
        found.insert(0, (f"--preset {{{','.join(PRESETS)}}}", text))
    return found


_SOURCES = ("dataset", "image_dir", "radiographs")
"""Options that name images; one of them is enough."""
_SEEN = ("image_size", "exif_orientation", "channels")
"""Options of how a network sees images."""
_DRAWN = ("data_dir", "image_column", "label_column", "positive", "split_seed", "validation_fraction")
"""Options of which images are in a split."""


def _inherited(command: str, given: Mapping[str, Any], *, say: Callable[[str], None]) -> dict[str, Any]:
    """What a command takes from the run that it is given: which images, and how the network sees them.

    Args:
        command: its name.
        given: its options that are given, which count.
        say: takes a line for what is taken, and one for what is given otherwise.

    Returns:
        Options that are not given, as they were in the run; nothing where no run is given.
    """
    known = options.options(COMMANDS[command])
    place = given.get("checkpoint") or given.get("teacher")
    if place is None or command == "pretrain" or command.startswith("chest ") or "image_size" not in known:
        return {}
    # The run folder that a checkpoint is in, or the checkpoint's own.
    folder = _fetched(place)
    values = _run_values(folder)
    if not values:
        return {}
    other = [name for name in _SOURCES if given.get(name) is not None]
    theirs = [(name, values[name]) for name in reversed(_SOURCES) if values.get(name) is not None][:1]
    # Which images are taken only where none are named; how they are seen, always.
    wanted = [*_SEEN, *([] if other or command in ("transfer", "export") else [*_SOURCES, *_DRAWN])]
    if given.get("radiographs") is not None:  # they are read as they were prepared
        wanted.remove("exif_orientation")
    taken: dict[str, Any] = {}
    # Told only where the source is another than theirs: the user may mean it, and should see it.
    unlike = [
        f"{name} is {_told(given[name])} here, {their} {_told(value)} there"
        for name in other[:1]
        for their, value in theirs
        if (their, value) != (name, given[name])
    ]
    for name in (name for name in wanted if name in known and name in values):
        # What equals the default needs no line.
        if name not in given:
            taken |= {name: values[name]} if values[name] != known[name].default else {}
        elif given[name] != values[name]:
            unlike.append(f"{name} is {given[name]} here, {values[name]} there")
    if taken:
        words = ", ".join(f"{name} {_told(value)}" for name, value in taken.items() if value is not None)
        say(f"as in the run {shown(folder)}: {words}")
    if unlike:
        say(f"not as in the run {shown(folder)}: {'; '.join(unlike)}")
    return taken


def _told(value: Any) -> Any:
    """A knob's value, for people."""
    return written(value) if isinstance(value, Path) else value


def _run_values(folder: Path) -> dict[str, Any]:
    """What a run folder's `config.json` says of images; nothing where there is none that can be read."""
    path = folder / "config.json"
    if not path.is_file():
        return {}
    try:
        config = read_config(path)
    except InputError:  # of an earlier version, of a program: the command says what it needs to know
        return {}
    names = [name for name in (*_SEEN, *_SOURCES, *_DRAWN) if hasattr(config, name)]
    values = {name: getattr(config, name) for name in names}
    if values.get("image_dir") is not None or values.get("radiographs") is not None:
        values.pop("dataset", None)
    return values


def named(words: Sequence[str]) -> str | None:
    """The command that the words begin with, one word or two; `linear_eval` is `linear-eval`."""
    dashed = [word.replace("_", "-") for word in words[:2]]
    return next((name for n in (2, 1) if (name := " ".join(dashed[:n])) in COMMANDS), None)


def _fetched(place: str | Path) -> Path:
    """A path, of an address in a bucket that of its copy here."""
    from tf_simclr.buckets import local  # not above: --help waits for no NumPy

    return local(place)


def _stored_config(words: list[str]) -> Any:
    """Takes `--config FILE` out of the words and puts the command that it names in front, if there is none."""
    text = taken(words, "--config", what="a config.json")
    if text is None:
        return None
    both = [word for word in words if word.split("=")[0] == "--preset"]
    check(not both, "--config and --preset each set all options; give one of them, and options that change it")
    path = _fetched(text)
    inside = f": name {written(path / 'config.json')}" if (path / "config.json").is_file() else ""
    check(not path.is_dir(), f"--config must be followed by a file, but {shown(path)} is a folder{inside}")
    stored = read_config(path)
    command = next(name for name, kind in COMMANDS.items() if kind is type(stored))
    # In front, as if it had been typed.
    if not words or words[0].startswith("-"):
        words[:0] = command.split()
    check(named(words) == command, f"{path} must be of the command given, {' '.join(words[:2])}", command=command)
    return stored


def preset(words: list[str]) -> Pretrain | None:
    """Takes `--preset NAME` out of the words of `pretrain`: the knobs that it means."""
    if named(words) != "pretrain":
        return None
    name = taken(words, "--preset", what=f"one of {', '.join(PRESETS)}")
    return None if name is None else Pretrain(**settings(name))


def taken(words: list[str], option: str, *, what: str) -> str | None:
    """Takes an option, which is none of the command's, and its value out of the words; None, if it is not there."""
    # In both spellings, `--option value` and `--option=value`.
    places = [i for i, word in enumerate(words) if word.split("=")[0] == option]
    if not places:
        return None
    check(len(places) == 1, f"{option} must be given once", times=len(places))
    word = words.pop(places[0])
    value = word.split("=", 1)[1] if "=" in word else "".join(words[places[0] : places[0] + 1])
    check(value.strip(), f"{option} must be followed by {what}, but nothing stands there")
    if "=" not in word:
        words.pop(places[0])
    return value


def read_config(path: Path) -> Any:
    """Reads a run folder's `config.json`.

    Raises:
        InputError: there is none, or it is of no known command, or options are unknown, missing or of another type.
    """
    return configured(read_json(path, "a run folder's config.json"), where=str(path))


def configured(values: Any, *, where: str) -> Any:
    """The configuration that JSON values mean; `where` is what a message calls the place that they are from.

    Raises:
        InputError: as `read_config`.
    """
    values = dict(values) if isinstance(values, dict) else {}
    # 1. The command.
    command = values.pop("command", None)
    known = isinstance(command, str) and command in COMMANDS
    check(known, f"{where} must be a run folder's config.json, which names its command")
    # 2. Names: earlier ones as they are called now; none that it does not have; all that have no default.
    fields = {field.name: field for field in dataclasses.fields(COMMANDS[command])}
    values = {COMMANDS[command].RENAMED.get(name, name): value for name, value in values.items()}
    unknown = sorted(values.keys() - fields.keys())
    near = meant(unknown[0], fields) if unknown else ""
    check(not unknown, f"{where} must hold options of {command} only{near}", unknown=unknown)
    needed = {n for n, f in fields.items() if f.default is f.default_factory is dataclasses.MISSING}
    missing = sorted(needed - values.keys())
    check(not missing, f"{where} must hold every option of {command} without a default", missing=missing)
    # 3. Types, before a constructor would take a string for a number.
    wrong = {name: value for name, value in values.items() if not fits(value, fields[name].type)}
    check(not wrong, f"{where} must hold values of the options' types", **wrong)
    return COMMANDS[command](**{name: _valued(value, fields[name].type) for name, value in values.items()})


def _valued(value: Any, kind: Any) -> Any:
    """What a JSON value stands for: a list is a tuple, and some strings are paths."""
    if isinstance(value, list):
        return tuple(_valued(one, kind) for one in value)
    return Path(value) if value is not None and "Path" in str(kind) else value


def fits(value: Any, kind: Any) -> bool:
    """Whether a JSON value can stand for an option of this type.

    Example:
        >>> fits(3, float), fits("3", float), fits(None, Path | None), fits([1, 2], tuple[int, ...])
        (True, False, True, True)
    """
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is dict:
        return isinstance(value, dict)
    if get_origin(kind) is tuple:
        return isinstance(value, list) and all(fits(one, get_args(kind)[0]) for one in value)
    if get_args(kind):
        return any(fits(value, one) for one in get_args(kind))
    # By exact type: True is no number, and a whole number is a float's value, too.
    return type(value) in {float: (int, float), Path: (str,)}.get(kind, (kind,))
