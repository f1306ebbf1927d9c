"""Run folders: what a training leaves behind, resumes from, and others load.

A run folder holds `config.json` (the command), `architecture.json`, `data.json` (how many images and from where, which
weights), `network.json` (of an encoder of one's own), `checkpoints/step-*.npz`, `history.csv`, `logs/` (TensorBoard),
`network.keras` (the finished network), `result.json`, and while a process trains in it, `lock`.  Beside them lie
`pairs.png` (what the network sees), `wandb.json` and `mlflow.json` (the run's id, where it reports there), and what
later commands make of the run, such as `linear_eval.json`.  Files appear whole or not at all.
"""

import contextlib
import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_simclr.buckets import check_sent, send_now
from tf_simclr.data import stream_version
from tf_simclr.errors import InputError, check
from tf_simclr.files import begun_with, read_json, replacing, write_json
from tf_simclr.files.places import expand
from tf_simclr.foreign import archived, checked_name, reading, spend
from tf_simclr.models.architecture import Architecture, Own

if TYPE_CHECKING:
    import keras

_CHECKPOINT = re.compile(r"step-(\d{8})\.npz")
_MAY_CHANGE: tuple[str, ...] = ("model_dir", "data_dir", "image_dir", "radiographs", "download")
_MAY_CHANGE += ("keep_checkpoint_max", "checkpoint_epochs", "checkpoint_steps")
_MAY_CHANGE += ("knn_epochs", "knn_images", "collapse_images", "eval_split", "wandb", "mlflow")
_MAY_CHANGE += ("strategy", "num_replicas", "tpu_name", "tpu_zone", "gcp_project", "steps_per_execution", "jit_compile")
_MAY_CHANGE += ("augment_on",)
_MAY_CHANGE += ("coordinator", "num_processes", "process_id")
_MAY_CHANGE += ("push_to", "teacher_logits")
"""Options that may change when a run resumes: they say where it lies, what is kept of it, what is watched and on which
devices, not what it computes."""
WEIGHTS = ("checkpoint", "teacher", "encoder")
"""Options by which weights come: the same ones may lie somewhere else when a run resumes."""


STREAM_KEY = "stream/version"
"""Of a checkpoint's member that says in which order the training saw its images (`data.stream_version`)."""


class OtherStream(InputError):
    """A checkpoint of a training whose images came in an order that is no more."""


