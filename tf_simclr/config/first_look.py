"""What can be told of a command before a framework is loaded, which takes seconds: paths, splits, batches, folders.

Nothing is decided here.  Each look calls, or says in the same words, what the command would find later; what cannot be
told in a moment (buckets, a folder's last image, whether weights fit) is left to it.
"""

import itertools
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from converters.loading import load
from converters.opening.folders import checkpoint_in
from converters.opening.kinds import kind_of, unknown
from converters.opening.shards import set_of
from converters.published.by_name import check_name
from converters.published.catalogue import CHECKPOINTS, meant_by
from converters.tensorflow.folders import is_tensorflow
from tf_simclr.config import plain, plain_defaults
from tf_simclr.config.parts import CODE, ENCODERS
from tf_simclr.config.splits import PART
from tf_simclr.data import check_batch, folders
from tf_simclr.data.radiographs.settings import check_class, check_one_class, check_part, seems_single, settings
from tf_simclr.data.shards import opening
from tf_simclr.errors import InputError, check, meant
from tf_simclr.evaluation.transfer_sets import chosen_sets
from tf_simclr.files.places import expanded, is_address, shown
from tf_simclr.frameworks import check_installed
from tf_simclr.own.named import OF_LIBRARIES, is_named, look, look_in_library
from tf_simclr.run_folder import RunFolder

_CHECKPOINTS = ("checkpoint", "teacher", "adapted")
"""Options that name a checkpoint: a path, an official name, a repository of the hub."""
_GIVEN = (*_CHECKPOINTS, "model", "pretrain_radiographs", "raw", "subgroup_table")
"""Options that name a file or folder to read."""
_OF_RESNETS = ("torch", "hdf5", "safetensors", "npz", "tensorflow")
"""Kinds of checkpoints that hold ResNets alone, and tell by their names what they hold: archives are unpacked first."""
_FOLDERS = ("model_dir", "figures", "cache_dir")
_WRITTEN = (*_FOLDERS, "out", "result", "teacher_logits")
"""Options that name what a command writes; those of `_FOLDERS` are folders."""
_INTO_FOLDERS = ("chest prepare", "chest explain", "chest evaluate", "prepare-shards")
"""Commands whose `out` is a folder, too."""
_FILES = (("augmentations", "out"), ("embed", "out"), ("linear-eval", "result"))
"""Commands and options whose values are files; others may be either."""
_PACKAGES = {"wandb": "wandb", "mlflow": "mlflow", "push_to": "huggingface_hub"}
"""Option → the package that it needs."""
_FIGURES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".pdf", ".svg", ".eps", ".ps")
"""Endings of the formats that a figure can be written in."""
SPLITS = ("split", "train_split", "eval_split")
"""Options that name splits."""
_TRAINING = ("pretrain", "finetune", "distill")
_ONE_CLASS = ("linear-eval", "distill")
"""Commands that tell classes of which an image has one."""


def look_first(config: Any) -> None:
    """Refuses a command that cannot work.

    Args:
        config: of any command.

    Raises:
        InputError: what it is to read is not there, or too small, or its folder is another run's.
    """
    command = plain(config)["command"]
    if command in _TRAINING:
        RunFolder(config.model_dir).check_options(plain(config), plain_defaults(command))
    _look_at_code(config)
    if hasattr(config, "datasets"):
        chosen_sets(config.datasets)
    if hasattr(config, "dataset"):
        _look_at_images(config)
    elif hasattr(config, "radiographs") and config.radiographs not in (None, "synthetic"):
        _check_prepared(Path(config.radiographs), positive=getattr(config, "positive", None))
    if command in ("export", "transfer", "prepare-shards"):
        for _, folder_of_images in _paths_of(config, ["image_dir"]):
            _look_at_folder(folder_of_images, sets=command != "export")
    for name in _GIVEN:
        value = getattr(config, name, None)
        made = name == "raw" and getattr(config, "source", "") == "synthetic"
        if isinstance(value, Path) and not made:
            _check_path(value, name)
            if name in _CHECKPOINTS:
                averages = name != "adapted" and getattr(config, "ema", False)
                _check_checkpoint(value, name, ema=averages and (name == "teacher" or not hasattr(config, "teacher")))
    for path in getattr(config, "others", ()):
        _check_path(path, "others")
    _check_apart(config)
    for name, value in _paths_of(config, _WRITTEN):
        folder = name in _FOLDERS or (name == "out" and command in _INTO_FOLDERS)
        _check_can_write(value, name, folder=folder)
        rule = f"{name}: {shown(value)} must be a file, but a folder of that name is there"
        check(not value.is_dir() or (command, name) not in _FILES, rule)
    for option, package in _PACKAGES.items():
        if getattr(config, option, None) is not None:
            check_installed(f"--{option}", package)
    if command == "augmentations":
        rule = f"out must end in one of {' '.join(_FIGURES)}"
        check(config.out.suffix.lower() in _FIGURES, rule, out=str(config.out))
        for path in config.images:  # `chest explain` goes on with the others
            _check_path(path, "images")


