"""Radiographs in PNG and JPEG files."""

import io
import warnings

import numpy as np
from PIL import Image, ImageOps

from tf_simclr.chest.files.headers import stated_size
from tf_simclr.chest.files.radiograph import MAX_PIXELS, Radiograph
from tf_simclr.errors import InputError, check

COLOURED = 32
"""Levels of 255 between the strongest and the weakest colour of a pixel above which it is not grey: the loss of a JPEG
and the tint of a scan stay below."""


SCAN = b"\xff\xda"
"""The marker before each scan of a JPEG; compressed data cannot hold it."""
MAX_SCANS = 64
"""Progressive JPEGs have some ten, and as many may be in a preview; each goes over all pixels."""


def read(content: bytes, name: str) -> Radiograph:
    """Reads a PNG or JPEG: grey levels over the full range of its bits, colour by its luminance, alpha left out.

    Some files of ChestX-ray14 are RGBA with three equal colours and an alpha of 255.

    Raises:
        InputError: the picture is damaged, too large, or holds several frames.
    """
    rows, columns = stated_size(content) or (0, 0)
    check(rows * columns <= MAX_PIXELS, f"{name} must have at most {MAX_PIXELS:,} pixels", size=(columns, rows))
    scans = content.count(SCAN) if content.startswith(b"\xff\xd8") else 0
    check(scans <= MAX_SCANS, f"{name} must have at most {MAX_SCANS} scans, as a JPEG has", scans=scans)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own warning of large pictures: the limit below is lower
            with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as picture:
                width, height = picture.size  # of a stream whose header was not understood above
                check(width * height <= MAX_PIXELS, f"{name} must have at most {MAX_PIXELS:,} pixels")
                check(getattr(picture, "n_frames", 1) == 1, f"{name} must hold one picture, not an animation")
                picture.load()
                return grey(ImageOps.exif_transpose(picture))
    except InputError:
        raise
    except Exception as error:  # Pillow's decoders raise what they like on damaged bytes
        raise InputError(f"{name} must be a whole picture ({type(error).__name__}: {error})") from error


def grey(picture: Image.Image) -> Radiograph:
    """The picture's grey levels in [0, 1]."""
    if picture.mode.startswith("I"):  # 16 bits, in whatever order of bytes; 32 in memory
        return Radiograph(pixels=np.asarray(picture.convert("I"), np.float32) / 65535, bits=16)
    colours = picture.convert("RGB") if picture.mode not in ("L", "RGB", "1") else picture
    pixels = np.asarray(colours.convert("L"), np.float32) / 255
    return Radiograph(pixels=pixels, bits=8, coloured=is_coloured(colours))


def is_coloured(picture: Image.Image) -> bool:
    """Whether more than a tenth of the pixels are in colour: a coloured arrow on a radiograph has less."""
    if picture.mode != "RGB":
        return False
    values = np.asarray(picture)
    differ = values.max(axis=-1) - values.min(axis=-1) > COLOURED
    return bool(differ.mean() > 0.1)
