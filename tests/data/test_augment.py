"""The augmentations: deterministic parts against loops and the reference's numbers, random ones by their statistics."""

from functools import partial

import numpy as np
import pytest
import tensorflow as tf

from tests import golden
from tests.data import oracles
from tf_simclr.data import augment, colors, images, operators
from tf_simclr.data.recipe import Recipe

COLOR = oracles.synth(24, 32, 100).astype(np.float32) / 255
UNCHANGED = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0}


def seed(number: int) -> tf.Tensor:
    return tf.constant([number, 7], tf.int64)


def draws(function, count: int, salt: int = 0) -> np.ndarray:
    """`function(seed)` for `count` seeds, mapped by tf.data as in training."""
    seeds = tf.data.Dataset.range(count).map(lambda i: tf.stack([i, tf.constant(salt, tf.int64)]))
    batches = seeds.map(function, num_parallel_calls=tf.data.AUTOTUNE).batch(500)
    return np.concatenate([batch.numpy() for batch in batches])


def adjusted(image, order, *, brightness, contrast, saturation, hue, additive_brightness: bool = False) -> tf.Tensor:
    """`colors.adjust_planes` of an image (h, w, 3)."""
    amounts, planes = (brightness, contrast, saturation, hue), colors.planes(image)
    changed = colors.adjust_planes(planes, order, amounts=amounts, additive_brightness=additive_brightness)
    return colors.joined(changed)


def box(shape, size: tuple[int, int], *, seed, min_area: float = 0.08, max_aspect: float = 4 / 3) -> tf.Tensor:
    """The box that a crop cuts out: (offset_y, offset_x, height, width)."""
    begin, extent = augment._sampled(shape, size, seed, min_area=min_area, max_aspect=max_aspect)
    return tf.concat([begin[:2], extent[:2]], 0)


def distorted(image, recipe: Recipe):
    """Seed → the image changed by a recipe, but for its crop."""
    return lambda s: augment.distort(tf.constant(image), tf.random.stateless_uniform((10,), s), recipe=recipe)


def assert_same_mean(found: np.ndarray, mean: float, std: float, count: int):
    error = np.hypot(found.std() / np.sqrt(len(found)), std / np.sqrt(count))
    assert abs(found.mean() - mean) <= 4 * error, (found.mean(), mean, error)


def std_error(found: np.ndarray) -> float:
    """Standard error of the sample's standard deviation, from its fourth moment."""
    centred = found - found.mean()
    return np.sqrt(((centred**4).mean() - found.var() ** 2) / len(found)) / (2 * found.std())


def assert_same_std(found: np.ndarray, std: float, count: int):
    own = std_error(found)
    assert abs(found.std() - std) <= 4 * np.hypot(own, own * np.sqrt(len(found) / count)), (found.std(), std, own)


# Colour


@pytest.mark.parametrize("amount", [0.0, 0.3, 1.7])
def test_colour_changes_equal_loops(amount):
    oracle = {
        "brightness": COLOR * amount,
        "contrast": oracles.contrast(COLOR, amount),
        "saturation": oracles.in_hsv(COLOR, lambda h, s, v: (h, min(s * amount, 1), v)),
        "hue": oracles.in_hsv(COLOR, lambda h, s, v: ((h + amount) % 1, s, v)),
    }
    for name, expected in oracle.items():
        amount_in_range = (amount + 1) % 2 - 1 if name == "hue" else amount
        found = adjusted(COLOR, tf.range(4), **UNCHANGED | {name: amount_in_range})
        np.testing.assert_allclose(found, np.clip(expected, 0, 1), atol=1e-4, err_msg=name)


def test_single_colour_changes_are_the_references():
    arguments = {"brightness_mul": "brightness", "brightness_add": "brightness"}
    expected = golden.arrays("preprocess/color.npz")
    singles = [name for name in expected if not name.startswith("chain") and name != "grayscale"]
    assert len(singles) == 20
    for name in singles:
        kind, amount = name.rsplit("_", 1)
        additive = kind == "brightness_add"
        amounts = UNCHANGED | ({"brightness": 0.0} if additive else {}) | {arguments.get(kind, kind): float(amount)}
        found = adjusted(COLOR, tf.range(4), **amounts, additive_brightness=additive)
        tolerance = 1e-4 if kind in ("hue", "saturation") else 1e-5
        np.testing.assert_allclose(found, expected[name], atol=tolerance, err_msg=name)


