"""A radiograph from one file, whatever its kind.

DICOM, PNG and JPEG are told apart by their content.  What cannot be shown faithfully is refused with the reason.
"""

import io
import stat
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from tf_simclr.chest.files import dicom
from tf_simclr.chest.files.headers import colours_of_16_bits, stated_size
from tf_simclr.chest.files.levels import of_words
from tf_simclr.chest.files.radiograph import (
    MAX_BYTES,
    MAX_PIXELS,
    TURNED_ROUND,
    Radiograph,
    extreme,
    turned_round,
)
from tf_simclr.data.radiographs import MODALITIES
from tf_simclr.errors import InputError, check

_COLOURED = 32
"""Levels of 255 between the strongest and the weakest colour of a pixel above which it is not grey: the loss of a JPEG
and the tint of a scan stay below."""
_LUMINANCE = np.array([0.299, 0.587, 0.114])
"""Of red, green and blue, as Pillow has it (ITU-R BT.601)."""
_SCAN = b"\xff\xda"
"""The marker before each scan of a JPEG; compressed data cannot hold it."""
_MAX_SCANS = 64
"""Progressive JPEGs have some ten, and as many may be in a preview; each goes over all pixels."""
_OTHERS = {
    "a NIfTI volume": (344, b"n+1\0"),
    "a NIfTI header": (344, b"ni1\0"),
    "an archive of ZIP": (0, b"PK\x03\x04"),
    "what gzip compressed, such as .nii.gz,": (0, b"\x1f\x8b"),
    "an archive of tar": (257, b"ustar"),
    "a TIFF": (0, b"II*\0"),
    "a TIFF of big endian": (0, b"MM\0*"),
    "a BMP": (0, b"BM"),
    "a GIF": (0, b"GIF8"),
    "a WebP": (8, b"WEBP"),
    "a bare JPEG 2000 picture": (4, b"jP  \r\n"),
    "a bare JPEG 2000 stream": (0, b"\xff\x4f\xff\x51"),
    "an NRRD volume": (0, b"NRRD"),
    "an HDF5 file": (0, b"\x89HDF"),
    "a NumPy array": (0, b"\x93NUMPY"),
    "a PDF": (0, b"%PDF"),
}
"""What people take for radiographs → where in it which bytes are."""
_PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
"""First bytes of PNG and JPEG."""


def read(source: str | Path | bytes, *, windowed: bool = True, modalities: tuple[str, ...] = MODALITIES) -> Radiograph:
    """Reads a radiograph from a file or its bytes.

    Args:
        source: DICOM, PNG (8 or 16 bits, grey, RGB or with alpha) or JPEG.
        windowed: apply a DICOM's own VOI LUT or window; otherwise the full range of its stored bits.
        modalities: DICOM modalities that count as radiographs: computed and digital radiography, and film; `any` takes
            all.  A file that names none counts by its SOP class.

    Raises:
        InputError: the file is missing, damaged, of another kind, too large, or not a single radiograph.
    """
    name = "the upload" if isinstance(source, bytes) else str(source)
    content = source if isinstance(source, bytes) else contents(Path(source))
    check(len(content) <= MAX_BYTES, f"{name} must have at most {MAX_BYTES >> 20} MB", megabytes=len(content) >> 20)
    # By the first bytes, never by the name.
    if content.startswith(_PICTURES):
        return picture(content, name)
    if dicom.begins(content):
        return dicom.read(content, name, windowed=windowed, modalities=modalities)
    rule = f"{name} must be a DICOM, PNG or JPEG file, which its first bytes say it is not"
    # A sentence for what people give by mistake helps more than a decoder's error.
    kind = next((kind for kind, (place, start) in _OTHERS.items() if content[place:].startswith(start)), "")
    raise InputError(f"{rule}: it begins as {kind} does" if kind else rule)


def is_radiograph_file(path: Path) -> bool:
    """Whether a file begins as one that `read` reads, whatever its name."""
    try:
        with path.open("rb") as file:
            # 256 bytes hold the preamble, the mark and the first elements.
            start = file.read(256)
    except OSError:
        return False
    return start.startswith(_PICTURES) or dicom.begins(start)


