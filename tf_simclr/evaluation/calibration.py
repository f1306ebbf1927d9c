"""Probabilities that mean what they say: Platt's scaling of a score, with the spread that few patients leave it.

A network's sigmoid orders images; how often an image with this score is positive has to be counted on patients that it
did not learn from.  What is counted there holds where the share of positives is alike, and nowhere else.

References:
    Platt, Probabilistic Outputs for Support Vector Machines, 1999, Section 2; Lin, Lin and Weng, A Note on Platt's
    Probabilistic Outputs, 2007 (Newton's method with halved steps)
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit
from scipy.special import logit as exact_logit

from tf_simclr.errors import check
from tf_simclr.evaluation.binary import check_both
from tf_simclr.evaluation.patients import middle, weightings

_DRAWS = 200
"""Bootstrap draws of patients: the middle 95 % of them is what an interval shows."""
_FOLDS = 5
"""Parts of the patients; each is calibrated by the others when the calibration itself is tested."""
_FEWEST, _FEWEST_OF_A_CLASS = 2 * _FOLDS, 3
"""Patients, in all and with images of each class, of whom a calibration is counted at least."""
_SMALLEST = 1e-7
"""Probabilities are kept this far from 0 and 1, where a log-odds would be infinite."""
STEPS, _HALVINGS = 100, 10


@dataclass(frozen=True)
class Calibration:
    """From log-odds to calibrated probability, and what it was counted on."""

    slope: float
    intercept: float
    draws: np.ndarray
    """Slope and intercept of each bootstrap draw of patients, `(b, 2)`."""
    probabilities: np.ndarray
    """Of the held-out images, each calibrated by other patients, `(n,)`, ascending."""
    labels: np.ndarray
    """0 or 1 of those images, `(n,)`."""
    missing: str = ""
    """Why there is none: probabilities are then the raw scores'.  Empty where there is one."""

    def __call__(self, log_odds: np.ndarray) -> np.ndarray:
        """Calibrated probabilities of any shape."""
        return np.asarray(expit(self.slope * np.asarray(log_odds, float) + self.intercept))

    def spread(self, log_odds: np.ndarray) -> tuple[float, float]:
        """Middle 95 % of what single heads say, each under every draw of the calibration.

        Args:
            log_odds: one a head, `(k,)`.
        """
        # Every head under every draw: (b, 1) · (heads,) → (b, heads).
        said = expit(self.draws[:, :1] * np.asarray(log_odds, float) + self.draws[:, 1:])
        return middle(said.ravel())

    def alike(self, probability: float, *, images: int = 40) -> tuple[int, int, float, float]:
        """Held-out images whose probability is nearest to this one.

        Returns:
            Their number, how many of them were positive, their lowest and highest probability.
        """
        nearest = np.argsort(np.abs(self.probabilities - probability), kind="stable")[:images]
        said = self.probabilities[nearest]
        return len(nearest), int(self.labels[nearest].sum()), float(said.min()), float(said.max())


def logit(probabilities: np.ndarray) -> np.ndarray:
    """Log-odds of probabilities, finite for 0 and 1, too.

    Example:
        >>> float(logit(np.array(0.5)))
        0.0
    """
    # A probability of exactly 0 or 1 comes of rounding: 1e-7 is about what float32 has beside 1.
    return np.asarray(exact_logit(np.clip(np.asarray(probabilities, float), _SMALLEST, 1 - _SMALLEST)))


def platt(log_odds: np.ndarray, labels: np.ndarray, *, weights: np.ndarray | None = None) -> np.ndarray:
    """Slope and intercept that make log-odds calibrated.

    The logistic regression of the labels on the score, whose targets are not 1 and 0 but (n₊ + 1)/(n₊ + 2) and
    1/(n₋ + 2) (Platt, Equation 12): it stays finite where a score tells all images apart.

    Args:
        log_odds: scores, `(n,)`.
        labels: 0 or 1, `(n,)`.
        weights: how often each image counts, `(n,)` or `(b, n)` for `b` fits; by default once.

    Returns:
        `(2,)` or `(b, 2)`.
    """
    many, form = _weightings(weights, labels)
    # Centred and scaled inputs: Newton's second derivatives are then of one size.
    centre, scale = np.mean(log_odds), max(float(np.std(log_odds)), 1e-9)
    inputs = np.stack([(log_odds - centre) / scale, np.ones(len(log_odds))])
    positives, negatives = many @ labels, many @ (1 - labels)
    # Platt's targets: (p + 1) / (p + 2) and 1 / (n + 2) instead of 1 and 0, for scores that separate the classes.
    targets = np.where(labels == 1, ((positives + 1) / (positives + 2))[:, None], (1 / (negatives + 2))[:, None])
    # From slope 0 at the log-odds of the prior.
    start = np.stack([np.zeros(len(many)), np.log((positives + 1) / (negatives + 1))], 1)
    found = _newton(inputs, targets, weights=many, start=start)
    # Back to log-odds as they came: slope x/s, and the centre goes into the intercept.
    slopes = found[:, 0] / scale
    return np.stack([slopes, found[:, 1] - slopes * centre], 1).reshape(form)


