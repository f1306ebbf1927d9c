"""Heads on an encoder's features: what they must be, their log-odds, and copies that can be stored."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from tf_simclr.errors import check
from tf_simclr.models.network import plain


def log_odds(head: keras.Model, features: tf.Tensor) -> tf.Tensor:
    """What a head's last sigmoid is given: `(n, 1)`."""
    # All layers but the last, whose kernel and bias are taken without its sigmoid: (n, d) → (n, 1).
    x = features
    for layer in head.layers[:-1]:
        x = layer(x, training=False) if isinstance(layer, keras.layers.Dropout) else layer(x)
    last = head.layers[-1]
    return tf.matmul(x, last.kernel) + last.bias


def sigmoid_layer(kernel: np.ndarray, bias: np.ndarray, *, name: str) -> keras.Model:
    """A head of one layer: features to the sigmoid of `kernel` `(d, 1)` and `bias` `(1,)`."""
    head = keras.Sequential([keras.Input((len(kernel),)), keras.layers.Dense(1, "sigmoid")], name=name)
    head.layers[-1].set_weights([kernel, bias])
    return head


def bare(model: keras.Model) -> keras.Model:
    """A copy of plain layers in float32, without optimizer and loss."""
    copy = plain(model)
    copy.compiled = False  # else its file names the optimizer
    return copy


def check_heads(encoder: keras.Model, heads: Sequence[keras.Model]) -> None:
    """Refuses networks that do not fit together."""
    width = encoder.output_shape
    # In words of what a user can change: the encoder, then each head.
    check(isinstance(width, tuple) and len(width) == 2, "the encoder must give one vector an image", shape=width)
    images = encoder.input_shape
    check(len(images) == 4 and images[-1] in (1, 3), "the encoder must take grey or RGB images", shape=images)
    check(1 <= len(heads) <= 100, "there must be 1 to 100 heads", heads=len(heads))
    for head in heads:
        last = head.layers[-1]
        sigmoid = isinstance(last, keras.layers.Dense) and last.units == 1 and last.use_bias
        sigmoid = sigmoid and last.activation is keras.activations.sigmoid and isinstance(head, keras.Sequential)
        check(sigmoid, "a head must be a Sequential that ends in Dense(1, 'sigmoid')", head=head.name)
        check(head.input_shape[1:] == width[1:], "a head must take the encoder's features", shape=head.input_shape)
