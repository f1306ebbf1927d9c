"""Every kind of image file, decoded in the graph: oracle Pillow's RGB."""

import io
import warnings

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from tests.data import oracles
from tf_simclr.data import images, rasters
from tf_simclr.data.sources import from_folder

PHOTO = Image.fromarray(oracles.synth(20, 30, 5))
CLEAR = Image.fromarray(np.dstack([oracles.synth(20, 30, 5), np.tile(np.arange(30, dtype=np.uint8) * 8, (20, 1))]))
BLUE = Image.new("RGB", PHOTO.size, "blue")


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def run_length_bmp() -> bytes:
    """A BMP of 8 bits in run-length code: two rows of four pixels, bottom up; one run a row, then an absolute one."""
    palette = bytes([255, 0, 0, 0, 0, 255, 0, 0, 0, 0, 255, 0]) + bytes(4 * 253)
    body = bytes([4, 1, 0, 0, 0, 4, 2, 0, 1, 2, 0, 1])
    offset = 14 + 40 + len(palette)
    info = (40).to_bytes(4, "little") + (4).to_bytes(4, "little") + (2).to_bytes(4, "little")
    info += (1).to_bytes(2, "little") + (8).to_bytes(2, "little") + (1).to_bytes(4, "little")
    info += len(body).to_bytes(4, "little") + bytes(8) + (256).to_bytes(4, "little") + bytes(4)
    return (
        b"BM"
        + (offset + len(body)).to_bytes(4, "little")
        + bytes(4)
        + offset.to_bytes(4, "little")
        + info
        + palette
        + body
    )


def sixteen_bit_bmp() -> bytes:
    """A BMP of 16 bits a pixel (five a colour), one pixel: pure red."""
    body = (0b11111 << 10).to_bytes(2, "little") + bytes(2)
    info = (40).to_bytes(4, "little") + (1).to_bytes(4, "little") * 2 + (1).to_bytes(2, "little")
    info += (16).to_bytes(2, "little") + bytes(4) + len(body).to_bytes(4, "little") + bytes(16)
    return b"BM" + (54 + len(body)).to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little") + info + body


FRAMES = {"save_all": True, "append_images": [BLUE]}
EXACT = {
    **{f"png {mode}": encoded(PHOTO.convert(mode), "PNG") for mode in ("RGB", "L", "P", "1")},
    **{f"png {mode}": encoded(CLEAR.convert(mode), "PNG") for mode in ("RGBA", "LA")},
    "png with a clear palette entry": encoded(PHOTO.quantize(16), "PNG", transparency=3),
    "animated png": encoded(PHOTO, "PNG", **FRAMES),
    "animated png with a picture before": encoded(PHOTO, "PNG", **FRAMES, default_image=True),
    "gif": encoded(PHOTO.quantize(16), "GIF"),
    "gif with a clear colour": encoded(PHOTO.quantize(16), "GIF", transparency=2),
    "animated gif": encoded(PHOTO, "GIF", **FRAMES),
    **{f"bmp {mode}": encoded(PHOTO.convert(mode), "BMP") for mode in ("RGB", "L", "P", "1")},
    "bmp of 16 colours": encoded(PHOTO.quantize(16), "BMP"),
    "bmp RGBA": encoded(CLEAR, "BMP"),
    "bmp in run-length code": run_length_bmp(),
    "bmp of 16 bits": sixteen_bit_bmp(),
    "webp lossy": encoded(PHOTO, "WEBP"),
    "webp lossless": encoded(PHOTO, "WEBP", lossless=True),
    "webp lossy, clear": encoded(CLEAR, "WEBP"),
    "webp lossless, clear": encoded(CLEAR, "WEBP", lossless=True),
    "animated webp": encoded(PHOTO, "WEBP", **FRAMES, lossless=True),
    "animated lossy webp": encoded(PHOTO, "WEBP", **FRAMES),
    **{f"tiff {mode}": encoded(PHOTO.convert(mode), "TIFF") for mode in ("RGB", "L", "P", "1", "CMYK")},
    "tiff of two pages": encoded(PHOTO, "TIFF", **FRAMES),
    "tiff deflated": encoded(PHOTO, "TIFF", compression="tiff_adobe_deflate"),
    "tiff lzw": encoded(CLEAR, "TIFF", compression="tiff_lzw"),
    **{f"ppm {mode}": encoded(PHOTO.convert(mode), "PPM") for mode in ("RGB", "L", "1")},
    "jpeg 2000": encoded(PHOTO, "JPEG2000"),
    "avif": encoded(PHOTO, "AVIF"),
    "tga": encoded(PHOTO, "TGA"),
    "ico": encoded(PHOTO, "ICO", sizes=[(16, 16)]),
    "pcx": encoded(PHOTO, "PCX"),
    "sgi": encoded(PHOTO, "SGI"),
}
ROUNDED = {
    **{f"jpeg {mode}": encoded(PHOTO.convert(mode), "JPEG", quality=95) for mode in ("RGB", "L", "CMYK")},
    "progressive jpeg": encoded(PHOTO, "JPEG", quality=95, progressive=True),
    "jpeg that stores RGB": encoded(PHOTO, "JPEG", quality=95, keep_rgb=True),
    "jpeg of several pictures": encoded(PHOTO, "MPO", **FRAMES, quality=95),
}


