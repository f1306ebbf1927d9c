"""The card of a deployed model: plain JSON, checked entry by entry before anything else of the folder is believed."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from tf_simclr.errors import check
from tf_simclr.foreign import parse_json, reading

FORMAT = 1
MAX_CARD = 2**20
"""Largest card in bytes."""
MADE_UP = "It has learned from made-up radiographs: its answers mean nothing for real ones."

_RULES: dict[str, Any] = {
    "positive": lambda x: isinstance(x, str) and 0 < len(x) <= 200,
    "classes": lambda x: isinstance(x, list) and 0 < len(x) <= 1000 and all(isinstance(y, str) for y in x),
    "image_size": lambda x: type(x) is int and 8 <= x <= 4096,
    "kept_size": lambda x: type(x) is int and 8 <= x <= 4096,
    "side": lambda x: type(x) is int and 8 <= x <= 4096,
    "fit": lambda x: x in ("stretch", "pad", "crop"),
    "windowed": lambda x: isinstance(x, bool),
    "crop_proportion": lambda x: is_number(x) and 0 < x <= 1,
    "heads": lambda x: type(x) is int and 1 <= x <= 100,
    "calibration": lambda x: x["kind"] in ("Platt", "none") and is_number(x["slope"]) and is_number(x["intercept"]),
    "measured": lambda x: all(is_number(v) for v in (x["images"], x["positives"], x["brier"], *x["auc"].values())),
    "learned_from": lambda x: all(is_number(x[name]) for name in ("images", "patients", "positives")),
    "card": lambda x: isinstance(x, dict),
    "digests": lambda x: isinstance(x, dict),
}
"""What each entry of a card must be."""


def is_number(value: Any) -> bool:
    """Whether it is a finite number."""
    return type(value) in (int, float) and bool(np.isfinite(value))


def read_card(folder: Path) -> dict[str, Any]:
    """The card of a folder.

    Raises:
        InputError: there is none, or it is not what `save` writes.
    """
    path = folder / "card.json"
    advice = "`chest covid` and `chest ards` write one"
    check(path.is_file(), f"{folder} must hold a model for radiographs, but there is no {path.name} in it; {advice}")
    with reading(folder, "a folder that holds a model for radiographs", advice=advice):
        check(path.stat().st_size <= MAX_CARD, f"{path} must have at most {MAX_CARD:,} bytes")
        about = parse_json(path.read_bytes())
        known = isinstance(about, dict) and about.get("format") == FORMAT
        check(known, f"{path} must be the card of a model for radiographs, format {FORMAT}; {advice}")
        wrong = [name for name, rule in _RULES.items() if not rule(about[name])]
    check(not wrong, f"{path} must have entries of the right kind", wrong=wrong)
    return about


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            found.update(block)
    return found.hexdigest()
