"""Knobs of fine-tuning, and of supervised training from scratch, its baseline."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tf_simclr.config.optimization import Optimization
from tf_simclr.config.parts import Data, Encoder, Supervision
from tf_simclr.config.placement import Placement
from tf_simclr.errors import check


@dataclass(frozen=True, kw_only=True)
class Finetune(Data, Encoder, Optimization, Placement, Supervision):
    """Trains a classifier on labelled images: fine-tunes a checkpoint, or without one starts from scratch."""

    checkpoint: Path | None = None
    """A run folder or a checkpoint of any kind that converters reads, whose network is taken; none: from scratch, with
    the network that the options of the ResNet describe."""
    ema: bool = False
    """Take the moving averages, where a checkpoint has them."""
    fine_tune_after_block: int = -1
    """Block groups up to this one stay frozen: -1 none, 0 the stem, 1-3 groups too, 4 all but the classifier."""
    ft_proj_selector: int = 0
    """Projection layer that feeds the classifier: 0 the pooled features, -1 the last; SimCLRv2 takes 1 for few labels
    (Section 2.2)."""
    zero_init_logits_layer: bool = False
    """Start the classifier at zero."""
    restore_logits_layer: bool = False
    """Start the classifier from the checkpoint's, as the official TF2 code does where there is one."""
    frozen_layers: Literal["still", "tf1", "tf2"] = "still"
    """still: nothing in frozen groups changes, their BatchNorm uses its moving statistics, and the projection head
    trains up to the layer that feeds the classifier (unless all is frozen); tf1, tf2: what the official codes do."""
    layer_decay: float = 1.0
    """Learning rate of each block group as a multiple of that of the one above it; below 1 early layers move less."""
    labels_fraction: float = 1.0
    """Share of the training images to use, of each class the same: 0.01 lies within 0.1 for the same labels_seed."""
    labels_seed: int = 0
    """Which images those are."""
    model_dir: Path = Path("runs/finetune")
    """Run folder; the same command resumes what lies there."""
    seed: int = 0
    """Of the new weights, the order of the images, the augmentation and the intervals."""

    def __post_init__(self):
        super().__post_init__()
        block = self.fine_tune_after_block
        check(-1 <= block <= 4, "fine_tune_after_block must lie in -1..4", fine_tune_after_block=block)
        check(0 < self.layer_decay <= 1, "layer_decay must lie in (0, 1]", layer_decay=self.layer_decay)
        both = self.zero_init_logits_layer and self.restore_logits_layer
        check(not both, "zero_init_logits_layer and restore_logits_layer exclude each other; give one of them")
        rule = "restore_logits_layer needs a checkpoint to take the classifier from"
        check(not self.restore_logits_layer or self.checkpoint is not None, rule)
