"""Real images that come inside a dependency: scikit-learn's handwritten digits and a photograph."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Digits:
    """1,797 handwritten digits of 8 × 8 grey pixels (UCI ML repository, Alpaydin and Kaynak 1998), in two parts."""

    train: np.ndarray
    """uint8 `(1437, 8, 8)`."""
    test: np.ndarray
    """uint8 `(360, 8, 8)`."""
    train_labels: np.ndarray
    """`(1437,)`, 0 … 9."""
    test_labels: np.ndarray
    """`(360,)`, 0 … 9."""


def load_digits(*, seed: int = 0) -> Digits:
    """The digits, a fifth of each class set aside for testing.

    Example:
        >>> load_digits().train.shape
        (1437, 8, 8)
    """
    from sklearn.datasets import load_digits as bundled
    from sklearn.model_selection import train_test_split

    data = bundled()
    # 16 grey levels to 256: 16 itself is white.
    grey = np.rint(data.images * (255 / 16)).astype(np.uint8)  # stored as 0 … 16
    return Digits(*train_test_split(grey, data.target, test_size=360, random_state=seed, stratify=data.target))


def write_digits(folder: Path, *, train: int = 640, test: int = 160) -> Path:
    """Writes digits as a folder of images, `train/3/12.png`, for whatever takes one; returns the folder.

    Args:
        folder: where to.
        train: how many to learn from, at most 1,437.
        test: how many others, at most 360.
    """
    import keras

    digits = load_digits()
    parts = {"train": (digits.train[:train], digits.train_labels), "test": (digits.test[:test], digits.test_labels)}
    for part, (images, labels) in parts.items():
        for number, image in enumerate(images):
            place = folder / part / str(labels[number])
            place.mkdir(parents=True, exist_ok=True)
            keras.utils.save_img(place / f"{number}.png", image[..., None], scale=False)
    return folder


def flower_file() -> Path:
    """A photograph of 427 × 640 pixels that scikit-learn brings (CC BY 2.0)."""
    from sklearn import datasets

    return Path(datasets.__file__).parent / "images" / "flower.jpg"
