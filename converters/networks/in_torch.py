"""The exact PyTorch twin of the Keras networks: TensorFlow's padding, selective kernels, squeeze-excite, heads.

State-dict names are the `twin` naming's, which equal torchvision's wherever torchvision has the layer.

References:
    google-research/simclr resnet.py, model_util.py (layer by layer); docs/official-code.md, "Network"
    SimCLRv2, arXiv:2006.10029, Section 2; SK networks, arXiv:1903.06586; ResNet-D, arXiv:1812.01187
"""

import itertools

import ml_dtypes
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from converters.layout import to_layout
from converters.names.network import Network
from converters.names.recognise import NAMINGS
from converters.names.walk import SK_MIN_DIM
from tf_simclr.models.architecture import BLOCKS, Architecture


class TensorFlowMaxPool2d(nn.Module):
    """TensorFlow's `SAME` 3×3 max-pool with stride 2, which the official weights were trained with.

    On even sizes it pads one row and column at the bottom and right only; `nn.MaxPool2d(3, 2, padding=1)` pads all
    sides and looks at other windows.  `model.maxpool = TensorFlowMaxPool2d()` makes torchvision's and timm's ResNet
    exact.
    """

    def forward(self, x: Tensor) -> Tensor:
        """`(n, c, h, w)` → `(n, c, ⌈h/2⌉, ⌈w/2⌉)`."""
        # An even size needs one more row, at the end; an odd size one at each end.
        top, left = x.shape[2] % 2, x.shape[3] % 2
        return F.max_pool2d(F.pad(x, (left, 1, top, 1), value=-torch.inf), 3, 2)


class _Downsample(nn.Sequential):
    """A projected shortcut, with ResNet-D's average pool before it where `pooled`; the pool takes no number."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, pooled: bool):
        super().__init__(_conv(inputs, outputs, 1, 1 if pooled else stride), nn.BatchNorm2d(outputs))
        self.stride = stride
        self.pooled = pooled

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(shortcut_pool(x, self.stride) if self.pooled else x)


class _Block(nn.Module):
    """What both kinds of residual block share: the shortcut and squeeze-excite."""

    def add_ends(
        self, inputs: int, outputs: int, *, filters: int, stride: int, project: bool, architecture: Architecture
    ) -> None:
        """Adds the projected shortcut and squeeze-excite, which reduces from `filters`, not from outputs.

        See docs/official-code.md#squeeze-excite.
        """
        # The pool takes no number in the list, so that names stay torchvision's.
        pooled = architecture.sk_ratio > 0
        self.downsample = _Downsample(inputs, outputs, stride=stride, pooled=pooled) if project else None
        self.se_conv1: nn.Conv2d | None = None
        if architecture.se_ratio > 0:
            reduced = max(1, int(filters * architecture.se_ratio))
            self.se_conv1, self.se_conv2 = nn.Conv2d(outputs, reduced, 1), nn.Conv2d(reduced, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(self.excite(self.branch(x)) + shortcut)

    def branch(self, x: Tensor) -> Tensor:
        """The residual branch, up to its last normalisation."""
        raise NotImplementedError

    def excite(self, x: Tensor) -> Tensor:
        """Scales channels by what squeeze-excite makes of their means."""
        if self.se_conv1 is None:
            return x
        # (n, c, 1, 1) → fewer channels → (n, c, 1, 1) between 0 and 1.
        squeezed = F.relu(self.se_conv1(x.mean((2, 3), keepdim=True)))
        return torch.sigmoid(self.se_conv2(squeezed)) * x


class _BasicBlock(_Block):
    """Two 3×3 convolutions; the first shortcut of every group is projected, also in group 1."""

    def __init__(self, inputs: int, filters: int, *, stride: int, project: bool, architecture: Architecture):
        super().__init__()
        self.add_ends(inputs, filters, filters=filters, stride=stride, project=project, architecture=architecture)
        self.conv1, self.bn1 = _conv(inputs, filters, 3, stride), nn.BatchNorm2d(filters)
        self.conv2, self.bn2 = _conv(filters, filters, 3), nn.BatchNorm2d(filters)

    def branch(self, x: Tensor) -> Tensor:
        """The residual branch, up to its last normalisation."""
        x = F.relu(self.bn1(self.conv1(x)))
        return self.bn2(self.conv2(x))


class _BottleneckBlock(_Block):
    """1×1, 3×3 and 1×1 convolutions; with `sk_ratio` the middle one is a selective kernel."""

    def __init__(self, inputs: int, filters: int, *, stride: int, project: bool, architecture: Architecture):
        super().__init__()
        outputs, streams = 4 * filters, 2 if architecture.sk_ratio > 0 else 1
        self.add_ends(inputs, outputs, filters=filters, stride=stride, project=project, architecture=architecture)
        self.conv1, self.bn1 = _conv(inputs, filters, 1), nn.BatchNorm2d(filters)
        self.conv2, self.bn2 = _conv(filters, streams * filters, 3, stride), nn.BatchNorm2d(streams * filters)
        self.sk_conv1: nn.Conv2d | None = None
        if architecture.sk_ratio > 0:
            mid = max(int(filters * architecture.sk_ratio), SK_MIN_DIM)
            self.sk_conv1, self.sk_bn1 = _conv(filters, mid, 1), nn.BatchNorm2d(mid)
            self.sk_conv2 = _conv(mid, 2 * filters, 1)
        self.conv3, self.bn3 = _conv(filters, outputs, 1), nn.BatchNorm2d(outputs)

    def branch(self, x: Tensor) -> Tensor:
        """The residual branch, up to its last normalisation."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return self.bn3(self.conv3(self.select(x)))

    def select(self, x: Tensor) -> Tensor:
        """Mixes the two halves of the channels, `(n, 2c, h, w)` → `(n, c, h, w)`; without selective kernels `x`."""
        if self.sk_conv1 is None:
            return x
        # (2, n, c, h, w)
        # Halves of the channels: the first convolution's order, as in the Keras network.
        streams = torch.stack(x.chunk(2, dim=1))
        mixing = streams.sum(0).mean((2, 3), keepdim=True)
        mixing = self.sk_conv2(F.relu(self.sk_bn1(self.sk_conv1(mixing))))
        # (n, 2c, 1, 1) → (2, n, c, 1, 1), which sum to one over the two streams
        mixing = torch.stack(mixing.chunk(2, dim=1)).softmax(0)
        return (streams * mixing).sum(0)


