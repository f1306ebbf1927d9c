"""Several findings an image: AUC and average precision of each, and the mean AUC that papers report.

Labels are rows of 1 present, 0 absent and -1 unknown; an unknown one does not count.  A finding that all known images
have, or none, has no AUC: it is told, and the mean is over the others, which are counted.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tf_simclr.errors import check
from tf_simclr.evaluation.binary import average_precision, roc_auc
from tf_simclr.evaluation.intervals import areas, corrected, estimate, precision_interval, separated
from tf_simclr.evaluation.metrics import Metric

_FAR = 1.959964
"""Standard deviations on each side of a 95 % interval."""


def measured(
    scores: np.ndarray,
    labels: np.ndarray,
    *,
    names: Sequence[str],
    patients: np.ndarray | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """AUC and average precision of each finding with 95 % intervals over patients, and the mean AUC with its own.

    Args:
        scores: `(n, findings)`, the larger the likelier, or `(k, n, findings)` of `k` trainings, whose metrics are
            averaged; a column of NaN is a finding that nothing was learned of.
        labels: `(n, findings)`: 1, 0, or -1 for unknown.
        names: of the findings.
        patients: one name an image; by default each image is a patient's only one.
        seed: of the bootstrap for average precisions.

    Returns:
        `findings`: name → `images`, `positives`, `unknown`, `patients`, and `auc` and `average_precision`, each
        `value`, `low`, `high`, or a sentence in `why` where there is none; `mean_auc` with `low`, `high`, `over` (how
        many findings) and `without` (the names of the others); it is None where no finding has an AUC.

    Raises:
        InputError: shapes do not fit each other.
    """
    # One set of scores, or several of several heads, (k, n, findings).
    scores = np.asarray(scores, float).reshape(-1, *np.shape(scores)[-2:])
    fits = scores.shape[1:] == labels.shape and labels.shape[1] == len(names)
    check(fits, "scores, labels and names must be of the same findings", scores=scores.shape, labels=labels.shape)
    people = np.arange(len(labels)) if patients is None else np.unique(patients, return_inverse=True)[1]
    found: dict[str, dict[str, Any]] = {}
    apart, without_spread = [], []
    for number, name in enumerate(names):
        # Unknown labels leave an image out of that finding alone.
        known = labels[:, number] >= 0
        truth, said, whose = labels[known, number], scores[:, known, number], people[known]
        row = {
            "images": int(known.sum()),
            "positives": int(truth.sum()),
            "unknown": int((~known).sum()),
            "patients": len(np.unique(whose)),
        }
        # A finding that cannot be measured keeps its row, with the reason.
        found[name] = row | {"why": missing(truth, said)}
        if found[name]["why"]:
            continue
        own = areas(said, truth, patients=whose).mean()
        low, high = own.interval()
        found[name]["auc"] = estimate(float(own.values[0]), (low, high))
        # Of each head, and their ends' mean.
        ends = np.array([precision_interval(row, truth, patients=whose, seed=seed) for row in said])
        precision = float(np.mean([average_precision(row, truth) for row in said]))
        found[name]["average_precision"] = estimate(precision, ends.mean(axis=0).tolist())
        found[name]["separated"] = bool(all(separated(row, truth) for row in said))
        # What each patient adds to this AUC, by its number among all patients, 0 for who is not in it.
        spread = np.zeros(people.max() + 1)
        spread[np.unique(whose)] = (own.positive + own.negative)[0]
        apart.append(spread)
        if not spread.any():  # scores tell it apart, or are all alike: its interval has a width all the same
            without_spread.append((float(own.values[0]) - low, high - float(own.values[0])))
    with_one = [name for name, of in found.items() if not of["why"]]
    return {"findings": found, "mean_auc": _mean_of(found, with_one, apart=apart, wider=np.sum(without_spread, axis=0))}


def missing(truth: np.ndarray, said: np.ndarray) -> str:
    """Why a finding has no AUC; empty where it has one."""
    if len(truth) == 0:
        return "no image has a known label"
    if truth.all() or not truth.any():
        return f"{'all' if truth.all() else 'none'} of the {len(truth):,} images have it"
    return "nothing was learned of it" if np.isnan(said).any() else ""


def _mean_of(
    found: Mapping[str, Mapping[str, Any]], names: Sequence[str], *, apart: Sequence[np.ndarray], wider: np.ndarray
) -> dict[str, Any] | None:
    """The mean AUC of these findings; patients' contributions to all of them add up before they are squared.

    `wider` is what the ends of findings whose patients show no spread lie below and above them, in all.
    """
    if not names:
        return None
    value, count = float(np.mean([found[name]["auc"]["value"] for name in names])), len(names)
    # Added over findings before squared: one patient's findings hang together.
    together = np.sum(apart, axis=0) / count
    deviation = float(np.sqrt(corrected(len(together)) * np.square(together).sum()))
    inside = float(np.clip(value, 1e-3, 1 - 1e-3))
    # On the scale of log-odds, so that its ends lie in [0, 1].
    far = _FAR * deviation / (inside * (1 - inside))
    odds = inside / (1 - inside)
    ends = [odds * factor / (1 + odds * factor) for factor in (np.exp(-far), np.exp(far))]
    without = [name for name in found if name not in names]
    # Findings without a spread add their own width, divided by how many there are.
    below, above = np.broadcast_to(wider, 2) / count
    low, high = min(float(ends[0]), value) - float(below), max(float(ends[1]), value) + float(above)
    return {"value": value, "low": max(low, 0.0), "high": min(high, 1.0), "over": count, "without": without}


def mean_auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean AUC over the findings that have one, of scores and labels `(n, findings)`; not a number where none has.

    Example:
        >>> mean_auc(np.array([[0.9, 0.1], [0.2, 0.3]]), np.array([[1, 0], [0, -1]]))
        1.0
    """
    values = []
    for said, truth in zip(scores.T, labels.T, strict=True):
        known = truth >= 0
        if len(np.unique(truth[known])) == 2:
            values.append(roc_auc(said[known], truth[known]))
    return float(np.mean(values)) if values else float("nan")


