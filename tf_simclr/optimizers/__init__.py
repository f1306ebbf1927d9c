"""Optimizers of large batches, loss scaling, and the learning rate over time."""

from tf_simclr.optimizers.adaptive import AdamW, Lamb
from tf_simclr.optimizers.build import LossScale, build, left_to_loss
from tf_simclr.optimizers.lars import LARS, Momentum
from tf_simclr.optimizers.schedule import WarmUpCosine, scaled_learning_rate, train_steps, warmup_steps

__all__ = [
    "LARS",
    "AdamW",
    "Lamb",
    "LossScale",
    "Momentum",
    "WarmUpCosine",
    "build",
    "left_to_loss",
    "scaled_learning_rate",
    "train_steps",
    "warmup_steps",
]
