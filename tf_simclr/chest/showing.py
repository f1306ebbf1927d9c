"""A radiograph file as a viewer shows it, and as it was kept for training: both decoded in a process that may die.

This runs in the workers of `bounded`, so it imports no framework.
"""

import io
import json
from dataclasses import dataclass

import numpy as np
from PIL import Image

from tf_simclr.chest.bounded import SECONDS, once
from tf_simclr.chest.reading import read
from tf_simclr.chest.shrinking import Fit, png, resized
from tf_simclr.errors import check

SIDE = 1024
"""Longest side of what is shown, in pixels."""
PICTURED = "tf_simclr.chest.showing:pictured"
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
    length = about.pop("length")
    with Image.open(io.BytesIO(pictures[:length]), formats=("PNG",)) as picture:
        shown = np.asarray(picture)
    return Picture(shown=shown, kept=pictures[length:], **about)


def pictured(source: str | bytes, size: int, *, fit: Fit, windowed: bool) -> bytes:
    """A worker's answer: a line of JSON, the PNG of what is shown, the PNG of what is kept."""
    radiograph = read(source, windowed=windowed)
    height, width = radiograph.pixels.shape
    check(min(height, width) >= 32, "a radiograph must have at least 32 pixels a side", height=height, width=width)
    scale = min(1.0, SIDE / max(height, width))
    shape = (max(1, round(width * scale)), max(1, round(height * scale)))
    smaller = np.asarray(Image.fromarray(radiograph.pixels, "F").resize(shape, Image.Resampling.BICUBIC))
    shown = png(np.clip(smaller, 0, 1), bits=8)
    kept = png(resized(radiograph.pixels, size, fit=fit), bits=radiograph.bits)
    about = {"height": height, "width": width, "bits": radiograph.bits, "coloured": radiograph.coloured}
    about["length"] = len(shown)
    return json.dumps(about).encode() + b"\n" + shown + kept
