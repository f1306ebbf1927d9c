"""Views by a backend: `python -m tests.data.views_on IN OUT`, where IN and OUT are NumPy's archives.

IN has batches under `name|size|key`, where the name is a recipe's of `RECIPES`; OUT gets `name|size`.
"""

import sys
from collections import defaultdict
from functools import partial

import keras
import numpy as np

from tf_simclr.data import device_views
from tf_simclr.data.recipe import RADIOGRAPH, Recipe

RECIPES = {
    "SimCLRv2": Recipe(),
    "SimCLRv1": Recipe(additive_brightness=True),
    "tf2": Recipe(bicubic="tf2"),
    "CIFAR-10": Recipe(color_jitter_strength=0.5, use_blur=False),
    "bright": Recipe(brightness=2.0, jitter_probability=1.0),
    "radiograph": RADIOGRAPH,
    "grey input": Recipe(grayscale_input=True),
    "crop alone": Recipe().only(),
    "all": Recipe(rotation_probability=0.7, noise_probability=0.7, sobel_probability=0.3, cutout_probability=0.7),
    **{
        name: Recipe().only(name)
        for name in ("flip", "jitter", "grayscale", "blur", "rotation", "noise", "sobel", "cutout")
    },
}


def views(batch: dict, *, size: int, recipe: Recipe) -> np.ndarray:
    """Compiled where the backend can."""
    function = partial(device_views.views, size=size, recipe=recipe)
    if keras.backend.backend() == "jax":
        import jax

        function = jax.jit(function)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        batch = {name: tf.constant(value) for name, value in batch.items()}
        function = tf.function(function, jit_compile=True, autograph=False)
    if keras.backend.backend() == "torch":
        batch = {name: keras.ops.convert_to_tensor(value) for name, value in batch.items()}
    return keras.ops.convert_to_numpy(function(batch))


def main(given: str, found: str) -> None:
    batches: dict[str, dict] = defaultdict(dict)
    with np.load(given) as arrays:
        for key in arrays.files:
            name, size, part = key.split("|")
            batches[f"{name}|{size}"][part] = arrays[key]
    made = {
        key: views(batch, size=int(key.split("|")[1]), recipe=RECIPES[key.split("|")[0]])
        for key, batch in batches.items()
    }
    np.savez(found, **made)


if __name__ == "__main__":
    main(*sys.argv[1:])
