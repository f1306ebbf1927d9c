"""Models of any command in one form: what they say of radiographs, and what they are measured against."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_simclr.chest.model import seen
from tf_simclr.chest.model.card import check_prepared_alike, learned_from_made_up
from tf_simclr.chest.model.cases import Cases
from tf_simclr.chest.model.opened import opened as models_of
from tf_simclr.data.radiographs.prepared import Prepared
from tf_simclr.evaluation.calibration import Calibration


@dataclass(frozen=True)
class Asked:
    """A model that can be asked for findings."""

    title: str
    encoder: keras.Model
    findings: tuple[str, ...]
    layer: Callable[[np.ndarray], np.ndarray]
    """Features `(n, d)` to log-odds `(n, findings)`."""
    calibrations: tuple[Calibration, ...]
    """Of each finding, with its own held-out probabilities and labels."""
    cases: Cases
    """Of the radiographs that it learned from."""
    about: dict[str, Any]

    @property
    def made_up(self) -> bool:
        """Whether it has learned from made-up radiographs."""
        return learned_from_made_up(self.about)

    def probabilities(self, scores: np.ndarray) -> np.ndarray:
        """Calibrated probabilities of log-odds `(n, findings)`, raw ones of findings that could not be calibrated."""
        return np.stack([said(column) for said, column in zip(self.calibrations, scores.T, strict=True)], axis=1)

    def answers(self, data: Prepared, rows: np.ndarray, *, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """Log-odds `(n, findings)` and features `(n, d)` of radiographs, in the order of `rows`, which ascend.

        Raises:
            InputError: they were prepared otherwise than those that the model learned from, or one cannot be read.
        """
        about = self.about
        check_prepared_alike(about, size=data.size, fit=data.fit, windowed=data.windowed)
        # The same square as in training: made smaller first where the network learned from smaller ones.
        features = seen.answers(
            self.encoder,
            data,
            rows=rows,
            side=about.get("side", about["kept_size"]),
            batch_size=batch_size,
            image_size=about["image_size"],
            crop_proportion=about["crop_proportion"],
        )
        return self.layer(features), features


def opened(folder: Path, *, code: str = "") -> Asked:
    """The model of a run, or of a folder with one.

    Args:
        folder: of the model.
        code: what made the encoder, where it has more than plain layers.

    Raises:
        InputError: there is none, or it is damaged.
    """
    models = models_of(folder, code=code)
    first, names = models[0], tuple(model.positive for model in models)

    def layer(features: np.ndarray) -> np.ndarray:
        given = tf.constant(features, tf.float32)
        # One (n,) a finding → (n, findings).
        return np.stack([np.asarray(model.score_of(given), float) for model in models], axis=1)

    title = str(first.about["card"].get("title", "findings" if len(models) > 1 else first.positive))
    return Asked(title, first.encoder, names, layer, tuple(m.calibration for m in models), first.cases, first.about)
