"""Checkpoints of any format into memory."""

import zipfile
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.names.network import Network, understand
from converters.opening.folders import checkpoint_in
from converters.opening.kinds import kind_of, unknown
from converters.opening.shards import open_shards, set_of
from converters.other.npz_files import open_npz
from converters.other.safetensors_files import open_safetensors
from converters.published.by_name import located, official_at
from converters.pytorch.state import open_legacy, open_state
from converters.tensorflow.folders import is_tensorflow
from converters.tensors import Source, itemsize_of
from tf_simclr.errors import InputError, check, whole_number
from tf_simclr.files.places import expanded
from tf_simclr.foreign import checked_name, read_json, reading, spend_tensor
from tf_simclr.frameworks import check_installed
from tf_simclr.models.architecture import Architecture
from tf_simclr.run_folder import RunFolder

if TYPE_CHECKING:
    from converters.networks.in_torch import TwinResNet


def load(
    path: str | Path,
    *,
    naming: str | None = None,
    ema: bool = False,
    part: str = "all",
    selector: int | None = None,
    step: int | None = None,
    source_part: str | None = None,
) -> Network:
    """Opens a checkpoint of any format; weights are read when asked for.

    Args:
        path: A file, a checkpoint's prefix or a folder; recognised by content.  Where nothing lies there: an official
            name, such as `simclrv2/pretrained/r50_1x_sk0`, or `hf://user/repo`, which are downloaded once, or an
            address in a bucket, which is mirrored.
        naming: Naming of its keys; by default recognised.
        ema: Takes the moving averages of encoder and projection head.
        part: `encoder`, `encoder+projection` or `all`.
        selector: The projection layer that feeds the classifier; by default as stored, else 0.
        step: Which of a folder's checkpoints; by default the newest.
        source_part: Of several networks in the file (model and EMA, student and teacher) the one whose names begin so;
            by default the trained one.

    Returns:
        `architecture`, and `weights`: name (`group1_block1_conv3/kernel`, …) → tensor in TensorFlow's layout;
        `network[name]` reads one.

    Raises:
        InputError: it is damaged, unknown, or not whole.
    """
    source = open_source(path, step=step)
    # Who opened it closes it where it is not understood.
    try:
        return understand(source, naming=naming, ema=ema, selector=selector, part=part, source_part=source_part)
    except BaseException:
        source.close()
        raise


def load_torch(path: str | Path, **selection: Any) -> "TwinResNet":
    """A checkpoint of any format as the exact PyTorch twin, in evaluation mode.

    Args:
        path: As `load`.
        **selection: As `load`.

    Returns:
        A module from images `(n, 3, h, w)` in [0, 1], not normalised, to a dict of endpoints by the official names.

    Raises:
        InputError: as `load`; or PyTorch is not installed.
    """
    check_installed("load_torch", "torch")
    from converters.networks.in_torch import build_twin

    with closing(load(path, **selection)) as network:
        return build_twin(network)


def open_source(path: str | Path, *, step: int | None = None) -> Source:
    """Opens whatever is at a path; no weight is read yet.

    Args:
        path: As `load`.
        step: Which of a folder's checkpoints; by default the newest.

    Raises:
        InputError: there is nothing, or nothing that this project reads, or it is damaged.
    """
    path, step = located(expanded(path)), None if step is None else whole_number(step, "step")
    # One budget for the whole file: what a hostile one may cost is spent by every reader below.
    # Names and shapes are looked at before anything is read by them.
    with reading(path, "a readable checkpoint") as budget:
        source = _open_any(path, step=step)
        try:
            for key, stored in source.tensors.items():
                checked_name(key)
                spend_tensor(stored.shape, itemsize_of(stored.dtype))
        except BaseException:
            source.close()
            raise
    # A known official checkpoint tells what its file does not: which layer feeds the classifier.
    official = official_at(path)
    source.expected = official.selector if official is not None else None

    # Damage that only a tensor's reading meets is a sentence, too.
    def block() -> AbstractContextManager[object]:
        return reading(path, "a readable checkpoint", budget=budget)

    source.tensors = {key: stored.within(block) for key, stored in source.tensors.items()}
    return source


def _open_any(path: Path, *, step: int | None) -> Source:
    # By what is there: a folder, a file, or a prefix whose files TensorFlow numbers.
    if path.is_dir():
        return _open_folder(path, step=step)
    if path.is_file():
        return _open_file(path, step=step)
    return _open_tensorflow(path, step=step)  # a prefix


