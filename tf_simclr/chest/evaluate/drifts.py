"""How far another hospital's radiographs are from those that a model learned from: grey levels and features."""

from typing import Any

import numpy as np

from tf_simclr.chest.evaluate.models import Asked
from tf_simclr.chest.model.cases import directions, hash_of, small_pictures
from tf_simclr.data.radiographs.duplicates import near_duplicates
from tf_simclr.data.radiographs.prepared import Prepared
from tf_simclr.evaluation import drift
from tf_simclr.evaluation.intervals import estimate, share_interval

_BINS = 64
"""Of the histograms of grey levels."""
_MOST = 2000
"""Radiographs whose pictures are looked at; of more, so many are drawn."""
_USUAL = 0.05
"""Share of training cases that are further from the nearest one than `Cases.usual`."""


def looked_at(data: Prepared, rows: np.ndarray, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Small pictures of these radiographs, and whose they are; as pictures take time, of many some are drawn."""
    chosen = rows[np.sort(np.random.default_rng(seed).permutation(len(rows))[:_MOST])]
    return small_pictures(data, chosen), data.patients[chosen]


def measured(
    asked: Asked,
    seen: tuple[np.ndarray, np.ndarray],
    *,
    features: np.ndarray,
    patients: np.ndarray,
    permutations: int,
    seed: int,
) -> dict[str, Any]:
    """What has moved, with the chance that it is nothing; of each patient one image counts for that chance.

    Args:
        asked: the model, with the cases that it learned from.
        seen: pictures of the other hospital, and whose they are (`looked_at`).
        features: of all that were asked about, `(n, d)`.
        patients: whose those are, `(n,)`.
        permutations: draws for a chance.
        seed: of all draws.
    """
    (theirs, people), ours = seen, np.asarray(asked.cases.pictures)
    options: dict[str, int] = {"permutations": permutations, "seed": seed}
    found: dict[str, Any] = {"images": {"learned_from": len(ours), "here": len(theirs)}}
    found["histograms"] = {"learned_from": _histogram(ours), "here": _histogram(theirs)}
    # Images of one patient are alike: a test that takes them for independent sees a shift that is none.
    for name in ("brightness", "contrast"):
        values = [_statistic(name, pictures) for pictures in (ours, theirs)]
        singles = [_one_each(values[0], asked.cases.people), _one_each(values[1], people)]
        apart, p = (
            drift.distance(singles[0], singles[1], **options) if min(map(len, singles)) > 1 else (float("nan"), 1.0)
        )
        found[name] = {
            "learned_from": float(values[0].mean()),
            "here": float(values[1].mean()),
            "distance": apart,
            "p": p,
        }
    known = np.asarray(asked.cases.features, np.float32)
    own = directions(features, asked.cases.centre)
    singles = [_one_each(known, asked.cases.people), _one_each(own, patients)]
    # Is the nearest case as near as cases are to each other?  Of training cases one in twenty is not.
    nearest = _nearest_similarity(own, known)
    unlike = nearest < asked.cases.usual
    found["features"] = {
        "unlike": estimate(float(unlike.mean()), share_interval(unlike, patients=patients)),
        "unlike_expected": _USUAL,
    }
    if min(map(len, singles)) > 1:
        value, p = drift.mean_discrepancy(singles[0], singles[1], **options)
        found["features"] |= {"discrepancy": value, "p": p, "frechet": drift.frechet(singles[0], singles[1])}
    return found | {"alike": alike(asked, theirs)}


def _statistic(name: str, pictures: np.ndarray) -> np.ndarray:
    """Mean or standard deviation of each picture's grey levels, as a share of their range, `(n,)`."""
    values = pictures.mean(axis=(1, 2)) if name == "brightness" else pictures.std(axis=(1, 2))
    return np.asarray(values / 255)


def _histogram(pictures: np.ndarray) -> list[float]:
    """Shares of the grey levels from black to white."""
    # Whole numbers: 64 · value // 256, so that 255 is in the last bin.
    counts = np.bincount((pictures.reshape(-1).astype(np.int64) * _BINS) // 256, minlength=_BINS)
    return [float(share) for share in counts / counts.sum()]


def _one_each(values: np.ndarray, people: np.ndarray) -> np.ndarray:
    """The first value of each patient."""
    return np.asarray(values[np.unique(people, return_index=True)[1]])


def _nearest_similarity(own: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Cosine of each image's features and those of its nearest training case, `(n,)`."""
    # A block at a time: (1024, d) · (d, m) → (1024, m), of which the largest a row is kept.
    blocks = [(own[start : start + 1024] @ known.T).max(axis=1) for start in range(0, len(own), 1024)]
    return np.concatenate(blocks)


def alike(asked: Asked, theirs: np.ndarray) -> int:
    """How many of these pictures look the same as one that the model learned from."""
    # The model's come first: a pair that crosses their number is one of each.
    ours = asked.cases.hashes
    pairs = near_duplicates([*ours, *map(hash_of, theirs)])
    return len({second for first, second, _ in pairs if first < len(ours) <= second})
