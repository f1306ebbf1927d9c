"""What others should know of a network that leaves this machine: classes, the size of its images, and warnings.

No path, no name of an image or of a patient is part of it.
"""

from pathlib import Path
from typing import Any

from tf_simclr.data.radiographs import MADE_UP, told_made_up
from tf_simclr.files.places import expanded
from tf_simclr.run_folder import RunFolder, noted

FILE = "about.json"
"""What a repository of the hub, and an export that is a folder, keeps it in."""
_DEEPEST = 8
"""Runs that are looked at, each begun from the weights of the one before."""


def known_of(checkpoint: Any) -> dict[str, Any]:
    """What is known of a checkpoint: `classes`, `image_size` and `notes`; empty where nothing was kept.

    Args:
        checkpoint: a run folder or its `network.keras`, or what was pushed to the hub; others say nothing.
    """
    place = expanded(checkpoint)
    # A `network.keras` stands for the run that it lies in.
    place = place.parent if place.name == "network.keras" else place
    run, pushed = RunFolder(place), noted(place / FILE)
    # The run's own notes, else what was pushed or exported with the network.
    options = noted(run.config)
    classes = run.class_names() or tuple(pushed.get("classes") or ())
    size = options.get("image_size", pushed.get("image_size"))
    return {
        "classes": [str(name) for name in classes],
        "image_size": size if type(size) is int else None,
        "notes": [MADE_UP] if _is_made_up(place) else [],
    }


def _is_made_up(place: Path, depth: int = 0) -> bool:
    """Whether made-up data is among what a network learned from, in its run or in one that it began with."""
    # Its own card, its own result, then those of the weights that it began with.
    if MADE_UP in (noted(place / FILE).get("notes") or ()):
        return True
    notes = noted(RunFolder(place).result).get("notes")
    if isinstance(notes, list) and told_made_up(note for note in notes if isinstance(note, str)):
        return True
    options = noted(RunFolder(place).config)
    before = [options[name] for name in ("checkpoint", "teacher") if isinstance(options.get(name), str)]
    return depth < _DEEPEST and any(_is_made_up(Path(path), depth + 1) for path in before)
