"""Figures of views, features and answers: returned, never shown; each also draws into a part of a figure.

No figure touches matplotlib's global state, so a server can draw several at a time.
"""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from tf_simclr.errors import check
from tf_simclr.files import replacing

_UNITS = {"loss": "loss (nats)", "acc": "accuracy (%)", "accuracy": "accuracy (%)", "entropy": "entropy (nats)"}
_UNITS |= {"std": "spread (0: collapsed, 1: everywhere)", "rank": "effective rank (dimensions)"}
"""What the last word of a metric's name means, with its unit; metrics of one unit share a panel."""


def curves(
    history: Mapping[str, Sequence[float]],
    *,
    x: Sequence[float] | None = None,
    x_label: str = "epoch",
    figure: Figure | SubFigure | None = None,
) -> Figure | SubFigure:
    """A run's metrics, one panel a unit; `val_` ones are dashed in the colour of their training ones.

    Args:
        history: metric → one value an epoch, as `keras.callbacks.History.history`; accuracies are in [0, 1].
        x: where the values were taken; by default 1, 2, ….
    """
    check(len(history) > 0, "history must hold at least one metric", metrics=list(history))
    panels = list(dict.fromkeys(map(_unit_of, history)))
    figure = figure or Figure(figsize=(4.5 * len(panels), 3.2), layout="constrained")
    for panel, axes in zip(panels, np.ravel(figure.subplots(1, len(panels), squeeze=False)), strict=True):
        colours: dict[str, str] = {}
        for name, values in history.items():
            if _unit_of(name) == panel:
                metric = name.removeprefix("val_")
                colour = colours.setdefault(metric, f"C{len(colours)}")
                at = range(1, len(values) + 1) if x is None else x
                scaled = np.asarray(values) * (100 if panel.endswith("(%)") else 1)
                style = "--" if name != metric else "-"
                axes.plot(
                    at, scaled, style, color=colour, label=_label_of(name), marker="." if len(values) < 30 else ""
                )
        axes.set(xlabel=x_label, ylabel=panel)
        axes.xaxis.set_major_locator(MaxNLocator(integer=x is None))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize="small")
    return figure


def _unit_of(metric: str) -> str:
    """The panel of a metric: its quantity and unit, or its own name."""
    return _UNITS.get(metric.split("_")[-1], _label_of(metric.removeprefix("val_")))


def _label_of(metric: str) -> str:
    """A metric's name in words.

    Example:
        >>> _label_of("val_contrast_acc")
        'validation: contrast acc'
    """
    return ("validation: " if metric.startswith("val_") else "") + metric.removeprefix("val_").replace("_", " ")


def nearest_neighbours(
    queries: np.ndarray,
    neighbours: np.ndarray,
    *,
    cosines: np.ndarray | None = None,
    same: np.ndarray | None = None,
    figure: Figure | SubFigure | None = None,
) -> Figure | SubFigure:
    """Each query image in a row with its nearest neighbours, the nearest first.

    Args:
        queries: `(q, h, w, channels)`, floats in [0, 1] or uint8; 1 or 3 channels.
        neighbours: `(q, k, h, w, channels)`.
        cosines: their similarities `(q, k)` in [-1, 1], written above them.
        same: `(q, k)`, whether a neighbour has its query's label; framed in green, else in dashed red.
    """
    captions = np.full(neighbours.shape[:2], "") if cosines is None else np.vectorize("{:.2f}".format)(cosines)
    rows = [[query, *row] for query, row in zip(queries, neighbours, strict=True)]
    figure = sheet(rows, titles=[["query", *row] for row in captions], figure=figure)
    title = "nearest neighbours" + (", cosine similarity above" if cosines is not None else "")
    if same is not None:
        title += "; green: same class, dashed red: another"
        drawn = (axes for i, axes in enumerate(figure.axes) if i % len(rows[0]))  # without the queries
        for axes, match in zip(drawn, np.ravel(same), strict=True):
            colour, style = ("tab:green", "-") if match else ("tab:red", (0, (2, 2)))
            axes.spines[:].set(visible=True, color=colour, linestyle=style, linewidth=2)
    figure.suptitle(title, fontsize="medium")
    return figure


