"""A radiograph file to what is kept of it: a smaller PNG, its identities, and a hash of what it shows.

This runs in the workers of `worker`, so it imports no framework.
"""

import hashlib
import io
import json
from typing import Any

import numpy as np
from PIL import Image

from tf_simclr.chest.files.radiograph import Radiograph
from tf_simclr.chest.files.reading import read
from tf_simclr.data.radiographs import Fit
from tf_simclr.errors import check

HASH_SIDE = 16
"""The hash has this number of bits, squared."""


def shrunk(path: str, size: int, *, fit: Fit = "stretch", windowed: bool = True) -> bytes:
    """Reads a radiograph and returns a line of JSON and behind it a PNG of `size` × `size` pixels.

    The PNG has 16 bits where the source has more than 8.  Patients' names do not leave this function: what the JSON
    calls `patient` is a hash of the DICOM's PatientID, which groups images and tells nothing.

    Raises:
        InputError: the file cannot be read as a radiograph.
    """
    radiograph = read(path, windowed=windowed)
    square = resized(radiograph.pixels, size, fit=fit)
    about = {
        "patient": pseudonym(radiograph.patient),
        "study": radiograph.study,
        "image": radiograph.image,
        "bits": radiograph.bits,
        "height": radiograph.pixels.shape[0],
        "width": radiograph.pixels.shape[1],
        "hash": perceptual_hash(radiograph.pixels),
    }
    return json.dumps(about).encode() + b"\n" + png(square, bits=radiograph.bits)


def unpacked(answer: bytes) -> tuple[dict[str, Any], bytes]:
    """The JSON and the PNG of `shrunk`."""
    about, picture = answer.split(b"\n", 1)
    return json.loads(about), picture


def pseudonym(patient: str) -> str:
    """Sixteen hexadecimal digits that stand for a patient; empty for an empty name.

    Example:
        >>> len(pseudonym("someone")), pseudonym("")
        (16, '')
    """
    return hashlib.sha256(patient.encode()).hexdigest()[:16] if patient else ""


def resized(pixels: np.ndarray, size: int, *, fit: Fit = "stretch") -> np.ndarray:
    """The radiograph as a square of `size`, antialiased: float32 `(size, size)` in [0, 1]."""
    check(8 <= size <= 4096, "size must be between 8 and 4096", size=size)
    height, width = pixels.shape
    side = min(height, width)
    if fit == "crop":
        top, left = (height - side) // 2, (width - side) // 2
        pixels = pixels[top : top + side, left : left + side]
    scale = size / max(height, width)
    shape = (max(1, round(width * scale)), max(1, round(height * scale))) if fit == "pad" else (size, size)
    picture = Image.fromarray(pixels, "F").resize(shape, Image.Resampling.BICUBIC)
    inner = np.clip(np.asarray(picture), 0, 1)
    rows, columns = size - inner.shape[0], size - inner.shape[1]
    return np.pad(inner, ((rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)))


def png(pixels: np.ndarray, *, bits: int) -> bytes:
    """Grey levels in [0, 1] as a PNG of 8 bits, or of 16 for a source with more than 8."""
    largest, kind = (255, np.uint8) if bits <= 8 else (65535, np.uint16)
    file = io.BytesIO()
    Image.fromarray(np.rint(pixels * largest).astype(kind)).save(file, "PNG")
    return file.getvalue()


def perceptual_hash(pixels: np.ndarray) -> str:
    """256 bits that are alike for pictures that look alike, as hexadecimal digits.

    The signs of the lowest frequencies of the cosine transform of the picture at 64 × 64, about their median
    (Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010, Section 3.2.1).
    """
    small = np.asarray(Image.fromarray(pixels, "F").resize((64, 64), Image.Resampling.BOX), np.float64)
    frequency = np.arange(1, HASH_SIDE + 1)[:, None] * (2 * np.arange(64) + 1) * np.pi / 128
    waves = np.cos(frequency)
    spectrum = waves @ small @ waves.T
    return np.packbits(spectrum > np.median(spectrum)).tobytes().hex()


def side_by_side(radiograph: Radiograph, *, size: int, fit: Fit = "stretch") -> np.ndarray:
    """What a viewer shows and beside it what the network sees, of one height: uint8 `(h, w)`."""
    seen = resized(radiograph.pixels, size, fit=fit)
    height = max(size, 512)
    width = round(height * radiograph.pixels.shape[1] / radiograph.pixels.shape[0])
    left = Image.fromarray(radiograph.pixels, "F").resize((width, height), Image.Resampling.BICUBIC)
    right = Image.fromarray(seen, "F").resize((height, height), Image.Resampling.NEAREST)
    gap = np.ones((height, 8), np.float32)
    return np.rint(255 * np.clip(np.hstack([np.asarray(left), gap, np.asarray(right)]), 0, 1)).astype(np.uint8)
