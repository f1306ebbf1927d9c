"""Keras' files: `.keras` (zipped or a folder), `.weights.h5`, and the HDF5 files of whole models that preceded them.

References:
    keras-team/keras keras/src/saving/saving_lib.py (`_save_state`, `H5IOStore`),
    keras/src/legacy/saving/legacy_h5_format.py
"""

import contextlib
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py

from converters.keras_files import hdf5
from converters.keras_files.config import ANY_LAYER, layer_groups_of, read_config
from converters.keras_files.layers import LAYER, NOT_READ, LayerArrays, Surroundings, assemble
from converters.opening.zips import opened_zip
from converters.tensors import Source
from tf_simclr.errors import check
from tf_simclr.foreign import is_plain, parse_json, reading, spend

_CONFIG = "config.json"
_WEIGHTS = "model.weights.h5"
_SHARDED = ".weights.json"
"""Ending of the index of weights in several files, `model.save_weights("m.weights.json", max_shard_size=…)`."""

_INPUT_LAYERS = ("rescaling", "normalization", "resizing", "center_crop")
"""Classes, as `.weights.h5` files name them, that change images where they stand before an encoder."""


def open_keras(path: Path) -> Source:
    """Opens a Keras file whose model has this project's encoder in it; what surrounds that is listed.

    Args:
        path: A `.keras` file or folder, a `.weights.h5` file or the index of several (`.weights.json`), or an HDF5 file
            of the legacy format.

    Raises:
        InputError: the file is damaged, no encoder of this project is in it, or it is one that weights alone would
            show wrong.
    """
    with reading(path, "a whole Keras file that holds an encoder of tf_simclr"):
        if path.name.endswith(_SHARDED):
            return _open_sharded(path)
        # By what is there: a folder, a zip, or HDF5, in which attributes tell the two formats apart.
        if path.is_dir():
            config = parse_json((path / _CONFIG).read_bytes())
            return _open_model(path, "Keras folder", file=hdf5.open_hdf5(path / _WEIGHTS), config=config)
        if zipfile.is_zipfile(path):
            content, config = _unzip(path)
            return _open_model(path, ".keras file", file=hdf5.open_hdf5(path, content), config=config)
        file = hdf5.open_hdf5(path)
        # The format before `.keras` names its layers in attributes.
        if "layer_names" in file.attrs or "model_weights" in file:
            return _open_legacy(path, file)
        return _open_weights(path, file)


def _unzip(path: Path) -> tuple[bytes, Any]:
    """The weights' file, whose checksum the zip holds, and the configuration."""
    with opened_zip(path) as archive:
        names = archive.namelist()
        check(_WEIGHTS in names, f"it must hold {_WEIGHTS}, the one form of weights that is read", members=names[:10])
        spend(made=archive.getinfo(_WEIGHTS).file_size, outline=archive.getinfo(_CONFIG).file_size)
        # HDF5 seeks; the member is stored without compression in the files that Keras writes.
        return archive.read(_WEIGHTS), parse_json(archive.read(_CONFIG))


def _open_model(path: Path, container: str, *, file: h5py.File, config: Any) -> Source:
    # The configuration first: it names the groups in the file, and refuses another network before weights are read.
    around = read_config(config)
    layers = list(_layers(path, file, layer_groups_of(config)))
    return assemble(path, container, layers=layers, around=around, close=file.close)


def _open_weights(path: Path, file: h5py.File) -> Source:
    """A file without a configuration: the groups' attributes name the layers."""
    layers = list(_layers(path, file, {}))
    check(bool(layers), f"{path} must hold weights of a Keras model, but has no groups `vars`", groups=list(file)[:5])
    check(
        any(layer.name for layer in layers),
        f"{path} must name its layers, as files of Keras 3.7 and later do: without, weights of one shape look "
        "alike; load it into its model, and save that as .keras",
        layers=[layer.path for layer in layers][:5],
    )
    return assemble(path, ".weights.h5 file", layers=layers, around=_around_of_groups(file), close=file.close)


