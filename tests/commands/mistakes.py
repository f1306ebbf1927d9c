"""Every command with every cheap mistake, in one process in which no framework can be loaded.

`python -m tests.commands.mistakes FOLDER` writes what came of each, a line of JSON each: what kind of mistake it was,
the words, the exit code, what was said, and the seconds of the processor.
"""

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import io
import json
import os
import pickle
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from converters.names.infer import expected_shapes
from converters.names.recognise import NAMINGS
from tests.commands import pictures
from tests.fuzz.reader import pace
from tf_simclr import cli
from tf_simclr.config import COMMANDS, options
from tf_simclr.models.architecture import Architecture

FRAMEWORKS = {"tensorflow", "keras", "jax", "torch", "keras_hub"}
SLOW = 0.5
"""Seconds from which on the processor's pace is looked at."""
IMAGES = "--image_dir images --image_size 16"
BASES = {
    "pretrain": f"{IMAGES} --train_batch_size 4",
    "finetune": f"{IMAGES} --train_batch_size 4",
    "distill": f"{IMAGES} --train_batch_size 4 --teacher w.npz",
    "linear-eval": f"{IMAGES} --checkpoint w.npz",
    "transfer": "--checkpoint w.npz --image_dir .",
    "embed": f"{IMAGES} --checkpoint w.npz",
    "export": "--checkpoint w.npz",
    "compare": "result.json result.json",
    "prepare-shards": "--image_dir images --out shards",
    "chest prepare": "images out",
    "chest covid": "--radiographs prepared",
    "chest ards": "--radiographs prepared --positive A",
    "chest findings": "--radiographs prepared",
    "chest evaluate": "--model chest --radiographs prepared",
    "chest explain": "--model chest photo.png",
    "chest app": "--model chest",
    "checkpoints get": "simclrv2/pretrained/r50_1x_sk0",
    "checkpoints convert": "simclrv2/pretrained/r50_1x_sk0",
    "augmentations": "photo.png",
}
"""Command → options with which nothing is wrong before a framework loads."""
OVER = {
    "augmentations": [("out", ["--out", place]) for place in ("photo.png", "images/../photo.png", "x.txt", "x")],
    "embed": [("out", ["--out", "w.npz"])],
    "export": [("out", ["--out", "w.npz"])],
    "linear-eval": [("result", ["--result", "w.npz"]), ("figures", ["--figures", "images/test/a/x"])],
    "finetune": [("model_dir", ["--model_dir", "images/train"])],
    "pretrain": [("model_dir", ["--model_dir", place]) for place in ("images", "images/train", "images/train/a/run")],
}
"""Command → options that would write over what it reads, or put pictures among those that it reads."""
CHECKPOINTS = ("checkpoint", "teacher", "adapted")
OUTPUTS = ("model_dir", "out", "result", "figures", "cache_dir", "teacher_logits")
WRONG = ("photo.png", "page.pth", "empty.keras", "images", "empty", "text.txt", "dense.npz", "optimizer.pth")
"""Files and folders that are no checkpoint, or of no ResNet."""
OPTIMIZER = pickle.dumps({"state": {}, "param_groups": [{"lr": 0.1, "params": [0]}]}, protocol=2)


class Loaded(BaseException):
    """A framework was asked for."""


