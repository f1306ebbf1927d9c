"""The smallest network that has all that a ResNet's has for a classifier: stem, block groups, BatchNorm, a head."""

import keras
import numpy as np

from tf_simclr.models.normalization import Normalization
from tf_simclr.models.resnet import projection_head

WIDTH = 6


def encoder() -> keras.Model:
    """Images of any size to six features of their mean colour; each group is a dense layer, BatchNorm and ReLU."""
    images = keras.Input((None, None, 3), name="images")
    x = keras.layers.GlobalAveragePooling2D(name="colour")(images)
    for group in ("stem_", *(f"group{i}_block1_" for i in range(1, 5))):
        x = keras.layers.Dense(WIDTH, name=group + "conv1")(x)
        x = Normalization().layer(group + "bn1")(x)
        x = keras.layers.ReLU(name="stem_relu1" if group == "stem_" else group + "out")(x)
    return keras.Model(images, x, name="encoder")


def head() -> keras.Model:
    return projection_head(WIDTH, 3, proj_out_dim=5)


def batch(n: int = 8, *, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels."""
    rng = np.random.default_rng(seed)
    return rng.uniform(size=(n, 4, 4, 3)).astype("float32"), rng.integers(0, classes, n)


def randomise(model: keras.Model, *, seed: int = 0) -> keras.Model:
    """Sets every weight to random numbers, the moving statistics too."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    return model
