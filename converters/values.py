"""Scales the convolutions that a BatchNorm follows, and its statistics with them: no output changes.

SimCLR v1's and v2's official weights differ 16.8× in scale, which matters to weight decay and to plain SGD alone.

With kernel' = f · kernel, mean' = f · mean and variance' = f² (variance + ε) − ε, the normalised value
(f x − f mean) / sqrt(variance' + ε) is (x − mean) / sqrt(variance + ε).
"""

import dataclasses
from functools import partial

import numpy as np

from converters.names.describe import tensors
from converters.names.network import Network
from converters.names.walk import walk
from converters.tensors import Stored
from tf_simclr.errors import InputError, check
from tf_simclr.models.architecture import Architecture

_EPSILON = 1e-5


def rescaled(network: Network, factor: float) -> Network:
    """The network with its normalised convolutions multiplied by `factor`.

    Raises:
        InputError: the factor is not above 0; later, when a weight is read, that a moving variance is too small for it.
    """
    check(0 < factor < float("inf"), "the factor must be above 0", rescale=factor)
    scaled = dict(network.weights)
    # γ (w x - μ) / √(σ² + ε) stays as it is where w, μ and √(σ² + ε) grow by one factor.
    for conv, norm in normalised(network.architecture).items():
        for name in (f"{conv}/kernel", f"{norm}/moving_mean"):
            scaled[name] = network.weights[name].changed(partial(_times, factor=factor))
        name = f"{norm}/moving_variance"
        scaled[name] = network.weights[name].changed(partial(_grown, factor=factor, name=name))
    return dataclasses.replace(network, weights=scaled)


def normalised(architecture: Architecture) -> dict[str, str]:
    """Convolution → the BatchNorm that follows it; squeeze-excite's and a selective kernel's last one have none.

    Example:
        >>> normalised(Architecture(depth=18))["group1_block1_shortcut_conv"]
        'group1_block1_shortcut_bn'
    """
    names = {layer.name for layer in walk(architecture)}
    # Names pair by rule: conv1 with bn1, shortcut_conv with shortcut_bn.
    pairs = {name: name.replace("conv", "bn") for name in names if "conv" in name}
    return {conv: norm for conv, norm in sorted(pairs.items()) if norm in names}


def kernel_scale(network: Network) -> float:
    """Median over the normalised convolutions of the kernel's root mean square × the square root of its inputs."""
    scales = []
    for conv in normalised(network.architecture):
        kernel = network[f"{conv}/kernel"].astype(np.float64)
        # Root mean square times √(h · w · in): about 1 where the variance of outputs is that of inputs.
        scales.append(np.sqrt(np.mean(kernel**2) * np.prod(kernel.shape[:-1])))
    return float(np.median(scales))


def _times(array: np.ndarray, *, factor: float) -> np.ndarray:
    # Computed in double precision, stored in the type that came; so below.
    return (array.astype(np.float64) * factor).astype(array.dtype)


def _grown(array: np.ndarray, *, factor: float, name: str) -> np.ndarray:
    """A moving variance whose square root, with ε, is that times the factor."""
    wide = array.astype(np.float64)
    # √(s' + ε) = f √(s + ε), solved for s': a small f can take it below zero.
    scaled = factor**2 * (wide + _EPSILON) - _EPSILON
    if scaled.size and scaled.min() < 0:
        least = float(np.sqrt(_EPSILON / (wide.min() + _EPSILON)))
        raise InputError(f"the factor must be at least {least:.3g} for {name} not to become negative: {factor:g}")
    return scaled.astype(array.dtype)


WARNING = "WARNING: "
"""How notes on a weight begin, before its name."""


def _unfit(array: np.ndarray) -> str | None:
    """What is wrong with an array's values: NaN or infinite ones; None: nothing.

    Example:
        >>> _unfit(np.array([1.0, np.nan, np.inf]))
        '1 NaN, 1 infinite'
    """
    # Whole numbers have neither.
    if array.dtype.kind in "iub":
        return None
    with np.errstate(invalid="ignore", over="ignore"):
        # In double precision while that is cheap; of a large array a sum of its own type is one pass over it.
        # NaN and infinity survive it.
        total = np.sum(array, dtype=np.float64 if array.size < 1 << 16 else None)
    if np.isfinite(total):
        return None
    # The sum of large finite numbers may overflow, too: only here each is looked at.
    wide = array.astype(np.float64)
    counts = {"NaN": int(np.isnan(wide).sum()), "infinite": int(np.isinf(wide).sum())}
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count) or None


def suspicious(array: np.ndarray) -> str | None:
    """`_unfit`, or that all values are zero."""
    return _unfit(array) or ("all zero" if array.size and not array.any() else None)


def watched(network: Network, *, float32: bool) -> Network:
    """The network, where reading a tensor with NaN or infinite values leaves a note.

    Args:
        network: What was read.
        float32: Whether all is cast to float32; else integers only.
    """
    # What float32 files cannot hold, and integers everywhere: no framework computes a convolution with those.
    cast = {name for name, s in network.weights.items() if s.dtype != "float32" and (float32 or _is_integer(s.dtype))}
    # Each type with its count, said before the first is cast.
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
    def watch(array: np.ndarray) -> np.ndarray:
        wrong = _unfit(array)
        if wrong and name not in told:
            # Once a weight, however often it is read: by the writer, by the proof, by rescaling.
            told.add(name)
            notes.append(f"{WARNING}{name} has {wrong}.")
        return array.astype(np.float32) if cast else array

    return stored.changed(watch, dtype="float32" if cast else stored.dtype)


def tidy(network: Network) -> None:
    """Puts the notes on weights, which come as two threads read them, in the weights' order."""
    # Other notes keep their order and come first: sorting is stable.
    places = {name: i for i, name in enumerate(network.weights)}
    network.notes.sort(key=lambda note: places[note.split()[1]] if note.startswith(WARNING) else -1)