class _ProjectionLayer(nn.Module):
    """A linear layer and its normalisation; the last one's only scales.

    See docs/official-code.md#last-projection-layer.
    """

    def __init__(self, inputs: int, outputs: int, *, last: bool):
        super().__init__()
        self.dense = nn.Linear(inputs, outputs, bias=False)
        self.bn = nn.BatchNorm1d(outputs)
        self.last = last
        if last:
            self.bn.register_parameter("bias", None)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.dense(x))
        return x if self.last else F.relu(x)


class TwinResNet(nn.Module):
    """Encoder and heads of one architecture.

    Attributes:
        architecture: What was built.
        ft_proj_selector: Buffer: the projection layer that feeds the classifier; only where there are both heads.
    """

    ft_proj_selector: Tensor

    def __init__(self, architecture: Architecture):
        super().__init__()
        self.architecture = architecture
        self._add_stem(architecture)
        inputs = 64 * architecture.width
        for group, blocks in enumerate(BLOCKS[architecture.depth], 1):
            filters = 64 * architecture.width * 2 ** (group - 1)
            self.add_module(f"layer{group}", _group(architecture, group, blocks, inputs, filters))
            inputs = filters * (4 if architecture.bottleneck else 1)
        self._add_heads(architecture)

    def _add_stem(self, architecture: Architecture) -> None:
        filters, channels = 64 * architecture.width, architecture.channels
        self.deep_stem = architecture.sk_ratio > 0 and not architecture.cifar_stem
        if self.deep_stem:
            half = filters // 2
            self.conv1, self.bn1 = _conv(channels, half, 3, 2), nn.BatchNorm2d(half)
            self.conv2, self.bn2 = _conv(half, half, 3), nn.BatchNorm2d(half)
            self.conv3, self.bn3 = _conv(half, filters, 3), nn.BatchNorm2d(filters)
        else:
            self.conv1 = _conv(channels, filters, 3) if architecture.cifar_stem else _conv(channels, filters, 7, 2)
            self.bn1 = nn.BatchNorm2d(filters)
        self.maxpool = nn.Identity() if architecture.cifar_stem else TensorFlowMaxPool2d()

    def _add_heads(self, architecture: Architecture) -> None:
        dims = (architecture.feature_dim, *architecture.proj_dims)
        # The projection head's last layer only scales: no bias.
        last = architecture.num_proj_layers - 1
        pairs = enumerate(itertools.pairwise(dims))
        self.projection_head = nn.ModuleList(_ProjectionLayer(a, b, last=i == last) for i, (a, b) in pairs)
        self.fc = None
        if architecture.num_classes:
            self.fc = nn.Linear(dims[architecture.ft_proj_selector], architecture.num_classes)
        # The shapes do not tell what the classifier reads (docs/official-code.md#classifier-input): it travels along.
        if architecture.num_classes and architecture.num_proj_layers:
            self.register_buffer("ft_proj_selector", torch.tensor(architecture.ft_proj_selector))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Computes every endpoint of images `(n, 3, h, w)` in [0, 1], by the official SavedModels' names."""
        ends = self._stem(images)
        x = ends["initial_max_pool"]
        for i in range(1, 5):
            x = ends[f"block_group{i}"] = getattr(self, f"layer{i}")(x)
        # (n, c, h, w) → (n, c)
        features = ends["final_avg_pool"] = x.mean((2, 3))
        projections = [features]
        for layer in self.projection_head:
            projections.append(layer(projections[-1]))
        if len(projections) > 1:
            ends |= {f"proj_{i}": z for i, z in enumerate(projections) if i}
            ends |= {"proj_head_input": features, "proj_head_output": projections[-1]}
        if self.fc is not None:
            # A buffer, as the file carries it; the shape alone does not tell.
            selector = int(self.ft_proj_selector) if len(projections) > 1 else 0
            ends["logits_sup"] = self.fc(projections[selector])
        return ends

    def _stem(self, x: Tensor) -> dict[str, Tensor]:
        x = self.conv1(x)
        if self.deep_stem:
            x = self.conv2(F.relu(self.bn1(x)))
            x = self.conv3(F.relu(self.bn2(x)))
        normalise = self.bn3 if self.deep_stem else self.bn1
        return {"initial_conv": x, "initial_max_pool": self.maxpool(F.relu(normalise(x)))}


