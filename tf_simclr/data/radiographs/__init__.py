"""Prepared radiographs: the folder, its patients, splits and duplicates."""

from collections.abc import Iterable
from typing import Literal

Fit = Literal["stretch", "pad", "crop"]
"""How a radiograph becomes square: its sides scaled apart (as the COVID-19 study did), black bars, or its centre."""
MODALITIES = ("CR", "DX", "RG")
"""DICOM's modalities of radiographs: computed and digital radiography, and film."""
MADE_UP = "these radiographs are made up: what is found in them says nothing about patients"
"""What is noted of all that was learned from such."""
UNCERTAIN, NOT_MENTIONED = -1, -2
"""Labels of a table that is neither sure that a finding is there nor that it is not, and of an empty cell."""


def told_made_up(notes: Iterable[str]) -> bool:
    """Whether notes of a source or a result say that its radiographs are made up.

    Example:
        >>> told_made_up([f"prepared: {MADE_UP}"]), told_made_up(["12 files are no images"])
        (True, False)
    """
    return any(note.endswith(MADE_UP) for note in notes)
