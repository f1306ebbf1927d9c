"""Batches without TensorFlow beside those with it: the same orders, boxes, draws and pixels."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from tf_simclr.data import in_python, pipeline
from tf_simclr.data.examples import Unreadable
from tf_simclr.data.images import evaluation_view
from tf_simclr.data.recipe import Recipe
from tf_simclr.data.sources import from_arrays, from_folder
from tf_simclr.errors import InputError

PIXELS = np.random.default_rng(0).integers(0, 256, (11, 20, 24, 3), np.uint8)
LABELS = np.arange(11) % 3
EQUAL = 1e-5
"""Of views in [0, 1]: there was 3e-6 between a graph on the host and Keras' functions."""


def streams(source, *, step: int = 0, **options):
    """Two batches of each engine."""
    stream = pipeline.Stream(batch_size=4, seed=7, buffer=11, start_step=step, **options)
    recipe = Recipe(use_blur=False, blur_probability=0)
    seen = {"stream": stream, "image_size": 16, "recipe": recipe}
    engines = (in_python.training_views, pipeline.training_views)
    return [list(engine(source, **seen, unreadable=Unreadable()).take(4)) for engine in engines]


@pytest.mark.parametrize("step", [0, 5])
def test_views_of_arrays_are_those_of_tensorflow_across_epochs(step):
    ours, theirs = streams(from_arrays(PIXELS, LABELS), step=step)
    assert len(ours) == 4
    for (views, labels), (expected, answers) in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(labels, answers)
        np.testing.assert_allclose(np.asarray(views), expected, atol=EQUAL)


def test_a_stream_from_a_step_on_is_the_rest_of_the_straight_one_and_can_be_iterated_again():
    source, recipe = from_arrays(PIXELS), Recipe(use_blur=False, blur_probability=0)
    straight, later = (
        in_python.training_views(
            source,
            stream=pipeline.Stream(batch_size=4, seed=7, buffer=0, start_step=step),
            image_size=8,
            recipe=recipe,
            unreadable=Unreadable(),
        )
        for step in (0, 3)
    )
    for _ in range(2):
        for (expected,), (views,) in zip(list(straight.take(5))[3:], later.take(2), strict=True):
            np.testing.assert_array_equal(np.asarray(views), np.asarray(expected))


def test_each_process_makes_its_rows_of_every_batch():
    source = from_arrays(PIXELS, LABELS)
    (whole,), *parts = (
        [(np.asarray(v), labels) for v, labels in streams(source, share=share)[0][:1]]
        for share in ((0, 1), (0, 2), (1, 2))
    )
    for column in (0, 1):
        np.testing.assert_array_equal(np.concatenate([part[0][column] for part in parts]), whole[column])


@pytest.fixture
def folder(tmp_path):
    """Pictures of two classes, one of them corrupt: the place of it is taken by another."""
    random = np.random.default_rng(1)
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(4):
            pixels = random.integers(0, 256, (21 + i, 30, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    (tmp_path / "a" / "2.png").write_bytes(b"no picture")
    return tmp_path


def test_a_corrupt_image_is_named_and_replaced_by_the_one_that_tensorflow_takes(folder):
    source = from_folder(folder)
    ours, theirs = streams(source)
    for (views, labels), (expected, answers) in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(labels, answers)
        np.testing.assert_allclose(np.asarray(views), expected, atol=EQUAL)
    unreadable = Unreadable()
    options = {"batch_size": 3, "image_size": 16, "unreadable": unreadable}
    ours = list(in_python.evaluation_batches(source, **options))
    theirs = list(pipeline.evaluation_batches(source, **options))
    assert [len(batch[0]) for batch in ours] == [3, 3, 1]
    assert unreadable.names == [str(folder / "a" / "2.png")]
    for (images, labels, names), (expected, answers, told) in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(labels, answers)
        assert names.tolist() == [name.decode() for name in told.numpy()]
        np.testing.assert_allclose(images, expected, atol=EQUAL)


def test_a_folder_without_a_picture_that_can_be_read_is_refused(folder):
    for path in folder.rglob("*.png"):
        path.write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"at least one image of .* must be readable, but none of 8 is"):
        in_python.evaluation_batches(from_folder(folder), batch_size=2, image_size=8, unreadable=Unreadable())


@pytest.mark.parametrize("bicubic", ["tf1", "tf2"])
@pytest.mark.parametrize(("shape", "size"), [((20, 24), 16), ((20, 24), 48), ((31, 17), 31), ((500, 375), 224)])
def test_what_evaluation_sees_is_what_tensorflow_sees(bicubic, shape, size):
    pixels = np.random.default_rng(2).integers(0, 256, (*shape, 3), np.uint8)
    expected = evaluation_view((pixels / np.float32(255)), size=size, crop_proportion=0.875, bicubic=bicubic)
    found = in_python.evaluation_view(pixels, size=size, proportion=0.875, bicubic=bicubic)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_images_of_sixteen_bits_and_grey_ones_are_seen_as_by_tensorflow():
    for pixels in (PIXELS.astype(np.uint16) * 257, PIXELS[..., :1], PIXELS[..., 0]):
        ours, theirs = streams(from_arrays(pixels))
        np.testing.assert_allclose(np.asarray(ours[0][0]), theirs[0][0], atol=EQUAL)


def test_what_is_too_large_is_shrunk_by_means_of_areas():
    pixels = np.kron(np.arange(16, dtype=np.uint8).reshape(4, 4) * 10, np.ones((3, 3), np.uint8))
    found = in_python.reading._fitting(np.repeat(pixels[..., None], 3, 2), (4, 4))
    np.testing.assert_array_equal(found[..., 0], np.arange(16).reshape(4, 4) * 10)
    deep = in_python.reading._fitting(np.repeat(pixels[..., None], 3, 2).astype(np.uint16) * 257, (4, 4))
    np.testing.assert_array_equal(deep, found.astype(np.uint16) * 257)


def test_a_source_that_tensorflow_alone_can_read_says_so():
    source = dataclasses.replace(from_arrays(PIXELS), rows=None, origin="cifar10 (train)")
    with pytest.raises(InputError, match=r"^reading cifar10 \(train\) needs TensorFlow, .*'tf-simclr\[tens"):
        in_python.rows_of(source)


def test_fewer_images_than_a_batch_has_are_refused():
    with pytest.raises(InputError, match="must hold enough images for one batch"):
        streams(from_arrays(PIXELS[:3]))
