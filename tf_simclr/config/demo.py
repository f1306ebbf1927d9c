"""Knobs of the demo."""

from dataclasses import dataclass
from pathlib import Path

from tf_simclr.config.parts import Checked
from tf_simclr.errors import check


@dataclass(frozen=True, kw_only=True)
class Demo(Checked):
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
        super().__post_init__()
        check(self.train_epochs >= 1, "train_epochs must be at least 1", train_epochs=self.train_epochs)
        check(self.label_draws >= 2, "label_draws must be at least 2, for a spread", label_draws=self.label_draws)
