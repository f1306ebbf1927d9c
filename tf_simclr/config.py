"""The knobs of each command: names, defaults and what they mean.  No framework is imported here.

Names and defaults are those of the official code's flags, where it has them.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tf_simclr.errors import check


@dataclass(frozen=True, kw_only=True)
class Data:
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


@dataclass(frozen=True, kw_only=True)
class Pretrain(Data, Encoder):
    """Pretrains an encoder on images without labels."""

    model_dir: Path = Path("runs/pretrain")
    """Run folder; the same command resumes what lies there."""
    train_batch_size: int = 512
    """Images a step; the paper's best results have 4096."""
    train_epochs: int = 100
    """Passes over the data; the paper goes up to 1000."""
    train_steps: int = 0
    """Steps instead of epochs, if above 0."""
    learning_rate: float = 0.3
    """Rate for a batch of 256 (linear scaling; SimCLR, Section 4) or of one (sqrt scaling: 0.075, Appendix B.1)."""
    learning_rate_scaling: Literal["linear", "sqrt"] = "linear"
    """How the rate grows with the batch; sqrt is better for small batches and few epochs (Appendix B.1)."""
    warmup_epochs: float = 10
    """Epochs of linear warm-up before the cosine (Section 4)."""
    weight_decay: float = 1e-6
    """Section 4; SimCLRv2 has 1e-4 (Section 3.1)."""
    optimizer: Literal["lars", "momentum", "sgd", "adam"] = "lars"
    """momentum is TensorFlow 1's Nesterov, from which the paper's numbers come; sgd is Keras' (the TF2 code's)."""
    momentum: float = 0.9
    """Of lars, momentum and sgd."""
    temperature: float = 0.1
    """Of NT-Xent (Section 5.1); 0.5 suits CIFAR-10 (Appendix B.9)."""
    hidden_norm: bool = True
    """Whether projections are divided by their length."""
    proj_head_mode: Literal["none", "linear", "nonlinear"] = "nonlinear"
    """Projection head (Section 4.2)."""
    num_proj_layers: int = 3
    """Of a nonlinear head: 2 in SimCLR, 3 in SimCLRv2 (Section 2.2)."""
    proj_out_dim: int = 128
    """Length of the projections."""
    color_jitter_strength: float = 1.0
    """Section 3.2; 0.5 suits CIFAR-10 (Appendix B.9)."""
    use_blur: bool = True
    """Gaussian blur with probability 0.5; without it for CIFAR-10 (Appendix B.9)."""
    additive_brightness: bool = False
    """Brightness as SimCLR adds it, not as SimCLRv2 multiplies it."""
    lineareval_while_pretraining: bool = True
    """Train a linear probe behind a stop-gradient, if there are labels."""
    cache_dataset: bool = False
    """Keep the encoded images in memory."""
    checkpoint_epochs: int = 1
    """Epochs between two checkpoints."""
    checkpoint_steps: int = 0
    """Steps between two checkpoints instead, if above 0."""
    keep_checkpoint_max: int = 5
    """Checkpoints to keep, the newest; 0: all."""
    seed: int = 0
    """Of the weights, the order of the images, and the augmentation."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("train_batch_size", "train_epochs", "checkpoint_epochs"):
            check(getattr(self, name) >= 1, f"{name} must be at least 1", **{name: getattr(self, name)})
        for name in ("train_steps", "checkpoint_steps", "keep_checkpoint_max", "warmup_epochs"):
            check(getattr(self, name) >= 0, f"{name} must be at least 0", **{name: getattr(self, name)})
        check(self.temperature > 0, "temperature must be above 0", temperature=self.temperature)


@dataclass(frozen=True, kw_only=True)
class LinearEval(Data):
    """Tests frozen features by logistic regression and nearest neighbours (SimCLR, Appendix B.8)."""

    checkpoint: Path
    """A run folder or a checkpoint of any kind that converters reads."""
    ema: bool = False
    """Take the moving averages, where a checkpoint has them."""
    train_split: str = "train"
    """Split that the probes learn from; a tenth of it, drawn by the seed, chooses the L2 strength."""
    eval_split: str = "test"
    """Split to evaluate on."""
    eval_batch_size: int = 256
    """Images at a time."""
    l2_strengths: int = 45
    """Strengths from 1e-6 to 1e5 to choose from, evenly spaced in their logarithm; the paper has 45."""
    knn: int = 200
    """Neighbours that vote (arXiv:1805.01978, Section 3.4)."""
    knn_temperature: float = 0.07
    """Of their votes."""
    untrained: bool = True
    """Test the same network with random weights, too."""
    result: Path | None = None
    """Where the numbers go; by default linear_eval.json in the run folder, else in the working directory."""
    seed: int = 0
    """Of the validation split, the random weights and the intervals."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("eval_batch_size", "l2_strengths", "knn"):
            check(getattr(self, name) >= 1, f"{name} must be at least 1", **{name: getattr(self, name)})
        check(self.knn_temperature > 0, "knn_temperature must be above 0", knn_temperature=self.knn_temperature)


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Pretrains on scikit-learn's digits, tests, converts to PyTorch and draws: the whole line in minutes."""

    model_dir: Path = Path("runs/demo")
    """Run folder; what is there already is not done again."""
    train_epochs: int = 20
    """Passes over the 1,437 training images."""
    labels_per_class: int = 10
    """Labels that a probe learns from."""
    label_draws: int = 10
    """Times that those labels are drawn anew."""
    seed: int = 0
    """Of everything random."""

    def __post_init__(self):
        check(self.train_epochs >= 1, "train_epochs must be at least 1", train_epochs=self.train_epochs)
        check(self.label_draws >= 2, "label_draws must be at least 2, for a spread", label_draws=self.label_draws)


COMMANDS = {"pretrain": Pretrain, "linear-eval": LinearEval, "demo": Demo}
"""Command → its knobs; the task of `linear-eval` is `tf_simclr.tasks.linear_eval`."""


def plain(config) -> dict:
    """A configuration as JSON types, with its command."""
    names = {kind: name for name, kind in COMMANDS.items()}
    values = {k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(config).items()}
    return {"command": names[type(config)], **values}
