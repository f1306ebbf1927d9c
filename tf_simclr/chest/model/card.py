"""The card of a deployed model: plain JSON, checked entry by entry before anything else of the folder is believed."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tf_simclr.errors import check
from tf_simclr.foreign import parse_json, reading

FORMAT = 1
_MAX_CARD = 2**20
"""Largest card in bytes."""
MADE_UP = "It has learned from made-up radiographs: its answers mean nothing for real ones."


@dataclass(frozen=True)
class Kind:
    """A kind of model in a folder, and what its card holds."""

    what: str
    """As a sentence calls it."""
    format: int | str
    """Of the card."""
    written_by: str
    """The commands that write such a folder."""
    rules: Mapping[str, Callable[[Any], bool]]
    """Entry → whether a value can be it."""


SQUARES: dict[str, Callable[[Any], bool]] = {
    "classes": lambda x: isinstance(x, list) and 0 < len(x) <= 1000 and all(isinstance(y, str) for y in x),
    "image_size": lambda x: type(x) is int and 8 <= x <= 4096,
    "kept_size": lambda x: type(x) is int and 8 <= x <= 4096,
    "fit": lambda x: x in ("stretch", "pad", "crop"),
    "windowed": lambda x: isinstance(x, bool),
    "crop_proportion": lambda x: _is_number(x) and 0 < x <= 1,
    "card": lambda x: isinstance(x, dict),
    "digests": lambda x: isinstance(x, dict),
}
"""What every card holds: how squares are made of radiographs, and the files beside it."""
_DEPLOYED = Kind(
    "a model for radiographs",
    FORMAT,
    "`chest covid` and `chest ards` write one",
    SQUARES
    | {
        "positive": lambda x: isinstance(x, str) and 0 < len(x) <= 200,
        "side": lambda x: type(x) is int and 8 <= x <= 4096,
        "heads": lambda x: type(x) is int and 1 <= x <= 100,
        "calibration": lambda x: (
            x["kind"] in ("Platt", "none") and _is_number(x["slope"]) and _is_number(x["intercept"])
        ),
        "measured": lambda x: all(_is_number(v) for v in (x["images"], x["positives"], x["brier"], *x["auc"].values())),
        "learned_from": lambda x: all(_is_number(x[name]) for name in ("images", "patients", "positives")),
    },
)


def learned_from_made_up(about: Mapping[str, Any]) -> bool:
    """Whether a card's limits say so."""
    limits = about["card"].get("limits", [])
    return MADE_UP in ([limits] if isinstance(limits, str) else limits)


def _is_number(value: Any) -> bool:
    """Whether it is a finite number."""
    return type(value) in (int, float) and bool(np.isfinite(value))


def read_card(folder: Path, kind: Kind = _DEPLOYED) -> dict[str, Any]:
    """The card of a folder.

    Raises:
        InputError: there is none, or it is not what this kind of model has.
    """
    path, advice = folder / "card.json", kind.written_by
    check(path.is_file(), f"{folder} must hold {kind.what}, but there is no {path.name} in it; {advice}")
    with reading(folder, f"a folder that holds {kind.what}", advice=advice):
        check(path.stat().st_size <= _MAX_CARD, f"{path} must have at most {_MAX_CARD:,} bytes")
        about = parse_json(path.read_bytes())
        known = isinstance(about, dict) and about.get("format") == kind.format
        check(known, f"{path} must be the card of {kind.what}, format {kind.format}; {advice}")
        wrong = [name for name, rule in kind.rules.items() if not rule(about[name])]
    check(not wrong, f"{path} must have entries of the right kind", wrong=wrong)
    return about


def check_files(folder: Path, digests: Mapping[str, str], *, names: set[str]) -> None:
    """Raises `InputError` unless a folder has these files, and each is as the card has it."""
    check(set(digests) == names, f"{folder} must hold the files of a model", files=sorted(digests))
    for name, wanted in digests.items():
        whole = (folder / name).is_file() and digest(folder / name) == wanted
        check(whole, f"{folder / name} must be as it was written, but it is missing or damaged")


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            found.update(block)
    return found.hexdigest()
