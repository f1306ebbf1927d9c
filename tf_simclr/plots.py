"""Figures of views, features and answers: returned, never shown; each also draws into a part of a figure.

Each explains itself: a title, axes with units, a legend where there are several series, how many images.  Colours are
told apart with any colour vision (Okabe and Ito), and series by their lines and points, too; letters can be read where
a figure is 600 px wide.  No figure touches matplotlib's global state, so a server can draw several at a time.
"""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure, SubFigure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from tf_simclr.errors import check
from tf_simclr.files import replacing

_UNITS = {"loss": "loss (nats)", "acc": "accuracy (%)", "accuracy": "accuracy (%)", "entropy": "entropy (nats)"}
_UNITS |= {"std": "spread (0: collapsed, 1: everywhere)", "rank": "effective rank (dimensions)"}
"""What the last word of a metric's name means, with its unit; metrics of one unit share a panel."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Of series, in their order: Okabe and Ito's, without the yellow, which white paper swallows.

References:
    M. Okabe and K. Ito, Color Universal Design, 2008 (https://jfly.uni-koeln.de/color/)
"""
_LINES, _MARKERS = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1, 1, 1))), "os^DvPX*"
_WIDE = 3.3
"""Inches of a panel; two stand beside each other."""


def _series(number: int) -> dict[str, Any]:
    """Colour and line of a series by its number."""
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": _LINES[number % len(_LINES)]}


def _heading(title: str, count: str = "", *, width: int = 56) -> str:
    """A title, broken where it is long, and below it of how many images."""
    return "\n".join(line for text in (title, count) for line in textwrap.wrap(text, width))


def _panel(width: float, height: float) -> tuple[Figure, Any]:
    """A figure so many inches wide and high, and its only axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _panels(count: int, figure: Figure | SubFigure | None) -> tuple[Figure | SubFigure, list[Any]]:
    """A figure with so many panels, two in a row, and their axes."""
    columns = min(count, 2)
    rows = -(-count // columns)
    size = (max(_WIDE * columns, 4.6), 2.9 * rows)
    figure = figure or Figure(figsize=size, layout="constrained")
    axes = list(np.ravel(figure.subplots(rows, columns, squeeze=False)))
    for empty in axes[count:]:
        empty.remove()
    return figure, axes[:count]


def curves(
    history: Mapping[str, Sequence[float]],
    *,
    x: Sequence[float] | None = None,
    x_label: str = "epoch",
    title: str = "Training",
    figure: Figure | SubFigure | None = None,
) -> Figure | SubFigure:
    """A run's metrics, one panel a unit; `val_` ones are dashed in the colour of their training ones.

    Args:
        history: metric → one value an epoch, as `keras.callbacks.History.history`; accuracies are in [0, 1].
        x: where the values were taken; by default 1, 2, ….
        x_label: what they are.
        title: above all.
        figure: to draw into; by default a new one.
    """
    check(len(history) > 0, "history must hold at least one metric", metrics=list(history))
    panels = list(dict.fromkeys(map(_unit_of, history)))
    figure, places = _panels(len(panels), figure)
    for panel, axes in zip(panels, places, strict=True):
        colours: dict[str, str] = {}
        for name, values in history.items():
            if _unit_of(name) == panel:
                metric = name.removeprefix("val_")
                colour = colours.setdefault(metric, COLOURS[len(colours) % len(COLOURS)])
                at = range(1, len(values) + 1) if x is None else x
                scaled = np.asarray(values) * (100 if panel.endswith("(%)") else 1)
                style = "--" if name != metric else "-"
                axes.plot(
                    at, scaled, style, color=colour, label=_label_of(name), marker="." if len(values) < 30 else ""
                )
        axes.set(xlabel=x_label, ylabel=panel)
        axes.xaxis.set_major_locator(MaxNLocator(integer=x is None))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=9)
    figure.suptitle(_heading(title), fontsize="medium")
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
        same: `(q, k)`, whether a neighbour has its query's label; framed in blue, else in dashed orange.
        figure: to draw into; by default a new one.
    """
    captions = np.full(neighbours.shape[:2], "") if cosines is None else np.vectorize("{:.2f}".format)(cosines)
    rows = [[query, *row] for query, row in zip(queries, neighbours, strict=True)]
    figure = sheet(rows, titles=[["query", *row] for row in captions], figure=figure)
    lines = ["Nearest neighbours" + (", cosine similarity above each" if cosines is not None else "")]
    if same is not None:
        agree = f"{100 * np.mean(same):.0f} % of {np.size(same)}"
        lines.append(f"blue frame: same class as the query ({agree}); dashed orange: another")
        drawn = (axes for i, axes in enumerate(figure.axes) if i % len(rows[0]))  # without the queries
        for axes, match in zip(drawn, np.ravel(same), strict=True):
            colour, style = (COLOURS[0], "-") if match else (COLOURS[1], (0, (2, 2)))
            axes.spines[:].set(visible=True, color=colour, linestyle=style, linewidth=2)
    figure.suptitle(_heading(*lines, width=_letters(len(rows[0]))), fontsize="medium")
    return figure


