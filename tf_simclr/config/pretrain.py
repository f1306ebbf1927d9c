"""Knobs of pretraining."""

from dataclasses import dataclass
from pathlib import Path

from tf_simclr.config.augmentation import Augmentation, Feeding
from tf_simclr.config.contrast import Contrast
from tf_simclr.config.memory import Memory
from tf_simclr.config.monitoring import Monitoring
from tf_simclr.config.optimization import Optimization
from tf_simclr.config.parts import Data, Encoder
from tf_simclr.config.placement import Placement
from tf_simclr.errors import check


@dataclass(frozen=True, kw_only=True)
class Pretrain(Data, Encoder, Optimization, Contrast, Augmentation, Feeding, Monitoring, Placement, Memory):
    """Pretrains an encoder on images without labels.

    --preset NAME sets the options of a recipe, which others then change: `tf-simclr presets` lists them.
    """

    model_dir: Path = Path("runs/pretrain")
    """Run folder; the same command resumes what lies there."""
    checkpoint: Path | None = None
    """Weights to start from instead of random ones, of any kind that converters reads; once there is a checkpoint in
    model_dir, that one counts."""
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
        check(self.checkpoint_epochs >= 1, "checkpoint_epochs must be at least 1", received=self.checkpoint_epochs)
        for name in ("checkpoint_steps", "keep_checkpoint_max"):
            check(getattr(self, name) >= 0, f"{name} must be at least 0", **{name: getattr(self, name)})
