"""The sheet of augmentations: what it shows, and what it says of files that are no images."""

import numpy as np
import pytest
from matplotlib import image as files

from tests.data import oracles
from tf_simclr import plots
from tf_simclr.commands import augmentations
from tf_simclr.config.training import Augmentations
from tf_simclr.data.digits import flower_file
from tf_simclr.data.recipe import Recipe
from tf_simclr.errors import InputError

PICTURE = oracles.synth(40, 56, 3).astype(np.float32) / 255
SMALL = {"size": 16, "seed": 0}


def test_the_columns_of_a_sheet_share_a_crop():
    rows = augmentations.operator_rows(PICTURE, Recipe(), draws=2, **SMALL)
    assert list(rows) == list(augmentations.ROWS)
    for plain, grey, cut in zip(rows["crop"], rows["colour drop"], rows["cutout"], strict=True):
        np.testing.assert_allclose(grey, oracles.luma(plain), atol=0.05)  # the crop's overshoot is cut off later
        assert np.all((cut == plain) | (cut == 0.5))


def test_a_row_shows_its_operator_whether_the_recipe_has_it_or_not():
    noise = np.random.default_rng(0).uniform(size=(40, 56, 3)).astype(np.float32)
    with_blur, without = (
        augmentations.operator_rows(noise, Recipe(use_blur=used), draws=6, size=40, seed=0) for used in (True, False)
    )
    assert list(with_blur) == list(without)
    for name, views in with_blur.items():
        np.testing.assert_array_equal(views, without[name], err_msg=name)
    assert np.abs(np.subtract(without["blur"], without["crop"])).max() > 0.1


def test_a_sheet_has_a_row_an_operator_and_two_an_image():
    rows = {"crop": [PICTURE[:16, :16]] * 3, "blur": [PICTURE[:16, :16]] * 3}
    pairs = np.stack([[PICTURE[:16, :16]] * 2] * 4)
    figure = plots.augmentations(rows, pairs, original=PICTURE)
    assert len(figure.axes) == 1 + 2 * 3 + 2 * 4
    assert {axes.get_ylabel() for axes in figure.axes} == {"", "crop", "blur", "view 1", "view 2"}


@pytest.mark.slow
def test_the_command_writes_the_sheet_of_scikit_learns_flower(tmp_path, capsys):
    out = tmp_path / "sheet.png"
    augmentations.run(Augmentations(out=out, image_size=16, draws=2))
    assert capsys.readouterr().out == f"{out}\n"
    assert files.imread(out).std() > 0.1


def test_a_file_that_is_no_image_is_named(tmp_path):
    file = tmp_path / "notes.png"
    file.write_text("no image")
    for path in (file, tmp_path / "absent.png"):
        with pytest.raises(InputError, match=f"must be a readable JPEG.*{path.name}"):
            augmentations.read(path)


def test_without_tensorflow_the_same_views_are_made(monkeypatch, tmp_path):
    files.imsave(tmp_path / "lossless.png", augmentations.read(flower_file()))
    picture = augmentations.read(tmp_path / "lossless.png")
    recipe = Recipe(noise_probability=0.5)
    pair = augmentations.pair(picture, recipe, size=32, seed=[0, 3])
    rows = augmentations.operator_rows(picture, recipe, size=32, draws=2, seed=1)
    monkeypatch.setattr(augmentations, "has_tensorflow", lambda: False)
    np.testing.assert_allclose(augmentations.read(tmp_path / "lossless.png"), picture, atol=1e-7)
    np.testing.assert_allclose(augmentations.pair(picture, recipe, size=32, seed=[0, 3]), pair, atol=1e-5)
    for name, views in augmentations.operator_rows(picture, recipe, size=32, draws=2, seed=1).items():
        np.testing.assert_allclose(views, rows[name], atol=1e-5, err_msg=name)


def test_without_tensorflow_what_is_no_picture_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(augmentations, "has_tensorflow", lambda: False)
    (tmp_path / "x.jpg").write_bytes(b"no picture")
    with pytest.raises(InputError, match="readable JPEG"):
        augmentations.read(tmp_path / "x.jpg")
