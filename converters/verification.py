"""Proof that two checkpoints are one network: every weight by name, and every endpoint on seeded images."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from converters.loading import open_source
from converters.names.network import Network
from converters.names.recognise import NAMINGS, recognise
from converters.names.walk import ENDPOINTS
from converters.networks import in_numpy
from tf_simclr.errors import check
from tf_simclr.frameworks import check_installed, installed
from tf_simclr.models.architecture import Architecture

IN_FLOAT32 = ("keras", "h5", "savedmodel")
"""Containers whose files are run by TensorFlow, which computes in float32."""

_ENGINES = ("auto", "numpy", "torch")
"""What can compute the endpoints of a PyTorch file."""

_LARGE = 200_000_000
"""Parameters above which float64 would ask for more memory than people have."""


@dataclass(frozen=True)
class Difference:
    """How far two tensors of one name are apart.

    Attributes:
        name: Endpoint or weight.
        largest: Largest absolute difference; infinite where the shapes differ.
        magnitude: Largest absolute value of the first.
    """

    name: str
    largest: float
    magnitude: float

    @property
    def relative(self) -> float:
        """Largest difference in units of the largest magnitude."""
        return self.largest / self.magnitude if self.magnitude else self.largest


def difference(a: np.ndarray, b: np.ndarray, *, name: str) -> Difference:
    """Compares two arrays; a NaN on one side only, or another shape, is an infinite difference."""
    if a.shape != b.shape:
        return Difference(name, float("inf"), float("nan"))
    wide = [x.astype(np.float64) for x in (a, b)]
    # Equal infinities differ by NaN and two NaNs are never equal: both count as the same.
    same = (wide[0] == wide[1]) | (np.isnan(wide[0]) & np.isnan(wide[1]))
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0.0, np.abs(wide[0] - wide[1]))
    largest = float(np.max(apart, initial=0.0))
    # An endpoint is judged by its largest value: near zero every relative difference is large.
    # Infinities do not count as a magnitude, or every difference would be small beside them.
    magnitude = float(np.max(np.abs(wide[0]), initial=0.0, where=np.isfinite(wide[0])))
    return Difference(name, float("inf") if np.isnan(largest) else largest, magnitude)


def compare(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> list[Difference]:
    """Compares the endpoints that both have, in the order of the computation."""
    return [difference(a[name], b[name], name=name) for name in sorted(a.keys() & b.keys(), key=_place)]


def _place(name: str) -> tuple[int, bool, str]:
    """Hidden projection layers come between the head's input and output."""
    # Endpoints in the order of the computation, hidden layers of the head by their own names between.
    named = name in ENDPOINTS
    return ENDPOINTS.index(name if named else "proj_head_output"), named, name


def images(architecture: Architecture, dtype: str, *, seed: int = 0) -> np.ndarray:
    """Two seeded images, as small as shows every kernel and border: 32 px for the small stem, else 64."""
    size = 32 if architecture.cifar_stem else 64
    return np.random.RandomState(seed).uniform(0, 1, (2, size, size, architecture.channels)).astype(dtype)


def precision(network: Network) -> str:
    """float64 unless the network is so large that its weights would not fit."""
    # 200 million numbers of 8 bytes are 1.6 GB.
    return "float64" if network.parameters <= _LARGE else "float32"


def tolerance(architecture: Architecture, dtype: str) -> float:
    """Of the largest magnitude: what two correct implementations of one network stay within."""
    if dtype == "float64":
        return 1e-10
    # float32 rounds at 6e-8, and each of some 150 layers adds to it.
    return 1e-4 if architecture.depth >= 152 else 1e-5


def numpy_endpoints(network: Network, inputs: np.ndarray, *, torchvision_pool: bool = False) -> dict[str, np.ndarray]:
    """Endpoints by the NumPy reference, NHWC.

    Args:
        network: Its weights are read one after the other.
        inputs: `(n, h, w, 3)`.
        torchvision_pool: Adds `in_numpy.TORCHVISION`.
    """
    with np.errstate(invalid="ignore", over="ignore"):  # weights may be NaN; the report says so
        return in_numpy.endpoints(network.architecture, network.__getitem__, inputs, torchvision_pool)


