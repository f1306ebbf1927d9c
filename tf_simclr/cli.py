"""`python -m tf_simclr COMMAND`: words to a configuration to its task.  A task's imports begin when it runs."""

import contextlib
import dataclasses
import importlib
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args, get_origin

import tyro

from tf_simclr.accelerators import Accelerator, complaint, quietly, seen, unused
from tf_simclr.config import COMMANDS, Pretrain
from tf_simclr.config.presets import PRESETS, settings
from tf_simclr.errors import InputError, check, exit_on_input_error
from tf_simclr.foreign import parse_json, reading, spend
from tf_simclr.places import expanded
from tf_simclr.terminal import write

EXTRAS = {
    "optuna": "sweep", "pydicom": "chest", "torch": "torch", "safetensors": "torch", "jax": "jax",
    "tensorflow": "tensorflow", "tensorflow_datasets": "tensorflow",
}  # fmt: skip
"""Package that a command may need → the extra that has it."""

ELSEWHERE = {
    "checkpoints list": "commands.checkpoints",
    "checkpoints get": "commands.checkpoints",
    "checkpoints convert": "commands.checkpoints",
    "presets": "config.presets",
    "chest prepare": "chest.collections.command",
    "chest covid": "chest.covid.command",
    "chest ards": "chest.ards.command",
    "chest findings": "chest.findings.command",
    "chest explain": "chest.model.command",
    "chest app": "chest.page.command",
}
"""Command → its module, where it has not the command's name."""


def main() -> None:
    """Runs the command that the command line names."""
    with exit_on_input_error():
        words = sys.argv[1:]
        if wants_overview(words):
            write(overview(words))
            return
        execute(words)


def execute(words: str | Sequence[str]) -> None:
    """Runs a command in this process, as notebooks do, which shares its GPU or TPU.

    Args:
        words: as behind `python -m tf_simclr`, in one string or apart.

    Raises:
        InputError: something in them cannot be used.
    """
    config = parse(shlex.split(words) if isinstance(words, str) else words)
    name = next(name for name, kind in COMMANDS.items() if kind is type(config))
    with extras_named(name):
        task(name).run(config)


def wants_overview(words: Sequence[str]) -> bool:
    """Whether the words ask what commands there are: `--help`, alone or behind a group's name like `chest`."""
    asks = bool(words) and words[-1] in ("-h", "--help")
    return asks and not named(words) and bool(group(" ".join(words[:-1])))


def group(name: str) -> dict[str, type]:
    """The commands whose names begin with this word; all for none."""
    return {command: kind for command, kind in COMMANDS.items() if not name or command.startswith(name + " ")}


def overview(words: Sequence[str]) -> str:
    """The commands, of a group if the words name one, each with the first line of what it says of itself."""
    commands = group(" ".join(word for word in words if not word.startswith("-")))
    lines = [f"  {name:<20}{(kind.__doc__ or '').splitlines()[0]}" for name, kind in commands.items()]
    usage = "usage: python -m tf_simclr COMMAND [OPTIONS], or tf-simclr COMMAND [OPTIONS]"
    closing = "`COMMAND --help` explains its options; --config RUN/config.json repeats a run."
    return "\n".join([usage, "", "SimCLR in Keras 3", "", *lines, "", closing, ""])


def task(name: str) -> ModuleType:
    """Imports a command's task, without what its framework's libraries write while they are loaded.

    Those lines are no news (which CPU kernels there are) and no setting of TensorFlow 2.21 silences them.  They are
    looked at where the machine has an accelerator that the framework does not see, and what explains it is said.
    """
    with quietly() as noise:
        module = importlib.import_module(f"tf_simclr.{place(name)}")
        backend = loaded_backend()
        if (tensorflow := sys.modules.get("tensorflow")) is not None:  # what only lists does not load it
            tensorflow.config.list_physical_devices()  # looks for GPUs now; logical devices are the task's to make
            tensorflow.get_logger().setLevel("ERROR")  # of its warnings none is the user's business
        computing = backend if name in COMPUTING else None
        devices = seen(computing) if computing is not None else []
    if computing is not None:
        idle = unused(computing, devices)
        if idle is not None and idle not in TOLD:
            TOLD.append(idle)
            write(complaint(computing, idle, noise=noise.text) + "\n", sys.stderr)
    return module


