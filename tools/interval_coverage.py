"""How often intervals of an AUC, or of an average precision, cover the true one: tables for
docs/radiograph-statistics.md, by simulation.

    python -m tools.interval_coverage [--of auc|average_precision] [--trials 2000]

Patients have scores of a known distribution, so that the truth is known: the AUC, and with it the average precision at
the study's share of positive images, which that of a study would become if it went on for ever.  Each trial draws
patients, and asks each method for its 95 % interval.  A method that claims 95 % should cover the truth in about 95 of
100 trials, and no method should be wider than it must.
"""

import argparse
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit
from scipy.stats import norm, t

from tf_simclr.evaluation.binary import average_precision, ranking
from tf_simclr.evaluation.intervals import areas, auc_interval, precision_interval
from tf_simclr.evaluation.patients import bootstrap, middle
from tf_simclr.terminal import write

Method = Callable[..., tuple[float, float]]


@dataclass(frozen=True)
class Case:
    """A study that is simulated."""

    auc: float
    positives: int
    """Patients with images that are all positive."""
    negatives: int
    images: int = 1
    """Patients have 1, 2, … up to so many images, equally often."""
    alike: float = 0.0
    """Correlation of the scores of a patient's images."""
    shape: str = "normal"
    """Of the scores, see `SHAPES`."""


Quantiles = Callable[[np.ndarray, float, float], tuple[np.ndarray, np.ndarray]]


def _with_others(u: np.ndarray, share: float, *, apart: float) -> np.ndarray:
    """Quantiles of a mixture: a share like the other class, whose spread is 1 around 0, and the rest apart from it."""
    inside = np.where(u < share, u / max(share, 1e-9), (u - share) / (1 - share))
    return norm.ppf(np.clip(inside, 1e-9, 1 - 1e-9)) + apart * (u >= share)


SHAPES: dict[str, Quantiles] = {
    "normal": lambda u, apart, auc: (norm.ppf(u), norm.ppf(u) + apart),
    "exponential": lambda u, apart, auc: (-np.log1p(-u), -np.log1p(-u) * np.exp(apart)),
    "t of 3": lambda u, apart, auc: (t.ppf(u, 3), t.ppf(u, 3) + apart),
    "wide positives": lambda u, apart, auc: (norm.ppf(u), 3 * norm.ppf(u) + apart),
    "wide negatives": lambda u, apart, auc: (3 * norm.ppf(u), norm.ppf(u) + apart),
    "some missed": lambda u, apart, auc: (norm.ppf(u), _with_others(u, 1 - auc, apart=apart)),
    "false alarms": lambda u, apart, auc: (-_with_others(u, 1 - auc, apart=apart), -norm.ppf(u)),
    "ties": lambda u, apart, auc: (np.round(norm.ppf(u)), np.round(norm.ppf(u) + apart)),
}
"""Quantiles of negatives and positives, by the quantile's place, how far they are apart, and the AUC.

The wide ones spread three times as far; a share of 1 − AUC of the positives is missed, looking like negatives, or as
many negatives look like positives; or scores are whole numbers.
"""


@functools.cache
def _apart(shape: str, auc: float) -> tuple[float, float]:
    """How far positives lie from negatives so that the AUC is about this, and what it then is, by quantiles."""
    u = (np.arange(2000) + 0.5) / 2000

    def true(apart: float) -> float:
        no, yes = SHAPES[shape](u, apart, auc)
        no = np.sort(no)
        return float((np.searchsorted(no, yes, "left") + np.searchsorted(no, yes, "right")).mean() / (2 * len(no)))

    low, high = 0.0, 40.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if true(middle) < auc else (low, middle)
    return high, true(high)


def _true(case: Case, measure: str) -> float:
    """The true AUC or average precision of a study, by quantiles of its scores."""
    apart, auc = _apart(case.shape, case.auc)
    if measure == "auc":
        return auc
    u = (np.arange(20_000) + 0.5) / 20_000
    no, yes = (np.sort(scores) for scores in SHAPES[case.shape](u, apart, case.auc))
    share = case.positives / (case.positives + case.negatives)  # patients of both kinds have as many images
    called = share * (1 - np.searchsorted(yes, yes, "left") / len(yes))  # with the score of each positive, or above
    wrong = (1 - share) * (1 - np.searchsorted(no, yes, "left") / len(no))
    return float(np.mean(called / (called + wrong)))