def view_pairs(
    views: np.ndarray, *, originals: np.ndarray | None = None, figure: Figure | SubFigure | None = None
) -> Figure | SubFigure:
    """A sheet of augmented pairs: a column an image, its two views below each other.

    Args:
        views: `(n, 2, h, w, channels)`, floats in [0, 1] or uint8.
        originals: the images `(n, h, w, channels)` that they were made of, on top.
    """
    rows = [("view 1", views[:, 0]), ("view 2", views[:, 1])]
    if originals is not None:
        rows.insert(0, ("image", originals))
    figure = sheet([list(images) for _, images in rows], figure=figure)
    for axes, (name, _) in zip(figure.axes[:: len(views)], rows, strict=True):
        axes.set_ylabel(name)
    figure.suptitle("two views of each image, as the network sees them", fontsize="medium")
    return figure


def augmentations(rows: Mapping[str, Sequence[np.ndarray]], pairs: np.ndarray, *, original: np.ndarray) -> Figure:
    """What each operator does to an image, a row an operator, above pairs of views as a network sees them.

    Args:
        rows: operator → its views, `(h, w, channels)` each, as many for each; columns share a crop.
        pairs: `(n, 2, h, w, channels)`.
        original: the image of the rows, `(h, w, channels)`.
    """
    draws = len(next(iter(rows.values())))
    height = 1.15 * len(rows)
    figure = Figure(figsize=(max(1.1 * draws + 3.2, 1.1 * len(pairs) + 1.0), height + 2.9), layout="constrained")
    above, below = np.ravel(figure.subfigures(2, 1, squeeze=False, height_ratios=[height, 2.9]))
    left, right = np.ravel(above.subfigures(1, 2, squeeze=False, width_ratios=[2.2, 1.1 * draws + 0.9]))
    sheet([[original]], titles=[["image"]], figure=left)
    sheet(list(rows.values()), figure=right)
    for axes, name in zip(right.axes[::draws], rows, strict=True):
        axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize="small")
    view_pairs(pairs, figure=below)
    below.suptitle("pairs of views", fontsize="medium")
    return figure


def sheet(
    rows: Sequence[Iterable[np.ndarray]] | np.ndarray,
    *,
    titles: Sequence[Sequence[str]] | None = None,
    figure: Figure | SubFigure | None = None,
) -> Figure | SubFigure:
    """Images `(h, w, channels)` in rows of equal length, without ticks; figures have the axes row by row."""
    grid = [list(row) for row in rows]
    check(len(grid) > 0 and len(grid[0]) > 0, "a sheet needs at least one image", rows=len(grid))
    figure = figure or Figure(figsize=(1.1 * len(grid[0]) + 0.4, 1.25 * len(grid) + 0.4), layout="constrained")
    axes = figure.subplots(len(grid), len(grid[0]), squeeze=False)
    for i, row in enumerate(grid):
        for j, image in enumerate(row):
            axes[i, j].imshow(np.squeeze(image), cmap="gray", vmin=0, vmax=255 if image.dtype == np.uint8 else 1)
            axes[i, j].set(xticks=[], yticks=[])
            axes[i, j].spines[:].set_visible(False)
            axes[i, j].set_title(titles[i][j] if titles else "", fontsize="small", pad=2)
    return figure


def run_summary(
    history: Mapping[str, Sequence[float]],
    images: tuple[np.ndarray, np.ndarray],
    *,
    cosines: np.ndarray | None = None,
    same: np.ndarray | None = None,
) -> Figure:
    """A run on one page: its `curves` above, the `nearest_neighbours` of a few images below.

    Args:
        images: the queries `(q, h, w, channels)` and their neighbours `(q, k, h, w, channels)`.
    """
    queries, neighbours = images
    figure = Figure(figsize=(10, 3.4 + 1.1 * len(queries)), layout="constrained")
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=[3.2, 1.1 * len(queries) + 0.2])[:, 0]
    curves(history, figure=above)
    nearest_neighbours(queries, neighbours, cosines=cosines, same=same, figure=below)
    return figure


def save(figure: Figure | SubFigure, path: str | Path, *, dpi: int = 150) -> Path:
    """Writes the figure in the format of the path's suffix, whole or not at all."""
    path = Path(path)
    with replacing(path) as [file]:
        figure.figure.savefig(file, format=path.suffix.removeprefix(".") or "png", dpi=dpi)
    return path