def _paths_of(config: Any, names: Iterable[str]) -> Iterator[tuple[str, Path]]:
    """Yields option and path, of those of the options that a configuration has and that are paths of this machine."""
    for name in names:
        value = getattr(config, name, None)
        for path in value if isinstance(value, tuple) else (value,):
            if isinstance(path, Path) and not is_address(path):
                yield name, path


def _look_at_code(config: Any) -> None:
    """Refuses code that is not there, as far as files tell; and a file of an encoder that is none.

    Raises:
        InputError: so it is.
    """
    for name in CODE:
        text = str(getattr(config, name, ""))
        if name in ENCODERS and text.endswith(".keras"):
            _check_path(expanded(text), name)
        elif name in ENCODERS and text.split(":")[0] in OF_LIBRARIES:
            look_in_library(text)
        elif is_named(text):
            look(text, name)


def _check_path(path: Path, name: str) -> None:
    """Refuses a path of which nothing lies there; a prefix of a TensorFlow checkpoint's files is something.

    Raises:
        InputError: so it is.
    """
    if path.exists() or (is_address(path) and name not in _CHECKPOINTS):
        return None
    beside = [one.name for one in path.parent.iterdir()] if path.parent.is_dir() else []
    if any(one.startswith(f"{path.name}.") for one in beside):
        return None
    if name in _CHECKPOINTS and (is_address(path) or path.as_posix() in CHECKPOINTS or meant_by(path.as_posix())):
        try:
            return check_name(path)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
    near = meant(path.name, beside, shown=str(shown(path.parent / "{}")))
    raise InputError(
        f"{name}: {shown(path)} must exist: no file, folder or checkpoint prefix of that name is there{near}"
    )


def _check_checkpoint(path: Path, name: str, *, ema: bool) -> None:
    """Refuses a file or folder that holds no checkpoint, or one of another network, in the words of its reader.

    Raises:
        InputError: so it is.
    """
    if is_address(path) or not path.exists():
        return  # downloaded by now or then; a prefix
    kind = None
    try:
        if path.is_dir():
            if not (path / "architecture.json").is_file():  # a run's folder, of which `weights` knows more
                check(any(path.iterdir()), f"{shown(path)} must hold a checkpoint, but the folder is empty", files=0)
                kind = checkpoint_in(path)[0].kind
        else:
            kind = "tensorflow" if is_tensorflow(path) else kind_of(path)
            if kind is None and not set_of(path):
                raise InputError(unknown(path))
        if kind in _OF_RESNETS:
            load(path, ema=ema).close()  # names and shapes; no weight is read
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def _check_apart(config: Any) -> None:
    """Refuses an output in the place of an input, which would be lost.

    Raises:
        InputError: so it is.
    """
    names = (*_GIVEN, "image_dir", "radiographs", "images", "others")
    read = [path for _, path in _paths_of(config, names) if path.exists()]
    for name, place in _paths_of(config, _WRITTEN):
        same = place.exists() and any(path.samefile(place) for path in read)
        rule = f"{name}: {shown(place)} must be another place than what is read: it would be written over"
        # A run's folder is looked at by whoever goes on with it.
        check(not same or (place / "architecture.json").is_file(), rule)


