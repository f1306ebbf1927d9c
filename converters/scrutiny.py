"""Values that a trained network should not have, and those that are cast: said while the weights go by."""

import dataclasses

import numpy as np

from converters.names.describe import tensors
from converters.names.network import Network
from converters.tensors import Stored

WARNING = "WARNING: "
"""How notes on a weight begin, before its name."""


def unfit(array: np.ndarray) -> str | None:
    """What is wrong with an array's values: NaN or infinite ones; None: nothing.

    Example:
        >>> unfit(np.array([1.0, np.nan, np.inf]))
        '1 NaN, 1 infinite'
    """
    if array.dtype.kind in "iub":
        return None
    with np.errstate(invalid="ignore", over="ignore"):
        total = np.sum(
            array, dtype=np.float64 if array.size < 1 << 16 else None
        )  # one pass; NaN and infinity survive it
    if np.isfinite(total):
        return None
    wide = array.astype(np.float64)
    counts = {"NaN": int(np.isnan(wide).sum()), "infinite": int(np.isinf(wide).sum())}
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count) or None


def suspicious(array: np.ndarray) -> str | None:
    """`unfit`, or that all values are zero."""
    return unfit(array) or ("all zero" if array.size and not array.any() else None)


def watched(network: Network, *, float32: bool) -> Network:
    """The network, where reading a tensor with NaN or infinite values leaves a note.

    Args:
        network: What was read.
        float32: Whether all is cast to float32; else integers only.
    """
    cast = {name for name, s in network.weights.items() if s.dtype != "float32" and (float32 or _is_integer(s.dtype))}
    for dtype in sorted({network.weights[name].dtype for name in cast}):
        count = sum(network.weights[name].dtype == dtype for name in cast)
        network.notes.append(f"{tensors(count)} of {dtype} cast to float32.")
    told: set[str] = set()
    notes = network.notes
    weights = {name: _watch(name, stored, notes, told, name in cast) for name, stored in network.weights.items()}
    return dataclasses.replace(network, weights=weights)


def _is_integer(dtype: str) -> bool:
    return dtype.startswith(("int", "uint", "bool"))


def _watch(name: str, stored: Stored, notes: list[str], told: set[str], cast: bool) -> Stored:
    def read() -> np.ndarray:
        array = stored.read()
        wrong = unfit(array)
        if wrong and name not in told:
            told.add(name)
            notes.append(f"{WARNING}{name} has {wrong}.")
        return array.astype(np.float32) if cast else array

    return Stored(stored.shape, "float32" if cast else stored.dtype, read)


def tidy(network: Network) -> None:
    """Puts the notes on weights, which come as two threads read them, in the weights' order."""
    places = {name: i for i, name in enumerate(network.weights)}
    network.notes.sort(key=lambda note: places[note.split()[1]] if note.startswith(WARNING) else -1)