@tf.function(input_signature=[tf.TensorSpec((), tf.string)])
def in_graph(data: tf.Tensor) -> tf.Tensor:
    return images.decode(data)


def pillows(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("kind", EXACT)
def test_every_lossless_kind_decodes_to_pillows_rgb(kind):
    found = in_graph(tf.constant(EXACT[kind])).numpy()
    np.testing.assert_array_equal(np.round(found * 255), pillows(EXACT[kind]), strict=False)
    assert found.dtype == np.float32


@pytest.mark.parametrize("kind", ROUNDED)
def test_every_jpeg_decodes_to_pillows_rgb_but_for_rounding(kind):
    """TensorFlow's libjpeg is the reference's; its inverse DCT is the fast one."""
    found, expected = in_graph(tf.constant(ROUNDED[kind])).numpy() * 255, pillows(ROUNDED[kind]).astype(float)
    assert np.abs(found - expected).mean() < 2.55
    assert np.abs(found - expected).max() < 10


def test_eager_and_in_a_graph_are_equal():
    for data in (EXACT["bmp P"], EXACT["png RGB"], EXACT["animated webp"]):
        np.testing.assert_array_equal(images.decode(tf.constant(data)), in_graph(tf.constant(data)))


@pytest.mark.parametrize("kind", ["TIFF", "PNG", "PPM"])
def test_grey_pictures_of_16_bits_keep_them(kind):
    """Pillow's own conversion to RGB cuts off at 255."""
    values = np.arange(600, dtype=np.uint16).reshape(20, 30) * 109
    found = in_graph(tf.constant(encoded(Image.fromarray(values), kind))).numpy()
    np.testing.assert_allclose(found, np.repeat(values[..., None] / 65535, 3, 2), atol=1e-6)


def test_what_has_no_range_or_is_none_fails():
    lying = bytearray(EXACT["bmp P"])
    lying[18:26] = (2**30).to_bytes(4, "little") * 2
    bad = [encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), b"", b"II*\0", EXACT["tiff RGB"][:60]]
    for data in [*bad, bytes(lying), b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"]:
        with pytest.raises(tf.errors.InvalidArgumentError):
            in_graph(tf.constant(data))
    assert "EPS" not in rasters.FORMATS, "Pillow starts Ghostscript for it"


ORIENTED = {"JPEG": {"quality": 95}, "PNG": {}, "WEBP": {"lossless": True}}


@pytest.mark.parametrize("kind", ORIENTED)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_ignored_unless_it_is_asked_for(kind, orientation, tmp_path):
    exif = Image.Exif()
    exif[rasters.ORIENTATION] = orientation
    data = encoded(PHOTO, kind, exif=exif, **ORIENTED[kind])
    (tmp_path / "a.jpg").write_bytes(data)
    as_stored = images.decode(tf.constant(data)).numpy()
    turned = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"), np.float32) / 255
    for asked, expected in ((False, as_stored), (True, turned if orientation > 1 else as_stored)):
        source = from_folder(tmp_path, exif_orientation=asked)
        (record,) = source.ordered().map(source.decoded)
        np.testing.assert_allclose(record["image"].numpy(), expected, atol=1e-6, strict=True)


def test_bytes_without_orientation_stay_as_they_are():
    for data in (EXACT["png RGB"], ROUNDED["jpeg RGB"], b"no image", b""):
        assert images.upright(tf.constant(data)).numpy() == data


def test_pillows_warnings_are_not_shown():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rasters.rgb(EXACT["png with a clear palette entry"])