def view_pairs(
    views: np.ndarray, *, originals: np.ndarray | None = None, figure: Figure | SubFigure | None = None
) -> Figure | SubFigure:
    """A sheet of augmented pairs: a column an image, its two views below each other.

    Args:
        views: `(n, 2, h, w, channels)`, floats in [0, 1] or uint8.
        originals: the images `(n, h, w, channels)` that they were made of, on top.
        figure: to draw into; by default a new one.
    """
    rows = [("view 1", views[:, 0]), ("view 2", views[:, 1])]
    if originals is not None:
        rows.insert(0, ("image", originals))
    figure = sheet([list(images) for _, images in rows], figure=figure)
    for axes, (name, _) in zip(figure.axes[:: len(views)], rows, strict=True):
        axes.set_ylabel(name)
    figure.suptitle("Two random views of each image, as the network sees them", fontsize="medium")
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
        axes.set_ylabel(name, rotation=0, ha="right", va="center")
    right.suptitle("Each operator alone, always applied; a column shares a crop", fontsize="medium")
    view_pairs(pairs, figure=below)
    below.suptitle("Pairs of views, as the network sees them", fontsize="medium")
    return figure


def sheet(
    rows: Sequence[Iterable[np.ndarray]] | np.ndarray,
    *,
    titles: Sequence[Sequence[str]] | None = None,
    title: str = "",
    figure: Figure | SubFigure | None = None,
) -> Figure | SubFigure:
    """Images `(h, w, channels)` in rows of equal length, without ticks; figures have the axes row by row.

    Args:
        rows: the images.
        titles: above each.
        title: above all.
        figure: to draw into; by default a new one.
    """
    grid = [list(row) for row in rows]
    check(len(grid) > 0 and len(grid[0]) > 0, "a sheet needs at least one image", rows=len(grid))
    figure = figure or Figure(figsize=(1.1 * len(grid[0]) + 0.4, 1.25 * len(grid) + 0.4), layout="constrained")
    axes = figure.subplots(len(grid), len(grid[0]), squeeze=False)
    for i, row in enumerate(grid):
        for j, image in enumerate(row):
            axes[i, j].imshow(np.squeeze(image), cmap="gray", vmin=0, vmax=255 if image.dtype == np.uint8 else 1)
            axes[i, j].set(xticks=[], yticks=[])
            axes[i, j].spines[:].set_visible(False)
            axes[i, j].set_title(titles[i][j] if titles else "", fontsize="medium", pad=2)
    if title:
        figure.suptitle(_heading(title, width=_letters(len(grid[0]))), fontsize="medium")
    return figure


def _letters(columns: int) -> int:
    """Of a title above so many images in a row."""
    return max(18, 14 * columns)


def run_summary(
    history: Mapping[str, Sequence[float]],
    images: tuple[np.ndarray, np.ndarray],
    *,
    cosines: np.ndarray | None = None,
    same: np.ndarray | None = None,
) -> Figure:
    """A run on one page: its `curves` above, the `nearest_neighbours` of a few images below.

    Args:
        history: as of `curves`.
        images: the queries `(q, h, w, channels)` and their neighbours `(q, k, h, w, channels)`.
        cosines: as of `nearest_neighbours`.
        same: as of `nearest_neighbours`.
    """
    queries, neighbours = images
    top, bottom = 2.9 * -(-len(set(map(_unit_of, history))) // 2), 1.0 * len(queries) + 0.7
    figure = Figure(figsize=(8, top + bottom), layout="constrained")
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=[top, bottom])[:, 0]
    curves(history, figure=above)
    nearest_neighbours(queries, neighbours, cosines=cosines, same=same, figure=below)
    return figure