def _open_sharded(path: Path) -> Source:
    """Weights in several `.weights.h5` files; one layer's may be in two of them."""
    index = parse_json(path.read_bytes())
    places = index.get("weight_map") if isinstance(index, dict) else None
    values = list(places.values()) if isinstance(places, dict) else []
    listed = [name for value in values for name in (value if isinstance(value, list) else [value])]
    check(bool(listed) and all(isinstance(name, str) for name in listed), f"{path} must list files in its weight_map")
    # Each once, in the order of the index.
    names = list(dict.fromkeys(listed))
    wrong = [name for name in names if not is_plain(name) or not (path.parent / name).is_file()]
    check(not wrong, f"every file that {path} lists must lie beside it; copy them as well", missing=wrong[:5])
    layers: dict[str, LayerArrays] = {}
    with contextlib.ExitStack() as opened:
        files = {name: opened.enter_context(hdf5.open_hdf5(path.parent / name)) for name in names}
        # Where a layer's weights begin a new file, its name has stayed in the one before.
        known = {place: (name, "") for file in files.values() for place, name in _names(file) if name}
        for name, file in files.items():
            for layer in _layers(path.parent / name, file, known):
                # The first file that has a layer names it; a second may have more of its weights.
                earlier = layers.setdefault(layer.path, layer)
                twice = sorted(earlier.arrays.keys() & layer.arrays.keys()) if earlier is not layer else []
                check(not twice, f"{path} must have each weight in one of its files", twice=[layer.path, *twice])
                layers[layer.path] = replace(layer, arrays=earlier.arrays | layer.arrays)
        source = assemble(path, f"{len(names)} .weights.h5 files", layers=list(layers.values()), around=Surroundings())
        source.close = opened.pop_all().close
    return source


def _names(file: h5py.File) -> Iterator[tuple[str, str]]:
    """Place and name of every layer that the groups name."""
    for key, item in hdf5.objects(file):
        if isinstance(item, h5py.Group) and key.endswith("/vars"):
            yield key.removesuffix("/vars"), hdf5.text_attribute(item, "name")


def _around_of_groups(file: h5py.File) -> Surroundings:
    """Layers without weights have an empty group each; their order is not stored."""
    groups = [name for name, item in hdf5.objects(file) if isinstance(item, h5py.Group) and name.endswith("/vars")]
    # `rescaling_1` is a rescaling: the number is its place.
    kinds = [re.sub(r"_\d+$", "", name.split("/")[-2]) for name in groups]
    words = ["".join(part.title() for part in kind.split("_")) for kind in kinds if kind in _INPUT_LAYERS]
    return Surroundings(before=words, uncertain=True)


def _layers(path: Path, file: h5py.File, known: Mapping[str, tuple[str, str]]) -> Iterator[LayerArrays]:
    """Every group with weights.

    Args:
        path: The file.
        file: Opened.
        known: Group → name and class by the configuration; where a group gives its layer's name, that is taken.
    """
    # 1. The outline. 2. Groups `vars` with numbers in them. 3. Each with
    #    its layer's name: by its attribute, or by the configuration.
    items = dict(hdf5.objects(file))
    datasets = {key: item for key, item in items.items() if isinstance(item, h5py.Dataset)}
    checksums = hdf5.checksums_of(path, file)
    weights: dict[str, dict[str, h5py.Dataset]] = {}
    for key, dataset in datasets.items():
        group, _, number = key.rpartition("/")
        if group.endswith("/vars") or group == "vars":
            weights.setdefault(group, {})[number] = dataset
    for group, arrays in weights.items():
        place = group.removesuffix("vars").removesuffix("/")
        name, kind = known.get(place, ("", ""))
        name = hdf5.text_attribute(items[group], "name") or name
        yield LayerArrays(
            place,
            _scope(place, known),
            name,
            {
                number: hdf5.stored(path, f"{group}/{number}", dataset=item, checksums=checksums)
                for number, item in arrays.items()
            },
            words=_words(place, kind, name=name, arrays=list(arrays.values())),
        )


