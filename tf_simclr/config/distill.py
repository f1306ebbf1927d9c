"""Knobs of distillation and self-training."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tf_simclr.config.optimization import Optimization
from tf_simclr.config.parts import Data, Encoder, Supervision
from tf_simclr.config.placement import Placement
from tf_simclr.errors import check


@dataclass(frozen=True, kw_only=True)
class Distill(Data, Encoder, Optimization, Placement, Supervision):
    """Trains a student on a teacher's answers to images without labels (SimCLRv2, Section 2.3)."""

    teacher: Path
    """A run folder or a checkpoint of any kind that converters reads, with a classifier: a fine-tuned network."""
    ema: bool = False
    """Take the teacher's moving averages, where it has them."""
    self_distillation: bool = False
    """Give the student the teacher's encoder architecture, whatever the options of the ResNet say."""
    checkpoint: Path | None = None
    """What the student's encoder starts from, a checkpoint of any kind; none: random weights.  Its architecture counts,
    not the options of the ResNet."""
    distillation_temperature: float = 1.0
    """Of both softmaxes: 1 for a smaller student, 0.1 for self-distillation (Section 3.1)."""
    alpha: float = 1.0
    """Weight of the teacher's answers; 1 - alpha is that of the labels (Equation 3; 1: Equation 2, no labels)."""
    teacher_views: Literal["same", "cached"] = "same"
    """same: the teacher sees the student's augmented view, as in the paper; cached: it answers once for the view that
    evaluation has, whatever the student sees, which costs one pass."""
    teacher_logits: Path | None = None
    """File of the cached answers, so that several students can share it; by default in model_dir."""
    labels_fraction: float = 1.0
    """Share of the training images whose labels count where alpha is below 1; the same images as with finetune."""
    labels_seed: int = 0
    """Which images those are."""
    model_dir: Path = Path("runs/distill")
    """Run folder; the same command resumes what lies there."""
    seed: int = 0
    """Of the new weights, the order of the images, the augmentation and the intervals."""

    def __post_init__(self):
        super().__post_init__()
        temperature = self.distillation_temperature
        check(temperature > 0, "distillation_temperature must be above 0", distillation_temperature=temperature)
        check(0 < self.alpha <= 1, "alpha must lie in (0, 1]", alpha=self.alpha)
        rule = "self_distillation and checkpoint each say what the student is; give one of them"
        check(not (self.self_distillation and self.checkpoint), rule)