CHAINS = [(1.3, 0.6, 1.5, 0.1), (0.5, 1.7, 0.3, -0.15), (1.8, 1.8, 1.8, 0.2), (0.2, 0.2, 0.2, -0.2)]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("order", ["", "_perm3210", "_perm1302"])
def test_chains_of_colour_changes_in_any_order_are_the_references(version, order):
    expected = golden.arrays("preprocess/color.npz")
    for k, (brightness, contrast, saturation, hue) in enumerate(CHAINS):
        found = adjusted(
            COLOR,
            tf.constant([int(digit) for digit in order[5:] or "0123"]),
            brightness=brightness - 1 if version == 1 else brightness,
            contrast=contrast,
            saturation=saturation,
            hue=hue,
            additive_brightness=version == 1,
        )
        np.testing.assert_allclose(found, expected[f"chain{k}_simclrv{version}{order}"], atol=1e-4)


def test_grayscale_is_the_luma_and_the_references():
    np.testing.assert_allclose(colors.grayscale(COLOR), oracles.luma(COLOR), atol=1e-4)
    np.testing.assert_allclose(colors.grayscale(COLOR), golden.arrays("preprocess/color.npz")["grayscale"], atol=1e-5)


def test_jitter_of_strength_zero_changes_nothing():
    found = draws(distorted(COLOR, Recipe(color_jitter_strength=0.0).only("jitter")), 24)
    np.testing.assert_allclose(found, np.broadcast_to(COLOR, found.shape), atol=1e-5)


# Blur


@pytest.mark.parametrize(("sigma", "kernel_size"), [(0.1, 3), (0.8, 4), (2.0, 9)])
def test_blur_equals_a_loop_over_neighbours(sigma, kernel_size):
    found = operators.blur(COLOR, sigma=sigma, kernel_size=kernel_size)
    np.testing.assert_allclose(found, oracles.blur(COLOR, sigma, kernel_size), atol=1e-5)


def test_blur_is_the_references():
    expected = golden.arrays("preprocess/blur.npz")
    picture = oracles.synth(40, 48, 90).astype(np.float32) / 255
    names = [name for name in expected if name.startswith("k")]
    assert len(names) == 16
    for name in names:
        kernel_size, sigma = name[1:].split("_s")
        found = operators.blur(picture, sigma=float(sigma), kernel_size=int(kernel_size))
        np.testing.assert_allclose(found, expected[name], atol=1e-5, err_msg=name)
    inside = operators.blur(picture, sigma=1.5, kernel_size=5)[2:-2, 2:-2]
    np.testing.assert_allclose(inside, expected["valid_k5_s1.5"], atol=1e-5)


def test_each_image_draws_its_own_blur_half_of_the_time():
    edge = tf.cast(tf.range(40)[None, :, None] > 20, tf.float32) * tf.ones((40, 40, 3))
    blurred = distorted(edge, Recipe.of(Recipe().only(), blur_probability=0.5))
    found = draws(lambda s: blurred(s)[20, 20, 0], 2000)
    rate = golden.data("preprocess/augment_stats_tf2.json")["blur_rate"]
    blurred = found > 1e-4  # smaller ones come from a sigma whose kernel is a delta
    assert_same_mean(blurred.astype(float), rate["rate"], np.sqrt(rate["rate"] * (1 - rate["rate"])), rate["n"])
    assert len(np.unique(found[blurred])) > 0.95 * blurred.sum()


# Geometry and rates


