"""Checkpoints of any kind as Keras networks: the one module of the library that knows the converters."""

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_simclr.models.architecture import Architecture

if TYPE_CHECKING:
    import keras


def load_model(path: Any, **selection: Any) -> "keras.Model":
    """Loads a checkpoint of any kind as a Keras network.

    Args:
        path: a run folder, an official SimCLR checkpoint, SavedModel or hub module, or PyTorch weights; recognised by
            content.  Where nothing lies there: an official name, such as `simclrv2/pretrained/r50_1x_sk0`, or
            `hf://user/repo` or `hf://user/repo@revision`; both are downloaded once and kept.
        **selection: as in `converters.load`: `ema`, `part`, `selector`, `step`, `source_part`.

    Returns:
        A trainable model from images `(n, h, w, 3)` in [0, 1] to a dict by the official endpoint names
        (`tf_simclr.models.network.build`).

    Raises:
        InputError: the file is damaged, not whole, or of no known kind.
    """
    from converters.loading import load
    from converters.networks.in_keras import build_keras

    with contextlib.closing(load(path, **selection)) as network:
        return build_keras(network)


def read_network(path: Any, **selection: Any) -> tuple[Architecture, dict[str, np.ndarray]]:
    """Reads a checkpoint of any kind as its architecture and every weight by name (`stem_conv1/kernel`).

    Arguments and errors as in `load_model`.
    """
    from converters.loading import load

    network = load(path, **selection)
    try:
        return network.architecture, {name: network[name] for name in network.weights}
    finally:
        network.close()


def load_encoder(path: Any, **selection: Any) -> "keras.Model":
    """Loads the encoder of a checkpoint of any kind, without heads.

    Args:
        path: as in `load_model`.
        **selection: as in `load_model`.

    Returns:
        A trainable model from images `(n, h, w, 3)` in [0, 1] to features `(n, d)`.

    Raises:
        InputError: the file is damaged, not whole, or of no known kind.
    """
    import keras

    model = load_model(path, **selection | {"part": "encoder"})
    return keras.Model(model.input, model.output["final_avg_pool"], name="encoder")


def write_safetensors(network: "keras.Model", path: Path) -> bool:
    """Writes a Keras network as safetensors under the names of the PyTorch twin; false where it is no ResNet of ours.

    Args:
        network: images to endpoints.
        path: the file.
    """
    import converters
    from tf_simclr.errors import InputError

    with tempfile.TemporaryDirectory() as folder:
        network.save(Path(folder) / "network.keras")
        try:
            converters.convert(Path(folder) / "network.keras", path, to="safetensors", verify=False)
        except InputError:  # an encoder of another kind: Keras' form is the only one that it has
            return False
    return True
