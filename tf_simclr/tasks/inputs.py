"""What every task does first: its images, its replicas, and a way to speak to the user."""

import sys

from tf_simclr.config.parts import Data
from tf_simclr.data.sources import Source
from tf_simclr.errors import check


def say(line: str) -> None:
    """Writes a line to the user, beside the progress line and apart from results that are piped on."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def show(text: str) -> None:
    """Writes a result to standard output."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def open_source(config: Data, split: str, *, labelled: bool | None = None) -> Source:
    """The examples of a split: of a folder of images, if one is given, else of a tfds data set.

    A folder's split is the folder of that name in it.  A folder without one is taken whole to train on, where no other
    split is asked for and labels do not matter; where they do, the test images would be among the training images.

    Raises:
        InputError: there is no such split, or nothing in it.
    """
    if config.image_dir is None:
        from tf_simclr.data.tfds_source import from_tfds

        return from_tfds(config.dataset, split, data_dir=config.data_dir, download=config.download)
    from tf_simclr.data.sources import from_folder

    folder = config.image_dir / split
    whole = not folder.is_dir() and not labelled and split == Data.train_split
    rule = f"image_dir must hold a folder of the split's name, {split}"
    check(whole or folder.is_dir() or not config.image_dir.is_dir(), rule, image_dir=str(config.image_dir))
    return from_folder(folder if folder.is_dir() else config.image_dir, labelled=labelled)