def save(figure: Figure | SubFigure, path: str | Path, *, dpi: int = 150, made_up: bool = False) -> Path:
    """Writes the figure in the format of the path's suffix, whole or not at all; one of made-up data says so."""
    path = Path(path)
    if made_up:
        figure.figure.supxlabel("made-up radiographs", x=0.01, ha="left", fontsize=9, color="#8a4b00")
    as_written(figure.figure)
    with replacing(path) as [file]:
        figure.figure.savefig(file, format=path.suffix.removeprefix(".") or "png", dpi=dpi)
    return path


def as_written(figure: Any) -> None:
    """Has each text of a figure stand as it is: names of classes and files may hold `$`, which would begin a formula.

    Bytes of a name that are no UTF-8 become `\\xff`, as `places.shown` has them; no font has them.
    """
    for text in figure.findobj(Text):
        text.set_parse_math(False)
        text.set_text(text.get_text().encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) if axis.get_scale() == "log"):
        for label in axis.get_ticklabels():  # powers of ten are formulas
            label.set_parse_math(True)


class Curve(NamedTuple):
    """A curve at common abscissae with its interval there.

    Attributes:
        x: `(n,)`.
        y: `(n,)`.
        low: lower edge of the interval.
        high: upper edge.
        area: under it, with the ends of its 95 % interval; by default by trapezoids, without one.
    """

    x: np.ndarray
    y: np.ndarray
    low: np.ndarray
    high: np.ndarray
    area: tuple[float, ...] | None = None

    def told(self, kind: str) -> str:
        """What a legend says of it.

        Example:
            >>> line = np.array([0.0, 1.0])
            >>> Curve(line, line, line, line).told("AUC"), Curve(line, line, line, line, (0.5, 0.4, 0.6)).told("AUC")
            ('AUC 0.50', 'AUC 0.50 (0.40–0.60)')
        """
        if self.area is None:
            return f"{kind} {float(np.sum((self.y[1:] + self.y[:-1]) / 2 * np.diff(self.x))):.2f}"
        value, low, high = self.area
        return f"{kind} {value:.2f} ({low:.2f}–{high:.2f})"


_NAMED_CLASSES = 20
"""Up to so many classes a confusion matrix has numbers in its cells; of more, as many are named."""


