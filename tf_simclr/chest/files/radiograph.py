"""One radiograph: what a viewer would show, as numbers."""

import dataclasses

import numpy as np

MAX_BYTES = 256 * 2**20
"""Largest file that is opened; the largest radiographs have about 50 MB uncompressed."""
MAX_PIXELS = 64 * 10**6
"""Most pixels that are decoded; the largest detectors have about 25 million."""


VIEWS = ("AP", "PA", "LL", "RL", "RLD", "LLD", "RLO", "LLO")
"""Values of DICOM's ViewPosition: from where the beam came, or on which side the patient lay."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Radiograph:
    """A radiograph and the identities that its file names; pictures other than DICOM name none."""

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
    patient: str = ""
    study: str = ""
    series: str = ""
    image: str = ""
