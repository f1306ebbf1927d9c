"""The COVID-19 study's heads on frozen features: dropout, dense, dropout, sigmoid, trained with `fit`.

The encoder is frozen and images are not augmented, so an image's features never change: they are computed once, and all
rows of the study's Table 3.2 together cost little more than one pass over the images.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from tf_simclr.chest.splits import by_image, by_patient
from tf_simclr.errors import check
from tf_simclr.evaluation import binary
from tf_simclr.optimizers import LARS

DROPOUT = 0.2
"""The study's rate, before and behind the dense layer."""
STUDY_BEST = 0.736
"""The test accuracy that the study reports for its best row, on a split that shares patients."""


@dataclass(frozen=True)
class Row:
    """One line of the study's Table 3.2."""

    hidden: int
    dropout: bool
    epochs: int

    def __str__(self) -> str:
        return f"hidden {self.hidden}, {'dropout' if self.dropout else 'no dropout'}, {self.epochs} epochs"


ROWS = (
    Row(500, True, 25),
    Row(500, False, 25),
    Row(100, True, 25),
    Row(100, False, 25),
    Row(500, True, 20),
    Row(500, True, 30),
)
"""The study varied these three; the first is its own choice."""

METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": lambda scores, labels: float(((scores > 0.5) == labels).mean()),
    "auc": binary.roc_auc,
    "average_precision": binary.average_precision,
    "sensitivity_at_90": lambda scores, labels: binary.sensitivity_at(scores, labels, specificity=0.9),
    "brier": binary.brier,
    "calibration_error": binary.expected_calibration_error,
}
"""Metric of probabilities `(n,)` and labels `(n,)`; sensitivity is that at a specificity of 0.9."""


@dataclass(frozen=True)
class Fit:
    """A head after its training."""

    history: dict[str, list[float]]
    """Metric → a value an epoch; `val_` ones are of the test images, which nothing was chosen by."""
    probabilities: np.ndarray
    """Of the test images."""
    labels: np.ndarray
    patients: np.ndarray


def head(features: int, row: Row) -> keras.Model:
    """The study's classifier: features `(n, d)` to a probability `(n, 1)`."""
    dropout = [keras.layers.Dropout(DROPOUT)] if row.dropout else []
    again = [keras.layers.Dropout(DROPOUT)] if row.dropout else []
    layers = [*dropout, keras.layers.Dense(row.hidden, "relu"), *again, keras.layers.Dense(1, "sigmoid")]
    return keras.Sequential([keras.Input((features,)), *layers], name="covid_head")


def split(patients: Sequence[str], labels: np.ndarray, *, kind: str, test_share: float, seed: int) -> dict:
    """`train` and `test` rows: by `image` as the study drew them, or by `patient`.

    Raises:
        InputError: a part would have one class only.
    """
    if kind == "patient":
        parts = by_patient(patients, {"train": 1 - test_share, "test": test_share}, labels=labels, seed=seed)
    else:
        tested = max(1, round(len(labels) * test_share))
        parts = by_image(len(labels), {"train": len(labels) - tested, "test": tested}, seed=seed)
    for name, rows in parts.items():
        both = 0 < labels[rows].sum() < len(rows)
        check(both, f"the {name} images must have both classes; take more images or another class", images=len(rows))
    return parts


def train_head(
    values: np.ndarray,
    labels: np.ndarray,
    *,
    parts: dict[str, np.ndarray],
    patients: np.ndarray,
    row: Row,
    seed: int,
    optimizer: str = "sgd",
    learning_rate: float = 0.01,
    batch_size: int = 32,
) -> Fit:
    """Trains one head with `fit`: binary cross entropy, SGD, no schedule, as the study did."""
    keras.utils.set_random_seed(seed)
    model = head(values.shape[1], row)
    kinds = {"sgd": keras.optimizers.SGD, "lars": LARS}
    model.compile(kinds[optimizer](learning_rate), loss="binary_crossentropy", metrics=["accuracy"])
    train, test = parts["train"], parts["test"]
    targets = labels.astype(np.float32)[:, None]
    history = model.fit(
        values[train],
        targets[train],
        batch_size=min(batch_size, len(train)),
        epochs=row.epochs,
        validation_data=(values[test], targets[test]),
        verbose=0,
    )
    probabilities = model.predict(values[test], verbose=0)[:, 0]
    return Fit(history.history, probabilities, labels[test], patients[test])


def summary(fits: Sequence[Fit], *, draws: int = 1000, seed: int = 0) -> dict[str, dict[str, float]]:
    """Metric → its mean over the fits, and a 95 % interval by drawing patients within each fit's test images.

    Fits of several seeds share images, so their mean varies a little more than the interval says.
    """
    found = {}
    for name, metric in METRICS.items():
        values = [metric(fit.probabilities.astype(float), fit.labels) for fit in fits]
        drawn = [
            binary.grouped_draws(
                metric,
                fit.probabilities.astype(float),
                labels=fit.labels,
                groups=fit.patients,
                draws=draws,
                seed=seed + i,
            )
            for i, fit in enumerate(fits)
        ]
        low, high = np.quantile(np.mean(drawn, axis=0), [0.025, 0.975])
        found[name] = {"mean": float(np.mean(values)), "low": float(low), "high": float(high)}
    return found
