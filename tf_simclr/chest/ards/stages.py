"""The eight stages of the ARDS pipeline as folders: what each was made with, whether it is whole, what it needs.

A stage's folder has `stage.json`: its settings from its beginning on, and its result once it is whole.  The settings of
the stages before it are part of its own, so that nothing is built on what was made anew.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from tf_simclr.data.radiographs.duplicates import near_duplicates
from tf_simclr.data.radiographs.prepared import Prepared
from tf_simclr.data.radiographs.splits import Split
from tf_simclr.errors import check
from tf_simclr.files import begun_with, contents, read_json, write_json


class _About(NamedTuple):
    """What a stage does, and those that it builds on."""

    title: str
    needs: tuple[str, ...]


STAGES = {
    "initial": _About("the encoder to begin with", needs=()),
    "pretrain": _About("SimCLR on the radiographs, without labels", needs=("initial",)),
    "linear": _About("what the frozen features are worth, on validation patients", needs=("pretrain",)),
    "finetune": _About("fine-tuning with SGD and cross-entropy, on validation patients", needs=("pretrain",)),
    "grid": _About("search of the fine-tuning's knobs, on validation patients", needs=("pretrain",)),
    "evaluate": _About("the choice on test patients, once", needs=("grid",)),
    "compare": _About("the same for the other ways to train", needs=("evaluate",)),
    "report": _About(
        "one page for readers, and the model for `chest app`",
        needs=("linear", "finetune", "evaluate"),  # and whatever there is to compare with
    ),
}
"""Stage → what it does, and those that it builds on; in order."""
WAYS = {
    "simclr": "SimCLR on radiographs, fine-tuned",
    "checkpoint": "The checkpoint, fine-tuned directly",
    "moco": "MoCo v2 on radiographs, fine-tuned",
    "supervised": "From scratch, labels alone",
}
"""Ways to train a classifier, and what a table calls them."""


@dataclass(frozen=True)
class Stage:
    """A stage's folder within the pipeline's."""

    root: Path
    name: str

    @property
    def number(self) -> int:
        """From 1 on."""
        return list(STAGES).index(self.name) + 1

    @property
    def path(self) -> Path:
        return self.root / f"{self.number}-{self.name}"

    @property
    def title(self) -> str:
        """What a line of progress calls it."""
        return f"stage {self.number} of {len(STAGES)}, {self.name}: {STAGES[self.name].title}"

    def noted(self) -> dict[str, Any]:
        """What `stage.json` holds; nothing where it has not begun."""
        note = self.path / "stage.json"
        if not note.exists():
            return {}
        found = read_json(note)
        rule = f"{note} must hold the stage's settings and, once it is whole, its result; remove the stage's folder"
        parts = [found.get("settings"), found.get("result", {})]
        check(all(isinstance(part, dict) for part in parts), rule, received=sorted(found))
        return found

    def before(self) -> "list[Stage]":
        """The stages that it needs."""
        return [Stage(self.root, name) for name in STAGES[self.name].needs]

    def begin(self, settings: Mapping[str, Any], *, defaults: Mapping[str, Any] = MappingProxyType({})) -> bool:
        """Notes the settings, or checks that those there are the same; whether there is something to do.

        Args:
            settings: what the stage is made with.
            defaults: of the options: what a stage was made with that was begun before there was the option.

        Raises:
            InputError: a stage that it needs is not whole, or the folder was begun with other settings.
        """
        # 1. What it builds on must be whole. 2. Its settings are noted, or the same as noted.
        for stage in self.before():
            rule = f"stage {self.name} must have stage {stage.name} before it; run it, or all, in {self.root}"
            check("result" in stage.noted(), rule)
        then = {name: value for name, value in defaults.items() if name in settings}
        # A digest, and not the settings: those before may hold much, and only have to be the same.
        earlier = {f"stage {stage.name}": contents.of_values(stage.noted()["settings"]) for stage in self.before()}
        note = self.path / "stage.json"
        changed = begun_with(note, {**settings, **earlier}, within="settings", defaults=then)
        advice = "give the same ones, or another model_dir, or remove this stage's folder and those behind it"
        both = {name: f"{there!r} there, {here!r} here" for name, (there, here) in changed.items()}
        check(not changed, f"{self.path} must be of the same settings; {advice}", **both)
        return "result" not in self.noted()

    def finish(self, result: Mapping[str, Any]) -> None:
        """Notes the result: the stage is whole."""
        write_json(self.path / "stage.json", {"settings": self.noted()["settings"], "result": dict(result)})

    @property
    def result(self) -> dict[str, Any]:
        """What it came to; it is whole."""
        return self.noted()["result"]


def identity(prepared: Prepared) -> dict[str, Any]:
    """What tells a prepared folder from another, wherever it lies."""
    # By what is in it, in its order: a copy in another place is the same collection.
    known = [prepared.images, prepared.hashes, prepared.labels, prepared.patients]
    content = contents.of_values(prepared.content(), [column.tolist() for column in known])
    return {"images": len(prepared), "size": prepared.size, "content": content}


def check_split(prepared: Prepared, rows: Split, *, positive: str) -> None:
    """Refuses patients of one class only.

    Raises:
        InputError: a part has some.
    """
    # Measures, and a loss that learns, need both classes in each part.
    labels = prepared.column(positive)
    for name, part in rows.items():
        yes = int(labels[part].sum())
        rule = f"the {name} patients must have images of both classes; take more patients or another split_seed"
        check(0 < yes < len(part), rule, images=len(part), positive=yes)


def unlabelled(prepared: Prepared, *, target: Prepared, rows: Split) -> np.ndarray:
    """Rows to pretrain on: no patient, and no image that looks the same, is among those to validate and test on.

    Args:
        prepared: radiographs to pretrain on; the target's own, or others.
        target: radiographs with the labels.
        rows: of the target.
    """
    # Only in another collection patients and look-alikes have to be sought: in our own the split keeps them apart.
    held = np.concatenate([rows["validation"], rows["test"]])
    if identity(prepared) == identity(target):
        return np.asarray(rows["train"])
    # Held-out images come first: a pair of one of them and one of ours crosses that border.
    pairs = near_duplicates([*target.hashes[held], *prepared.hashes])
    alike = [b - len(held) for a, b, _ in pairs if a < len(held) <= b]
    known = np.isin(prepared.patients, target.patients[held])
    known[alike] = True
    return np.flatnonzero(~known)


def counts(prepared: Prepared, rows: Split, *, positive: str) -> dict[str, dict[str, int]]:
    """Part → images, patients, and positives of both."""
    labels, patients, found = prepared.column(positive), prepared.patients, {}
    for name, part in rows.items():
        ill = part[labels[part] == 1]
        found[name] = {
            "images": len(part),
            "patients": len(np.unique(patients[part])),
            "positive images": len(ill),
            "positive patients": len(np.unique(patients[ill])),
        }
    return found
