"""The command line of conversions: its options, and what one did, in words.

Nothing heavy is imported before the options are read: `--help` and a wrong option answer at once.
"""

import importlib.metadata
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

from converters.options import Options
from tf_simclr.config.options import HELP, POSITIONAL, check_whole, explained, read
from tf_simclr.errors import exit_on_input_error
from tf_simclr.files.places import expand, written
from tf_simclr.terminal import say, write

if TYPE_CHECKING:
    from converters.conversion import Conversion

_Asked = TypeVar("_Asked")


@dataclass(frozen=True)
class Arguments(Options):
    """What the converting commands can be told."""

    source: Annotated[Path, POSITIONAL]
    """A checkpoint (a file, a TensorFlow prefix or a folder), recognised by content."""
    target: Annotated[Path | None, POSITIONAL] = None
    """File or folder to write; by default in the working directory, named as the source."""

    def __post_init__(self) -> None:
        expand(self)

    @property
    def options(self) -> Options:
        """What is neither source nor target."""
        return Options(**{field.name: getattr(self, field.name) for field in fields(Options)})


def asked(kind: type[_Asked], line: Sequence[str] | None, *, program: str, description: str | None) -> _Asked:
    """The options that a line of words means; `--help` ends the process.

    Args:
        kind: A dataclass of options.
        line: The arguments; None: the process'.
        program: How it was called.
        description: For `--help`.

    Raises:
        InputError: they cannot be read.
    """
    words = list(sys.argv[1:] if line is None else line)
    if "--version" in words:
        write(f"tf-simclr {importlib.metadata.version('tf-simclr')}\n")
        raise SystemExit(0)
    name = program.replace(".", " ").split()[-1]
    if any(word in HELP for word in words):
        write(explained(name, kind, whole=True, called=program, about=description))
        raise SystemExit(0)
    given = read(name, kind, words=words, called=program)
    check_whole(name, kind, given=given)
    return kind(**given)


def spare_threads() -> None:
    """Has NumPy multiply in one thread, unless the environment says otherwise; before NumPy is imported.

    The proof's matrices are so small that OpenBLAS' threads wait for each other seven times longer than they compute.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def run(line: Sequence[str] | None, program: str, *, description: str, usual: str) -> None:
    """Reads the options, converts, and prints the report; exit code 2 with one sentence on wrong input.

    Args:
        line: The arguments; None: the process'.
        program: How it was called.
        description: For `--help`.
        usual: Container where neither `--to` nor the target's ending tells.
    """
    with exit_on_input_error():
        given = asked(Arguments, line, program=program, description=description)
        spare_threads()
        from converters.conversion import convert
        from converters.writing import container_of
        from tf_simclr.buckets.staging import staged

        with staged(given, say=say) as arguments:
            # tf2torch and torch2tf differ in this alone: what is written where nothing tells.
            options = replace(arguments.options, to=arguments.to or container_of(arguments.target) or usual)
            said = report(convert(arguments.source, arguments.target, options=options))
            write(said)


def report(done: "Conversion") -> str:
    """Lines that say what was found, written, left behind, proven, and how to load it."""
    from converters.names.describe import describe, some, tensors, version

    network = done.network
    cut = any(why.startswith("heads, by") for why in network.left)  # the release is told by the heads that are stored
    style = "" if cut else version(done.architecture, container=network.container, has_ema=network.has_ema)
    step = f", step {network.step}" if network.step is not None else ""
    kind = f"{network.container} in {network.naming} names{step}{', ' + style if style else ''}"
    dtypes = ", ".join(sorted({stored.dtype for stored in network.weights.values()}))
    lines = [
        ("Read", f"{written(done.source)}: {kind}{', moving averages (EMA)' if network.ema else ''}"),
        ("Found", describe(done.architecture)),
        (
            "Wrote",
            f"{done.target}: {len(network.weights)} weights, {done.bytes / 1e6:.1f} MB, {dtypes}, {done.naming} names",
        ),
    ]
    lines += [("Left", f"{tensors(len(keys))}: {why} ({some(keys)})") for why, keys in network.left.items()]
    # In the order of the way: what was read, found, written, left behind, noted; then the proof; then how to load it.
    lines += [("Note", note) for note in network.notes]
    lines += _proof(done) + _loading(done)
    return "\n".join(f"{head:<9}{text}" for head, text in lines) + "\n"


def _proof(done: "Conversion") -> list[tuple[str, str]]:
    from converters.names.describe import POOL

    worst = done.worst
    # Nothing was compared: only `--no-verify` does that.
    if worst is None:
        return [("Verified", "no (--no-verify)")]
    text = (
        f"weights bit-equal; {len(done.differences)} endpoints differ by at most {worst.relative:.1e} of their largest "
    )
    lines = [("Verified", text + f"magnitude ({worst.name}, {done.engine} in {done.precision})")]
    if done.rescaling is not None:
        lines.append(("Rescaled", f"no output changed by more than {done.rescaling.relative:.1e} of its largest"))
    if done.torchvision is not None:
        lines.append(
            (
                "Note",
                "torchvision and timm take these weights, but pool with other windows: their features differ by "
                f"{done.torchvision.relative:.0%} of the largest. The cure: {POOL}",
            )
        )
    return lines


def _loading(done: "Conversion") -> list[tuple[str, str]]:
    from converters.names.recognise import NAMINGS

    target = json.dumps(str(done.target), ensure_ascii=False)  # as Python takes it, whatever the path has in it
    channels = done.architecture.channels
    if NAMINGS[done.naming].torch:
        code = [
            "import converters",
            f"model = converters.load_torch({target})",
            f'features = model(images)["final_avg_pool"]  # images (n, {channels}, h, w) in [0, 1], not normalised',
        ]
    else:
        code = [
            "import tf_simclr",
            f"model = tf_simclr.load_model({target})",
            f'features = model(images)["final_avg_pool"]  # images (n, h, w, {channels}) in [0, 1], not normalised',
        ]
    return [("Load", code[0]), *(("", line) for line in code[1:])]
