"""The bootstrap over patients: the one way in which this project draws test images again.

Images of one patient are no independent evidence, so patients are drawn, with all of their images.  A draw is a weight
an image: how often its patient was drawn.  What can be computed of many weightings at once (`binary.measures`) costs a
breath for a thousand draws.

The rule for a draw in which only one class occurs, where labels are given: it is drawn again; if fewer than a tenth of
the draws have two classes, there are too few patients, and that is an error.  `stratified` draws never lack a class:
patients are then drawn among those with the same classes.

References:
    Efron and Tibshirani, An Introduction to the Bootstrap (1993), Sections 8.3 and 13.3
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tf_simclr.errors import InputError, check

DRAWS = 1000
"""They give the ends of a 95 % interval to about a tenth of its half width."""
LEVEL = 0.95
AT_ONCE = 2**22
"""Weights in memory at a time."""


def weightings(
    patients: np.ndarray | Sequence,
    *,
    labels: np.ndarray | None = None,
    draws: int = DRAWS,
    seed: int = 0,
    stratified: bool = False,
) -> Iterator[np.ndarray]:
    """Draws as many patients as there are, with replacement, many times.

    Args:
        patients: one name an image, `(n,)`.
        labels: a class an image, `(n,)`; each draw has at least two of them.  None: any draw will do.
        draws: how many.
        seed: of the draws.
        stratified: whether patients are drawn among those with the same set of classes, so that their numbers stay.

    Yields:
        Blocks `(k, n)` of how often each image was drawn, float64; all of them have `draws` rows.

    Raises:
        InputError: fewer than two patients, or too few for draws with two classes.
    """
    # Patients are drawn, images follow: `member` has for each image its patient's number.
    names, member = np.unique(np.asarray(patients), return_inverse=True)
    check(draws >= 1, "draws must be at least 1", draws=draws)
    check(len(names) >= 2, "there must be at least two patients to draw from", patients=len(names))
    # (n, classes), whether an image is of a class: a draw needs two of them.
    known = None if labels is None else np.unique(labels) == np.asarray(labels)[:, None]
    check(known is None or known.shape[1] >= 2, "labels must hold two classes at least", classes=1)
    strata = _strata_of(member, known) if stratified and known is not None else [np.arange(len(names))]
    rng, left, tried = np.random.default_rng(seed), draws, 0
    # As many draws at once as AT_ONCE weights allow.
    rows = max(1, min(draws, AT_ONCE // len(member)))
    while left:
        # Strata side by side, then back into the patients' order, then from patients to images: (rows, n).
        drawn = np.concatenate([counted(rng, stratum, rows=rows) for stratum in strata], axis=1)
        drawn = drawn[:, np.argsort(np.concatenate(strata))][:, member]
        if known is not None:
            # Draws with one class only are drawn again; ten times as many tries without enough are too few patients.
            drawn = drawn[((drawn @ known) > 0).sum(axis=1) >= 2]
        tried += rows
        if len(drawn) == 0 and tried >= 10 * draws:
            break
        yield drawn[:left]
        left -= min(left, len(drawn))
        if left and tried >= 10 * draws:
            break
    if left:
        raise InputError(f"draws of patients must have two classes; there are too few patients. Received: {len(names)}")


def counted(rng: np.random.Generator, stratum: np.ndarray, *, rows: int) -> np.ndarray:
    """How often each member of a stratum is drawn, `(rows, len(stratum))`."""
    size = len(stratum)
    # Numbers shifted by their draw: one count for all draws instead of a loop.
    drawn = rng.integers(0, size, (rows, size)) + size * np.arange(rows)[:, None]
    return np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size).astype(float)


def _strata_of(member: np.ndarray, known: np.ndarray) -> list[np.ndarray]:
    """Patients' numbers, those together whose images have the same set of classes."""
    has = np.zeros((member.max() + 1, known.shape[1]), bool)
    # Which classes each patient has images of.
    np.logical_or.at(has, member, known)
    _, kind = np.unique(has, axis=0, return_inverse=True)
    return [np.flatnonzero(kind.reshape(-1) == number) for number in range(kind.max() + 1)]


def bootstrap(
    statistic: Callable[[np.ndarray], np.ndarray], patients: np.ndarray | Sequence, **options: Any
) -> np.ndarray:
    """A statistic of each draw of patients, `(draws, …)`.

    Args:
        statistic: weights `(k, n)` to an array `(k, …)`.
        patients: one name an image, `(n,)`.
        **options: of `weightings`.
    """
    return np.concatenate([statistic(weights) for weights in weightings(patients, **options)])


def middle(values: np.ndarray, *, level: float = LEVEL) -> tuple[Any, Any]:
    """The ends of the middle part of draws `(draws, …)`: a percentile interval."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return (low, high) if np.ndim(low) else (float(low), float(high))


def repeated(weights: np.ndarray) -> np.ndarray:
    """The rows that a weighting `(n,)` stands for, each as often as it counts."""
    return np.repeat(np.arange(len(weights)), weights.astype(int))
