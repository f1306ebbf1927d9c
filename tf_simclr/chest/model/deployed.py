"""A model for radiographs in one folder (`folder`), ready to be asked: encoder, heads, calibration, cases and a card.

For research, not for diagnosis.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_simclr.buckets import local
from tf_simclr.chest.files.squares import Picture, open_picture
from tf_simclr.chest.model import folder as model_folder
from tf_simclr.chest.model.card import FORMAT, LEARNED_FROM_MADE_UP, learned_from_made_up, read_card, within
from tf_simclr.chest.model.cases import Cases, array
from tf_simclr.chest.model.heads import bare, check_heads, log_odds, sigmoid_layer
from tf_simclr.chest.model.trusted import load_network
from tf_simclr.data.images import evaluation_view, to_rgb
from tf_simclr.data.radiographs.prepared import Prepared, smaller
from tf_simclr.errors import check
from tf_simclr.evaluation import binary
from tf_simclr.evaluation.calibration import Calibration, calibrate, logit
from tf_simclr.evaluation.intervals import SEPARATED, auc_interval
from tf_simclr.models.parts import as_taken

FOLDER = "deployed"
"""Name of such a folder within a run."""
# What is written of the intervals stands here, beside what
# computes them: the app, the card and the command say it alike.
_INTERVAL = (
    "The interval is the middle 95 % of what the single heads say, each under 200 redraws of the patients that the "
    "probability was calibrated on. It covers the spread between trainings and the few patients of the calibration; "
    "it does not cover that this radiograph may differ from those."
)
_RAW_INTERVAL = (
    "The interval is what the single heads say. The probability is the network's raw score: it was not calibrated, so "
    "how often such a radiograph is positive is not known."
)
_CALIBRATED = (
    "Its probability is calibrated on held-out patients of that collection and holds for as many positive among them."
)
_UNCALIBRATED = "The probability is not calibrated: {why}. It orders radiographs, and is no probability."


@dataclass(frozen=True)
class Verdict:
    """What the heads say of one image."""

    probability: float
    """Calibrated where the model is, of the class that is asked for."""
    low: float
    """The interval, see `Deployed.interval_means`."""
    high: float
    heads: np.ndarray
    """Uncalibrated probability of each head, `(k,)`."""
    features: np.ndarray
    """`(d,)`."""


@dataclass(frozen=True)
class Deployed:
    """An opened model."""

    encoder: keras.Model
    heads: tuple[keras.Model, ...]
    calibration: Calibration
    cases: Cases
    about: dict[str, Any]
    """The content of `card.json`: how images are read, what was measured, and under `card` what the caller wrote."""

    @property
    def positive(self) -> str:
        """The class that the probability is of."""
        return self.about["positive"]

    @property
    def measured(self) -> dict[str, Any]:
        """Of the held-out patients: `images`, `positives`, `patients`, `auc` with `low` and `high`, `brier`."""
        return self.about["measured"]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is to be said of any answer: that nobody's radiographs were learned from, that it is not calibrated."""
        why = self.calibration.missing
        made_up = LEARNED_FROM_MADE_UP.replace("It has", "The model has")
        return (
            *((made_up,) if learned_from_made_up(self.about) else ()),
            *((_UNCALIBRATED.format(why=why),) if why else ()),
        )

    @property
    def interval_means(self) -> str:
        """What a verdict's interval covers."""
        return _RAW_INTERVAL if self.calibration.missing else _INTERVAL

    def open(self, path: str | Path) -> Picture:
        """Reads a DICOM, PNG or JPEG in a bounded process.

        Raises:
            InputError: it is no radiograph that can be read.
        """
        about = self.about
        return open_picture(str(path), size=about["kept_size"], fit=about["fit"], windowed=about["windowed"])

    def see(self, picture: Picture) -> np.ndarray:
        """What the network sees, as in training: float32 `(image_size, image_size, 3)` in [0, 1]."""
        about, kept = self.about, tf.constant(picture.kept)
        # As in training: the kept square, made smaller if the network
        # learned from smaller ones, then the evaluation's crop.
        image = to_rgb(kept if about["side"] == about["kept_size"] else smaller(kept, about["side"]))
        return evaluation_view(image, size=about["image_size"], crop_proportion=about["crop_proportion"]).numpy()

    def score_of(self, features: tf.Tensor) -> tf.Tensor:
        """Mean over the heads of the log-odds of features `(n, d)`: `(n,)`; gradients flow."""
        return tf.reduce_mean(self.log_odds(features), axis=0)

    def log_odds(self, features: tf.Tensor) -> tf.Tensor:
        """Of each head, `(k, n)`; exact also where a sigmoid would round to 0 or 1."""
        return tf.stack([log_odds(head, features)[:, 0] for head in self.heads])

    @cached_property
    def features(self) -> Any:
        """Images `(n, image_size, image_size, 3)` to features `(n, d)`, compiled once."""
        side = self.about["image_size"]

        # By a given signature: TensorFlow compiles it once for every number of images.
        @tf.function(autograph=False, input_signature=[tf.TensorSpec((None, side, side, 3), tf.float32)])
        def run(images: Any) -> Any:
            return self.encoder(as_taken(images, self.encoder), training=False)

        return run

    def verdict(self, features: tf.Tensor) -> Verdict:
        """The calibrated probability of an image's features `(1, d)`, with its interval.

        Raises:
            InputError: the network's answer is not finite.
        """
        # Of a batch of one: scores (k, 1).
        scores = self.log_odds(features).numpy()
        check(bool(np.isfinite(scores).all()), "the network must give finite numbers for this image")
        # The heads differ, and so do the calibrations drawn from held-out patients: both are in the interval.
        low, high = self.calibration.spread(scores[:, 0])
        probability = float(self.calibration(scores[:, 0].mean()))
        heads = 1 / (1 + np.exp(-scores[:, 0].astype(float)))
        # The middle of draws need not be the estimate itself; the interval always holds it.
        return Verdict(probability, min(low, probability), max(high, probability), heads, features.numpy()[0])