def _open_folder(folder: Path, *, step: int | None) -> Source:
    # An empty folder has its own sentence, as a download that failed leaves one.
    check(any(folder.iterdir()), f"{folder} must hold a checkpoint, but the folder is empty", files=0)
    # TensorFlow's files count as one checkpoint; of Hugging Face's two forms one is taken; several are an error.
    place, notes = checkpoint_in(folder)
    if place.kind == "run":
        source = _open_run(place.path, step=step)
    elif place.kind == "tensorflow":
        source = _open_tensorflow(place.path, step=step)
    elif place.shards:
        source = open_shards(place.shards, open_file=lambda path: _open_kind(path, kind_of(path), step=step))
    else:
        source = _open_kind(place.path, place.kind, step=step)
    source.notes[:0] = notes
    return source


def _open_file(path: Path, *, step: int | None) -> Source:
    # One of several files of weights means all of them.
    shards = set_of(path)
    if shards:
        source = open_shards(shards, open_file=lambda path: _open_kind(path, kind_of(path), step=step))
        source.notes += [f"{path.name} is one of {len(shards.files)} files; all were read."] * (path != shards.index)
        return source
    return _open_kind(path, kind_of(path), step=step)


def _open_kind(path: Path, kind: str | None, *, step: int | None) -> Source:
    """Opens a file whose kind is known."""
    if kind in ("zip", "tar"):
        from converters.opening.archives import open_archive

        return open_archive(path, kind=kind, step=step, open_folder=_open_any)
    # Kind → opener; what is left is TensorFlow's or nobody's.
    openers = {"torch": _open_torch, "keras": _open_keras, "hdf5": _open_keras}
    openers |= {"safetensors": open_safetensors, "npz": open_npz}
    if kind in openers:
        return _of_step(openers[kind](path), step)
    if is_tensorflow(path):
        return _open_tensorflow(path, step=step)
    raise InputError(unknown(path))


def _of_step(source: Source, step: int | None) -> Source:
    """The source, unless another step was asked for: a file is one checkpoint."""
    if step in (None, source.step):
        return source
    source.close()
    its = "stores no step" if source.step is None else f"is of step {source.step}"
    raise InputError(f"--step chooses among a folder's checkpoints, but {source.path} is one and {its}: leave it out")


def _open_keras(path: Path) -> Source:
    from converters.keras_files.source import open_keras

    return open_keras(path)


def _open_torch(path: Path) -> Source:
    return open_state(path) if zipfile.is_zipfile(path) else open_legacy(path)


def _open_tensorflow(path: Path, *, step: int | None) -> Source:
    from converters.tensorflow.source import open_tensorflow

    return open_tensorflow(path, step=step)


def _open_run(folder: Path, *, step: int | None) -> Source:
    """A run folder's newest training state, or the one of `step`; its finished network where there is none."""
    run = RunFolder(folder)
    # Training states are complete checkpoints, `network.keras` is there once the run has ended: the former go first.
    # Names are step-00000001.npz: what else lies there is named, and not taken for a checkpoint.
    states, steps = run.checkpoints(), run.steps()
    there = (folder / "checkpoints").iterdir() if (folder / "checkpoints").is_dir() else ()
    strays = sorted(path.name for path in there if path not in states)
    architecture = read_json(run.architecture, "a run's architecture")
    check(isinstance(architecture, dict), f"{run.architecture} must hold a JSON object", content=architecture)
    own = architecture.get("encoder")
    check(
        not own,
        f"{folder} must be the run of a ResNet: its encoder is {str(own)!a}, and names in other projects' files are "
        "known for ResNets alone; `tf-simclr export --to onnx` or `savedmodel` writes it for other runtimes",
    )
    # Anything wrong with it is said before a tensor is read.
    if architecture:
        with reading(run.architecture, "a run's architecture"):
            Architecture(**architecture)
    if steps:
        check(step is None or step in steps, f"--step must be one of {sorted(steps)}", step=step)
        taken = steps[0] if step is None else step
        source = open_npz(run.checkpoint(taken))
        source.step = taken
        others = sorted(set(steps) - {taken})
        source.notes += [f"Took step {taken}; {others} also there (--step takes another)."] if others else []
    else:
        check(run.network.is_file(), f"{folder} must hold a checkpoint; the run has saved none yet", checkpoints=0)
        source = _open_file(run.network, step=step)
    if strays:
        shown = ", ".join(strays[:3]) + (", …" if len(strays) > 3 else "")
        source.notes.append(f"Not read, as checkpoints are called step-00000001.npz: {shown}.")
    source.path, source.container, source.architecture = folder, "run folder", architecture
    return source
