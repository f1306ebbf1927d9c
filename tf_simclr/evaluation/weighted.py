"""Metrics of a yes-or-no question under many weightings of the images at once: a bootstrap over patients in a breath.

A draw of patients with replacement is a weight an image: how often its patient was drawn.  So scores are sorted once,
and each metric is a few cumulative sums, for a thousand draws together.
"""

from collections.abc import Callable, Sequence

import numpy as np

from tf_simclr.errors import InputError, check
from tf_simclr.evaluation.binary import check_both

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
