"""Knobs of the commands that test features."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tf_simclr.config.optimization import Optimization
from tf_simclr.config.parts import Checked, Data
from tf_simclr.errors import check


@dataclass(frozen=True, kw_only=True)
class Probing(Checked):
    """Which features, and how they are tested."""

    checkpoint: Path
    """A run folder or a checkpoint of any kind that converters reads."""
    ema: bool = False
    """Take the moving averages, where a checkpoint has them."""
    endpoint: str = "final_avg_pool"
    """Features to test: final_avg_pool, or proj_1, proj_2 … of the projection head."""
    eval_batch_size: int = 256
    """Images at a time."""
    l2_strengths: int = 45
    """Strengths from 1e-6 to 1e5 to choose from, evenly spaced in their logarithm; the paper has 45."""
    cache_features: bool = True
    """Keep the features on disk, so that the next probe of the same network on the same images takes seconds."""
    cache_dir: Path | None = None
    """Where features are kept, if not ~/.cache/tf_simclr/features; the folder may be removed at any time."""
    seed: int = 0
    """Of the validation split, the random weights, the order of the images and the intervals."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("eval_batch_size", "l2_strengths"):
            check(getattr(self, name) >= 1, f"{name} must be at least 1", **{name: getattr(self, name)})


@dataclass(frozen=True, kw_only=True)
class LinearEval(Data, Optimization, Probing):
    """Tests frozen features by logistic regression, nearest neighbours or a classifier trained by SGD."""

    protocol: Literal["transfer", "sgd", "knn"] = "transfer"
    """transfer: logistic regression by L-BFGS on features of the centre crop (SimCLR, Appendix B.8), and nearest
    neighbours; knn: these alone; sgd: the official code's classifier on augmented images (Appendix B.6)."""
    train_split: str = "train"
    """Split that the probes learn from; a tenth of it, drawn by the seed, chooses the L2 strength."""
    eval_split: str = "test"
    """Split to evaluate on."""
    knn: int = 200
    """Neighbours that vote (arXiv:1805.01978, Section 3.4)."""
    knn_temperature: float = 0.07
    """Of their votes."""
    train_epochs: int = 90
    """Passes over the images, of protocol sgd (Appendix B.6)."""
    learning_rate: float = 0.1
    """Rate for a batch of 256, of protocol sgd (Appendix B.6)."""
    warmup_epochs: float = 0
    """Epochs of linear warm-up, of protocol sgd (Appendix B.6)."""
    weight_decay: float = 0.0
    """Of protocol sgd, where it is none (Appendix B.6)."""
    optimizer: Literal["lars", "momentum", "sgd", "adam"] = "momentum"
    """Of protocol sgd; momentum is TensorFlow 1's Nesterov, lars does as well (Appendix B.6), sgd is Keras'."""
    untrained: bool = True
    """Test the same network with random weights, too."""
    raw_pixels: bool = False
    """Test the image itself, too, averaged down to 16 pixels a side."""
    figures: Path | None = None
    """Folder for a map of the test images' features (t-SNE) and the nearest training images of some of them."""
    result: Path | None = None
    """Where the numbers go; by default linear_eval.json (linear_eval_sgd.json, linear_eval_knn.json) in the run folder,
    else in the working directory."""

    def __post_init__(self):
        super().__post_init__()
        check(self.knn >= 1, "knn must be at least 1", knn=self.knn)
        check(self.knn_temperature > 0, "knn_temperature must be above 0", knn_temperature=self.knn_temperature)


@dataclass(frozen=True, kw_only=True)
class Transfer(Probing):
    """Tests frozen features on the data sets of SimCLR's Table 8, each with its splits and metric (Appendix B.8)."""

    datasets: str = "all"
    """Names with commas between them: food101, cifar10, cifar100, birdsnap, sun397, cars196, aircraft, voc2007, dtd,
    pets, caltech101, flowers102; all: those that TensorFlow Datasets has."""
    data_dir: Path | None = None
    """Folder of TensorFlow Datasets, if not ~/tensorflow_datasets."""
    image_dir: Path | None = None
    """Folder with data sets of your own, which come first: cars196/train/CLASS/…, cars196/test/CLASS/… in it; one
    without splits is divided by its images' content."""
    validation_fraction: float | None = None
    """Of data sets without splits: share of each class to test on; by default 0.2."""
    exif_orientation: bool = False
    """Turn images as their EXIF orientation says; the official code does not."""
    download: bool = False
    """Whether to download data sets that are not there."""
    image_size: int = 224
    """Side of the network's input in pixels; the paper has 224 for all sets, small pictures are enlarged."""
    result: Path | None = None
    """Folder for the numbers, a file a data set: what is finished in it is not computed again; by default transfer in
    the run folder, else in the working directory."""

    def __post_init__(self):
        super().__post_init__()
        check(self.image_size >= 8, "image_size must be at least 8", image_size=self.image_size)
        share = self.validation_fraction
        rule = "validation_fraction must lie between 0 and 1"
        check(share is None or 0 < share < 1, rule, validation_fraction=share)