def _weightings(weights: np.ndarray | None, labels: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """Many weightings at once, `(b, n)`, one for each bootstrap draw; and the form of what is found by them."""
    weights = np.ones(len(labels)) if weights is None else np.asarray(weights, float)
    return np.atleast_2d(weights), (*weights.shape[:-1], 2)


def _newton(inputs: np.ndarray, targets: np.ndarray, *, weights: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Minima of `b` logistic regressions of two inputs `(2, n)`, by Newton's method whose steps never go up: `(b, 2)`.

    Args:
        inputs: `(2, n)`.
        targets: in [0, 1], `(b, n)`.
        weights: `(b, n)`.
        start: `(b, 2)`.
    """

    def loss(at: np.ndarray) -> np.ndarray:
        scores = at @ inputs
        return np.asarray((weights * (np.logaddexp(0, scores) - targets * scores)).sum(1))

    found, now = start, loss(start)
    # 1. Gradient and second derivatives at once for all b; 2. Newton's step; 3. halved where the loss rose.
    for _ in range(STEPS):
        said = expit(found @ inputs)
        slope = (weights * (said - targets)) @ inputs.T
        # (b, n), (2, n), (2, n) → (b, 2, 2): Σ w p (1 - p) x xᵀ, and a little of the identity, for inputs all alike.
        bend = np.einsum("bn,in,jn->bij", weights * said * (1 - said), inputs, inputs) + 1e-10 * np.eye(2)
        step = np.linalg.solve(bend, slope[..., None])[..., 0]
        for _ in range(_HALVINGS):
            then = loss(found - step)
            if not (then > now).any():
                break
            step[then > now] /= 2
        # Who still rises after all halvings stands still.
        step[then > now] = 0
        found, now = found - step, np.minimum(then, now)
        if np.abs(step).max() < 1e-10:
            break
    return found


def recalibration(log_odds: np.ndarray, labels: np.ndarray, *, weights: np.ndarray | None = None) -> np.ndarray:
    """Slope and intercept of the logistic regression of what was on what was said (Cox, Biometrika 45, 1958).

    Slope 1 and intercept 0 are what probabilities have that are true; below 1 they are too far apart, above 1 too near.

    Args:
        log_odds: of the probabilities said, `(n,)`; they do not tell the classes apart without an error.
        labels: 0 or 1, `(n,)`.
        weights: as of `platt`.

    Returns:
        `(2,)` or `(b, 2)`.
    """
    many, form = _weightings(weights, labels)
    # (2, n): what was said, and ones for the intercept; (b, n) weightings and targets.
    inputs = np.stack([log_odds, np.ones(len(log_odds))])
    targets = np.broadcast_to(np.asarray(labels, float), many.shape)
    # From slope 1, intercept 0: where calibrated probabilities have theirs.
    start = np.tile([1.0, 0.0], (len(many), 1))
    return _newton(inputs, targets, weights=many, start=start).reshape(form)


def calibrate(
    log_odds: np.ndarray, labels: np.ndarray, *, patients: np.ndarray | None = None, seed: int = 0
) -> Calibration:
    """Counts on held-out patients what a score means.

    Where they are too few to count on, or the score is the lower the likelier an image is positive, there is no
    calibration: slope 1 and intercept 0 leave the scores as they are, and `missing` says why.

    Args:
        log_odds: of images that the heads did not learn from, `(n,)`.
        labels: 0 or 1, `(n,)`.
        patients: what is drawn by the bootstrap and kept together in the folds; by default each image is a patient.
        seed: of the draws and folds.

    Raises:
        InputError: one class only, lengths that differ, or scores that are not finite.
    """
    log_odds, labels = np.asarray(log_odds, float), np.asarray(labels).astype(int)
    names = np.arange(len(labels)) if patients is None else np.asarray(patients)
    sizes = {"scores": log_odds.shape, "labels": labels.shape, "patients": names.shape}
    check(log_odds.shape == labels.shape == names.shape, "each held-out image must have score, label, patient", **sizes)
    check(bool(np.isfinite(log_odds).all()), "held-out scores must be finite")
    check_both(labels)
    # Patients as numbers, and for each image its patient.
    found, member = np.unique(names, return_inverse=True)
    count, of_class = len(found), min(len(np.unique(names[labels == c])) for c in (0, 1))
    if count < _FEWEST or of_class < _FEWEST_OF_A_CLASS:
        held = f"{count} held-out patients, {of_class} of the rarer class"
        return _uncalibrated(
            log_odds, labels, why=f"it takes {_FEWEST}, {_FEWEST_OF_A_CLASS} of each class; there are {held}"
        )
    if np.ptp(log_odds) == 0:
        return _uncalibrated(log_odds, labels, why=f"all scores of {count} held-out patients are alike")
    slope, intercept = platt(log_odds, labels)
    if slope <= 0:
        why = f"higher scores are less often positive among {count} held-out patients (slope {slope:.2g})"
        return _uncalibrated(log_odds, labels, why=why)
    # Whole patients into folds, by turns in a random order: folds differ by one patient at most.
    rng = np.random.default_rng(seed)
    folds = rng.permutation(np.arange(count) % _FOLDS)[member]
    # (folds, n): each calibration learns from the images that are not of its fold.
    each = platt(log_odds, labels, weights=(folds != np.arange(_FOLDS)[:, None]).astype(float))
    tested = expit(each[folds, 0] * log_odds + each[folds, 1])
    order = np.argsort(tested, kind="stable")
    # The spread of slope and intercept over draws of patients, for the interval that an answer shows.
    drawn = weightings(names, labels=labels, draws=_DRAWS, seed=seed)
    draws = np.concatenate([platt(log_odds, labels, weights=weights) for weights in drawn])
    return Calibration(float(slope), float(intercept), draws, tested[order], labels[order])


def _uncalibrated(log_odds: np.ndarray, labels: np.ndarray, *, why: str) -> Calibration:
    """Raw scores in the place of a calibration."""
    said = np.asarray(expit(log_odds))
    order = np.argsort(said, kind="stable")
    return Calibration(1.0, 0.0, np.array([[1.0, 0.0]]), said[order], labels[order], missing=why)
