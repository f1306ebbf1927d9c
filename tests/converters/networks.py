"""Networks whose weights are the goldens' formula, in memory."""

import dataclasses
import functools
import re

import numpy as np

from converters.names import walk as layers
from converters.names.naming import TF1
from converters.names.network import Network, without
from converters.tensors import Stored
from tests import golden
from tf_simclr.models.architecture import Architecture

TF1_MANIFESTS = [
    *(f"r18_{w}x_sk0" for w in (1, 2, 3, 4)),
    *(f"r34_{w}x_sk0" for w in (1, 2, 4)),
    *("r18_1x_sk0_cifar", "r18_1x_sk0_cifar_proj2", "r18_1x_sk0_se", "r200_1x_sk0"),
    *("r50_1x_sk0", "r50_1x_sk0_cifar", "r50_1x_sk0_se", "r50_1x_sk1", "r50_1x_sk1_cifar", "r50_1x_sk1_se"),
    *("r50_1x_v1", "r50_2x_v1", "r50_2x_sk0", "r50_3x_sk0", "r50_3x_sk1", "r50_4x_sk1"),
    *("r101_1x_sk0", "r101_1x_sk1", "r101_2x_sk1", "r101_3x_sk0", "r101_4x_sk0", "r101_4x_sk1"),
    *("r152_1x_sk0", "r152_1x_sk1", "r152_2x_sk0", "r152_3x_sk0", "r152_3x_sk1", "r152_4x_sk1"),
]
"""Of `golden/manifests/tf1`."""

TF2_MANIFESTS = [
    "r18_1x_sk0_cifar",
    "r18_1x_sk0_cifar.pretrain.adam",
    "r18_1x_sk0_cifar.pretrain.momentum",
    "r50_1x_sk0",
    "r50_1x_sk0.finetune.lars",
    "r50_1x_sk0_se",
    "r50_1x_sk1",
]

FORWARD = [
    "r18_1x_sk0_cifar",
    "r34_1x_sk0",
    "r50_1x_sk0",
    "r50_1x_sk0_se",
    "r50_1x_sk1",
    "r50_1x_sk1_cifar",
    "r50_1x_v1",
    "r50_2x_sk0",
    "r101_1x_sk1",
    "r152_1x_sk0",
]
"""Of `golden/forward`."""


def architecture(name: str) -> Architecture:
    """What a golden's name says (goldens' README, Section 2)."""
    depth, width, sk = re.match(r"r(\d+)_(\d)x_(?:sk(\d))?", name).groups()
    projections = 0 if "_v1" in name else 2 if "_proj2" in name else 3
    return Architecture(
        int(depth),
        int(width),
        sk_ratio=0.0625 * int(sk or 0),
        se_ratio=0.0625 if "_se" in name else 0.0,
        cifar_stem="_cifar" in name,
        proj_head_mode="nonlinear" if projections else "none",
        num_proj_layers=projections,
        num_classes=10 if "_cifar" in name else 1000,
    )


@functools.lru_cache(maxsize=2)
def arrays(architecture: Architecture) -> dict[str, np.ndarray]:
    """Hub name → the formula's weight."""
    names = TF1.table(architecture)
    return {hub: golden.fill(names[hub], shape) for hub, shape in layers.weights(architecture).items()}


def network(architecture: Architecture, dtype=np.float32) -> Network:
    """A network in memory with the formula's weights."""
    stored = {
        hub: Stored(array.shape, np.dtype(dtype).name, lambda array=array: array.astype(dtype))
        for hub, array in arrays(architecture).items()
    }
    return Network(architecture, stored, step=7)


SMALL = Architecture(18, cifar_stem=True, proj_head_mode="nonlinear", num_proj_layers=2, num_classes=10)
"""The smallest network with every part."""


def restrict(network: Network, part: str) -> Network:
    """The network's encoder alone, or with its projection head."""
    architecture = without(network.architecture, "supervised")
    architecture = without(architecture, "projection") if part == "encoder" else architecture
    kept = {name: network.weights[name] for name in layers.weights(architecture)}
    return dataclasses.replace(network, architecture=architecture, weights=kept)


def largest_error(ends, expected) -> float:
    """Largest difference from a golden forward file, each endpoint relative to its largest magnitude."""
    worst = 0.0
    for key, value in expected.items():
        if key.split("/")[-1] in ("shape", "mean", "std", "config", "tf1_tf2_max_abs_diff", "tf1_tf2_keys"):
            continue
        got = ends[key.split("/")[0]]
        got = golden.sample(got) if key.endswith("/sample") else got
        worst = max(worst, float(np.abs(got - value).max() / np.abs(value).max()))
    return worst
