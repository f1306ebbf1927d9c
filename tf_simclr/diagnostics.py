"""Figures of what a classifier answered and of what features look like; returned, never shown."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from tf_simclr.errors import check

Band = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Common abscissae, and a curve with the lower and upper edge of its interval there."""


def confusion(labels: np.ndarray, predictions: np.ndarray, *, class_names: Sequence[str]) -> Figure:
    """Counts of label against prediction, coloured by the share of the label's images."""
    check(len(labels) == len(predictions) > 0, "there must be a prediction for each label", labels=len(labels))
    count = len(class_names)
    table = np.zeros((count, count), int)
    np.add.at(table, (labels, predictions), 1)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    side = max(3.2, 0.45 * count + 1.6)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), number in np.ndenumerate(table):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, f"{number:,}", ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(count), class_names, rotation=45, ha="right")
    axes.set_yticks(range(count), class_names)
    axes.set(xlabel="prediction", ylabel="label")
    figure.colorbar(image, ax=axes, label="share of the label's images")
    return figure


def bands(curves: Mapping[str, Band], *, kind: str, base_rate: float = 0.5) -> Figure:
    """ROC (`kind="roc"`) or precision-recall curves (`"pr"`) with their intervals, beside what chance gives."""
    figure = Figure(figsize=(4.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for number, (name, (x, y, low, high)) in enumerate(curves.items()):
        axes.plot(x, y, color=f"C{number}", label=name)
        axes.fill_between(x, low, high, color=f"C{number}", alpha=0.2, linewidth=0)
    chance = [0, 1] if kind == "roc" else [base_rate, base_rate]
    axes.plot([0, 1], chance, ":", color="grey", label="chance")
    names = ("1 − specificity", "sensitivity") if kind == "roc" else ("recall (sensitivity)", "precision")
    axes.set(xlabel=names[0], ylabel=names[1], xlim=(0, 1), ylim=(0, 1.01), aspect="equal")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize="small", loc="lower right" if kind == "roc" else "best")
    return figure


def reliability(bins: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Figure:
    """Mean probability against share of yeses of each bin; the size of a point grows with its images."""
    figure = Figure(figsize=(4.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for number, (name, (said, was, counts)) in enumerate(bins.items()):
        axes.plot(said, was, color=f"C{number}", label=name, alpha=0.7)
        axes.scatter(said, was, s=10 + 190 * counts / counts.sum(), color=f"C{number}", alpha=0.7)
    axes.plot([0, 1], [0, 1], ":", color="grey", label="perfectly calibrated")
    axes.set(xlabel="mean probability", ylabel="share of positives", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize="small", loc="upper left")
    return figure


def intervals(
    rows: Mapping[str, Mapping[str, tuple[float, float, float]]], *, metric: str, chance: float | None = None
) -> Figure:
    """A metric with its interval, a line a row, a colour a series.

    Args:
        rows: row → series → mean, low and high.
        metric: what the axis is called.
        chance: where guessing would be.
    """
    figure = Figure(figsize=(8.5, 0.42 * len(rows) + 1.3), layout="constrained")
    axes = figure.subplots()
    series = list(dict.fromkeys(name for row in rows.values() for name in row))
    for number, name in enumerate(series):
        offset = 0.3 * (number - (len(series) - 1) / 2)
        there = [(i + offset, *row[name]) for i, row in enumerate(rows.values()) if name in row]
        at, mean, low, high = np.transpose(there)
        axes.hlines(at, low, high, color=f"C{number}", alpha=0.6)
        axes.plot(mean, at, "o", color=f"C{number}", markersize=4, label=name)
    if chance is not None:
        axes.axvline(chance, linestyle=":", color="grey")
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set(xlabel=f"{metric}, 95 % interval", ylim=(len(rows) - 0.5, -0.5))
    axes.grid(alpha=0.3, axis="x")
    if len(series) > 1:
        figure.legend(frameon=False, fontsize="small", loc="outside upper right", ncols=len(series))
    return figure


def feature_map(places: np.ndarray, labels: np.ndarray, *, class_names: Sequence[str], method: str) -> Figure:
    """Features laid out in the plane, a colour a class.

    Args:
        places: `(n, 2)` of `evaluation.maps`.
        labels: `(n,)`; negative ones are drawn grey.
        class_names: in the order of the labels.
        method: what laid them out, for the title.
    """
    figure = Figure(figsize=(6.2, 4.8), layout="constrained")
    axes = figure.subplots()
    for number in sorted(set(labels.tolist())):
        rows = labels == number
        named = class_names[number] if 0 <= number < len(class_names) else "no label"
        colour = f"C{number % 10}" if number >= 0 else "lightgrey"
        marker = "o^sD"[max(number, 0) // 10 % 4]
        axes.scatter(*places[rows].T, s=8, color=colour, marker=marker, label=named, alpha=0.7, linewidths=0)
    axes.set(xticks=[], yticks=[], title=f"{len(places):,} images by {method}")
    if len(class_names) <= 20:
        figure.legend(frameon=False, fontsize="small", loc="outside right upper", markerscale=2)
    return figure


def search(values: Mapping[str, Sequence], scores: Sequence[float], *, metric: str) -> Figure:
    """What a search found: the metric against each knob; numbers that span more than two decades on a log axis."""
    check(len(values) > 0, "there must be at least one knob", knobs=list(values))
    figure = Figure(figsize=(max(3.2 * len(values), 4), 3.2), layout="constrained")
    best = int(np.argmax(scores))
    for axes, (name, at) in zip(
        figure.subplots(1, len(values), sharey=True, squeeze=False)[0], values.items(), strict=True
    ):
        numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in at)
        places = list(at) if numeric else [str(value) for value in at]
        axes.scatter(places, scores, color="C0", alpha=0.7)
        axes.scatter([places[best]], [scores[best]], color="C3", label="best")
        if numeric and min(places) > 0 and max(places) / min(places) > 100:
            axes.set_xscale("log")
        axes.set(xlabel=name)
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel(metric)
    figure.axes[0].legend(frameon=False, fontsize="small")
    return figure


def explanation(
    pictures: Mapping[str, np.ndarray], cases: Sequence[tuple[np.ndarray, str]], *, title: str, note: str
) -> Figure:
    """Pictures of one image with their names, and below them its nearest cases with a text each.

    Args:
        pictures: name → uint8 `(h, w)` or `(h, w, 3)`.
        cases: uint8 `(h, w)` and what stands below it.
        title: above all.
        note: below all.
    """
    figure = Figure(figsize=(10.5, 6.6), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(2.2, 1))
    upper.suptitle(title, fontsize=13)
    lower.suptitle("nearest training cases, with the cosine of their features", fontsize=10)
    for part, named in ((upper, list(pictures.items())), (lower, [(text, picture) for picture, text in cases])):
        for axes, (text, picture) in zip(np.ravel(part.subplots(1, len(named))), named, strict=True):
            axes.imshow(picture, cmap="gray", vmin=0, vmax=255)
            axes.set_title(text, fontsize=9)
            axes.set_axis_off()
    lower.supxlabel(note, fontsize=10)
    return figure
