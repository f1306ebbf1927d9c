"""A radiograph file as a viewer shows it, and as it was kept for training: both decoded in a process that may die.

This runs in the workers of `bounded`, so it imports no framework.
"""

import io
import json
from dataclasses import dataclass

import numpy as np
from PIL import Image

from tf_simclr.chest.files.radiograph import Radiograph
from tf_simclr.chest.files.reading import read
from tf_simclr.chest.files.squares import png, resized
from tf_simclr.chest.files.worker import SECONDS, once
from tf_simclr.data.radiographs import Fit
from tf_simclr.errors import check

SIDE = 1024
"""Longest side of what is shown, in pixels."""
TWICE = 32 * 10**6
"""Most pixels of a picture that is decoded a second time, without its window; the largest detectors have 25 million."""
PICTURED = "tf_simclr.chest.files.showing:pictured"
"""What a worker of `bounded` is asked for."""


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
    full: bytes = b""
    """PNG of every pixel, where asked for: grey of 8 bits, or 16 bits as the red (high) and green byte of a colour."""
    window: tuple[float, float] = (0.0, 1.0)
    """Levels of `full`, in [0, 1], that a viewer shows black and white at first."""


def open_picture(path: str, *, size: int, fit: Fit, windowed: bool, seconds: float = SECONDS) -> Picture:
    """Reads a DICOM, PNG or JPEG in a process of its own, bounded in time and memory; nothing of it names a patient.

    Args:
        path: the file.
        size: side of the square that is kept.
        fit: how the radiograph becomes square.
        windowed: apply a DICOM's own window.
        seconds: longest time.

    Raises:
        InputError: the file cannot be read as a radiograph.
    """
    request = {"source": path, "size": size, "fit": fit, "windowed": windowed}
    return unpacked(once(PICTURED, request, seconds=seconds))


def unpacked(answer: bytes) -> Picture:
    """What a worker answered."""
    head, pictures = answer.split(b"\n", 1)
    about = json.loads(head)
    first, second = np.cumsum(about.pop("lengths"))
    with Image.open(io.BytesIO(pictures[:first]), formats=("PNG",)) as picture:
        shown = np.asarray(picture)
    about |= {name: tuple(about[name]) for name in ("orientation", "window")}
    return Picture(shown=shown, kept=pictures[first:second], full=pictures[second:], **about)


def pictured(source: str | bytes, size: int, *, fit: Fit, windowed: bool, full: bool = False) -> bytes:
    """A worker's answer: a line of JSON, the PNG of what is shown, the PNG of what is kept, and of every pixel."""
    radiograph = read(source, windowed=windowed)
    height, width = radiograph.pixels.shape
    check(min(height, width) >= 32, "a radiograph must have at least 32 pixels a side", height=height, width=width)
    scale = min(1.0, SIDE / max(height, width))
    shape = (max(1, round(width * scale)), max(1, round(height * scale)))
    smaller = np.asarray(Image.fromarray(radiograph.pixels, "F").resize(shape, Image.Resampling.BICUBIC))
    shown = png(np.clip(smaller, 0, 1), bits=8)
    kept = png(resized(radiograph.pixels, size, fit=fit), bits=radiograph.bits)
    whole, window = wide(source, radiograph) if full else (b"", (0.0, 1.0))
    about = {
        "height": height,
        "width": width,
        "bits": radiograph.bits,
        "coloured": radiograph.coloured,
        "view": radiograph.view,
        "orientation": radiograph.orientation,
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
    if pixels.size <= TWICE:
        levels = read(source, windowed=False).pixels
        if found := linear_window(levels, pixels):
            pixels, window = levels, found
    return every_pixel(pixels, bits=radiograph.bits), window


def linear_window(levels: np.ndarray, shown: np.ndarray) -> tuple[float, float] | None:
    """The levels that became 0 and 1 in what is shown, where that is a window with straight flanks, rising.

    Example:
        >>> levels = np.linspace(0, 1, 101)
        >>> [round(level, 6) for level in linear_window(levels, np.clip((levels - 0.2) / 0.6, 0, 1))]
        [0.2, 0.8]
    """
    step = max(1, levels.size // 100_000)
    x, y = levels.ravel()[::step].astype(np.float64), shown.ravel()[::step].astype(np.float64)
    between = (y > 0) & (y < 1)
    if between.sum() < 2 or np.ptp(x[between]) == 0:
        return None
    slope, intercept = np.polyfit(x[between], y[between], 1)
    straight = slope > 0 and np.abs(np.clip(slope * x + intercept, 0, 1) - y).max() < 1 / 512
    return (float(-intercept / slope), float((1 - intercept) / slope)) if straight else None


def every_pixel(pixels: np.ndarray, *, bits: int) -> bytes:
    """Grey levels in [0, 1] as a PNG that browsers read exactly: of 16 bits they keep 8, but of each colour."""
    file = io.BytesIO()
    if bits <= 8:
        levels = np.rint(pixels * 255).astype(np.uint8)
    else:
        words = np.rint(pixels * 65535).astype(np.uint16)
        levels = np.zeros((*pixels.shape, 3), np.uint8)
        levels[..., 0], levels[..., 1] = words >> 8, words & 255
    Image.fromarray(levels).save(file, "PNG", compress_level=1)
    return file.getvalue()
