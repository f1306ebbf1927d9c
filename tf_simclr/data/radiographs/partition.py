"""A prepared folder as a data set: its parts to train, choose and test on share no patient, its labels are a task.

For research, not for diagnosis.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from tf_simclr.data.radiographs import NOT_MENTIONED, UNCERTAIN
from tf_simclr.data.radiographs.prepared import Prepared
from tf_simclr.data.radiographs.settings import ALL, check_findings, check_part
from tf_simclr.data.radiographs.splits import NAMES, Split, by_patient, check_patients, named
from tf_simclr.data.sources import Source
from tf_simclr.errors import check

_SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}
"""Of the patients, where the collection has no split of its own; the proportions that ChestX-ray14's authors took."""


def task(prepared: Prepared, positive: str | None) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """What is to be told from the images.

    Args:
        prepared: the radiographs.
        positive: the class to tell from the rest; None: all classes, where every image has exactly one.

    Returns:
        A class for each image, int64 `(n,)`, and the classes' names; None and no names where an image may have several
        findings and none is asked for.

    Raises:
        InputError: there is no such class.
    """
    if positive is not None:
        # In several findings at once there is no single label.
        return prepared.column(positive), (f"not {positive}", positive)
    if (prepared.labels.sum(axis=1) != 1).any():
        return None, ()
    present = np.flatnonzero(prepared.labels.any(axis=0))  # ChestX-ray14 has a few of its 15 in a small part of it
    names = tuple(prepared.classes[i] for i in present)
    return prepared.labels[:, present].argmax(axis=1), names


def parts(prepared: Prepared, *, positive: str | None = None, seed: int = 0) -> Split:
    """Rows to train, choose (`validation`) and test on: by patient, about alike in their labels.

    The collection's own split is taken where it has one; validation images that it does not name are then drawn from
    those to train on.

    Args:
        prepared: the radiographs.
        positive: the class whose share is to be alike in the parts; None: each set of findings.
        seed: of the drawing of patients.

    Raises:
        InputError: there is no such class, there are fewer patients than parts, or the collection's split shares one or
            is none to train and test on.
    """
    # What parts shall be alike in: the label, or the combination of findings.
    labels, _ = task(prepared, positive)
    if labels is None:
        labels = np.unique(prepared.labels, axis=0, return_inverse=True)[1].reshape(-1)
    patients = list(prepared.patients)
    found = given(prepared)
    if found is None:
        return by_patient(patients, _SHARES, labels=labels, seed=seed)
    # Some collections divide only into train and test: validation patients are then drawn from train.
    if "validation" not in found:
        rows, rest = found["train"], _SHARES["train"] + _SHARES["validation"]
        shares = {name: _SHARES[name] / rest for name in ("train", "validation")}
        drawn = by_patient([patients[i] for i in rows], shares, labels=labels[rows], seed=seed)
        found = {name: rows[part] for name, part in drawn.items()} | {"test": found["test"]}
    check_patients(patients, found)
    return found


def rows_of(prepared: Prepared, name: str, *, positive: str | None = None, seed: int = 0) -> np.ndarray:
    """Rows of a part of `parts`, or of all images.

    Raises:
        InputError: there is no such part, or what `parts` refuses.
    """
    check_part(name, folder=prepared.folder)
    return np.arange(len(prepared)) if name == ALL else parts(prepared, positive=positive, seed=seed)[name]


def draws(prepared: Prepared, part: str = "train") -> bool:
    """Whether the seed of `parts` has a say in which images a part has."""
    if part == ALL:
        return False
    own = given(prepared)
    return own is None or (part != "test" and "validation" not in own)


def given(prepared: Prepared) -> dict[str, np.ndarray] | None:
    """The collection's own split: rows to train and test on, and of validation where it names some; None without one.

    Raises:
        InputError: it leaves images out, has other parts, or lacks one to train or to test on.
    """
    words = [named(str(word)) for word in prepared.splits]
    # The collection's words for parts, in ours.
    names = set(words)
    if names <= {""}:
        return None
    without = words.count("")
    rule = f"the split of {prepared.folder} must name a part for each image or for none"
    check(not without, rule, images_without=without)
    rule = f"the split of {prepared.folder} must have images to train and to test on; name them so, or leave it out"
    check({"train", "test"} <= names, rule, parts=sorted(names))
    return {part: np.array([i for i, word in enumerate(words) if word == part]) for part in NAMES if part in names}


def source(prepared: Prepared, rows: np.ndarray, *, positive: str | None = None) -> Source:
    """The images with these numbers as examples, labelled where there is a task.

    Raises:
        InputError: there is no such class, or no image.
    """
    labels, names = task(prepared, positive)
    return prepared.source(rows, labels, class_names=names)


def part(prepared: Prepared, name: str, *, positive: str | None = None, seed: int = 0, several: bool = False) -> Source:
    """The examples of a part: train, validation, test or all.

    Args:
        prepared: the radiographs.
        name: of the part.
        positive: the class to tell from the rest; None: all classes.
        seed: of the drawing of patients.
        several: whether images that have several findings each are labelled with rows of them (`findings`); else they
            have no label.

    Raises:
        InputError: there is no such part, or what `parts` refuses.
    """
    rows = rows_of(prepared, name, positive=positive, seed=seed)
    if several and positive is None and task(prepared, None)[0] is None:
        labels, findings_of = findings(prepared)
        return prepared.source(rows, labels, class_names=findings_of)
    return source(prepared, rows, positive=positive)


_NOTHING = ("no finding", "negative for pneumonia", "nothing", "normal")
"""Classes, in small letters, that say that there is no finding."""
_Uncertain = Literal["ignore", "ones", "zeros"]
_NotMentioned = Literal["zeros", "ignore"]


def findings(
    prepared: Prepared,
    names: Sequence[str] = (),
    *,
    uncertain: _Uncertain = "ignore",
    not_mentioned: _NotMentioned = "zeros",
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Which findings an image has, of any number: a row of 1, 0, and -1 for unknown, int64 `(n, findings)`.

    Args:
        prepared: the radiographs.
        names: of the findings; by default all classes but those that say that there is none (`_NOTHING`).
        uncertain: what an uncertain label (-1 in CheXpert's tables) counts as: nothing, present, absent; Irvin et al.,
            CheXpert, arXiv:1901.07031, Section 3.1, call these U-Ignore, U-Ones and U-Zeros.
        not_mentioned: what an empty cell counts as: absent, as in that paper, or nothing.

    Raises:
        InputError: there is no such class, or none that is a finding.
    """
    # All classes but those that say that there is no finding.
    chosen = tuple(names) or tuple(name for name in prepared.classes if name.lower() not in _NOTHING)
    check_findings(chosen, prepared.classes)
    check(chosen, f"one of the classes must be a finding: {', '.join(prepared.classes)}")
    stated = prepared.stated[:, [prepared.classes.index(name) for name in chosen]]
    # What a table states → 1, 0, or −1 for unknown.
    means = {"ignore": -1, "ones": 1, "zeros": 0}
    rows = stated.copy()
    rows[stated == UNCERTAIN] = means[uncertain]
    rows[stated == NOT_MENTIONED] = means[not_mentioned]
    return rows, chosen
