"""`tf-simclr augmentations`: a sheet of what each operator does to an image, and of pairs (SimCLR, Figure 4)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from tf_simclr import plots
from tf_simclr.config.training import Augmentations
from tf_simclr.data import augment, images, in_python, rasters
from tf_simclr.data.digits import flower_file
from tf_simclr.data.draws import split
from tf_simclr.data.recipe import Recipe, evaluation_proportion
from tf_simclr.errors import InputError
from tf_simclr.files.places import shown
from tf_simclr.foreign import DAMAGED
from tf_simclr.frameworks import has_tensorflow, tf
from tf_simclr.terminal import say, show

ROWS = {
    "crop": (),
    "crop, flip": ("flip",),
    "colour jitter": ("jitter",),
    "colour drop": ("grayscale",),
    "blur": ("blur",),
    "rotation": ("rotation",),
    "noise": ("noise",),
    "Sobel filter": ("sobel",),
    "cutout": ("cutout",),
}
"""Row of the sheet → the operators that are applied to its crops."""


def run(config: Augmentations) -> None:
    """Draws the sheet and says where it is."""
    # 1. The pictures: those that are named, or one that is there always.
    files = config.images or (flower_file(),)
    pictures = [read(file, exif_orientation=config.exif_orientation) for file in files]
    recipe = Recipe.of(config)
    # 2. The first one by each operator alone; of a single picture as many pairs as draws, else a pair of each.
    rows = operator_rows(pictures[0], recipe, size=config.image_size, draws=config.draws, seed=config.seed)
    chosen = pictures if len(pictures) > 1 else pictures * config.draws
    pairs = [pair(picture, recipe, size=config.image_size, seed=[config.seed, i]) for i, picture in enumerate(chosen)]
    # 3. The sheet, and where it is.
    figure = plots.augmentations(rows, np.stack(pairs), original=np.clip(pictures[0], 0, 1))
    plots.save(figure, config.out)
    name = shown(files[0]) if config.images else "scikit-learn's flower"
    say(f"{len(rows)} operators on {name}, {len(pairs)} pairs of views")
    show(str(config.out))


def read(file: Path, *, exif_orientation: bool = False) -> np.ndarray:
    """The picture in a file, float32 (h, w, 3), turned as its EXIF orientation says if it is asked for.

    Raises:
        InputError: it cannot be read.
    """
    unreadable = (OSError, tf.errors.OpError) if has_tensorflow() else DAMAGED
    try:
        encoded = file.read_bytes()
        if not has_tensorflow():
            pixels = rasters.rgb(rasters.upright(encoded) if exif_orientation else encoded)
            return pixels.astype(np.float32) / np.iinfo(pixels.dtype).max
        encoded = tf.constant(encoded)
        return images.decode(images.upright(encoded) if exif_orientation else encoded).numpy()
    except unreadable as error:
        raise InputError(f"an image must be a readable JPEG, PNG, GIF, BMP or WebP. Received: {shown(file)}") from error


def operator_rows(
    picture: np.ndarray, recipe: Recipe, *, size: int, draws: int, seed: int
) -> dict[str, list[np.ndarray]]:
    """Views `(size, size, 3)` of a picture by each operator alone, always applied, behind the recipe's crops.

    The crops of a row are those of any other: the operators can be compared column by column.
    """
    # A seed for each draw, the same for every operator: the rows show the same crops.
    seeds = np.array([[seed, i] for i in range(draws)], np.int64)
    return {name: list(_views(picture, seeds, size=size, recipe=recipe.only(*chosen))) for name, chosen in ROWS.items()}


def pair(picture: np.ndarray, recipe: Recipe, *, size: int, seed: list[int]) -> np.ndarray:
    """Two views `(2, size, size, 3)` of a picture as a network sees them in pretraining."""
    # As in a stream: two seeds of one.
    return _views(picture, split(np.array([seed], np.int64), 2)[0], size=size, recipe=recipe)


def evaluated(picture: np.ndarray, *, size: int) -> np.ndarray:
    """What evaluation shows the network of a picture, float32 `(size, size, 3)`."""
    if has_tensorflow():
        return images.evaluation_view(tf.constant(picture), size=size).numpy()
    pixels = np.rint(picture * np.iinfo(np.uint16).max).astype(np.uint16)  # 8 bits are the same numbers in 16
    return in_python.evaluation_view(pixels, size=size, proportion=evaluation_proportion(size))


def _views(picture: np.ndarray, seeds: np.ndarray, *, size: int, recipe: Recipe) -> np.ndarray:
    """The view of a picture by each seed `(n, 2)`, float32 `(n, size, size, 3)`; without TensorFlow, by Keras."""
    if not has_tensorflow():
        return in_python.picture_views(picture, seeds, size=size, recipe=recipe)
    view = partial(augment.view, tf.constant(picture), size=size, recipe=recipe, may_compile=False)
    return np.stack([view(seed=tf.constant(own)) for own in seeds])
