"""Networks filled by the goldens' formula."""

import re

import numpy as np

from converters.names import naming as namings
from tests import golden
from tf_simclr.models import network
from tf_simclr.models.architecture import Architecture

FORWARD = ["r18_1x_sk0_cifar", "r34_1x_sk0", "r50_1x_sk0", "r50_1x_sk0_se", "r50_1x_sk1", "r50_1x_sk1_cifar",
           "r50_1x_v1", "r50_2x_sk0", "r101_1x_sk1", "r152_1x_sk0"]  # fmt: skip
"""The golden forward cases."""


def architecture(name: str, *, classes: int | None = None) -> Architecture:
    """The architecture that a golden's name stands for."""
    depth, width, sk = map(int, re.match(r"r(\d+)_(\d)x_(?:sk(\d))?", name.replace("v1", "sk0")).groups())
    cifar, v1 = "_cifar" in name, name.endswith("_v1")
    layers = 0 if v1 else 2 if name.endswith("proj2") else 3
    return Architecture(
        depth,
        width,
        sk_ratio=0.0625 * sk,
        se_ratio=0.0625 if "_se" in name else 0.0,
        cifar_stem=cifar,
        proj_head_mode="nonlinear" if layers else "none",
        num_proj_layers=layers,
        num_classes=(10 if cifar else 1000) if classes is None else classes,
    )


def fill(model, architecture: Architecture, *, but: tuple[str, ...] = ()) -> dict[str, str]:
    """Fills every weight of a model and returns hub name to TF1 name."""
    table, weights = namings.TF1.table(architecture), network.weights_by_name(model)
    assert table.keys() == weights.keys()
    for hub, tf1 in table.items():
        value = golden.fill(tf1, weights[hub].shape)
        weights[hub].assign(np.zeros_like(value) if hub in but else value)
    return table