class Refusing(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the frameworks, and raises where one is loaded."""

    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name in FRAMEWORKS else None

    def create_module(self, spec):
        raise Loaded(spec.name)


def write(root: Path) -> None:
    """Files to be wrong about."""
    pictures.splits(root / "images", size=(16, 16))
    for name in ("prepared", "empty", "chest/deployed", "hollow/train", "hollow/test"):
        (root / name).mkdir(parents=True)
    shapes = expected_shapes(NAMINGS["keras"], Architecture(depth=18))
    np.savez_compressed(root / "w.npz", **{name: np.zeros(shape, np.float32) for name, shape in shapes.items()})
    np.savez(root / "dense.npz", a=np.zeros(3))
    (root / "optimizer.pth").write_bytes(OPTIMIZER)
    (root / "prepared/settings.json").write_text('{"classes": ["A", "B"]}')
    (root / "chest/deployed/card.json").write_text("{}")
    (root / "text.txt").write_text("hello\n")
    (root / "page.pth").write_text("<html>log in</html>")
    (root / "empty.keras").write_bytes(b"")
    (root / "result.json").write_text("{}")
    (root / "photo.png").write_bytes((root / "images/train/a/0.png").read_bytes())


def typo(word: str) -> str:
    """A word with two letters exchanged."""
    return word[:-2] + word[-1] + word[-2] if len(word) > 3 and word[-1] != word[-2] else word + "x"


def of_option(option: options.Option) -> Iterator[tuple[str, list[str]]]:
    """Mistakes with one option: their kind, and the words behind the command."""
    name, kinds = f"--{option.name}", str(option.kind)
    yield "option", [f"--{typo(option.name)}", "1"]
    if option.truth:
        yield "choice", [f"{name}=maybe"]
        return
    if not option.several:
        yield "no value", [name]
    yield "blank", [name, "   "]
    if "Path" in kinds:
        yield "long", [name, "a" * 300]
    if "Literal" in kinds:
        yield "choice", [name, typo(re.findall(r"'([^']+)'", kinds)[0])]
    elif "int" in kinds or "float" in kinds:
        yield "number", [name, "x"]
        yield "number", [f"{name}=-7"]
        yield from [("number", [name, one]) for one in (("nan", "inf") if "float" in kinds else ("1.5",))]
    elif "Path" in kinds:
        if option.name in CHECKPOINTS:
            yield from [("checkpoint", [name, wrong]) for wrong in (*WRONG, "gone/nowhere")]
        elif option.name == "model":
            yield from [("model", [name, wrong]) for wrong in (*WRONG, "gone/nowhere")]
        elif option.name in OUTPUTS:
            ending = ".npz" if option.name == "out" else ""
            yield from [("output", [name, place + ending]) for place in ("text.txt/{below}", "/proc/nowhere/x")]
        elif option.name in ("image_dir", "radiographs"):
            yield from [("source", [name, wrong]) for wrong in ("gone", "empty", "hollow", "text.txt")]
    elif option.name.endswith("split"):
        yield "split", [name, "trian"]
    elif not option.several and option.default != "":
        yield "no value", [name, ""]


def of_command(command: str) -> Iterator[tuple[str, list[str]]]:
    """Mistakes with a command: their kind, and all words."""
    base, words, known = BASES.get(command, "").split(), command.split(), options.options(COMMANDS[command])
    yield "command", [*words[:-1], typo(words[-1]), *base]
    if not any(option.positional and option.several for option in known.values()):
        yield "stray", [*words, *base, "stray", "words"]
    for option in known.values():
        if option.required and not option.positional:
            yield "left out", [*words, *without(base, option.name)]
    if any(option.required and option.positional for option in known.values()):
        yield "left out", words
    yield from (("over", [*words, *without(base, name), *spoilt]) for name, spoilt in OVER.get(command, ()))
    if command in ("pretrain", "finetune", "distill", "linear-eval"):
        sgd = ["--protocol", "sgd"] if command == "linear-eval" else []
        yield "batch", [*words, *without(base, "train_batch_size"), *sgd, "--train_batch_size", "1000"]


def without(base: list[str], name: str) -> list[str]:
    """Words without an option and its value."""
    if f"--{name}" not in base:
        return base
    at = base.index(f"--{name}")
    return base[:at] + base[at + 2 :]


def mistakes() -> Iterator[tuple[str, list[str]]]:
    """The kinds of mistakes, and the words of each."""
    for command, kind in COMMANDS.items():
        yield from of_command(command)
        for option in options.options(kind).values():
            if option.positional:
                continue
            base = without(BASES.get(command, "").split(), option.name)
            base = without(base, "image_dir") if option.name == "radiographs" else base
            yield from ((what, [*command.split(), *base, *words]) for what, words in of_option(option))


CONVERTING = ("gone", "text.txt", "photo.png o.pth", "page.pth o.pth", "empty o.pth", "w.npz o.pth --nmaing twin",
              "w.npz o.pth --part encodr", "w.npz o.pth --step x", "w.npz o.pth a b", "")  # fmt: skip
OTHERS = {
    "converters.tf2torch": CONVERTING,
    "converters.torch2tf": CONVERTING,
    "converters.inspect": ("", "gone", "text.txt", "photo.png w.npz", "w.npz --opt", "empty"),
    "converters.verify": ("", "gone", "photo.png w.npz", "w.npz text.txt", "w.npz w.npz --toleranec 1"),
    "converters.__main__": ("tf2torhc", "inspect gone", "inspect --hlep", "verify w.npz", "tf2torch w.npz w.npz",
                            "verify w.npz w.npz --tolerance nan", "verify w.npz w.npz --tolerance=-1"),
    "tf_simclr.run": ("", "--mode=trian", "--image_size=x", "--lerning_rate=1", "stray", "--model_dir=r --dataset=",
                      "--model_dir=r --resnet_depth=51", "--model_dir=r --learning_rate=nan",
                      "--model_dir=text.txt/x --train_mode=pretrain",
                      "--model_dir=r --train_mode=finetune --checkpoint=gone"),
}  # fmt: skip
"""Other programs → words that are wrong."""


def tried(words: list[str], main: Callable[[], None] = cli.main) -> dict:
    """What came of words."""
    out, err, refusing = io.StringIO(), io.StringIO(), Refusing()
    sys.argv, began = ["tf-simclr", *words], time.process_time()
    sys.meta_path.insert(0, refusing)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
        code: object = "ran"
    except SystemExit as end:
        code = end.code
    except BaseException as error:
        code = f"{type(error).__name__}: {error}"
    finally:
        sys.meta_path.remove(refusing)
    seconds = time.process_time() - began
    seconds /= max(1.0, pace()) if seconds > SLOW else 1.0  # a slow or a busy processor is no fault of the code
    return {"code": code, "said": err.getvalue(), "out": out.getvalue(), "seconds": seconds}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    write(folder)
    os.chdir(folder)
    for what, line in mistakes():
        print(json.dumps({"kind": what, "words": " ".join(line), **tried(line)}), file=sys.__stdout__)
    for program, lines in OTHERS.items():
        main = importlib.import_module(program).main
        for words in lines:
            found = {"kind": "program", "words": f"{program} {words}", **tried(words.split(), main)}
            print(json.dumps(found), file=sys.__stdout__)
