"""The page that the ARDS pipeline ends with: what was done, what came of it and what it cannot say, for clinicians.

It names no patient and no image; nothing in it is fetched from anywhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tf_simclr import plots
from tf_simclr.chest.ards.numbers import Asked, Estimate, Way
from tf_simclr.chest.html import MADE_UP_NUMBERS, drawing, listed, measured, page, picture, table, tag
from tf_simclr.evaluation.binary import reliability
from tf_simclr.evaluation.intervals import SEPARATED, separated
from tf_simclr.evaluation.maps import curve_band

_COLUMNS = {
    "auc": "AUC",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "sensitivity_at_90": "Sensitivity at 90 % specificity",
    "brier": "Brier score",
    "calibration_error": "Calibration error",
}
"""Metric → what the table calls it."""
_FEW = 500
"""Patients below whose number the interval of a share is wider than about 8 points."""
_PERCENT = ("sensitivity", "specificity", "sensitivity_at_90")
_WORDS = {
    "AUC": "How often the network gives a radiograph with the finding the higher probability of two, one with and one "
    "without it. 1 is perfect, 0.5 is a coin.",
    "Sensitivity": "Share of radiographs with the finding that are called positive.",
    "Specificity": "Share of radiographs without the finding that are called negative. Both are at the threshold that "
    "did best on the validation patients.",
    "Calibration": "Whether probabilities are true: of all radiographs that are given 70 %, about 70 % should have the "
    "finding. The calibration error is the mean distance from that; the Brier score is the mean squared error of "
    "the probabilities (0 is perfect, 0.25 a coin's).",
    "95 % interval": "What else may be true of patients of the same kind: of an AUC, a sensitivity, a specificity the "
    "values that these patients are consistent with, else the middle 95 % of 1,000 draws of them. Where two intervals "
    "or a difference's interval leave both answers open, so does this study.",
}


@dataclass(frozen=True)
class Report:
    """All that the page tells."""

    positive: str
    collection: str
    synthetic: bool
    counts: dict[str, dict[str, int]]
    """Part → images and patients."""
    alike: str
    """Whether radiographs of different parts look the same, a sentence."""
    pretraining: dict[str, Any]
    """Counts of the radiographs without labels."""
    steps: Sequence[str]
    """What was done, a sentence a stage."""
    ways: Sequence[Way]
    estimates: Sequence[dict[str, Estimate]]
    test: Asked
    grids: dict[str, dict[str, Any]]
    """Way → trials, and the best."""
    frozen: Sequence[tuple[str, float, float]]
    """Of frozen features on validation patients: title, AUC, accuracy."""
    pairs: bytes = b""
    """A sheet of augmented pairs, PNG."""
    made: dict[str, str] = field(default_factory=dict)
    """How it was made: versions and settings."""


def written(found: Report) -> str:
    """The page as HTML."""
    return page(
        f"{found.positive} on chest radiographs: learning without labels first",
        f"Radiographs: {found.collection}.",
        *_in_short(found),
        *who(found),
        tag("h2", "What was done"),
        listed(found.steps, ordered=True),
        *results(found),
        *_figures(found.ways, found.estimates, test=found.test),
        *_choices(found),
        *_seen(found),
        *limits(found),
        words=_WORDS,
        made=found.made,
    )


def _in_short(found: Report) -> list[str]:
    """The answer in a few sentences."""
    # The first way is the one that the pipeline is about; each other is told beside it.
    first, *others = zip(found.ways, found.estimates, strict=True)
    test = found.counts["test"]
    lines = [
        f"{first[0].title}: AUC {_spelled(first[1]['auc'])} on {test['images']:,} radiographs of {test['patients']:,} "
        f"patients that took no part in training or in any choice."
    ]
    lines += [SEPARATED] * any(separated(said, found.test.labels) for said in first[0].test)
    lines += [_compared(first, other) for other in others]
    if found.synthetic:
        lines.append(MADE_UP_NUMBERS)
    return [tag("h2", "In short"), listed(lines, kind="short")]


def _compared(first: tuple[Way, dict], other: tuple[Way, dict]) -> str:
    """One way beside the first, in words that do not say more than the interval does."""
    gain = other[1]["auc_gain"]
    verdict = "these patients do not tell which of the two is better"
    # Only an interval that leaves out 0 is called a difference.
    if gain["low"] > 0:
        verdict = f"{lower(first[0].title)} is better"
    elif gain["high"] < 0:
        verdict = f"{lower(first[0].title)} is worse"
    chance = f"p {gain['p_adjusted']:.3f}, adjusted for the ways compared"
    difference = f"{_signed(gain['value'])} ({_signed(gain['low'])} to {_signed(gain['high'])}; {chance})"
    return f"{other[0].title}: AUC {_spelled(other[1]['auc'])}. The first minus this one is {difference}: {verdict}."


def lower(title: str) -> str:
    """A title within a sentence, names as they are.

    Example:
        >>> lower("From scratch"), lower("SimCLR on radiographs")
        ('from scratch', 'SimCLR on radiographs')
    """
    return title if title[:2].isupper() or title[1:4].lower() != title[1:4] else title[0].lower() + title[1:]


def who(found: Report) -> list[str]:
    """Patients and images of each part."""
    names = {"train": "to learn from", "validation": "to choose by", "test": "to be tested on, once"}
    rows = []
    for part, counted in found.counts.items():
        ill = f"{counted['positive images']:,} of {counted['positive patients']:,}"
        rows.append([f"{part} ({names[part]})", f"{counted['patients']:,}", f"{counted['images']:,}", ill])
    heads = ["Part", "Patients", "Radiographs", f"with {found.positive}: radiographs of patients"]
    caption = "No patient is in two parts. A patient may have radiographs with and without the finding. " + found.alike
    own = found.pretraining
    source = "the training part above" if own["own"] else f"{own['collection']}, {own['left out']:,} images left out"
    unlabelled = (
        f"Learning without labels used {own['images']:,} radiographs of {own['patients']:,} patients ({source}); "
        f"{own['patients with several images']:,} of these patients have several."
    )
    return [tag("h2", "Whose radiographs"), table(heads, rows, caption=caption), tag("p", unlabelled)]


def results(found: Report) -> list[str]:
    """The table of ways."""
    heads = ["Way to train", *_COLUMNS.values()]
    # A row a way, a column a metric.
    rows = []
    for way, of in zip(found.ways, found.estimates, strict=True):
        rows.append([way.title, *(measured(of[name], percent=name in _PERCENT) for name in _COLUMNS)])
    seeds = max(len(way.test) for way in found.ways)
    trained = "Of one training each" if seeds == 1 else f"Means over {seeds} trainings (of frozen features: one)"
    caption = f"{trained}, below them 95 % intervals over test patients."
    return [tag("h2", "Results on test patients"), table(heads, rows, caption=caption, first=True)]


def _spelled(value: Estimate) -> str:
    """A number with its interval in a sentence."""
    return f"{value['value']:.2f} (95 % interval {value['low']:.2f} to {value['high']:.2f})"


def _signed(value: float) -> str:
    """A difference with its sign, and a minus that is one.

    Example:
        >>> _signed(-0.05)
        '−0.05'
    """
    return f"{value:+.2f}".replace("-", "−")


def _figures(ways: Sequence[Way], estimates: Sequence[dict[str, Estimate]], *, test: Asked) -> list[str]:
    """AUCs with intervals, ROC curves, and calibration, as markup.

    Args:
        ways: the first one's ROC curve is drawn with its band.
        estimates: of each way.
        test: the images that they were asked about.
    """
    # Intervals of areas, curves with a band, and calibration: what a reader of such papers looks for.
    aucs = {way.title: {"": tuple(of["auc"].values())} for way, of in zip(ways, estimates, strict=True)}
    curves = {
        way.title: plots.Curve(
            *curve_band(way.together, test.labels, kind="roc", groups=test.patients), area=tuple(of["auc"].values())
        )
        for way, of in zip(ways, estimates, strict=True)
    }
    bins = {way.title: reliability(way.together, test.labels, bins=5) for way in ways}
    return [
        tag("h2", "Figures"),
        drawing(
            _named_above(plots.intervals(aucs, metric="AUC on test patients", chance=0.5), list(aucs)),
            alt="AUC of each way with its interval",
            caption="AUC with its 95 % interval. The dotted line is a coin.",
        ),
        tag(
            "div",
            drawing(
                plots.bands(
                    _only_first(curves),
                    kind="roc",
                    count=f"{len(test.labels):,} test images of {len(set(test.patients)):,} patients",
                ),
                alt="ROC curves",
                caption="ROC curves of the mean of all trainings; the band is the first way's 95 % interval.",
            ),
            drawing(
                plots.reliability(bins),
                alt="Calibration",
                caption="Calibration: what was said against what was. Large points are many radiographs.",
            ),
            kind="pair",
        ),
    ]


def _named_above(figure: Any, names: Sequence[str]) -> Any:
    """Puts the names of rows above their lines, so that the figure is narrow enough for a phone."""
    figure.set_size_inches(5.6, 0.62 * len(names) + 0.9)
    axes = figure.axes[0]
    axes.set_yticks([])
    axes.set_ylim(len(names) - 0.6, -0.7)
    for place, name in enumerate(names):
        axes.annotate(name, (0.01, place - 0.3), xycoords=("axes fraction", "data"), fontsize=9, va="center")
    return figure


def _only_first(curves: dict[str, plots.Curve]) -> dict[str, plots.Curve]:
    """Bands of which only the first has a width: several that overlap cannot be read."""
    first = next(iter(curves))
    return {name: of if name == first else of._replace(low=of.y, high=of.y) for name, of in curves.items()}


_KNOBS = {"learning_rate": "Learning rate", "weight_decay": "Weight decay", "train_epochs": "Epochs"}


def _choices(found: Report) -> list[str]:
    """What was searched, on validation patients."""
    rows = []
    for title, of in found.grids.items():
        best = of["best"]
        # The best first.
        for trial in sorted(of["trials"], key=lambda trial: -trial[of["metric"]]):
            chosen = "chosen" if all(trial[name] == value for name, value in best.items()) else ""
            numbers = [f"{trial[name]:g}" for name in _KNOBS]
            rows.append([title, *numbers, f"{trial[of['metric']]:.3f}", chosen])
    validation = found.counts["validation"]
    caption = f"Each trained once and asked about the {validation['images']:,} validation radiographs alone."
    frozen = [f"{title}: AUC {auc:.2f}, accuracy {100 * accuracy:.0f} %" for title, auc, accuracy in found.frozen]
    heads = ["Way to train", *_KNOBS.values(), "AUC, validation", "Choice"]
    return [
        tag("h2", "What was chosen, and by what"),
        tag(
            "p", "Before any fine-tuning, a logistic regression on the frozen features said of the validation patients:"
        ),
        listed(frozen),
        table(heads, rows, caption=caption),
    ]


def _seen(found: Report) -> list[str]:
    """What the network was shown without labels."""
    if not found.pairs:
        return []
    caption = "Each column is a positive pair: the network learns to give both the same features, and others apart."
    return [
        tag("h2", "What the network was shown without labels"),
        picture(found.pairs, kind="png", alt="Pairs of augmented radiographs", caption=caption),
    ]


def limits(found: Report) -> list[str]:
    """What the numbers cannot say."""
    test = found.counts["test"]
    share = test["positive images"] / test["images"]
    few = f"{test['patients']:,} test patients are few: read the intervals, not the numbers between their ends."
    lines = [
        *([few] if test["patients"] < _FEW else []),
        f"{share:.0%} of the test radiographs have the finding. Where it is rarer, as in most clinics, fewer positive "
        "answers are right, and the probabilities are not calibrated.",
        "All patients come from one collection. Other hospitals, machines, positions and exposures were not tested.",
        "Labels are the collection's own; nobody read the radiographs again. A network can learn how a radiograph was "
        "taken instead of what is on it.",
        "The intervals cover the choice of test patients. They do not cover the choice of training patients, and the "
        "luck of a training only as far as a few of them show it.",
        "Several ways were compared with one another; some difference among several is large by chance alone.",
    ]
    return [tag("h2", "Limits"), listed(lines)]


def aligned(names: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where each of the wanted names stands among the names.

    Example:
        >>> aligned(np.array(["b", "a"]), np.array(["a", "b"])).tolist()
        [1, 0]
    """
    # Sorted once, then each is found by halving: names are each there once.
    order = np.argsort(names)
    return np.asarray(order[np.searchsorted(names[order], wanted)])
