"""What a model is worth on another hospital's radiographs: of all of them, and of subgroups."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tf_simclr.evaluation.binary import (
    brier,
    expected_calibration_error,
    measures,
    net_benefit,
    ranking,
    reliability,
    threshold,
)
from tf_simclr.evaluation.calibration import Calibration, logit, recalibration
from tf_simclr.evaluation.intervals import (
    areas,
    auc_interval,
    estimate,
    holm,
    paired_difference,
    separated,
    share_interval,
)
from tf_simclr.evaluation.multi_label import missing
from tf_simclr.evaluation.patients import bootstrap, middle

_DRAWS = 500
"""Of patients, where an interval is a bootstrap's."""
AT = np.arange(1, 100) / 100
"""Thresholds of the decision curve."""
_Value = dict[str, float]


@dataclass(frozen=True)
class Told:
    """What one model says of one finding, with what is so."""

    probabilities: np.ndarray
    """`(n,)`."""
    labels: np.ndarray
    """0 or 1, `(n,)`."""
    patients: np.ndarray
    places: np.ndarray
    """Of these images among all that were asked about: those whose label is known."""


def of_finding(told: Told, *, own: Calibration, rule: str, at: float, seed: int) -> dict[str, Any]:
    """All numbers of a finding; `why` says why there are none.

    Args:
        told: of the other hospital.
        own: the model's calibration, with its own held-out probabilities, by which the threshold is chosen.
        rule: of the threshold, as `binary.threshold` has it.
        at: of the rule.
        seed: of the draws.
    """
    counts = {
        "images": len(told.labels),
        "positives": int(told.labels.sum()),
        "patients": (people := len(np.unique(told.patients))),
        "why": missing(told.labels, told.probabilities) or "all images are of one patient" * (people == 1),
    }
    value = float(areas(own.probabilities, own.labels).values[0])
    home = {
        "images": len(own.labels),
        "positives": int(own.labels.sum()),
        "auc": estimate(value, auc_interval(own.probabilities, own.labels)),
    }
    found = counts | {"home": home, "calibrated": not own.missing, "calibration_missing": own.missing}
    if counts["why"]:
        return found
    # Each of the held-out images counts for itself: the model does not keep whose they are.
    cut, everyone = threshold(own.probabilities, own.labels, rule=rule, at=at), np.arange(len(own.labels))
    found |= {
        "auc": _auc_of(told),
        "separated": separated(told.probabilities, told.labels),
        "calibration": calibration_of(told, seed=seed),
        "operating_point": _at_threshold(told, cut),
        "home_operating_point": _at_threshold(Told(own.probabilities, own.labels, everyone, everyone), cut),
    }
    return found


def _auc_of(told: Told) -> _Value:
    """AUC with its interval over patients."""
    found = areas(told.probabilities, told.labels, patients=told.patients)
    return estimate(float(found.values[0]), found.interval())


def calibration_of(told: Told, *, seed: int) -> dict[str, Any]:
    """Brier score, calibration error, slope and intercept, and how many positives were expected, with intervals."""
    said, was = told.probabilities, told.labels
    odds = logit(said)

    # Weights (k, n) of drawn patients → five numbers a draw, (k, 5).
    def of_draws(weights: np.ndarray) -> np.ndarray:
        whole = measures(said, was, weights=weights)
        ratio = (weights @ was) / np.maximum(weights @ said, 1e-9)
        return np.stack(
            [whole["brier"], whole["calibration_error"], ratio, *recalibration(odds, was, weights=weights).T], 1
        )

    names = ("brier", "calibration_error", "observed_to_expected", "slope", "intercept")
    once = of_draws(np.ones((1, len(was))))[0]
    try:
        low, high = middle(bootstrap(of_draws, told.patients, labels=was, draws=_DRAWS, seed=seed))
    except ValueError as error:  # too few patients to draw from
        return {name: {"value": float(value)} for name, value in zip(names, once, strict=True)} | {"why": str(error)}
    found: dict[str, Any] = {
        name: {"value": float(v), "low": float(a), "high": float(b)}
        for name, v, a, b in zip(names, once, low, high, strict=True)
    }
    # Where a threshold tells all apart, the best slope is infinite; of one score for all any slope is as good.
    apart = "scores tell the classes apart, so that a slope has no upper end" * separated(said, was)
    if reason := apart or "all scores are alike, so that there is no slope" * bool(np.ptp(odds) == 0):
        found |= {"slope": {"why": reason}, "intercept": {"why": reason}}
    # The numbers themselves by the same functions as everywhere; the draws above are for the intervals.
    checked = brier(said, was), expected_calibration_error(said, was)
    found["brier"]["value"], found["calibration_error"]["value"] = checked
    bins = reliability(said, was)
    return found | {
        "bins": [dict(zip(("said", "was", "images"), map(float, row), strict=True)) for row in zip(*bins, strict=True)]
    }