def together(probabilities: np.ndarray) -> np.ndarray:
    """What heads say together: the mean of their log-odds, as a log-odds.

    Args:
        probabilities: of each head, `(k, n)`, or of all together, `(n,)`.

    Returns:
        `(n,)`.
    """
    # As log-odds, not probabilities: a head that is sure outweighs ones that are not, as evidence adds up in log-odds.
    return np.atleast_2d(logit(probabilities)).mean(axis=0)


def linear_head(kernel: np.ndarray, bias: np.ndarray) -> keras.Model:
    """The head of a classifier of two classes: its softmax's second probability is the sigmoid of the difference.

    Args:
        kernel: of the logits, `(d, 2)`.
        bias: `(2,)`.
    """
    # softmax([a, b])[1] = 1 / (1 + exp(a − b)) = sigmoid(b − a): kernel and bias are differences of the two columns.
    return sigmoid_layer(kernel[:, 1:] - kernel[:, :1], bias[1:] - bias[:1], name="linear_head")


def save(
    folder: str | Path,
    *,
    encoder: keras.Model,
    heads: Sequence[keras.Model],
    positive: str,
    image_size: int,
    held_out: tuple[np.ndarray, ...],
    cases: tuple[Prepared, np.ndarray, np.ndarray],
    card: dict[str, Any],
    side: int | None = None,
    crop_proportion: float = 1.0,
    seed: int = 0,
) -> None:
    """Writes a folder that `load` opens, whole or not at all; what was there is replaced.

    Args:
        folder: where to; by custom `RUN/deployed`.
        encoder: images `(n, h, w, 3)` in [0, 1] to features `(n, d)`: a functional model, best of plain layers: others
            are opened where their code is named.
        heads: one a training seed: `Sequential` models of features to a probability `(n, 1)`, whose last layer is
            `Dense(1, "sigmoid")`; `linear_head` makes one of a softmax classifier of two classes.
        positive: the class that the probability is of.
        image_size: side of the encoder's input in pixels.
        held_out: probabilities and labels of images of patients that the heads did not see; the probabilities `(n,)`,
            or `(k, n)` of each head. A third array, the patients `(n,)`, makes intervals right where patients have
            several images; it is not stored.
        cases: the prepared folder, the rows that the heads learned from, and features `(len(rows), d)`.
        card: what a reader must know, JSON types: title, data, training, limits ….
        side: to which the kept squares were made smaller first (`Prepared.source`); None: not at all.
        crop_proportion: what evaluation kept of the prepared square; `chest covid` keeps all.
        seed: of the bootstrap.

    Raises:
        InputError: what is given does not fit together, or the folder cannot be written.
    """
    # 1. The parts must fit together before anything is computed.
    check_heads(encoder, heads)
    probabilities, labels, *groups = held_out
    prepared, rows, features = cases
    check(features.shape[1:] == tuple(encoder.output_shape[1:]), "features must be the encoder's", shape=features.shape)
    # 2. Calibrated on patients that no head learned from.
    scores, patients = together(probabilities), groups[0] if groups else None
    calibration = calibrate(scores, np.asarray(labels), patients=patients)
    why, stated = calibration.missing, card.get("limits", [])
    stated = stated if isinstance(stated, list) else [stated]
    # 3. The card: how images must be made, what was measured, and what the caller knows of the data.
    about = {
        "format": FORMAT,
        "positive": positive,
        "image_size": image_size,
        "side": side or prepared.size,
        "crop_proportion": crop_proportion,
        "heads": len(heads),
        "calibration": {
            "kind": "none" if calibration.missing else "Platt",
            "slope": calibration.slope,
            "intercept": calibration.intercept,
            "why": calibration.missing,
        },
        "measured": measured(scores, np.asarray(labels), patients=patients, calibration=calibration),
        "learned_from": learned(prepared, np.asarray(rows), positive=positive),
        "card": card | {"limits": [*stated, _UNCALIBRATED.format(why=why) if why else _CALIBRATED]},
    }
    # 4. All files, then the card with their digests, in a folder that is put in place whole.
    with model_folder.written(folder, about, encoder=encoder, cases=cases, seed=seed) as place:
        for number, head in enumerate(heads):
            bare(head).save(place / f"head_{number}.keras")
        np.save(place / "calibration_draws.npy", calibration.draws)
        np.save(place / "held_out.npy", np.stack([calibration.probabilities, calibration.labels], 1))


