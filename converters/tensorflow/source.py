"""TensorFlow's checkpoints as sources: TF1, hub modules, TF2 object checkpoints, SavedModels; without TensorFlow, but
for the format that preceded these."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from converters.keras_files.layers import STEM
from converters.opening.kinds import check_itself
from converters.tensorflow.bundle import DTYPES, OTHER_DTYPES, STRING, Bundle
from converters.tensorflow.folders import GRAPHS, STATE, Resolved, is_v1_table, resolve_prefix
from converters.tensorflow.graph_def import find_selector, layers_before
from converters.tensorflow.keras_objects import holds_keras, open_objects
from converters.tensorflow.object_graph import GRAPH_KEY, SLOT, Variable, read_variables
from converters.tensorflow.saved_model import variable_keys
from converters.tensors import Source, Stored
from tf_simclr.errors import InputError


def open_tensorflow(path: Path, *, step: int | None = None) -> Source:
    """Opens a checkpoint.

    Args:
        path: A folder, a prefix or any of a checkpoint's files.
        step: Which of a folder's checkpoints; by default the newest.

    Raises:
        InputError: as `resolve_prefix`, `Bundle` and `variable_keys` say.
    """
    if is_v1_table(path):
        return _by_tensorflow(path)
    resolved = resolve_prefix(path, step=step)
    # A pointer of Git LFS in place of data would be "damaged"; this says what to do.
    _check_downloaded(resolved)
    bundle = Bundle(resolved.prefix)
    # 1. An object graph, if there is one; 2. a Keras model of this project in it; 3. else the official code's names.
    variables = read_variables(bundle)
    if holds_keras(variables):
        return _keras(path, resolved, bundle=bundle, variables=variables)
    keys = variable_keys(bundle, variables)
    tensors = {name: _stored(bundle, key) for name, key in keys.items()}
    selector, told_by = find_selector(resolved.prefix)
    return Source(
        path,
        _container(resolved, bundle),
        tensors,
        slots=frozenset(name for name in keys if _is_slot(name, keys)),
        step=_step(tensors),
        selector=selector,
        selector_from=told_by,
        notes=list(resolved.notes),
        close=bundle.close,
    )


def _keras(path: Path, resolved: Resolved, *, bundle: Bundle, variables: list[Variable]) -> Source:
    """A Keras model of this project, or with its encoder in it."""
    container = "SavedModel of a Keras model" if resolved.saved_model else "TF2 object checkpoint of a Keras model"
    before = layers_before(resolved.prefix, STEM) if resolved.saved_model else []
    read = partial(_stored, bundle)
    source = open_objects(path, container, bundle=bundle, variables=variables, read=read, before=before)
    if source.selector is None:
        source.selector, source.selector_from = find_selector(resolved.prefix)
    source.notes = [*resolved.notes, *source.notes]
    return source


def _by_tensorflow(path: Path) -> Source:
    """A checkpoint in the format before the tensor bundle, one file, which TensorFlow itself still reads."""
    try:
        import tensorflow as tf
    except ImportError as error:
        raise InputError(
            f"{path} must be read by TensorFlow, which cannot be imported ({error}); install it"
        ) from error
    try:
        reader = tf.train.load_checkpoint(str(path))
    except (tf.errors.OpError, ValueError) as error:
        raise InputError(f"{path} must be a whole checkpoint, but TensorFlow says: {error}") from error
    types, shapes = reader.get_variable_to_dtype_map(), reader.get_variable_to_shape_map()
    kept = {name: name for name in sorted(types)}
    return Source(
        path,
        "TF1 checkpoint (read by TensorFlow)",
        {name: Stored(tuple(shapes[name]), types[name].name, partial(_asked, reader, name)) for name in kept},
        slots=frozenset(name for name in kept if _is_slot(name, kept)),
        step=int(reader.get_tensor("global_step")) if shapes.get("global_step") == [] else None,
    )


def _asked(reader: Any, name: str) -> np.ndarray:
    return np.asarray(reader.get_tensor(name))


def _container(resolved: Resolved, bundle: Bundle) -> str:
    if GRAPH_KEY in bundle:
        return "TF2 SavedModel" if resolved.saved_model else "TF2 object checkpoint"
    return "TF1 hub module" if resolved.saved_model else "TF1 checkpoint"


def _check_downloaded(resolved: Resolved) -> None:
    """Raises `InputError` where a pointer or a page lies in place of one of the checkpoint's files."""
    folder, stem = resolved.prefix.parent, resolved.prefix.name + "."
    files = [path for path in folder.iterdir() if path.name.startswith(stem) or path.name == STATE]
    files += [(resolved.saved_model or folder) / name for name in GRAPHS]
    for path in sorted(files):
        if path.is_file() and path.stat().st_size:
            check_itself(path)


def _stored(bundle: Bundle, key: str) -> Stored:
    entry = bundle.entries[key]
    if entry.dtype in DTYPES and entry.dtype != STRING:
        return Stored(bundle.shape(key), bundle.dtype(key).name, lambda: bundle[key])
    name = "string" if entry.dtype == STRING else OTHER_DTYPES.get(entry.dtype, f"TensorFlow's dtype {entry.dtype}")
    return Stored.odd(entry.shape, name, where=f"tensor {key} of {bundle.index}", reason=f"of the type {name}")


def _is_slot(name: str, names: dict[str, str]) -> bool:
    """TF1 puts a slot's name behind the variable's; TF2 marks it; optimizers' own numbers count, too."""
    if SLOT in name or name.startswith("optimizer/") or name in ("beta1_power", "beta2_power"):
        return True
    return "/" in name and name.rsplit("/", 1)[0] in names


def _step(tensors: dict[str, Stored]) -> int | None:
    stored = tensors.get("global_step")
    return int(stored.read()) if stored and stored.shape == () and stored.dtype in ("int32", "int64") else None
