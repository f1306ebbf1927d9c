"""The COVID-19 study's rows, its head, and its split; what a trained head answered, and how good that is.

SIIM's radiographs, 5,400 to train on and 934 to test, made smaller to 64 × 64, grey as RGB, enlarged to 224; the
official encoder `ENCODER`, frozen, its features `final_avg_pool`; a head of one dense layer.  The encoder is frozen and
images are not augmented, so an image's features never change: they are computed once, and all rows of the study's Table
3.2 together cost little more than one pass over the images.

References:
    T. Skluzacek, An Analysis of Transfer Learning using the SimCLR Contrastive Learning Framework, University of
    Minnesota, May 2022, Table 3.2.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import keras
import numpy as np

from tf_simclr.data.radiographs.splits import by_image, by_patient
from tf_simclr.errors import check
from tf_simclr.evaluation.binary import measures, ranking
from tf_simclr.evaluation.intervals import auc_interval
from tf_simclr.evaluation.patients import DRAWS, middle, weightings

_DROPOUT = 0.2
"""The study's rate, before and behind the dense layer."""
STUDY = (
    "T. Skluzacek, An Analysis of Transfer Learning using the SimCLR Contrastive Learning Framework, University of "
    "Minnesota, May 2022"
)
ENCODER = "simclrv2/finetuned_100pct/r50_1x_sk0"
"""The study's, a TF2 SavedModel: ResNet-50, 34.2 million parameters with its heads (the study: "around 34 million")."""
IMAGES = {"train": 5400, "test": 934}
"""The study's, of SIIM's 6,334."""


@dataclass(frozen=True)
class Row:
    """One line of the study's Table 3.2."""

    hidden: int
    dropout: bool
    epochs: int
    train: float | None = None
    """Training accuracy that the study reports, in %, with dropout on, as Keras prints it."""
    test: float | None = None
    """Test accuracy that it reports, in %, on a split that shares patients."""

    @property
    def form(self) -> dict[str, int | bool]:
        """What a training depends on."""
        return {"hidden": self.hidden, "dropout": self.dropout, "epochs": self.epochs}

    def __str__(self) -> str:
        return f"hidden {self.hidden}, {'dropout' if self.dropout else 'no dropout'}, {self.epochs} epochs"


ROWS = (
    Row(500, False, 30, 98.8, 71.0),
    Row(500, True, 25, 79.0, 73.6),
    Row(500, True, 20, 78.3, 70.9),
    Row(100, False, 30, 97.3, 71.1),
    Row(100, True, 25, 79.4, 72.5),
    Row(100, True, 20, 77.6, 70.1),
)
"""The study's Table 3.2."""
CHOICE = ROWS[1]
"""The study's best row: what goes beyond the table changes one thing of it."""


@dataclass(frozen=True)
class Fit:
    """A network after its training, by what it says of the test images."""

    history: dict[str, list[float]]
    """Metric → a value an epoch; `val_` ones are of the test images, which nothing was chosen by."""
    probabilities: np.ndarray
    """Of the test images: `(n,)`, or `(n, classes)` of several classes."""
    labels: np.ndarray
    """`(n,)`, int."""
    patients: np.ndarray
    pace: Sequence[float] | np.ndarray = ()
    """Seconds of each epoch."""
    seconds: float = 0.0
    """Of the whole training."""

    def __post_init__(self) -> None:
        whole = len(self.probabilities) == len(self.labels) == len(self.patients) > 0
        check(whole, "a training must have an answer, a label and a patient for each image")


def head(features: int, row: Row, *, classes: int = 1) -> keras.Model:
    """The study's classifier: features `(n, d)` to a probability `(n, 1)`, or to one for each of several classes."""
    # Two layers: a Sequential holds each layer once.
    dropout = [keras.layers.Dropout(_DROPOUT)] if row.dropout else []
    again = [keras.layers.Dropout(_DROPOUT)] if row.dropout else []
    last = keras.layers.Dense(classes, "sigmoid" if classes == 1 else "softmax")
    layers = [*dropout, keras.layers.Dense(row.hidden, "relu"), *again, last]
    return keras.Sequential([keras.Input((features,)), *layers], name="covid_head")


