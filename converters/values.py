"""Scales the convolutions that a BatchNorm follows, and its statistics with them: no output changes.

SimCLR v1's and v2's official weights differ 16.8× in scale, which matters to weight decay and to plain SGD alone.

With kernel' = f · kernel, mean' = f · mean and variance' = f² (variance + ε) − ε, the normalised value
(f x − f mean) / sqrt(variance' + ε) is (x − mean) / sqrt(variance + ε).
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from converters.names.network import Network
from converters.names.walk import walk
from converters.tensors import Stored
from tf_simclr.errors import InputError, check
from tf_simclr.models.architecture import Architecture

EPSILON = 1e-5
Change = Callable[[np.ndarray, float, str], np.ndarray]


def rescaled(network: Network, factor: float) -> Network:
    """The network with its normalised convolutions multiplied by `factor`.

    Raises:
        InputError: the factor is not above 0; later, when a weight is read, that a moving variance is too small for it.
    """
    check(0 < factor < float("inf"), "the factor must be above 0", rescale=factor)
    scaled = dict(network.weights)
    for conv, norm in normalised(network.architecture).items():
        for name, change in ((f"{conv}/kernel", _multiply), (f"{norm}/moving_mean", _multiply)):
            scaled[name] = _changed(network.weights[name], change, factor, name)
        name = f"{norm}/moving_variance"
        scaled[name] = _changed(network.weights[name], _variance, factor, name)
    return dataclasses.replace(network, weights=scaled)


def normalised(architecture: Architecture) -> dict[str, str]:
    """Convolution → the BatchNorm that follows it; squeeze-excite's and a selective kernel's last one have none.

    Example:
        >>> normalised(Architecture(depth=18))["group1_block1_shortcut_conv"]
        'group1_block1_shortcut_bn'
    """
    names = {layer.name for layer in walk(architecture)}
    pairs = {name: name.replace("conv", "bn") for name in names if "conv" in name}
    return {conv: norm for conv, norm in sorted(pairs.items()) if norm in names}


def kernel_scale(network: Network) -> float:
    """Median over the normalised convolutions of the kernel's root mean square × the square root of its inputs."""
    scales = []
    for conv in normalised(network.architecture):
        kernel = network[f"{conv}/kernel"].astype(np.float64)
        scales.append(np.sqrt(np.mean(kernel**2) * np.prod(kernel.shape[:-1])))
    return float(np.median(scales))


def _changed(stored: Stored, change: Change, factor: float, name: str) -> Stored:
    def read() -> np.ndarray:
        array = stored.read()
        return change(array.astype(np.float64), factor, name).astype(array.dtype)

    return Stored(stored.shape, stored.dtype, read)


def _multiply(array: np.ndarray, factor: float, name: str) -> np.ndarray:
    return array * factor


def _variance(array: np.ndarray, factor: float, name: str) -> np.ndarray:
    scaled = factor**2 * (array + EPSILON) - EPSILON
    if scaled.size and scaled.min() < 0:
        least = float(np.sqrt(EPSILON / (array.min() + EPSILON)))
        raise InputError(f"the factor must be at least {least:.3g} for {name} not to become negative: {factor:g}")
    return scaled