def confusion(labels: np.ndarray, predictions: np.ndarray, *, class_names: Sequence[str], title: str = "") -> Figure:
    """Counts of label against prediction, coloured by the share of the label's images."""
    check(len(labels) == len(predictions) > 0, "there must be a prediction for each label", labels=len(labels))
    count = len(class_names)
    table = np.zeros((count, count), int)
    np.add.at(table, (labels, predictions), 1)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    few = count <= _NAMED_CLASSES
    side = max(4.0, 0.38 * count + 1.0) if few else 7.6
    figure, axes = _panel(side + 0.8, side)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), number in np.ndenumerate(table) if few else ():
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, f"{number:,}", ha="center", va="center", color=colour, fontsize=8)
    ticks = range(0, count, -(-count // _NAMED_CLASSES))
    short = [textwrap.shorten(class_names[i], 24, placeholder="…") for i in ticks]
    axes.set_xticks(ticks, short, rotation=45, ha="right")
    axes.set_yticks(ticks, short)
    axes.set(xlabel="predicted class", ylabel="true class (label)")
    right = f"{len(labels):,} images, {100 * np.mean(labels == predictions):.1f} % on the diagonal"
    figure.suptitle(_heading(title or "Confusion matrix", right, width=int(12 * side)), fontsize="medium")
    figure.colorbar(image, ax=axes, label="share of the label's images")
    return figure


def bands(
    curves: Mapping[str, Curve | tuple], *, kind: str, base_rate: float = 0.5, title: str = "", count: str = ""
) -> Figure:
    """ROC (`kind="roc"`) or precision-recall curves (`"pr"`) with their intervals, beside what chance gives.

    Args:
        curves: name → curve; the legend has the area under each, with its interval where it is given.
        kind: which of the two.
        base_rate: share of the positives, which chance reaches as precision.
        title: above it; by default what kind of curve it is.
        count: how many images of how many patients.
    """
    figure, axes = _panel(5.2, 5.4)
    wide = False
    for number, (name, given) in enumerate(curves.items()):
        curve = Curve(*given)
        style = _series(number)
        axes.plot(
            curve.x, curve.y, label=_heading(f"{name}: {curve.told('AUC' if kind == 'roc' else 'area')}"), **style
        )
        axes.fill_between(curve.x, curve.low, curve.high, color=style["color"], alpha=0.2, linewidth=0)
        wide |= bool((curve.high > curve.low).any())
    chance = [0, 1] if kind == "roc" else [base_rate, base_rate]
    told = "chance: AUC 0.50" if kind == "roc" else f"chance: precision {base_rate:.2f}"
    axes.plot([0, 1], chance, ":", color="grey", label=told)
    names = (
        ("1 − specificity (false positive rate)", "sensitivity (true positive rate)")
        if kind == "roc"
        else ("recall (sensitivity)", "precision (positive predictive value)")
    )
    axes.set(xlabel=names[0], ylabel=names[1], xlim=(0, 1), ylim=(0, 1.01), aspect="equal")
    title = title or ("ROC curve" if kind == "roc" else "Precision and recall")
    _finish(figure, axes, f"{title}{'; shaded: 95 % interval' * wide}", count)
    return figure


def _finish(figure: Figure, axes: Any, title: str, count: str) -> None:
    """Title and grid, and the legend below the axes, where it hides no line."""
    axes.set_title(_heading(title, count), fontsize="medium")
    axes.grid(alpha=0.3)
    figure.legend(frameon=False, fontsize="medium", loc="outside lower center", ncols=1)


def reliability(bins: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]], *, title: str = "Calibration") -> Figure:
    """Mean probability against share of positives of each bin; the size of a point grows with its images.

    Args:
        bins: name → mean probabilities, shares of positives, and counts.
        title: above it.
    """
    figure, axes = _panel(5.2, 5.4)
    for number, (name, (said, was, counts)) in enumerate(bins.items()):
        style = _series(number)
        told = f"{name} (n = {int(np.sum(counts)):,})"
        axes.plot(said, was, label=_heading(told), marker=_MARKERS[number % len(_MARKERS)], markersize=3, **style)
        axes.scatter(said, was, s=10 + 190 * counts / counts.sum(), color=style["color"], alpha=0.5, linewidths=0)
    axes.plot([0, 1], [0, 1], ":", color="grey", label="perfectly calibrated")
    axes.set(xlabel="mean predicted probability", ylabel="observed share of positives")
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    _finish(figure, axes, title, "larger points: more images")
    return figure


def decision(
    at: np.ndarray,
    curves: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
    *,
    share: float,
    title: str = "Decision curve",
) -> Figure:
    """Net benefit by the threshold from which on one acts, with bands, beside acting on everybody and on nobody.

    Args:
        at: thresholds in (0, 1), `(t,)`.
        curves: name → net benefit, and the lower and upper edge of its interval, each `(t,)`.
        share: of the positives.
        title: above it.
    """
    figure, axes = _panel(5.2, 5.0)
    for number, (name, (middle, low, high)) in enumerate(curves.items()):
        style = _series(number)
        axes.plot(at, middle, label=name, **style)
        axes.fill_between(at, low, high, color=style["color"], alpha=0.2, linewidth=0)
    axes.plot(at, share - (1 - share) * at / (1 - at), "--", color="grey", label="call everybody positive")
    axes.axhline(0, linestyle=":", color="grey", label="call nobody positive")
    axes.set(xlabel="threshold (probability)", ylabel="net benefit (true positives per image)")
    axes.set(xlim=(0, 1), ylim=(-0.1 * max(share, 0.1), 1.1 * max(share, 0.05)))
    count = f"{100 * share:.0f} % of the images are positive; shaded: 95 % interval"
    _finish(figure, axes, title, count)
    return figure


