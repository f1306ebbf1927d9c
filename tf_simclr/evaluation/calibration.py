"""Probabilities that mean what they say: Platt's scaling of a score, with the spread that few patients leave it.

A network's sigmoid orders images; how often an image with this score is positive has to be counted on patients that it
did not learn from.  What is counted there holds where the share of positives is alike, and nowhere else.

References:
    Platt, Probabilistic Outputs for Support Vector Machines, 1999, Section 2; Lin, Lin and Weng, A Note on Platt's
    Probabilistic Outputs, 2007 (Newton's method with halved steps)
"""

from dataclasses import dataclass

import numpy as np

from tf_simclr.errors import InputError, check
from tf_simclr.evaluation.binary import check_both

DRAWS = 200
"""Bootstrap draws of patients: the middle 95 % of them is what an interval shows."""
FOLDS = 5
"""Parts of the patients; each is calibrated by the others when the calibration itself is tested."""
SMALLEST = 1e-7
"""Probabilities are kept this far from 0 and 1, where a log-odds would be infinite."""
STEPS, HALVINGS = 100, 10


class TooFew(InputError):
    """There are fewer held-out patients than a calibration needs."""


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

    def __call__(self, log_odds: np.ndarray) -> np.ndarray:
        """Calibrated probabilities of any shape."""
        return expit(self.slope * np.asarray(log_odds, float) + self.intercept)

    def spread(self, log_odds: np.ndarray) -> tuple[float, float]:
        """Middle 95 % of what single heads say, each under every draw of the calibration.

        Args:
            log_odds: one a head, `(k,)`.
        """
        said = expit(self.draws[:, :1] * np.asarray(log_odds, float) + self.draws[:, 1:])
        low, high = np.quantile(said, [0.025, 0.975])
        return float(low), float(high)

    def alike(self, probability: float, *, images: int = 40) -> tuple[int, int, float, float]:
        """Held-out images whose probability is nearest to this one.

        Returns:
            Their number, how many of them were positive, their lowest and highest probability.
        """
        nearest = np.argsort(np.abs(self.probabilities - probability), kind="stable")[:images]
        said = self.probabilities[nearest]
        return len(nearest), int(self.labels[nearest].sum()), float(said.min()), float(said.max())


def expit(log_odds: np.ndarray) -> np.ndarray:
    """Probability of a log-odds.

    Example:
        >>> float(expit(np.array(0.0)))
        0.5
    """
    return np.asarray(0.5 * (1 + np.tanh(0.5 * np.asarray(log_odds, float))))


def logit(probabilities: np.ndarray) -> np.ndarray:
    """Log-odds of probabilities, finite for 0 and 1, too.

    Example:
        >>> float(logit(np.array(0.5)))
        0.0
    """
    kept = np.clip(np.asarray(probabilities, float), SMALLEST, 1 - SMALLEST)
    return np.asarray(np.log(kept / (1 - kept)))


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
    weights = np.ones(len(labels)) if weights is None else np.asarray(weights, float)
    many = np.atleast_2d(weights)
    centre, scale = np.mean(log_odds), max(float(np.std(log_odds)), 1e-9)
    inputs = np.stack([(log_odds - centre) / scale, np.ones(len(log_odds))])
    positives, negatives = many @ labels, many @ (1 - labels)
    targets = np.where(labels == 1, ((positives + 1) / (positives + 2))[:, None], (1 / (negatives + 2))[:, None])
    start = np.stack([np.zeros(len(many)), np.log((positives + 1) / (negatives + 1))], 1)
    found = newton(inputs, targets, weights=many, start=start)
    slopes = found[:, 0] / scale
    return np.stack([slopes, found[:, 1] - slopes * centre], 1).reshape(*weights.shape[:-1], 2)


def newton(inputs: np.ndarray, targets: np.ndarray, *, weights: np.ndarray, start: np.ndarray) -> np.ndarray:
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
    for _ in range(STEPS):
        said = expit(found @ inputs)
        slope = (weights * (said - targets)) @ inputs.T
        bend = np.einsum("bn,in,jn->bij", weights * said * (1 - said), inputs, inputs) + 1e-10 * np.eye(2)
        step = np.linalg.solve(bend, slope[..., None])[..., 0]
        for _ in range(HALVINGS):
            then = loss(found - step)
            if not (then > now).any():
                break
            step[then > now] /= 2
        step[then > now] = 0
        found, now = found - step, np.minimum(then, now)
        if np.abs(step).max() < 1e-10:
            break
    return found


def calibrate(
    log_odds: np.ndarray, labels: np.ndarray, *, patients: np.ndarray | None = None, seed: int = 0
) -> Calibration:
    """Counts on held-out patients what a score means.

    Args:
        log_odds: of images that the heads did not learn from, `(n,)`.
        labels: 0 or 1, `(n,)`.
        patients: what is drawn by the bootstrap and kept together in the folds; by default each image is a patient.
        seed: of the draws and folds.

    Raises:
        InputError: one class only, lengths that differ, or scores that are not finite.
        TooFew: patients; an `InputError`, too.
    """
    log_odds, labels = np.asarray(log_odds, float), np.asarray(labels).astype(int)
    names = np.arange(len(labels)) if patients is None else np.asarray(patients)
    sizes = {"scores": log_odds.shape, "labels": labels.shape, "patients": names.shape}
    check(log_odds.shape == labels.shape == names.shape, "each held-out image must have score, label, patient", **sizes)
    check(bool(np.isfinite(log_odds).all()), "held-out scores must be finite")
    check_both(labels)
    count, member = len(np.unique(names)), np.unique(names, return_inverse=True)[1]
    if count < 2 * FOLDS:
        raise TooFew(f"a calibration must have at least {2 * FOLDS} held-out patients. Received: patients={count}")
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=DRAWS)[:, member]
    folds = rng.permutation(np.arange(count) % FOLDS)[member]
    each = platt(log_odds, labels, weights=(folds != np.arange(FOLDS)[:, None]).astype(float))
    tested = expit(each[folds, 0] * log_odds + each[folds, 1])
    order = np.argsort(tested, kind="stable")
    slope, intercept = platt(log_odds, labels)
    draws = platt(log_odds, labels, weights=drawn)
    return Calibration(float(slope), float(intercept), draws, tested[order], labels[order])