class _Inside:
    """An attribute that is the path of a run's file, by its name in the folder."""

    def __init__(self, name: str):
        self.name = name

    def __get__(self, run: "RunFolder | None", _: type) -> Path:
        return Path(self.name) if run is None else run.path / self.name  # None: asked of the class, as by documentation


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """A run's files."""

    path: Path

    def __post_init__(self) -> None:
        expand(self)

    config = _Inside("config.json")
    architecture = _Inside("architecture.json")
    blueprint = _Inside("network.json")
    """What a network with an encoder of one's own is made of, in Keras' form."""
    data = _Inside("data.json")
    history = _Inside("history.csv")
    logs = _Inside("logs")
    network = _Inside("network.keras")
    result = _Inside("result.json")

    def checkpoint(self, step: int) -> Path:
        return self.path / "checkpoints" / f"step-{step:08d}.npz"

    def checkpoints(self) -> list[Path]:
        """The checkpoints, the newest first."""
        found = (self.path / "checkpoints").glob("step-*.npz")
        return sorted((path for path in found if _CHECKPOINT.fullmatch(path.name)), reverse=True)

    def steps(self) -> list[int]:
        """The steps of the checkpoints, the newest first."""
        return [int(path.stem.removeprefix("step-")) for path in self.checkpoints()]

    def begin(
        self,
        config: Mapping,
        architecture: Architecture | Own,
        *,
        defaults: Mapping = MappingProxyType({}),
        blueprint: str | None = None,
        data: dict[str, Any] | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Notes what the run is, or checks that it is the run that lies here.

        A run that failed or was stopped before its first checkpoint binds nobody: there is nothing to resume.

        Args:
            config: the command's options.
            architecture: of the network.
            blueprint: what the network is made of, in Keras' form, where its encoder is no ResNet.
            defaults: of the command's options; a run that was begun before an option came had its default.
            data: what `data.json` holds of the images, and of the weights to begin with.  `images`: how many are
                trained on; their number decides which of them each step sees.  `origin`: where they are from; they may
                lie somewhere else when the run resumes.  As far as they are known, `roster`: tells their list of names
                from others, wherever they lie; `content`: tells the images themselves from others, with names and
                labels; `classes`: their names, in the order of their numbers; `weights`: option of `WEIGHTS` → what
                tells the weights that it means from others, wherever they lie.
            say: takes a line for the user where what is noted of the images is damaged.

        Raises:
            InputError: the folder holds a run with another configuration, on other images or from other weights.
        """
        if self.check_options(config, defaults):
            if data is not None and self.data.exists():
                self.check_data(data, say)
            return
        if data is not None:
            write_json(self.data, data)
        write_json(self.architecture, dataclasses.asdict(architecture))
        if blueprint is not None:
            with replacing(self.blueprint) as [file]:
                file.write(blueprint.encode())
        write_json(self.config, dict(config))

    def forget(self) -> None:
        """Removes what `begin` noted if nothing else is there: of a command that was refused before its first step."""
        with contextlib.suppress(OSError):
            notes = {self.config, self.architecture, self.data}
            if {*self.path.iterdir()} <= notes | {self.path / "lock"}:
                for note in notes:
                    note.unlink(missing_ok=True)

    def check_options(self, config: Mapping, defaults: Mapping = MappingProxyType({})) -> bool:
        """Whether a run lies here that can be resumed, which then must have these options.

        Raises:
            InputError: it has others, or its images came in an order that is no more.
        """
        if not (self.config.exists() and (self.checkpoints() or self.network.exists())):
            return False
        if not (self.network.exists() and self.result.exists()):
            _check_newest_stream(self.checkpoints())  # first: options that came since then are no reason
        changed = begun_with(self.config, config, defaults=defaults, free=_MAY_CHANGE)
        known = self.noted_weights() if changed.keys() & {*WEIGHTS} else {}
        for name in known.keys() & changed.keys():
            if all(changed[name]):  # weights there and here: `begin` compares them
                del changed[name]
        if changed:
            differing = "; ".join(f"{name}={a!r} there, {b!r} here" for name, (a, b) in changed.items())
            raise InputError(
                f"{self.path} holds a run with other options; give the same ones to resume it, or another folder "
                f"to start anew: {differing}"
            )
        return True

    def noted_weights(self) -> dict[str, str]:
        """Option → what tells the weights that the run was begun from; nothing where that was not noted."""
        found = noted(self.data).get("weights")
        return dict(found) if isinstance(found, dict) else {}

    def class_names(self) -> tuple[str, ...]:
        """Names of the classes that the run was trained on, by number; none where they were not noted."""
        found = noted(self.data).get("classes", [])
        known = isinstance(found, list) and all(isinstance(name, str) for name in found)
        return tuple(found) if known else ()

    def check_there(self) -> None:
        """Refuses to write into a folder that was removed while a training holds it, or removed and made anew.

        Its `config.json` lies in it, and the training's `lock` as long as it is held; writing there would leave parts
        of a run behind.

        Raises:
            InputError: so it is; or another process has taken over the folder in a bucket that it stands for.
        """
        check_sent(self.path)
        rule = f"{self.path} must stay while a training writes there, but it was removed or made anew"
        there = self.config.exists() or (self.path / "lock").exists()
        check(there, f"{rule}; give the same command to begin again")

    def send(self) -> None:
        """Sends what is whole in the folder to the bucket that it stands for, and waits for that; else nothing.

        Raises:
            InputError: it cannot be sent, or another process has taken the folder over.
        """
        send_now(self.path)

    def check_data(self, given: dict, say: Callable[[str], None]) -> None:
        """Refuses to resume on other images than the run was begun with.

        What is noted of them decides nothing but this: if it is damaged, the checkpoint suffices to go on.  Images of a
        run that was begun before their content was noted are known by it from now on.
        """
        try:
            stored = read_json(self.data)
        except InputError as error:
            say(f"{error.args[0].split(';')[0]}; the run resumes, but nothing tells whether its images are the same")
            write_json(self.data, given)
            return
        _check_same_data(self.data, stored, given=given)
        if "content" in given.keys() - stored.keys():
            write_json(self.data, stored | {"content": given["content"]})


def noted(path: Path) -> dict[str, Any]:
    """What a JSON file in a folder holds; nothing where there is none, or it is damaged: said where it is needed."""
    try:
        return read_json(path) if path.is_file() else {}
    except InputError:
        return {}


def _check_same_data(path: Path, stored: dict, *, given: dict) -> None:
    """Raises `InputError` unless a run resumes on the images and weights it began with, as far as these are noted."""
    there, here = (of.get("weights") or {} for of in (stored, given))
    unlike = [name for name, content in here.items() if isinstance(there, dict) and there.get(name, content) != content]
    rule = f"{path.parent} must resume with the weights it was begun with, but others lie there by now"
    check(not unlike, f"{rule}; bring those back, or take another folder to start anew", options=unlike)
    images = stored.get("images")
    # Notes of old runs have no roster and no content.
    changed = [name for name in ("roster", "content") if {*stored} & {*given} & {name} and stored[name] != given[name]]
    if images != given["images"] or changed:
        count = f"{images:,}" if isinstance(images, int) else f"{images!r}"
        how = {"roster": ", with other names", "content": ", and pictures, names or labels differ"}
        others = how[changed[0]] if images == given["images"] else ""
        raise InputError(
            f"{path.parent} must resume on the images it was begun with, {count} of {stored.get('origin')}, but there "
            f"are {given['images']:,} of {given['origin']}{others}; bring those back, or take another folder to start "
            "anew"
        )


def state(model: "keras.Model") -> dict[str, "keras.Variable"]:
    """All that a training step reads and writes, by name.

    Weights are `model/layer/weight` (`network.variables_by_name`); the others, of the optimizer, of the metrics and of
    layers' random generators, are numbered.
    """
    from tf_simclr.models.network import variables_by_name

    variables = {f"model/{name}": weight for name, weight in variables_by_name(model).items()}
    groups = {"optimizer": model.optimizer.variables, "metrics": model.metrics_variables}
    known = {id(variable) for group in (variables.values(), *groups.values()) for variable in group}
    for kind, group in groups.items():
        variables |= {f"{kind}/{i:04d}/{variable.path}": variable for i, variable in enumerate(group)}
    # Random generators without their paths, in which Keras counts all generators of a process.
    rest = [variable for variable in model.non_trainable_variables if id(variable) not in known]
    return variables | {f"random/{i:04d}": variable for i, variable in enumerate(rest)}


def captured(model: "keras.Model") -> dict[str, np.ndarray]:
    """A copy of the state of a training, which no later step changes.

    Where several processes share the training, all of them must call it: each reads its part.

    Raises:
        InputError: a number in it is not finite: no training could go on from there.
    """
    arrays: dict[str, np.ndarray] = {}
    for name, variable in state(model).items():
        array = np.asarray(variable.numpy())
        arrays[name] = array if array.flags.owndata else array.copy()  # some backends show their own memory
    broken = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    check(not broken, "every number of a checkpoint must be finite; it was not saved", broken=broken[:3])
    return arrays


def write_state(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes what was `captured` to an `.npz`, whose members carry checksums.

    Raises:
        InputError: it cannot be written.
    """
    members: dict[str, Any] = {STREAM_KEY: np.int64(stream_version()), **arrays}
    with replacing(path, durable=True) as [file]:
        np.savez(file, **members)


def _check_stream(path: Path, version: int) -> None:
    """Raises `OtherStream` unless a checkpoint was saved with the images in the order that they have now."""
    if version != (here := stream_version()):
        raise OtherStream(
            f"{path} must have been saved by this version of the input to go on from it, but its images came in the "
            f"order of version {version}, and this is {here}: what follows would not be the rest of that training; "
            "finish it with the version of tf_simclr that began it, with TensorFlow or without as then, or start in "
            "another folder, from these weights with --checkpoint"
        )


def _check_newest_stream(checkpoints: list[Path]) -> None:
    """`_check_stream` of the newest whole one; damaged ones are told when they are read."""
    for path in checkpoints:
        try:
            with archived(path, "a whole checkpoint", advice="remove it") as file:
                version = int(file[STREAM_KEY]) if STREAM_KEY in file.files else 1
        except InputError:
            continue
        _check_stream(path, version)
        return


def _uncounted(name: str) -> str:
    """A numbered name without the counts that Keras gives layers of one kind: they go on through a process.

    Example:
        >>> _uncounted("optimizer/0003/lars/mine_2_conv2d_10_kernel_momentum"), _uncounted("model/proj_1/kernel")
        ('optimizer/0003/lars/mine_conv2d_kernel_momentum', 'model/proj_1/kernel')
    """
    if not name.startswith(("optimizer/", "metrics/")):
        return name
    return re.sub(r"(?<=\w)_\d+(?=[_/]|$)", "", name)


def restore_state(path: Path, model: "keras.Model") -> None:
    """Reads a state into a compiled model of the same form.

    Raises:
        OtherStream: the training saw its images in another order than it would from here on.
        InputError: the file is damaged, or holds other variables; the model is as it was.
    """
    variables = {_uncounted(name): variable for name, variable in state(model).items()}
    arrays = {_uncounted(name): array for name, array in read_arrays(path).items()}
    with reading(path, "a whole checkpoint", advice="remove it"):
        version = int(arrays.pop(STREAM_KEY, np.int64(1)))
    differing = [f" - {name} (missing)" for name in sorted(variables.keys() - arrays.keys())]
    differing += [f" + {name} (unexpected)" for name in sorted(arrays.keys() - variables.keys())]
    for name in sorted(variables.keys() & arrays.keys()):
        wanted, found = tuple(variables[name].shape), arrays[name].shape
        differing += [f" ! {name} must have the shape {wanted}, not {found}"] if wanted != found else []
    if differing:
        raise InputError(
            "\n".join([f"{path} does not fit this model; {len(differing)} variables differ:", *differing[:20]])
        )
    _check_stream(path, version)
    for name, variable in variables.items():
        variable.assign(arrays[name])
    if hasattr(model.optimizer, "restored"):
        model.optimizer.restored()


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Every array of an `.npz`, its checksums checked.

    Raises:
        InputError: the file is damaged.
    """
    with archived(path, "a whole checkpoint", advice="remove it") as file:
        members = file.zip.infolist()
        spend(made=sum(member.file_size for member in members), items=len(members))
        arrays = {checked_name(name): file[name] for name in file.files}
        strange = [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]
        check(not strange, "it must hold arrays only", strange=strange[:3])  # NumPy gives others as bytes
        return arrays
