"""A radiograph file to what is kept of it, a small square, and to what a viewer shows; both in a process that may die.

This runs in the workers of `worker`, so it imports no framework.
"""

import hashlib
import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from tf_simclr.chest.files.radiograph import Radiograph
from tf_simclr.chest.files.reading import read
from tf_simclr.chest.files.worker import once
from tf_simclr.data.radiographs import MODALITIES, Fit
from tf_simclr.errors import check

_HASH_SIDE = 16
"""The hash has this number of bits, squared."""
SIDE = 1024
"""Longest side of what is shown, in pixels."""
_TWICE = 32 * 10**6
"""Most pixels of a picture that is decoded a second time, without its window; the largest detectors have 25 million."""
SHRUNK = "tf_simclr.chest.files.squares:shrunk"
PICTURED = "tf_simclr.chest.files.squares:pictured"
"""What a worker is asked for."""
_OF_NOBODY = "made up, of no patient"
"""Doubt of a picture that `synthetic` wrote."""
_KEPT = ("view", "modality", "body_part", "sex", "age", "device", "made_up", "doubts", "notes")
"""What is kept of a `Radiograph` as it is."""


def shrunk(
    path: str,
    size: int,
    *,
    fit: Fit = "stretch",
    windowed: bool = True,
    modalities: tuple[str, ...] = MODALITIES,
    salt: str = "",
) -> bytes:
    """Reads a radiograph and returns a line of JSON and behind it a PNG of `size` × `size` pixels.

    The PNG has 16 bits where the source has more than 8.  Names and numbers of patients and studies do not leave this
    function: what the JSON calls `patient` and `study` are pseudonyms, which group images and tell nothing.

    Raises:
        InputError: the file cannot be read as a radiograph.
    """
    radiograph = read(path, windowed=windowed, modalities=tuple(modalities))
    square = resized(radiograph.pixels, size, fit=fit)
    # What may be known outside of the process: no name, no number of a patient, only what stands for it.
    about = {name: getattr(radiograph, name) for name in _KEPT} | {
        "patient": pseudonym(radiograph.patient, salt=salt),
        "study": pseudonym(radiograph.study, salt=salt),
        "bits": radiograph.bits,
        "height": radiograph.pixels.shape[0],
        "width": radiograph.pixels.shape[1],
        "hash": perceptual_hash(radiograph.pixels),
        "brightness": round(float(square.mean()), 4),
        "contrast": round(float(square.std()), 4),
    }
    return json.dumps(about).encode() + b"\n" + png(square, bits=radiograph.bits)


def unpacked(answer: bytes) -> tuple[dict[str, Any], bytes]:
    """The JSON and the PNG of `shrunk`."""
    about, picture = answer.split(b"\n", 1)
    return json.loads(about), picture


def pseudonym(name: str, *, salt: str) -> str:
    """Sixteen hexadecimal digits that stand for a patient, a study or a file; empty for an empty name.

    The names of a hospital's patients can be tried one after the other.  Whoever does not have the salt cannot.

    Example:
        >>> len(pseudonym("someone", salt="a")), pseudonym("", salt="a")
        (16, '')
    """
    return hashlib.sha256(f"{salt}\0{name}".encode()).hexdigest()[:16] if name else ""


def resized(pixels: np.ndarray, size: int, *, fit: Fit = "stretch") -> np.ndarray:
    """The radiograph as a square of `size`, antialiased: float32 `(size, size)` in [0, 1]."""
    check(8 <= size <= 4096, "size must be between 8 and 4096", size=size)
    # `crop` cuts the longer side about the centre; `pad` scales
    # by the longer side; `stretch` scales each side for itself.
    height, width = pixels.shape
    side = min(height, width)
    if fit == "crop":
        top, left = (height - side) // 2, (width - side) // 2
        pixels = pixels[top : top + side, left : left + side]
    scale = size / max(height, width)
    shape = (max(1, round(width * scale)), max(1, round(height * scale))) if fit == "pad" else (size, size)
    picture = Image.fromarray(pixels, "F").resize(shape, Image.Resampling.BICUBIC)
    inner = np.clip(np.asarray(picture), 0, 1)
    # The rest is black, as much before as behind; of an odd rest the one pixel more lies behind.
    rows, columns = size - inner.shape[0], size - inner.shape[1]
    return np.pad(inner, ((rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)))


