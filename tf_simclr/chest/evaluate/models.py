"""Models of any command in one form: what they say of radiographs, and what they are measured against."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_simclr.buckets import local
from tf_simclr.chest.findings import model as findings_model
from tf_simclr.chest.model import deployed
from tf_simclr.chest.model.card import FINDINGS, check_prepared_alike, learned_from_made_up, place_of
from tf_simclr.chest.model.cases import Cases
from tf_simclr.data.pipeline import Unreadable, evaluation_batches
from tf_simclr.data.radiographs.prepared import Prepared
from tf_simclr.errors import check
from tf_simclr.evaluation.calibration import Calibration, calibrate
from tf_simclr.evaluation.features import extract


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
        side = about.get("side", about["kept_size"])
        # The same square as in training: made smaller first where the network learned from smaller ones.
        source = data.source(rows, side=side if side != data.size else None)
        batches = evaluation_batches(
            source,
            batch_size=batch_size,
            image_size=about["image_size"],
            crop_proportion=about["crop_proportion"],
            unreadable=Unreadable(),
        )
        features = extract(self.encoder, batches).values
        check(len(features) == len(rows), f"all images of {data.folder} must be readable; prepare again")
        return self.layer(features), features


def opened(folder: Path, *, code: str = "") -> Asked:
    """The model of a run, or of a folder with one.

    Args:
        folder: of the model.
        code: what made the encoder, where it has more than plain layers.

    Raises:
        InputError: there is none, or it is damaged.
    """
    place, kind = place_of(local(folder))
    return _of_findings(place, code=code) if kind is FINDINGS else _of_one(place, code=code)


def _of_one(folder: Path, *, code: str) -> Asked:
    """A model of `chest covid` or `chest ards`, which has one finding."""
    model = deployed.load(folder, code=code)

    def layer(features: np.ndarray) -> np.ndarray:
        return np.asarray(model.score_of(tf.constant(features, tf.float32)), float)[:, None]

    title = str(model.about["card"].get("title", model.positive))
    return Asked(title, model.encoder, (model.positive,), layer, (model.calibration,), model.cases, model.about)


def _of_findings(folder: Path, *, code: str) -> Asked:
    """A model of `chest findings`."""
    model = findings_model.load(folder, code=code)
    # Held-out labels may be unknown; a calibration needs known ones of both kinds.
    known = [model.held_labels[:, number] >= 0 for number in range(len(model.findings))]
    both = [len(set(model.held_labels[rows, number].tolist())) == 2 for number, rows in enumerate(known)]
    usable = np.flatnonzero(both)
    rule = "a model must have held-out images with and without one of its findings at least"
    check(len(usable) > 0, rule, findings=list(model.findings))
    calibrations = tuple(
        calibrate(model.held_scores[known[number], number], model.held_labels[known[number], number])
        for number in usable
    )
    names = tuple(model.findings[number] for number in usable)

    def layer(features: np.ndarray) -> np.ndarray:
        return np.asarray(features @ model.kernel[:, usable] + model.bias[usable])

    title = str(model.about["card"].get("title", "findings"))
    return Asked(title, model.encoder, names, layer, calibrations, model.cases, model.about)
