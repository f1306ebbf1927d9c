"""SavedModels of the official TF2 code: which variable is which, and writing one.

The keys of a SavedModel's variables (`trainable_variables_list/17/…`, `model/resnet_model/variables/230/…`) depend on
the version of Keras that wrote it.  The stored object graph tells what they are: by the attributes that lead to a
variable, else by the variable's name.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.names.walk import ENDPOINTS
from converters.tensorflow.bundle import Bundle
from converters.tensorflow.object_graph import SLOT, Variable, canonical
from tf_simclr.errors import InputError, check
from tf_simclr.models.architecture import Architecture

if TYPE_CHECKING:
    import keras

_LAYER = re.compile(r"(?:sync_)?(?P<kind>conv2d|batch_normalization|dense)(?:_(?P<number>\d+))?")
_ENCODER = re.compile(r"resnet(?:_\d+)?")
_HEADS = re.compile(r"(?:projection_head|head_supervised)(?:_\d+)?")
_HEAD = re.compile(r"n?l_\d+|linear_layer")


@dataclass(frozen=True)
class _Named:
    """The name of a variable of the official TF2 model, e.g. `resnet/…/conv2d_7/kernel`, in its parts.

    Attributes:
        kind: Of the layer; layers of a kind are numbered over the whole model, or process.
        number: Of the layer.
        weight: The variable's own name.
        head: The head's layer; empty: the variable is the encoder's.
    """

    kind: str
    number: int
    weight: str
    head: str


def variable_keys(bundle: Bundle, variables: list[Variable]) -> dict[str, str]:
    """Finds out what the keys of a TF1 checkpoint, a TF2 object checkpoint or a SavedModel stand for.

    Args:
        bundle: Opened.
        variables: What `read_variables` found in it.

    Returns:
        Name that does not depend on what wrote the checkpoint -> key in the bundle; optimizer slots included.  Names
        are object paths, `model/resnet_model/…/kernel`, or TF1's variable names, `base_model/…/kernel`.

    Raises:
        InputError: the object graph tells neither by attributes nor by names what a variable is.
    """
    if not variables:
        return {key: key for key in bundle}
    weights = [variable for variable in variables if SLOT not in (variable.path or "")]
    # Keras' own export reaches some variables through numbered lists only: their names tell then.
    # One variable without a path: then all go by their names, which both kinds of export have.
    if any(variable.path is None for variable in weights):
        return by_name(weights, bundle.index)
    return {canonical(v.path): v.key for v in variables if v.path is not None}


def by_name(variables: list[Variable], index: object) -> dict[str, str]:
    """TF1 name -> key, from the names of variables.

    The encoder's layers are renumbered by their rank, as numbers go on from any model that the process built before.
    """
    found = {variable.key: _parse_name(variable.name) for variable in variables}
    # Neither a name of the official model nor a path: it cannot be placed.
    unknown = sorted(variable.name for variable in variables if not found[variable.key] and variable.path is None)
    check(
        not unknown,
        f"{index} must be a SavedModel of the official code: neither its object graph nor the names of its "
        "variables tell what they are",
        names=unknown[:20],
    )
    matches = {key: match for key, match in found.items() if match}
    # Keras counts layers through a process: ranks among those that are there are the official numbers.
    numbers = {(m.kind, m.number) for m in matches.values() if not m.head}
    kinds = {kind for kind, _ in numbers}
    # conv2d_53 … conv2d_105 of the second model in a process are conv2d … conv2d_52 of the official one.
    ranks = {kind: {n: i for i, n in enumerate(sorted(n for k, n in numbers if k == kind))} for kind in kinds}
    names = {_tf1_name(match, ranks): key for key, match in matches.items()}
    check(len(names) == len(matches), f"{index} must hold one model", variables=len(matches), names=len(names))
    return names


def _parse_name(name: str) -> _Named | None:
    """The parts of a variable's name, by the last part of the model in it; None: the official model has none such."""
    *owners, layer, weight = ["", *name.split("/")]
    # layer, weight: the last two of the name; what stands before are scopes.
    found = _LAYER.fullmatch(layer)
    if not found or not re.fullmatch(r"\w+", weight):
        return None
    # From the inside out: a model within a model has its own scope nearest to the layer.
    for i in reversed(range(len(owners))):
        head = owners[i + 1] if i + 1 < len(owners) and _HEADS.fullmatch(owners[i]) else ""
        if _ENCODER.fullmatch(owners[i]) or _HEAD.fullmatch(head):
            return _Named(found["kind"], int(found["number"] or 0), weight, head if _HEAD.fullmatch(head) else "")
    return None


