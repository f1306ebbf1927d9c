"""Keras' `.keras` and `.weights.h5` files: Keras names a layer there by its class and its place among its kind.

References:
    keras-team/keras keras/src/saving/saving_lib.py, `_save_container_state`
"""

import io
import json
import zipfile
from pathlib import Path

import h5py

from converters.keras_groups import layer_groups_of
from converters.stored import Source, Stored
from tf_simclr.errors import InputError, check

WEIGHTS = "model.weights.h5"

_ORDER = {
    "conv": ("kernel", "bias"),
    "dense": ("kernel", "bias"),
    "bn": ("gamma", "beta", "moving_mean", "moving_variance"),
}


def open_keras(path: Path) -> Source:
    """Opens a model that this project built, or a part of it; weights get their layers' names.

    Raises:
        InputError: the file is damaged, or holds layers that are none of a SimCLR network.
    """
    try:
        if zipfile.is_zipfile(path):
            return _open_model(path)
        file = h5py.File(path)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} must be a whole Keras file, but {error}") from error
    return _open_weights(path, file)


def _open_model(path: Path) -> Source:
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
        # HDF5 seeks; the member is stored without compression in the files that Keras writes.
        file = h5py.File(io.BytesIO(archive.read(WEIGHTS)))
    source = _source(path, ".keras file", file, layer_groups_of(config))
    source.selector = _selector(config)
    source.selector_from = "the model's configuration" if source.selector is not None else ""
    return source


def _open_weights(path: Path, file: h5py.File) -> Source:
    """The file names no layer: a network of the same sizes is built and its order taken."""
    from converters.keras_order import layer_groups

    return _source(path, ".weights.h5 file", file, layer_groups(path, _shapes(file)))


def _shapes(file: h5py.File) -> dict[str, tuple[int, ...]]:
    """Path → shape of every array of weights."""
    shapes: dict[str, tuple[int, ...]] = {}

    def visit(name: str, item) -> None:
        if isinstance(item, h5py.Dataset) and "/vars/" in name and not name.startswith("optimizer"):
            shapes[name] = tuple(item.shape)

    file.visititems(visit)
    return shapes


def _source(path: Path, container: str, file: h5py.File, groups: dict[str, tuple[str, str]]) -> Source:
    """Gives each array its hub name.

    Args:
        path: For errors.
        container: In words.
        file: Opened.
        groups: Group in the file → layer name and kind.
    """
    tensors = {}
    for key in _shapes(file):
        group, index = key.rsplit("/vars/", 1)
        layer, kind = groups.get(group, ("", ""))
        check(bool(layer), f"{path} must hold this project's networks only", found=group)
        tensors[f"{layer}/{_weight(kind, int(index), len(file[group + '/vars']))}"] = _stored(file[key])
    return Source(path, container, tensors, close=file.close)


def _weight(kind: str, index: int, count: int) -> str:
    names = _ORDER[kind]
    return names[index] if kind != "bn" or count == len(names) else ("gamma", "moving_mean", "moving_variance")[index]


def _stored(dataset: h5py.Dataset) -> Stored:
    return Stored(tuple(dataset.shape), dataset.dtype.name, lambda: dataset[()])


def _selector(config: dict) -> int | None:
    """Which output of the projection head feeds the classifier; None: there is no classifier."""
    layers = config.get("config", {}).get("layers", [])
    classifier = next((layer for layer in layers if layer["config"].get("name") == "logits_sup"), None)
    if classifier is None:
        return None
    name, _, output = _history(classifier["inbound_nodes"])
    return output if name == "projection_head" else 0


def _history(node) -> list:
    """The first `keras_history` – layer, node, output – in a node's description."""
    if isinstance(node, dict) and "keras_history" in node:
        return node["keras_history"]
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return next((found for child in children if (found := _history(child))), [])
