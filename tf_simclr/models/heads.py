"""Projection head and supervised head.

References:
    Chen et al., SimCLR, arXiv:2002.05709, Section 2.1 and 4.2; SimCLRv2, arXiv:2006.10029, Section 2.2.
"""

import keras
from keras import layers

from tf_simclr.models.normalization import Normalization


def projection_head(
    feature_dim: int,
    num_proj_layers: int = 3,
    *,
    proj_out_dim: int = 128,
    normalization: Normalization = Normalization(),
) -> keras.Model:
    """Builds the projection head: features `h` `(n, feature_dim)` to the list of each layer's output.

    Item 0 of the list is the input, item `i` the output of layer `i`, the last one the projection `z`
    `(n, proj_out_dim)`, not normalised.  Hidden layers are as wide as the features: dense, BatchNorm and ReLU; the
    last one is dense and a BatchNorm without beta; no dense layer has a bias.  With one layer the head is linear,
    with none `z` is `h`.
    """
    outputs = [keras.Input((feature_dim,), name="proj_head_input")]
    for i in range(1, num_proj_layers + 1):
        last = i == num_proj_layers
        dense = layers.Dense(
            proj_out_dim if last else feature_dim, use_bias=False, kernel_initializer=normal(), name=f"proj{i}_dense"
        )
        x = normalization.layer(f"proj{i}_bn", center=not last)(dense(outputs[-1]))
        outputs.append(x if last else layers.ReLU(name=f"proj{i}_relu")(x))
    return keras.Model(outputs[0], outputs, name="projection_head")


def supervised_head(num_classes: int, *, zero: bool = False) -> layers.Layer:
    """The linear classifier: features `(n, d)` to logits `(n, num_classes)`; `zero` starts it at zero."""
    return layers.Dense(num_classes, kernel_initializer="zeros" if zero else normal(), name="logits_sup")


def normal() -> keras.initializers.Initializer:
    """The reference's start of dense kernels: a normal distribution of standard deviation 0.01."""
    return keras.initializers.RandomNormal(stddev=0.01)
