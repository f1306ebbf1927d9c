"""Every figure that the package draws explains itself: a title, axes, a legend, how many; with letters of a size."""

import ast
import colorsys
import inspect
import itertools
import typing

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from tf_simclr import plots

RNG = np.random.default_rng(0)
IMAGES = RNG.random((6, 8, 8, 3))
X = np.linspace(0, 1, 11)
CURVE = plots.Curve(X, np.sqrt(X), X, np.minimum(1, 1.2 * np.sqrt(X)), (0.67, 0.5, 0.8))
BINS = (np.array([0.2, 0.8]), np.array([0.1, 0.9]), np.array([30, 12]))
LONG = "SimCLR pretrained on radiographs, then fine-tuned with its first layers frozen"
HISTORY = {"contrast_loss": [3.0, 2.0], "contrast_acc": [0.2, 0.5], "projection_std": [0.4, 0.9]}
NEIGHBOURS = IMAGES[None, :3].repeat(2, axis=0)
SAME = np.array([[True, False, True], [False, True, True]])

DRAWN: dict[str, list] = {
    "curves": [lambda: plots.curves(HISTORY), lambda: plots.curves({"loss": [2.0, 1.0], "val_loss": [2.5, 1.5]})],
    "nearest_neighbours": [
        lambda: plots.nearest_neighbours(IMAGES[:2], NEIGHBOURS, cosines=0.9 * np.ones((2, 3)), same=SAME)
    ],
    "view_pairs": [lambda: plots.view_pairs(np.stack([IMAGES, 1 - IMAGES], axis=1))],
    "augmentations": [
        lambda: plots.augmentations(
            {"crop": IMAGES[:4], "colour jitter": IMAGES[:4]}, np.stack([IMAGES, IMAGES], 1), original=IMAGES[0]
        )
    ],
    "sheet": [lambda: plots.sheet([IMAGES], title="Six images")],
    "run_summary": [lambda: plots.run_summary(HISTORY, (IMAGES[:2], NEIGHBOURS), same=SAME)],
    "confusion": [
        lambda: plots.confusion(np.arange(3), np.array([0, 2, 2]), class_names=["none", "typical", "indeterminate"]),
        lambda: plots.confusion(
            np.arange(99), np.arange(99), class_names=[f"class {i}" for i in range(99)], title=LONG
        ),
    ],
    "bands": [
        lambda: plots.bands({"ours": CURVE, LONG: CURVE}, kind="roc", count="139 images of 138 patients"),
        lambda: plots.bands({"ours": CURVE}, kind="pr", base_rate=0.2),
    ],
    "reliability": [lambda: plots.reliability({"ours": BINS, "theirs": BINS})],
    "decision": [lambda: plots.decision(X[1:-1], {"the model": (X[1:-1] / 9, X[1:-1] / 20, X[1:-1] / 5)}, share=0.2)],
    "levels": [lambda: plots.levels({"learned from": np.ones(8) / 8, "here": np.arange(8) / 28})],
    "intervals": [
        lambda: plots.intervals(
            {
                "frozen": {"by image": (0.8, 0.7, 0.9), "by patient": (0.7, 0.6, 0.8)},
                LONG: {"by image": (0.5, 0.4, 0.6)},
            },
            metric="AUC",
            chance=0.5,
        )
    ],
    "feature_map": [
        lambda: plots.feature_map(RNG.random((90, 2)), np.arange(90) % 10, class_names="0123456789", method="t-SNE"),
        lambda: plots.feature_map(
            RNG.random((80, 2)), np.arange(80) - 1, class_names=[f"class {i}" for i in range(79)], method="t-SNE"
        ),
    ],
    "search": [
        lambda: plots.search({"rate": [0.001, 0.1, 1.0], "kind": ["a", "b", "a"]}, [0.1, 0.9, 0.5], metric="AUC")
    ],
    "explanation": [
        lambda: plots.explanation(
            {"as a viewer shows it": IMAGES[0], "Grad-CAM": IMAGES[1]},
            [(IMAGES[2, ..., 0], "no finding\n0.97")],
            title="chest.dcm: 12 %",
            note="For research",
            colours=np.array([[255, 214, 0], [214, 30, 30]]),
        )
    ],
}
"""Function → calls of it: what it draws at its plainest and at its fullest."""
CASES = [pytest.param(draw, id=f"{name}-{i}") for name, all_ in DRAWN.items() for i, draw in enumerate(all_)]


def test_every_function_that_draws_is_here():
    public = {name: f for name, f in vars(plots).items() if inspect.isfunction(f) and not name.startswith("_")}
    drawing = {name for name, f in public.items() if Figure in _kinds(typing.get_type_hints(f).get("return"))}
    assert drawing == DRAWN.keys()


