"""Classification metrics and their intervals: arrays in, numbers out."""

from collections.abc import Callable, Sequence

import numpy as np

from tf_simclr.errors import check


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Share of predictions `(n,)` that equal their labels `(n,)`, in [0, 1].

    Raises:
        InputError: there is no label, or there are not as many predictions as labels.

    Example:
        >>> accuracy(np.array([0, 1, 1, 1]), np.array([0, 1, 2, 1]))
        0.75
    """
    check_pairs(predictions, labels)
    return float(np.mean(predictions == labels))


def top_k_accuracy(scores: np.ndarray, labels: np.ndarray, *, k: int = 5) -> float:
    """Share of rows of scores `(n, classes)` whose label is among the k highest, in [0, 1].

    Of equal scores the class with the lower number comes first, so that a constant gets no credit for its ties.

    Raises:
        InputError: k lies outside 1..classes, or there are not as many rows as labels.

    Example:
        >>> top_k_accuracy(np.array([[0.1, 0.5, 0.4], [0.8, 0.1, 0.1]]), np.array([2, 2]), k=2)
        0.5
    """
    check_pairs(scores, labels)
    check(1 <= k <= scores.shape[1], f"k must lie in 1..{scores.shape[1]}, the number of classes", k=k)
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    ties = (scores == own) & (np.arange(scores.shape[1]) < labels[:, None])
    return float(np.mean(((scores > own) | ties).sum(axis=1) < k))


def mean_per_class_accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Mean of the accuracies of the classes that occur among the labels `(n,)`, in [0, 1].

    The metric of the unbalanced data sets in SimCLR, Appendix B.8 (Aircraft, Pets, Caltech-101, Flowers).

    Example:
        >>> mean_per_class_accuracy(np.array([0, 0, 0, 0]), np.array([0, 0, 0, 1]))
        0.5
    """
    check_pairs(predictions, labels)
    return float(np.mean([accuracy(predictions[labels == c], labels[labels == c]) for c in np.unique(labels)]))


def bootstrap_interval(
    statistic: Callable[..., float],
    arrays: Sequence[np.ndarray],
    *,
    level: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of `statistic(*arrays)` when examples are drawn again with replacement.

    Efron and Tibshirani, An Introduction to the Bootstrap (1993), Section 13.3.  It covers the choice of the test
    examples, not that of the training examples or seeds.

    Args:
        arrays: one row an example, equally many in each; the same rows are drawn from each.
        level: coverage, in (0, 1).
        draws: resamples; 1000 give the bounds to about a tenth of the interval's half width.

    Example:
        >>> low, high = bootstrap_interval(np.mean, [np.arange(100) < 80])
        >>> 0.7 < low < 0.8 < high < 0.9
        True
    """
    check(0 < level < 1, "level must lie between 0 and 1", level=level)
    check(draws >= 1, "draws must be at least 1", draws=draws)
    n = len(arrays[0])
    check(n > 0 and all(len(a) == n for a in arrays), "arrays must be equally long", lengths=[len(a) for a in arrays])
    rng = np.random.default_rng(seed)
    rows = (rng.integers(0, n, n) for _ in range(draws))
    values = [statistic(*(array[drawn] for array in arrays)) for drawn in rows]
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def check_pairs(values: np.ndarray, labels: np.ndarray) -> None:
    """Raises `InputError` unless there is one value a label, and at least one."""
    check(len(labels) > 0, "there must be at least one label", labels=len(labels))
    check(len(values) == len(labels), "each label needs one prediction", predictions=len(values), labels=len(labels))
