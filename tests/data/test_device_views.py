"""A device's views are the host's at equal draws, for every recipe and operator, on every backend."""

import importlib.util
import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests import golden, tiny_runs
from tests.data import oracles
from tests.data.views_on import RECIPES, views
from tf_simclr.data import augment, device_views, draws, images, pipeline, sources
from tf_simclr.data.recipe import Recipe

SEED = 5
EQUAL = 1e-5
ALL_BACKENDS = ("SimCLRv2", "tf2", "all")
"""Recipes that say the most; a compilation takes a second."""


def pictures(count: int, *, largest: int, deep: bool = False) -> list[np.ndarray]:
    random = np.random.RandomState(count + largest)
    sides = random.randint(9, largest + 1, (count, 2))
    made = [oracles.synth(height, width, i) for i, (height, width) in enumerate(sides)]
    return [picture.astype(np.uint16) * 257 - random.randint(0, 200) for picture in made] if deep else made


def padded(raw: list[np.ndarray], side: int) -> np.ndarray:
    found = np.zeros((len(raw), 1, side, side, 3), raw[0].dtype)
    for i, picture in enumerate(raw):
        found[i, 0, : picture.shape[0], : picture.shape[1]] = picture
    return found


def batch(raw: list[np.ndarray], *, side: int, size: int, recipe: Recipe, first: int = 1000) -> dict[str, np.ndarray]:
    shapes = np.array([picture.shape[:2] for picture in raw])
    drawn = draws.batch(SEED, first + np.arange(len(raw)), shapes=shapes, size=size, recipe=recipe)
    return {"images": padded(raw, side)} | drawn


def on_host(raw: list[np.ndarray], *, size: int, recipe: Recipe, first: int = 1000) -> np.ndarray:
    """As the host makes them of the stream's seed and the positions."""
    seeds = [
        tf.random.experimental.stateless_fold_in(tf.constant([SEED, 1], tf.int64), tf.constant(first + i, tf.int64))
        for i in range(len(raw))
    ]
    pairs = zip(raw, seeds, strict=True)
    return np.stack([augment.two_views_of_raw(tf.constant(x), size=size, seed=s, recipe=recipe) for x, s in pairs])


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize(("size", "side", "deep"), [(32, 72, False), (50, 300, False), (21, 72, True)])
def test_views_are_the_hosts(name, size, side, deep):
    raw = pictures(8 if side < 100 else 3, largest=side, deep=deep)
    made = batch(raw, side=side, size=size, recipe=RECIPES[name])
    made = {key: tf.constant(value) for key, value in made.items()}
    found = device_views.views(made, size=size, recipe=RECIPES[name])
    np.testing.assert_allclose(found, on_host(raw, size=size, recipe=RECIPES[name]), atol=EQUAL, rtol=0)


@pytest.fixture(scope="module")
def raw():
    return pictures(6, largest=72)


