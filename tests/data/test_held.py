"""Small sets that a device holds: batches name rows, and their views are those that the host makes."""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tf_simclr.data import pipeline, sources, subsets
from tf_simclr.data.device_views import DeviceViews, Held
from tf_simclr.data.recipe import Recipe

RECIPE = Recipe(color_jitter_strength=0.5, use_blur=False)
SIZE, COUNT = 16, 11
EQUAL = 1e-5


def pixels(*channels: int, dtype=np.uint8, side: int = 12) -> np.ndarray:
    top = np.iinfo(dtype).max + 1
    return np.random.default_rng(0).integers(0, top, (COUNT, side, side + 3, *channels)).astype(dtype)


def of_arrays(_, *channels: int, dtype=np.uint8) -> sources.Source:
    return sources.from_arrays(pixels(*channels, dtype=dtype), np.arange(COUNT) % 3)


def of_folder(folder, *, broken: bool = False, odd: bool = False) -> sources.Source:
    for i, image in enumerate(pixels(3)):
        place = folder / "ab"[i % 2]
        place.mkdir(exist_ok=True)
        Image.fromarray(image[: 10 if odd and i == 7 else None]).save(place / f"{i}.png")
    if broken:
        (folder / "a" / "bad.png").write_bytes(b"no picture")
    return sources.from_folder(folder)


def front_to_back(folder, *, known: bool = True) -> sources.Source:
    """Encoded images that can only be read in order, as TensorFlow Datasets has them."""
    records = {
        "image": [tf.io.encode_png(image).numpy() for image in pixels(3)],
        "name": [f"n{i}" for i in range(COUNT)],
        "label": np.arange(COUNT, dtype=np.int64) % 3,
    }
    return sources.Sequential(
        origin="records",
        num_examples=COUNT,
        class_names=("a", "b", "c"),
        epoch=lambda seed: tf.data.Dataset.from_tensor_slices(records),
        sides=(12, 15) if known else None,
    )


SMALL = {
    "grey": of_arrays,
    "RGB": lambda folder: of_arrays(folder, 3),
    "RGBA": lambda folder: of_arrays(folder, 4),
    "16 bits": lambda folder: of_arrays(folder, 3, dtype=np.uint16),
    "folder": of_folder,
    "records": front_to_back,
    "records of unknown sides": functools.partial(front_to_back, known=False),
}


def batches(make, source, *, step: int, **options) -> list:
    stream = pipeline.Stream(batch_size=4, seed=3, buffer=COUNT, start_step=step)
    given = {"image_size": SIZE, "recipe": RECIPE, "unreadable": pipeline.Unreadable(), "stream": stream}
    return list(make(source, **given, **options).take(4))


@pytest.mark.parametrize("cache", [False, True], ids=["", "cached"])
@pytest.mark.parametrize("kind", SMALL)
def test_views_of_what_a_device_holds_are_the_hosts(kind, cache, tmp_path):
    source = SMALL[kind](tmp_path)
    held = subsets.in_pixels(source, cache=cache)
    assert held.pixels.shape == (COUNT, 12, 15, 3)
    views = DeviceViews(size=SIZE, recipe=RECIPE, held=Held(held.pixels))
    ordered = sources.cached(source) if cache else source
    image_by_image = dataclasses.replace(ordered, vectorised=False, sides=None)
    for step in (0, 5):
        found = batches(pipeline.packed_views, held, step=step, held=True)
        expected = batches(pipeline.training_views, image_by_image, step=step)
        for (batch, labels), (wanted, answers) in zip(found, expected, strict=True):
            assert set(batch) == {"rows", "boxes", "draws"}
            np.testing.assert_array_equal(labels, answers)
            np.testing.assert_allclose(views(batch), wanted, atol=EQUAL)


@pytest.mark.parametrize("kind", ["folder", "records of unknown sides"])
def test_the_host_sees_the_same_of_pixels_in_memory(kind, tmp_path):
    source = SMALL[kind](tmp_path)
    held = subsets.in_pixels(source)
    assert pipeline.in_batches(held, image_size=SIZE, recipe=RECIPE)
    assert not pipeline.in_batches(source, image_size=SIZE, recipe=RECIPE)
    for (found, _), (expected, _) in zip(
        *(batches(pipeline.training_views, one, step=2) for one in (held, source)), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=EQUAL)


@pytest.mark.parametrize("changes", [{"broken": True}, {"odd": True}], ids=["unreadable", "another size"])
def test_what_is_not_small_whole_and_of_one_size_stays_as_it_is(changes, tmp_path):
    source = of_folder(tmp_path, **changes)
    assert subsets.in_pixels(source) is source


def test_more_than_the_budget_stays_as_it_is(tmp_path):
    source = of_folder(tmp_path)
    size = COUNT * 12 * 15 * 3
    assert subsets.in_pixels(source, limit=size).pixels is not None
    assert subsets.in_pixels(source, limit=size - 1) is source
    large = sources.from_arrays(np.zeros((COUNT, 65, 8, 3), np.uint8))
    assert subsets.in_pixels(large) is large


def test_a_part_of_what_is_held_is_not_taken_for_all_of_it(tmp_path):
    held = subsets.in_pixels(of_folder(tmp_path))
    rows = np.array([1, 4, 9])
    names = np.array([record["name"] for record in held.ordered().as_numpy_iterator()])[rows]
    part = subsets.of_rows(held, rows, names=names)
    assert part.pixels is None
    again = subsets.in_pixels(part)
    np.testing.assert_array_equal(again.pixels, held.pixels[rows])
    assert subsets.mapped(held, lambda record: record).pixels is None
