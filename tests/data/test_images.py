"""Decoding, resizing and the evaluation view: against Pillow, loops and the reference's numbers."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests import golden
from tests.data import oracles
from tf_simclr.data import images
from tf_simclr.errors import InputError

PHOTO = oracles.synth(20, 30, 5)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(data: bytes) -> np.ndarray:
    return images.decode(tf.constant(data)).numpy()


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "LA"])
def test_a_png_decodes_to_the_rgb_that_pillow_sees(mode):
    image = Image.fromarray(PHOTO).convert(mode)
    expected = np.asarray(image.convert("RGB"), np.float32) / 255
    np.testing.assert_allclose(decoded(encoded(image, "PNG")), expected, atol=1e-6)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_a_bmp_decodes_to_the_rgb_that_pillow_sees(mode):
    image = Image.fromarray(PHOTO).convert(mode)
    expected = np.asarray(image.convert("RGB"), np.float32) / 255
    np.testing.assert_allclose(decoded(encoded(image, "BMP")), expected, atol=1e-6)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_lossless_webp_decodes_exactly(mode):
    data = encoded(Image.fromarray(PHOTO).convert(mode), "WEBP", lossless=True)
    np.testing.assert_allclose(decoded(data), PHOTO / np.float32(255), atol=1e-6)


def test_the_first_frame_of_an_animated_gif_is_the_image():
    frames = [Image.new("RGB", (7, 5), color) for color in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(decoded(data), np.broadcast_to([1.0, 0, 0], (5, 7, 3)), atol=0.01)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_jpeg_decodes_within_rounding_of_pillow(mode):
    data = encoded(Image.fromarray(PHOTO).convert(mode), "JPEG", quality=95)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.float32) / 255
    assert np.abs(decoded(data) - expected).mean() < 0.01


def test_a_cmyk_jpeg_decodes_to_about_its_colours():
    data = encoded(Image.new("RGB", (16, 16), (200, 30, 30)).convert("CMYK"), "JPEG", quality=95)
    np.testing.assert_allclose(decoded(data).mean((0, 1)), np.array([200, 30, 30]) / 255, atol=0.05)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_16_bit_png_keeps_its_precision(channels):
    pixels = np.random.RandomState(0).randint(0, 65536, (6, 4, channels)).astype(np.uint16)
    found = decoded(tf.io.encode_png(pixels).numpy())
    np.testing.assert_allclose(found, np.broadcast_to(pixels / 65535, (6, 4, 3)), atol=1e-6)


@pytest.mark.parametrize("data", [b"", b"no image", encoded(Image.fromarray(PHOTO), "PNG")[:300]])
def test_what_is_no_image_fails_to_decode(data):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decoded(data)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_pixels_become_rgb_over_their_full_range(channels, kind):
    pixels = np.random.RandomState(1).randint(0, np.iinfo(kind).max + 1, (3, 4, channels)).astype(kind)
    # The opacity, a fourth channel that is known beforehand, is kept.
    expected = np.broadcast_to(pixels / np.iinfo(kind).max, (3, 4, max(channels, 3)))
    np.testing.assert_allclose(images.from_pixels(tf.constant(pixels)), expected, atol=1e-6)


@pytest.mark.parametrize("style", ["tf1", "tf2"])
@pytest.mark.parametrize("size", [(16, 16), (9, 50), (40, 60), (20, 30)])
def test_resizing_is_cubic_convolution_of_either_style(style, size):
    image = PHOTO.astype(np.float32) / 255
    expected = oracles.resize(image, *size, style)
    # 5e-4: TensorFlow takes the cubic's weights from a table of 1024 steps (goldens' README, section 3).
    np.testing.assert_allclose(images.resize(image, size, bicubic=style), expected, atol=5e-4)


@pytest.mark.parametrize("style", ["tf1", "tf2"])
def test_the_evaluation_view_is_the_references(style):
    arrays = golden.arrays(f"preprocess/eval_{style}_style.npz")
    names = dict.fromkeys(name.split("/")[0] for name in arrays if "nocrop" not in name)
    assert len(names) == 12
    for position, name in enumerate(names):
        shape, size = name.split("_to_")
        picture = images.from_pixels(tf.constant(oracles.synth(*map(int, shape.split("x")), 30 + position)))
        found = images.evaluation_view(picture, size=int(size), crop_proportion=0.875, bicubic=style).numpy()
        parts = {"full": found, "sample": golden.sample(found, 4096), "top2": found[:2], "bottom2": found[-2:]}
        parts |= {"left2": found[:, :2], "right2": found[:, -2:]}
        checked = [part for part in parts if f"{name}/{part}" in arrays]
        assert checked
        for part in checked:
            np.testing.assert_allclose(parts[part], arrays[f"{name}/{part}"], atol=5e-4, err_msg=f"{name}/{part}")


@pytest.mark.parametrize("style", ["tf1", "tf2"])
def test_a_32_pixel_image_is_its_own_evaluation_view(style):
    expected = golden.arrays("preprocess/eval_tf2_style.npz")["32x32_to_32_nocrop/full"]
    picture = images.from_pixels(tf.constant(oracles.synth(32, 32, 80)))
    np.testing.assert_array_equal(images.evaluation_view(picture, size=32, bicubic=style), expected)


def test_at_32_pixels_another_size_gives_its_whole_central_square():
    picture = PHOTO.astype(np.float32) / 255
    expected = np.clip(oracles.resize(picture[:, 5:25], 32, 32, "tf1"), 0, 1)
    np.testing.assert_allclose(images.evaluation_view(picture, size=32), expected, atol=5e-4)


def test_above_32_pixels_the_crop_keeps_seven_eighths_by_default():
    picture = tf.constant(PHOTO.astype(np.float32) / 255)
    expected = images.evaluation_view(picture, size=48, crop_proportion=0.875)
    np.testing.assert_array_equal(images.evaluation_view(picture, size=48), expected)


def test_central_boxes_are_the_references():
    for height, width, aspect, *rest in golden.data("preprocess/crop_boxes.json")["crop_boxes"]:
        offset_y, offset_x, box_height, box_width = images.central_box(
            tf.constant((height, width)), aspect=aspect
        ).numpy()
        assert [box_height, box_width, offset_y, offset_x] == rest, (height, width, aspect)


@pytest.mark.parametrize("proportion", [-0.5, 1.5])
def test_a_crop_proportion_outside_its_range_is_refused(proportion):
    with pytest.raises(InputError, match="crop_proportion must be above 0"):
        images.evaluation_view(tf.zeros((4, 4, 3)), size=4, crop_proportion=proportion)