@pytest.mark.parametrize("backend", ["jax", "torch", "tensorflow"])
def test_views_are_the_hosts_on_every_backend(backend, raw, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    made = {name: batch(raw, side=72, size=40, recipe=RECIPES[name]) for name in ALL_BACKENDS}
    if backend == "tensorflow":  # under XLA
        found = {f"{name}|40": views(made[name], size=40, recipe=RECIPES[name]) for name in ALL_BACKENDS}
    else:
        given = {f"{name}|40|{key}": value for name, one in made.items() for key, value in one.items()}
        np.savez(tmp_path / "in.npz", **given)
        subprocess.run(
            [sys.executable, "-m", "tests.data.views_on", str(tmp_path / "in.npz"), str(tmp_path / "out.npz")],
            cwd=golden.ROOT,
            env=os.environ | {"KERAS_BACKEND": backend},
            check=True,
        )
        found = tiny_runs.arrays(tmp_path / "out.npz")
    for name in ALL_BACKENDS:
        expected = on_host(raw, size=40, recipe=RECIPES[name])
        np.testing.assert_allclose(found[f"{name}|40"], expected, atol=EQUAL, rtol=0, err_msg=name)


def test_each_view_may_be_of_an_image_of_its_own(raw):
    recipe = Recipe()
    shapes = np.array([[a.shape[:2], b.shape[:2]] for a, b in zip(raw, raw[::-1], strict=True)])
    made = draws.batch(SEED, np.arange(6), shapes=shapes, size=24, recipe=recipe)
    own = padded(raw, 72)
    found = device_views.views(made | {"images": np.concatenate([own, own[::-1]], 1)}, size=24, recipe=recipe)
    for i in range(6):
        seed = tf.random.experimental.stateless_fold_in(tf.constant([SEED, 1], tf.int64), tf.constant(i, tf.int64))
        pair = [images.from_pixels(tf.constant(x)) for x in (raw[i], raw[::-1][i])]
        expected = augment.two_views(pair[0], size=24, seed=seed, recipe=recipe, other=pair[1])
        np.testing.assert_allclose(found[i], expected, atol=EQUAL, rtol=0)


@pytest.mark.parametrize("bicubic", ["tf1", "tf2"])
@pytest.mark.parametrize(("extent", "size"), [(1, 8), (2, 9), (3, 250), (40, 40), (97, 33), (500, 224)])
def test_resizing_is_tensorflows(extent, size, bicubic):
    """Also where a place falls beside a step of TensorFlow's table, and of extents below the cubic's four pixels."""
    pixels = oracles.synth(max(extent, 2), max(extent, 2), 1)[:extent, :extent]
    given = padded([pixels], extent + 3)
    found = device_views.crops(tf.constant(given), tf.constant([[[0, 0, extent, extent]]]), size=size, bicubic=bicubic)
    expected = images.resize(images.from_pixels(tf.constant(pixels)), (size, size), bicubic=bicubic)
    np.testing.assert_allclose(tf.transpose(found[0, 0], (1, 2, 0)), expected, atol=EQUAL, rtol=0)


def test_products_are_exact_where_a_device_rounds_factors(monkeypatch, raw):
    """TF32 is put in place of each product's float32: 10 bits behind the point."""
    made = batch(raw, side=72, size=40, recipe=Recipe().only())
    made = {key: tf.constant(value) for key, value in made.items()}
    exact = device_views.views(made, size=40, recipe=Recipe().only())
    plain = device_views.ops.einsum

    def rounded(x):
        scale = 2.0 ** (10 - tf.math.floor(tf.math.log(tf.maximum(tf.abs(x), 1e-30)) / np.log(2.0)))
        return tf.round(x * scale) / scale

    monkeypatch.setattr(device_views.ops, "einsum", lambda equation, *x: plain(equation, *map(rounded, x)))
    off = np.abs(device_views.views(made, size=40, recipe=Recipe().only()) - exact).max()
    monkeypatch.setattr(device_views, "rounds_factors", lambda: True)
    kept = np.abs(device_views.views(made, size=40, recipe=Recipe().only()) - exact).max()
    assert off > 1e-4
    assert kept <= EQUAL


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_views_are_float32_whatever_the_network_computes_in(dtype, raw):
    import keras

    made = batch(raw, side=72, size=32, recipe=Recipe())
    expected = device_views.views(made, size=32, recipe=Recipe())
    before = keras.config.floatx(), keras.config.dtype_policy()
    try:
        keras.config.set_floatx(dtype)
        keras.config.set_dtype_policy("mixed_bfloat16" if dtype == "bfloat16" else dtype)
        found = device_views.views(made, size=32, recipe=Recipe())
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_dtype_policy(before[1])
    assert found.dtype == "float32"
    np.testing.assert_array_equal(found, expected)


# Odd pictures, through the whole stream


def odd_pictures(folder) -> None:
    """Files of every kind that is read otherwise than a photograph, all of which fit into the padding."""
    photo = oracles.synth(60, 60, 9)
    seen = [photo[:height, :width] for height, width in [(1, 60), (60, 1), (1, 1), (33, 47)]]
    made = {f"{i}.png": Image.fromarray(picture) for i, picture in enumerate(seen)}
    photo = Image.fromarray(photo[:40, :56])
    for mode in ("L", "LA", "RGBA", "1", "CMYK", "P"):
        made[f"mode {mode}.{'jpg' if mode == 'CMYK' else 'png'}"] = photo.convert(mode)
    turned = Image.Exif()
    turned[0x0112] = 6  # lies on its side
    for name, picture in made.items():
        picture.save(folder / name, **({"transparency": 0} if name == "mode P.png" else {}))
    photo.save(folder / "turned.jpg", exif=turned)
    photo.save(folder / "progressive.jpg", progressive=True, quality=70)
    photo.save(folder / "a.bmp")
    photo.save(folder / "b.webp")
    photo.convert("P").save(folder / "c.gif")


def seen_by_both(host, device, *, size: int = 24, **kinds) -> tuple[np.ndarray, np.ndarray]:
    """All pictures of two sources once, views made on the host of one, on the device of the other."""
    recipe, count = Recipe(), host.num_examples
    options = {"batch_size": count, "image_size": size, "seed": 7, "recipe": recipe, **kinds}
    bad = [pipeline.Unreadable(), pipeline.Unreadable()]
    (expected, *_) = next(iter(pipeline.training_views(host, **options, unreadable=bad[0])))
    (packed, *_) = next(iter(pipeline.packed_views(device, **options, unreadable=bad[1])))
    assert [one.names for one in bad] == [[], []]
    return device_views.DeviceViews(size=size, recipe=recipe, channels=device.channels)(
        packed
    ).numpy(), expected.numpy()


@pytest.mark.parametrize("kind", ["as it is", "turned", "opacity"])
def test_odd_pictures_are_seen_alike(kind, tmp_path):
    odd_pictures(tmp_path)
    source = sources.from_folder(tmp_path, labelled=False, exif_orientation=kind == "turned")
    source = sources.with_opacity(source) if kind == "opacity" else source
    found, expected = seen_by_both(source, source)
    assert len(found) == 15
    np.testing.assert_allclose(found, expected, atol=EQUAL, rtol=0)


def test_deep_pictures_are_seen_alike(tmp_path):
    for i, (height, width) in enumerate([(1, 60), (64, 1), (30, 41)]):
        deep = oracles.synth(64, 64, i)[:height, :width].astype(np.uint16) * 257 - 5 * i
        (tmp_path / f"{i}.png").write_bytes(tf.io.encode_png(deep).numpy())
    source = sources.from_folder(tmp_path, labelled=False)
    np.testing.assert_allclose(*seen_by_both(source, source), atol=EQUAL, rtol=0)


def test_what_is_larger_than_the_padding_is_seen_as_its_means_of_areas(tmp_path):
    """64 pixels are the padding for views of 24."""
    shapes = {(1, 1920): (1, 30), (1920, 1): (30, 1), (256, 128): (4, 4), (192, 96): (3, 3), (64, 64): (1, 1)}
    for i, ((height, width), (down, across)) in enumerate(shapes.items()):
        tall, wide = height // down, width // across
        small = oracles.synth(max(tall, 2), max(wide, 2), i)[:tall, :wide].clip(9, 246)
        # What is added to an area's pixels has the sum 0, so that its mean is the small picture's pixel exactly.
        added = np.linspace(-9, 9, down * across).round().astype(int).reshape(1, down, 1, across, 1)
        large = (small[:, None, :, None] + (added if added.size > 1 else 0)).reshape(height, width, 3)
        for name, pixels in (("large", large), ("small", small)):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / name / f"{i}.png")
    large, small = (sources.from_folder(tmp_path / name, labelled=False) for name in ("large", "small"))
    found, expected = seen_by_both(small, large)
    np.testing.assert_allclose(found, expected, atol=EQUAL, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["strength1.0", "strength1.0_simclrv1"])
def test_whole_views_have_the_references_statistics(name):
    """The reference's own numbers, as for the host's views."""
    expected = golden.data("preprocess/augment_stats_tf1.json")[name]
    photo = golden.arrays("preprocess/photo.npz")["photo"]
    recipe = Recipe(additive_brightness=name.endswith("v1"), use_blur=False)
    side, count = max(photo.shape[:2]), min(expected["n"], 4000)
    view = tf.function(partial(device_views.views, size=64, recipe=recipe), jit_compile=True, autograph=False)
    found = []
    for first in range(0, count // 2, 50):
        made = batch([photo] * 50, side=side, size=64, recipe=recipe, first=first)
        seen = view({key: tf.constant(value) for key, value in made.items()}).numpy().reshape(-1, 64, 64, 3)
        found.append(np.concatenate([seen.mean((1, 2)), seen.std((1, 2))], -1))
    values = np.concatenate(found)
    means, stds = (expected[f"{kind}_of_means"] + expected[f"{kind}_of_stds"] for kind in ("mean", "std"))
    for column, (mean, std) in enumerate(zip(means, stds, strict=True)):
        error = std * np.sqrt(1 / len(values) + 1 / expected["n"])
        assert abs(values[:, column].mean() - mean) <= 4 * error
