"""Images by Pillow: formats that TensorFlow does not decode, or decodes to something else than the picture.

TensorFlow takes palette BMPs for their indices, fills a GIF's transparent pixels, and fails on WebP with transparency
or several frames, on BMPs of other depths, and on TIFF, JPEG 2000, AVIF, PPM and the rest.  All of these are decoded
here, to what Pillow's `convert("RGB")` gives; of several frames or pages the first.
"""

import contextlib
import functools
import io
import warnings
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageOps

from tf_simclr.foreign import DAMAGED

FORMATS = (
    *("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "QOI", "SGI", "TGA", "TIFF"),
    "WEBP",
)
"""What is tried; no vector graphics, nothing that starts another program (EPS), no containers of science."""
ENDINGS = frozenset({
    *(".apng", ".avif", ".avifs", ".bmp", ".bw", ".dib", ".gif", ".ico", ".j2c", ".j2k", ".jfif", ".jp2", ".jpc"),
    *(".jpe", ".jpeg", ".jpf", ".jpg", ".jpx", ".pbm", ".pcx", ".pgm", ".png", ".pnm", ".ppm", ".qoi", ".rgb"),
    *(".rgba", ".sgi", ".tga", ".tif", ".tiff", ".webp"),
})  # fmt: skip
"""Endings of files that count as images, in lower case; what is in them, their content tells."""
ORIENTATION = 0x0112
"""EXIF's tag (and TIFF's)."""
_MOST_PIXELS = 2 * 89_478_485
"""Of a picture, which is Pillow's own limit; a file of a few bytes can claim more than memory holds."""


@functools.cache
def _known_formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this Pillow has: AVIF came with 11.3."""
    # Pillow loads its formats when first asked.
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


_UNREADABLE: tuple[type[BaseException], ...] = (*DAMAGED, Image.DecompressionBombError)
"""What Pillow raises for a damaged picture, or one that would fill the memory."""


class _NoPicture(ValueError):
    """Bytes of which no picture can be made."""


@contextlib.contextmanager
def _opened(encoded: bytes) -> Iterator[Image.Image]:
    """The picture in the bytes of any of `FORMATS`; its pixels are read when they are asked for.

    Pillow's warnings about odd files are no user's business: what cannot be read is an error.

    Raises:
        _NoPicture: there is none, or it is damaged, as far as it is read in the block.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(encoded), formats=_known_formats()) as image:
                yield image
    except _NoPicture:
        raise
    except _UNREADABLE as error:
        raise _NoPicture(f"no picture can be read ({error})") from error


def rgb(encoded: bytes) -> np.ndarray:
    """The picture in the bytes of any of `FORMATS`, (h, w, 3): uint8, or uint16 where a grey one has 16 bits.

    Transparency is dropped, CMYK is converted.

    Raises:
        _NoPicture: there is none, it is damaged or too large, or its numbers have no range (floating point).
    """
    with _opened(encoded) as image:
        if image.width * image.height > _MOST_PIXELS:
            raise _NoPicture(f"a picture must have at most {_MOST_PIXELS:,} pixels, not {image.size}")
        # Of an animation or several pages the first.
        image.seek(0)
        image.load()
        return deep(image) if image.mode[0] in "IF" else np.array(image.convert("RGB"))


def rgba(encoded: bytes) -> np.ndarray:
    """The picture in the bytes of any of `FORMATS` with its opacity last, (h, w, 4), of the type that `rgb` gives.

    A picture that has none, and one of 16 bits, which Pillow reads without it, is opaque.

    Raises:
        _NoPicture: as `rgb`.
    """
    with _opened(encoded) as image:
        if image.width * image.height <= _MOST_PIXELS and _has_opacity(image):
            image.seek(0)
            return np.array(image.convert("RGBA"))
    return opaque(rgb(encoded))


def _has_opacity(image: Image.Image) -> bool:
    """Whether a picture says how opaque its pixels are."""
    return "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info


def opaque(pixels: np.ndarray) -> np.ndarray:
    """Integers `(…, 3)` over their full range, with an opacity that is as large as can be, `(…, 4)`."""
    full = np.full((*pixels.shape[:-1], 1), np.iinfo(pixels.dtype).max, pixels.dtype)
    return np.concatenate([pixels, full], axis=-1)


def is_picture(encoded: bytes) -> bool:
    """Whether bytes begin as a picture of any of `FORMATS` does; whether all of it is one, decoding tells."""
    try:
        with _opened(encoded):
            return True
    except _NoPicture:
        return False


_USUAL = {"JPEG": ".jpg", "JPEG2000": ".jp2", "TIFF": ".tif", "PPM": ".ppm", "DIB": ".bmp", "SGI": ".sgi"}
"""Format → the ending of its files, where that is not its name."""


def ending_of(encoded: bytes) -> str:
    """The ending that a file with these bytes has; `.jpg` where they are no picture.

    Example:
        >>> ending_of(b"P6 1 1 255 abc"), ending_of(b"")
        ('.ppm', '.jpg')
    """
    try:
        with _opened(encoded) as image:
            return _USUAL.get(str(image.format), f".{image.format}".lower())
    except _NoPicture:
        return _USUAL["JPEG"]


def deep(image: Image.Image) -> np.ndarray:
    """A grey picture of 16 bits, (h, w, 3) uint16; Pillow's own conversion would cut its values off at 255."""
    # Pillow's mode I has 32 bits, I;16 has 16; what does not fit into 16 is no picture here.
    values = np.asarray(image)
    fits = values.dtype.kind in "iu" and values.size > 0 and values.min() >= 0 and values.max() < 2**16
    if not fits:
        raise _NoPicture(f"a picture's numbers must be bytes, or of 16 bits from 0 on, not {image.mode}")
    return np.repeat(values.astype(np.uint16)[..., None], 3, axis=2)


def upright(encoded: bytes) -> bytes:
    """The picture turned as its EXIF orientation says: a BMP (with 16 bits or opacity a PNG) of the same pixels.

    Bytes that have none, or one that asks for no turn, come back as they are; so do those that cannot be read, for
    which their decoder will say so.
    """
    try:
        with _opened(encoded) as image:
            if image.format == "TIFF" or image.getexif().get(ORIENTATION, 1) not in range(2, 9):
                return encoded  # Pillow turns TIFFs itself: there the tag is a part of the format
            if image.width * image.height > _MOST_PIXELS:
                return encoded
            turned = ImageOps.exif_transpose(image)
            into = io.BytesIO()
            # PNG for what BMP cannot hold: 16 bits.
            if turned.mode.startswith("I;16"):
                turned.save(into, "PNG", compress_level=1)
            elif _has_opacity(turned):
                turned.convert("RGBA").save(into, "PNG", compress_level=1)
            else:
                turned.convert("RGB").save(into, "BMP")
            return into.getvalue()
    except _NoPicture:
        return encoded