def _group(architecture: Architecture, group: int, blocks: int, inputs: int, filters: int) -> nn.Sequential:
    # Only the first block of a group projects; in group 1 without a stride.
    block = _BottleneckBlock if architecture.bottleneck else _BasicBlock
    first = block(inputs, filters, stride=1 if group == 1 else 2, project=True, architecture=architecture)
    inputs = filters * (4 if architecture.bottleneck else 1)
    others = (block(inputs, filters, stride=1, project=False, architecture=architecture) for _ in range(1, blocks))
    return nn.Sequential(first, *others)


def _conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    """A convolution padded by its kernel alone, also with stride 2 (docs/official-code.md#convolution-padding)."""
    return nn.Conv2d(inputs, outputs, size, stride, padding=(size - 1) // 2, bias=False)


def shortcut_pool(x: Tensor, stride: int) -> Tensor:
    """ResNet-D's 2×2 average, `(n, c, h, w)` → `(n, c, ⌈h/stride⌉, ⌈w/stride⌉)`.

    Padding counts with stride 2 and does not count with stride 1 (docs/official-code.md#resnet-d-average-pool).
    """
    if stride > 1:
        return F.avg_pool2d(F.pad(x, (0, 1, 0, 1)), 2, stride)
    # Repeating the edge is leaving it out of the mean: (a + a) / 2 = a.
    return F.avg_pool2d(F.pad(x, (0, 1, 0, 1), mode="replicate"), 2, 1)


def to_torch(array: np.ndarray) -> torch.Tensor:
    """An array as a tensor, which shares its memory where that can be written to; bfloat16 is `ml_dtypes`' in NumPy."""
    array = np.require(array, requirements=("C", "W"))
    # bfloat16 is no NumPy type: its 16 bits go over as they are.
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def build_twin(network: Network, *, dtype: torch.dtype = torch.float32) -> TwinResNet:
    """The twin of a network with its weights, in evaluation mode.

    Args:
        network: Its weights are read one after the other.
        dtype: Of the twin; weights are cast to it.
    """
    with torch.device("meta"):  # without random starting values, which take longer than the conversion
        twin = TwinResNet(network.architecture)
    twin = twin.to(dtype).to_empty(device="cpu")
    state = dict(twin.named_parameters()) | dict(twin.named_buffers())
    with torch.no_grad():
        # Every weight by the table, and the counters and the selector by number.
        for hub, key in NAMINGS["twin"].table(network.architecture).items():
            state[key].copy_(to_torch(to_layout(network[hub], torch=True)))
        for key, number in NAMINGS["twin"].extras(network.architecture).items():
            state[key].fill_(number)
    return twin.eval()
