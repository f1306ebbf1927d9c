"""Prepared radiographs: the folder, its patients, splits and duplicates."""

from typing import Literal

Fit = Literal["stretch", "pad", "crop"]
"""How a radiograph becomes square: its sides scaled apart (as the COVID-19 study did), black bars, or its centre."""
MADE_UP = "these radiographs are made up: what is found in them says nothing about patients"
"""What is noted of all that was learned from such."""
UNCERTAIN, NOT_MENTIONED = -1, -2
"""Labels of a table that is neither sure that a finding is there nor that it is not, and of an empty cell."""
