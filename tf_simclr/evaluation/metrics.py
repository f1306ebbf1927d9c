"""Classification metrics and their intervals: arrays in, numbers out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tf_simclr.errors import check
from tf_simclr.evaluation.patients import DRAWS, bootstrap, middle, repeated


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Share of predictions `(n,)` that equal their labels `(n,)`, in [0, 1].

    Raises:
        InputError: there is no label, or there are not as many predictions as labels.

    Example:
        >>> accuracy(np.array([0, 1, 1, 1]), np.array([0, 1, 2, 1]))
        0.75
    """
    _check_pairs(predictions, labels)
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
    _check_pairs(scores, labels)
    check(1 <= k <= scores.shape[1], f"k must lie in 1..{scores.shape[1]}, the number of classes", k=k)
    return float(np.mean(top_k_hits(scores, labels, k=k)))


def top_k_hits(scores: np.ndarray, labels: np.ndarray, *, k: int) -> np.ndarray:
    """Whether each row's label is among its k highest scores, bool `(n,)`; ties as in `top_k_accuracy`."""
    # A label's place: how many classes have a higher score, and of equal ones how many have a lower number.
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    ties = (scores == own) & (np.arange(scores.shape[1]) < labels[:, None])
    return np.asarray(((scores > own) | ties).sum(axis=1) < k)


def mean_per_class_accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Mean of the accuracies of the classes that occur among the labels `(n,)`, in [0, 1].

    The metric of the unbalanced data sets in SimCLR, Appendix B.8 (Aircraft, Pets, Caltech-101, Flowers).

    Example:
        >>> mean_per_class_accuracy(np.array([0, 0, 0, 0]), np.array([0, 0, 0, 1]))
        0.5
    """
    _check_pairs(predictions, labels)
    counts = np.bincount(labels)
    hits = np.bincount(labels, weights=predictions == labels)
    return float(np.mean(hits[counts > 0] / counts[counts > 0]))


def average_precisions(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The 11-point interpolated average precision of each class, in [0, 1]; not a number for a class that never occurs.

    The mean over the recalls 0, 0.1, … 1 of the highest precision at that recall or a higher one; PASCAL VOC 2007 ranks
    classifiers of images by it.

    Args:
        scores: `(n, classes)`; of equal ones the earlier example ranks first.
        labels: `(n, classes)`: 1 present, 0 absent, -1 left out of the ranking (VOC's difficult ones).

    References:
        Everingham et al., The PASCAL Visual Object Classes Challenge (2010), Section 4.1

    Example:
        >>> scores, labels = np.array([[0.9], [0.8], [0.7]]), np.array([[1], [0], [1]])
        >>> average_precisions(scores, labels).round(4)  # precision 1 up to recall 0.5, then 2 / 3
        array([0.8485])
    """
    _check_pairs(scores, labels)
    check(scores.shape == labels.shape, "labels must have a column a class", scores=scores.shape, labels=labels.shape)
    # By class: labels in the order of falling scores, (n, classes); difficult images (-1) are in no count.
    ranked = np.take_along_axis(labels, np.argsort(-scores, axis=0, kind="stable"), axis=0)
    found, seen = np.cumsum(ranked > 0, axis=0), np.cumsum(ranked >= 0, axis=0)
    # Interpolated: the best precision from here on to the right.
    precision = np.maximum.accumulate((found / np.maximum(seen, 1))[::-1], axis=0)[::-1]
    total = found[-1]
    # The first place that reaches each tenth of the recalls; multiplied out, as 0.3 is no float.
    first = [np.argmax(10 * found >= tenths * total, axis=0) for tenths in range(11)]
    values = np.mean([np.take_along_axis(precision, rank[None], axis=0)[0] for rank in first], axis=0)
    return np.where(total > 0, values, np.nan)


def mean_average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean of the `average_precisions` of the classes that occur, in [0, 1].

    Example:
        >>> mean_average_precision(np.array([[0.9], [0.1]]), np.array([[1], [0]]))
        1.0
    """
    return float(np.nanmean(average_precisions(scores, labels)))


@dataclass(frozen=True)
class Metric:
    """A number in [0, 1] that scores `(n, classes)` earn by labels; `METRICS` has them by name."""

    title: str
    """What a table calls it."""
    statistic: Callable[[np.ndarray, np.ndarray], float]
    """Of predictions `(n,)` and labels, or of scores where `ranks`."""
    ranks: bool = False
    """Whether it needs scores, and labels of any number of classes an example."""

    def __call__(self, scores: np.ndarray, labels: np.ndarray) -> float:
        return self.statistic(self.prepared(scores), labels)

    def prepared(self, scores: np.ndarray) -> np.ndarray:
        """What the statistic takes: the scores, or their best classes `(n,)`."""
        return scores if self.ranks else scores.argmax(axis=1)

    def interval(self, scores: np.ndarray, labels: np.ndarray, *, seed: int = 0) -> tuple[float, float]:
        """The 95 % bootstrap interval over the examples."""
        return bootstrap_interval(self.statistic, [self.prepared(scores), labels], seed=seed)


def bootstrap_interval(
    statistic: Callable[..., float],
    arrays: Sequence[np.ndarray],
    *,
    level: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of `statistic(*arrays)` when examples are drawn again with replacement.

    Efron and Tibshirani, An Introduction to the Bootstrap (1993), Section 13.3.  It covers the choice of the test
    examples, not that of the training examples or seeds.

    Args:
        statistic: of the arrays' rows that were drawn.
        arrays: one row an example, equally many in each; the same rows are drawn from each.
        level: coverage, in (0, 1).
        draws: resamples; 1000 give the bounds to about a tenth of the interval's half width.
        seed: of the draws.

    Example:
        >>> low, high = bootstrap_interval(np.mean, [np.arange(100) < 80])
        >>> 0.7 < low < 0.8 < high < 0.9
        True
    """
    check(0 < level < 1, "level must lie between 0 and 1", level=level)
    check(draws >= 1, "draws must be at least 1", draws=draws)
    n = len(arrays[0])
    check(n > 0 and all(len(a) == n for a in arrays), "arrays must be equally long", lengths=[len(a) for a in arrays])
    # One example has no spread: it is drawn each time.
    if n == 1:
        value = float(statistic(*arrays))
        return value, value

    def values(weights: np.ndarray) -> np.ndarray:
        return np.array([statistic(*(array[rows] for array in arrays)) for rows in map(repeated, weights)])

    return middle(bootstrap(values, np.arange(n), draws=draws, seed=seed), level=level)


def hit_rate(hits: np.ndarray, *, seed: int = 0) -> dict[str, float]:
    """The `accuracy` of answers that are right or wrong `(n,)`, with the `low` and `high` end of its 95 % interval."""
    low, high = bootstrap_interval(np.mean, [hits], seed=seed)
    return {"accuracy": float(hits.mean()), "low": low, "high": high}


METRICS = {
    "accuracy": Metric("top-1 accuracy", accuracy),
    "mean_per_class_accuracy": Metric("mean per-class accuracy", mean_per_class_accuracy),
    "mean_average_precision": Metric("11-point mAP", mean_average_precision, ranks=True),
}
"""The metrics of SimCLR, Appendix B.8."""


def _check_pairs(values: np.ndarray, labels: np.ndarray) -> None:
    """Raises `InputError` unless there is one value a label, and at least one."""
    check(len(labels) > 0, "there must be at least one label", labels=len(labels))
    check(len(values) == len(labels), "each label needs one prediction", predictions=len(values), labels=len(labels))