def _tf1_name(named: _Named, ranks: dict[str, dict[int, int]]) -> str:
    """The TF1 name of a variable of the TF2 model."""
    if named.head:
        part = "head_supervised" if named.head == "linear_layer" else "head_contrastive"
        return f"{part}/{named.head}/{named.kind}/{named.weight}"
    rank = ranks[named.kind][named.number]
    return f"base_model/{named.kind}_{rank}/{named.weight}" if rank else f"base_model/{named.kind}/{named.weight}"


def write_saved_model(folder: Path, model: "keras.Model", *, architecture: Architecture) -> None:
    """Writes a SavedModel that is used like the official ones.

    `tf.saved_model.load(folder)(images, trainable=True)` takes images `(n, h, w, 3)` in [0, 1] and returns a dict of
    `ENDPOINTS`; its variables train, and with `trainable=True` BatchNorm uses the batch and moves its statistics.
    The variables hang on the official model's attributes, so that readers of those find them.

    Args:
        folder: Must not exist: TensorFlow writes into whatever is there, and a mixture of two models would load.
        model: What `tf_simclr.models.network.build(architecture)` builds.

    Raises:
        InputError: the folder cannot be written, or the architecture has no official TF2 form.
    """
    import tensorflow as tf

    root = _exported(model, architecture=architecture)
    try:
        tf.saved_model.save(root, str(folder))
    except tf.errors.OpError as error:
        raise InputError(f"{folder} must be writable: {error}; choose another place") from error


def _exported(model: "keras.Model", *, architecture: Architecture) -> Any:
    """The object to save: the official attributes around the variables, and the function."""
    import tensorflow as tf

    from converters.names.naming import TF2
    from tf_simclr.models.network import weights_by_name

    TF2.check(architecture)
    weights = weights_by_name(model)
    root = tf.Module()
    # The official attributes around the variables, by the same table that names TF2's checkpoints.
    for name, path in TF2.table(architecture).items():
        _attach(root, path, variable=weights[name].value)
    # Keras' exports of the official code have this list, and readers look for it.
    root.trainable_variables_list = [weight.value for weight in weights.values() if weight.trainable]
    root.__call__ = _traced(model, channels=architecture.channels)
    return root


def _attach(root: Any, path: str, *, variable: Any) -> None:
    """Makes the variable an attribute, with the objects in between."""
    import tensorflow as tf

    *parents, last = path.split("/")
    for name in parents:
        if not hasattr(root, name):
            setattr(root, name, tf.Module())
        root = getattr(root, name)
    setattr(root, last, variable)


def _traced(model: "keras.Model", *, channels: int) -> Any:
    """The network as a function `(inputs, trainable=False)`, traced for both values: a SavedModel holds no Python."""
    import tensorflow as tf

    def call(inputs: Any, trainable: bool = False) -> dict[str, Any]:
        outputs = model(inputs, training=trainable)
        return {name: outputs[name] for name in ENDPOINTS if name in outputs}

    function = tf.function(call)
    images = tf.TensorSpec([None, None, None, channels], tf.float32)
    for trainable in (True, False):
        function.get_concrete_function(images, trainable=trainable)
    return function
