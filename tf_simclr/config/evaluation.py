"""Knobs of the commands that test features."""

from dataclasses import dataclass
from pathlib import Path

from tf_simclr.config.parts import Data
from tf_simclr.errors import check


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