def contents(path: Path) -> bytes:
    """The bytes of a file that is not too large to be one radiograph.

    Only a regular file has an end: a device or a pipe would be read for ever.
    """
    try:
        check(stat.S_ISREG(path.stat().st_mode), f"{path} must be a file, not a folder, device or pipe")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)  # whatever its size is said to be
    except (OSError, ValueError) as error:  # a name with a NUL is a ValueError
        raise InputError(f"{path} must be a readable file ({getattr(error, 'strerror', None) or error})") from error
    check(len(content) <= MAX_BYTES, f"{path} must have at most {MAX_BYTES >> 20} MB")
    return content


def picture(content: bytes, name: str) -> Radiograph:
    """Reads a PNG or JPEG: grey levels over the full range of its bits, colour by its luminance, alpha left out.

    Some files of ChestX-ray14 are RGBA with three equal colours and an alpha of 255.

    Raises:
        InputError: the picture is damaged, too large, or holds several frames.
    """
    # The size that the stream states, before Pillow takes memory for it.
    rows, columns = stated_size(content) or (0, 0)
    check(rows * columns <= MAX_PIXELS, f"{name} must have at most {MAX_PIXELS:,} pixels", size=(columns, rows))
    scans = content.count(_SCAN) if content.startswith(b"\xff\xd8") else 0
    check(scans <= _MAX_SCANS, f"{name} must have at most {_MAX_SCANS} scans, as a JPEG has", scans=scans)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own warning of large pictures: the limit below is lower
            # Pillow keeps 8 bits of several colours of 16: each is read for itself.
            return grey([_upright(one, name) for one in colours_of_16_bits(content) or [content]])
    except InputError:
        raise
    except Exception as error:  # Pillow's decoders raise what they like on damaged bytes
        raise InputError(f"{name} must be a whole picture ({type(error).__name__}: {error})") from error


def _upright(content: bytes, name: str) -> Image.Image:
    """What Pillow makes of the bytes, turned as its EXIF orientation says."""
    with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as opened:
        width, height = opened.size  # of a stream whose header was not understood before
        check(width * height <= MAX_PIXELS, f"{name} must have at most {MAX_PIXELS:,} pixels")
        check(getattr(opened, "n_frames", 1) == 1, f"{name} must hold one picture, not an animation")
        opened.load()
        return ImageOps.exif_transpose(opened)


def grey(planes: Sequence[Image.Image]) -> Radiograph:
    """The picture's grey levels in [0, 1], over its bits, or those in use where that is less than a quarter of them.

    Args:
        planes: the picture; or its red, green and blue, each of 16 bits.
    """
    # PNGs of 16 bits open as I;16 or I, others are 8.
    first = planes[0]
    wide = first.mode.startswith("I")  # 16 bits, in whatever order of bytes; 32 in memory
    bits = 16 if wide else 8
    colours = first if wide or first.mode in ("L", "RGB", "1") else first.convert("RGB")
    apart: np.ndarray | None = None
    if len(planes) > 1:
        apart = np.stack([np.asarray(plane.convert("I"), np.int32) for plane in planes], axis=-1)  # (h, w, 3)
        values = np.rint(apart @ _LUMINANCE).astype(np.int32)
    else:
        apart = np.asarray(colours) if colours.mode == "RGB" else None  # (h, w, 3)
        values = np.asarray(colours.convert("I" if wide else "L"), np.int32)
    pixels, notes = of_words(values, bits=bits)
    doubts = tuple(filter(None, [extreme(pixels), TURNED_ROUND if turned_round(pixels) else ""]))
    coloured = apart is not None and _is_coloured(apart, strong=_COLOURED << (bits - 8))
    return Radiograph(pixels=pixels, bits=bits, coloured=coloured, notes=notes, doubts=doubts)


def _is_coloured(values: np.ndarray, *, strong: int) -> bool:
    """Whether more than a tenth of the pixels `(h, w, 3)` are in colour: a coloured arrow on a radiograph has less."""
    # The spread of the three channels, which is 0 in a grey picture: (h, w, 3) → (h, w).
    differ = values.max(axis=-1) - values.min(axis=-1) > strong
    return bool(differ.mean() > 0.1)
