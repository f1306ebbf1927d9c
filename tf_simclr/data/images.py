"""Encoded bytes or pixels to RGB images in [0, 1], and the deterministic view of one image that evaluation uses.

An image is a float32 tensor of shape (height, width, 3) with values in [0, 1], without mean or standard deviation
removed: that is what the networks take.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from tf_simclr.data import rasters
from tf_simclr.data.recipe import CROP_PROPORTION, Bicubic, evaluation_proportion
from tf_simclr.frameworks import tf

_JPEG, _PNG, _BMP, _RIFF, _WEBP = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"RIFF", b"WEBP"


def scaled(pixels: tf.Tensor) -> tf.Tensor:
    """Integers over their full range as numbers in [0, 1]."""
    return tf.cast(pixels, tf.float32) * (1 / pixels.dtype.max)


def in_bits(pixels: tf.Tensor, *, deep: bool) -> tf.Tensor:
    """Integers over their full range as those of 16 or 8 bits; only what has more bits than asked for loses any."""
    if deep == (pixels.dtype == tf.uint16):
        return pixels
    if deep:
        # 8 bits times 257 are 16 bits: 255 → 65,535, both ways without a loss.
        return tf.cast(pixels, tf.uint16) * 257
    return tf.cast(tf.round(tf.cast(pixels, tf.float32) / 257), tf.uint8)


def to_rgb(raw: tf.Tensor, then: Callable[[tf.Tensor], Any] = scaled) -> Any:
    """RGB image in [0, 1] from encoded bytes (`decode`) or pixels (`from_pixels`), or what `then` makes of its pixels.

    `then` takes the integers (h, w, 3), uint8 or uint16: what needs a part of an image only need not scale all of it.
    """
    return decode(raw, then) if raw.dtype == tf.string else from_pixels(raw, then)


def decode(encoded: tf.Tensor, then: Callable[[tf.Tensor], Any] = scaled) -> Any:
    """RGB image in [0, 1] from the bytes of an image file; of an animation or several pages the first.

    Its format is told by its content.  Grey becomes three equal channels, transparency is dropped, CMYK is converted,
    and PNGs of 16 bits a channel (of other formats grey images of 16 bits) keep them.  Metadata (EXIF orientation) is
    ignored, as the reference does; `upright` is for those who want it.

    TensorFlow decodes JPEG, PNG, BMP of 24 bits and lossy WebP without transparency, as the reference does and without
    Python; all others are Pillow's (`tf_simclr.data.rasters`), also those that TensorFlow decodes to other colours.

    Args:
        encoded: scalar string.
        then: see `to_rgb`.

    Raises:
        tf.errors.InvalidArgumentError: the bytes are no image, or damaged.
    """

    starts = partial(_has, encoded)

    def finished(pixels: tf.Tensor) -> Any:
        return then(tf.ensure_shape(pixels, (None, None, 3)))

    def by_pillow() -> Any:
        shallow, deep = tf.numpy_function(_both_depths, [encoded], [tf.uint8, tf.uint16])
        return tf.cond(tf.size(deep) > 0, lambda: finished(deep), lambda: finished(shallow))

    def png() -> Any:
        deep, shallow = (partial(tf.io.decode_png, encoded, 3, kind) for kind in (tf.uint16, tf.uint8))
        return tf.cond(starts(b"\x10", 24), lambda: finished(deep()), lambda: finished(shallow()))

    def others() -> Any:
        # Only the plain kind of BMP, 24 bits and no compression: TensorFlow reads others wrongly.
        long = tf.strings.length(encoded) > 54  # a BMP's header
        plain_bmp = starts(_BMP) & long & starts(b"\x28\0\0\0", 14) & starts(b"\x18\0\0\0\0\0", 28)
        lossy_webp = starts(_RIFF) & starts(_WEBP + b"VP8 ", 8)
        # Plain BMP, lossy WebP; the rest is Pillow's.
        branches = [
            (plain_bmp, lambda: finished(tf.io.decode_bmp(encoded))),
            (lossy_webp, lambda: finished(tf.io.decode_webp(encoded, 3)[0])),
        ]
        return tf.case(branches, by_pillow)

    # JPEG first, since most are: questions cost time, too.
    plain = lambda: finished(tf.io.decode_jpeg(encoded, 3))  # noqa: E731
    return tf.cond(starts(_JPEG), plain, lambda: tf.cond(starts(_PNG), png, seldom(others)))


def _has(encoded: tf.Tensor, text: bytes, position: int = 0) -> tf.Tensor:
    """Whether bytes have these at a position: formats are told by them, as names may lie."""
    return tf.equal(tf.strings.substr(encoded, position, len(text)), text)


def seldom(branch: Callable[[], Any]) -> Callable[[], Any]:
    """A branch of `tf.cond` that is seldom taken: within a graph one call.

    Else its operations would be part of the graph, and where it is not taken, be passed by one after the other.
    """
    if not tf.inside_function():
        return branch
    return tf.function(branch, autograph=False, experimental_attributes={"_noinline": True})


def _both_depths(encoded: bytes | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The picture as bytes or as 16 bits, and nothing as the other."""
    pixels = rasters.rgb(_bytes(encoded))
    # Two outputs of fixed types, of which one is empty: a graph's function has no choice of types.
    nothing = np.zeros((0, 0, 3), np.uint16 if pixels.dtype == np.uint8 else np.uint8)
    return (pixels, nothing) if pixels.dtype == np.uint8 else (nothing, pixels)


