"""The reference network's forward pass in NumPy, in inference mode: what a conversion is checked against.

It shares nothing with the Keras and PyTorch networks but the names of weights, and needs neither framework.

References:
    google-research/simclr resnet.py, model_util.py; docs/official-code.md, "Network"
"""

from collections.abc import Callable

import numpy as np

from tf_simclr.models.architecture import BLOCKS, Architecture

_EPSILON = 1e-5
TORCHVISION = "torchvision_avg_pool"
"""Features as torchvision's model computes them from the same weights: its max-pool looks at other windows."""

_Array = np.ndarray
_Read = Callable[[str], _Array]
"""Hub name → weight."""


def endpoints(
    architecture: Architecture, read: _Read, images: _Array, torchvision_pool: bool = False
) -> dict[str, _Array]:
    """Computes every endpoint, by the official SavedModels' names.

    Args:
        architecture: Encoder and heads.
        read: Gives each weight once.
        images: `(n, h, w, 3)` in [0, 1]; their dtype is what is computed in.
        torchvision_pool: Adds `TORCHVISION`, to tell what another max-pool does to the features.

    Returns:
        Endpoint name → array, NHWC.
    """
    # The batch doubles where torchvision's pool is asked for: rows up to `count` are the network's own.
    count = len(images)
    ends, x = _stem(architecture, read, images)
    if torchvision_pool:  # both go through the network as one batch, as reading the weights is what takes time
        x = np.concatenate([_max_pool(x), _max_pool(x, at_both_ends=True)])
    elif not architecture.cifar_stem:
        x = _max_pool(x)
    ends["initial_max_pool"] = x[:count]
    for group, blocks in enumerate(BLOCKS[architecture.depth], 1):
        for block in range(1, blocks + 1):
            x = _block(architecture, read, x, group, block)
        ends[f"block_group{group}"] = x[:count]
    # (n, h, w, c) → (n, c); twice as many rows where both pools went through
    features = x.mean((1, 2))
    hidden = [features[:count]]
    for i in range(1, architecture.num_proj_layers + 1):
        # (n, in) · (in, out) → (n, out)
        z = _norm(
            hidden[-1] @ _like(read(f"proj{i}_dense/kernel"), x), read, f"proj{i}_bn", i < architecture.num_proj_layers
        )
        hidden.append(np.maximum(z, 0) if i < architecture.num_proj_layers else z)
    other = {TORCHVISION: features[count:]} if torchvision_pool else {}
    return ends | _head_endpoints(architecture, read, hidden) | other


def _head_endpoints(architecture: Architecture, read: _Read, hidden: list[_Array]) -> dict[str, _Array]:
    ends = {"final_avg_pool": hidden[0]}
    if len(hidden) > 1:
        ends |= {f"proj_{i}": z for i, z in enumerate(hidden) if i}
        ends |= {"proj_head_input": hidden[0], "proj_head_output": hidden[-1]}
    if architecture.num_classes:
        fed = hidden[architecture.ft_proj_selector]
        ends["logits_sup"] = fed @ _like(read("logits_sup/kernel"), fed) + _like(read("logits_sup/bias"), fed)
    return ends


def _stem(architecture: Architecture, read: _Read, x: _Array) -> tuple[dict[str, _Array], _Array]:
    """Up to the max-pool."""
    deep = architecture.sk_ratio > 0 and not architecture.cifar_stem
    for i in (1, 2) if deep else ():
        x = _relu_norm(_conv(x, read(f"stem_conv{i}/kernel"), 2 if i == 1 else 1), read, f"stem_bn{i}")
    last = 3 if deep else 1
    first = _conv(x, read(f"stem_conv{last}/kernel"), 1 if deep or architecture.cifar_stem else 2)
    return {"initial_conv": first}, _relu_norm(first, read, f"stem_bn{last}")


def _block(architecture: Architecture, read: _Read, x: _Array, group: int, block: int) -> _Array:
    name = f"group{group}_block{block}_"
    stride = 2 if block == 1 and group > 1 else 1
    # As the reference: the first block of a group projects, with a stride from the second group on.
    shortcut = _shortcut(architecture, read, x, name, stride) if block == 1 else x
    if architecture.bottleneck:
        x = _relu_norm(_conv(x, read(name + "conv1/kernel")), read, name + "bn1")
        x = _relu_norm(_conv(x, read(name + "conv2/kernel"), stride), read, name + "bn2")
        x = _select(read, x, name) if architecture.sk_ratio > 0 else x
        x = _norm(_conv(x, read(name + "conv3/kernel")), read, name + "bn3")
    else:
        x = _relu_norm(_conv(x, read(name + "conv1/kernel"), stride), read, name + "bn1")
        x = _norm(_conv(x, read(name + "conv2/kernel")), read, name + "bn2")
    x = _excite(read, x, name) if architecture.se_ratio > 0 else x
    return np.maximum(x + shortcut, 0)


def _shortcut(architecture: Architecture, read: _Read, x: _Array, name: str, stride: int) -> _Array:
    if architecture.sk_ratio > 0:
        x, stride = _average_pool(x, stride), 1
    return _norm(_conv(x, read(name + "shortcut_conv/kernel"), stride), read, name + "shortcut_bn")