def leave(run: Path, *, say: Callable[[str], None], **parts: Any) -> Path:
    """Saves what a command leaves in its run, and says where it could not be calibrated."""
    folder = run / FOLDER
    save(folder, **parts)
    about = read_card(folder)
    stored = about["calibration"]
    if about["measured"]["auc"]["value"] == 1:
        say(SEPARATED)
    if stored["kind"] == "none":
        say(f"the model is left with its raw scores, without a calibration: {stored['why']}")
    return folder


def measured(
    scores: np.ndarray, labels: np.ndarray, *, patients: np.ndarray | None, calibration: Calibration
) -> dict[str, Any]:
    """What the heads together reach on the held-out patients; the Brier score is of cross-fitted probabilities."""
    # Without patients each image is its own.
    groups = np.arange(len(labels)) if patients is None else np.asarray(patients)
    low, high = auc_interval(scores, labels, patients=groups)
    return {
        "images": len(labels),
        "positives": int(labels.sum()),
        "patients": len(np.unique(groups)) if patients is not None else None,
        "auc": {"value": binary.roc_auc(scores, labels), "low": low, "high": high},
        "brier": binary.brier(calibration.probabilities, calibration.labels),
    }


def learned(prepared: Prepared, rows: np.ndarray, *, positive: str) -> dict[str, int]:
    """How many images, patients and positives the heads learned from."""
    positives = int(prepared.column(positive)[rows].sum())
    return {"images": len(rows), "patients": len(np.unique(prepared.patients[rows])), "positives": positives}


def load(folder: str | Path, *, code: str = "") -> Deployed:
    """Opens a folder that `save` wrote, or a run that has one.

    Args:
        folder: of the model.
        code: what made the encoder, where it has more than plain layers (`trusted.load_network`).

    Raises:
        InputError: it is none, damaged, or holds anything but numbers and plain networks.
    """
    # 1. The card, 2. that the files are the card's, encoder and cases, 3. the heads and the calibration.
    folder = within(local(folder), FOLDER)
    about = read_card(folder)
    names = [f"head_{i}.keras" for i in range(about["heads"])]
    others = {*names, "calibration_draws.npy", "held_out.npy"}
    encoder, cases = model_folder.opened(folder, about, others=others, code=code)
    heads = tuple(load_network(folder / name) for name in names)
    check_heads(encoder, heads)
    return Deployed(encoder, heads, _read_calibration(folder, about["calibration"]), cases, about)


def _read_calibration(folder: Path, stored: dict[str, Any]) -> Calibration:
    """The calibration of a card and its two arrays."""
    # Two columns each: slope and intercept of a draw; probability and label of a held-out image.
    draws = array(folder / "calibration_draws.npy", kind=np.float64, axes=2, what="calibrations")
    held_out = array(folder / "held_out.npy", kind=np.float64, axes=2, what="probabilities")
    pairs = draws.shape[1] == held_out.shape[1] == 2 and len(draws) > 0 and len(held_out) > 0
    finite = pairs and np.isfinite(draws).all() and np.isfinite(held_out).all()
    check(bool(finite), f"the calibration of {folder} must be finite numbers")
    probabilities, labels = np.asarray(held_out).T
    missing = str(stored.get("why") or "nobody says why") if stored["kind"] == "none" else ""
    return Calibration(
        stored["slope"], stored["intercept"], np.asarray(draws), probabilities, labels.astype(int), missing=missing
    )
