"""Folders of TensorFlow checkpoints: which one is meant, and the `checkpoint` file that tells.

References:
    TensorFlow, `python/training/checkpoint_state.proto`, `python/checkpoint/checkpoint_management.py`
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from converters.tensorflow.bundle import write_bundle
from converters.tensorflow.sstable import FOOTER, MAGIC
from tf_simclr.errors import InputError, check
from tf_simclr.files import replacing

STATE = "checkpoint"
GRAPHS = ("saved_model.pb", "saved_model.pbtxt", "tfhub_module.pb")
_ENDS = re.compile(r"\.(index|meta|data-\d{5}-of-\d{5})$")
_FIELD = re.compile(r'^[ \t]*(\w+)[ \t]*:[ \t]*"((?:[^"\\\n]|\\.)*)"', re.MULTILINE)


@dataclass(frozen=True)
class Resolved:
    """A checkpoint on disk.

    Attributes:
        prefix: The common start of its files.
        saved_model: The folder of the SavedModel or hub module that it is the `variables/` of, if any.
        notes: What a user should know about the choice, a sentence each.
    """

    prefix: Path
    saved_model: Path | None = None
    notes: tuple[str, ...] = ()


def resolve_prefix(path: str | Path, *, step: int | None = None) -> Resolved:
    """Finds the checkpoint that a path means.

    Args:
        path: A folder (with checkpoints, a SavedModel or a hub module), a prefix, any one of a checkpoint's files, or
            a `checkpoint` file.
        step: Which of a folder's checkpoints; by default the newest that its `checkpoint` file names.

    Raises:
        InputError: there is none, or there are several and nothing tells which.
    """
    path = Path(path)
    # A file of a folder names the folder: which of its checkpoints is meant is asked there.
    if path.is_file() and path.name in (STATE, *GRAPHS, "graph.pbtxt"):
        path = path.parent
    if path.is_dir():
        return _in_folder(path, step=step)
    # Any of a checkpoint's files names it: .index, .meta, .data-00000-of-00001.
    prefix = path.with_name(_ENDS.sub("", path.name))
    check(not is_v1_table(path), f"{path} is in the format of TensorFlow before 1.0; save it again with a newer one")
    if prefix.with_name(prefix.name + ".index").is_file():
        rule = f"--step chooses among a folder's checkpoints, but {prefix} is one: leave it out, or name the folder"
        check(step in (None, _step_of(prefix)), rule, step=step)
        return _around(prefix)
    raise InputError(f"{path} must be a checkpoint, but {prefix.name}.index is not in {prefix.parent}; name the folder")


def is_tensorflow(path: Path) -> bool:
    """Whether a file is one of a checkpoint's, by its name or as a table by itself."""
    named = path.name in (STATE, *GRAPHS, "graph.pbtxt") or bool(_ENDS.search(path.name))
    return named or path.with_name(path.name + ".index").is_file() or is_v1_table(path)


def is_v1_table(path: Path) -> bool:
    """Whether a file is a table by itself: a checkpoint in the format before the tensor bundle."""
    # Eight bytes at the end tell a table, whatever its name.
    if not path.is_file() or _ENDS.search(path.name) or path.stat().st_size < FOOTER:
        return False
    with path.open("rb") as file:
        file.seek(-8, 2)
        return int.from_bytes(file.read(), "little") == MAGIC


def _around(prefix: Path, notes: tuple[str, ...] = ()) -> Resolved:
    """The checkpoint at a prefix, with the SavedModel that it lies in."""
    folder = prefix.parent.parent
    # A SavedModel's weights lie in `variables/`, its graph in the folder above.
    inside = prefix.parent.name == "variables" and any((folder / name).is_file() for name in GRAPHS)
    return Resolved(prefix, folder if inside else None, notes)


def _in_folder(folder: Path, *, step: int | None) -> Resolved:
    # A SavedModel keeps its weights under this name.
    variables = folder / "variables" / "variables"
    if variables.with_name("variables.index").is_file():
        return _around(variables)
    prefixes = sorted(path.with_suffix("") for path in folder.glob("*.index") if not path.name.startswith("."))
    check(
        len(prefixes) > 0,
        f"{folder} must hold a TensorFlow checkpoint, but no *.index file is in it",
        files=listing(folder),
    )
    if step is not None:
        chosen = [prefix for prefix in prefixes if _step_of(prefix) == step]
        names = ", ".join(prefix.name for prefix in prefixes)
        # Two checkpoints of one step would be an ambiguity: then neither.
        check(len(chosen) == 1, f"--step must be that of one checkpoint in {folder}, which has {names}", step=step)
        return _around(chosen[0], notes(chosen[0], prefixes, why="by its step"))
    return _around(*newest(folder, prefixes))


