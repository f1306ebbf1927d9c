"""`python -m tf_simclr COMMAND`: words to a configuration to its task.  A task's imports begin when it runs."""

import dataclasses
import importlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Annotated, Literal, Union, get_args, get_origin

import tyro

from tf_simclr.config import COMMANDS
from tf_simclr.errors import InputError, check, exit_on_input_error


def main() -> None:
    """Runs the command that the command line names."""
    with exit_on_input_error():
        config = parse(sys.argv[1:])
        name = next(name for name, kind in COMMANDS.items() if kind is type(config))
        task(name).run(config)


def task(name: str) -> ModuleType:
    """Imports a command's task, without what TensorFlow's libraries write while they are loaded.

    Those lines are no news (which CPU kernels there are, that there is no GPU) and no setting of TensorFlow 2.21
    silences them.  Python's own errors still appear.
    """
    with open(os.devnull, "w") as nowhere:
        stderr = os.dup(2)
        os.dup2(nowhere.fileno(), 2)
        try:
            module = importlib.import_module(f"tf_simclr.tasks.{name.replace('-', '_')}")
            tensorflow = sys.modules["tensorflow"]
            tensorflow.config.list_logical_devices()  # looks for GPUs now, not at the first operation
            tensorflow.get_logger().setLevel("ERROR")  # of its warnings none is the user's business
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
    return module


def parse(words: Sequence[str]):
    """The configuration that the words of a command line mean.

    `--config FILE`, a run folder's `config.json`, sets the command and its options; what follows changes them.

    Raises:
        InputError: the file is not a configuration.
    """
    words = list(words)
    stored = stored_config(words)
    defaults = {name: {"default": stored} if type(stored) is kind else {} for name, kind in COMMANDS.items()}
    kinds = [Annotated[kind, tyro.conf.subcommand(name, **defaults[name])] for name, kind in COMMANDS.items()]
    return tyro.cli(
        Union[tuple(kinds)],  # noqa: UP007 - made at run time
        args=words,
        prog="tf-simclr",
        description="SimCLR in Keras 3. `COMMAND --help` explains the options of a command.",
        use_underscores=True,
        config=(tyro.conf.FlagConversionOff, tyro.conf.OmitSubcommandPrefixes),
    )


def stored_config(words: list[str]):
    """Takes `--config FILE` out of the words and puts the command that it names in front, if there is none."""
    at = next((i for i, word in enumerate(words) if word.split("=")[0] == "--config"), None)
    if at is None:
        return None
    word = words.pop(at)
    check("=" in word or at < len(words), "--config must be followed by a config.json", received=word)
    path = Path(word.split("=", 1)[1] if "=" in word else words.pop(at))
    stored = read_config(path)
    command = next(name for name, kind in COMMANDS.items() if kind is type(stored))
    if not words or words[0].startswith("-"):
        words.insert(0, command)
    check(words[0] == command, f"{path} must be of the command given, {words[0]}", command=command)
    return stored


def read_config(path: Path):
    """Reads a run folder's `config.json`.

    Raises:
        InputError: there is none, or it is of no known command, or options are unknown, missing or of another type.
    """
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} must be a run folder's config.json ({error})") from error
    command = values.pop("command", None) if isinstance(values, dict) else None
    known = isinstance(command, str) and command in COMMANDS
    check(known, f"{path} must be a run folder's config.json, which names its command")
    fields = {field.name: field for field in dataclasses.fields(COMMANDS[command])}
    unknown = sorted(values.keys() - fields.keys())
    check(not unknown, f"{path} must hold options of {command} only", unknown=unknown)
    missing = sorted(n for n, f in fields.items() if f.default is dataclasses.MISSING and n not in values)
    check(not missing, f"{path} must hold every option of {command} without a default", missing=missing)
    wrong = {name: value for name, value in values.items() if not fits(value, fields[name].type)}
    check(not wrong, f"{path} must hold values of the options' types", **wrong)
    return COMMANDS[command](
        **{k: Path(v) if v is not None and "Path" in str(fields[k].type) else v for k, v in values.items()}
    )


def fits(value, kind) -> bool:
    """Whether a JSON value can stand for an option of this type.

    Example:
        >>> fits(3, float), fits("3", float), fits(None, Path | None)
        (True, False, True)
    """
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_args(kind):
        return any(fits(value, one) for one in get_args(kind))
    return type(value) in {float: (int, float), Path: (str,)}.get(kind, (kind,))
