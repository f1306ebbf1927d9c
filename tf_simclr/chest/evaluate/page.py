"""The page that `chest evaluate` ends with: whole in itself, no patient and no image named."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tf_simclr import plots
from tf_simclr.chest.html import drawing, listed, measured, page, table, tag

PATIENTS = (
    "Whether a patient was learned from is not known: patients' pseudonyms are salted apart in each hospital. Ask "
    "those who keep both lists."
)
_POINT = {
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "positive_predictive_value": "Positive predictive value",
    "negative_predictive_value": "Negative predictive value",
    "called_positive": "Called positive",
}
_CALIBRATION = {
    "slope": "Slope (1 is true)",
    "intercept": "Intercept (0 is true)",
    "observed_to_expected": "Positives found for each one expected (1 is true)",
    "calibration_error": "Calibration error (0 is best)",
    "brier": "Brier score (0 is best)",
}
_WORDS = {
    "Operating point carried over": "The threshold was chosen where the model comes from, on patients that it did not "
    "learn from, and is used here as it is: what a hospital gets that installs the model.",
    "Calibration": "Whether probabilities are true here: of all radiographs that are given 70 %, about 70 % should "
    "have the finding. A slope below 1 says that probabilities are too sure.",
    "Net benefit": "Positives found an image, less false alarms, each weighed by the odds of the threshold from which "
    "on one would act. A model is of use at thresholds where its line is above both others.",
    "Drift": "How far these radiographs are from those that the model learned from. The chance is that of two sets of "
    "one kind being as far apart; a small one says that something differs, not that it matters.",
    "95 % interval": "The true values that these patients are consistent with; images of a patient belong together.",
}


@dataclass(frozen=True)
class Evaluation:
    """All that the page tells."""

    title: str
    """Of the model."""
    collection: str
    warnings: tuple[str, ...]
    """That what was asked about, or learned from, is made up."""
    part: str
    images: int
    patients: int
    findings: Mapping[str, Mapping[str, Any]]
    """Finding → numbers of `of_finding`, with `subgroups` and `small`."""
    drift: Mapping[str, Any]
    comparisons: Mapping[str, Sequence[Mapping[str, Any]]]
    """Finding → rows of `compared`."""
    curves: Mapping[str, Any]
    """Finding → ROC band, reliability bins and decision curve."""
    rule: str
    """By which the threshold was chosen, in words."""
    fewest: int
    made: Mapping[str, str]


def written(found: Evaluation) -> str:
    """The page as HTML."""
    return page(
        "A model at another hospital",
        f"Model: {found.title}. Radiographs: {found.collection}.",
        *_in_short(found),
        *_results(found),
        *(part for name, of in found.findings.items() for part in one(found, name, of=of)),
        *compared(found),
        *_drifted(found),
        *_limits(found),
        words=_WORDS,
        made=found.made,
    )


def _in_short(found: Evaluation) -> list[str]:
    """The answer in a few sentences."""
    lines = list(found.warnings)
    lines.append(f"{found.images:,} radiographs of {found.patients:,} patients ({found.part}).")
    for name, of in found.findings.items():
        if of["why"]:
            lines.append(f"{name}: nothing can be measured here, as {of['why']}.")
            continue
        here, home = of["auc"], of["home"]["auc"]
        verdict = "these patients do not tell whether it is worse here"
        # Only intervals that do not meet are called a difference.
        if here["high"] < home["low"]:
            verdict = "it is worse here"
        elif here["low"] > home["high"]:
            verdict = "it is better here"
        lines.append(f"{name}: AUC {_spelled(here)} here, {_spelled(home)} where it comes from: {verdict}.")
        if here["low"] <= 0.5:
            lines.append(f"{name}: the model was not shown to be better than guessing here.")
        if of["separated"]:
            lines.append(
                f"{name}: scores tell all radiographs apart; among few patients that says no more than the interval."
            )
        slope = of["calibration"]["slope"]
        # A slope of 1 is right; below it probabilities are too far from the middle.
        if "low" in slope and not slope["low"] <= 1 <= slope["high"]:
            kind = "too sure" if slope["value"] < 1 else "not sure enough"
            lines.append(f"{name}: its probabilities are {kind} here (slope {_spelled(slope)}).")
        ratio = of["calibration"]["observed_to_expected"]
        if of["calibrated"] and "low" in ratio and not ratio["low"] <= 1 <= ratio["high"]:
            kind = "too high" if ratio["value"] < 1 else "too low"
            lines.append(
                f"{name}: its probabilities are {kind} here: {_spelled(ratio)} positives for each one expected."
            )
        if not of["calibrated"]:
            lines.append(
                f"{name}: its scores were not calibrated ({of['calibration_missing']}); they are no probabilities."
            )
    return [tag("h2", "In short"), listed(lines, kind="short")]


def _spelled(value: Mapping[str, float]) -> str:
    """A number with its interval in a sentence."""
    return f"{value['value']:.2f} ({value['low']:.2f} to {value['high']:.2f})"


def _results(found: Evaluation) -> list[str]:
    """AUC of each finding, here and where the model comes from."""
    rows = []
    for name, of in found.findings.items():
        here, home = (f"{place['positives']:,} of {place['images']:,}" for place in (of, of["home"]))
        rows.append([name, here, of["why"] or measured(of["auc"]), measured(of["home"]["auc"]), home])
    heads = ["Finding", "With it here", "AUC here", "AUC where it comes from", "With it there"]
    caption = "Below each its 95 % interval over patients; that of the model's own held-out radiographs over images."
    return [tag("h2", "Results"), table(heads, rows, caption=caption)]


def one(found: Evaluation, name: str, *, of: Mapping[str, Any]) -> list[str]:
    """Operating point, calibration, figures and subgroups of a finding."""
    if of["why"]:
        return []
    here, home = of["operating_point"], of["home_operating_point"]
    # The same threshold in both places.
    rows = [[_POINT[key], measured(here[key], percent=True), measured(home[key], percent=True)] for key in _POINT]
    counts = (
        f"{here['true_positives']:,} found, {here['false_negatives']:,} missed, "
        f"{here['false_positives']:,} false alarms, {here['true_negatives']:,} rightly let go."
    )
    caption = f"Threshold {here['threshold']:.3f}, {found.rule}. Here: {counts}"
    calibration = [[title, measured(of["calibration"][key])] for key, title in _CALIBRATION.items()]
    curves = found.curves[name]
    area = tuple(of["auc"][key] for key in ("value", "low", "high"))
    figures = tag(
        "div",
        drawing(
            plots.bands(
                {"here": plots.Curve(*curves["roc"])._replace(area=area)},
                kind="roc",
                title=f"{name}: ROC curve",
                count=f"{of['images']:,} images, {of['positives']:,} of them with it",
            ),
            alt=f"ROC curve of {name}: AUC {_spelled(of['auc'])}",
            caption="ROC curve; the band is its 95 % interval.",
        ),
        drawing(
            plots.reliability({"here": curves["reliability"]}, title=f"{name}: calibration"),
            alt=f"Calibration of {name}: slope {of['calibration']['slope'].get('value', float('nan')):.2f}",
            caption="What was said against what was; large points are many radiographs.",
        ),
        kind="pair",
    )
    share = of["positives"] / of["images"]
    decision = drawing(
        plots.decision(curves["at"], {"the model": curves["decision"]}, share=share, title=f"{name}: decision curve"),
        alt=f"Decision curve of {name}, where {share:.0%} have it",
        caption="Net benefit by the threshold from which on one would act.",
    )
    return [
        tag("h2", name),
        tag("h3", "Operating point carried over"),
        table(["", "Here", "Where it comes from"], rows, caption=caption),
        tag("h3", "Calibration here"),
        table(["", "Here"], calibration),
        figures,
        decision,
        *_grouped(found, of),
    ]


def _grouped(found: Evaluation, of: Mapping[str, Any]) -> list[str]:
    """Subgroups with intervals, and those that are too small."""
    # A row a group, in the order of columns and values.
    rows = [
        [
            f"{row['column']}: {row['value']}",
            f"{row['patients']:,}",
            f"{row['positives']:,} of {row['images']:,}",
            measured(row["auc"]),
            measured(row["sensitivity"], percent=True),
            measured(row["specificity"], percent=True),
        ]
        for row in of["subgroups"]
    ]
    small = [f"{row['column']} {row['value']} ({row['patients']:,} patients)" for row in of["small"]]
    rule = f"Not shown, with fewer than {found.fewest} patients with or without the finding"
    told = f"{rule}: {', '.join(small)}." if small else ""
    heads = ["Subgroup", "Patients", "With it", "AUC", "Sensitivity", "Specificity"]
    caption = "At the same threshold. Of many groups some differ by chance. " + told
    if not rows:
        nothing = "Nothing is known of these radiographs to group them by."
        return [tag("h3", "Subgroups"), tag("p", told or nothing)]
    return [tag("h3", "Subgroups"), table(heads, rows, caption=caption)]


def compared(found: Evaluation) -> list[str]:
    """Several models beside each other."""
    rows = [
        [
            name,
            row["second"],
            f"{row['auc_first']:.3f}",
            f"{row['auc_second']:.3f}",
            measured(row["difference"]),
            f"{row['p_delong_adjusted']:.3f}",
            f"{row['p_bootstrap_adjusted']:.3f}",
            f"{row['second_learned_from']:,}",
        ]
        # A finding, then its comparisons.
        for name, comparisons in found.comparisons.items()
        for row in comparisons
    ]
    if not rows:
        return []
    heads = [
        "Finding",
        "Compared with",
        "AUC, this model",
        "AUC, the other",
        "Difference",
        "p (DeLong)",
        "p (bootstrap)",
        "Look the same as one that the other learned from",
    ]
    caption = "On the same patients, in pairs; p-values are adjusted for how many models are compared (Holm)."
    return [tag("h2", "Beside other models"), table(heads, rows, caption=caption)]


def _drifted(found: Evaluation) -> list[str]:
    """What has moved."""
    moved, rows = found.drift, []
    for name in ("brightness", "contrast"):
        of = moved[name]
        numbers = [f"{of[key]:.3f}" for key in ("learned_from", "here", "distance", "p")]
        rows.append([f"{name.capitalize()} (share of the grey range)", *numbers])
    features = moved["features"]
    if "discrepancy" in features:
        values = ["", "", f"{features['discrepancy']:.3f}", f"{features['p']:.3f}"]
        rows.append(["Features (maximum mean discrepancy)", *values])
        rows.append(["Features (Fréchet distance)", "", "", f"{features['frechet']:.3f}", ""])
    unlike, usual = features["unlike"], 1 - features["unlike_expected"]
    lines = [
        f"{100 * unlike['value']:.0f} % ({100 * unlike['low']:.0f} to {100 * unlike['high']:.0f} %) of these are "
        f"further from the nearest one that the model learned from than {100 * usual:.0f} % of those are from "
        "each other.",
        f"{moved['alike']:,} of {moved['images']['here']:,} radiographs look the same as one that it learned from"
        + (": what it says of them is no test of it." if moved["alike"] else "."),
        PATIENTS,
    ]
    histograms = {
        "learned from": np.array(moved["histograms"]["learned_from"]),
        "here": np.array(moved["histograms"]["here"]),
    }
    figure = drawing(
        plots.levels(histograms),
        alt="Grey levels here and of the radiographs that were learned from; their means are in the table",
        caption="Grey levels of all pixels, at 96 pixels a side.",
    )
    heads = ["", "Learned from", "Here", "Distance", "Chance that it is nothing"]
    return [tag("h2", "Drift"), table(heads, rows), listed(lines), figure]


def _limits(found: Evaluation) -> list[str]:
    """What the numbers cannot say."""
    lines = [
        *found.warnings,
        "Labels here may have been made otherwise than where the model comes from; a difference in AUC may be theirs.",
        "The intervals cover the choice of patients here. They do not cover how they were chosen to be radiographed.",
        "A model that is right here may be wrong at the next hospital.",
    ]
    return [tag("h2", "Limits"), listed(lines)]
