"""What each way to train is worth on the same test patients: metrics with intervals, and differences in pairs.

Patients are drawn once for all ways, so what makes a patient hard for all of them widens no difference.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tf_simclr.errors import check
from tf_simclr.evaluation.binary import both_classes, group_weights, measures

DRAWS = 1000
Estimate = dict[str, float]
"""`value`, and the `low` and `high` end of its 95 % interval."""


@dataclass(frozen=True)
class Asked:
    """Images of a part, in one order for all ways."""

    names: np.ndarray
    labels: np.ndarray
    """0 or 1, `(n,)`."""
    patients: np.ndarray


@dataclass(frozen=True)
class Way:
    """What the networks of one way to train say: probabilities, a row a seed."""

    title: str
    validation: np.ndarray
    """`(seeds, m)`."""
    test: np.ndarray
    """`(seeds, n)`."""

    @property
    def together(self) -> np.ndarray:
        """Mean of the seeds on the test images, `(n,)`."""
        return self.test.mean(axis=0)


def estimates(
    ways: Sequence[Way], *, validation: Asked, test: Asked, draws: int = DRAWS, seed: int = 0
) -> list[dict[str, Estimate]]:
    """For each way its metrics: means over the seeds, with the middle 95 % of draws of test patients.

    `sensitivity` and `specificity` are at the threshold that does best on the validation patients (`threshold`, mean);
    `auc_gain` is the difference in AUC from the first way, `(first − this)`.

    Raises:
        InputError: a part has one class only, or too few patients.
    """
    drawn = group_weights(test.patients, draws=draws, seed=seed, fits=both_classes(test.labels))
    weights = np.concatenate([np.ones((1, len(test.labels))), drawn])
    found = [measured(way, validation=validation, test=test, weights=weights) for way in ways]
    for values in found:
        values["auc_gain"] = found[0]["auc"] - values["auc"]
    return [{name: estimate(values) for name, values in of.items()} for of in found]


def measured(way: Way, *, validation: Asked, test: Asked, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Each metric's mean over the seeds, for each of the weightings `(k,)`."""
    of_seeds: list[dict[str, np.ndarray]] = []
    for known, said in zip(way.validation, way.test, strict=True):
        cut = threshold(known, validation.labels)
        right = {"sensitivity": (said >= cut) & (test.labels == 1), "specificity": (said < cut) & (test.labels == 0)}
        own = measures(said.astype(float), test.labels, weights=weights)
        for (name, hits), label in zip(right.items(), (1, 0), strict=True):
            own[name] = weights @ hits / (weights @ (test.labels == label))
        own["threshold"] = np.full(len(weights), cut)
        of_seeds.append(own)
    return {name: np.mean([own[name] for own in of_seeds], axis=0) for name in of_seeds[0]}


def threshold(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The probability from which on a yes is said, such that sensitivity and specificity have the largest sum.

    Half way to the next lower probability, the lowest of equally good ones (Youden, Cancer 3, 1950).

    Raises:
        InputError: one class only.

    Example:
        >>> threshold(np.array([0.1, 0.2, 0.6, 0.8]), np.array([0, 0, 1, 1]))
        0.4
    """
    check(len(set(labels.tolist())) == 2, "the validation patients must have both classes")
    at = np.unique(probabilities)
    cuts = np.append(at[:1] / 2, (at[1:] + at[:-1]) / 2)
    said = probabilities >= cuts[:, None]
    sums = said[:, labels == 1].mean(axis=1) + (~said)[:, labels == 0].mean(axis=1)
    return float(cuts[sums.argmax()])


def estimate(values: np.ndarray) -> Estimate:
    """The first of the values, and the middle 95 % of the others."""
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return {"value": float(values[0]), "low": float(low), "high": float(high)}
