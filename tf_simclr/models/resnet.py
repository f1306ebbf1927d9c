"""ResNet encoders of SimCLR v1 and v2, the projection head and the supervised head.

Each function takes and returns `x`; every layer with weights has a name, and the names are an interface.

References:
    He et al., Deep Residual Learning for Image Recognition, arXiv:1512.03385
    He et al., Bag of Tricks (ResNet-D), arXiv:1812.01187
    Li et al., Selective Kernel Networks, arXiv:1903.06586
    Hu et al., Squeeze-and-Excitation Networks, arXiv:1709.01507
    Chen et al., SimCLR, arXiv:2002.05709, Section 2.1 and 4.2: the heads
    Chen et al., Big Self-Supervised Models are Strong Semi-Supervised Learners, arXiv:2006.10029
"""

from dataclasses import dataclass

import keras
from keras import layers, ops

from tf_simclr.models.architecture import BLOCKS, Architecture
from tf_simclr.models.normalization import Normalization

_LAST = {"data_format": "channels_last"}
"""Images are (n, h, w, c) everywhere in this package, whatever a user's keras.json says."""


def resnet(
    depth: int,
    width: int = 1,
    sk_ratio: float = 0.0,
    se_ratio: float = 0.0,
    cifar_stem: bool = False,
    *,
    channels: int = 3,
    normalization: Normalization = Normalization(),
    name: str = "encoder",
) -> keras.Model:
    """Builds an encoder: images `(n, h, w, 3)` in [0, 1] to features `h` `(n, 64 * width * 8 [* 4])`.

    Height and width are free, at least 32 pixels each; the same model takes any of them.  The features of depth 50
    and above are four times as wide.  Inputs are RGB without mean or standard deviation taken off.

    Args:
        depth: 18, 34, 50, 101, 152 or 200.
        width: channel multiplier, the integer 1, 2, 3 or 4.
        sk_ratio: above 0: selective kernels and a ResNet-D stem and shortcuts (SimCLRv2 uses 0.0625; depth >= 50).
        se_ratio: above 0: squeeze and excitation.
        cifar_stem: a 3x3 stride-1 stem without pooling, for images of about 32 pixels (SimCLR, Appendix B.9).
        channels: of the images; three are RGB.
        normalization: momentum and scope of the BatchNorm layers.
        name: the model's name.

    Raises:
        InputError: a value is outside its range.

    Example:
        >>> resnet(18, cifar_stem=True).output_shape
        (None, 512)
    """
    architecture = Architecture(depth, width, sk_ratio, se_ratio, cifar_stem, channels=channels)
    parts = _Parts(normalization)
    # images (n, h, w, 3) → stem (n, h/4, w/4, 64·width), of CIFAR (n, h, w, …) → four groups, from the second on each
    # of half the height and width and twice the channels → the mean over positions, (n, d).
    images = x = keras.Input((None, None, channels), name="images")
    x = parts.stem(x, architecture)
    for group, blocks in enumerate(BLOCKS[depth], 1):
        for block in range(1, blocks + 1):
            # A group's first block has the stride and the projection of its shortcut; the others keep the shape.
            x = parts.block(x, architecture, group, block)
    return keras.Model(images, layers.GlobalAveragePooling2D(name="final_avg_pool", **_LAST)(x), name=name)


