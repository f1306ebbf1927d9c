"""Weights into our Keras network, and what TensorFlow itself makes of files that were written."""

from pathlib import Path

import keras
import numpy as np

from converters.names.network import Network
from tf_simclr.models.network import build, weights_by_name
from tf_simclr.models.normalization import Normalization


def build_keras(network: Network, *, fused: bool = True) -> keras.Model:
    """The Keras network of the architecture with these weights: images → dict of endpoints.

    `fused` as in `Normalization`: without, a saved network needs nothing but Keras to be loaded.
    """
    model = build(network.architecture, Normalization(fused=fused))
    # By names, in Keras' layout, which is the hub's.
    for name, variable in weights_by_name(model).items():
        variable.assign(network[name])
    return model


def run_keras_file(path: Path, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Endpoints by the model in a `.keras` file."""
    return _arrays(keras.saving.load_model(path, compile=False)(inputs, training=False))


def run_weights_file(path: Path, inputs: np.ndarray, *, network: Network) -> dict[str, np.ndarray]:
    """Endpoints by a fresh network that loads a `.weights.h5` file."""
    model = build(network.architecture)
    model.load_weights(path)
    return _arrays(model(inputs, training=False))


def run_saved_model(path: Path, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Endpoints by a SavedModel, called as the official ones are."""
    import tensorflow as tf

    return _arrays(tf.saved_model.load(str(path))(inputs, trainable=False))


def _arrays(ends: dict) -> dict[str, np.ndarray]:
    return {name: np.asarray(x) for name, x in ends.items()}
