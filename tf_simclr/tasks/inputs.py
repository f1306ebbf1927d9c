"""What every task does first: its images, its replicas, and a way to speak to the user."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from tf_simclr import replicas
from tf_simclr.config.parts import Data
from tf_simclr.config.placement import Placement
from tf_simclr.data.sources import Source
from tf_simclr.errors import check
from tf_simclr.lock import hold


def say(line: str) -> None:
    """Writes a line to the user, beside the progress line and apart from results that are piped on."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def show(text: str) -> None:
    """Writes a result to standard output."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def find_devices(config: Placement) -> replicas.Devices:
    """The devices that the knobs ask for, which it says; call it first: afterwards they cannot be divided or joined.

    Raises:
        InputError: they are not there.
    """
    tpu = {"tpu_name": config.tpu_name, "zone": config.tpu_zone, "project": config.gcp_project}
    devices = replicas.find(config.strategy, num_replicas=config.num_replicas, **tpu)
    say(f"devices: {devices.description}")
    return devices


def open_source(config: Data, split: str, *, labelled: bool | None = None) -> Source:
    """The examples of a split: of a folder of images or radiographs, if one is given, else of a tfds data set.

    A folder's split is the folder of that name in it.  A folder without one is taken whole to train on, where no other
    split is asked for and labels do not matter; where they do, the test images would be among the training images.

    Raises:
        InputError: there is no such split, or nothing in it.
    """
    if config.radiographs is not None:
        from tf_simclr.chest import partition, prepared

        known = prepared.load(config.radiographs)
        return partition.part(known, split, positive=config.positive, seed=config.split_seed)
    if config.image_dir is None:
        from tf_simclr.data.tfds_source import from_tfds

        return from_tfds(config.dataset, split, data_dir=config.data_dir, download=config.download)
    from tf_simclr.data.sources import from_folder

    folder = config.image_dir / split
    whole = not folder.is_dir() and not labelled and split == Data.train_split
    rule = f"image_dir must hold a folder of the split's name, {split}"
    check(whole or folder.is_dir() or not config.image_dir.is_dir(), rule, image_dir=str(config.image_dir))
    return from_folder(folder if folder.is_dir() else config.image_dir, labelled=labelled)


@contextlib.contextmanager
def in_folder(model_dir: Path, devices: replicas.Devices) -> Iterator[None]:
    """A training's block: no other one has its folder meanwhile, and a process that it has lost is reported.

    Raises:
        InputError: another process trains there, or one of several that share this training is gone.
    """
    with contextlib.ExitStack() as stack:
        if devices.chief:  # before anything is written there
            stack.enter_context(hold(model_dir, say=say))
        stack.enter_context(devices.together())
        yield


def labelled_sources(config) -> tuple[Source, Source]:
    """The images to learn from and to test on: `train_split` and `eval_split`.

    Raises:
        InputError: one of them has no labels, or their classes differ.
    """
    train, test = (open_source(config, split, labelled=True) for split in (config.train_split, config.eval_split))
    for source in (train, test):
        check(source.labelled, f"{source.origin} must have labels to learn from and to test on")
    same_classes(train, test)
    return train, test


def same_classes(train: Source, test: Source) -> None:
    """Refuses sources whose labels do not mean the same: what was learned as one class would be tested as another.

    Raises:
        InputError: the classes or their order differ.
    """
    differing = sorted(set(train.class_names) ^ set(test.class_names))
    rule = f"{train.origin} and {test.origin} must have the same classes"
    check(train.class_names == test.class_names, rule, differing=differing)
