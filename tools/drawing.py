"""Boxes and arrows on a sheet: what the project's own figures are drawn with."""

from pathlib import Path

import matplotlib
from matplotlib import pyplot
from matplotlib.patches import FancyBboxPatch, Rectangle

matplotlib.use("agg")
matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text: it can be searched, and a test reads it
matplotlib.rcParams["svg.hashsalt"] = "tf_simclr"  # the same figure gives the same file

INK, QUIET, BLUE, GREEN, GREY = "#1c2733", "#5b6875", "#dbe8f6", "#e2f0df", "#eef0f2"


class Sheet:
    """Boxes and arrows on a sheet.

    Args:
        width: in inches; coordinates are tenths of an inch.
        height: likewise.
    """

    def __init__(self, width: float, height: float):
        self.width = width
        self.figure, self.axes = pyplot.subplots(figsize=(width, height), dpi=100)
        self.axes.set(xlim=(0, 10 * width), ylim=(0, 10 * height), aspect="equal")
        self.axes.axis("off")
        self.figure.subplots_adjust(0, 0, 1, 1)

    def box(self, x: float, y: float, width: float, height: float, *, title: str, note: str = "", color: str) -> None:
        """A box by its lower left corner, with a title and a smaller note of up to two lines."""
        style = {"boxstyle": "round,pad=0,rounding_size=0.8", "ec": INK, "lw": 0.8, "zorder": 2}
        self.axes.add_patch(FancyBboxPatch((x, y), width, height, fc=color, **style))
        middle = y + height / 2 + (0.55 * (1 + note.count("\n")) + 0.35 if note else 0)
        self.axes.text(x + width / 2, middle, title, ha="center", va="center", size=9.5, color=INK, weight="bold")
        if note:
            self.axes.text(x + width / 2, middle - 1.3, note, ha="center", va="top", size=8.2, color=QUIET)

    def arrow(
        self,
        start: tuple[float, float],
        end: tuple[float, float],
        *,
        style: str = "-|>",
        dashed: bool = False,
        behind: bool = False,
    ) -> None:
        """An arrow between two points; one that is `behind` is lighter, and boxes hide it."""
        color, width = ("#9aa7b4", 0.8) if behind else (INK, 1.1)
        line = {"arrowstyle": style, "lw": width, "color": color, "mutation_scale": 11, "shrinkA": 0, "shrinkB": 0}
        self.axes.annotate(
            "", end, start, arrowprops=line | {"linestyle": "--" if dashed else "-"}, zorder=0 if behind else 3
        )

    def note(self, x: float, y: float, text: str, *, size: float = 8.2, **options) -> None:
        """Text without a box."""
        self.axes.text(x, y, text, size=size, color=QUIET, va="center", **({"ha": "center"} | options))

    def frame(self, x: float, y: float, width: float, height: float) -> None:
        """A dashed line around boxes that belong together."""
        self.axes.add_patch(Rectangle((x, y), width, height, fill=False, ec=QUIET, lw=0.8, ls="--"))

    def save(self, target: Path) -> None:
        """Writes the figure, by the target's ending, on white."""
        self.figure.savefig(target, **({"metadata": {"Date": None}} if target.suffix == ".svg" else {}))
        pyplot.close(self.figure)
