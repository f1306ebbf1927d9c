"""What `chest findings` leaves for `chest evaluate`: an encoder, a last layer, and what they say of held-out images.

For research, not for diagnosis.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tf_simclr.buckets import local
from tf_simclr.chest.model import folder as model_folder
from tf_simclr.chest.model.card import FINDINGS, read_card, within
from tf_simclr.chest.model.cases import Cases, array
from tf_simclr.data.radiographs.prepared import Prepared
from tf_simclr.errors import check

FOLDER = "model"
"""Name of such a folder within a run."""
_ARRAYS = {"kernel": 2, "bias": 1, "held_scores": 2, "held_labels": 2}
"""Array, float64 → its number of axes."""


_PEOPLE = "held_people.npy"
"""Patients of the held-out images as numbers, int64; models that were left before there was one lack it."""


@dataclass(frozen=True)
class FindingsModel:
    """An opened model."""

    encoder: keras.Model
    kernel: np.ndarray
    """Features to log-odds, `(d, findings)`."""
    bias: np.ndarray
    held_scores: np.ndarray
    """Log-odds of the validation images, `(v, findings)`."""
    held_labels: np.ndarray
    """1, 0, or -1 for unknown, `(v, findings)`."""
    cases: Cases
    about: dict[str, Any]
    """The content of `card.json`."""
    held_people: np.ndarray | None = None
    """Patients of the validation images, `(v,)`; None where they are not known, and each image counts as one's own."""

    @property
    def findings(self) -> tuple[str, ...]:
        """In the order of the columns."""
        return tuple(self.about["findings"])

    def learned_from(self, finding: str) -> dict[str, int]:
        """How many images and patients were learned from, and how many have this finding."""
        labels = self.cases.labels[:, self.about["classes"].index(finding)]
        stored = self.about.get("learned_from")
        if stored is None:  # models that were left before it was noted: of the cases that are kept
            images, patients, positives = len(labels), len(np.unique(self.cases.people)), int(labels.sum())
        else:
            images, patients, positives = stored["images"], stored["patients"], stored["positives"][finding]
        return {"images": images, "patients": patients, "positives": positives}


def save(
    folder: Path,
    *,
    encoder: keras.Model,
    layer: tuple[np.ndarray, np.ndarray],
    findings: tuple[str, ...],
    held: tuple[np.ndarray, ...],
    cases: tuple[Prepared, np.ndarray, np.ndarray],
    image_size: int,
    crop_proportion: float,
    card: dict[str, Any],
    seed: int = 0,
) -> None:
    """Writes a folder that `load` opens, whole or not at all; what was there is replaced.

    Args:
        folder: where to.
        encoder: images `(n, h, w, 3)` in [0, 1] to features `(n, d)`: a functional model of plain layers.
        layer: kernel `(d, findings)` and bias `(findings,)`.
        findings: their names.
        held: log-odds and labels (1, 0, -1) of validation images, each `(v, findings)`; and best their patients `(v,)`,
            which make intervals right where patients have several images, and of which numbers are stored.
        cases: the prepared folder, the rows learned from, and their features, by which another hospital's are measured.
        image_size: side of the encoder's input in pixels.
        crop_proportion: what evaluation keeps of the prepared square.
        card: what a reader must know, JSON types.
        seed: of the cases' numbers.
    """
    prepared, rows, _ = cases
    # The names of the arrays in the order in which they come: kernel, bias, held-out scores, held-out labels.
    arrays = dict(zip(_ARRAYS, (*layer, *held[:2]), strict=True))
    about = {
        "format": FINDINGS.format,
        "findings": list(findings),
        "image_size": image_size,
        "crop_proportion": crop_proportion,
        "card": card,
        "learned_from": {
            "images": len(rows),
            "patients": len(np.unique(prepared.patients[rows])),
            "positives": dict(zip(prepared.classes, prepared.labels[rows].sum(axis=0).tolist(), strict=True)),
        },
    }
    with model_folder.written(folder, about, encoder=encoder, cases=cases, seed=seed) as place:
        for name, values in arrays.items():
            np.save(place / f"{name}.npy", np.asarray(values, np.float64), allow_pickle=False)
        if len(held) > 2:
            people = np.unique(np.asarray(held[2]), return_inverse=True)[1]
            drawn = np.random.default_rng(seed).permutation(people.max() + 1)  # their order would tell pseudonyms
            np.save(place / _PEOPLE, drawn[people].astype(np.int64), allow_pickle=False)


def load(folder: str | Path, *, code: str = "") -> FindingsModel:
    """Opens a folder that `save` wrote, or a run that has one.

    Args:
        folder: of the model.
        code: what made the encoder, where it has more than plain layers (`trusted.load_network`).

    Raises:
        InputError: it is none, damaged, or holds anything but numbers and plain networks.
    """
    # The card, its files by their digests, the network and its cases, the arrays, then whether all belongs together.
    folder = within(local(folder), FOLDER)
    about = read_card(folder, FINDINGS)
    others = {f"{name}.npy" for name in _ARRAYS} | ({_PEOPLE} & set(about["digests"]))
    encoder, cases = model_folder.opened(folder, about, others=others, code=code)
    found = {
        name: np.asarray(array(folder / f"{name}.npy", kind=np.float64, axes=axes, what="numbers"))
        for name, axes in _ARRAYS.items()
    }
    count, width = len(about["findings"]), encoder.output_shape[-1]
    fits = found["kernel"].shape == (width, count) and found["bias"].shape == (count,)
    fits = fits and found["held_scores"].shape == found["held_labels"].shape and found["held_labels"].shape[1] == count
    rule = f"the arrays in {folder} must have shapes that fit each other and the findings"
    check(fits, rule, findings=count, kernel=found["kernel"].shape)
    check(all(np.isfinite(x).all() for x in found.values()), f"{folder} must hold finite numbers")
    check(set(about["findings"]) <= set(about["classes"]), f"the findings of {folder} must be among its classes")
    people = None
    if _PEOPLE in others:
        people = np.asarray(array(folder / _PEOPLE, kind=np.int64, axes=1, what="patients"))
        check(len(people) == len(found["held_labels"]), f"{folder} must name a patient for each held-out image")
    return FindingsModel(encoder, **found, cases=cases, about=about, held_people=people)
