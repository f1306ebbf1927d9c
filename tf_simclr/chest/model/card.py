"""The card of a deployed model: plain JSON, checked entry by entry before anything else of the folder is believed."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tf_simclr.errors import check
from tf_simclr.foreign import parse_json, reading

FORMAT = 1
NOTE = "For research use, not a diagnosis."
_MAX_CARD = 2**20
"""Largest card in bytes."""
LEARNED_FROM_MADE_UP = "It has learned from made-up radiographs: its answers mean nothing for real ones."


@dataclass(frozen=True)
class _Kind:
    """A kind of model in a folder, and what its card holds."""

    what: str
    """As a sentence calls it."""
    format: int | str
    """Of the card."""
    written_by: str
    """The commands that write such a folder."""
    rules: Mapping[str, Callable[[Any], bool]]
    """Entry → whether a value can be it."""
    optional: Mapping[str, Callable[[Any], bool]] = field(default_factory=dict)
    """The same of entries that older cards lack."""


# Entry by entry, and by type exactly: True is an int to Python, and no image size.
_SQUARES: dict[str, Callable[[Any], bool]] = {
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
_DEPLOYED = _Kind(
    "a model for radiographs",
    FORMAT,
    "`chest covid` and `chest ards` write one",
    _SQUARES
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
FINDINGS = _Kind(
    "a model for findings",
    "findings 1",
    "`chest findings` writes one",
    _SQUARES | {"findings": _SQUARES["classes"]},
    optional={
        "learned_from": lambda x: (
            all(type(x[name]) is int for name in ("images", "patients"))
            and all(type(count) is int for count in x["positives"].values())
        ),
    },
)
_FOLDERS = {"model": FINDINGS, "deployed": _DEPLOYED}
"""Names of such folders within a run, and what they hold."""


def within(folder: Path, name: str) -> Path:
    """The folder of a model of one kind: what a run has by this name, else the given one."""
    return folder / name if (folder / name / "card.json").exists() else folder


def place_of(folder: Path) -> tuple[Path, _Kind]:
    """The folder of a model, which is the given one or lies in it, and of which kind it is.

    A folder without any is of the first kind, whose card `read_card` then misses.
    """
    # A run of `chest findings` has `model`, one of `chest covid` or `chest ards` has `deployed`.
    for name, kind in _FOLDERS.items():
        if (folder / name / "card.json").is_file():
            return folder / name, kind
    # A folder of findings is told from the other kind by its name, or by the kernel of its one head.
    of_findings = folder.name == "model" or (folder / "kernel.npy").exists()
    return folder, FINDINGS if of_findings and (folder / "card.json").is_file() else _DEPLOYED


def findings_of(about: Mapping[str, Any]) -> tuple[str, ...]:
    """The findings that a model of either kind tells, by its card."""
    return tuple(about["findings"]) if "findings" in about else (about["positive"],)


def check_prepared_alike(about: Mapping[str, Any], *, size: int, fit: str, windowed: bool) -> None:
    """Raises `InputError` unless radiographs were prepared as those that a model learned from."""
    # A model may have learned from smaller squares than were kept: these are then made smaller first.
    side = about.get("side", about["kept_size"])
    advice = f"prepare them with --size {about['kept_size']} --fit {about['fit']} --windowed {about['windowed']}"
    fits = fit == about["fit"] and windowed == about["windowed"] and size >= side
    rule = f"radiographs must be prepared as those that the model learned from; {advice}"
    check(fits, rule, size=size, fit=fit, windowed=windowed)


def check_told(
    findings: Sequence[str], called: Mapping[str, str], *, folder: object, classes: Sequence[str]
) -> list[str]:
    """The model's findings that radiographs have no class of.

    Args:
        findings: of the model.
        called: what some of them are called there.
        folder: of the radiographs, as messages call it.
        classes: of the radiographs.

    Raises:
        InputError: a finding that the model has not is called otherwise, or they have a class of none.
    """
    unknown = [name for name in called if name not in findings]
    check(not unknown, f"classes must begin with findings of the model: {', '.join(findings)}", received=unknown)
    # Some of the findings may be missing in another collection; one at least must be there to be measured.
    lacking = [finding for finding in findings if called.get(finding, finding) not in classes]
    rule = f"{folder} must have a class that the model tells ({', '.join(findings)}); name it by --classes"
    check(len(lacking) < len(findings), rule, classes=list(classes))
    return lacking


def learned_from_made_up(about: Mapping[str, Any]) -> bool:
    """Whether a card's limits say so."""
    limits = about["card"].get("limits", [])
    return LEARNED_FROM_MADE_UP in ([limits] if isinstance(limits, str) else limits)


def _is_number(value: Any) -> bool:
    """Whether it is a finite number."""
    return type(value) in (int, float) and bool(np.isfinite(value))


def read_card(folder: Path, kind: _Kind = _DEPLOYED) -> dict[str, Any]:
    """The card of a folder.

    Raises:
        InputError: there is none, or it is not what this kind of model has.
    """
    path, advice = folder / "card.json", kind.written_by
    # The card is looked at whole before a file beside it is opened: a wrong one names each of its entries.
    check(path.is_file(), f"{folder} must hold {kind.what}, but there is no {path.name} in it; {advice}")
    with reading(folder, f"a folder that holds {kind.what}", advice=advice):
        check(path.stat().st_size <= _MAX_CARD, f"{path} must have at most {_MAX_CARD:,} bytes")
        about = parse_json(path.read_bytes())
        known = isinstance(about, dict) and about.get("format") == kind.format
        check(known, f"{path} must be the card of {kind.what}, format {kind.format}; {advice}")
        wrong = [name for name, rule in kind.rules.items() if not rule(about[name])]
        wrong += [name for name, rule in kind.optional.items() if name in about and not rule(about[name])]
    check(not wrong, f"{path} must have entries of the right kind", wrong=wrong)
    return about


def check_files(folder: Path, digests: Mapping[str, str], *, names: set[str]) -> None:
    """Raises `InputError` unless a folder has these files, and each is as the card has it."""
    # Neither fewer nor more: a file that the card does not name was put there by somebody else.
    check(set(digests) == names, f"{folder} must hold the files of a model", files=sorted(digests))
    for name, wanted in digests.items():
        whole = (folder / name).is_file() and digest(folder / name) == wanted
        check(whole, f"{folder / name} must be as it was written, but it is missing or damaged")


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    found = hashlib.sha256()
    # A piece at a time: Python 3.10 has no `hashlib.file_digest`.
    with path.open("rb") as file:
        while piece := file.read(2**20):
            found.update(piece)
    return found.hexdigest()
