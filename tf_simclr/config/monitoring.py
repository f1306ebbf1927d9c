"""Knobs of what is watched while a training runs; none of them changes what it computes."""

from dataclasses import dataclass

from tf_simclr.config.parts import Checked
from tf_simclr.errors import check


@dataclass(frozen=True, kw_only=True)
class Monitoring(Checked):
    """What is watched."""

    knn_epochs: int = 10
    """Epochs between two tests of the features by nearest neighbours, if there are labels; 0: none."""
    knn_images: int = 2000
    """Images that such a test looks at; a fifth of them is classified by the rest, or all by as many of eval_split."""
    eval_split: str | None = None
    """Split whose images are classified in that test; by default those of the training split that do not vote."""
    collapse_images: int = 128
    """Images whose projections show each epoch whether they collapse; 0: none."""
    wandb: str | None = None
    """Project of Weights & Biases to report to."""

    def __post_init__(self):
        super().__post_init__()
        check(self.knn_epochs >= 0, "knn_epochs must be at least 0", knn_epochs=self.knn_epochs)
        check(self.knn_images >= 10, "knn_images must be at least 10", knn_images=self.knn_images)
        fits = self.collapse_images == 0 or self.collapse_images >= 2
        check(fits, "collapse_images must be 0 or at least 2", collapse_images=self.collapse_images)
