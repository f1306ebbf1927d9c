"""The numbers that NumPy draws are TensorFlow's, bit for bit: one stream on the host, on a device, without it."""

import numpy as np
import pytest
import tensorflow as tf

from tests import golden
from tests.data.test_augment import box
from tf_simclr.data import augment, draws, images
from tf_simclr.data.recipe import Recipe

RANDOM = np.random.RandomState(0)
SEEDS = np.concatenate([[[0, 0], [1, 2], [-1, -(2**63)], [2**40, 2**63 - 1]], RANDOM.randint(-(2**62), 2**62, (20, 2))])


def by_tensorflow(function, *columns) -> np.ndarray:
    return np.stack([function(*map(tf.constant, row)).numpy() for row in zip(*columns, strict=True)])


@pytest.mark.parametrize("count", [1, 2, 4, 23])
def test_uniform_numbers(count):
    np.testing.assert_array_equal(
        draws.uniform(SEEDS, count), by_tensorflow(lambda s: tf.random.stateless_uniform((count,), s), SEEDS)
    )


def test_seeds_of_seeds():
    np.testing.assert_array_equal(draws.split(SEEDS, 3), by_tensorflow(lambda s: tf.random.split(s, 3), SEEDS))
    positions = np.arange(5) * 2**35
    found = by_tensorflow(
        lambda p: tf.random.experimental.stateless_fold_in(tf.constant([3, 1], tf.int64), p), positions
    )
    np.testing.assert_array_equal(draws.fold_in((3, 1), positions), found)
    np.testing.assert_array_equal(draws.aside(SEEDS), by_tensorflow(augment._aside, SEEDS))


def test_normal_numbers_up_to_rounding():
    found = by_tensorflow(lambda s: tf.random.stateless_normal((101,), s), SEEDS)
    np.testing.assert_allclose(draws.normal(SEEDS, 101), found, atol=2e-6)


@pytest.mark.parametrize(
    ("min_area", "max_aspect"), [(0.08, 4 / 3), (0.3, 4 / 3), (0.01, 3.0), (0.95, 1.0), (1.0, 1.0), (0.5, 2.0)]
)
def test_boxes(min_area, max_aspect):
    """Also of images a pixel wide, where most attempts fail, and an odd number of words is used up by each."""
    shapes = RANDOM.randint(1, 700, (150, 2))
    shapes[:30], shapes[30:60, 1], shapes[60:70] = 32, RANDOM.randint(1, 9, 30), 1
    seeds = RANDOM.randint(-(2**62), 2**62, (150, 2))
    options = {"min_area": min_area, "max_aspect": max_aspect}
    sample = tf.function(lambda shape, seed: box(shape, (9, 9), seed=seed, **options))
    expected = by_tensorflow(sample, np.concatenate([shapes, np.full((150, 1), 3)], 1).astype(np.int32), seeds)
    np.testing.assert_array_equal(draws.boxes(seeds, shapes, **options), expected)


def test_boxes_have_the_references_areas_and_aspects():
    expected = golden.data("preprocess/augment_stats_tf2.json")["crop_square"]
    count = 10_000
    seeds = np.stack([np.arange(count), np.zeros(count, np.int64)], -1)
    shapes = np.broadcast_to(expected["image"][:2], (count, 2))
    found = draws.boxes(seeds, shapes, min_area=0.08, max_aspect=4 / 3)
    height, width = found[:, 2].astype(float), found[:, 3].astype(float)
    for value, name in ((height * width / shapes[0].prod(), "area"), (np.log(width / height), "log_aspect")):
        error = expected[f"{name}_std"] * np.sqrt(1 / count + 1 / expected["n"])
        assert abs(value.mean() - expected[f"{name}_mean"]) <= 4 * error


@pytest.mark.parametrize("proportion", [0.875, 1.0, 0.01])
def test_central_boxes(proportion):
    shapes = RANDOM.randint(1, 500, (200, 2)).astype(np.int32)
    expected = by_tensorflow(lambda shape: images.central_box(shape, proportion=proportion), shapes)
    np.testing.assert_array_equal(draws.central_boxes(shapes, proportion=proportion), expected)


def test_a_place_of_the_stream_does_not_depend_on_its_neighbours():
    recipe = Recipe(noise_probability=0.5, rotation_probability=0.5, cutout_probability=0.5)
    positions, shapes = np.array([7, 2**33, 8]), np.array([[40, 50], [33, 70], [40, 50]])
    whole = draws.batch(3, positions, shapes=shapes, size=16, recipe=recipe)
    for i in range(3):
        alone = draws.batch(3, positions[i : i + 1], shapes=shapes[i : i + 1], size=16, recipe=recipe)
        for name, value in whole.items():
            np.testing.assert_array_equal(value[i], alone[name][0])
    assert not np.array_equal(whole["draws"][0], whole["draws"][2])
