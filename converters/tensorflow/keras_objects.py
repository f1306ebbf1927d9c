"""Keras models in TensorFlow's object checkpoints and SavedModels: `tf.train.Checkpoint(model=…)`, `model.export(…)`,
`tf.saved_model.save(model, …)`.

The object graph stores each variable's name, and Keras 3 makes it of the layer's name: `stem_conv1/kernel`.  The
attributes that lead there (`model/_operations/4/_kernel`) count layers of this kind of model in this version of Keras,
and tell in which model of several a layer is.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from converters.keras_files.layers import (
    LAYER,
    MOCO_KEYS,
    NOT_READ,
    OPTIMIZER,
    STEM,
    LayerArrays,
    Surroundings,
    assemble,
)
from converters.tensorflow.bundle import Bundle
from converters.tensorflow.object_graph import SLOT, SUFFIX, Variable
from converters.tensors import Source, Stored
from tf_simclr.errors import check

_OFFICIAL = {"resnet_model", "_projection_head", "supervised_head"}
"""Attributes of the official TF2 model, and of SavedModels that this project writes for its users."""
_STEP = re.compile(r"(^|/)(save_counter|step|global_step|epoch)$")


def holds_keras(variables: Iterable[Variable]) -> bool:
    """Whether these are a Keras model's that has this project's encoder in it, and not the official code's."""
    # Variables whose paths have none of the official model's attributes, among them the encoder's first layer.
    variables = list(variables)
    official = any(_OFFICIAL & set((variable.path or "").split("/")) for variable in variables)
    return not official and any(_layer_and_weight(v)[0].removeprefix(MOCO_KEYS) == STEM for v in variables)


def _layer_and_weight(variable: Variable) -> tuple[str, str]:
    """Layer and weight of a variable's name."""
    *owners, weight = variable.name.split("/")
    return (owners[-1], weight) if owners else ("", variable.name or variable.key)


def open_objects(
    path: Path,
    container: str,
    *,
    bundle: Bundle,
    variables: list[Variable],
    read: Callable[[str], Stored],
    before: list[str],
) -> Source:
    """The source of a Keras model in an object checkpoint or SavedModel.

    Args:
        path: As the user gave it.
        container: What it is, in words.
        bundle: Opened.
        variables: Of its object graph.
        read: Key in the bundle → its tensor.
        before: Layers that the stored graph has before the encoder; empty: there are none, or no graph.

    Raises:
        InputError: two networks have the same names, and nothing tells which variable belongs to which.
    """
    # Slots and counters first, so that what remains are weights.
    named = _optimizers(variables)
    slots = [v.key for v in variables if _is_optimizers(v, named)]
    weights = [v for v in variables if not _is_optimizers(v, named)]
    # (scope, layer) → weight → variable: layers of equal names in two models stay apart.
    layers: dict[tuple[str, str], dict[str, Variable]] = {}
    for variable in weights:
        layer, weight = _layer_and_weight(variable)
        place = (_scope(variable), layer or variable.path or variable.key)
        # The graph may lead to one variable twice; two of one name must have one content.
        other = layers.setdefault(place, {}).setdefault(weight, variable)
        check(
            _same(bundle, other, variable),
            f"{path} must give each network in it its own names, but two weights that differ have the name "
            f"{variable.name}, and an exported model does not tell which belongs to which: save the model as .keras, "
            "or its encoder alone",
            keys=[other.key, variable.key],
        )
    found = [_layer(scope, name, arrays=arrays, read=read) for (scope, name), arrays in layers.items()]
    found += [LayerArrays("optimizer", "", "", {_short(key): NOT_READ for key in slots})]
    around = Surroundings(before=before) if before else _around(weights)
    return assemble(path, container, layers=found, around=around, close=bundle.close)


def _short(key: str) -> str:
    return key.removesuffix(SUFFIX).removeprefix("optimizer/")


def _optimizers(variables: Iterable[Variable]) -> set[str]:
    """Names of Keras' optimizers, whatever attribute holds them: what counts iterations and has a learning rate."""
    owners: dict[str, set[str]] = {"iteration": set(), "learning_rate": set()}
    for variable in variables:
        owner, weight = _layer_and_weight(variable)
        owners.get(weight, set()).add(owner)
    # Any name will do, `optimizer`, `adam`, `inner_optimizer`: what owns both variables is an optimizer.
    return (owners["iteration"] & owners["learning_rate"]) - {""}


def _is_optimizers(variable: Variable, named: set[str]) -> bool:
    path = variable.path or ""
    if _layer_and_weight(variable)[0] in named:
        return True
    if SLOT in path or OPTIMIZER.search(path):
        return True
    # An optimizer lists the model's weights, too; those it has made itself are named after it.
    return variable.path is None and "optimizer" in variable.key and not LAYER.fullmatch(_layer_and_weight(variable)[0])


def _scope(variable: Variable) -> str:
    """The model that holds the layer, by the attributes that lead to it; empty where only lists do."""
    if variable.path is None:
        return ""
    parts = variable.path.split("/")[:-1]
    # A layer in a list: its model is two steps up.
    if len(parts) > 1 and parts[-1].isdigit() and parts[-2] in ("_operations", "_layers"):
        parts = parts[:-2]
    elif parts:
        parts = parts[:-1]
    return "/".join(part for part in parts if part not in ("_operations", "_functional"))


def _same(bundle: Bundle, a: Variable, b: Variable) -> bool:
    """Whether two variables have one content, by the checksums in the index: exports keep some variables twice."""
    first, second = bundle.entries[a.key], bundle.entries[b.key]
    # By the checksums that the index has anyway: nothing is read.
    alike = (first.dtype, first.shape, first.crc, first.size) == (second.dtype, second.shape, second.crc, second.size)
    return a.key == b.key or (alike and not first.slices and not second.slices)


def _layer(scope: str, name: str, *, arrays: dict[str, Variable], read: Callable[[str], Stored]) -> LayerArrays:
    first = next(iter(arrays.values()))
    place = (first.path or first.key).rpartition("/")[0]
    found = {weight: read(variable.key) for weight, variable in arrays.items()}
    sizes = [stored.shape for stored in found.values() if stored.shape]
    words = f"{name}({sizes[0][-1]})" if sizes else name
    if _STEP.search(first.path or ""):
        place = "metrics"
    return LayerArrays(place, scope, name if "/" not in name else "", found, words=words)


def _around(weights: list[Variable]) -> Surroundings:
    """Layers without weights have no names in an object graph; how many stand before the encoder can be counted."""
    path = next((v.path for v in weights if v.path and _layer_and_weight(v) == (STEM, "kernel")), "")
    # The numbers along the path count layers before each one.
    numbers = [int(number) for number in re.findall(r"_operations/(\d+)(?=/)", path)]
    # A model begins with its input; the encoder's first layer is padded where its stride is 2.
    count = sum(max(number - 1, 0) for number in numbers[:-1]) + max((numbers or [0])[-1] - 2, 0)
    if not count:
        return Surroundings()
    words = f"{count} layer{'s' if count > 1 else ''} without weights, whose kind a checkpoint does not store"
    return Surroundings(before=[words])
