"""The writers' table: *writer × what was made × read right, or refused with its reason*.

    python -m tests.converters.writers                  every row (minutes)
    python -m tests.converters.writers --quick          the cheap ones
    python -m tests.converters.writers --match keras    rows whose writer or what was made has this text

Each row makes a file in the layout that some program writes, reads it with `converters.load`, and compares every weight
bit by bit with the tensors that were put in, and the features with those of the model that was saved where the row has
them.  The exit code is 1 if any row is wrong: read although it should be refused, refused although it should be read,
refused with another reason than the true one, or read otherwise than written.

To add rows: write a module `tests/converters/writers_<what>.py` with a list `ROWS` of `Row`; it is found by its name.
A row's file must be made by something else than this project's own writer wherever that can be: only then it proves
something.  A row whose program is not installed says what it needs, and is not counted.
"""

import argparse
import contextlib
import importlib
import pkgutil
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

import converters
from converters import verification
from tf_simclr.errors import InputError


@dataclass(frozen=True)
class Made:
    """What a row's maker left behind.

    Attributes:
        path: What the user would name: a file, a prefix or a folder.
        weights: Hub name (`group1_block1_conv3/kernel`, …) → the array that was put in, in TensorFlow's layout; empty
            where the file is to be refused.
        images: `(n, h, w, 3)`, where features are compared.
        features: `(n, d)`: what the saved model itself computes for these images.
    """

    path: Path
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)
    images: np.ndarray | None = None
    features: np.ndarray | None = None


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        writer: The program, with the version or call where it matters: `torch.save`, `tf.train.Saver`.
        made: What was made with it, in a few words; (writer, made) is unique.
        make: Empty folder → what was made in it.
        expect: Whether it is to be read, or refused with `InputError`.
        options: Arguments of `converters.load`.
        reason: Regular expression.  Of a refusal: found in its message.  Of a reading: found in one of the network's
            notes or reasons for what was left; empty: anything.
        needs: Modules that the maker imports beside the base.
        quick: Whether the quick tests take it: well below a second.
    """

    writer: str
    made: str
    make: Callable[[Path], Made]
    expect: Literal["read", "refused"] = "read"
    options: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    needs: tuple[str, ...] = ()
    quick: bool = False

    @property
    def name(self) -> str:
        """Of its test."""
        return f"{self.writer}: {self.made}"

    @property
    def absent(self) -> list[str]:
        """Modules that are needed and not installed."""
        return [module for module in self.needs if find_spec(module) is None]


@dataclass(frozen=True)
class Outcome:
    """What became of a row.

    Attributes:
        right: Whether it is what was expected.
        text: For the table.
    """

    right: bool
    text: str


def rows() -> list[Row]:
    """All rows, in the order of their modules' names."""
    package = importlib.import_module("tests.converters")
    names = sorted(m.name for m in pkgutil.iter_modules(package.__path__) if m.name.startswith("writers_"))
    return [row for name in names for row in importlib.import_module(f"tests.converters.{name}").ROWS]


def outcome(row: Row, folder: Path) -> Outcome:
    """Makes the row's file in an empty folder and reads it."""
    made = row.make(folder)
    try:
        network = converters.load(made.path, **row.options)
        with contextlib.closing(network):
            read = {name: network[name] for name in network.weights}
            told = [*network.notes, *network.left]
            wrong = list(_differences(made, network, read))
    except InputError as error:
        return _refused(row, str(error))
    except Exception as error:  # what a user would see as a traceback
        return Outcome(False, f"TRACEBACK: {type(error).__name__}: {error}")
    if row.expect == "refused":
        return Outcome(False, f"READ, but is to be refused ({row.reason})")
    if row.reason and not any(re.search(row.reason, text) for text in told):
        wrong.append(f"nothing says {row.reason!r}: {told}")
    if wrong:
        return Outcome(False, f"READ WRONG: {'; '.join(wrong[:3])}")
    features = "" if made.features is None else ", features equal"
    return Outcome(True, f"read right: {len(read)} weights equal{features}")


def _refused(row: Row, message: str) -> Outcome:
    first = message.splitlines()[0]
    if row.expect == "read":
        return Outcome(False, f"REFUSED, but is to be read: {first}")
    if not (row.reason and re.search(row.reason, message)):
        return Outcome(False, f"REFUSED for another reason than {row.reason!r}: {first}")
    return Outcome(True, f"refused: {first}")


def _differences(made: Made, network: Any, read: Mapping[str, np.ndarray]) -> Iterator[str]:
    """What differs between what was put in and what was read."""
    if not made.weights:
        yield "the row does not say what was put in"
    for name in sorted(made.weights.keys() ^ read.keys()):
        yield f"{name} is {'missing' if name in made.weights else 'more than was put in'}"
    for name in made.weights.keys() & read.keys():
        a, b = np.asarray(made.weights[name]), read[name]
        if a.dtype != b.dtype or a.shape != b.shape or a.tobytes() != b.tobytes():
            yield f"{name} differs"
    if made.features is not None and made.images is not None:
        ends = verification.numpy_endpoints(network, made.images.astype(np.float64))
        apart = verification.difference(np.asarray(made.features), ends["final_avg_pool"], name="features")
        if not apart.relative < 1e-4:  # Keras computes in float32
            yield f"features differ by {apart.relative:.1e} of their largest"


def _tried(row: Row) -> tuple[Outcome, Literal["right", "wrong", "absent"]]:
    if row.absent:
        return Outcome(True, f"not tried: needs {', '.join(row.absent)}"), "absent"
    with tempfile.TemporaryDirectory(prefix="writers-") as folder:
        try:
            found = outcome(row, Path(folder))
        except pytest.skip.Exception as error:  # goldens that a plain clone does not have
            return Outcome(True, f"not tried: {error}"), "absent"
    return Outcome(found.right, found.text.replace(folder, "…")), "right" if found.right else "wrong"


def main() -> None:
    """Prints the table; exit code 1 if a row is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.converters.writers", description=main.__doc__)
    parser.add_argument("--quick", action="store_true", help="the cheap rows alone")
    parser.add_argument("--match", default="", metavar="TEXT", help="rows whose writer or what was made has this text")
    options = parser.parse_args()
    chosen = [row for row in rows() if options.match in row.name and (row.quick or not options.quick)]
    counts = {"right": 0, "wrong": 0, "absent": 0}
    sys.stdout.write("| | writer | what was made | outcome |\n| --- | --- | --- | --- |\n")
    for row in chosen:
        found, kind = _tried(row)
        counts[kind] += 1
        mark = {"right": "✓", "wrong": "✗ WRONG", "absent": "–"}[kind]
        sys.stdout.write(f"| {mark} | {row.writer} | {row.made} | {found.text} |\n")
        sys.stdout.flush()
    sys.stdout.write(f"\n{counts['right']} right, {counts['wrong']} wrong, {counts['absent']} not tried\n")
    raise SystemExit(1 if counts["wrong"] else 0)


if __name__ == "__main__":
    importlib.import_module("tests.converters.writers").main()  # the rows' modules import this one by its name
