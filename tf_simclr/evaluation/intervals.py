"""Intervals that cover what they claim at few patients, too: of an AUC, of a share, of an average precision.

The interval of DeLong is too narrow where the AUC is near 1 and patients are few, and has no width at all where a score
tells them apart; the bootstrap likewise.  Here an interval holds those true values from which what was found lies at
most 1.96 standard deviations away (a score interval, as Wilson's of a share), with the standard deviation *of the true
value*, which is above 0 everywhere below 1:

1. A variance of an AUC which depends on the AUC and the numbers alone, for as many independent images as the patients
   are worth at least: between Hanley and McNeil's, which supposes scores of two like distributions, and the largest
   that scores of that AUC can have, which some with long tails come near to.
2. Multiplied by how far the data's own variance differs from it, the variance of DeLong over patients (Obuchowski's);
   the fewer patients are discordant, the less is believed of that factor.

With many patients it becomes DeLong's interval.  `tools/interval_coverage.py` measures how often it covers the truth.

References:
    DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988); Obuchowski, Biometrics 53 (1997), for images of patients
    Hanley and McNeil, Radiology 143 (1982); Newcombe, Statistics in Medicine 25 (2006), Part 2, method 5
    Birnbaum and Klose, Annals of Mathematical Statistics 28 (1957), for the largest variance
    Wilson, JASA 22 (1927); Boyd, Eng and Page, ECML (2013), Section 4.3, for the average precision
    Donner and Zou, Statistics in Medicine 31 (2012), for differences
    Holm, Scandinavian Journal of Statistics 6 (1979)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from tf_simclr.errors import check
from tf_simclr.evaluation.binary import average_precision, check_both, ranking
from tf_simclr.evaluation.patients import LEVEL, bootstrap

_Interval = tuple[float, float]
_BELIEF = 3.0
"""Discordant patients at which the data's own variance counts as much as the formula's."""
_CAUTION = 0.75
"""Where the formula lies between the variance of like distributions (0) and the largest that there is (1), as a weight
of their logarithms.

This and `_BELIEF` were chosen by `tools/interval_coverage.py`, the narrowest by which each of its shapes is covered in
93 of 100 studies or more.
"""
_OF_DRAWS = 2.0
"""How many times as much as draws are above what was found, what was found is above the truth: 1.8 to 2.4 in normal and
long-tailed scores of 10 + 40 and 50 + 200 patients, since a draw has the same patients twice."""
_BELOW = 1.3
"""By how much the variance of an average precision is enlarged towards lower ones, which hang on the few false alarms
among the highest scores: scores with long tails have more of them than draws of those that are there can show.  Chosen
as `_CAUTION` was.
"""
_BISECTIONS = 60
SEPARATED = (
    "Every positive image has a higher score than every negative one: an AUC of 1 among few patients says no more than "
    "the lower end of its interval."
)
"""What is said of a perfect separation."""


@dataclass(frozen=True)
class _Areas:
    """AUCs of several scores of the same images, with what each patient contributes to their variance."""

    values: np.ndarray
    """`(k,)`."""
    positive: np.ndarray
    """What a patient's positive images add to each AUC, `(k, patients)`; 0 of one who has none."""
    negative: np.ndarray
    has: np.ndarray
    """Whether a patient has positive and negative images, bool `(2, patients)`."""
    worth: tuple[float, float]
    """Positive and negative images that the patients are worth at least (Kish)."""

    @property
    def covariance(self) -> np.ndarray:
        """DeLong's, over patients, `(k, k)`: Obuchowski (1997), Section 2."""
        with_positive, with_negative = (int(count) for count in self.has.sum(axis=1))
        # Σ over patients of the products of what each adds, (k, patients) · (patients, k) → (k, k).
        across = self.positive @ self.negative.T
        # A patient with both kinds of images adds to both: what is across counts twice.
        return np.asarray(
            corrected(with_positive) * self.positive @ self.positive.T
            + corrected(with_negative) * self.negative @ self.negative.T
            + corrected(self.has.shape[1]) * (across + across.T)
        )

    def mean(self) -> "_Areas":
        """The mean of the AUCs, as one."""
        return self.combined(np.full(len(self.values), 1 / len(self.values)))

    def combined(self, shares: np.ndarray) -> "_Areas":
        """A weighted sum of the AUCs, as one."""
        values, positive, negative = (shares @ x for x in (self.values, self.positive, self.negative))
        return _Areas(np.atleast_1d(values), np.atleast_2d(positive), np.atleast_2d(negative), self.has, self.worth)

    def interval(self, number: int = 0) -> _Interval:
        """The interval of one of the AUCs."""
        # What DeLong says of the one AUC; what the formula says of an AUC at each true value.
        value, variance = float(self.values[number]), float(self.covariance[number, number])
        fewest, (positives, negatives) = float(self.has.sum(axis=1).min()), self.worth

        def expected(at: np.ndarray) -> np.ndarray:
            return _formula(at, positives=positives, negatives=negatives)

        return _score_interval(value, variance, expected=expected, independent=fewest)