def upright(encoded: tf.Tensor) -> tf.Tensor:
    """An image file's bytes, its picture turned as its EXIF orientation says; Python looks at each."""
    turned = tf.numpy_function(lambda data: rasters.upright(_bytes(data)), [encoded], tf.string)
    return tf.ensure_shape(turned, ())


def with_opacity(raw: tf.Tensor) -> tf.Tensor:
    """What `to_rgb` takes, as integers of 16 bits with the opacity last, `(h, w, 4)`, which `from_pixels` keeps.

    JPEGs are opaque; PNGs of 16 bits keep them; all others are Pillow's.

    Raises:
        tf.errors.InvalidArgumentError: the bytes are no image, or damaged.
    """

    # (h, w, 3 or 4) of 8 or 16 bits → (h, w, 4) of 16; opaque where it lacks.
    def deep(pixels: tf.Tensor) -> tf.Tensor:
        pixels = in_bits(pixels, deep=True)
        if pixels.shape[-1] != 4:
            pixels = tf.concat([pixels, tf.fill((*tf.unstack(tf.shape(pixels)[:2]), 1), _FULL)], 2)
        return tf.ensure_shape(pixels, (None, None, 4))

    if raw.dtype != tf.string:
        return from_pixels(raw, deep)
    starts = partial(_has, raw)

    def by_pillow() -> tf.Tensor:
        return deep(tf.ensure_shape(tf.numpy_function(_rgba, [raw], tf.uint16), (None, None, 4)))

    branches = [
        (starts(_JPEG), lambda: deep(tf.io.decode_jpeg(raw, 3))),
        (starts(_PNG) & starts(b"\x10", 24), lambda: deep(tf.io.decode_png(raw, 4, tf.uint16))),
    ]
    return tf.case(branches, by_pillow)


_FULL = np.uint16(2**16 - 1)


def _rgba(encoded: bytes | np.ndarray) -> np.ndarray:
    """The picture with its opacity, of 16 bits."""
    pixels = rasters.rgba(_bytes(encoded))
    return pixels if pixels.dtype == np.uint16 else pixels.astype(np.uint16) * 257


def _bytes(encoded: bytes | np.ndarray) -> bytes:
    """What TensorFlow hands to Python: bytes within a graph, an array without dimensions outside of one."""
    return encoded if isinstance(encoded, bytes) else encoded.item()


