"""Finished trainings of a study, kept in its folder: a command that was stopped goes on with the next one.

A file is named after a digest of all that its training depends on, and holds those settings.  It appears whole or not
at all; one that is damaged, or of other settings than its name says, is made again.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tf_simclr import contents
from tf_simclr.chest.covid.rows import Fit
from tf_simclr.errors import InputError, check
from tf_simclr.files import read_json, replacing, write_json
from tf_simclr.foreign import parse_json, reading
from tf_simclr.run_folder import read_arrays

_FORMAT = 2
"""Of the files, and of what the settings do not tell: how a head is made and trained."""
_ARRAYS = ("settings", "history", "probabilities", "labels", "patients", "pace", "seconds")


@dataclass
class Kept:
    """A folder of fits."""

    folder: Path
    """Made when it is needed."""
    say: Callable[[str], None] = lambda line: None
    """Takes one line for the user at a time."""
    found: int = 0
    """How many trainings were spared so far."""

    def fetch(self, settings: Mapping[str, Any], train: Callable[[], Fit]) -> Fit:
        """The fit of these settings: from its file, or trained and kept.

        Args:
            settings: JSON types; all that the training depends on.
            train: makes it.

        Raises:
            InputError: nothing can be written in the folder.
        """
        # A file that cannot be read costs a training, and no study.
        path, text = self.place(settings, ".npz")
        if path.exists():
            try:
                fit = read(path, text)
            except InputError as error:
                self.say(f"a kept training is made again: {error}")
            else:
                self.found += 1
                return fit
        began = time.monotonic()
        fit = train()
        fit = replace(fit, seconds=time.monotonic() - began)
        _write(path, fit, text=text)
        return fit

    def longest(self, settings: Mapping[str, Any], seconds: float) -> float:
        """The most that something took, now or earlier: of what a cache answers at once, what it cost."""
        path, _ = self.place(settings, ".json")
        # A cache answers in a second: what a table tells is what the computation took.
        try:
            before = float(read_json(path)["seconds"]) if path.exists() else 0.0
        except (InputError, KeyError, TypeError, ValueError):
            before = 0.0
        if seconds > before:
            write_json(path, {"seconds": seconds, "settings": dict(settings)})
        return max(seconds, before)

    def place(self, settings: Mapping[str, Any], ending: str) -> tuple[Path, str]:
        """The file of these settings, and they as text."""
        # Sorted keys: one text for the same settings, whose digest is the file's name.
        text = json.dumps({"format": _FORMAT, **settings}, sort_keys=True)
        return self.folder / f"{contents.of_bytes(text.encode())}{ending}", text


def read(path: Path, text: str) -> Fit:
    """The fit in a file.

    Raises:
        InputError: the file is damaged, or holds something else than the fit of these settings.
    """
    arrays = read_arrays(path)
    # The name is a digest of the settings; within, they are compared as a whole.
    check(set(arrays) == set(_ARRAYS), f"{path} must hold a training", received=sorted(arrays))
    check(str(arrays["settings"]) == text, f"{path} must be of the settings that its name stands for")
    with reading(path, "a training", advice="remove it"):
        history = parse_json(str(arrays["history"]))
        columns = {name: arrays[name] for name in _ARRAYS[2:6]}
        fit = Fit(history=history, **columns, seconds=float(arrays["seconds"]))
    whole = len(fit.probabilities) == len(fit.labels) == len(fit.patients) > 0
    check(whole, f"{path} must have an answer, a label and a patient for each image")
    return fit


def _write(path: Path, fit: Fit, *, text: str) -> None:
    """Keeps a fit with its settings."""
    columns: dict[str, Any] = {name: np.asarray(getattr(fit, name)) for name in _ARRAYS[2:]}
    with replacing(path) as [file]:
        np.savez_compressed(file, settings=np.array(text), history=np.array(json.dumps(fit.history)), **columns)
