"""The README's figure of what trains and what is carried over; `tools/pictures.py` writes it."""

from pathlib import Path

from tools.drawing import BLUE, GREEN, GREY, Sheet


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
    sheet = Sheet(10, 4.9)
    training(sheet)
    conversion(sheet)
    sheet.save(target)
