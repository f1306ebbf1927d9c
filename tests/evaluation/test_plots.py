import subprocess
import sys

import numpy as np
import pytest
from matplotlib.image import imread

from tf_simclr import plots
from tf_simclr.errors import InputError
from tf_simclr.files.places import shown

IMAGES = np.random.default_rng(0).random((6, 8, 8, 3))


def lines(figure):
    return {line.get_label(): line for axes in figure.axes for line in axes.lines}


def test_curves_show_each_metric_in_its_unit_with_labelled_axes():
    history = {"loss": [3.0, 2.0], "val_loss": [3.5, 2.5], "contrast_acc": [0.25, 0.5], "learning_rate": [0.1, 0.2]}
    figure = plots.curves(history)
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss (nats)", "accuracy (%)", "learning rate"]
    assert {axes.get_xlabel() for axes in figure.axes} == {"epoch"}
    drawn = lines(figure)
    assert drawn["contrast acc"].get_ydata().tolist() == [25, 50]
    assert drawn["loss"].get_xdata().tolist() == [1, 2]
    assert drawn["loss"].get_color() == drawn["validation: loss"].get_color()
    assert drawn["loss"].get_linestyle() != drawn["validation: loss"].get_linestyle()


def test_neighbours_stand_in_their_querys_row_with_similarity_and_class():
    neighbours = IMAGES[:6].reshape(2, 3, 8, 8, 3)
    cosines, same = np.array([[0.9, 0.8, 0.7], [0.6, 0.5, 0.4]]), np.array([[True, False, True], [False] * 3])
    figure = plots.nearest_neighbours(IMAGES[:2], neighbours, cosines=cosines, same=same)
    grid = np.reshape(figure.axes, (2, 4))
    assert [axes.get_title() for axes in grid[1]] == ["query", "0.60", "0.50", "0.40"]
    assert np.array_equal(grid[1, 2].images[0].get_array(), neighbours[1, 1])
    colours = [axes.spines["left"].get_edgecolor() for axes in grid[:, 1:].flat]
    assert [colour == colours[0] for colour in colours] == [True, False, True, False, False, False]
    assert not grid[0, 0].spines["left"].get_visible()


def test_views_of_an_image_stand_below_each_other_and_below_it():
    views = np.stack([IMAGES, 1 - IMAGES], axis=1)
    figure = plots.view_pairs(views, originals=IMAGES)
    grid = np.reshape(figure.axes, (3, 6))
    assert [row[0].get_ylabel() for row in grid] == ["image", "view 1", "view 2"]
    assert np.array_equal(grid[2, 4].images[0].get_array(), views[4, 1])


@pytest.mark.parametrize(
    "images", [IMAGES[..., :1], (IMAGES * 255).astype(np.uint8), (IMAGES * 255).astype(np.uint8)[..., :1]]
)
def test_gray_and_8_bit_images_keep_their_range(images):
    shown = plots.sheet([images]).axes[0].images[0]
    assert shown.get_clim() == (0, 255 if images.dtype == np.uint8 else 1)


def test_a_run_summary_is_written_whole_as_a_picture(tmp_path):
    history = {"contrast_loss": [3.0, 2.0], "contrast_acc": [0.1, 0.4]}
    figure = plots.run_summary(history, (IMAGES[:2], IMAGES[None, :3].repeat(2, axis=0)))
    path = plots.save(figure, tmp_path / "figure.png", dpi=40)
    picture = imread(path)
    assert picture.shape[1] == 320
    assert picture.std() > 0.05
    assert [p.name for p in tmp_path.iterdir()] == ["figure.png"]


def test_nothing_to_draw_is_refused():
    with pytest.raises(InputError, match="at least one metric"):
        plots.curves({})
    with pytest.raises(InputError, match="at least one image"):
        plots.sheet([])


def test_figures_leave_matplotlibs_global_state_alone():
    code = "import sys, tf_simclr.plots as p; p.curves({'loss': [1.0]}); sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", ["$_$", "a$1$", "$", r"\frac", "b^{", "roh\udcff", "日本"])
@pytest.mark.filterwarnings("ignore:Glyph")  # no font of ours has all letters
def test_names_with_signs_of_formulas_are_drawn_as_they_are(tmp_path, name):
    """A class folder called `$_$` was a traceback of a parser of formulas, before the numbers were written."""
    labels = np.arange(8) % 2
    for number, figure in enumerate((
        plots.confusion(labels, labels[::-1], class_names=(shown(name), "b"), title=f"{name} beside {name}"),
        plots.feature_map(IMAGES.reshape(6, -1)[:, :2], labels[:6], class_names=(shown(name), "b"), method="t-SNE"),
        plots.search({name: [1, 10, 100]}, [0.1, 0.2, 0.3], metric=name),
    )):  # fmt: skip
        path = plots.save(figure, tmp_path / f"{number}.png")
        assert imread(path).std() > 0
