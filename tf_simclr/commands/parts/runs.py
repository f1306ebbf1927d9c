"""A training's beginning and end: devices and processes that agree, a folder that is its own, and the hub."""

import contextlib
import importlib
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import keras

from tf_simclr import replicas
from tf_simclr.buckets.mirror import mirrored
from tf_simclr.buckets.staging import copied, filled
from tf_simclr.config import Distill, Finetune, Pretrain, plain, plain_defaults
from tf_simclr.config.parts import Placement, Publishing
from tf_simclr.data.sources import Source
from tf_simclr.errors import InputError, check
from tf_simclr.evaluation.features import source_digest
from tf_simclr.files.contents import of_bytes
from tf_simclr.files.lock import hold
from tf_simclr.files.places import is_bucket, written
from tf_simclr.frameworks import has_tensorflow
from tf_simclr.machine.signals import Interrupted, Stopped
from tf_simclr.models.architecture import Architecture, Own
from tf_simclr.run_folder import WEIGHTS, RunFolder
from tf_simclr.terminal import say, show
from tf_simclr.training import publishing
from tf_simclr.weights import content_of_option

_C = TypeVar("_C", Pretrain, Finetune, Distill)
_LATE = 30.0
"""Seconds after which what one machine has written in a network folder is seen by the others."""
_OF_A_MACHINE: tuple[str, ...] = ("model_dir", "data_dir", "image_dir", "radiographs", "download")
_OF_A_MACHINE += ("coordinator", "process_id")
"""Options that may differ between the processes of one training: their machines' paths, which change no number.

`cache_dataset` is none: what is cached is read in another order, of which each process takes its share.
"""


def find_devices(config: Placement) -> replicas.Devices:
    """The devices that the knobs ask for, which it says; call it first: afterwards they cannot be divided or joined.

    Raises:
        InputError: they are not there.
    """
    where: dict[str, Any] = {"tpu_name": config.tpu_name, "zone": config.tpu_zone, "project": config.gcp_project}
    where |= {name: getattr(config, name) for name in ("coordinator", "num_processes", "process_id")}
    devices = replicas.find(config.strategy, num_replicas=config.num_replicas, **where)
    rule = "steps_per_execution must be 1 with KERAS_BACKEND=torch, whose steps Keras runs one by one"
    single = config.steps_per_execution == 1 or keras.backend.backend() != "torch"
    check(single, rule, steps_per_execution=config.steps_per_execution)
    say(f"devices: {devices.description}")
    return devices


