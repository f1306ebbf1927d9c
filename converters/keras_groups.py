"""Where Keras keeps a layer's weights in its HDF5 files: by class and place among its kind, not by name.

References:
    keras-team/keras keras/src/saving/saving_lib.py, `_save_container_state`
"""

from collections import Counter
from collections.abc import Iterator

from converters.layers import walk
from tf_simclr.models.architecture import Architecture

_SNAKE = {"Conv2D": "conv2d", "BatchNormalization": "batch_normalization", "Dense": "dense", "Functional": "functional"}


def _named_groups(config: dict, prefix: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """Group in the file → (layer name, kind), for every Functional model in a configuration."""
    if config.get("class_name") == "Functional":
        layers = config["config"]["layers"]
        yield from _groups(layers, f"{prefix}layers/")
    else:
        for key, value in config.get("config", {}).items():
            if isinstance(value, dict) and "class_name" in value:
                yield from _named_groups(value, f"{prefix}{key}/")


def _groups(layers: list[dict], prefix: str) -> Iterator[tuple[str, tuple[str, str]]]:
    kinds = {"Conv2D": "conv", "BatchNormalization": "bn", "Dense": "dense"}
    seen: Counter[str] = Counter()
    for layer in layers:
        name = layer["class_name"]
        snake = _SNAKE.get(name, name.lower())
        group = f"{prefix}{snake}_{seen[snake]}" if seen[snake] else prefix + snake
        seen[snake] += 1
        if name == "Functional":
            yield from _groups(layer["config"]["layers"], group + "/layers/")
        elif name in kinds:
            yield group, (layer["config"]["name"], kinds[name])


def layer_groups_of(config: dict) -> dict[str, tuple[str, str]]:
    """Group in the HDF5 file → (layer name, kind), for every Functional model in a serialised configuration."""
    return dict(_named_groups(config, ""))


def shape_counts(architecture: Architecture) -> Counter:
    """How often each shape occurs among a network's weights: what a `.weights.h5` file tells of it."""
    return Counter(shape for layer in walk(architecture) for _, shape in layer.weights)
