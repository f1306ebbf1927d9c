"""Figures of the page for clinicians, as markup."""

from collections.abc import Sequence
from typing import Any

from tf_simclr import plots
from tf_simclr.chest.ards.numbers import Asked, Estimate, Way
from tf_simclr.chest.html import drawing, tag
from tf_simclr.evaluation.binary import reliability
from tf_simclr.evaluation.maps import curve_band


def figures(ways: Sequence[Way], estimates: Sequence[dict[str, Estimate]], *, test: Asked) -> list[str]:
    """AUCs with intervals, ROC curves, and calibration, as markup.

    Args:
        ways: the first one's ROC curve is drawn with its band.
        estimates: of each way.
        test: the images that they were asked about.
    """
    aucs = {way.title: {"": tuple(of["auc"].values())} for way, of in zip(ways, estimates, strict=True)}
    curves = {way.title: curve_band(way.together, test.labels, kind="roc", groups=test.patients) for way in ways}
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
                plots.bands(_only_first(curves), kind="roc"),
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


def _only_first(curves: dict[str, plots.Band]) -> dict[str, plots.Band]:
    """Bands of which only the first has a width: several that overlap cannot be read."""
    first = next(iter(curves))
    return {name: band if name == first else (band[0], band[1], band[1], band[1]) for name, band in curves.items()}