def png(pixels: np.ndarray, *, bits: int) -> bytes:
    """Grey levels in [0, 1] as a PNG of 8 bits, or of 16 for a source with more than 8."""
    largest, kind = (255, np.uint8) if bits <= 8 else (65535, np.uint16)
    return encoded(np.rint(pixels * largest).astype(kind))


def encoded(values: np.ndarray, **options: Any) -> bytes:
    """A picture as a PNG of its own type: uint8 or uint16 `(h, w)`, or uint8 `(h, w, colours)`."""
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG", **options)
    return file.getvalue()


def perceptual_hash(pixels: np.ndarray) -> str:
    """256 bits that are alike for pictures that look alike, as hexadecimal digits.

    The signs of the lowest frequencies of the cosine transform of the picture at 64 × 64, about their median
    (Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010, Section 3.2.1).
    """
    # 1. 64 × 64 means, so that size and noise do not count.
    small = np.asarray(Image.fromarray(pixels, "F").resize((64, 64), Image.Resampling.BOX), np.float64)
    # 2. Its 16 × 16 lowest frequencies by the cosine transform,
    #    without the constant one: (16, 64) · (64, 64) · (64, 16).
    frequency = np.arange(1, _HASH_SIDE + 1)[:, None] * (2 * np.arange(64) + 1) * np.pi / 128
    waves = np.cos(frequency)
    spectrum = waves @ small @ waves.T
    # 3. Whether each is above the median: brightness and contrast change none of the 256 bits.
    return np.packbits(spectrum > np.median(spectrum)).tobytes().hex()


def side_by_side(radiograph: Radiograph, *, size: int, fit: Fit = "stretch") -> np.ndarray:
    """What a viewer shows and beside it what the network sees, of one height: uint8 `(h, w)`."""
    seen = resized(radiograph.pixels, size, fit=fit)
    height = max(size, 512)
    width = round(height * radiograph.pixels.shape[1] / radiograph.pixels.shape[0])
    left = Image.fromarray(radiograph.pixels, "F").resize((width, height), Image.Resampling.BICUBIC)
    # Nearest: the network's own pixels are to be seen.
    right = Image.fromarray(seen, "F").resize((height, height), Image.Resampling.NEAREST)
    gap = np.ones((height, 8), np.float32)
    return np.rint(255 * np.clip(np.hstack([np.asarray(left), gap, np.asarray(right)]), 0, 1)).astype(np.uint8)


@dataclass(frozen=True)
class Picture:
    """One radiograph that was read."""

    shown: np.ndarray
    """What a viewer shows: uint8 `(h, w)` of the radiograph's own proportions."""
    kept: bytes
    """PNG of the square that `chest prepare` would have kept."""
    height: int
    """Of the file, in pixels."""
    width: int
    bits: int
    """That tell its grey levels apart."""
    coloured: bool
    """Whether a good part of it is in colour, which no radiograph is."""
    view: str
    """See `Radiograph`."""
    orientation: tuple[str, ...]
    """See `Radiograph`."""
    doubts: tuple[str, ...] = ()
    """See `Radiograph`."""
    full: bytes = b""
    """PNG of every pixel, where asked for: grey of 8 bits, or 16 bits as the red (high) and green byte of a colour."""
    window: tuple[float, float] = (0.0, 1.0)
    """Levels of `full`, in [0, 1], that a viewer shows black and white at first."""


def open_picture(path: str, *, size: int, fit: Fit, windowed: bool) -> Picture:
    """Reads a DICOM, PNG or JPEG in a process of its own, bounded in time and memory; nothing of it names a patient.

    Args:
        path: the file.
        size: side of the square that is kept.
        fit: how the radiograph becomes square.
        windowed: apply a DICOM's own window.

    Raises:
        InputError: the file cannot be read as a radiograph.
    """
    request = {"source": path, "size": size, "fit": fit, "windowed": windowed}
    return picture_of(once(PICTURED, request))