def _scope(place: str, known: Mapping[str, tuple[str, str]]) -> str:
    """The model that holds a layer, by its name where that is known: `layers/functional/layers/add` → `encoder`."""
    parts = place.split("/")[:-1]
    names = (known.get("/".join(parts[: i + 1]), (part, ""))[0] for i, part in enumerate(parts) if part != "layers")
    return "/".join(names)


def _words(place: str, kind: str, *, name: str, arrays: list[h5py.Dataset]) -> str:
    """A group's name tells the class in a list of layers, else the attribute that holds the layer."""
    *parents, last = place.split("/")
    if not kind and parents[-1:] == ["layers"]:
        kind = "".join(part.title() for part in re.sub(r"_\d+$", "", last).split("_"))
    sizes = [array.shape for array in arrays if array.shape]
    return f"{kind or name or place}({sizes[0][-1]})" if sizes and kind in ("Dense", "") else kind


def _open_legacy(path: Path, file: h5py.File) -> Source:
    """A whole model, or the weights of one, as Keras 2 and `model.save("….h5")` write it: arrays have names there."""
    around = Surroundings()
    whole = "model_weights" in file
    if whole:
        # 1. A whole model has its configuration in an attribute.
        config = hdf5.text_attribute(file, "model_config")
        check(bool(config), f"{path} must hold its model's configuration in the attribute model_config")
        around = read_config(parse_json(config))
    root = file["model_weights"] if whole else file
    check(isinstance(root, h5py.Group), f"{path} must hold a group model_weights", found=type(root).__name__)
    # 2. Layers and weights in the order that the attributes list them.
    items = dict(hdf5.objects(root))
    arrays: dict[tuple[str, str], dict[str, h5py.Dataset]] = {}
    for layer in hdf5.texts_attribute(root, "layer_names"):
        group = items.get(layer)
        check(isinstance(group, h5py.Group), f"{path} must hold every layer that it lists", missing=layer)
        for name in hdf5.texts_attribute(group, "weight_names"):
            item = items.get(f"{layer}/{name}")
            check(isinstance(item, h5py.Dataset), f"{path} must hold every weight that it lists", missing=name)
            # `model/stem_conv1/kernel:0`: layer, then weight; a model within the model is in the name, too.
            inner, _, weight = name.removesuffix(":0").rpartition("/")
            arrays.setdefault((layer, inner), {})[weight] = item
    # 3. What has no weights is told of, as far as names tell.
    if not whole:  # the layers without weights are named there, too
        held = {layer for layer, _ in arrays}
        bare = [name for name in hdf5.texts_attribute(root, "layer_names") if name not in held]
        around.before = [name for name in bare if not name.startswith("input") and not ANY_LAYER.fullmatch(name)]
        around.uncertain = True
    layers = [_legacy_layer(path, *place, arrays=found) for place, found in arrays.items()]
    # 4. The optimizer's are listed, and not read.
    if "optimizer_weights" in file and isinstance(file["optimizer_weights"], h5py.Group):
        names = [key for key, item in hdf5.objects(file["optimizer_weights"]) if isinstance(item, h5py.Dataset)]
        layers.append(LayerArrays("optimizer", "", "", dict.fromkeys(names, NOT_READ)))
    container = "legacy Keras .h5 file" if whole else "legacy Keras .h5 file of weights"
    return assemble(path, container, layers=layers, around=around, close=file.close)


def _legacy_layer(path: Path, layer: str, inner: str, *, arrays: dict[str, h5py.Dataset]) -> LayerArrays:
    """A layer of the model's own, or one of a model in it: then its name is in the names of its weights."""
    # `model/group1_block1_conv1/kernel`: the last part before the weight is the layer.
    name = inner.rpartition("/")[2]
    place = f"{layer}/{inner}"
    own = LAYER.fullmatch(name) is not None
    found = {
        weight: hdf5.stored(path, f"{place}/{weight}", dataset=item, checksums={}) for weight, item in arrays.items()
    }
    sizes = [item.shape for item in arrays.values() if item.shape]
    words = f"{name or layer}({sizes[0][-1]})" if sizes else name or layer
    scope = layer if layer != name else ""
    return LayerArrays(place, scope, name if own else name or layer, found, words=words)
