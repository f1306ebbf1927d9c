"""Knobs of the ARDS pipeline.  For research, not for diagnosis."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tf_simclr.config.parts import Checked
from tf_simclr.errors import check
from tf_simclr.places import Place


@dataclass(frozen=True, kw_only=True)
class ChestArds(Checked):
    """Eight stages from an encoder to a report: SimCLR on radiographs, fine-tuned, searched, tested beside other ways.

    The same command goes on where it was stopped; --stage runs one of them alone.
    """

    stage: Literal["all", "initial", "pretrain", "linear", "finetune", "grid", "evaluate", "compare", "report"] = "all"
    """All eight, or one alone, which needs those before it."""
    radiographs: Place = "synthetic"
    """A folder of `chest prepare`, or synthetic: made-up radiographs, to see the whole path."""
    positive: str | None = None
    """Class to tell from the rest, such as ARDS, or Pneumonia of NIH; synthetic has Typical Appearance."""
    pretrain_radiographs: Path | None = None
    """Another prepared folder to pretrain on, such as ChestX-ray14, whole but for patients to choose by or test on; by
    default the same one, of which the patients to train on alone are taken."""
    split_seed: int = 0
    """Seed of the split by patient, where the collection has no official one."""
    checkpoint: Path | None = None
    """Encoder to begin with, of any kind that converters reads, such as an official ImageNet SimCLR; none: from
    scratch."""
    ema: bool = False
    """Take the moving averages, where a checkpoint has them."""
    model_dir: Path = Path("runs/ards")
    """Folder for all stages, one folder each; the same command goes on where it was stopped."""
    image_size: int = 96
    """Side of the network's input in pixels; the papers have 224."""
    resnet_depth: int = 18
    """18, 34, 50, 101, 152 or 200, from scratch; the papers have 50 and more.  A checkpoint has its own."""
    pairs: Literal["image", "patient"] = "image"
    """What SimCLR and MoCo take as a positive pair: two views of an image, or of two images of a patient where there
    are several (MICLe, arXiv:2101.05224)."""
    pretrain_epochs: int = 100
    """Passes over the radiographs without labels; SimCLR's best results have 1000."""
    pretrain_steps: int = 0
    """Steps instead of epochs, if above 0."""
    pretrain_batch_size: int = 64
    """Images a step; at most as many as there are."""
    pretrain_learning_rate: float = 0.075
    """Of LARS, times the root of the batch (SimCLR, Appendix B.1)."""
    temperature: float = 0.2
    """Of the contrastive loss."""
    moco: bool = True
    """Compare with MoCo v2 on the same radiographs for as many steps."""
    moco_queue: int = 0
    """Keys in its queue; 0: half as many as there are radiographs, so that few are of the query's own, at most 65,536
    (arXiv:1911.05722, Section 4.1)."""
    moco_momentum: float = 0.99
    """By which its second encoder follows; the paper's 0.999 is for hundreds of thousands of steps."""
    finetune_epochs: int = 20
    """Of the fine-tuning before the search."""
    finetune_learning_rate: float = 0.1
    """Of the fine-tuning before the search, for a batch of 256; grows with the batch."""
    finetune_batch_size: int = 32
    """Images a step of fine-tuning and of training from scratch."""
    grid_learning_rates: tuple[float, ...] = (0.05, 0.2)
    """Rates to search, for a batch of 256."""
    grid_weight_decays: tuple[float, ...] = (1e-4,)
    """Weight decays to search."""
    grid_epochs: tuple[int, ...] = (10, 30)
    """Lengths to search."""
    seeds: int = 3
    """Trainings of each way in the comparison, with what the search has chosen for it."""
    mixed_precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """What the networks compute in."""
    seed: int = 0
    """The first seed."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("pretrain_epochs", "pretrain_batch_size", "finetune_epochs", "finetune_batch_size", "seeds"):
            check(getattr(self, name) >= 1, f"{name} must be at least 1", **{name: getattr(self, name)})
        for name in ("pretrain_steps", "moco_queue", "split_seed"):
            check(getattr(self, name) >= 0, f"{name} must be at least 0", **{name: getattr(self, name)})
        for name in ("grid_learning_rates", "grid_weight_decays", "grid_epochs"):
            check(len(getattr(self, name)) > 0, f"{name} must have at least one value", **{name: getattr(self, name)})
        check(self.image_size >= 32, "image_size must be at least 32", image_size=self.image_size)
        named = self.positive is not None or self.radiographs == "synthetic"
        check(named, "positive must name the class to tell from the rest; the preparation's report lists them")
