"""Rows of the writers' table: what PyTorch's users write.

Keys are built here, from torchvision's names alone; nothing of `converters` lays the tensors out.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.converters import networks
from tests.converters.writers import Made, Row
from tf_simclr.models.architecture import Architecture

ENCODER = Architecture(18, cifar_stem=True)
"""The smallest encoder; its files have 45 MB."""


@functools.cache
def state() -> dict[str, Any]:
    """torchvision's `state_dict` of the small encoder: key → tensor."""
    import torch

    return {
        key: torch.from_numpy(np.ascontiguousarray(array.transpose(3, 2, 0, 1) if array.ndim == 4 else array))
        for name, array in networks.arrays(ENCODER).items()
        for key in [torchvision_key(name)]
    } | {key: torch.tensor(1) for key in counters()}


def torchvision_key(name: str) -> str:
    """torchvision's key of a weight of a basic-block encoder.

    Example:
        >>> torchvision_key("group2_block1_shortcut_bn/moving_mean"), torchvision_key("stem_conv1/kernel")
        ('layer2.0.downsample.1.running_mean', 'conv1.weight')
    """
    layer, weight = name.split("/")
    leaf = {"kernel": "weight", "gamma": "weight", "beta": "bias", "bias": "bias"}.get(weight) or weight.replace(
        "moving_variance", "running_var"
    ).replace("moving_mean", "running_mean")
    if layer.startswith("stem_"):
        return f"{layer.removeprefix('stem_')}.{leaf}"
    group, block, role = layer.removeprefix("group").replace("block", "").split("_", 2)
    role = {"shortcut_conv": "downsample.0", "shortcut_bn": "downsample.1"}.get(role, role)
    return f"layer{group}.{int(block) - 1}.{role}.{leaf}"


def counters() -> list[str]:
    """PyTorch's `num_batches_tracked` of every BatchNorm."""
    means = (torchvision_key(name) for name in networks.arrays(ENCODER) if name.endswith("/moving_mean"))
    return [key.replace("running_mean", "num_batches_tracked") for key in means]


def saved(name: str, content: Callable[[dict], Any], **options: Any) -> Callable[[Path], Made]:
    """A maker: `torch.save(content(state))`."""

    def make(folder: Path) -> Made:
        import torch

        torch.save(content(dict(state())), folder / name, **options)
        return Made(folder / name, networks.arrays(ENCODER))

    return make


plain = saved("resnet.pth", lambda state: state)

ROWS = [
    Row("torch.save", "state_dict of torchvision's ResNet", plain, needs=("torch",), quick=True),
    Row(
        "torch.save, format before 1.6",
        "state_dict",
        saved("resnet.pth", lambda state: state, _use_new_zipfile_serialization=False),
        needs=("torch",),
    ),
    Row(
        "MoCo v2 (DataParallel)",
        "module.encoder_q, module.encoder_k equal",
        saved(
            "moco.pth.tar",
            lambda state: {
                "epoch": 200,
                "arch": "resnet18",
                "state_dict": {f"module.encoder_{x}.{k}": v for x in "qk" for k, v in state.items()},
            },
        ),
        needs=("torch",),
    ),
]
