"""Knobs of the commands that look at several runs."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from tf_simclr.config.parts import Checked
from tf_simclr.errors import check


@dataclass(frozen=True, kw_only=True)
class Compare(Checked):
    """Prints evaluations side by side, with paired differences from the first, and draws them."""

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Run folders, or results of evaluations (*.json); the others are compared with the first."""
    figures: Path | None = None
    """Folder for figures: confusion matrices, and for two classes ROC, precision-recall and reliability."""
    seed: int = 0
    """Of the intervals."""


@dataclass(frozen=True, kw_only=True)
class Sweep(Checked):
    """Searches knobs of another command; the plan is a JSON file with this command's options: --config sweep.json."""

    task: str = "finetune"
    """Command whose knobs are searched."""
    model_dir: Path = Path("runs/sweep")
    """Folder for the search, a run folder a trial in it; the same command goes on where it was stopped."""
    options: Annotated[dict[str, Any], tyro.conf.Suppress] = field(default_factory=dict)
    search: Annotated[dict[str, Any], tyro.conf.Suppress] = field(default_factory=dict)
    final: Annotated[dict[str, Any], tyro.conf.Suppress] = field(default_factory=dict)
    metric: str = "top1.accuracy"
    """What to maximise in a trial's result.json, names with dots between them; it must come from validation images."""
    method: Literal["grid", "random", "tpe"] = "grid"
    """Every combination, combinations at random, or where Parzen estimators expect most (Optuna)."""
    trials: int = 0
    """How many trials; 0: all combinations of a grid, else 20."""
    seed: int = 0
    """Of the search; trials have their own option for theirs."""

    def __post_init__(self):
        super().__post_init__()
        check(self.trials >= 0, "trials must be at least 0", trials=self.trials)