def _kinds(annotation) -> tuple:
    return typing.get_args(annotation) or (annotation,)


def titles(figure) -> list[str]:
    """Titles of a figure, its parts and its axes."""
    parts = [figure, *figure.subfigs]
    own = [part.get_suptitle() for part in parts]
    return [text for text in (*own, *(axes.get_title() for axes in figure.axes)) if text]


def diagrams(figure) -> list:
    """The axes in which something is measured: none with pictures, no scale of colours."""
    return [axes for axes in figure.axes if (axes.lines or axes.collections or axes.patches) and not axes.images]


def legends(figure) -> list[str]:
    """What the legends of a figure and its parts say."""
    parts = [figure, *figure.subfigs]
    found = [legend for part in parts for legend in part.legends] + [axes.get_legend() for axes in figure.axes]
    return [text.get_text() for legend in found if legend is not None for text in legend.get_texts()]


@pytest.mark.parametrize("draw", CASES)
def test_a_figure_has_a_title_named_axes_and_a_legend_of_its_series(draw):
    figure = draw()
    assert titles(figure)
    said = set(legends(figure))
    for axes in diagrams(figure):
        if axes.get_label() == "<colorbar>":
            assert axes.get_ylabel() or axes.get_xlabel()
            continue
        assert axes.get_xlabel()
        assert axes.get_ylabel() or [label.get_text() for label in axes.get_yticklabels() if label.get_text()]
        named = {label for label in axes.get_legend_handles_labels()[1] if not label.startswith("_")}
        assert len(named) < 2 or named <= said or "colours repeat" in axes.get_title()
    coloured = [axes for axes in figure.axes if axes.images and axes.images[0].get_cmap().name == "Blues"]
    assert not coloured or any(axes.get_label() == "<colorbar>" for axes in figure.axes)


@pytest.mark.parametrize("draw", CASES)
def test_letters_can_be_read_and_are_not_cut_off_where_a_figure_is_600_px_wide(draw):
    figure = draw()
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(600 / figure.get_figwidth())
    canvas.draw()
    width, height = canvas.get_width_height()
    small, cut, hidden = [], [], unseen(figure)
    for text in figure.findobj(Text):
        if text in hidden or not (text.get_visible() and text.get_text().strip()):
            continue
        box = text.get_window_extent()
        if box.x0 < -1 or box.y0 < -1 or box.x1 > width + 1 or box.y1 > height + 1:
            cut.append(text.get_text())
        if text.get_fontsize() * figure.dpi / 72 < 7:
            small.append((text.get_text(), text.get_fontsize()))
    assert not cut
    assert not small


def unseen(figure) -> list:
    """Labels of ticks outside of their axis' limits, which are made and not drawn."""
    found = []
    for axes in figure.axes:
        for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if not min(limits) <= tick.get_loc() <= max(limits):
                    found += [tick.label1, tick.label2]
    return found


def seen(colour: str, kind: str) -> np.ndarray:
    """A colour as protanopes or deuteranopes see it, in CIE L*a*b* (Viénot, Brettel and Mollon, 1999)."""
    rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]) ** 2.2
    to_lms = np.array([[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]])
    lms = to_lms @ rgb
    if kind == "protan":
        lms[0] = 2.02344 * lms[1] - 2.52581 * lms[2]
    elif kind == "deutan":
        lms[1] = 0.494207 * lms[0] + 1.24827 * lms[2]
    linear = np.clip(np.linalg.solve(to_lms, lms), 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear
    f = np.cbrt(xyz / [0.9505, 1.0, 1.089])
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("kind", ["normal", "protan", "deutan"])
def test_colours_are_told_apart_with_any_colour_vision(kind):
    apart = [np.linalg.norm(seen(a, kind) - seen(b, kind)) for a, b in itertools.combinations(plots.COLOURS, 2)]
    assert min(apart) > 15  # 2.3 is what is just noticed
    green, red = seen("#2ca02c", "deutan"), seen("#d62728", "deutan")
    assert np.linalg.norm(green - red) < 10  # matplotlib's own pair: that this measure sees what it is for
    assert all(colorsys.rgb_to_hls(*(int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)))[1] < 0.7 for c in plots.COLOURS)


def test_a_curve_s_legend_has_its_area_and_interval_and_the_title_how_many():
    figure = plots.bands({"ours": CURVE}, kind="roc", count="139 images of 138 patients")
    assert legends(figure) == ["ours: AUC 0.67 (0.50–0.80)", "chance: AUC 0.50"]
    assert "139 images of 138 patients" in figure.axes[0].get_title()


def test_no_module_draws_beside_these():
    """`plots` alone imports matplotlib: what is drawn elsewhere goes through it."""
    tree = ast.parse(inspect.getsource(plots))
    assert {n.name for n in tree.body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")} >= DRAWN.keys()
