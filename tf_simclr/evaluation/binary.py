"""Metrics of a yes-or-no question from scores: what a physician asks of a test, and whether its probabilities are true.

Curves are scikit-learn's; every function takes scores `(n,)`, the larger the likelier yes, and labels `(n,)` of 0, 1.
`measures` has them for many weightings of the images at once, as a bootstrap over patients needs (`patients`).
"""

import numpy as np
from sklearn import metrics

from tf_simclr.errors import check

_BINS = 10
"""Of equal width, of the calibration error."""


def check_both(labels: np.ndarray) -> None:
    """Refuses labels of one class only."""
    found = np.unique(labels)
    check(np.array_equal(found, [0, 1]), "labels must hold both classes, 0 and 1", found=found.tolist())


def roc_auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Area under the ROC curve: how often a yes has the larger score than a no.

    Example:
        >>> roc_auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]))
        0.75
    """
    check_both(labels)
    return float(metrics.roc_auc_score(labels, scores))


def average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """Precision averaged over the recalls that the yeses step through; a coin's is the share of yeses."""
    check_both(labels)
    return float(metrics.average_precision_score(labels, scores))


def brier(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean squared distance of probabilities from what was; 0 is best, 0.25 a coin's."""
    return float(np.mean((probabilities - labels) ** 2))


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean distance, over images, of a bin's mean probability from its share of yeses (arXiv:1706.04599, Section 2).

    Bins are of equal width.

    Example:
        >>> expected_calibration_error(np.array([0.95, 0.95, 0.95, 0.95]), np.array([1, 1, 1, 0]))
        0.2
    """
    said, was, counts = reliability(probabilities, labels)
    # Rounded where sums of floats differ by their order: the same images in another order give the same number.
    return float(np.round((np.abs(said - was) * counts).sum() / counts.sum(), 12))


def reliability(
    probabilities: np.ndarray, labels: np.ndarray, *, bins: int = _BINS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean probability, share of yeses and number of images of each bin that is not empty."""
    check(bins >= 1, "bins must be at least 1", bins=bins)
    # p = 1 belongs to the last bin.
    which = np.minimum((probabilities * bins).astype(int), bins - 1)
    counts = np.bincount(which, minlength=bins)
    there = counts > 0
    said, was = (np.bincount(which, weights=x, minlength=bins)[there] / counts[there] for x in (probabilities, labels))
    return said, was, counts[there]


def threshold(probabilities: np.ndarray, labels: np.ndarray, *, rule: str = "youden", at: float = 0.9) -> float:
    """The probability from which on a yes is said.

    Half way to the next lower probability; of equally good ones the lowest.

    Args:
        probabilities: `(n,)`.
        labels: 0 or 1, `(n,)`.
        rule: `youden`: sensitivity and specificity have the largest sum (Youden, Cancer 3, 1950); `sensitivity`: at
            least `at` of the yeses are found, and as few noes as that allows; `specificity`: at least `at` of the noes
            are let go, and as many yeses found as that allows.
        at: a share.

    Raises:
        InputError: one class only, or no such rule.

    Example:
        >>> threshold(np.array([0.1, 0.2, 0.6, 0.8]), np.array([0, 0, 1, 1]))
        0.4
    """
    known = rule in ("youden", "sensitivity", "specificity")
    check(known, "rule must be youden, sensitivity or specificity", received=rule)
    check(len(set(labels.tolist())) == 2, "the validation patients must have both classes")
    # Cuts halfway between neighbouring probabilities, and one below all: no image lies on a cut.
    values = np.unique(probabilities)
    cuts = np.append(values[:1] / 2, (values[1:] + values[:-1]) / 2)
    yes, no = (np.sort(probabilities[labels == c]) for c in (1, 0))
    # Shares of yeses at or above each cut, and of noes below it, by two binary searches instead of a table n × n.
    sensitivity = 1 - np.searchsorted(yes, cuts) / len(yes)
    specificity = np.searchsorted(no, cuts) / len(no)
    # Of the cuts that reach the wanted rate the best other rate; where none reaches a specificity, the nearest to it.
    worth = {
        "youden": sensitivity + specificity,
        "sensitivity": np.where(sensitivity >= at - 1e-12, specificity, -1),
        "specificity": np.where(specificity >= at - 1e-12, 1 + sensitivity, specificity),
    }[rule]
    return float(cuts[np.argmax(worth)])


def net_benefit(probabilities: np.ndarray, labels: np.ndarray, *, at: np.ndarray) -> np.ndarray:
    """Decision curve: yeses found an image, less noes called yes, each of those weighed by the odds of the threshold.

    Vickers and Elkin, Medical Decision Making 26 (2006).  0 is what calling nobody is worth.

    Args:
        probabilities: `(n,)`.
        labels: 0 or 1, `(n,)`.
        at: thresholds in (0, 1), `(t,)`.

    Example:
        >>> net_benefit(np.array([0.9, 0.4, 0.6, 0.1]), np.array([1, 1, 0, 0]), at=np.array([0.5])).tolist()
        [0.0]
    """
    # (thresholds, images)
    said = probabilities >= at[:, None]
    true, false = (said & (labels == 1)).mean(axis=1), (said & (labels == 0)).mean(axis=1)
    # Each no that is called yes costs the odds of the threshold: p / (1 - p) yeses.
    return np.asarray(true - false * at / (1 - at))


def measures(probabilities: np.ndarray, labels: np.ndarray, *, weights: np.ndarray) -> dict[str, np.ndarray]:
    """The metrics of this module by name, and accuracy, for many weightings of the images at once, each `(draws,)`.

    Scores are sorted once, and each metric is a few cumulative sums, for a thousand draws of patients together.

    Args:
        probabilities: of a yes, `(n,)` in [0, 1].
        labels: 0 or 1, `(n,)`.
        weights: at least 0, `(draws, n)`; in each draw both classes have some.

    Raises:
        InputError: labels of one class only.

    Example:
        >>> found = measures(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]), weights=np.ones((1, 4)))
        >>> found["auc"]
        array([0.75])
    """
    check_both(labels)
    total = weights.sum(axis=1)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.asarray(weights @ values / total)

    # weights (draws, n); bins (n, 10), an image's error in its own bin's column.
    which = np.minimum((probabilities * _BINS).astype(int), _BINS - 1)
    bins = np.where(which[:, None] == np.arange(_BINS), (probabilities - labels)[:, None], 0.0)
    return {
        "accuracy": mean(((probabilities > 0.5) == labels).astype(float)),
        **ranking(probabilities, labels, weights=weights),
        "brier": mean((probabilities - labels) ** 2),
        # |Σ (p - y)| of a bin over all images is its count times its error.
        "calibration_error": np.abs(weights @ bins).sum(axis=1) / total,
    }


def ranking(scores: np.ndarray, labels: np.ndarray, *, weights: np.ndarray) -> dict[str, np.ndarray]:
    """What depends on the order of the scores alone: `auc`, `average_precision` and `sensitivity_at_90`."""
    # The best score first.  Sums along the order are counts above each cut: (draws, n) → (draws, cuts).
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # equal scores are one step
    true, false = (np.cumsum(weights[:, order] * (labels[order] == c), axis=1)[:, ends] for c in (1, 0))
    yes, no = true[:, -1:], false[:, -1:]
    # What each step adds, (draws, cuts): yeses upwards and noes to the right, of the ROC curve.
    true_steps, false_steps = (np.diff(x, axis=1, prepend=0) for x in (true, false))
    precision = true / np.maximum(true + false, 1e-300)  # before the first weight there is neither
    within = false <= (1 - 0.9 + 1e-12) * no  # 1e-12: 1 - 0.9 is not exactly the 0.1 that a rate of 0.1 is
    return {
        # Trapezoids: of equal scores, yeses and noes of one step, half counts.
        "auc": ((true - true_steps / 2) * false_steps).sum(axis=1) / (yes * no)[:, 0],
        # Each step's recall times the precision behind it.
        "average_precision": (true_steps * precision).sum(axis=1) / yes[:, 0],
        # The last cut that keeps the noes is the largest sensitivity.
        "sensitivity_at_90": np.max(true * within, axis=1) / yes[:, 0],
    }
