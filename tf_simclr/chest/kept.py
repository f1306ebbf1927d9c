"""Finished trainings of a study, kept in its folder: a command that was stopped goes on with the next one.

A file is named after a digest of all that its training depends on, and holds those settings.  It appears whole or not
at all; one that is damaged, or of other settings than its name says, is made again.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, get_origin, get_type_hints

import numpy as np

from tf_simclr.errors import InputError, check
from tf_simclr.files import contents, read_json, replacing, write_json
from tf_simclr.foreign import parse_json, reading
from tf_simclr.run_folder import read_arrays

_Fit = TypeVar("_Fit")


@dataclass
class Kept(Generic[_Fit]):
    """A folder of fits."""

    folder: Path
    """Made when it is needed."""
    kind: type[_Fit]
    """Of the fits: a dataclass of arrays, numbers, and dictionaries of JSON types; it refuses parts that do not fit."""
    form: int
    """Of the files, and of what the settings do not tell: how such a fit is made."""
    say: Callable[[str], None] = lambda line: None
    """Takes one line for the user at a time."""
    found: int = 0
    """How many trainings were spared so far."""

    def fetch(self, settings: Mapping[str, Any], train: Callable[[Path], _Fit]) -> _Fit:
        """The fit of these settings: from its file, or trained and kept.

        Args:
            settings: JSON types; all that the training depends on.
            train: makes it; given a folder that is its own, in which it may leave what it goes on from.

        Raises:
            InputError: nothing can be written in the folder.
        """
        # A file that cannot be read costs a training, and no study.
        path, text = self.place(settings, ".npz")
        if path.exists():
            try:
                fit = read(path, self.kind, text=text)
            except InputError as error:
                self.say(f"a kept training is made again: {error}")
            else:
                self.found += 1
                return fit
        fit = train(path.with_suffix(""))
        columns: dict[str, Any] = dict(vars(fit))
        columns |= {name: json.dumps(of) for name, of in columns.items() if isinstance(of, dict)}
        with replacing(path) as [file]:
            np.savez_compressed(file, settings=np.array(text), **columns)
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
        text = json.dumps({"format": self.form, **settings}, sort_keys=True)
        return self.folder / f"{contents.of_bytes(text.encode())}{ending}", text


def read(path: Path, kind: type[_Fit], *, text: str) -> _Fit:
    """The fit in a file.

    Raises:
        InputError: the file is damaged, or holds something else than the fit of these settings.
    """
    arrays = read_arrays(path)
    # The name is a digest of the settings; within, they are compared as a whole.
    fields = get_type_hints(kind)
    check(set(arrays) == {"settings", *fields}, f"{path} must hold a training", received=sorted(arrays))
    check(str(arrays.pop("settings")) == text, f"{path} must be of the settings that its name stands for")
    with reading(path, "a training", advice="remove it"):
        return kind(**{name: _value(array, fields[name]) for name, array in arrays.items()})


def _value(array: np.ndarray, of: Any) -> Any:
    """What stands for a field of a type: a number, a dictionary as JSON, or an array."""
    if of is float:
        return float(array)
    if get_origin(of) is dict:
        found = parse_json(str(array))
        check(isinstance(found, dict), "notes of a training must be a JSON object")
        return found
    check(array.ndim > 0, "arrays of a training must have axes")
    return array