def _at_threshold(told: Told, cut: float) -> dict[str, Any]:
    """Counts, and shares with intervals over patients, where a yes is said from `cut` on."""
    yes, ill = told.probabilities >= cut, told.labels == 1
    found: dict[str, Any] = {
        "threshold": cut,
        "true_positives": int((yes & ill).sum()),
        "false_positives": int((yes & ~ill).sum()),
        "true_negatives": int((~yes & ~ill).sum()),
        "false_negatives": int((~yes & ill).sum()),
    }
    # A share each: who of whom.
    shares = {
        "sensitivity": (yes, ill),
        "specificity": (~yes, ~ill),
        "positive_predictive_value": (ill, yes),
        "negative_predictive_value": (~ill, ~yes),
        "called_positive": (yes, np.ones_like(yes)),
    }
    for name, (right, among) in shares.items():
        if among.any():
            interval = share_interval(right[among], patients=told.patients[among])
            found[name] = estimate(float(right[among].mean()), interval)
        else:
            found[name] = {"why": "there is no image to take a share of"}
    return found


def decision_curve(told: Told, *, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Net benefit at `AT` with the ends of its interval over patients, each `(t,)`."""
    # At each threshold (t, 1) against each image (n,): (t, n).
    yes = told.probabilities >= AT[:, None]
    # Net benefit (Vickers and Elkin 2006): true positives, less false ones at the odds of the threshold.
    worth = (
        yes * np.where(told.labels == 1, 1.0, 0.0)
        - yes * np.where(told.labels == 0, 1.0, 0.0) * (AT / (1 - AT))[:, None]
    )

    def of_draws(weights: np.ndarray) -> np.ndarray:
        return weights @ worth.T / weights.sum(axis=1, keepdims=True)

    low, high = middle(bootstrap(of_draws, told.patients, labels=told.labels, draws=_DRAWS, seed=seed))
    return net_benefit(told.probabilities, told.labels, at=AT), np.asarray(low), np.asarray(high)


def subgroups(
    told: Told, columns: Mapping[str, np.ndarray], *, cut: float, fewest: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """AUC, sensitivity and specificity of each value of each column, and the groups that are too small to be shown.

    Args:
        told: all images.
        columns: name → a text for each image that was asked about, empty where it says nothing.
        cut: from which on a yes is said.
        fewest: patients with and without the finding that a group has at least.
    """
    # By column and value; too few patients with or without the finding make an interval that says nothing.
    shown, small = [], []
    for name, every in columns.items():
        texts = every[told.places]
        for value in sorted(set(texts.tolist())):
            rows = texts == value
            own = Told(told.probabilities[rows], told.labels[rows], told.patients[rows], told.places[rows])
            with_it, without = (len(np.unique(own.patients[own.labels == c])) for c in (1, 0))
            row = {"column": name, "value": value or "not stated", "images": int(rows.sum())}
            row |= {"patients": len(np.unique(own.patients)), "positives": int(own.labels.sum())}
            if min(with_it, without) < fewest:
                small.append(row)
                continue
            point = _at_threshold(own, cut)
            shares = {key: point[key] for key in ("sensitivity", "specificity", "called_positive")}
            shown.append(row | {"auc": _auc_of(own)} | shares)
    return shown, small


def compared(tolds: Mapping[str, Told], *, seed: int) -> list[dict[str, Any]]:
    """The first of several models beside each other: differences in AUC on the same patients, by DeLong and by draws.

    P-values are adjusted for how many were compared (Holm).
    """
    names = list(tolds)
    first = tolds[names[0]]
    scores = np.stack([tolds[name].probabilities for name in names])  # (models, n)
    # DeLong for an exact interval of differences on the same patients, and draws of patients beside it.
    found = areas(scores, first.labels, patients=first.patients)

    def of_draws(weights: np.ndarray) -> np.ndarray:
        """Weights (k, n) of drawn patients → the AUC of each model, (k, models)."""
        return np.stack([ranking(said, first.labels, weights=weights)["auc"] for said in scores], axis=1)

    options: dict[str, Any] = {"labels": first.labels, "draws": _DRAWS, "seed": seed, "stratified": True}
    drawn = bootstrap(of_draws, first.patients, **options)
    rows: list[dict[str, Any]] = []
    for number in range(1, len(names)):
        gain = paired_difference(found, first=0, second=number)
        draws = drawn[:, 0] - drawn[:, number]
        low, high = middle(draws)
        # Two-sided, and never 0: the sample itself counts as one draw.
        tail = (1 + min((draws <= 0).sum(), (draws >= 0).sum())) / (1 + len(draws))
        rows.append(
            {
                "first": names[0],
                "second": names[number],
                "auc_first": float(found.values[0]),
                "auc_second": float(found.values[number]),
                "difference": {"value": gain.value, "low": gain.low, "high": gain.high},
                "p_delong": gain.p,
                "bootstrap": {"low": low, "high": high},
                "p_bootstrap": float(min(1.0, 2 * tail)),
            }
        )
    # Holm's correction, for each kind of test apart.
    for key in ("p_delong", "p_bootstrap"):
        for row, p in zip(rows, holm([row[key] for row in rows]), strict=True):
            row[f"{key}_adjusted"] = p
    return rows