def _file_endpoints(path: Path, written: Network, *, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Endpoints by the NumPy reference from a PyTorch file's own tensors, in the layout that PyTorch documents.

    Nothing of what laid them out has a part in it: a kernel is `(out, in, h, w)`, a matrix `(out, in)`.
    """
    source, naming = open_source(path), NAMINGS[written.naming]
    # Their file in their names, read again through the table: no code of the twin takes part.
    table = naming.table(written.architecture)
    outer = recognise(source.tensors.keys(), what=str(path), naming=naming.name).outer

    def read(hub: str) -> np.ndarray:
        array = source.tensors[outer + table[hub]].read()
        # (out, in, h, w) → (h, w, in, out); (out, in) → (in, out)
        return np.array(array.transpose({4: (2, 3, 1, 0), 2: (1, 0)}.get(array.ndim)), inputs.dtype, order="C")

    with contextlib.closing(source), np.errstate(invalid="ignore", over="ignore"):
        return in_numpy.endpoints(written.architecture, read, inputs)


def torch_endpoints(network: Network, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Endpoints by the PyTorch twin, NHWC.

    Args:
        network: Its weights are loaded into the twin.
        inputs: `(n, h, w, 3)`.

    Raises:
        InputError: PyTorch is not installed.
    """
    check_installed("the engine torch", "torch")
    import torch

    from converters.networks.in_torch import build_twin

    # Of the type of the images, float64 as a rule.
    model = build_twin(network, dtype=torch.from_numpy(inputs[:0]).dtype)
    with torch.inference_mode():
        ends = model(torch.from_numpy(np.ascontiguousarray(inputs.transpose(0, 3, 1, 2))))
    # (n, c, h, w) → (n, h, w, c), as the others have it
    return {name: (x.permute(0, 2, 3, 1) if x.ndim == 4 else x).numpy() for name, x in ends.items()}


def keras_endpoints(network: Network, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Endpoints by the Keras network, in Keras' float type.

    Raises:
        InputError: Keras is not installed.
    """
    check_installed("the engine keras", "keras")
    from converters.networks.in_keras import build_keras

    return {name: np.asarray(x) for name, x in build_keras(network)(inputs, training=False).items()}


def engine_of(name: str) -> str:
    """`numpy` or `torch`: what `auto` means here, PyTorch where it is installed.

    Raises:
        InputError: there is no such engine, or it is not installed.
    """
    check(name in _ENGINES, f"engine must be one of {', '.join(_ENGINES)}", engine=name)
    if name == "torch":
        check_installed("the engine torch", "torch")
    return ("torch" if installed("torch") else "numpy") if name == "auto" else name


def written_endpoints(
    path: Path, written: Network, *, inputs: np.ndarray, to: str, engine: str
) -> tuple[dict[str, np.ndarray], str]:
    """Endpoints of a written file: Keras' and TensorFlow's by these, PyTorch's by `engine`, checkpoints by NumPy.

    Returns:
        The endpoints, and what computed them, as a person calls it.
    """
    if NAMINGS[written.naming].torch and engine == "torch":
        return torch_endpoints(written, inputs), "PyTorch"
    if NAMINGS[written.naming].torch:
        return _file_endpoints(path, written, inputs=inputs), "NumPy"
    if to not in IN_FLOAT32:
        return numpy_endpoints(written, inputs), "NumPy"
    from converters.networks import in_keras

    if to == "savedmodel":
        return in_keras.run_saved_model(path, inputs), "TensorFlow"
    if to == "keras":
        return in_keras.run_keras_file(path, inputs), "Keras"
    return in_keras.run_weights_file(path, inputs, network=written), "Keras"
