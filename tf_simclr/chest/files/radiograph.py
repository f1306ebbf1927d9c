"""One radiograph: what a viewer would show, as numbers, and what its header says of it."""

import dataclasses

import numpy as np

MAX_BYTES = 256 * 2**20
"""Largest file that is opened; the largest radiographs have about 50 MB uncompressed."""
MAX_PIXELS = 64 * 10**6
"""Most pixels that are decoded; the largest detectors have about 25 million."""
MODALITIES = ("CR", "DX", "RG")
"""DICOM's modalities of radiographs: computed and digital radiography, and film."""
VIEWS = ("AP", "PA", "LL", "RL", "RLD", "LLD", "RLO", "LLO")
"""Values of DICOM's ViewPosition: from where the beam came, or on which side the patient lay."""
LATERAL = ("LL", "RL")
"""Views from the side."""
_BRIGHTER, _AS_BRIGHT = 0.05, 0.1
"""By how much the lungs of a picture whose grey levels are turned round are brighter than what lies between them, and
how much darker than the median its upper corners are at most.  Of the 693 frontal radiographs of ChestX-ray14 that were
looked at none has both, and of 100 of their negatives 87."""
_DARK, _LIGHT = 0.04, 0.96
"""Mean grey levels outside of which a picture is nearly black or white; whole radiographs of ChestX-ray14 have 0.2 to
0.8."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Radiograph:
    """A radiograph and what its file says of it; pictures other than DICOM say nothing."""

    pixels: np.ndarray
    """float32 `(h, w)` in [0, 1], brighter where a viewer is brighter: bones are bright."""
    bits: int
    """Bits that tell the source's grey levels apart, 8 to 16."""
    coloured: bool = False
    """Whether a good part of the picture is in colour, which no radiograph is."""
    view: str = ""
    """As the header has it, one of `VIEWS`, or empty."""
    orientation: tuple[str, ...] = ()
    """Where the rows and the columns of pixels run to in the patient, as `("L", "F")`: left and foot; or empty."""
    modality: str = ""
    body_part: str = ""
    sex: str = ""
    """`M`, `F`, `O`, or empty."""
    age: str = ""
    """A decade, as `60-69`, or empty: years would help to name a patient."""
    device: str = ""
    """Manufacturer and model; never a serial number or a station."""
    made_up: bool = False
    """Whether it was made by `synthetic` and is of nobody."""
    doubts: tuple[str, ...] = ()
    """Why it may be no frontal chest radiograph as a viewer wants it: phrases."""
    notes: tuple[str, ...] = ()
    """Where the file was not taken at its word: phrases."""
    patient: str = ""
    study: str = ""
    series: str = ""
    image: str = ""


def extreme(pixels: np.ndarray) -> str:
    """`nearly black`, `nearly white`, or empty."""
    mean = float(pixels.mean(dtype=np.float64))
    return "nearly black" if mean < _DARK else "nearly white" if mean > _LIGHT else ""


TURNED_ROUND = "its grey levels seem to be turned round: lungs and corners are brighter than the middle"


def turned_round(pixels: np.ndarray) -> bool:
    """Whether a frontal chest seems to be a negative: air bright, in both lungs and in both upper corners.

    Either alone is common: pneumonia makes a lung bright, and what a detector does not reach may be left white.

    Args:
        pixels: `(h, w)` in [0, 1].

    Example:
        >>> chest = np.full((20, 20), 0.7)
        >>> chest[4:14, 3:8] = chest[4:14, 12:17] = 0.2
        >>> turned_round(chest), turned_round(1 - chest)
        (False, True)
    """
    height, width = pixels.shape
    if min(height, width) < 20:
        return False

    def level(rows: tuple[float, float], columns: tuple[float, float]) -> float:
        box = (slice(int(start * side), int(end * side)) for (start, end), side in ((rows, height), (columns, width)))
        return float(np.median(pixels[tuple(box)]))

    between, whole = level((0.3, 0.75), (0.44, 0.56)), float(np.median(pixels))
    lungs = (level((0.2, 0.6), columns) for columns in ((0.18, 0.36), (0.64, 0.82)))
    corners = (level((0, 0.15), columns) for columns in ((0, 0.12), (0.88, 1)))
    return min(lungs) > between + _BRIGHTER and min(corners) > whole - _AS_BRIGHT