COMPUTING: tuple[str, ...] = ("pretrain", "finetune", "distill", "linear-eval", "transfer", "embed", "demo", "official")
COMPUTING += ("chest covid", "chest ards", "chest explain")
"""Commands for which it matters whether an accelerator is used."""
TOLD: list[Accelerator] = []
"""Accelerators whose idleness was said in this process."""


def loaded_backend() -> str | None:
    """What Keras computes with, if a task has loaded it."""
    keras = sys.modules.get("keras")
    return None if keras is None or not hasattr(keras, "config") else keras.config.backend()


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
        raise InputError(f"{name} needs {package}: pip install 'tf-simclr[{EXTRAS[package]}]'") from error


def place(name: str) -> str:
    """The module of a command: by its name among the commands, unless the table says where else it is."""
    return ELSEWHERE.get(name, f"commands.{name.replace('-', '_')}")


def parse(words: Sequence[str]) -> Any:
    """The configuration that the words of a command line mean.

    `--config FILE`, a run folder's `config.json`, sets the command and its options; `--preset NAME` the options of
    `pretrain` that the preset has; the others change them.

    Raises:
        InputError: there is no such command or preset, or the file is not a configuration.
    """
    words = list(words)
    stored = stored_config(words) or preset(words)
    command = named(words)
    if command is None:
        known = f"the first word must be a command ({', '.join(COMMANDS)}; --help explains them)"
        raise InputError(f"{known}. Received: {' '.join(words[:2]) or 'nothing'}")
    return tyro.cli(
        COMMANDS[command],
        args=words[len(command.split()) :],
        default=stored,
        prog=f"tf-simclr {command}",
        use_underscores=True,
        config=(tyro.conf.FlagConversionOff,),
    )


def named(words: Sequence[str]) -> str | None:
    """The command that the words begin with, one word or two."""
    return next((name for n in (2, 1) if (name := " ".join(words[:n])) in COMMANDS), None)


def stored_config(words: list[str]) -> Any:
    """Takes `--config FILE` out of the words and puts the command that it names in front, if there is none."""
    text = taken(words, "--config", what="a config.json")
    if text is None:
        return None
    path = expanded(text)
    stored = read_config(path)
    command = next(name for name, kind in COMMANDS.items() if kind is type(stored))
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
    """Takes an option, which tyro is not to see, and its value out of the words; None, if it is not there."""
    at = next((i for i, word in enumerate(words) if word.split("=")[0] == option), None)
    if at is None:
        return None
    word = words.pop(at)
    check("=" in word or at < len(words), f"{option} must be followed by {what}", received=word)
    return word.split("=", 1)[1] if "=" in word else words.pop(at)


def read_config(path: Path) -> Any:
    """Reads a run folder's `config.json`.

    Raises:
        InputError: there is none, or it is of no known command, or options are unknown, missing or of another type.
    """
    with reading(path, "a run folder's config.json"):
        spend(outline=path.stat().st_size)
        values = parse_json(path.read_bytes())
    return configured(values, where=str(path))


def configured(values: Any, *, where: str) -> Any:
    """The configuration that JSON values mean; `where` is what a message calls the place that they are from.

    Raises:
        InputError: as `read_config`.
    """
    values = dict(values) if isinstance(values, dict) else {}
    command = values.pop("command", None)
    known = isinstance(command, str) and command in COMMANDS
    check(known, f"{where} must be a run folder's config.json, which names its command")
    fields = {field.name: field for field in dataclasses.fields(COMMANDS[command])}
    unknown = sorted(values.keys() - fields.keys())
    check(not unknown, f"{where} must hold options of {command} only", unknown=unknown)
    needed = {n for n, f in fields.items() if f.default is f.default_factory is dataclasses.MISSING}
    missing = sorted(needed - values.keys())
    check(not missing, f"{where} must hold every option of {command} without a default", missing=missing)
    wrong = {name: value for name, value in values.items() if not fits(value, fields[name].type)}
    check(not wrong, f"{where} must hold values of the options' types", **wrong)
    return COMMANDS[command](**{name: valued(value, fields[name].type) for name, value in values.items()})


def valued(value: Any, kind: Any) -> Any:
    """What a JSON value stands for: a list is a tuple, and some strings are paths."""
    if isinstance(value, list):
        return tuple(valued(one, kind) for one in value)
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
    return type(value) in {float: (int, float), Path: (str,)}.get(kind, (kind,))
