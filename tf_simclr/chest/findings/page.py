"""The page that `chest findings` ends with: whole in itself, no patient and no image named."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tf_simclr import plots
from tf_simclr.chest.findings import published
from tf_simclr.chest.html import MADE_UP_NUMBERS, drawing, listed, measured, page, table, tag
from tf_simclr.evaluation import multi_label

_WORDS = {
    "AUC": "How often the network gives a radiograph with the finding the higher score of two, one with and one "
    "without it. 1 is perfect, 0.5 is a coin.",
    "Average precision": "Of the radiographs that are called positive, the share that is, averaged over all "
    "thresholds. A coin's is the share of radiographs with the finding, so compare it with that, not between findings.",
    "Mean AUC": "The mean over the findings that have an AUC, which papers report. A rare finding counts as much as a "
    "frequent one.",
    "95 % interval": "The true values that these test patients are consistent with. It covers the choice of test "
    "patients, whose images belong together; not the choice of training patients.",
}


@dataclass(frozen=True)
class Told:
    """All that the page tells."""

    collection: str
    synthetic: bool
    official: bool
    """Whether the split is the collection's own."""
    parts: Mapping[str, Mapping[str, Any]]
    alike: int
    """Pairs of images in two parts that look the same."""
    numbers: Mapping[str, Mapping[str, Any]]
    """Line → what `multi_label.measured` found."""
    learned: Mapping[str, Sequence[Mapping[str, Any]]]
    """Line → notes of its fits."""
    chosen: str
    """The line that did best on validation patients."""
    comparable: bool
    """Whether published numbers are of the same test images."""
    made: Mapping[str, str] = field(default_factory=dict)


def written(told: Told) -> str:
    """The page as HTML."""
    return page(
        "Findings on chest radiographs",
        f"Radiographs: {told.collection}.",
        *_in_short(told),
        *means(told),
        *each(told),
        *_who(told),
        *limits(told),
        words=_WORDS,
        made=told.made,
    )


def _in_short(told: Told) -> list[str]:
    """The answer in a few sentences."""
    best, test = told.numbers[told.chosen], told.parts["test"]
    mean = best["mean_auc"]
    lines = [MADE_UP_NUMBERS] * told.synthetic
    if mean:
        interval = f"95 % interval {mean['low']:.3f} to {mean['high']:.3f}"
        whose = f"{test['images']:,} radiographs of {test['patients']:,} patients"
        lines.append(
            f"{told.chosen.capitalize()}: mean AUC {mean['value']:.3f} ({interval}) over "
            f"{multi_label.findings(mean['over'])}, on {whose} that took no part in training or in any choice."
        )
    else:
        lines.append(f"{told.chosen}: no finding has an AUC on the test radiographs.")
    # One sentence a reason, and not one a finding.
    reasons: dict[str, list[str]] = {}
    for name, of in best["findings"].items():
        if of["why"]:
            reasons.setdefault(of["why"], []).append(name.replace("_", " "))
    lines += [f"Not in the mean, as {why}: {', '.join(names)}." for why, names in reasons.items()]
    apart = [name for name, of in best["findings"].items() if of.get("separated")]
    if apart:
        lines.append(
            f"Told apart without an error: {', '.join(apart)}. Among few patients that happens by chance; the interval "
            "says what else may be true."
        )
    return [tag("h2", "In short"), listed(lines, kind="short")]


def means(told: Told) -> list[str]:
    """The mean AUC of each line, beside what papers report."""
    rows = []
    for name, of in told.numbers.items():
        mean = of["mean_auc"]
        value = measured(mean, digits=3) if mean else "none"
        learned = told.learned[name][0]
        patients = f"{learned['train_images']:,} of {learned['train_patients']:,}"
        rows.append([name, value, mean["over"] if mean else 0, patients])
    heads = ["Line", "Mean AUC", "Findings in it", "Learned from: radiographs of patients"]
    found: list[str] = [
        tag("h2", "Mean AUC on test patients"),
        table(heads, rows, caption="Below each its 95 % interval over test patients."),
    ]
    if told.synthetic:
        return found
    caption = f"Source: {published.SOURCE}; fine-tuned at 224 px, mean AUC of 14 findings, official test split. "
    caption += (
        "The numbers above are of the same test radiographs."
        if told.comparable
        else f"That split has {published.TEST_IMAGES:,} radiographs, which those above are not: this is no comparison."
    )
    others = [[name, tag("b", f"{value:.3f}")] for name, value in published.ROWS]
    return [*found, tag("h3", "Published"), table(["Network", "Mean AUC"], others, caption=caption)]


def each(told: Told) -> list[str]:
    """Each finding of the chosen line, as a table and a figure of all lines."""
    best = told.numbers[told.chosen]["findings"]
    rows = []
    for name, of in best.items():
        counted = [f"{of['positives']:,}", f"{of['images']:,}", f"{of['unknown']:,}"]
        values = (
            [of["why"], ""]
            if of["why"]
            else [measured(of["auc"], digits=3), measured(of["average_precision"], digits=3)]
        )
        rows.append([name.replace("_", " "), *counted, *values])
    heads = ["Finding", "With it", "Known", "Unknown", "AUC", "Average precision"]
    # Finding → line → (AUC, low, high), of findings that have one.
    areas = {
        name.replace("_", " "): {
            line: tuple(numbers["findings"][name]["auc"][key] for key in ("value", "low", "high"))
            for line, numbers in told.numbers.items()
            if not numbers["findings"][name]["why"]
        }
        for name in best
    }
    areas = {name: of for name, of in areas.items() if of}
    figure = []
    if areas:
        drawn = plots.intervals(areas, metric="AUC on test patients", chance=0.5)
        alt = f"AUC of {len(areas)} findings with 95 % intervals, for each line; the numbers are in the table"
        figure = [drawing(drawn, alt=alt, caption="AUC with its 95 % interval. The dotted line is a coin.")]
    caption = f"Test radiographs with and without each finding; {told.chosen}."
    return [tag("h2", "Each finding"), table(heads, rows, caption=caption), *figure]


def _who(told: Told) -> list[str]:
    """Patients and images of each part."""
    names = {"train": "to learn from", "validation": "to choose by", "test": "to be tested on"}
    rows = [[f"{part} ({names[part]})", f"{of['patients']:,}", f"{of['images']:,}"] for part, of in told.parts.items()]
    split = "The collection's own split" if told.official else "A split by patient, drawn at random"
    alike = f" {told.alike:,} pairs of radiographs of different parts look the same." if told.alike else ""
    heads = ["Part", "Patients", "Radiographs"]
    caption = f"{split}; no patient is in two parts.{alike}"
    return [tag("h2", "Whose radiographs"), table(heads, rows, caption=caption)]


def limits(told: Told) -> list[str]:
    """What the numbers cannot say."""
    lines = [
        *([MADE_UP_NUMBERS] * told.synthetic),
        "All patients come from one collection. Other hospitals, machines, positions and exposures were not tested; "
        "`chest evaluate` asks the model about them.",
        "Labels are the collection's own; those of ChestX-ray14 and CheXpert were read from reports by programs, and "
        "nobody looked at the radiographs again.",
        "A network can learn how a radiograph was taken instead of what is on it.",
        "Of many findings some are high by chance; read the intervals.",
    ]
    return [tag("h2", "Limits"), listed(lines)]