@dataclass(frozen=True)
class _Parts:
    """The parts of a ResNet, all with one kind of normalisation."""

    normalization: Normalization

    def stem(self, x, architecture: Architecture):
        """Images to the input of group 1: one convolution, or three in ResNet-D."""
        filters = 64 * architecture.width
        # 3×3, no stride and no pooling: 32 px are small enough (SimCLR, Appendix B.9).
        if architecture.cifar_stem:
            return self.conv_bn(x, filters, "stem_", 1, size=3)
        # ResNet-D: three 3×3 convolutions for the 7×7 one; the first halves the size (arXiv:1812.01187, Section 4.2).
        if architecture.sk_ratio:
            x = self.conv_bn(x, filters // 2, "stem_", 1, size=3, stride=2)
            x = self.conv_bn(x, filters // 2, "stem_", 2, size=3)
            x = self.conv_bn(x, filters, "stem_", 3, size=3)
        else:
            x = self.conv_bn(x, filters, "stem_", 1, size=7, stride=2)
        # SAME pads an even input at the bottom and right only; torch's padding=1 sees other windows.
        return layers.MaxPooling2D(3, 2, padding="same", name="stem_pool", **_LAST)(x)

    def block(self, x, architecture: Architecture, group: int, block: int):
        """A residual block; the first one of a group projects its shortcut, in group 1 too."""
        # 64, 128, 256, 512, times the width.
        filters = 64 * architecture.width * 2 ** (group - 1)
        stride = 2 if block == 1 and group > 1 else 1
        name = f"group{group}_block{block}_"
        out = filters * (4 if architecture.bottleneck else 1)
        # The order of these layers is the order of TF1's variables, by which its checkpoints are numbered.
        shortcut = self.projection(x, out, stride, architecture.sk_ratio, name) if block == 1 else x
        x = self.residual(x, filters, stride, architecture, name)
        if architecture.se_ratio:
            # Of the block's middle width, as upstream; the scaling itself is of all channels of the output.
            x = _squeeze_excite(x, int(filters * architecture.se_ratio), name)
        x = layers.Add(name=name + "add")([shortcut, x])
        return layers.ReLU(name=name + "out")(x)

    def residual(self, x, filters: int, stride: int, architecture: Architecture, name: str):
        """The main branch: two 3x3 convolutions, or 1x1, 3x3 and 1x1."""
        if not architecture.bottleneck:
            x = self.conv_bn(x, filters, name, 1, size=3, stride=stride)
            return self.conv_bn(x, filters, name, 2, size=3, last=True)
        # 1×1 to the middle's width, 3×3, 1×1 to four times that: the stride is in the 3×3 one, not in the first.
        x = self.conv_bn(x, filters, name, 1)
        if architecture.sk_ratio:
            # Twice the channels: two streams, of which `selective_kernel` makes one.
            x = self.conv_bn(x, 2 * filters, name, 2, size=3, stride=stride)
            x = self.selective_kernel(x, filters, architecture.sk_ratio, name)
        else:
            x = self.conv_bn(x, filters, name, 2, size=3, stride=stride)
        return self.conv_bn(x, 4 * filters, name, 3, last=True)

    def projection(self, x, filters: int, stride: int, sk_ratio: float, name: str):
        """The shortcut of a group's first block; ResNet-D averages before it projects."""
        if sk_ratio:
            # The average takes the stride, so that no position is thrown away.
            x, stride = _average_pool(x, stride, name), 1
        x = convolution(x, filters, name + "shortcut_conv", stride=stride)
        return self.normalization.layer(name + "shortcut_bn")(x)

    def selective_kernel(self, x, filters: int, ratio: float, name: str, min_dim: int = 32):
        """Mixes two streams of channels with softmax weights computed from their pooled sum."""
        # x (n, h, w, 2·filters): the halves of one convolution are the streams
        # (docs/official-code.md#selective-kernels).
        mix = layers.GlobalAveragePooling2D(keepdims=True, name=name + "sk_pool", **_LAST)(x)  # (n, 1, 1, 2·filters)
        mix = ops.sum(ops.reshape(mix, (-1, 1, 1, 2, filters)), axis=3)  # of both streams: (n, 1, 1, filters)
        # At least 32 channels between the two convolutions (arXiv:1903.06586, Section 3.1).
        mix = convolution(mix, max(int(filters * ratio), min_dim), name + "sk_conv1")
        mix = layers.ReLU(name=name + "sk_relu")(self.normalization.layer(name + "sk_bn1")(mix))
        mix = convolution(mix, 2 * filters, name + "sk_conv2")
        # A softmax over the two streams of each channel, and back to the layout of x.
        mix = ops.reshape(ops.softmax(ops.reshape(mix, (-1, 1, 1, 2, filters)), axis=3), (-1, 1, 1, 2 * filters))
        # The weights of both streams sum to 1 for each channel: (n, h, w, 2·f) → two of (n, h, w, f) → their sum.
        first, second = ops.split(x * mix, 2, axis=-1)
        return first + second

    def conv_bn(self, x, filters: int, name: str, i: int, *, size: int = 1, stride: int = 1, last: bool = False):
        """Convolution, BatchNorm and ReLU; a branch's last BatchNorm starts at zero and has no ReLU (v2, Table B.1)."""
        x = convolution(x, filters, f"{name}conv{i}", size=size, stride=stride)
        x = self.normalization.layer(f"{name}bn{i}", zero=last)(x)
        return x if last else layers.ReLU(name=f"{name}relu{i}")(x)


def convolution(x, filters: int, name: str, *, size: int = 1, stride: int = 1):
    """A convolution without bias that pads by its kernel alone, whatever the input's size."""
    padding = "same"
    # Keras' and TensorFlow's SAME pads by the input's size; upstream pads by the kernel first and then not at all.
    if stride > 1:
        padding = "valid"
        if size > 1:
            x = layers.ZeroPadding2D((size - 1) // 2, name=name + "_pad", **_LAST)(x)
    return layers.Conv2D(
        filters,
        size,
        stride,
        padding=padding,
        use_bias=False,
        kernel_initializer="variance_scaling",
        name=name,
        **_LAST,
    )(x)


def _average_pool(x, stride: int, name: str):
    """ResNet-D's 2x2 average: the zeros of a stride-2 border count, those of a stride-1 border do not."""
    padding = "same"
    if stride > 1:
        # Upstream pads the lower and right border itself, and its zeros count in the mean.
        x, padding = layers.ZeroPadding2D(((0, 1), (0, 1)), name=name + "shortcut_pad", **_LAST)(x), "valid"
    return layers.AveragePooling2D(2, stride, padding=padding, name=name + "shortcut_pool", **_LAST)(x)


def _squeeze_excite(x, filters: int, name: str):
    """Scales each channel by a sigmoid of the pooled channels; both convolutions have a bias."""
    scale = layers.GlobalAveragePooling2D(keepdims=True, name=name + "se_pool", **_LAST)(x)
    # Down to a fraction of the channels with ReLU, up to all of them with a sigmoid, (n, 1, 1, c).
    for i, (outputs, activation) in enumerate(((max(1, filters), "relu"), (x.shape[-1], "sigmoid")), 1):
        scale = layers.Conv2D(
            outputs, 1, activation=activation, kernel_initializer="variance_scaling", name=f"{name}se_conv{i}", **_LAST
        )(scale)
    return layers.Multiply(name=name + "se_scale")([x, scale])


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
        # The last layer has 128 outputs, no ReLU, and a BatchNorm without beta, as upstream.
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
