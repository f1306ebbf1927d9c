"""One radiograph asked and explained: probability, heat map, nearest cases; and what the two checks say of the map."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tf_simclr.chest.files.squares import Picture
from tf_simclr.chest.model.card import NOTE
from tf_simclr.chest.model.cases import Case, small_picture
from tf_simclr.chest.model.deployed import Deployed, Verdict
from tf_simclr.chest.model.heat_maps import agreement, grad_cam, grad_cams, occlusion, shades, shuffled_networks
from tf_simclr.chest.model.overlay import layer, overlay, put_back
from tf_simclr.data.images import to_rgb

_GRID = 7
"""Squares a side that occlusion covers, as many as Grad-CAM has places in a ResNet at 224 px."""
_AGREE, _PARTLY = 0.5, 0.2
"""Rank correlations from which on the two maps are said to agree, or to agree in part; our choice."""
PLACES = 16
"""A map of fewer places does not say where, and two of them agree by chance; our choice."""
_COLOURED = "This picture is in colour, and radiographs are grey: the numbers below mean nothing."
_UNLIKE = (
    "This image is unlike the radiographs that the model learned from. The numbers below may mean nothing: is it a "
    "frontal chest radiograph?"
)
_KNOWN = "The model has learned from a radiograph that looks the same as this one: what it says here is no test of it."


@dataclass(frozen=True)
class Explanation:
    """What was found for one image."""

    picture: Picture
    seen: np.ndarray
    """What the network saw, `(s, s, 3)` in [0, 1]."""
    verdict: Verdict
    heat: np.ndarray
    """Grad-CAM of the log-odds, `(h', w')`, with its sign."""
    cases: list[Case]
    similar: bool
    """Whether the nearest case is as near as training cases usually are to each other."""
    known: bool
    """Whether one of the training cases looks the same."""
    covered: np.ndarray | None = None
    """Fall of the log-odds where a square is covered, `(g, g)`."""
    correlation: float | None = None
    """Rank correlation of the two maps."""
    warnings: tuple[str, ...] = ()
    """Of the model, whatever the image; see `Deployed.warnings`."""

    @property
    def mapped(self) -> bool:
        """Whether the network has a layer of places, of which there can be a map."""
        return self.heat.size > 1 or bool(self.heat.any())

    @property
    def places(self) -> bool:
        """Whether the heat map has enough places to say where, and one that speaks for the class."""
        return self.heat.size >= PLACES and bool(self.heat.max() > 0)

    @property
    def doubts(self) -> list[str]:
        """Why the numbers may not mean what they say, for this image: sentences."""
        holds = {_COLOURED: self.picture.coloured, _UNLIKE: not self.similar, _KNOWN: self.known}
        said = "Of this file is to be said: {}. The numbers below may mean nothing."
        of_file = [said.format(doubt) for doubt in self.picture.doubts]
        return [*self.warnings, *of_file, *(sentence for sentence, so in holds.items() if so)]


def ask_all(
    models: Sequence[Deployed], source: str | Path | Picture, *, neighbours: int = 5
) -> tuple[Explanation, ...]:
    """Everything but the checks, for each finding; the encoder runs once.

    Args:
        models: of `opened.opened`, which share an encoder.
        source: a file, or what was read of one.
        neighbours: training cases to name.

    Raises:
        InputError: the file is no radiograph that can be read.
    """
    first = models[0]
    # 1. The picture as it was kept in training. 2. What the heads say. 3. Where they look. 4. What looks like it.
    picture = source if isinstance(source, Picture) else first.open(source)
    seen = first.see(picture)
    features = first.features(tf.constant(seen[None]))
    verdicts = [model.verdict(features) for model in models]
    cases = first.cases.nearest(verdicts[0].features, neighbours)
    heats = grad_cams(first.encoder, [model.score_of for model in models], image=seen)
    similar = cases[0].similarity >= first.cases.usual
    known = first.cases.knows(small_picture(to_rgb(tf.constant(picture.kept))).numpy())
    return tuple(
        Explanation(picture, seen, verdict, heat, cases, similar, known, warnings=model.warnings)
        for model, verdict, heat in zip(models, verdicts, heats, strict=True)
    )


def checked_all(models: Sequence[Deployed], found: Sequence[Explanation]) -> tuple[Explanation, ...]:
    """The same with the occlusion check: the covered images are seen once."""
    seen = found[0].seen

    def scores(images: tf.Tensor) -> tf.Tensor:
        features = models[0].features(images)
        return tf.stack([model.score_of(features) for model in models], axis=1)

    # A network that sees very few pixels has no room for seven squares a side.
    covered = occlusion(scores, seen, grid=min(_GRID, *seen.shape[:2]))
    return tuple(
        dataclasses.replace(one, covered=fallen, correlation=agreement(one.heat, fallen))
        for one, fallen in zip(found, covered, strict=True)
    )


def after_shuffling(deployed: Deployed, found: Explanation, *, seed: int = 0) -> dict[str, float]:
    """Rank correlation of the heat map with those of shuffled networks, by what was shuffled last, the heads first."""
    if not found.mapped:
        return {}
    return {
        block: agreement(found.heat, grad_cam(encoder, score, image=found.seen))
        for block, encoder, score in shuffled_networks(deployed.encoder, deployed.heads, seed=seed)
    }


def laid_over(deployed: Deployed, found: Explanation, *, values: Any) -> np.ndarray:
    """The radiograph as a viewer shows it with a map over it: uint8 `(h, w, 3)`."""
    # As the radiograph was made a square, but backwards.
    about = deployed.about
    shape = found.picture.shown.shape
    back = put_back(shades(values), shape, fit=about["fit"], crop_proportion=about["crop_proportion"])
    return overlay(found.picture.shown, back)


def map_alone(deployed: Deployed, found: Explanation) -> np.ndarray:
    """Grad-CAM for a viewer to lay over: uint8 `(h, w, 4)` of the proportions of what is shown, a third its side."""
    about = deployed.about
    shape = tuple(max(1, side // 3) for side in found.picture.shown.shape)
    return layer(put_back(shades(found.heat), shape, fit=about["fit"], crop_proportion=about["crop_proportion"]))


def in_words(found: Explanation) -> str:
    """What the occlusion check says of the heat map."""
    # In the order of what makes a map worth nothing, then by how far the two checks agree.
    if not found.mapped:
        return "this network has no layer of places: there is no map, and the answer rests on the picture as a whole"
    if found.heat.max() <= 0:
        return "no place speaks for the finding: nothing is coloured, and the answer rests on the picture as a whole"
    if not found.places:
        rows, columns = found.heat.shape
        return f"this network's map has {rows} × {columns} places, too few to say where; do not rely on it"
    if found.correlation is None:
        return "not checked"
    if found.correlation >= _AGREE:
        return "the occlusion check finds the same places"
    if found.correlation >= _PARTLY:
        return "the occlusion check finds the same places only in part"
    return "the occlusion check does not confirm these places: do not rely on the map"


def numbers(deployed: Deployed, found: Explanation) -> dict[str, Any]:
    """All of it but pictures, as JSON types."""
    verdict = found.verdict
    return {
        "note": NOTE,
        "class": deployed.positive,
        "probability": verdict.probability,
        "interval": [verdict.low, verdict.high],
        "interval_means": deployed.interval_means,
        "calibrated": not deployed.calibration.missing,
        "heads_uncalibrated": verdict.heads.tolist(),
        "measured": deployed.measured,
        "nearest": [{"case": c.number, "findings": c.findings, "similarity": c.similarity} for c in found.cases],
        "like_training_cases": found.similar,
        "looks_like_a_training_case": found.known,
        "in_colour": found.picture.coloured,
        "doubts": found.doubts,
        "grad_cam": found.heat.tolist(),
        "occlusion": None if found.covered is None else found.covered.tolist(),
        "occlusion_rank_correlation": found.correlation,
    }
