"""Figures: returned, never shown; each also draws into a part of a figure that it is given.

No figure touches matplotlib's global state, so a server can draw several at a time.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from tf_simclr.errors import check
from tf_simclr.files import replacing

UNITS = {"loss": "loss (nats)", "acc": "accuracy (%)", "accuracy": "accuracy (%)", "entropy": "entropy (nats)"}
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
    panels = list(dict.fromkeys(map(unit_of, history)))
    figure = figure or Figure(figsize=(4.5 * len(panels), 3.2), layout="constrained")
    for panel, axes in zip(panels, np.ravel(figure.subplots(1, len(panels), squeeze=False)), strict=True):
        colours: dict[str, str] = {}
        for name, values in history.items():
            if unit_of(name) == panel:
                metric = name.removeprefix("val_")
                colour = colours.setdefault(metric, f"C{len(colours)}")
                at = range(1, len(values) + 1) if x is None else x
                scaled = np.asarray(values) * (100 if panel.endswith("(%)") else 1)
                style = "--" if name != metric else "-"
                axes.plot(at, scaled, style, color=colour, label=label_of(name), marker="." if len(values) < 30 else "")
        axes.set(xlabel=x_label, ylabel=panel)
        axes.xaxis.set_major_locator(MaxNLocator(integer=x is None))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize="small")
    return figure


def unit_of(metric: str) -> str:
    """The panel of a metric: its quantity and unit, or its own name."""
    return UNITS.get(metric.split("_")[-1], label_of(metric.removeprefix("val_")))


def label_of(metric: str) -> str:
    """A metric's name in words.

    Example:
        >>> label_of("val_contrast_acc")
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