def levels(histograms: Mapping[str, np.ndarray], *, title: str = "Grey levels") -> Figure:
    """Histograms `(bins,)` of grey levels from black to white, each of sum 1."""
    figure, axes = _panel(6.6, 3.2)
    for number, (name, shares) in enumerate(histograms.items()):
        edges = np.linspace(0, 1, len(shares) + 1)
        filled: dict[str, Any] = {"fill": True, "alpha": 0.45} if number == 0 else {"linewidth": 1.6}
        axes.stairs(100 * shares, edges, color=COLOURS[number % len(COLOURS)], label=name, **filled)
    axes.set(xlabel="grey level (0 black, 1 white)", ylabel="pixels (%)", xlim=(0, 1))
    axes.set_title(_heading(title), fontsize="medium")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def intervals(
    rows: Mapping[str, Mapping[str, tuple[float, ...]]], *, metric: str, chance: float | None = None, title: str = ""
) -> Figure:
    """A metric with its interval, a line a row, a colour a series.

    Args:
        rows: row → series → mean, low and high.
        metric: what the axis is called.
        chance: where guessing would be.
        title: above it; by default the metric.
    """
    series = list(dict.fromkeys(name for row in rows.values() for name in row))
    height = (0.42 + 0.1 * max(0, len(series) - 3)) * len(rows) + 0.22 * len(series) + 1.4
    figure, axes = _panel(7.2, height)
    for number, name in enumerate(series):
        offset = min(0.3, 0.8 / len(series)) * (number - (len(series) - 1) / 2)
        there = [(i + offset, *row[name]) for i, row in enumerate(rows.values()) if name in row]
        at, mean, low, high = np.transpose(there)
        colour, marker = COLOURS[number % len(COLOURS)], _MARKERS[number % len(_MARKERS)]
        axes.hlines(at, low, high, color=colour, alpha=0.6)
        axes.plot(mean, at, marker, color=colour, markersize=4, label=name)
    if chance is not None:
        axes.axvline(chance, linestyle=":", color="grey")
    axes.set_yticks(range(len(rows)), [textwrap.fill(name, 40) for name in rows])
    axes.set(xlabel=f"{metric}, 95 % interval{'; dotted: chance' * (chance is not None)}", ylim=(len(rows) - 0.5, -0.5))
    axes.set_title(_heading(title or metric), fontsize="medium")
    axes.grid(alpha=0.3, axis="x")
    if len(series) > 1:
        columns = max(1, 84 // max(map(len, series)))  # letters that the width holds
        figure.legend(frameon=False, loc="outside lower center", ncols=min(columns, len(series)))
    return figure


_LISTED_CLASSES = 28
"""Of a map's legend; as many have a colour and a point of their own."""


def feature_map(places: np.ndarray, labels: np.ndarray, *, class_names: Sequence[str], method: str) -> Figure:
    """Features laid out in the plane, a colour and a point a class.

    Args:
        places: `(n, 2)` of `evaluation.maps`.
        labels: `(n,)`; negative ones are drawn grey.
        class_names: in the order of the labels.
        method: what laid them out, for the title.
    """
    figure, axes = _panel(7.0, 5.0)
    for number in sorted(set(labels.tolist())):
        rows = labels == number
        named = class_names[number] if 0 <= number < len(class_names) else "no label"
        colour = COLOURS[number % len(COLOURS)] if number >= 0 else "lightgrey"
        marker = "o^sD"[max(number, 0) // len(COLOURS) % 4]
        x, y = places[rows].T
        told = f"{textwrap.shorten(named, 24, placeholder='…')} ({int(rows.sum()):,})"
        axes.scatter(x, y, s=16, color=colour, marker=marker, label=told, alpha=0.7, linewidths=0)
    axes.set(xticks=[], yticks=[], xlabel=f"{method}, first direction", ylabel=f"{method}, second direction")
    few = len(class_names) <= _LISTED_CLASSES
    note = "" if few else f"{len(class_names):,} classes: their colours repeat"
    axes.set_title(_heading(f"Features of {len(places):,} images by {method}", note), fontsize="medium")
    if few:
        columns = 1 + len(class_names) // 17
        figure.legend(title="class (images)", frameon=False, loc="outside right upper", markerscale=2, ncols=columns)
    return figure


def search(values: Mapping[str, Sequence], scores: Sequence[float], *, metric: str) -> Figure | SubFigure:
    """What a search found: the metric against each knob; numbers that span more than two decades on a log axis."""
    check(len(values) > 0, "there must be at least one knob", knobs=list(values))
    figure, panels = _panels(len(values), None)
    best = int(np.argmax(scores))
    for axes, (name, at) in zip(panels, values.items(), strict=True):
        numbers = [value for value in at if isinstance(value, int | float) and not isinstance(value, bool)]
        numeric = len(numbers) == len(at)
        texts = list(dict.fromkeys(map(str, at)))
        places = [float(value) for value in at] if numeric else [float(texts.index(str(value))) for value in at]
        axes.scatter(places, scores, color=COLOURS[0], alpha=0.7, label="a trial")
        axes.scatter([places[best]], [scores[best]], color=COLOURS[1], marker="D", label="the best")
        if numeric and min(numbers) > 0 and max(numbers) / min(numbers) > 100:
            axes.set_xscale("log")
        if not numeric:
            axes.set_xticks(range(len(texts)), _short(texts), rotation=20, ha="right")
            axes.set_xlim(-0.5, len(texts) - 0.5)
        axes.set(xlabel=name.replace("_", " "), ylabel=metric)
        axes.grid(alpha=0.3)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, frameon=False, loc="outside lower center", ncols=2)
    figure.suptitle(f"Search of {len(scores)} trials; the best: {metric} {scores[best]:.4g}", fontsize="medium")
    return figure


def _short(texts: Sequence[str]) -> list[str]:
    """Texts as short as they can be told apart: of paths the last parts, of what is still long its two ends."""
    most = max(text.count("/") for text in texts) + 1
    for parts in range(1, most + 1):
        found = ["/".join(text.split("/")[-parts:]) for text in texts]
        if len(set(found)) == len(set(texts)):
            break
    return [text if len(text) <= 24 else f"{text[:11]}…{text[-12:]}" for text in found]


def explanation(
    pictures: Mapping[str, np.ndarray],
    cases: Sequence[tuple[np.ndarray, str]],
    *,
    title: str,
    note: str,
    colours: np.ndarray | None = None,
) -> Figure:
    """Pictures of one image with their names, and below them its nearest cases with a text each.

    Args:
        pictures: name → uint8 `(h, w)` or `(h, w, 3)`.
        cases: uint8 `(h, w)` and what stands below it.
        title: above all.
        note: below all.
        colours: `(n, 3)` of 0 to 255: what maps laid over a picture are coloured by, from the least to the most.
    """
    figure = Figure(figsize=(8.4, 6.4), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(2.2, 1), squeeze=False)[:, 0]
    upper.suptitle(_heading(title, width=80), fontsize=13)
    lower.suptitle("Nearest training cases, with the cosine similarity of their features", fontsize=11)
    for part, named in ((upper, list(pictures.items())), (lower, [(text, picture) for picture, text in cases])):
        places = np.ravel(part.subplots(1, len(named)))
        for axes, (text, picture) in zip(places, named, strict=True):
            axes.imshow(picture, cmap="gray", vmin=0, vmax=255)
            axes.set_title(_wrapped(text, width=72 // len(named)), fontsize=10)
            axes.set_axis_off()
    if colours is not None:
        scale = ScalarMappable(cmap=ListedColormap(np.asarray(colours) / 255))
        bar = upper.colorbar(scale, ax=list(upper.axes), orientation="horizontal", shrink=0.5, aspect=40)
        bar.set_ticks([0, 1], labels=["little", "most"])
        bar.set_label("how much a place speaks for the finding", fontsize=10)
    lower.supxlabel(note, fontsize=10)
    return figure


def _wrapped(text: str, *, width: int) -> str:
    """The text with its own lines, each broken where it is long."""
    return "\n".join(textwrap.fill(line, max(width, 10)) for line in text.splitlines())
