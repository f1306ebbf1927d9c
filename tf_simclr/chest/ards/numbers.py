"""What each way to train is worth on the same test patients: metrics with intervals, and differences in pairs.

Patients are drawn once for all ways, so what makes a patient hard for all of them widens no difference.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tf_simclr.evaluation.binary import measures, threshold
from tf_simclr.evaluation.intervals import areas, estimate, holm, paired_difference, share_interval
from tf_simclr.evaluation.patients import DRAWS, middle, weightings

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
    """For each way its metrics: means over the seeds, with 95 % intervals over test patients.

    `sensitivity` and `specificity` are at the threshold that does best on the validation patients (`threshold`: mean,
    lowest and highest); `auc_gain` is the difference in AUC from the first way, `(first − this)`, with DeLong's p and
    that adjusted for how many ways are compared (Holm).  Intervals of these are `evaluation.intervals`'; of the others
    they are the middle 95 % of draws of patients.

    Raises:
        InputError: a part has one class only, or too few patients.
    """
    # One row of ones, which is the sample itself, then the draws: (1 + draws, n).
    drawn = list(weightings(test.patients, labels=test.labels, draws=draws, seed=seed))
    weights = np.concatenate([np.ones((1, len(test.labels))), *drawn])
    # 1. Metrics by the bootstrap over patients.
    found = [
        {name: _estimate(values) for name, values in _measured(way, test=test, weights=weights).items()}
        | _at_threshold(way, validation=validation, test=test)
        for way in ways
    ]
    # 2. AUCs by DeLong's covariance over patients: each way's mean over its seeds is a row of `shares`,
    #    (ways, networks), and so the differences between ways keep what the patients have in common.
    shares = np.repeat(np.eye(len(ways)) / [len(way.test) for way in ways], [len(way.test) for way in ways], axis=1)
    means = areas(np.concatenate([way.test for way in ways]), test.labels, patients=test.patients).combined(shares)
    for number, of in enumerate(found):
        of["auc"] = estimate(float(means.values[number]), means.interval(number))
        gain = paired_difference(means, first=0, second=number)
        of["auc_gain"] = {"value": gain.value, "low": gain.low, "high": gain.high, "p": gain.p}
    # 3. p values by Holm: the more ways are compared with the first, the more one of them differs by chance.
    adjusted = holm([of["auc_gain"]["p"] for of in found[1:]])
    for of, p in zip(found, [1.0, *adjusted], strict=True):
        of["auc_gain"]["p_adjusted"] = p
    return found


def _measured(way: Way, *, test: Asked, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Each metric's mean over the seeds, for each of the weightings `(k,)`."""
    # (seeds, k) → (k,).
    of_seeds = [measures(said.astype(float), test.labels, weights=weights) for said in way.test]
    return {name: np.mean([own[name] for own in of_seeds], axis=0) for name in of_seeds[0]}


def _at_threshold(way: Way, *, validation: Asked, test: Asked) -> dict[str, Estimate]:
    """Sensitivity and specificity at each seed's own threshold, means over the seeds, with that threshold's mean."""
    # Chosen on validation patients; test patients are only measured at it.
    cuts = np.array([threshold(known, validation.labels) for known in way.validation])
    said = np.mean(way.test >= cuts[:, None], axis=0)  # of each image, the share of the seeds that call it positive
    found = {"threshold": estimate(float(cuts.mean()), (float(cuts.min()), float(cuts.max())))}
    for name, right, rows in (("sensitivity", said, test.labels == 1), ("specificity", 1 - said, test.labels == 0)):
        found[name] = estimate(float(right[rows].mean()), share_interval(right[rows], patients=test.patients[rows]))
    return found


def _estimate(values: np.ndarray) -> Estimate:
    """The first of the values, and the middle 95 % of the others."""
    return estimate(float(values[0]), middle(values[1:]))
