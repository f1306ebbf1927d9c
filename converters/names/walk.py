"""The walk: every layer with weights of an architecture, in the order in which the reference creates them.

A weight's hub name is `layer/weight`, e.g. `group1_block1_conv3/kernel`; hub layout is TensorFlow's (convolution
kernels HWIO, dense kernels (in, out)).  Every naming is a function of these layers.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from tf_simclr.models.architecture import BLOCKS, Architecture

Shape = tuple[int, ...]
Part = Literal["encoder", "projection", "supervised"]

ENDPOINTS = (
    *("initial_conv", "initial_max_pool", "block_group1", "block_group2", "block_group3", "block_group4"),
    *("final_avg_pool", "proj_head_input", "proj_head_output", "logits_sup"),
)
"""What the official networks return, in the order of the computation; the heads' where there are heads."""
SK_MIN_DIM = 32
"""Least channels in a selective kernel's bottleneck (docs/official-code.md#selective-kernels)."""


@dataclass(frozen=True)
class Layer:
    """A layer with weights.

    Attributes:
        kind: Decides the weights' layout.
        role: What it is inside its block, stem or head: `conv1`, `shortcut_bn`, `sk_conv2`, `dense`, …
        weights: Its weights' names and shapes, in creation order.
        part: Encoder, projection head or supervised head.
        group: 1–4 for residual blocks; 0 elsewhere.
        block: Residual block within its group, or layer of the projection head, from 1; 0 elsewhere.
    """

    kind: Literal["conv", "bn", "dense"]
    role: str
    weights: tuple[tuple[str, Shape], ...]
    part: Part = "encoder"
    group: int = 0
    block: int = 0

    @property
    def name(self) -> str:
        """The Keras layer name.

        Example:
            >>> Layer("conv", "conv3", (), group=1, block=2).name
            'group1_block2_conv3'
        """
        if self.part == "supervised":
            return "logits_sup"
        if self.part == "projection":
            return f"proj{self.block}_{self.role}"
        return f"group{self.group}_block{self.block}_{self.role}" if self.group else f"stem_{self.role}"


@functools.cache
def walk(architecture: Architecture) -> tuple[Layer, ...]:
    """The layers of encoder, projection head and supervised head, in creation order."""
    heads = (*_projection_layers(architecture), *_supervised_layers(architecture))
    return (*_encoder_layers(architecture), *heads)


def weights(architecture: Architecture) -> dict[str, Shape]:
    """Hub name → shape of every weight, in creation order.

    Example:
        >>> weights(Architecture(depth=18))["stem_conv1/kernel"]
        (7, 7, 3, 64)
    """
    return {f"{layer.name}/{weight}": shape for layer in walk(architecture) for weight, shape in layer.weights}


def part_of(name: str) -> Part:
    """The part that the weight of this hub name belongs to."""
    if name.startswith("logits_sup/"):
        return "supervised"
    return "projection" if name.startswith("proj") else "encoder"


def _encoder_layers(architecture: Architecture) -> Iterator[Layer]:
    """Yields the stem's and the residual blocks' layers."""
    yield from _stem(architecture)
    # 64 channels a width leave the stem.
    inputs = 64 * architecture.width
    for group, blocks in enumerate(BLOCKS[architecture.depth], 1):
        filters = 64 * architecture.width * 2 ** (group - 1)
        for block in range(1, blocks + 1):
            yield from _block(architecture, group, block, inputs, filters)
            # What the next block takes: a bottleneck's output is four times as wide as its filters.
            inputs = filters * (4 if architecture.bottleneck else 1)


def _projection_layers(architecture: Architecture) -> Iterator[Layer]:
    """Yields the projection head's layers; the last normalisation has no `beta`.

    See docs/official-code.md#last-projection-layer.
    """
    inputs = architecture.feature_dim
    # No biases: the normalisation behind each dense layer shifts.
    for i, outputs in enumerate(architecture.proj_dims, 1):
        last = i == architecture.num_proj_layers
        yield Layer("dense", "dense", (("kernel", (inputs, outputs)),), "projection", block=i)
        yield _bn("bn", outputs, "projection", block=i, center=not last)
        inputs = outputs


