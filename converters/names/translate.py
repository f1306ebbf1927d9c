"""A network under a naming: keys, arrays in the naming's layout, and what the naming has beside weights."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np

from converters.layout import chunks_in_layout, layout_shape, to_layout
from converters.names.naming import Naming
from converters.names.network import Network
from converters.tensors import Stored


def named(network: Network, naming: Naming) -> dict[str, Stored]:
    """Key → tensor of every weight in the naming's layout, and of what else it needs."""
    architecture = network.architecture
    table = naming.table(architecture).items()
    # Lazy: nothing is read or transposed before it is written.
    tensors = {key: _laid_out(network.weights[hub], torch=naming.torch) for hub, key in table}
    # Biases that the other project has and SimCLR has not, as zeros; counters, and the selector.
    tensors |= {key: _constant(np.zeros(size, np.float32)) for key, size in naming.zeros(architecture).items()}
    extras = naming.extras(architecture).items()
    return tensors | {key: _constant(np.asarray(number, np.int64)) for key, number in extras}


def arrays(network: Network, naming: Naming) -> Iterator[tuple[str, np.ndarray]]:
    """Key and array of each, one after the other."""
    return ((key, stored.read()) for key, stored in named(network, naming).items())


def _laid_out(stored: Stored, *, torch: bool) -> Stored:
    whole = stored.changed(partial(to_layout, torch=torch), shape=layout_shape(stored.shape, torch=torch))
    return replace(whole, chunks=lambda: chunks_in_layout(stored.read(), torch=torch))


def _constant(array: np.ndarray) -> Stored:
    return Stored(array.shape, array.dtype.name, lambda: array)


def description(network: Network, naming: Naming) -> dict[str, Any]:
    """What a file says of the network in it, in plain types."""
    about = {"architecture": asdict(network.architecture), "naming": naming.name, "source": network.container}
    return about | ({"step": network.step} if network.step is not None else {})


def left_behind(network: Network, naming: Naming) -> list[str]:
    """Hub names for which the naming has no place."""
    table = naming.table(network.architecture)
    return sorted(name for name in network.weights if name not in table)