def picture_of(answer: bytes) -> Picture:
    """What a worker answered to `pictured`."""
    head, pictures = answer.split(b"\n", 1)
    about = json.loads(head)
    # Three PNGs, one behind the other; the third goes to the end.
    first, second = np.cumsum(about.pop("lengths"))
    with Image.open(io.BytesIO(pictures[:first]), formats=("PNG",)) as picture:
        shown = np.asarray(picture)
    about |= {name: tuple(about[name]) for name in ("orientation", "window", "doubts")}
    return Picture(shown=shown, kept=pictures[first:second], full=pictures[second:], **about)


def pictured(source: str | bytes, size: int, *, fit: Fit, windowed: bool, full: bool = False) -> bytes:
    """A worker's answer: a line of JSON, the PNG of what is shown, the PNG of what is kept, and of every pixel."""
    radiograph = read(source, windowed=windowed)
    height, width = radiograph.pixels.shape
    check(min(height, width) >= 32, "a radiograph must have at least 32 pixels a side", height=height, width=width)
    # Never enlarged.
    scale = min(1.0, SIDE / max(height, width))
    shape = (max(1, round(width * scale)), max(1, round(height * scale)))
    smaller = np.asarray(Image.fromarray(radiograph.pixels, "F").resize(shape, Image.Resampling.BICUBIC))
    shown = png(np.clip(smaller, 0, 1), bits=8)
    kept = png(resized(radiograph.pixels, size, fit=fit), bits=radiograph.bits)
    whole, window = wide(source, radiograph) if full else (b"", (0.0, 1.0))
    about = {
        "bits": radiograph.bits,
        "coloured": radiograph.coloured,
        "view": radiograph.view,
        "orientation": radiograph.orientation,
        "height": height,
        "width": width,
        "doubts": (*radiograph.doubts, *((_OF_NOBODY,) if radiograph.made_up else ())),
        "window": window,
        "lengths": (len(shown), len(kept)),
    }
    return json.dumps(about).encode() + b"\n" + shown + kept + whole


def wide(source: str | bytes, radiograph: Radiograph) -> tuple[bytes, tuple[float, float]]:
    """Every pixel for a viewer that sets its own window, and the file's window in it.

    A file's window hides what lies outside; where it is linear all of its grey levels are given instead, with the two
    levels that the window shows black and white.  Where it is a curve, or the picture is very large, what it shows.
    """
    pixels, window = radiograph.pixels, (0.0, 1.0)
    # Without its window it holds more levels, from which a viewer can go back; decoding again costs as much as before.
    if pixels.size <= _TWICE:
        levels = read(source, windowed=False).pixels
        if found := _linear_window(levels, pixels):
            pixels, window = levels, found
    return _every_pixel(pixels, bits=radiograph.bits), window


def _linear_window(levels: np.ndarray, shown: np.ndarray) -> tuple[float, float] | None:
    """The levels that became 0 and 1 in what is shown, where that is a window with straight flanks, rising.

    Example:
        >>> levels = np.linspace(0, 1, 101)
        >>> [round(level, 6) for level in _linear_window(levels, np.clip((levels - 0.2) / 0.6, 0, 1))]
        [0.2, 0.8]
    """
    # A hundred thousand pixels tell a line.
    step = max(1, levels.size // 100_000)
    x, y = levels.ravel()[::step].astype(np.float64), shown.ravel()[::step].astype(np.float64)
    # Only between black and white is the window's line seen; what was cut off lies on no line.
    between = (y > 0) & (y < 1)
    if between.sum() < 2 or np.ptp(x[between]) == 0:
        return None
    slope, intercept = np.polyfit(x[between], y[between], 1)
    # Over half a level of 256 from the line anywhere: a curve, such as a sigmoid or a table.
    straight = slope > 0 and np.abs(np.clip(slope * x + intercept, 0, 1) - y).max() < 1 / 512
    return (float(-intercept / slope), float((1 - intercept) / slope)) if straight else None


def _every_pixel(pixels: np.ndarray, *, bits: int) -> bytes:
    """Grey levels in [0, 1] as a PNG that browsers read exactly: of 16 bits they keep 8, but of each colour."""
    if bits <= 8:
        levels = np.rint(pixels * 255).astype(np.uint8)
    else:
        words = np.rint(pixels * 65535).astype(np.uint16)
        levels = np.zeros((*pixels.shape, 3), np.uint8)
        # The high byte in red, the low one in green.
        levels[..., 0], levels[..., 1] = words >> 8, words & 255
    return encoded(levels, compress_level=1)
