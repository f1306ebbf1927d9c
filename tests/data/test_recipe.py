"""Recipes: which operators a view went through, and the knobs of the command line that ask for them."""

from dataclasses import fields

import numpy as np
import pytest
import tensorflow as tf

from tests.data import oracles
from tests.data.test_augment import box, distorted, draws, seed
from tf_simclr.config.training import Augmentation
from tf_simclr.data import augment, operators
from tf_simclr.data.recipe import RADIOGRAPH, Recipe
from tf_simclr.errors import InputError

PHOTO = tf.constant(oracles.synth(40, 56, 3).astype(np.float32) / 255)


def view(recipe: Recipe, number: int = 0) -> np.ndarray:
    return augment.view(PHOTO, size=24, seed=seed(number), recipe=recipe).numpy()


def test_the_knobs_of_the_command_line_are_the_recipes():
    assert Recipe.of(Augmentation()) == Recipe()
    assert {field.name for field in fields(Recipe)} - {field.name for field in fields(Augmentation)} == {"bicubic"}
    knobs = Augmentation(color_jitter_strength=0.5, use_blur=False, cutout_probability=0.3)
    expected = Recipe(color_jitter_strength=0.5, use_blur=False, cutout_probability=0.3, bicubic="tf2")
    assert Recipe.of(knobs, bicubic="tf2") == expected


def test_a_recipe_of_crops_alone_only_crops():
    crop = augment.random_crop_and_resize(PHOTO, (24, 24), seed=seed(0))
    np.testing.assert_array_equal(view(Recipe().only()), np.clip(crop, 0, 1))


@pytest.mark.parametrize("name", ["flip", "rotation", "sobel", "cutout", "noise", "grayscale", "jitter", "blur"])
def test_each_operator_alone_changes_a_crop_as_it_says(name):
    crop, changed = view(Recipe().only(), 4), view(Recipe().only(name), 4)
    overshooting = augment.random_crop_and_resize(PHOTO, (24, 24), seed=seed(4)).numpy()
    expected = {
        "flip": [crop[:, ::-1]],
        "rotation": [np.rot90(crop, k) for k in range(4)],
        "sobel": [operators.sobel(crop)],
        "grayscale": [np.clip(oracles.luma(overshooting), 0, 1)],
    }.get(name)
    if expected is not None:
        assert min(np.abs(changed - np.asarray(one)).max() for one in expected) < 1e-5
    elif name == "cutout":
        same = np.all(changed == crop, -1)
        assert 0 < np.mean(~same) <= 0.26
        np.testing.assert_array_equal(changed[~same], 0.5)
    else:
        assert 1e-4 < np.abs(changed - crop).mean() < 0.5


def test_probabilities_are_how_often_an_operator_is_applied():
    crops = Recipe().only()
    recipe = Recipe.of(crops, cutout_probability=0.3)
    greyed = draws(lambda s: tf.reduce_any(augment.view(PHOTO, size=8, seed=s, recipe=recipe) == 0.5), 500)
    assert abs(greyed.mean() - 0.3) <= 4 * np.sqrt(0.3 * 0.7 / 500)


def test_grey_input_has_three_equal_channels():
    found = view(Recipe(grayscale_input=True), 2)
    np.testing.assert_array_equal(found, np.repeat(found[..., :1], 3, -1))


def test_radiographs_stay_grey_and_keep_most_of_the_picture():
    grey = tf.image.grayscale_to_rgb(PHOTO[..., :1])
    found = draws(lambda s: augment.view(grey, size=24, seed=s, recipe=RADIOGRAPH), 40)
    np.testing.assert_allclose(found[..., 0], found[..., 2], atol=1e-5)
    boxes = draws(lambda s: box(tf.shape(PHOTO), (24, 24), seed=s, min_area=0.3), 200)
    assert (boxes[:, 2] * boxes[:, 3]).min() >= 0.3 * 40 * 56 - 60  # a box has whole pixels


def test_jitter_of_one_colour_leaves_the_others():
    brightness = Recipe(contrast=0.0, saturation=0.0, hue=0.0, brightness=0.4).only("jitter")
    picture = np.full((8, 8, 3), 0.5, np.float32) * np.float32([0.6, 0.8, 1.0])
    found = draws(distorted(picture, brightness), 200)[:, 0, 0]
    np.testing.assert_allclose(found[:, 0] / found[:, 2], 0.6, atol=1e-4)
    factor = found[:, 2] / 0.5
    assert 0.6 <= factor.min() < 0.65 < 1.35 < factor.max() <= 1.4


def test_compiled_views_are_those_that_are_not_compiled():
    recipe = Recipe(blur_probability=1.0)
    crop = tf.constant(oracles.synth(80, 80, 2).astype(np.float32) / 255)
    for number in range(4):
        drawn = tf.random.stateless_uniform((10,), seed(number))
        plain = augment.distort(crop, drawn, recipe=recipe)
        compiled = augment._compiled(recipe)([crop], tf.constant(1.0), drawn[None])[0]
        np.testing.assert_allclose(compiled, plain, atol=1e-4)


def test_two_operators_are_composed():
    crop, changed = view(Recipe().only(), 1), view(Recipe().only("sobel", "cutout"), 1)
    kept = ~np.all(changed == 0.5, -1)
    assert np.abs(changed - operators.sobel(crop))[kept].max() < 1e-5
    assert 0 < np.mean(~kept) <= 0.26


@pytest.mark.parametrize(
    ("knobs", "rule"),
    [
        ({"color_jitter_strength": 2.0}, r"jitter strength must lie in \[0, 1.25\]"),
        ({"blur_probability": 1.1}, r"blur_probability must lie in \[0, 1\]"),
        ({"crop_min_area": 0.0}, "crop_min_area must be above 0"),
        ({"crop_max_aspect": 0.5}, "crop_max_aspect must be at least 1"),
        ({"hue": 0.6}, r"hue times color_jitter_strength must lie in \[0, 0.5\]"),
        ({"contrast": 1.5}, r"contrast times color_jitter_strength must lie in \[0, 1\]"),
        ({"brightness": -1.0}, "brightness must be at least 0"),
    ],
)
def test_recipes_that_cannot_be_are_refused(knobs, rule):
    with pytest.raises(InputError, match=rule):
        Recipe(**knobs)


def test_an_unknown_operator_is_named():
    with pytest.raises(InputError, match=r"operators must be among flip, jitter.*unknown=.'swirl'."):
        Recipe().only("swirl")