def _select(read: _Read, x: _Array, name: str) -> _Array:
    """Mixes the two halves of the channels by a softmax over the two."""
    # (n, h, w, 2c) → two streams of (n, h, w, c)
    a, b = np.split(x, 2, axis=-1)
    # (n, h, w, c) → (n, 1, 1, c)
    pooled = (a + b).mean((1, 2), keepdims=True)
    mixing = _relu_norm(_conv(pooled, read(name + "sk_conv1/kernel")), read, name + "sk_bn1")
    of_a, of_b = np.split(_conv(mixing, read(name + "sk_conv2/kernel")), 2, axis=-1)
    # A softmax over two is the sigmoid of their difference.
    share = _sigmoid(of_a - of_b)
    return a * share + b * (1 - share)


def _excite(read: _Read, x: _Array, name: str) -> _Array:
    squeezed = x.mean((1, 2), keepdims=True)
    squeezed = _conv(squeezed, read(name + "se_conv1/kernel")) + _like(read(name + "se_conv1/bias"), x)
    expanded = _conv(np.maximum(squeezed, 0), read(name + "se_conv2/kernel")) + _like(read(name + "se_conv2/bias"), x)
    return _sigmoid(expanded) * x


def _sigmoid(x: _Array) -> _Array:
    # By tanh, which overflows nowhere.
    return 0.5 * (1 + np.tanh(0.5 * x))


def _like(weight: _Array, x: _Array) -> _Array:
    return weight.astype(x.dtype, copy=False)


def _conv(x: _Array, kernel: _Array, stride: int = 1) -> _Array:
    """Padding by the kernel's size alone, also with a stride (docs/official-code.md#convolution-padding)."""
    kernel, size = _like(kernel, x), kernel.shape[0]
    before = (size - 1) // 2
    # Padding size - 1 in all: ⌊(n - 1) / stride⌋ + 1 outputs.
    height, width = ((n + size - 1 - size) // stride + 1 for n in x.shape[1:3])
    padded = np.pad(x, ((0, 0), (before, size - 1 - before), (before, size - 1 - before), (0, 0)))
    out = np.zeros((x.shape[0] * height * width, kernel.shape[3]), x.dtype)
    for i in range(size):
        for j in range(size):
            patch = padded[:, i : i + height * stride : stride, j : j + width * stride : stride]
            # (n·h·w, in) @ (in, out), one of the k × k shifts at a time: no im2col, whose memory is k² times as much.
            out += patch.reshape(-1, kernel.shape[2]) @ kernel[i, j]
    return out.reshape(x.shape[0], height, width, -1)


def _norm(x: _Array, read: _Read, name: str, center: bool = True) -> _Array:
    # One factor and one summand a channel: x γ / √(σ² + ε) + (β - μ γ / √(σ² + ε)).
    scale = _like(read(name + "/gamma"), x) / np.sqrt(
        _like(read(name + "/moving_variance"), x) + x.dtype.type(_EPSILON)
    )
    shift = -_like(read(name + "/moving_mean"), x) * scale
    return x * scale + (shift + _like(read(name + "/beta"), x) if center else shift)


def _relu_norm(x: _Array, read: _Read, name: str) -> _Array:
    return np.maximum(_norm(x, read, name), 0)


def _max_pool(x: _Array, at_both_ends: bool = False) -> _Array:
    """TensorFlow's SAME 3×3 pool with stride 2: even sizes are padded at the end only, or at both.

    See docs/official-code.md#max-pool-padding.
    """
    height, width = -(-x.shape[1] // 2), -(-x.shape[2] // 2)
    # TensorFlow: of an even size nothing in front, one row behind; of an odd one one each.
    pads = [(1 if at_both_ends else n % 2, 1) for n in x.shape[1:3]]
    padded = np.pad(x, ((0, 0), *pads, (0, 0)), constant_values=-np.inf)
    # Nine shifted views (n, ⌈h/2⌉, ⌈w/2⌉, c), and the largest of each place.
    windows = [padded[:, i : i + 2 * height : 2, j : j + 2 * width : 2] for i in range(3) for j in range(3)]
    return np.maximum.reduce([w[:, :height, :width] for w in windows])


def _average_pool(x: _Array, stride: int) -> _Array:
    """ResNet-D's 2×2 pool: padding counts with stride 2 alone (docs/official-code.md#resnet-d-average-pool)."""
    height, width = -(-x.shape[1] // stride), -(-x.shape[2] // stride)
    # A channel of ones is pooled along: its sum counts how many values of a window are no padding.
    padded = np.pad(np.concatenate([x, np.ones_like(x[..., :1])], -1), ((0, 0), (0, 1), (0, 1), (0, 0)))
    windows = [
        padded[:, i : i + height * stride : stride, j : j + width * stride : stride] for i in (0, 1) for j in (0, 1)
    ]
    total = windows[0] + windows[1] + windows[2] + windows[3]
    return total[..., :-1] / (total[..., -1:] if stride == 1 else x.dtype.type(4))
