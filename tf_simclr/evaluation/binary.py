"""Metrics of a yes-or-no question from scores: what a physician asks of a test, and whether its probabilities are true.

Curves are scikit-learn's; every function takes scores `(n,)`, the larger the likelier yes, and labels `(n,)` of 0, 1.

`measures` takes many weightings of the images at once, for a bootstrap over patients: a draw of patients with
replacement is a weight an image, how often its patient was drawn.  So scores are sorted once, and each metric is a few
cumulative sums, for a thousand draws together.
"""

from collections.abc import Callable, Sequence
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


BINS = 10
"""Of equal width, of the calibration error."""


def measures(probabilities: np.ndarray, labels: np.ndarray, *, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics of `evaluation.binary` by name, and accuracy, each `(draws,)`.

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

    which = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    bins = np.where(which[:, None] == np.arange(BINS), (probabilities - labels)[:, None], 0.0)
    return {
        "accuracy": mean(((probabilities > 0.5) == labels).astype(float)),
        **ranking(probabilities, labels, weights=weights),
        "brier": mean((probabilities - labels) ** 2),
        "calibration_error": np.abs(weights @ bins).sum(axis=1) / total,
    }


def ranking(
    scores: np.ndarray, labels: np.ndarray, *, weights: np.ndarray, specificity: float = 0.9
) -> dict[str, np.ndarray]:
    """What depends on the order of the scores alone: `auc`, `average_precision` and `sensitivity_at_90`."""
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # equal scores are one step
    true, false = (np.cumsum(weights[:, order] * (labels[order] == c), axis=1)[:, ends] for c in (1, 0))
    yes, no = true[:, -1:], false[:, -1:]
    true_steps, false_steps = (np.diff(x, axis=1, prepend=0) for x in (true, false))
    precision = true / np.maximum(true + false, 1e-300)  # before the first weight there is neither
    within = false <= (1 - specificity + 1e-12) * no
    return {
        "auc": ((true - true_steps / 2) * false_steps).sum(axis=1) / (yes * no)[:, 0],
        "average_precision": (true_steps * precision).sum(axis=1) / yes[:, 0],
        "sensitivity_at_90": np.max(true * within, axis=1) / yes[:, 0],
    }


def group_weights(
    groups: np.ndarray | Sequence, *, draws: int, seed: int, fits: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """How often each image is drawn when its group (a patient) is drawn with replacement: `(draws, n)`.

    Args:
        groups: one name an image.
        draws: how many, of as many groups as there are.
        seed: of the draws.
        fits: weights `(k, n)` to whether each draw can be used, bool `(k,)`; others are drawn again.

    Raises:
        InputError: fewer than two groups, or fewer than a tenth of the draws can be used.
    """
    names, member = np.unique(groups, return_inverse=True)
    check(len(names) >= 2, "there must be at least two groups to draw from", groups=len(names))
    rng, kept = np.random.default_rng(seed), np.empty((0, len(member)))
    for _ in range(10):
        drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)[:, member].astype(float)
        kept = np.concatenate([kept, drawn[fits(drawn)]])[:draws]
        if len(kept) == draws:
            return kept
    raise InputError(f"draws of patients must have both classes; there are too few patients. Received: {len(names)}")


def both_classes(labels: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Weights `(k, n)` to whether both classes, 0 and 1, have some in each draw."""
    return lambda weights: (weights @ (labels == 1) > 0) & (weights @ (labels == 0) > 0)