def split(patients: Sequence[str], labels: np.ndarray, *, kind: str, test_share: float, seed: int) -> dict:
    """`train` and `test` rows: by `image` as the study drew them, or by `patient`.

    Raises:
        InputError: a part would have one class only.
    """
    # By patient for an honest number, by image to repeat the study's.
    if kind == "patient":
        parts = by_patient(patients, {"train": 1 - test_share, "test": test_share}, labels=labels, seed=seed)
    else:
        tested = max(1, round(len(labels) * test_share))
        parts = by_image(len(labels), tested=tested, seed=seed)
    # An AUC needs both.
    for name, rows in parts.items():
        both = len(np.unique(labels[rows])) > 1
        check(both, f"the {name} images must have both classes; take more images or another class", images=len(rows))
    return parts


def summary(fits: Sequence[Fit], *, draws: int = DRAWS, seed: int = 0) -> dict[str, dict[str, float]]:
    """Metric → its mean over the fits, and a 95 % interval by drawing patients within each fit's test images.

    Fits of several seeds share images, so their mean varies a little more than the interval says; the interval of the
    AUC is the mean of the single fits'.
    """
    found: dict[str, list[np.ndarray]] = {}
    # For each fit its own draws of its own test patients: the seeds' splits differ.
    for number, fit in enumerate(fits):
        drawn = list(weightings(fit.patients, labels=fit.labels, draws=draws, seed=seed + number))
        weights = np.concatenate([np.ones((1, len(fit.labels))), *drawn])
        for name, values in measured(fit, weights).items():
            found.setdefault(name, []).append(values)
    # Mean over the fits draw by draw, then the middle 95 % of those means.
    means = {name: np.mean(values, axis=0) for name, values in found.items()}
    limits = {name: middle(values[1:]) for name, values in means.items()}
    if "auc" in means:  # the bootstrap's is too narrow where patients are few
        own = [auc_interval(fit.probabilities, fit.labels, patients=fit.patients) for fit in fits]
        limits["auc"] = tuple(np.mean(own, axis=0))
    return trained(fits) | {
        name: {"mean": float(values[0]), "low": float(limits[name][0]), "high": float(limits[name][1])}
        for name, values in means.items()
    }


def trained(fits: Sequence[Fit]) -> dict[str, dict[str, float]]:
    """The training accuracy of the last epoch, with dropout on: its mean over the fits, the least and the largest."""
    last = [fit.history["accuracy"][-1] for fit in fits if fit.history.get("accuracy")]
    if not last:
        return {}
    return {"train_accuracy": {"mean": float(np.mean(last)), "low": float(min(last)), "high": float(max(last))}}


def measured(fit: Fit, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics for each of the weightings `(k, n)`; of several classes accuracy and `macro_auc`."""
    if fit.probabilities.ndim == 1:
        # (k, n) · (n,) → (k,), over the sums of the weights.
        return measures(fit.probabilities.astype(float), fit.labels, weights=weights)
    right = (fit.probabilities.argmax(axis=1) == fit.labels).astype(float)
    return {"accuracy": weights @ right / weights.sum(axis=1), "macro_auc": macro_auc(fit, weights)}


def macro_auc(fit: Fit, weights: np.ndarray) -> np.ndarray:
    """The mean area under the ROC curves of each class against the rest, over the classes that there are in a draw."""
    # One class against the rest, for each class; a draw may lack one.
    with np.errstate(invalid="ignore", divide="ignore"):  # a class without weight has no curve
        areas = [
            ranking(fit.probabilities[:, c], (fit.labels == c).astype(int), weights=weights)["auc"]
            for c in np.unique(fit.labels)
        ]
    return np.nanmean(areas, axis=0)


def one_class(fit: Fit, number: int) -> Fit:
    """A fit of several classes as the question whether an image has this one."""
    return replace(fit, probabilities=fit.probabilities[:, number], labels=(fit.labels == number).astype(int))