def _supervised_layers(architecture: Architecture) -> Iterator[Layer]:
    """Yields the classifier, if there is one."""
    classes = architecture.num_classes
    if classes:
        # What the classifier reads: features, or the output of a projection layer.
        inputs = (architecture.feature_dim, *architecture.proj_dims)[architecture.ft_proj_selector]
        yield Layer("dense", "dense", (("kernel", (inputs, classes)), ("bias", (classes,))), "supervised")


def _stem(architecture: Architecture) -> Iterator[Layer]:
    filters = 64 * architecture.width
    if architecture.cifar_stem:
        convs = [(3, architecture.channels, filters)]
    elif architecture.sk_ratio > 0:  # ResNet-D: arXiv:1812.01187, Figure 2
        convs = [(3, architecture.channels, filters // 2), (3, filters // 2, filters // 2), (3, filters // 2, filters)]
    else:
        convs = [(7, architecture.channels, filters)]
    for i, (size, inputs, outputs) in enumerate(convs, 1):
        yield _conv(f"conv{i}", size, inputs, outputs)
        yield _bn(f"bn{i}", outputs)


def _block(architecture: Architecture, group: int, block: int, inputs: int, filters: int) -> Iterator[Layer]:
    """Shortcut first, then the main branch, then squeeze-excite: the reference's order of creation."""
    outputs = filters * (4 if architecture.bottleneck else 1)
    where: dict[str, Any] = {"group": group, "block": block}
    # The first block of every group: docs/official-code.md#first-shortcut.
    if block == 1:
        yield _conv("shortcut_conv", 1, inputs, outputs, **where)
        yield _bn("shortcut_bn", outputs, **where)
    branch = _bottleneck if architecture.bottleneck else _basic
    yield from branch(architecture, inputs, filters, where)
    if architecture.se_ratio > 0:  # from `filters`, not outputs: docs/official-code.md#squeeze-excite
        reduced = max(1, int(filters * architecture.se_ratio))
        yield _conv("se_conv1", 1, outputs, reduced, bias=True, **where)
        yield _conv("se_conv2", 1, reduced, outputs, bias=True, **where)


def _basic(architecture: Architecture, inputs: int, filters: int, where: dict[str, Any]) -> Iterator[Layer]:
    yield _conv("conv1", 3, inputs, filters, **where)
    yield _bn("bn1", filters, **where)
    yield _conv("conv2", 3, filters, filters, **where)
    yield _bn("bn2", filters, **where)


def _bottleneck(architecture: Architecture, inputs: int, filters: int, where: dict[str, Any]) -> Iterator[Layer]:
    # Two streams out of one convolution (docs/official-code.md#selective-kernels).
    streams = 2 if architecture.sk_ratio > 0 else 1
    yield _conv("conv1", 1, inputs, filters, **where)
    yield _bn("bn1", filters, **where)
    yield _conv("conv2", 3, filters, streams * filters, **where)
    yield _bn("bn2", streams * filters, **where)
    if architecture.sk_ratio > 0:
        mid = max(int(filters * architecture.sk_ratio), SK_MIN_DIM)
        yield _conv("sk_conv1", 1, filters, mid, **where)
        yield _bn("sk_bn1", mid, **where)
        yield _conv("sk_conv2", 1, mid, 2 * filters, **where)
    yield _conv("conv3", 1, filters, 4 * filters, **where)
    yield _bn("bn3", 4 * filters, **where)


def _conv(role: str, size: int, inputs: int, outputs: int, *, bias: bool = False, **where: Any) -> Layer:
    kernel = ("kernel", (size, size, inputs, outputs))
    return Layer("conv", role, (kernel, ("bias", (outputs,))) if bias else (kernel,), **where)


def _bn(role: str, size: int, part: Part = "encoder", *, center: bool = True, **where: Any) -> Layer:
    names = (
        ("gamma", "beta", "moving_mean", "moving_variance") if center else ("gamma", "moving_mean", "moving_variance")
    )
    return Layer("bn", role, tuple((name, (size,)) for name in names), part, **where)
