"""Weights to start a training from."""

from collections.abc import Callable
from pathlib import Path

import keras

from tf_simclr.errors import InputError
from tf_simclr.models.moco import MoCo
from tf_simclr.models.network import weights_by_name
from tf_simclr.models.simclr import SimCLR
from tf_simclr.weights import load_model

HEADS = {"projection": "projection head", "probe": "linear probe"}


def start_from(path: Path, model: SimCLR, *, say: Callable[[str], None]) -> None:
    """Takes the encoder of a checkpoint of any kind, and each head that has the model's form; others stay random.

    Raises:
        InputError: the checkpoint cannot be read, or its encoder is another one.
    """
    network = load_model(path)
    given = weights_by_name(network)
    unlike = differing(weights_by_name(model.encoder), given)
    if unlike:
        raise InputError(
            f"{path} must hold an encoder like the one to train; give the options of its ResNet. "
            f"{len(unlike)} weights differ: {', '.join(unlike[:5])}"
        )
    taken = [model.encoder]
    for name, what in HEADS.items():
        head = getattr(model, name)
        fits = head is not None and not differing(named(head), given)
        taken += [head] if fits else []
        say(f"{what}: {'from' if fits else 'not from'} {path}")
    for part in taken:
        for name, weight in named(part).items():
            weight.assign(given[name])
    if isinstance(model, MoCo):
        model.catch_up()


def named(part: keras.layers.Layer) -> dict[str, keras.Variable]:
    """The weights of a model or of one layer by `layer/weight`."""
    if isinstance(part, keras.Model):
        return weights_by_name(part)
    return {f"{part.name}/{weight.name}": weight for weight in part.weights}


def differing(wanted: dict, given: dict) -> list[str]:
    """Names of weights that are not given, or in another shape."""
    return [name for name, weight in wanted.items() if name not in given or given[name].shape != weight.shape]
