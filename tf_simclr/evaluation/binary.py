"""Metrics of a yes-or-no question from scores: what a physician asks of a test, and whether its probabilities are true.

Curves are scikit-learn's; every function takes scores `(n,)`, the larger the likelier yes, and labels `(n,)` of 0, 1.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn import metrics

from tf_simclr.errors import InputError, check


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


def sensitivity_at(scores: np.ndarray, labels: np.ndarray, *, specificity: float = 0.9) -> float:
    """Largest share of yeses found by a threshold that keeps at least this share of noes.

    Example:
        >>> sensitivity_at(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]), specificity=0.9)
        0.5
    """
    check(0 <= specificity <= 1, "specificity must lie in [0, 1]", specificity=specificity)
    check_both(labels)
    false, true, _ = metrics.roc_curve(labels, scores, drop_intermediate=False)
    return float(true[false <= 1 - specificity + 1e-12].max())


def brier(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean squared distance of probabilities from what was; 0 is best, 0.25 a coin's."""
    return float(np.mean((probabilities - labels) ** 2))


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, *, bins: int = 10) -> float:
    """Mean distance, over images, of a bin's mean probability from its share of yeses (arXiv:1706.04599, Section 2).

    Bins are of equal width.

    Example:
        >>> expected_calibration_error(np.array([0.95, 0.95, 0.95, 0.95]), np.array([1, 1, 1, 0]))
        0.2
    """
    said, was, counts = reliability(probabilities, labels, bins=bins)
    return float(np.round((np.abs(said - was) * counts).sum() / counts.sum(), 12))


def reliability(
    probabilities: np.ndarray, labels: np.ndarray, *, bins: int = 10
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean probability, share of yeses and number of images of each bin that is not empty."""
    check(bins >= 1, "bins must be at least 1", bins=bins)
    which = np.minimum((probabilities * bins).astype(int), bins - 1)
    counts = np.bincount(which, minlength=bins)
    there = counts > 0
    said, was = (np.bincount(which, weights=x, minlength=bins)[there] / counts[there] for x in (probabilities, labels))
    return said, was, counts[there]


def grouped_draws(
    metric: Callable[[np.ndarray, np.ndarray], float],
    scores: np.ndarray,
    *,
    labels: np.ndarray,
    groups: np.ndarray,
    draws: int = 1000,
    seed: int = 0,
) -> np.ndarray:
    """Bootstrap of a metric that draws groups, not images: images of one patient are no independent evidence.

    Draws in which only one class occurs are drawn again, up to ten times as many.

    Args:
        metric: scores and labels to a number.
        scores: `(n,)`.
        labels: 0 or 1, `(n,)`.
        groups: what is drawn, one name an image.
        draws: how many.
        seed: of the draws.

    Returns:
        The metric of each draw, `(draws,)`.

    Raises:
        InputError: fewer than two groups, or most draws have one class only.
    """
    names, member = np.unique(groups, return_inverse=True)
    check(len(names) >= 2, "there must be at least two groups to draw from", groups=len(names))
    rows_of = np.split(np.argsort(member, kind="stable"), np.cumsum(np.bincount(member))[:-1])
    rng = np.random.default_rng(seed)
    values: list[float] = []
    for _ in range(10 * draws):
        rows = np.concatenate([rows_of[i] for i in rng.integers(0, len(names), len(names))])
        if 0 < labels[rows].sum() < len(rows):
            values.append(metric(scores[rows], labels[rows]))
        if len(values) == draws:
            return np.array(values)
    raise InputError(f"draws of patients must have both classes; there are too few patients. Received: {len(names)}")


def grouped_interval(
    metric: Callable[[np.ndarray, np.ndarray], float], scores: np.ndarray, **options: Any
) -> tuple[float, float]:
    """The middle 95 % of `grouped_draws`."""
    low, high = np.quantile(grouped_draws(metric, scores, **options), [0.025, 0.975])
    return float(low), float(high)
