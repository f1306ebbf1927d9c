"""The README's figure of what trains and what is carried over; `draw.py` writes it."""

from pathlib import Path

import matplotlib

matplotlib.use("agg")

from matplotlib import pyplot
from matplotlib.patches import FancyBboxPatch

INK, QUIET, BLUE, GREEN, GREY = "#1c2733", "#5b6875", "#dbe8f6", "#e2f0df", "#eef0f2"
SIZE = (10.0, 4.9)
"""Inches; coordinates below are tenths of an inch."""


class Sheet:
    """Boxes and arrows on a sheet."""

    def __init__(self):
        self.figure, self.axes = pyplot.subplots(figsize=SIZE, dpi=100)
        self.axes.set(xlim=(0, 10 * SIZE[0]), ylim=(0, 10 * SIZE[1]), aspect="equal")
        self.axes.axis("off")
        self.figure.subplots_adjust(0, 0, 1, 1)

    def box(self, x: float, y: float, width: float, height: float, *, title: str, note: str = "", color: str) -> None:
        """A box by its lower left corner, with a title and a smaller note of up to two lines."""
        style = {"boxstyle": "round,pad=0,rounding_size=0.8", "ec": INK, "lw": 0.8}
        self.axes.add_patch(FancyBboxPatch((x, y), width, height, fc=color, **style))
        middle = y + height / 2 + (0.55 * (1 + note.count("\n")) + 0.35 if note else 0)
        self.axes.text(x + width / 2, middle, title, ha="center", va="center", size=9.5, color=INK, weight="bold")
        if note:
            self.axes.text(x + width / 2, middle - 1.3, note, ha="center", va="top", size=8.2, color=QUIET)

    def arrow(self, start: tuple[float, float], end: tuple[float, float], *, style: str = "-|>", dashed=False) -> None:
        """An arrow between two points."""
        line = {"arrowstyle": style, "lw": 1.1, "color": INK, "mutation_scale": 11, "shrinkA": 0, "shrinkB": 0}
        self.axes.annotate("", end, start, arrowprops=line | {"linestyle": "--" if dashed else "-"})

    def note(self, x: float, y: float, text: str, *, size: float = 8.2, **options) -> None:
        """Text without a box."""
        self.axes.text(x, y, text, size=size, color=QUIET, va="center", **({"ha": "center"} | options))


def training(sheet: Sheet) -> None:
    """The upper half: SimCLR."""
    sheet.note(2, 46.7, "Pretraining: two views of an image must find each other in the batch", size=9, ha="left")
    sheet.box(2, 33, 11, 9, title="image", note="tfds, folder,\nradiographs", color=GREY)
    for y, name in ((39, "view 1"), (31, "view 2")):
        sheet.box(20, y, 11, 5, title=name, color=GREY)
        sheet.arrow((13, 37.5), (20, y + 2.5))
        sheet.arrow((31, y + 2.5), (37, 37.5))
    sheet.note(25.5, 29.2, "crop, flip, colour, blur")
    sheet.box(37, 32, 15, 11, title="encoder", note="ResNet 18–200,\n1x–4x, SK, SE", color=BLUE)
    sheet.arrow((52, 37.5), (59, 37.5))
    sheet.box(59, 32, 14, 11, title="projection head", note="2–3 layers,\n128 numbers", color=BLUE)
    sheet.arrow((73, 37.5), (81, 37.5))
    sheet.box(81, 32, 17, 11, title="NT-Xent", note="all replicas' negatives,\nLARS", color=BLUE)
    sheet.arrow((44.5, 32), (44.5, 28.2), dashed=True)
    sheet.box(37, 22.2, 15, 6, title="probe", note="stop-gradient", color=GREY)
    sheet.box(59, 22.2, 39, 6, title="fine-tune · linear evaluation · distil · embed · export", color=GREY)
    sheet.arrow((52, 34), (59, 28.2))


def conversion(sheet: Sheet) -> None:
    """The lower half: the converters."""
    sheet.axes.plot([2, 98], [19.5, 19.5], color="#c9d0d7", lw=0.8)
    sheet.note(2, 17.6, "Conversion: every format to every other, verified after each", size=9, ha="left")
    sheet.box(2, 3, 27, 12, title="TensorFlow", note="TF1 and TF2 checkpoints,\nhub modules, SavedModels", color=GREEN)
    note = "hub names, TensorFlow's layout,\nread tensor by tensor"
    sheet.box(37, 3, 26, 12, title="one architecture, its weights", note=note, color=GREEN)
    sheet.box(71, 9.6, 27, 6.4, title="PyTorch", note=".pth, .safetensors, Hugging Face", color=GREEN)
    sheet.box(71, 2, 27, 6.4, title="Keras", note=".keras, .weights.h5, run folders", color=GREEN)
    sheet.arrow((29, 9), (37, 9), style="<|-|>")
    sheet.arrow((63, 9.8), (71, 12.6), style="<|-|>")
    sheet.arrow((63, 8.2), (71, 5.4), style="<|-|>")


def draw(target: Path) -> None:
    """Writes the figure as a PNG."""
    sheet = Sheet()
    training(sheet)
    conversion(sheet)
    sheet.figure.savefig(target)