@contextlib.contextmanager
def in_folder(config: _C, devices: replicas.Devices) -> Iterator[_C]:
    """A training's block: no other one has its folder meanwhile, and a process that it has lost is reported.

    What is refused before its first step leaves nothing in a folder that was empty or missing before.  Of several
    processes and a folder in a bucket the first one fills its working folder, the others have copies (`see`).

    Args:
        config: the command's options.
        devices: to train on.

    Yields:
        The same with the folder where this process finds it.

    Raises:
        InputError: another process trains there, or one of several that share this training is gone.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(devices.together())
        sending = stack.enter_context(contextlib.ExitStack())
        place, address = config.model_dir, written(config.model_dir)
        # Asked of all before any does what the others would wait for.
        devices.agree("model_dir, where it lies in a bucket,", address if is_bucket(place) else "")
        if is_bucket(place):
            place = devices.by_chief(lambda: sending.enter_context(filled(address, say=say))) or copied(address)
        folder = RunFolder(place)
        # Before anything is written there.
        devices.by_chief(lambda: stack.enter_context(hold(folder.path, say=say)))
        begun = folder.config.exists()

        def end() -> None:
            # All is in the bucket before any process ends: a launcher would then end the first one while it sends.
            devices.by_chief(sending.close)
            # Returns when all processes are done: the lock is held until then.
            devices.part()

        try:
            yield config if place is config.model_dir else replace(config, model_dir=place)
            end()
        except (Stopped, Interrupted):  # by which all end
            end()
            raise
        except InputError:
            # Refused before its first step: what was noted for it is no run.
            if devices.chief and not begun:
                folder.forget()
            raise


def agree(config: Pretrain | Finetune | Distill, source: Source, *, devices: replicas.Devices) -> None:
    """Refuses processes that were not started alike; call it before anything is built, which needs the same of all.

    Raises:
        InputError: so it is, with what each has.
    """
    if devices.process[1] == 1:
        return
    weights = _weights_of(config)  # these may lie elsewhere on each machine
    same = {name: value for name, value in plain(config).items() if name not in {*_OF_A_MACHINE, *weights}}
    seen = {"images": source.num_examples, "their names": source.roster, "classes": list(source.class_names)}
    devices.agree("the options", same | seen | _environment())
    devices.agree("the weights that options name", weights)


def _environment() -> dict[str, str]:
    """Versions and settings of what computes and draws: processes with others would not train the same network."""
    backend = keras.backend.backend()
    packages = {"tf_simclr", "keras", "numpy", backend}
    # TensorFlow makes the views of other backends, too; without it they are others, and many images in another order.
    packages |= {"tensorflow"} if has_tensorflow() else set()
    found = {"tensorflow": "none"}
    found |= {name: getattr(importlib.import_module(name), "__version__", "") for name in sorted(packages)}
    told = {"version of Python": ".".join(map(str, sys.version_info[:2]))}
    told |= {f"version of {name}": str(version) for name, version in found.items()}
    # What variables of the environment and `keras.json` set; of numbers of two sizes Gloo aborts.
    told |= {name: str(getattr(keras.config, name)()) for name in ("floatx", "epsilon", "image_data_format")}
    if backend == "jax":
        config = importlib.import_module("jax").config
        names = ("jax_enable_x64", "jax_default_matmul_precision", "jax_default_prng_impl")
        told |= {name: str(getattr(config, name, None)) for name in names}
    return told


def _weights_of(config: Any) -> dict[str, str]:
    """Option → what tells the weights that it means from others, wherever they lie; of those that are given.

    Raises:
        InputError: they cannot be read.
    """
    given = {name: value for name in WEIGHTS if (value := getattr(config, name, None))}
    told = {name: content_of_option(name, value, ema=getattr(config, "ema", False)) for name, value in given.items()}
    return {name: content for name, content in told.items() if content is not None}


def begin_run(
    config: Pretrain | Finetune | Distill,
    source: Source,
    *,
    architecture: Architecture | Own,
    devices: replicas.Devices,
    test: Source | None = None,
    notes: dict[str, Any] | None = None,
    blueprint: str | None = None,
) -> RunFolder:
    """A training's folder, with its options noted in it; or the one that lies there, to go on with.

    Args:
        config: the command's options.
        source: the images to train on.
        architecture: of the network.
        devices: to train on; of several processes the chief alone writes.
        test: the images to test on.
        notes: what `config.json` holds in the place of the options.
        blueprint: what a network with an encoder of another kind is made of.

    Raises:
        InputError: the folder holds another run, not all processes see it, the devices cannot share a batch, or
            processes have different images.
    """
    # What cannot be divided, and processes that disagree, before anything is written.
    devices.check_batch(config.train_batch_size)
    weights = _weights_of(config)
    folder, noted = RunFolder(Path(config.model_dir)), notes or plain(config)
    devices.by_chief(lambda: folder.check_options(noted, plain_defaults(noted["command"])))

    # All images are read once, to be known by their content; a later start finds that remembered.
    content = source_digest(source, say)
    tested = None if test is None else source_digest(test, say)
    devices.agree("the images", {"to train on": content, "to test on": tested})
    data: dict[str, Any] = {"images": source.num_examples, "origin": source.origin}
    known = {"roster": source.roster, "content": content, "classes": list(source.class_names), "weights": weights}
    data |= {name: value for name, value in known.items() if value not in (None, [], {})}

    # The chief alone writes.
    defaults = plain_defaults(noted["command"])
    devices.by_chief(
        lambda: folder.begin(noted, architecture, data=data, blueprint=blueprint, defaults=defaults, say=say)
    )
    see(folder, devices)
    _check_shared(folder, devices)
    return folder


def see(folder: RunFolder, devices: replicas.Devices) -> None:
    """Brings what the first process has written in the folder of a run to the others, where that lies in a bucket.

    On a path that all share there is nothing to do.  All must call it.

    Raises:
        InputError: the store cannot be asked.
    """
    if devices.process[1] == 1 or not is_bucket(address := written(folder.path)):
        return
    devices.by_chief(folder.send)
    if not devices.chief:
        mirrored(address)


def _check_shared(folder: RunFolder, devices: replicas.Devices) -> None:
    """Refuses processes that do not see what the first one has noted in a run's folder.

    Raises:
        InputError: so it is; a network folder that shows it late is waited for.
    """

    def seen() -> str | None:
        return of_bytes(folder.config.read_bytes()) if folder.config.exists() else None

    wanted = devices.collect(seen())[0]
    until = time.monotonic() + _LATE
    while seen() != wanted and time.monotonic() < until:
        time.sleep(0.5)
    here = "the first one's" if seen() == wanted else "another"
    devices.agree(f"the folder of the run ({folder.path}, which all must see)", here)


def beside(checkpoint: Path) -> Path:
    """Where a command leaves what it makes of a checkpoint: in its run folder, else in the working directory."""
    return checkpoint if RunFolder(checkpoint).config.exists() else Path()


def check_push(config: Publishing) -> None:
    """Refuses a repository of the hub that cannot be pushed to, before the time of a training is spent."""
    if config.push_to is not None:
        publishing.check_can_push(config.push_to)


def push(
    config: Publishing, network: Path, *, devices: replicas.Devices = replicas.ONE_DEVICE, files: Sequence[Path] = ()
) -> None:
    """Sends what is finished to the hub, where that is asked for, and says how it is loaded from there.

    Raises:
        InputError: it cannot be sent; what lies on the disk is whole.
    """
    if config.push_to is None or not devices.chief:
        return
    say(f"sending to hf://{config.push_to} …")
    address = publishing.push_to_hub(network, config.push_to, files=files)
    show(f'hub:      {address}; import tf_simclr; keras.saving.load_model("hf://{config.push_to}")')
