"""One radiograph: what a viewer would show, as numbers, and what its header says of it."""

import dataclasses

import numpy as np

MAX_BYTES = 256 * 2**20
"""Largest file that is opened; the largest radiographs have about 50 MB uncompressed."""
MAX_PIXELS = 64 * 10**6
"""Most pixels that are decoded; the largest detectors have about 25 million."""
VIEWS = ("AP", "PA", "LL", "RL", "RLD", "LLD", "RLO", "LLO")
"""Values of DICOM's ViewPosition: from where the beam came, or on which side the patient lay."""
LATERAL = ("LL", "RL")
"""Views from the side."""
_CHEST = np.array(
    [
        [0, 13, 46, 46, 13, 0],
        [50, 42, 42, 42, 42, 50],
        [54, 37, 48, 48, 37, 54],
        [44, 47, 69, 69, 47, 44],
        [36, 70, 89, 89, 70, 36],
        [32, 85, 100, 100, 85, 32],
    ]
)
"""Where a frontal chest is dark and bright, from 0 to 100: the mean of radiographs of ChestX-ray14, of half of the
patients that were looked at, and of their mirror images."""
_OPPOSITE = -0.25
"""Correlation with it below which a picture seems a negative.  Of the 693 radiographs none is below -0.02, nor any of
the other half below -0.25 with a white border of a tenth, black bars, another exposure, or its middle alone; of the
negatives of that half 99 in 100 are."""
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


def extreme(pixels: np.ndarray) -> str:
    """`nearly black`, `nearly white`, or empty."""
    mean = float(pixels.mean(dtype=np.float64))
    return "nearly black" if mean < _DARK else "nearly white" if mean > _LIGHT else ""


TURNED_ROUND = "its grey levels seem to be turned round: it is bright where a frontal chest is dark"


def turned_round(pixels: np.ndarray) -> bool:
    """Whether a frontal chest seems to be a negative, by where it is bright; what lies upside down may seem so, too.

    Args:
        pixels: `(h, w)` in [0, 1].

    Example:
        >>> chest = np.full((24, 24), 0.7)
        >>> chest[:4, :4] = chest[:4, -4:] = chest[4:14, 4:9] = chest[4:14, 15:20] = 0.2
        >>> turned_round(chest), turned_round(1 - chest)
        (False, True)
    """
    if min(pixels.shape) < 20 or np.ptp(pixels) == 0:
        return False
    # Means of equal parts: (h, w) → (6, 6).
    parts = pixels
    for axis, count in enumerate(_CHEST.shape):
        edges = np.linspace(0, pixels.shape[axis], count + 1).astype(int)
        sums = np.add.reduceat(parts, edges[:-1], axis=axis, dtype=np.float64)
        parts = sums / np.expand_dims(np.diff(edges), 1 - axis)
    return bool(np.ptp(parts) > 0 and np.corrcoef(parts.ravel(), _CHEST.ravel())[0, 1] < _OPPOSITE)
