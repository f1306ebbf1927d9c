"""A network under a naming: keys, arrays in the naming's layout, and what the naming has beside weights."""

import json
from collections.abc import Iterator
from dataclasses import asdict

import numpy as np

from converters.layers import Shape
from converters.layout import Memory, layout_shape, to_layout
from converters.namings import Naming
from converters.network import Network
from converters.stored import Stored

Pairs = Iterator[tuple[str, np.ndarray]]


def named(network: Network, naming: Naming, *, memory: Memory | None = None) -> Pairs:
    """Key and array of every weight in the naming's layout, read one after the other, and what else it needs.

    Args:
        network: What to write.
        naming: How.
        memory: If given, an array is valid until the next one but one is asked for.
    """
    for hub, key in naming.table(network.architecture).items():
        yield key, to_layout(network[hub], torch=naming.torch, memory=memory)
    for key, size in naming.zeros(network.architecture).items():
        yield key, np.zeros(size, np.float32)
    for key, number in naming.extras(network.architecture).items():
        yield key, np.asarray(number, np.int64)


def outline(network: Network, naming: Naming) -> dict[str, Stored]:
    """Key → shape and dtype of what `named` yields, in its order."""

    def described(shape: Shape, dtype: str) -> Stored:
        return Stored(tuple(shape), dtype, lambda: np.zeros(shape, dtype))

    stored = network.weights
    table = naming.table(network.architecture)
    tensors = {
        key: described(layout_shape(stored[hub].shape, torch=naming.torch), stored[hub].dtype)
        for hub, key in table.items()
    }
    tensors |= {key: described((size,), "float32") for key, size in naming.zeros(network.architecture).items()}
    return tensors | {key: described((), "int64") for key in naming.extras(network.architecture)}


def metadata(network: Network, naming: Naming) -> dict[str, str]:
    """What a safetensors file says of itself."""
    text = {"format": "pt", "naming": naming.name, "source": network.container}
    text["architecture"] = json.dumps(asdict(network.architecture), sort_keys=True)
    return text | ({"step": str(network.step)} if network.step is not None else {})


def left_behind(network: Network, naming: Naming) -> list[str]:
    """Hub names for which the naming has no place."""
    table = naming.table(network.architecture)
    return sorted(name for name in network.weights if name not in table)
