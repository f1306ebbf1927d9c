"""A model of any command for radiographs, as one that answers for each of its findings.

`chest covid` and `chest ards` leave a model of one finding, `chest findings` one of several, which share an encoder and
the cases that it learned from.
"""

from pathlib import Path

import numpy as np

from tf_simclr.buckets import local
from tf_simclr.chest.model import deployed, of_findings
from tf_simclr.chest.model.card import FINDINGS, place_of
from tf_simclr.chest.model.deployed import Deployed
from tf_simclr.chest.model.heads import sigmoid_layer
from tf_simclr.chest.model.of_findings import FindingsModel
from tf_simclr.errors import check
from tf_simclr.evaluation.calibration import calibrate
from tf_simclr.terminal import say


def opened(folder: str | Path, *, code: str = "") -> tuple[Deployed, ...]:
    """The model of a run, or of a folder with one: a part for each finding, at least one.

    Args:
        folder: of the model.
        code: what made the encoder, where it has more than plain layers (`trusted.load_network`).

    Raises:
        InputError: there is none, it is damaged, or holds anything but numbers and plain networks.
    """
    place, kind = place_of(local(folder))
    if kind is not FINDINGS:
        return (deployed.load(place, code=code),)
    return _parts(of_findings.load(place, code=code))


def _parts(model: FindingsModel) -> tuple[Deployed, ...]:
    """A model for each finding that held-out images have and have not; the others were never tested.

    Raises:
        InputError: there is no such finding.
    """
    # Held-out labels may be unknown; a calibration needs known ones of both kinds.
    known = [model.held_labels[:, number] >= 0 for number in range(len(model.findings))]
    both = [len(set(model.held_labels[rows, number].tolist())) == 2 for number, rows in enumerate(known)]
    rule = "a model must have held-out images with and without one of its findings at least"
    check(any(both), rule, findings=list(model.findings))
    untested = [finding for finding, tested in zip(model.findings, both, strict=True) if not tested]
    if untested:
        say(f"not asked about, as all held-out images with a known label have it, or none: {', '.join(untested)}")
    return tuple(_part(model, number, rows=known[number]) for number, tested in enumerate(both) if tested)


def _part(model: FindingsModel, number: int, *, rows: np.ndarray) -> Deployed:
    """The model of one finding.

    Args:
        model: of all.
        number: of the finding.
        rows: held-out images of which it is known.
    """
    finding, scores = model.findings[number], model.held_scores[rows, number]
    labels = model.held_labels[rows, number].astype(int)
    patients = None if model.held_people is None else model.held_people[rows]
    calibration = calibrate(scores, labels, patients=patients)
    about = model.about | {
        "positive": finding,
        "side": model.about["kept_size"],
        "heads": 1,
        "measured": deployed.measured(scores, labels, patients=patients, calibration=calibration),
        "learned_from": model.learned_from(finding),
    }
    # A column of the last layer as a head.
    column = slice(number, number + 1)
    head = sigmoid_layer(model.kernel[:, column], model.bias[column], name=f"finding_{number}")
    return Deployed(model.encoder, (head,), calibration, model.cases, about)