def simulated(case: Case, *, trials: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Scores, labels and patients of each trial."""
    rng = np.random.default_rng(seed)
    sizes = [1 + number % case.images for side in (case.negatives, case.positives) for number in range(side)]
    patients = np.repeat(np.arange(len(sizes)), sizes)
    labels = (patients >= case.negatives).astype(int)
    apart, _ = _apart(case.shape, case.auc)
    for _ in range(trials):
        own, each = rng.normal(size=len(sizes))[patients], rng.normal(size=len(patients))
        noise = np.sqrt(case.alike) * own + np.sqrt(1 - case.alike) * each
        no, yes = SHAPES[case.shape](norm.cdf(noise), apart, case.auc)
        yield np.where(labels == 1, yes, no), labels, patients


def covered(case: Case, method: Method, *, trials: int, seed: int, measure: str = "auc") -> tuple[float, float]:
    """Share of the trials whose interval holds the true AUC or average precision (`measure`), and the mean width."""
    ends = np.array([method(s, y, patients=p) for s, y, p in simulated(case, trials=trials, seed=seed)])
    true = _true(case, measure)
    return float(np.mean((ends[:, 0] <= true) & (true <= ends[:, 1]))), float(np.mean(np.diff(ends)))


def percentile(
    scores: np.ndarray, labels: np.ndarray, *, patients: np.ndarray, measure: str = "auc"
) -> tuple[float, float]:
    """The middle 95 % of a bootstrap over patients, which this project took before."""

    def value(weights: np.ndarray) -> np.ndarray:
        return ranking(scores, labels, weights=weights)[measure]

    return middle(bootstrap(value, patients, labels=labels, draws=400))


def boyd(scores: np.ndarray, labels: np.ndarray, *, patients: np.ndarray) -> tuple[float, float]:
    """Boyd, Eng and Page's (2013) logit interval of an average precision, which takes images for patients."""
    value = float(np.clip(average_precision(scores, labels), 1e-3, 1 - 1e-3))
    far = 1.96 / np.sqrt(labels.sum() * value * (1 - value))
    return float(expit(logit(value) - far)), float(expit(logit(value) + far))


def delong(scores: np.ndarray, labels: np.ndarray, *, patients: np.ndarray) -> tuple[float, float]:
    """DeLong's over patients, on the AUC itself."""
    found = areas(scores, labels, patients=patients)
    far = 1.96 * float(np.sqrt(found.covariance[0, 0]))
    return max(0.0, float(found.values[0]) - far), min(1.0, float(found.values[0]) + far)


def delong_logit(scores: np.ndarray, labels: np.ndarray, *, patients: np.ndarray) -> tuple[float, float]:
    """DeLong's over patients, on the log-odds of the AUC, as pROC's transformation has it."""
    found = areas(scores, labels, patients=patients)
    value = float(np.clip(found.values[0], 1e-3, 1 - 1e-3))
    far = 1.96 * float(np.sqrt(found.covariance[0, 0])) / (value * (1 - value))
    return float(expit(logit(value) - far)), float(expit(logit(value) + far))


METHODS: dict[str, dict[str, Method]] = {
    "auc": {
        "bootstrap": percentile,
        "DeLong": delong,
        "DeLong, log-odds": delong_logit,
        "here": auc_interval,
    },
    "average_precision": {
        "bootstrap": functools.partial(percentile, measure="average_precision"),
        "Boyd, log-odds": boyd,
        "here": precision_interval,
    },
}


def cases() -> Iterator[tuple[str, Case]]:
    """The table's lines."""
    for auc in (0.75, 0.85, 0.95, 0.99):
        for positives, negatives in ((6, 8), (10, 40), (50, 200)):
            yield f"{auc}, {positives} + {negatives}", Case(auc, positives, negatives)
        yield f"{auc}, 6 + 8, up to 3 images", Case(auc, 6, 8, images=3, alike=0.6)
        yield f"{auc}, 10 + 40, up to 5 images", Case(auc, 10, 40, images=5, alike=0.9)
    for auc, positives, negatives in ((0.85, 10, 40), (0.95, 6, 8), (0.95, 50, 200), (0.99, 10, 40)):
        for shape in list(SHAPES)[1:]:
            name = f"{auc}, {positives} + {negatives}, {shape}"
            yield name, Case(auc, positives, negatives, shape=shape)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=2000, help="draws of patients a line")
    parser.add_argument("--of", choices=METHODS, default="auc", help="what the intervals are of")
    parser.add_argument("--match", default="", help="lines with this in their name")
    knobs = parser.parse_args()
    methods = METHODS[knobs.of]
    head = "true AUC" if knobs.of == "auc" else "true AUC, average precision"
    write(f"| {head}, patients with + without | " + " | ".join(methods) + " |\n")
    write("| --- |" + " --- |" * len(methods) + "\n")
    for number, (name, case) in enumerate(cases()):
        if knobs.match not in name:
            continue
        known = {"trials": knobs.trials, "seed": number, "measure": knobs.of}
        found = [covered(case, method, **known) for method in methods.values()]
        auc, _, others = name.partition(", ")
        told = name if knobs.of == "auc" else f"{auc}, {_true(case, knobs.of):.2f}, {others}"
        write(f"| {told} | " + " | ".join(f"{100 * share:.1f} % ({width:.2f})" for share, width in found) + " |\n")


if __name__ == "__main__":
    main()
