"""Folders as they come: which checkpoint is in one, some levels down perhaps; several are a list to choose from."""

import os
import re
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from converters.opening import shards
from converters.opening.kinds import kind_of, substitute
from converters.opening.shards import Shards
from converters.tensorflow.folders import GRAPHS, STATE, listing
from tf_simclr.errors import InputError, check

_ARCHITECTURE = "architecture.json"
"""What marks a run folder (tf_simclr/run_folder.py)."""
_KERAS = {"config.json", "model.weights.h5"}
"""What `keras.saving.save_model(model, folder, zipped=False)` leaves in a folder."""
_KERAS_SHARD = re.compile(r"_\d{5,}\.weights\.h5")
"""What follows the stem of `stem.weights.json` in the names of the files that this index lists."""
_DEEPEST = 8
"""Levels below a folder that are looked through."""
MOST = 20_000
"""Files and folders that are looked at."""
_SHOWN = 20

PASSED = re.compile(
    r"\..*|__MACOSX|__pycache__|.*\.(bmp|csv|dcm|gif|html?|ipynb|jpe?g|log|md|png|pyc?|rst|tiff?|tsv|txt|ya?ml)|.*tfevents.*"
)
"""Names that no checkpoint has; `._x` and `__MACOSX` are what macOS adds to archives and foreign disks."""
_TRAINER = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state\w*|random_states\w*)\.(bin|pt|pth|pkl|npz)")
"""What Hugging Face's trainer keeps beside the weights, to resume from."""
_OTHER_FORM = re.compile(r".*\.bin|tf_model\.h5")
"""Names of Hugging Face's other forms of the weights that are in a safetensors file beside them."""
_VARIANT = re.compile(r"\.(fp16|bf16|fp32)(?=\.safetensors$)")
"""What Hugging Face's `save_pretrained(variant=…)` puts into the name of a form beside the usual one."""
_BUNDLE = re.compile(r"(.*)\.(?:index|data-\d+-of-\d+)")
"""Files of TensorFlow's checkpoints: the prefix, and what follows it."""
_WEIGHTS = re.compile(r".*\.(safetensors|pth|pt|ckpt|bin|pkl|tar|torch|npz|h5|keras)")
"""Names that promise weights."""


class SeveralError(InputError):
    """A folder holds more than one checkpoint, and nothing tells which is meant."""


@dataclass(frozen=True)
class _Place:
    """A checkpoint on disk.

    Attributes:
        path: The folder (of `run`, `tensorflow` and an unzipped `keras`) or the file.
        kind: `run`, `tensorflow`, `shards`, or a file's kind (`kinds.kind_of`).
        shards: The files of `shards`.
    """

    path: Path
    kind: str
    shards: Shards | None = None

    @property
    def whole(self) -> bool:
        """Whether what lies below its folder belongs to it."""
        return self.kind == "run" or (self.kind == "tensorflow" and _is_saved_model(self.path))


def _is_saved_model(folder: Path) -> bool:
    """Whether a folder is a SavedModel or a hub module."""
    return any((folder / name).is_file() for name in (*GRAPHS, "variables/variables.index"))


def checkpoint_in(folder: Path) -> tuple[_Place, list[str]]:
    """The checkpoint that a folder means, and what a user should know of the choice.

    Raises:
        InputError: there is none, or there are several and nothing tells which.
    """
    # 1. What lies in the folder itself. 2. Where nothing does,
    #    the only one below it. 3. Several: a list to choose from.
    here, notes = _preferred(folder, _once(at(folder)))
    below, all_seen = ([], True) if any(place.whole for place in here) else _below(folder)
    if not here:
        rule = (
            f"{folder} must hold a checkpoint among its first {MOST:,} files, in at most {_DEEPEST} levels of folders"
        )
        check(all_seen, f"{rule}, but has more; name the checkpoint itself", found=len(below))
        check(bool(below), _nothing(folder), files=listing(folder))
        here, below = below, []
        if len(here) == 1:
            notes.append(f"Took {_relative(here[0], folder)}, the only checkpoint in {folder}.")
    if len(here) > 1:
        names = [_relative(place, folder) for place in here]
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        raise SeveralError(
            f"{folder} must hold one checkpoint; name the file you mean, or its folder. Received: "
            f"{len(names)} checkpoints, {', '.join(names[:_SHOWN])}{more}"
        )
    # What a user may wonder about: pointers and error pages that lie there in place of weights.
    if here[0].kind not in ("run", "keras"):
        for path in sorted(folder.iterdir()):
            instead = path.is_file() and _WEIGHTS.fullmatch(path.name) and substitute(path)
            notes += [f"Not read: {path.name} is {instead}."] if instead else []
    if below:
        names = [_relative(place, folder) for place in below]
        shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        notes.append(f"Not read, as they lie below {folder}: {shown} (name one to take it).")
    return here[0], notes