Band = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Common abscissae, and a curve with the lower and upper edge of its interval there."""


def confusion(labels: np.ndarray, predictions: np.ndarray, *, class_names: Sequence[str], title: str = "") -> Figure:
    """Counts of label against prediction, coloured by the share of the label's images."""
    check(len(labels) == len(predictions) > 0, "there must be a prediction for each label", labels=len(labels))
    count = len(class_names)
    table = np.zeros((count, count), int)
    np.add.at(table, (labels, predictions), 1)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    side = max(4.0, 0.45 * count + 1.6)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), number in np.ndenumerate(table):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, f"{number:,}", ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(count), class_names, rotation=45, ha="right")
    axes.set_yticks(range(count), class_names)
    axes.set(xlabel="prediction", ylabel="label")
    right = f"{len(labels):,} images, {100 * np.mean(labels == predictions):.1f} % on the diagonal"
    figure.suptitle("\n".join(filter(None, [textwrap.fill(title, int(12 * side)), right])), fontsize="medium")
    figure.colorbar(image, ax=axes, label="share of the label's images")
    return figure


def bands(curves: Mapping[str, Band], *, kind: str, base_rate: float = 0.5) -> Figure:
    """ROC (`kind="roc"`) or precision-recall curves (`"pr"`) with their intervals, beside what chance gives.

    The legend has the area under each curve, unless its name tells it.
    """
    figure = Figure(figsize=(4.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for number, (name, (x, y, low, high)) in enumerate(curves.items()):
        area = float(np.sum((y[1:] + y[:-1]) / 2 * np.diff(x)))  # by trapezoids
        told = name if "AUC" in name else f"{name} ({'AUC' if kind == 'roc' else 'area'} {area:.2f})"
        axes.plot(x, y, color=f"C{number}", label=told)
        axes.fill_between(x, low, high, color=f"C{number}", alpha=0.2, linewidth=0)
    chance = [0, 1] if kind == "roc" else [base_rate, base_rate]
    axes.plot([0, 1], chance, ":", color="grey", label="chance (AUC 0.50)" if kind == "roc" else "chance")
    names = ("1 − specificity", "sensitivity") if kind == "roc" else ("recall (sensitivity)", "precision")
    axes.set(xlabel=names[0], ylabel=names[1], xlim=(0, 1), ylim=(0, 1.01), aspect="equal")
    wide = any((high > low).any() for _, _, low, high in curves.values())
    title = "ROC curve" if kind == "roc" else "Precision and recall"
    axes.set_title(f"{title}{'; shaded: 95 % interval' * wide}", fontsize="medium")
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
    axes.set_title("Calibration; larger points: more images", fontsize="medium")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize="small", loc="upper left")
    return figure


def decision(
    at: np.ndarray, curves: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]], *, share: float
) -> Figure:
    """Net benefit by the threshold from which on one acts, with bands, beside acting on everybody and on nobody.

    Args:
        at: thresholds in (0, 1), `(t,)`.
        curves: name → net benefit, and the lower and upper edge of its interval, each `(t,)`.
        share: of the positives.
    """
    figure = Figure(figsize=(4.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for number, (name, (middle, low, high)) in enumerate(curves.items()):
        axes.plot(at, middle, color=f"C{number}", label=name)
        axes.fill_between(at, low, high, color=f"C{number}", alpha=0.2, linewidth=0)
    axes.plot(at, share - (1 - share) * at / (1 - at), "--", color="grey", label="call everybody positive")
    axes.axhline(0, linestyle=":", color="grey", label="call nobody positive")
    axes.set(xlabel="threshold (probability)", ylabel="net benefit (positives found an image)")
    axes.set(xlim=(0, 1), ylim=(-0.1 * max(share, 0.1), 1.1 * max(share, 0.05)))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize="small", loc="upper right")
    return figure


def levels(histograms: Mapping[str, np.ndarray]) -> Figure:
    """Histograms `(bins,)` of grey levels from black to white, each of sum 1."""
    figure = Figure(figsize=(8.5, 2.8), layout="constrained")
    axes = figure.subplots()
    for number, (name, shares) in enumerate(histograms.items()):
        edges = np.linspace(0, 1, len(shares) + 1)
        axes.stairs(
            100 * shares, edges, color=f"C{number}", label=name, fill=number == 0, alpha=0.5 if number == 0 else 1
        )
    axes.set(xlabel="grey level (0 black, 1 white)", ylabel="pixels (%)", xlim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize="small")
    return figure


def intervals(
    rows: Mapping[str, Mapping[str, tuple[float, ...]]], *, metric: str, chance: float | None = None
) -> Figure:
    """A metric with its interval, a line a row, a colour a series.

    Args:
        rows: row → series → mean, low and high.
        metric: what the axis is called.
        chance: where guessing would be.
    """
    series = list(dict.fromkeys(name for row in rows.values() for name in row))
    height = (0.42 + 0.1 * max(0, len(series) - 3)) * len(rows) + 0.2 * len(series) + 1.1
    figure = Figure(figsize=(8.5, height), layout="constrained")
    axes = figure.subplots()
    for number, name in enumerate(series):
        offset = min(0.3, 0.8 / len(series)) * (number - (len(series) - 1) / 2)
        there = [(i + offset, *row[name]) for i, row in enumerate(rows.values()) if name in row]
        at, mean, low, high = np.transpose(there)
        axes.hlines(at, low, high, color=f"C{number}", alpha=0.6)
        axes.plot(mean, at, "o", color=f"C{number}", markersize=4, label=name)
    if chance is not None:
        axes.axvline(chance, linestyle=":", color="grey")
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set(xlabel=f"{metric}, 95 % interval{'; dotted: chance' * (chance is not None)}", ylim=(len(rows) - 0.5, -0.5))
    axes.grid(alpha=0.3, axis="x")
    if len(series) > 1:
        columns = max(1, 100 // max(map(len, series)))  # letters that the width holds
        figure.legend(frameon=False, fontsize="small", loc="outside upper right", ncols=min(columns, len(series)))
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
        x, y = places[rows].T
        axes.scatter(x, y, s=8, color=colour, marker=marker, label=named, alpha=0.7, linewidths=0)
    axes.set(xticks=[], yticks=[], title=f"{len(places):,} images by {method}")
    if len(class_names) <= 20:
        figure.legend(title="class", frameon=False, fontsize="small", loc="outside right upper", markerscale=2)
    return figure


def search(values: Mapping[str, Sequence], scores: Sequence[float], *, metric: str) -> Figure:
    """What a search found: the metric against each knob; numbers that span more than two decades on a log axis."""
    check(len(values) > 0, "there must be at least one knob", knobs=list(values))
    figure = Figure(figsize=(max(3.2 * len(values), 4), 3.2), layout="constrained")
    best = int(np.argmax(scores))
    for axes, (name, at) in zip(
        figure.subplots(1, len(values), sharey=True, squeeze=False)[0], values.items(), strict=True
    ):
        numbers = [value for value in at if isinstance(value, int | float) and not isinstance(value, bool)]
        numeric = len(numbers) == len(at)
        places: list[Any] = list(at) if numeric else [str(value) for value in at]
        axes.scatter(places, scores, color="C0", alpha=0.7)
        axes.scatter([places[best]], [scores[best]], color="C3")
        if numeric and min(numbers) > 0 and max(numbers) / min(numbers) > 100:
            axes.set_xscale("log")
        axes.set(xlabel=name)
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel(metric)
    figure.suptitle(f"{len(scores)} trials; red: the best, {scores[best]:.4g}", fontsize="medium")
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
    upper, lower = figure.subfigures(2, 1, height_ratios=(2.2, 1), squeeze=False)[:, 0]
    upper.suptitle(title, fontsize=13)
    lower.suptitle("nearest training cases, with the cosine of their features", fontsize=10)
    for part, named in ((upper, list(pictures.items())), (lower, [(text, picture) for picture, text in cases])):
        for axes, (text, picture) in zip(np.ravel(part.subplots(1, len(named))), named, strict=True):
            axes.imshow(picture, cmap="gray", vmin=0, vmax=255)
            axes.set_title(text, fontsize=9)
            axes.set_axis_off()
    lower.supxlabel(note, fontsize=10)
    return figure