def _check_beside(config: Any, folder: Path) -> None:
    """Refuses a folder of pictures to write among the pictures that are read, to which they would be added.

    Raises:
        InputError: so it is.
    """
    for name, place in _paths_of(config, ("model_dir", "figures")):
        rule = f"{name}: {shown(place)} must not lie in {shown(folder)}, whose pictures are read: it will hold some"
        check(not place.resolve().is_relative_to(folder.resolve()), rule)


def _check_can_write(path: Path, name: str, *, folder: bool) -> None:
    """Refuses a place where nothing can be written, by writing into the nearest folder that is there.

    Args:
        path: what is to be written.
        name: of its option.
        folder: whether that is a folder.

    Raises:
        InputError: so it is.
    """
    if folder:
        rule = f"{name}: {shown(path)} must be a folder, but a file of that name is there"
        check(not path.exists() or path.is_dir(), rule)
    above = path if folder else path.parent
    above = next((place for place in (above, *above.absolute().parents) if place.exists()), above)
    try:
        check(above.is_dir(), f"{name}: {shown(path)} cannot be made, since {shown(above)} is no folder")
        with tempfile.TemporaryFile(dir=above):
            pass
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise InputError(
            f"{name}: {shown(path)} must be where files can be written, but {shown(above)} takes none ({why})"
        ) from error


def _look_at_images(config: Any) -> None:
    """Refuses splits that are not there, and batches larger than the images to train on.

    Raises:
        InputError: so it is.
    """
    asked = list(dict.fromkeys(name for part in SPLITS if (name := getattr(config, part, None)) is not None))
    if config.radiographs is not None:
        _check_prepared(config.radiographs, positive=getattr(config, "positive", None))
        for part in asked:
            check_part(part, folder=config.radiographs)
        if plain(config)["command"] in _ONE_CLASS and config.positive is None and not is_address(config.radiographs):
            known = settings(config.radiographs)
            check_one_class(known.called(config.radiographs), known.classes, single=seems_single(config.radiographs))
        return
    if config.image_dir is None:
        _look_at_set(config, asked)
        return
    if is_address(config.image_dir):
        return
    if opening.are_at(config.image_dir):
        for split in asked:
            opening.of_split(config.image_dir, split, asked=asked)
        return
    opening.check_without_columns(
        config.image_dir, **{name: getattr(config, name) for name in ("image_column", "label_column")}
    )
    for split in asked:
        folder, _ = folders.place_of(config.image_dir, split, asked=asked)
        _check_beside(config, folder)
        if split == getattr(config, "train_split", None):
            wanted = _batch_of(config)
            count = len(list(itertools.islice(pictures(folder), wanted + 1)))
            if not count:
                folders.look(folder)  # says what is there instead
            check_batch(shown(folder), count, batch_size=wanted)
        elif next(pictures(folder), None) is None:
            folders.look(folder)


def _look_at_folder(folder: Path, *, sets: bool) -> None:
    """Refuses a folder without pictures or shards; of several `sets` one is enough that holds any.

    Raises:
        InputError: so it is.
    """
    _check_path(folder, "image_dir")
    parts = [folder, *(part for part in folder.iterdir() if sets and part.is_dir())] if folder.is_dir() else []
    if next(pictures(folder), None) is None and not any(opening.are_at(part) for part in parts):
        folders.look(folder)


def pictures(folder: Path) -> Iterator[Path]:
    """The pictures below a folder, one after the other."""
    return (path for path, reason in folders.entries(folder) if not reason)


def _batch_of(config: Any) -> int:
    """Images that must be there for one step; 1 where none is trained on in batches."""
    trains = getattr(config, "protocol", "sgd") == "sgd" and getattr(config, "labels_fraction", 1.0) == 1.0
    return getattr(config, "train_batch_size", 1) if trains else 1


def _check_prepared(folder: Path, *, positive: str | None = None) -> None:
    """Refuses a folder that `chest prepare` has not made, and a class that it has not.

    Raises:
        InputError: so it is.
    """
    if not is_address(folder):
        _check_path(folder, "radiographs")
        whole = (folder / "settings.json").is_file()
        advice = "prepare it with `python -m tf_simclr chest prepare`"
        check(whole, f"{shown(folder)} must be a whole prepared folder; {advice}", found=_names_in(folder))
        known = settings(folder)
        if positive is not None:
            check_class(positive, known.classes)


