"""Knobs of pretraining."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tf_simclr.config.augmentation import Augmentation, Feeding
from tf_simclr.config.contrast import Contrast
from tf_simclr.config.memory import Memory
from tf_simclr.config.monitoring import Monitoring
from tf_simclr.config.optimization import Optimization
from tf_simclr.config.parts import Data, Encoder, Kept
from tf_simclr.config.placement import Placement
from tf_simclr.errors import check


@dataclass(frozen=True, kw_only=True)
class Pretrain(Data, Encoder, Optimization, Contrast, Augmentation, Feeding, Monitoring, Placement, Memory, Kept):
    """Pretrains an encoder on images without labels.

    --preset NAME sets the options of a recipe, which others then change: `tf-simclr presets` lists them.
    """

    pairs: Literal["image", "patient"] = "image"
    """What a positive pair is: two views of one image, or with radiographs one view each of two images of a patient
    where there are several (MICLe, arXiv:2101.05224)."""
    model_dir: Path = Path("runs/pretrain")
    """Run folder; the same command resumes what lies there."""
    checkpoint: Path | None = None
    """Weights to start from instead of random ones, of any kind that converters reads; once there is a checkpoint in
    model_dir, that one counts."""
    seed: int = 0
    """Of the weights, the order of the images, and the augmentation."""

    def __post_init__(self):
        super().__post_init__()
        rule = "pairs of a patient's images must come from --radiographs, whose patients are known"
        check(self.pairs == "image" or self.radiographs is not None, rule, pairs=self.pairs)