def listing(folder: Path) -> list[str]:
    """The first names in a folder, for an error."""
    return sorted(path.name for path in folder.iterdir())[:10]


def newest(folder: Path, prefixes: list[Path]) -> tuple[Path, tuple[str, ...]]:
    """The prefix that the `checkpoint` file names, else the one with the highest step."""
    # TensorFlow's own rule: the file `checkpoint` says which is newest, not the numbers.
    named = read_state(folder)[:1]
    # The name in the file counts, not its path: folders are moved.
    if named:
        chosen = folder / named[0]
        there = [prefix.name for prefix in prefixes]
        check(chosen in prefixes, f"{folder / STATE} must name a checkpoint beside it", named=named[0], there=there)
        return chosen, notes(chosen, prefixes, why=f"the newest by the file `{STATE}`")
    if len(prefixes) == 1:
        return prefixes[0], ()
    steps = [_step_of(prefix) for prefix in prefixes]
    names = [prefix.name for prefix in prefixes]
    # Without the file and without steps nothing tells which is newest.
    check(None not in steps, f"{folder} must have one checkpoint, or a file `{STATE}`; name the one meant", found=names)
    chosen = max(prefixes, key=lambda prefix: _step_of(prefix) or 0)
    return chosen, notes(chosen, prefixes, why=f"the highest step, as there is no file `{STATE}`")


def notes(chosen: Path, prefixes: list[Path], *, why: str) -> tuple[str, ...]:
    """A sentence on the checkpoints that were not taken."""
    others = [prefix.name for prefix in prefixes if prefix != chosen]
    if not others:
        return ()
    return (f"Took {chosen.name}, {why}; {', '.join(others)} also there (--step takes another).",)


def _step_of(prefix: Path) -> int | None:
    """The step at the end of a prefix's name.

    Example:
        >>> _step_of(Path("model.ckpt-250228"))
        250228
    """
    found = re.search(r"-(\d+)$", prefix.name)
    return int(found[1]) if found else None


def read_state(folder: str | Path) -> list[str]:
    """The names that a folder's `checkpoint` file gives, the newest first; empty without the file.

    Paths of the machine where it was written count by their last component.

    Raises:
        InputError: the file is damaged.
    """
    path = Path(folder) / STATE
    if not path.is_file():
        return []
    try:
        # A text proto of two fields: a regular expression reads it, as it has no nesting.
        fields = _FIELD.findall(path.read_text("utf-8"))
    except UnicodeDecodeError:
        fields = []
    current = [_unescape(value) for key, value in fields if key == "model_checkpoint_path"]
    check(len(current) == 1 and current[0] != "", f"{path} must name one model_checkpoint_path", found=len(current))
    older = [_unescape(value) for key, value in fields if key == "all_model_checkpoint_paths"]
    # The newest first, each once; paths of another machine lose their folders, of either kind of slash.
    return list(dict.fromkeys(re.split(r"[/\\]", name)[-1] for name in (*current, *reversed(older))))


def _unescape(text: str) -> str:
    """The value of a quoted string of a text proto.

    Example:
        >>> _unescape(r"caf\\303\\251")
        'café'
    """

    def value(found: re.Match[bytes]) -> bytes:
        # Up to three octal digits are a byte; anything else stands for itself.
        return bytes([int(found[1], 8) & 255]) if found[1][0] in b"01234567" else found[1]

    return re.sub(rb"\\([0-7]{1,3}|.)", value, text.encode()).decode("utf-8", "replace")


def write_state(folder: str | Path, name: str) -> None:
    """Writes the `checkpoint` file that names one checkpoint."""
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    with replacing(Path(folder) / STATE) as (file,):
        file.write(f'model_checkpoint_path: "{quoted}"\nall_model_checkpoint_paths: "{quoted}"\n'.encode())


def write_tf1(folder: str | Path, tensors: Iterable[tuple[str, np.ndarray]], *, step: int = 0) -> Path:
    """Writes a TF1 checkpoint, as `tf.compat.v1.train.Saver` does: `model.ckpt-<step>` and the `checkpoint` file.

    Args:
        folder: Made if it is missing.
        tensors: TF1 variable names and values; `global_step` is added.

    Returns:
        The checkpoint's prefix.
    """
    weights = (pair for pair in tensors if pair[0] != "global_step")
    # The step first, as TensorFlow's own saver writes it.
    values = chain([("global_step", np.asarray(step, np.int64))], weights)
    return write_checkpoint(Path(folder) / f"model.ckpt-{step}", values)


def write_checkpoint(prefix: Path, tensors: Iterable[tuple[str, np.ndarray | bytes]]) -> Path:
    """Writes a bundle at a prefix, whose folder is made if it is missing, and the `checkpoint` file that names it."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    write_bundle(prefix, tensors)
    write_state(prefix.parent, prefix.name)
    return prefix
