"""What a notebook needs beside the public names: commands in its own process, and images and views to look at.

Example:
    >>> from tf_simclr import notebook
    >>> notebook.execute("--version")
    tf-simclr 0.1.0
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tf_simclr.cli import execute, task
from tf_simclr.data.recipe import Recipe
from tf_simclr.files.places import expanded
from tf_simclr.machine.accelerators import choose_backend, find_accelerator
from tf_simclr.terminal import write

__all__ = [
    "begin",
    "digits",
    "execute",
    "history",
    "operators",
    "photographs",
    "read_image",
    "seen_by_network",
    "show",
    "views",
]


def begin() -> None:
    """Says what the machine has and what Keras computes with, and loads that without its log lines.

    Where nothing is chosen (`KERAS_BACKEND`) a TPU is JAX's, and otherwise TensorFlow is taken where it is installed.
    """
    accelerator = find_accelerator()
    write(f"This machine has a {accelerator}; Keras computes with {choose_backend(accelerator)}.\n")
    task("pretrain")


def digits(folder: str | Path = "digits", *, train: int = 512, test: int = 128) -> Path:
    """Writes scikit-learn's handwritten digits as a folder of images, `digits/train/3/12.png`, and returns it.

    Args:
        folder: where to.
        train: how many to learn from, at most 1,437.
        test: how many others, at most 360.
    """
    from tf_simclr.data.digits import write_digits

    return write_digits(expanded(folder), train=train, test=test)


def photographs() -> list[Path]:
    """The files of scikit-learn's two photographs, a temple and a flower.

    Example:
        >>> [path.name for path in photographs()]
        ['china.jpg', 'flower.jpg']
    """
    from tf_simclr.data.digits import flower_file

    return sorted(flower_file().parent.glob("*.jpg"))


def read_image(path: str | Path) -> np.ndarray:
    """The picture in a file, RGB float32 `(h, w, 3)` in [0, 1].

    Raises:
        InputError: it cannot be read.
    """
    from tf_simclr.commands.augmentations import read

    return read(expanded(path))


def seen_by_network(image: np.ndarray, *, size: int) -> np.ndarray:
    """What evaluation shows the network of an image: its central square, resized, `(size, size, 3)` in [0, 1]."""
    from tf_simclr.commands.augmentations import evaluated

    return evaluated(image, size=size)


def views(image: np.ndarray, recipe: Recipe | None = None, *, size: int, count: int = 4, seed: int = 0) -> np.ndarray:
    """Pairs of random views of an image as pretraining makes them, float32 `(count, 2, size, size, 3)`.

    Args:
        image: `(h, w, 3)` in [0, 1].
        recipe: what a view is made of; by default as SimCLR's for ImageNet.
        size: side of a view in pixels.
        count: of the pairs.
        seed: of all that is random.
    """
    from tf_simclr.commands.augmentations import pair

    return np.stack([pair(image, recipe or Recipe(), size=size, seed=[seed, i]) for i in range(count)])


def operators(
    image: np.ndarray, recipe: Recipe | None = None, *, size: int, draws: int = 4, seed: int = 0
) -> dict[str, list[np.ndarray]]:
    """What each operator of the paper's Figure 4 does, always applied: name → `draws` views `(size, size, 3)`.

    The crops of a name are those of any other, so they can be compared one by one; arguments are as of `views`.
    """
    from tf_simclr.commands.augmentations import operator_rows

    return operator_rows(image, recipe or Recipe(), size=size, draws=draws, seed=seed)


def history(run: str | Path) -> dict[str, list[float]]:
    """A run's metrics, one value an epoch, as `tf_simclr.plots.curves` takes them; those that every epoch has."""
    from tf_simclr.run_folder import RunFolder
    from tf_simclr.training import read_history

    rows: list[Mapping[str, float]] = list(read_history(RunFolder(expanded(run))))
    return {name: [row[name] for row in rows] for name in rows[0] if all(name in row for row in rows)} if rows else {}


def show(*files: Any, width: int = 640) -> None:
    """Shows pictures in files below a notebook's cell, so many pixels wide."""
    from IPython.display import Image, display

    for file in files:
        display(Image(filename=str(expanded(file)), width=width))