def corrected(count: int) -> float:
    """From a sum of squares of so many patients to an unbiased variance."""
    return float(count / max(count - 1, 1))


def areas(scores: np.ndarray, labels: np.ndarray, *, patients: np.ndarray | Sequence | None = None) -> _Areas:
    """AUCs with DeLong's structural components.

    Args:
        scores: `(n,)`, or `(k, n)` of several that answered the same images; the larger the likelier positive.
        labels: 0 or 1, `(n,)`.
        patients: one name an image; by default each image is a patient's only one.

    Raises:
        InputError: one class only.
    """
    check_both(labels)
    scores, yes = np.atleast_2d(np.asarray(scores, float)), np.asarray(labels) == 1
    # Without patients each image is one of its own.
    _, member = np.unique(np.arange(len(yes)) if patients is None else np.asarray(patients), return_inverse=True)
    placed = np.stack([_placements(row, yes) for row in scores])  # (k, n): share of the other class in the right order
    values = placed[:, yes].mean(axis=1)
    count = member.max() + 1
    # For each class: what a patient's images of it add to each AUC, and how many independent ones they are.
    parts, worth = [], []
    for chosen in (yes, ~yes):
        # How far each image's share lies from the AUC, over the number of its class.
        own = (placed[:, chosen] - values[:, None]) / chosen.sum()
        parts.append(np.stack([np.bincount(member[chosen], weights=row, minlength=count) for row in own]))
        worth.append(_effective(member[chosen]))
    has = np.stack([np.bincount(member[chosen], minlength=count) > 0 for chosen in (yes, ~yes)])
    return _Areas(values, parts[0], parts[1], has, (worth[0], worth[1]))


def _placements(scores: np.ndarray, yes: np.ndarray) -> np.ndarray:
    """For each image the share of images of the other class that it is in the right order with, ties one half."""
    found = np.empty(len(scores))
    for own, sign in ((yes, 1), (~yes, -1)):
        # For noes the other way round: with the sign turned, "below" is "in the right order" for both.
        others = np.sort(sign * scores[~own])
        mine = sign * scores[own]
        # Strictly below plus at or below, halved: ties count one half.
        below = np.searchsorted(others, mine, "left") + np.searchsorted(others, mine, "right")
        found[own] = below / (2 * len(others))
    return found


def _effective(member: np.ndarray) -> float:
    """Independent images that images of patients are worth at least: `n² / Σ nᵢ²` (Kish)."""
    sizes = np.bincount(member).astype(float)
    return float(sizes.sum() ** 2 / np.square(sizes).sum())


