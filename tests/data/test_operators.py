"""The operators of the paper's Figure 4 against loops, the random ones by their statistics, and under XLA."""

from functools import partial

import numpy as np
import pytest
import tensorflow as tf

from tests import golden
from tests.data import oracles
from tests.data.test_augment import COLOR, UNCHANGED, adjusted, assert_same_mean, draws, seed
from tf_simclr.data import augment, colors, operators
from tf_simclr.errors import InputError

SQUARE = oracles.synth(20, 20, 5).astype(np.float32) / 255


def test_the_references_blur_of_a_batch_is_that_of_its_images():
    expected = golden.arrays("preprocess/blur.npz")["batch_k9_s1"]
    picture = oracles.synth(40, 48, 90).astype(np.float32) / 255
    found = [operators.blur(image, sigma=1.0, kernel_size=9) for image in (picture, picture[:, ::-1])]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_a_rotation_turns_counter_clockwise(quarters):
    height, width, _ = SQUARE.shape
    expected = SQUARE
    for _ in range(quarters):
        expected = np.array([[expected[x, width - 1 - y] for x in range(height)] for y in range(width)])
    np.testing.assert_array_equal(operators.rotate(SQUARE, quarters), expected)


def test_the_four_rotations_come_equally_often():
    numbered = tf.reshape(tf.range(12.0), (2, 2, 3))
    found = draws(lambda s: operators.random_rotation(numbered, seed=s)[0, 0, 0], 1000)
    for corner in (0, 3, 6, 9):
        assert_same_mean((found == corner).astype(float), 0.25, 0.0, 1)


def test_images_that_are_not_square_are_not_rotated():
    with pytest.raises(InputError, match=r"only square images can be rotated. Received: height=24, width=32"):
        operators.random_rotation(COLOR, seed=seed(0))


def test_noise_is_gaussian_of_the_given_strength():
    grey = np.full((30, 30, 3), 0.5, np.float32)
    noise = operators.random_noise(grey, seed=seed(1), std=0.1).numpy().ravel() - 0.5
    count = noise.size
    assert abs(noise.mean()) <= 4 * 0.1 / np.sqrt(count)
    assert abs(noise.std() - 0.1) <= 4 * 0.1 / np.sqrt(2 * count)
    within = np.mean(np.abs(noise) < 0.1)
    assert abs(within - 0.6827) <= 4 * np.sqrt(0.6827 * 0.3173 / count)


def test_sobel_equals_a_loop_over_neighbours():
    image = SQUARE * 0.2
    padded = np.pad(image.astype(np.float64), ((1, 1), (1, 1), (0, 0)), "reflect")
    kernel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    expected = np.zeros(image.shape)
    for y, x, c in np.ndindex(*image.shape):
        window = padded[y : y + 3, x : x + 3, c]
        expected[y, x, c] = np.hypot((window * kernel).sum(), (window * kernel.T).sum())
    np.testing.assert_allclose(operators.sobel(image), np.clip(expected, 0, 1), atol=1e-5)


@pytest.mark.parametrize("center", [(0, 0), (10, 12), (23, 31)])
def test_cutout_greys_a_square_that_may_reach_over_the_border(center):
    expected = COLOR.copy()
    for y, x in np.ndindex(24, 32):
        if center[0] - 4 <= y < center[0] + 4 and center[1] - 4 <= x < center[1] + 4:
            expected[y, x] = 0.5
    np.testing.assert_array_equal(operators.cutout(COLOR, tf.constant(center), side=8), expected)


def test_random_cutout_is_centred_on_every_pixel_alike():
    black = tf.zeros((8, 8, 3))
    greyed = draws(lambda s: tf.cast(operators.random_cutout(black, seed=s)[..., 0] > 0, tf.float32), 2000)
    for y, x in ((4, 4), (0, 0), (0, 4)):
        share = np.mean([y - 2 < c <= y + 2 for c in range(8)]) * np.mean([x - 2 < c <= x + 2 for c in range(8)])
        assert_same_mean(greyed[:, y, x], share, 0.0, 1)


@pytest.mark.parametrize(
    "operator",
    [
        operators.random_rotation,
        operators.random_noise,
        operators.random_cutout,
        augment.random_flip,
        augment.random_color,
        partial(augment.random_crop_and_resize, size=(20, 20)),
    ],
)
def test_equal_seeds_give_equal_images_and_others_others(operator):
    first = operator(SQUARE, seed=seed(3))
    tf.random.set_seed(8)
    np.testing.assert_array_equal(first, operator(SQUARE, seed=seed(3)))
    others = [operator(SQUARE, seed=seed(number)).numpy() for number in range(8)]
    assert any(np.abs(other - first).max() > 0 for other in others)


def test_colours_and_blur_compile_under_xla_to_the_same_numbers():
    def changed(image, order):
        changes = UNCHANGED | {"brightness": 0.9, "contrast": 1.4, "saturation": 1.3, "hue": 0.1}
        image = colors.grayscale(image) * 0.1 + adjusted(image, order, **changes) * 0.9
        return operators.blur(image, sigma=0.7, kernel_size=3)

    order = tf.constant([3, 1, 0, 2])
    compiled = tf.function(changed, jit_compile=True, autograph=False)
    np.testing.assert_allclose(compiled(COLOR, order), changed(COLOR, order), atol=1e-5)