def _names_in(folder: Path) -> list[str]:
    """Some names of what lies in a folder; of a file its own."""
    if not folder.is_dir():
        return [folder.name]
    return sorted(entry.name for entry in itertools.islice(os.scandir(folder), 50))[:5]


def _look_at_set(config: Any, asked: list[str]) -> None:
    """Refuses a data set of TensorFlow Datasets that is neither prepared nor to be downloaded, and splits it lacks.

    Raises:
        InputError: so it is.
    """
    name = str(config.dataset)
    if name.startswith("hf:") and not expanded(name.removeprefix("hf:")).exists():
        check_installed(name, "datasets")
    if config.data_dir is None and name == plain_defaults(plain(config)["command"])["dataset"]:
        return  # nobody has named it; what is missing for it may be more than the images
    folder = data_set_folder(config)
    if is_address(folder) or ":" in name.split("/")[0] or find_spec("tensorflow_datasets") is None:
        return  # a bucket, a version, another's collection; or no tfds, which the command says
    if not folder.is_dir():
        base = Path(str(folder).removesuffix(name)) / name.split("/")[0]
        known = {base.name} if base.is_dir() else _data_sets()
        rule = f"the data set must be one that tfds finds. Received: {name!r}{meant(base.name, known)}"
        check(base.name in known, rule)
        advice = "allow its download (--download), or point data_dir to where it is"
        check(config.download, f"the data set {name} must be prepared, but is not in {shown(folder)}; {advice}")
        return
    found = sizes(folder)
    for split in asked if found else ():
        parts = [PART.fullmatch(part.strip()) for part in split.split("+")]
        names = [match[1] for match in parts if match is not None]
        wrong = [one for one in names if one not in (*found, "all")]
        rule = f"the split must be one of {', '.join(sorted(found))}, or a part of these"
        if wrong:
            raise InputError(f"{rule}{meant(wrong[0], found)}. Received: {split!r}")
        if split == getattr(config, "train_split", None) and split in found and found[split]:
            check_batch(f"{name} ({split})", found[split], batch_size=_batch_of(config))


def data_set_folder(config: Any) -> Path:
    """Where TensorFlow Datasets keeps the data set of a configuration, prepared or not."""
    return _kept_by_tfds(config.data_dir) / str(config.dataset)


def _kept_by_tfds(data_dir: str | Path | None) -> Path:
    return expanded(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")


def kept_at(dataset: str, data_dir: str | Path | None) -> Path:
    """Where a library keeps a data set that `--dataset` names: TensorFlow Datasets, or Hugging Face's (`hf:`)."""
    if not dataset.startswith("hf:"):
        return _kept_by_tfds(data_dir) / dataset.partition(":")[0]
    folder = expanded(dataset.removeprefix("hf:"))
    if folder.exists():
        return folder
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    place = data_dir or os.environ.get("HF_DATASETS_CACHE") or Path(home) / "datasets"
    return expanded(place) / re.split("[:@]", dataset.removeprefix("hf:"))[0].replace("/", "___")


def sizes(folder: Path) -> dict[str, int]:
    """Split → examples of a prepared data set, of its newest version; nothing where that cannot be told."""
    notes = sorted([*folder.glob("dataset_info.json"), *folder.glob("*/dataset_info.json")])
    if len({note.parent.parent for note in notes}) != 1:
        return {}  # several configurations
    try:
        return {split: sum(lengths) for split, lengths in opening.shard_lengths(notes[-1].parent).items()}
    except InputError:
        return {}


def _data_sets() -> set[str]:
    """Names of the data sets that tfds has, as its files tell: importing and asking it takes seconds."""
    spec = find_spec("tensorflow_datasets")
    root = Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else Path("nowhere")
    names = {path.name for path in (root / "datasets").glob("*") if path.is_dir()}
    for file in [*root.glob("*/*.py"), *root.glob("*/*/*.py")]:
        for found in re.findall(r"^class (\w+)\(", file.read_text(errors="replace"), re.MULTILINE):
            names.add(re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", found).lower())
    return names
