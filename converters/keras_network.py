"""Weights into our Keras network."""

import keras

from converters.network import Network
from tf_simclr.models.network import build, weights_by_name


def build_keras(network: Network) -> keras.Model:
    """The Keras network of the architecture with these weights: images → dict of endpoints."""
    model = build(network.architecture)
    for name, variable in weights_by_name(model).items():
        variable.assign(network[name])
    return model