@pytest.mark.parametrize("name", ["crop_square", "crop_wide_64x96"])
def test_crops_have_the_references_areas_and_aspects(name):
    expected = golden.data("preprocess/augment_stats_tf2.json")[name]
    shape = tf.constant([*expected["image"], 3])
    boxes = draws(lambda s: box(shape, tuple(expected["target"]), seed=s), 10_000)
    height, width = boxes[:, 2].astype(float), boxes[:, 3].astype(float)
    area, log_aspect = height * width / np.prod(expected["image"]), np.log(width / height)
    assert_same_mean(area, expected["area_mean"], expected["area_std"], expected["n"])
    assert_same_std(area, expected["area_std"], expected["n"])
    assert_same_mean(log_aspect, expected["log_aspect_mean"], expected["log_aspect_std"], expected["n"])
    assert_same_std(log_aspect, expected["log_aspect_std"], expected["n"])
    assert area.min() >= 0.1
    assert (boxes[:, 0] + boxes[:, 2]).max() <= expected["image"][0]
    assert (boxes[:, 1] + boxes[:, 3]).max() <= expected["image"][1]
    for quantile in ("0.05", "0.25", "0.5", "0.75", "0.95"):
        share = (area <= expected["area_quantiles"][quantile]).mean()
        # An area is a ratio of integers: ties at the quantile add up to half a percent.
        error = np.sqrt(float(quantile) * (1 - float(quantile)) * (1 / len(area) + 1 / expected["n"]))
        assert abs(share - float(quantile)) <= 4 * error + 0.005


@pytest.mark.parametrize("name", ["flip_rate", "grayscale_rate", "jitter_rate"])
def test_flips_grayscale_and_jitter_come_as_often_as_in_the_reference(name):
    changed = {
        "flip_rate": lambda s: tf.reduce_any(augment.random_flip(COLOR, seed=s) != COLOR),
        "grayscale_rate": lambda s: is_grey(
            augment.random_color(COLOR, seed=s, recipe=Recipe(color_jitter_strength=0.0))
        ),
        "jitter_rate": lambda s: tf.reduce_any(tf.abs(augment.random_color(GREY, seed=s) - GREY) > 2e-4),
    }[name]
    expected = golden.data("preprocess/augment_stats_tf2.json")[name]
    rate = expected["rate"]
    assert_same_mean(draws(changed, 4000).astype(float), rate, np.sqrt(rate * (1 - rate)), expected["n"])


# The luma of equal channels is 0.9999 of them: grayscale alone moves this by 5e-5 only.
GREY = np.zeros((8, 8, 3), np.float32) + np.float32(0.5)


def is_grey(image: tf.Tensor) -> tf.Tensor:
    return tf.reduce_all(tf.abs(image - image[..., :1]) < 1e-6)


def channel_statistics(image: tf.Tensor) -> tf.Tensor:
    """Means, standard deviations, and the shares of pixels at 0 and 1: (8,)."""
    ends = [tf.reduce_mean(tf.cast(image == end, tf.float32)) for end in (0.0, 1.0)]
    return tf.concat([tf.reduce_mean(image, (0, 1)), tf.math.reduce_std(image, (0, 1)), ends], 0)


VARIANTS = [("tf1", ""), ("tf2", "full_")]
STRENGTHS = ["nodistort", "strength0.5", "strength1.0", "strength0.5_simclrv1", "strength1.0_simclrv1"]


@pytest.mark.slow
@pytest.mark.parametrize(("style", "prefix"), VARIANTS)
@pytest.mark.parametrize("name", STRENGTHS)
def test_whole_views_have_the_references_statistics(style, prefix, name):
    expected = golden.data(f"preprocess/augment_stats_{style}.json")[prefix + name]
    photo = images.from_pixels(tf.constant(golden.arrays("preprocess/photo.npz")["photo"]))
    if name == "nodistort":
        view = partial(augment.crop_and_flip, photo, size=64, bicubic=style)
    else:
        strength = float(name.removeprefix("strength").split("_")[0])
        choice = {"additive_brightness": name.endswith("v1"), "use_blur": False, "bicubic": style}
        view = partial(augment.view, photo, size=64, recipe=Recipe(color_jitter_strength=strength, **choice))
    found = draws(lambda s: channel_statistics(view(seed=s)), expected["n"])
    for channel in range(3):
        for kind, offset in (("means", 0), ("stds", 3)):
            mean, std = expected[f"mean_of_{kind}"][channel], expected[f"std_of_{kind}"][channel]
            assert_same_mean(found[:, channel + offset], mean, std, expected["n"])
            assert_same_std(found[:, channel + offset], std, expected["n"])
    for column, end in ((6, "frac_zero"), (7, "frac_one")):
        # The reference's share has no spread beside it: that of our own draws serves for both.
        assert_same_mean(found[:, column], expected[end], found[:, column].std(), expected["n"])