def _of_share(member: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The variance of a share by its true value, among images of these patients."""
    worth = _effective(member)
    return lambda at: np.asarray(at * (1 - at) / worth)


def _formula(auc: np.ndarray, *, positives: float, negatives: float) -> np.ndarray:
    """Variance of an AUC whose true value this is, if nothing else is known."""
    # Hanley and McNeil's terms with the mean number of both classes.
    more = (positives + negatives) / 2 - 1
    spread = 1 + more * (1 - auc) / (2 - auc) + more * auc / (1 + auc)
    like = spread / (positives * negatives)  # of A (1 - A): Newcombe's symmetric form of Hanley and McNeil's
    largest = 1 / min(positives, negatives)  # that of a share among the class that has fewer
    # Between both, as a weighted mean of logarithms.
    return np.asarray(auc * (1 - auc) * like ** (1 - _CAUTION) * largest**_CAUTION)


def _score_interval(
    value: float,
    variance: float,
    *,
    expected: Callable[[np.ndarray], np.ndarray],
    independent: float,
) -> _Interval:
    """The true values from which `value` is not too far away.

    Args:
        value: found, in [0, 1].
        variance: of it, as the data say; 0 where they do not (all alike).
        expected: true value to the variance that `value` then has, at least.
        independent: patients.
    """
    # At 0 and 1 the formula is 0: the value is kept off them for the comparison alone.
    formula = float(expected(np.array(np.clip(value, 1e-3, 1 - 1e-3))))
    # 4 A (1 - A) of the patients disagree, about: all at 0.5, none at 0 or 1.
    discordant = independent * 4 * value * (1 - value)
    belief = discordant / (discordant + _BELIEF) if variance > 1e-12 and independent >= 2 else 0.0
    # How much more or less the data vary than the formula says, believed as far as they are many.
    factor = (max(variance, 1e-12) / formula) ** belief
    # 1.96 at 95 %.
    far = float(ndtri((1 + LEVEL) / 2))

    def limit(inside: float, outside: float) -> float:
        # Bisection between a value that is near enough and one that may not be, 60 times: to the last digit.
        for _ in range(_BISECTIONS):
            middle = (inside + outside) / 2
            away = abs(value - middle) > far * np.sqrt(factor * float(expected(np.array(middle))))
            inside, outside = (inside, middle) if away else (middle, outside)
        # A limit at an end is the end itself.
        return float(outside if outside in (0.0, 1.0) else inside)

    return limit(value, 0.0), limit(value, 1.0)


def auc_interval(scores: np.ndarray, labels: np.ndarray, *, patients: np.ndarray | Sequence | None = None) -> _Interval:
    """The 95 % interval of an AUC; arguments as of `areas`; of several scores that of their mean AUC.

    Example:
        >>> low, high = auc_interval(np.arange(14.0), np.repeat([0, 1], [8, 6]))  # told apart
        >>> round(low, 2), high
        (0.64, 1.0)
    """
    return areas(scores, labels, patients=patients).mean().interval()


def estimate(value: float, interval: tuple[float, float]) -> dict[str, float]:
    """A number with its interval, as results are written: `value`, `low` and `high`."""
    return {"value": value, "low": interval[0], "high": interval[1]}


def separated(scores: np.ndarray, labels: np.ndarray) -> bool:
    """Whether every positive image has a higher score than every negative one."""
    yes = np.asarray(labels) == 1
    return bool(yes.any() and (~yes).any() and scores[yes].min() > scores[~yes].max())


def share_interval(hits: np.ndarray, *, patients: np.ndarray | Sequence | None = None) -> _Interval:
    """Wilson's interval of a share over patients: of a sensitivity, a specificity, an accuracy.

    Args:
        hits: bool, or numbers in [0, 1], `(n,)`.
        patients: one name an image; by default each image is a patient's only one.

    Example:
        >>> [round(end, 2) for end in share_interval(np.array([1, 1, 1, 1, 1, 1, 1, 1, 1, 0]))]
        [0.6, 0.98]
    """
    hits = np.asarray(hits, float)
    check(len(hits) > 0, "there must be at least one image to take a share of", images=0)
    _, member = np.unique(np.arange(len(hits)) if patients is None else np.asarray(patients), return_inverse=True)
    value, count = float(hits.mean()), int(member.max()) + 1
    # A patient's images add to the share together.
    apart = np.bincount(member, weights=hits - value) / len(hits)
    variance = corrected(count) * float(np.square(apart).sum()) if count > 1 else 0.0
    # Single images have exactly the formula's variance; only images of patients can tell another.
    variance = variance if count < len(hits) else 0.0
    return _score_interval(value, variance, expected=_of_share(member), independent=count)


def precision_interval(
    scores: np.ndarray,
    labels: np.ndarray,
    *,
    patients: np.ndarray | Sequence | None = None,
    draws: int = 200,
    seed: int = 0,
) -> _Interval:
    """The interval of an average precision: as of a share of the positives (Boyd et al.), spread as draws of patients.

    Among few patients an average precision is larger than it would be among many: the best of few false alarms is low.
    Draws are larger than what they are drawn from by about half as much (`_OF_DRAWS`); the lower end is that of what is
    then left.

    Args:
        scores: `(n,)`.
        labels: 0 or 1, `(n,)`.
        patients: one name an image; by default each image is a patient's only one.
        draws: of the bootstrap over patients.
        seed: of the draws.
    """
    value, yes = average_precision(scores, labels), np.asarray(labels) == 1
    names = np.arange(len(yes)) if patients is None else np.asarray(patients)

    def of_draws(weights: np.ndarray) -> np.ndarray:
        return ranking(scores, labels, weights=weights)["average_precision"]

    # The spread is that of draws of patients; its place is moved by what draws are above what was found.
    drawn = bootstrap(of_draws, names, labels=labels, draws=draws, seed=seed)
    inside = float(np.clip(value - _OF_DRAWS * max(float(np.mean(drawn)) - value, 0.0), 0, 1))
    member = np.unique(names[yes], return_inverse=True)[1]
    expected = _of_share(member)
    # A precision that is high by luck has a small spread by the same luck: of what is below the formula's, half counts.
    spread, formula = float(np.var(drawn)), float(expected(np.array(value)))
    # The geometric mean of both.
    spread = np.sqrt(spread * formula) if 0 < spread < formula else spread

    def about(centre: float, variance: float) -> _Interval:
        independent = float(member.max()) + 1
        return _score_interval(centre, variance, expected=expected, independent=independent)

    low, high = about(inside, _BELOW * float(spread)), about(value, float(spread))
    # The lower end about what is likely true, the upper about what was found.
    return low[0], high[1]


@dataclass(frozen=True)
class _Difference:
    """Two AUCs on the same images."""

    value: float
    """First minus second."""
    low: float
    high: float
    p: float
    """DeLong's, two-sided, of the hypothesis that the true AUCs are equal."""


def paired_difference(found: _Areas, *, first: int, second: int) -> _Difference:
    """The difference of two AUCs, whose interval is made of their own two (Donner and Zou), and DeLong's test.

    The ends of both intervals are joined by the correlation of the AUCs, so that it has a width even where one or both
    of the scores tell all images apart.  Of accuracies: `reports.paired_difference`.
    """
    a, b = float(found.values[first]), float(found.values[second])
    # The two AUCs' own covariance, (2, 2).
    covariance = found.covariance[np.ix_([first, second], [first, second])]
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    if variance <= 1e-12 < covariance[0, 0]:  # both order every patient's images alike
        return _Difference(a - b, a - b, a - b, 1.0)
    scale = float(np.sqrt(covariance[0, 0] * covariance[1, 1]))
    correlation = float(np.clip(covariance[0, 1] / scale, -1, 1)) if scale > 1e-12 else 0.0
    (low_a, high_a), (low_b, high_b) = (found.interval(i) for i in (first, second))

    def apart(one: float, other: float) -> float:
        # Donner and Zou: each limit's distance is made of both AUCs' own distances and their correlation.
        return float(np.sqrt(max(one**2 + other**2 - 2 * correlation * one * other, 0.0)))

    p = float(2 * ndtr(-abs(a - b) / np.sqrt(variance))) if variance > 1e-12 else 1.0
    low, high = a - b - apart(a - low_a, high_b - b), a - b + apart(high_a - a, b - low_b)
    return _Difference(a - b, max(low, -1.0), min(high, 1.0), p)


def holm(values: Sequence[float]) -> list[float]:
    """P-values adjusted for how many there are, by Holm's step-down.

    Example:
        >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]
    """
    found, highest = np.empty(len(values)), 0.0
    # The smallest p times how many there are, the next times one fewer, and never below the one before it.
    for step, place in enumerate(np.argsort(values, kind="stable")):
        highest = max(highest, min(1.0, (len(values) - step) * values[place]))
        found[place] = highest
    return [float(p) for p in found]