def from_pixels(pixels: tf.Tensor, then: Callable[[tf.Tensor], Any] = scaled) -> Any:
    """RGB image in [0, 1] from integers over their full range, (height, width, 1, 3 or 4); `then` as in `to_rgb`.

    A fourth channel, the opacity, is kept where it is known beforehand that there is one (`with_opacity`).
    """
    if pixels.shape[2] not in (3, 4):
        # The channels 0, 1, 2, of grey three times 0.
        pixels = tf.gather(pixels, tf.minimum([0, 1, 2], tf.shape(pixels)[2] - 1), axis=2)
    return then(pixels)


def resize(image: tf.Tensor, size: tuple[int, int], *, bicubic: Bicubic = "tf1") -> tf.Tensor:
    """Cubic interpolation to `size` (height, width), without antialiasing, as the reference resizes.

    Values may leave [0, 1] by the cubic's overshoot.

    Example:
        >>> resize(tf.ones((8, 12, 3)), (4, 4)).shape.as_list()
        [4, 4, 3]
    """
    # (h, w, 3) → (1, h, w, 3) for the kernel and back.
    resized = tf.raw_ops.ResizeBicubic(images=image[None], size=size, half_pixel_centers=bicubic == "tf2")
    return tf.ensure_shape(resized[0], (*size, image.shape[-1] or 3))


def central_box(shape: tf.Tensor, *, aspect: float = 1.0, proportion: float = CROP_PROPORTION) -> tf.Tensor:
    """The largest central box of an aspect ratio, shrunk.

    Args:
        shape: (height, width) of the image, or its whole shape.
        aspect: width / height of the box.
        proportion: of the largest box's sides, above 0 and up to 1.

    Returns:
        int32 (offset_y, offset_x, box_height, box_width).
    """
    sides = tf.cast(shape[:2], tf.float32)
    # The box of this aspect that fits, then the proportion of it, rounded to even as upstream.
    height = tf.minimum(sides[0], sides[1] / aspect)
    box = tf.cast(tf.math.rint(proportion * tf.stack([height, height * aspect])), tf.int32)
    box = tf.clip_by_value(box, 1, tf.cast(shape[:2], tf.int32))
    # Of an odd remainder the larger half lies above and on the left, as upstream.
    offset = (tf.cast(shape[:2], tf.int32) - box + 1) // 2
    return tf.concat([offset, box], 0)


def crop(image: tf.Tensor, box: tf.Tensor) -> tf.Tensor:
    """The part of an image inside (offset_y, offset_x, box_height, box_width)."""
    return image[box[0] : box[0] + box[2], box[1] : box[1] + box[3]]


def evaluation_view(
    image: tf.Tensor, *, size: int, crop_proportion: float | None = None, bicubic: Bicubic = "tf1"
) -> tf.Tensor:
    """What evaluation and feature extraction see of an image: central square, resized, clipped to [0, 1].

    Without `crop_proportion` the square is 0.875 of the shorter side, or all of it where `size` is 32 or less.  So a
    32 px image stays as it is at size 32, like in the reference; where the reference fails (an image of
    another size at `size` ≤ 32) its whole central square is resized.

    Args:
        image: (h, w, channels).
        size: side of the result in pixels, ≥ 1.
        crop_proportion: share of the shorter side to keep, above 0 and up to 1.
        bicubic: TensorFlow 1's resizing, which the papers' numbers come from, or TensorFlow 2's.

    Returns:
        (size, size, channels).

    Raises:
        InputError: a number is out of its range.
    """
    proportion = evaluation_proportion(size, crop_proportion)
    square = crop(image, central_box(tf.shape(image), proportion=proportion))
    # At equal sizes both cubics are the identity; TensorFlow's kernel then returns its input exactly.
    return tf.clip_by_value(resize(square, (size, size), bicubic=bicubic), 0, 1)