# Views


def test_two_views_differ_and_depend_on_the_seed_alone():
    photo = tf.constant(oracles.synth(40, 56, 3).astype(np.float32) / 255)

    def first_two():
        return draws(lambda s: augment.two_views(photo, size=32, seed=s), 2, salt=7)

    found = first_two()
    tf.random.set_seed(12)
    np.testing.assert_array_equal(found, first_two())
    assert all(np.abs(a - b).mean() > 0.01 for a, b in ((found[0, 0], found[0, 1]), (found[0, 0], found[1, 0])))


@pytest.mark.parametrize("kind", ["jpeg", "deep", "pixels"])
def test_views_of_a_file_are_those_of_its_image(kind):
    photo = oracles.synth(40, 56, 3)
    raw = {
        "jpeg": lambda: tf.io.encode_jpeg(photo),
        "deep": lambda: tf.io.encode_png(photo.astype(np.uint16) * 257),
        "pixels": lambda: tf.constant(photo[..., :1]),
    }[kind]()
    expected = augment.two_views(images.to_rgb(raw), size=32, seed=seed(1))
    np.testing.assert_allclose(augment.two_views_of_raw(raw, size=32, seed=seed(1)), expected, atol=1e-4)


def test_views_are_static_in_shape_and_within_zero_and_one():
    photo = tf.constant(oracles.synth(40, 56, 3).astype(np.float32) / 255)
    stream = tf.data.Dataset.range(200).map(lambda i: augment.two_views(photo, size=48, seed=tf.stack([i, i])))
    assert stream.element_spec.shape == (2, 48, 48, 3)
    found = np.stack(list(stream.as_numpy_iterator()))
    assert found.min() >= 0
    assert found.max() <= 1
    # Views of one image are draws of one distribution: neither place is favoured.
    means = found.mean((2, 3, 4))
    assert_same_mean(means[:, 0] - means[:, 1], 0.0, 0.0, len(means))


def test_the_views_of_one_image_are_independent():
    flat = tf.constant(np.linspace(0.1, 0.9, 32 * 32 * 3, dtype=np.float32).reshape(32, 32, 3))
    means = draws(lambda s: tf.reduce_mean(augment.two_views(flat, size=32, seed=s), (1, 2, 3)), 1000)
    assert abs(np.corrcoef(means.T)[0, 1]) <= 4 / np.sqrt(1000)


def test_fine_tuning_views_keep_the_colours():
    found = draws(lambda s: augment.crop_and_flip(tf.ones((20, 20, 3)) * [0.2, 0.5, 0.8], size=16, seed=s), 20)
    np.testing.assert_allclose(found, np.broadcast_to(np.float32([0.2, 0.5, 0.8]), found.shape), atol=1e-5)


@pytest.mark.parametrize("brightness", [0.4, 1.0, 2.0])
def test_brightness_is_uniform_from_zero_where_it_would_be_below(brightness):
    """The reference draws from max(1 - δ, 0) to 1 + δ; cut off at 0, with δ = 2 a quarter of all views was black."""
    recipe = Recipe(brightness=brightness, contrast=0.0, saturation=0.0, hue=0.0)
    grey = tf.fill((1, 1, 3), 1e-3)
    draws = tf.random.stateless_uniform((300, 5), (1, 2))
    views = [augment._jittered(colors.planes(grey), draw, recipe) for draw in draws]
    factors = np.sort([float(tf.reduce_mean(view)) / 1e-3 for view in views])
    low, high = max(1 - brightness, 0), 1 + brightness
    expected = np.linspace(low, high, len(factors))
    assert np.abs(factors - expected).max() <= 1.95 / np.sqrt(len(factors)) * (high - low)  # Kolmogorov–Smirnov, 0.1 %
