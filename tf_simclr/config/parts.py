"""Knobs that several commands share: data and encoder."""

from dataclasses import dataclass
from pathlib import Path

from tf_simclr.errors import check


class Checked:
    """End of the chain of `__post_init__`, by which each part of a configuration checks its own knobs."""

    def __post_init__(self): ...


@dataclass(frozen=True, kw_only=True)
class Data(Checked):
    """Where images come from."""

    dataset: str = "cifar10"
    """Any data set of TensorFlow Datasets, such as cifar10 or imagenet2012_subset/1pct."""
    data_dir: Path | None = None
    """Its folder, if not ~/tensorflow_datasets."""
    image_dir: Path | None = None
    """A folder of images instead; folders in it are classes.  Its splits are folders, too: --train_split train."""
    train_split: str = "train"
    """Split to train on, in TensorFlow Datasets' syntax: train, train[:10%], train+test."""
    download: bool = False
    """Whether to download a data set that is not there."""
    image_size: int = 224
    """Side of the network's input in pixels; up to 32 the CIFAR stem is used."""

    def __post_init__(self):
        super().__post_init__()
        check(self.image_size >= 8, "image_size must be at least 8", image_size=self.image_size)


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """The ResNet."""

    resnet_depth: int = 50
    """18, 34, 50, 101, 152 or 200."""
    width_multiplier: int = 1
    """1, 2, 3 or 4."""
    sk_ratio: float = 0.0
    """Selective kernels and ResNet-D above 0; SimCLRv2's best networks have 0.0625."""
    se_ratio: float = 0.0
    """Squeeze and excitation above 0, such as 0.0625."""
    batch_norm_decay: float = 0.9
    """Momentum of BatchNorm's moving statistics."""
    global_bn: bool = True
    """BatchNorm over all replicas (SimCLR, Section 2.2)."""
