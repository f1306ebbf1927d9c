"""Which layer is which in a `.weights.h5` file, by building a Keras network of the same sizes."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from converters.infer import encoders
from converters.keras_groups import layer_groups_of, shape_counts
from converters.network import without
from tf_simclr.errors import InputError
from tf_simclr.models.architecture import Architecture
from tf_simclr.models.network import build, build_encoder


def layer_groups(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[str, str]]:
    """Group in the file → (layer name, kind).

    Raises:
        InputError: no network has these sizes in this order.
    """
    found = Counter(shapes.values())
    groups = {name.rsplit("/vars/", 1)[0] for name in shapes}
    for architecture in _fitting(found):
        for model in _models(architecture):
            known = layer_groups_of(json.loads(model.to_json()))
            if known.keys() == groups:
                return known
    raise InputError(
        f"{path} must hold the weights of a network that tf_simclr builds ({len(shapes)} arrays do not fit any); "
        "save the whole model as .keras, which names its layers"
    )


def _fitting(found: Counter) -> Iterator[Architecture]:
    """Every architecture whose weights have these shapes, as often."""
    for encoder in encoders():
        rest = found.copy()
        rest.subtract(shape_counts(encoder))
        if min(rest.values(), default=0) >= 0:
            heads = Counter({shape: n for shape, n in rest.items() if n})
            yield from _with_heads(encoder, heads)


def _with_heads(encoder: Architecture, heads: Counter) -> Iterator[Architecture]:
    dense = [shape for shape, count in heads.items() for _ in range(count) if len(shape) == 2]
    outputs = sorted({shape[1] for shape in dense})
    for layers in range(len(dense) + 1):
        for classes in outputs if layers < len(dense) else [0]:
            for out in outputs if layers else [128]:
                mode = "nonlinear" if layers else "none"
                candidate = _replaced(encoder, mode, layers, out=out, classes=classes)
                rest = shape_counts(candidate)
                rest.subtract(shape_counts(without(without(candidate, "supervised"), "projection")))
                if +rest == heads:
                    yield candidate


def _replaced(encoder: Architecture, mode: str, layers: int, *, out: int, classes: int) -> Architecture:
    a = encoder
    return Architecture(a.depth, a.width, a.sk_ratio, a.se_ratio, a.cifar_stem, mode, layers, out, classes)


def _models(architecture: Architecture) -> Iterator:
    yield build(architecture)
    if not architecture.num_classes and not architecture.num_proj_layers:
        yield build_encoder(architecture)
