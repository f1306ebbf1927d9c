"""Knobs of the optimizer, its length and its schedule."""

from dataclasses import dataclass
from typing import Literal

from tf_simclr.config.parts import Checked
from tf_simclr.errors import check


@dataclass(frozen=True, kw_only=True)
class Optimization(Checked):
    """How long, with which optimizer, at which rate."""

    train_batch_size: int = 512
    """Images a step; the paper's best results have 4096."""
    train_epochs: int = 100
    """Passes over the data; the paper goes up to 1000."""
    train_steps: int = 0
    """Steps instead of epochs, if above 0."""
    learning_rate: float = 0.3
    """Rate for a batch of 256 (linear scaling; SimCLR, Section 2.3) or of one (sqrt scaling: 0.075, Appendix B.1)."""
    learning_rate_scaling: Literal["linear", "sqrt"] = "linear"
    """How the rate grows with the batch; sqrt is better for small batches and few epochs (Appendix B.1)."""
    warmup_epochs: float = 10
    """Epochs of linear warm-up before the cosine (Section 2.3)."""
    weight_decay: float = 1e-6
    """Section 2.3; SimCLRv2 has 1e-4 (Section 3.1)."""
    optimizer: Literal["lars", "momentum", "sgd", "adam", "adamw", "lamb"] = "lars"
    """momentum is TensorFlow 1's Nesterov, from which the paper's numbers come; sgd is Keras' (the TF2 code's)."""
    momentum: float = 0.9
    """Of lars, momentum and sgd."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("train_batch_size", "train_epochs"):
            check(getattr(self, name) >= 1, f"{name} must be at least 1", **{name: getattr(self, name)})
        for name in ("train_steps", "warmup_epochs"):
            check(getattr(self, name) >= 0, f"{name} must be at least 0", **{name: getattr(self, name)})