def at(folder: Path) -> list[_Place]:
    """The checkpoints directly in a folder: TensorFlow's count as one, and others one by one."""
    # From the sign that decides to those that are looked at one by one.
    if (folder / _ARCHITECTURE).is_file():
        return [_Place(folder, "run")]
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not PASSED.fullmatch(path.name)]
    names = [path.name for path in files]
    if set(names) >= _KERAS:
        return [_Place(folder, "keras")]
    tensorflow = STATE in names or any(name.endswith(".index") for name in names) or _is_saved_model(folder)
    # Files that belong together count as one: shards, and Keras' own.
    sets = shards.sets_in(names, folder)
    parts = {path for one in sets for path in one.files}
    stems = [name.removesuffix(".weights.json") for name in names if name.endswith(".weights.json")]
    parts |= {path for path in files for stem in stems if _KERAS_SHARD.fullmatch(path.name.removeprefix(stem))}
    found = [_Place(folder, "tensorflow")] if tensorflow else []
    found += [_Place(one.index or one.files[0], "shards", one) for one in sets]
    for path in files:
        kind = None if path in parts or _TRAINER.fullmatch(path.name) else kind_of(path)
        found += [_Place(path, kind)] if kind else []
    return found


def _preferred(folder: Path, found: list[_Place]) -> tuple[list[_Place], list[str]]:
    """Of TensorFlow's checkpoint and files beside it the former, of Hugging Face's two forms of weights safetensors."""
    notes = []
    trainer = sorted(path.name for path in folder.iterdir() if _TRAINER.fullmatch(path.name))
    # A trainer's state is told of only where there are weights beside it.
    if trainer and found:
        notes.append(f"Not read, as they are a trainer's state and no weights: {', '.join(trainer)}.")
    # Hugging Face's folders hold one network in two or three forms, and trainers leave theirs beside it.
    safe = [place for place in found if _is_safe(place)]
    names = {_weights_name(place) for place in safe}
    usual = [place for place in safe if _VARIANT.sub("", _weights_name(place)) not in names - {_weights_name(place)}]
    first = [place for place in found if place.kind == "tensorflow"] or usual
    others = [place for place in found if place not in first]
    by_form = all(place in safe or _OTHER_FORM.fullmatch(_weights_name(place)) for place in others)
    if len(first) == 1 and others and (first[0].kind == "tensorflow" or by_form):
        also = ", ".join(place.path.name for place in others)
        taken = "the TensorFlow checkpoint" if first[0].kind == "tensorflow" else first[0].path.name
        notes.append(f"Took {taken}; {also} also there (name one to take it).")
        return first, notes
    return found, notes


def _is_safe(place: _Place) -> bool:
    return _weights_name(place).endswith(".safetensors")


def _weights_name(place: _Place) -> str:
    return place.path.name.removesuffix(shards.INDEX)


def _below(folder: Path) -> tuple[list[_Place], bool]:
    """The checkpoints in the folders below one, without links to folders, and whether all folders were looked at."""
    found: list[_Place] = []
    seen, all_seen = 0, True
    # `children[:]` is what `os.walk` goes down to: it is sorted, and cut where nothing can be.
    for name, children, files in os.walk(folder):
        one = Path(name)
        children[:] = sorted(child for child in children if not PASSED.fullmatch(child))
        # A home folder or a whole disk is no checkpoint: it ends early rather than in an hour.
        seen += len(children) + len(files)
        if seen > MOST:
            return _once(found), False
        if len(one.relative_to(folder).parts) >= _DEEPEST and children:
            children[:], all_seen = [], False
        places = [] if one == folder else _preferred(one, at(one))[0]
        found += places
        if any(place.whole for place in places):
            children[:] = []
    return _once(found), all_seen


def files_of(path: Path) -> list[Path]:
    """The files that hold the weights which a path – a file, a checkpoint's prefix or a folder – means."""
    if path.is_dir():
        place = checkpoint_in(path)[0]
        if place.shards:
            return list(place.shards.files)
        if place.path.is_dir():
            files = [file for pattern in ("*", "*/*") for file in place.path.glob(pattern)]
            return [file for file in files if _BUNDLE.fullmatch(file.name) or file.suffix in (".npz", ".h5")]
        return [place.path]
    bundle = _BUNDLE.fullmatch(path.name)
    prefix = bundle[1] if bundle else path.name
    beside = (file for file in path.parent.iterdir() if (found := _BUNDLE.fullmatch(file.name)) and found[1] == prefix)
    return [*([path] if path.is_file() else []), *beside]


def _once(places: list[_Place]) -> list[_Place]:
    """Each file once: `latest.pth` is a link to `epoch_200.pth`.

    Of a file's names the one with an ending counts – Hugging Face's cache has the name as a link to a file that is
    called by its digest –, and of several with one that which is no link.
    """
    found: dict[tuple[int, int], _Place] = {}
    # Device and number: links and hard links to one file are it.
    for place in places:
        stat = place.path.stat()
        key = (stat.st_dev, stat.st_ino)
        if key not in found or _rank(place) > _rank(found[key]):
            found.pop(key, None)  # in the order of the names that stay
            found[key] = place
    return list(found.values())


def _rank(place: _Place) -> tuple[bool, bool]:
    return bool(place.path.suffix), not place.path.is_symlink()


def _relative(place: _Place, folder: Path) -> str:
    return place.path.relative_to(folder).as_posix() if place.path != folder else place.path.name


def _nothing(folder: Path) -> str:
    """The sentence for a folder without a checkpoint: what may lie there in place of one."""
    # Bounded, as a home folder has no end.
    files = (Path(name) / file for name, _, files in os.walk(folder) for file in files)
    for path in islice(files, MOST):
        if not PASSED.fullmatch(path.name) and path.is_file():
            instead = substitute(path) if path.stat().st_size else None
            if instead:
                return f"{folder} must hold a checkpoint, but {path.relative_to(folder).as_posix()} is {instead}"
    return f"{folder} must hold a checkpoint, but none of its files is one"
