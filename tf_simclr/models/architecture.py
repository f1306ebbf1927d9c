"""What a SimCLR network is made of: numbers only, no framework.

References:
    He et al., Deep Residual Learning for Image Recognition, arXiv:1512.03385 (Table 1)
    Chen et al., SimCLR, arXiv:2002.05709 (Section 4); SimCLRv2, arXiv:2006.10029 (Section 2)
"""

from dataclasses import dataclass
from typing import Literal

from tf_simclr.errors import check, whole_number

BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
"""Residual blocks in each of the four groups, by depth (ResNet paper, Table 1; 200: arXiv:1603.05027)."""


MOST_CHANNELS = 1024
"""Of images; what has more is damaged."""


@dataclass(frozen=True)
class Architecture:
    """A ResNet encoder with its optional projection and supervised heads.

    Example:
        >>> Architecture(50, 2, proj_head_mode="nonlinear", num_proj_layers=3).proj_dims
        (4096, 4096, 128)

    Raises:
        InputError: a value is outside its range.
    """

    depth: int = 50
    """18, 34, 50, 101, 152 or 200."""
    width: int = 1
    """Channel multiplier: 1, 2, 3 or 4."""
    sk_ratio: float = 0.0
    """Selective kernels (arXiv:1903.06586) and ResNet-D if above 0; the official checkpoints use 0.0625."""
    se_ratio: float = 0.0
    """Squeeze and excitation if above 0; the reference uses 0.0625."""
    cifar_stem: bool = False
    """A 3×3 stride-1 stem without pooling, for images of at most 32 pixels."""
    proj_head_mode: Literal["none", "linear", "nonlinear"] = "none"
    """Projection head."""
    num_proj_layers: int = 0
    """Layers of the projection head: 0 with `none`, 1 with `linear`, at least 1 with `nonlinear`."""
    proj_out_dim: int = 128
    """Outputs of the projection head's last layer; its hidden layers are as wide as the features."""
    num_classes: int = 0
    """Outputs of the supervised head; 0: no such head."""
    ft_proj_selector: int = 0
    """The projection layer that feeds the supervised head; 0: the pooled features."""
    channels: int = 3
    """Of the images, which the first convolution takes."""

    def __post_init__(self) -> None:
        # Whole numbers come as such: True, 2.0 and "2" are refused, as they may come from a file by somebody else.
        for name in ("depth", "num_proj_layers", "proj_out_dim", "num_classes", "ft_proj_selector"):
            whole_number(getattr(self, name), name)
        for name, ratio in (("sk_ratio", self.sk_ratio), ("se_ratio", self.se_ratio)):
            number = isinstance(ratio, float | int) and not isinstance(ratio, bool)
            check(number, f"{name} must be a number", **{name: ratio})
            check(0 <= ratio <= 1, f"{name} must lie in [0, 1]", **{name: ratio})
        check(self.depth in BLOCKS, f"depth must be one of {', '.join(map(str, BLOCKS))}", depth=self.depth)
        integer = isinstance(self.width, int) and not isinstance(self.width, bool)
        check(integer and 1 <= self.width <= 4, "width must be the integer 1, 2, 3 or 4", width=self.width)
        check(self.sk_ratio == 0 or self.bottleneck, "sk_ratio must be 0 for depth 18 and 34", sk_ratio=self.sk_ratio)
        # A head that is not known allows no number of layers at all: (1, 0).
        least, most = {"none": (0, 0), "linear": (1, 1), "nonlinear": (1, 1000)}.get(self.proj_head_mode, (1, 0))
        check(least <= most, "proj_head_mode must be none, linear or nonlinear", proj_head_mode=self.proj_head_mode)
        rule = f"num_proj_layers does not fit proj_head_mode={self.proj_head_mode}"
        check(least <= self.num_proj_layers <= most, rule, num_proj_layers=self.num_proj_layers)
        check(self.proj_out_dim >= 1, "proj_out_dim must be at least 1", proj_out_dim=self.proj_out_dim)
        whole_number(self.channels, "channels", least=1, most=MOST_CHANNELS)
        check(self.num_classes >= 0, "num_classes must be at least 0", num_classes=self.num_classes)
        rule = f"ft_proj_selector must lie in 0..{self.num_proj_layers}"
        check(0 <= self.ft_proj_selector <= self.num_proj_layers, rule, ft_proj_selector=self.ft_proj_selector)

    @property
    def title(self) -> str:
        """What it is called.

        Example:
            >>> Architecture(50, 2).title
            'ResNet-50 (2x)'
        """
        return f"ResNet-{self.depth} ({self.width}x)"

    @property
    def bottleneck(self) -> bool:
        """Whether a block has three convolutions and an output four times as wide as its middle."""
        return self.depth >= 50

    @property
    def feature_dim(self) -> int:
        """Length of the pooled features."""
        # The last group has 8 times the stem's 64 channels, and a bottleneck block four times its middle's.
        return 64 * self.width * 8 * (4 if self.bottleneck else 1)

    @property
    def proj_dims(self) -> tuple[int, ...]:
        """Output length of each projection layer."""
        if self.num_proj_layers == 0:
            return ()
        # Hidden layers keep the width of the features, also in SimCLRv2's deeper heads (arXiv:2006.10029, Section 2).
        return (self.feature_dim,) * (self.num_proj_layers - 1) + (self.proj_out_dim,)


@dataclass(frozen=True)
class Own:
    """An encoder of another kind with its heads: numbers for people; what it is made of stands in Keras' own files.

    Attributes:
        encoder: how it was named, such as `mine:build`.
        feature_dim: length of its features.
        num_proj_layers: of the projection head; 0: there is none.
        num_classes: outputs of the supervised head; 0: there is none.
        ft_proj_selector: the projection layer that feeds the supervised head; 0: the features.
    """

    encoder: str
    feature_dim: int
    num_proj_layers: int = 0
    num_classes: int = 0
    ft_proj_selector: int = 0

    @property
    def title(self) -> str:
        """What it is called."""
        return f"the encoder {self.encoder} ({self.feature_dim} features)"
