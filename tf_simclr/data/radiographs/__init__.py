"""Prepared radiographs: the folder, its patients, splits and duplicates."""

from typing import Literal

Fit = Literal["stretch", "pad", "crop"]
"""How a radiograph becomes square: its sides scaled apart (as the COVID-19 study did), black bars, or its centre."""