def _mean_or_half(scores: np.ndarray, labels: np.ndarray) -> float:
    """`mean_auc`, or a coin's where no finding has one, so that a choice by it is possible."""
    value = mean_auc(scores, labels)
    return 0.5 if np.isnan(value) else value


MEAN_AUC = Metric("mean AUC", _mean_or_half, ranks=True)
"""For `probes.chosen_regression`."""


def lines(result: Mapping[str, Any]) -> list[str]:
    """The numbers for a terminal, a line a finding."""
    width = max(len(name) for name in result["findings"])
    text = [f"{'':<{width}}{'images':>9}{'positive':>10}{'AUC':>22}{'average precision':>22}"]
    for name, of in result["findings"].items():
        cells = f"  {of['why']}" if of["why"] else f"{cell(of['auc']):>22}{cell(of['average_precision']):>22}"
        text.append(f"{name:<{width}}{of['images']:>9,}{of['positives']:>10,}{cells}")
    mean = result["mean_auc"]
    if mean is None:
        return [*text, "no finding has an AUC"]
    without = f"; without {', '.join(mean['without'])}" if mean["without"] else ""
    text.append(f"mean AUC of {findings(mean['over'])}: {cell(mean)}{without}")
    return text


def findings(count: int) -> str:
    """So many, in words.

    Example:
        >>> findings(1), findings(14)
        ('1 finding', '14 findings')
    """
    return f"{count:,} finding{'' if count == 1 else 's'}"


def cell(of: Mapping[str, float]) -> str:
    """A value and its interval."""
    return f"{of['value']:.3f} ({of['low']:.3f}–{of['high']:.3f})"
