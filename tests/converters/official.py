"""Checkpoints as the official code writes them, made with TensorFlow's own writers.

Names and shapes come from the manifests of the goldens, values from `golden.fill`.  TensorFlow is the independent
oracle here: nothing in this file may use `converters`.
"""

import functools
import re
from pathlib import Path

import numpy as np

from tests import golden

SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
SLOT = "/.OPTIMIZER_SLOT/"
SLOT_AS_TF1 = {"Momentum": "Momentum", "momentum": "Momentum", "m": "Adam", "v": "Adam_1"}
BOOKKEEPING = {"optimizer/learning_rate": 0.3, "optimizer/decay": 0.0, "optimizer/momentum": 0.9}


def manifest(name: str) -> dict:
    """A TF1 manifest, variable name -> [shape, dtype]; looked for in `tf1` and `tf1_training`."""
    folder = "tf1_training" if "." in name else "tf1"
    return golden.data(f"manifests/{folder}/{name}.json")


def tf1_values(name: str, *, step: int = 7, dtype=np.float32) -> dict[str, np.ndarray]:
    """TF1 variable name -> value, in graph-creation order.

    An EMA copy has values of its own, as its name differs.
    """
    numbers = {
        "global_step": np.asarray(step, np.int64),
        "beta1_power": np.float32(0.5),
        "beta2_power": np.float32(0.9),
    }
    return {
        key: numbers[key] if key in numbers else golden.fill(key, shape).astype(dtype)
        for key, (shape, _) in manifest(name).items()
    }


def save(prefix: Path, values: dict[str, np.ndarray]) -> None:
    """Writes a tensor bundle with TensorFlow's own writer."""
    import tensorflow as tf

    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(values),
        shape_and_slices=[""] * len(values),
        tensors=[tf.constant(value) for value in values.values()],
    )


def write_state(folder: Path, newest: str, *others: str) -> None:
    """Writes the `checkpoint` file; `others` are older than `newest`."""
    lines = [f'model_checkpoint_path: "{newest}"']
    lines += [f'all_model_checkpoint_paths: "{name}"' for name in (*others, newest)]
    (folder / "checkpoint").write_text("\n".join(lines) + "\n")


def write_graph(folder: Path, prefix: Path, *, selector: int | str) -> None:
    """Puts the stored graphs (of `r18_1x_sk0_cifar`) beside a checkpoint; `selector` is 0, 1, 2 or "last"."""
    stem = f"graphs/r18_1x_sk0_cifar.selector_{selector}"
    (folder / "graph.pbtxt").write_bytes(golden.content(f"{stem}.graph.pbtxt"))
    prefix.with_name(prefix.name + ".meta").write_bytes(golden.content(f"{stem}.meta"))


def write_tf1(folder, name: str, *, step: int = 7, values=None, selector=None, hub=False, state=True) -> Path:
    """Writes an official-style TF1 checkpoint and returns its prefix.

    `name` is a manifest (`r18_1x_sk0_cifar`, `r50_1x_v1`, `r50_1x_sk0.pretrain.lars`, …); `values` replaces or adds
    tensors (`None` drops one); `selector` adds the stored graphs; `hub` writes a TF1 hub module's
    `variables/variables` without a `checkpoint` file.
    """
    folder = Path(folder)
    prefix = folder / "variables" / "variables" if hub else folder / f"model.ckpt-{step}"
    prefix.parent.mkdir(parents=True, exist_ok=True)
    merged = {**tf1_values(name, step=step), **(values or {})}
    save(prefix, {key: value for key, value in merged.items() if value is not None})
    if state and not hub:
        write_state(folder, prefix.name)
    if selector is not None:
        write_graph(folder, prefix, selector=selector)
    return prefix


def tf2_manifest(name: str) -> dict:
    return golden.data(f"manifests/tf2/{name}.json")


def tf2_value(key: str, tf1_name: str | None, shape, *, step: int) -> np.ndarray:
    """The value of a key of a TF2 object checkpoint."""
    if tf1_name is None:
        counters = {"global_step": step, "save_counter": 1}
        path = key.removesuffix(SUFFIX)
        return np.asarray(counters[path], np.int64) if path in counters else np.float32(BOOKKEEPING.get(path, 0.5))
    if SLOT in key:
        base, slot = tf1_name.rsplit("/", 1)
        tf1_name = f"{base}/{SLOT_AS_TF1[slot]}"
    return golden.fill(tf1_name, shape)


def tf2_values(name: str, *, step: int = 7, slots: bool = True) -> dict[str, np.ndarray]:
    """Key of a TF2 object checkpoint -> value, without the object graph itself."""
    content = tf2_manifest(name)
    return {
        key: tf2_value(key, content["checkpoint_key_to_tf1"].get(key), shape, step=step)
        for key, (shape, _) in content["checkpoint_keys"].items()
        if key.endswith(SUFFIX) and (slots or not (SLOT in key or key.startswith("optimizer/")))
    }


@functools.cache
def _node_classes():
    import tensorflow as tf

    class Node(tf.__internal__.tracking.AutoTrackable):
        """An object whose attributes are its children."""

    class Optimizer(Node):
        """As much of a Keras 2 optimizer as TensorFlow's saver asks of one."""

        def __init__(self):
            object.__setattr__(self, "slots", {})

        def get_slot_names(self):
            return sorted({slot for slot, _ in self.slots})

        def get_slot(self, variable, slot):
            return self.slots.get((slot, variable._unique_id))

        def _create_or_restore_slot_variable(self, slot_variable_position, slot_name, variable):
            slot_variable_position.restore(self.slots[slot_name, variable._unique_id])

    return Node, Optimizer


def _attach(root, path: str, leaf) -> None:
    node_class, optimizer_class = _node_classes()
    *parents, last = path.split("/")
    for name in parents:
        if not hasattr(root, name):
            setattr(root, name, optimizer_class() if name == "optimizer" else node_class())
        root = getattr(root, name)
    setattr(root, last, leaf)


def tf2_objects(values: dict[str, np.ndarray], variable_names: dict[str, str] | None = None):
    """The trackable object tree with these keys: a root whose children are `model`, `optimizer`, `global_step`, ….

    Returns:
        The root and its variables by object path.
    """
    import tensorflow as tf

    node_class, _ = _node_classes()
    root, variables = node_class(), {}
    for key, value in values.items():
        if SLOT not in key:
            path = key.removesuffix(SUFFIX)
            name = (variable_names or {}).get(path, path.rsplit("/", 1)[-1])
            variables[path] = tf.Variable(value, name=name, trainable=not path.rsplit("/", 1)[-1].startswith("moving_"))
            _attach(root, path, variables[path])
    for key, value in values.items():
        if SLOT in key:
            owner, rest = key.split(SLOT)
            optimizer, slot = rest.removesuffix(SUFFIX).split("/")
            slots = getattr(root, optimizer).slots
            slots[slot, variables[owner]._unique_id] = tf.Variable(value, name=slot)
    return root, variables


def write_tf2(folder, name: str, *, step: int = 7, values=None, slots: bool = True, state: bool = True) -> Path:
    """Writes a TF2 object checkpoint `ckpt-<step>` with its object graph, as `tf.train.Checkpoint` does.

    `name` is one of the manifests `tf2/*.json`; `slots=False` leaves the optimizer out; `values` replaces values.
    """
    import tensorflow as tf

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    root, _ = tf2_objects({**tf2_values(name, step=step, slots=slots), **(values or {})})
    prefix = folder / f"ckpt-{step}"
    tf.train.Checkpoint(root=root).write(str(prefix))  # `save` would count in a second `save_counter`
    if state:
        write_state(folder, prefix.name)
    return prefix


def tf2_variable_names(name: str) -> dict[str, str]:
    """Object path -> `variable.name` of the official TF2 model."""
    content = tf2_manifest(name)
    by_tf1 = {tf1: variable.split(":")[0] for variable, tf1 in content["tf2_variable_name_to_tf1"].items()}
    paths = {key.removesuffix(SUFFIX): tf1 for key, tf1 in content["checkpoint_key_to_tf1"].items() if SLOT not in key}
    return {path: by_tf1[tf1] for path, tf1 in paths.items()}


def _lists(model, variables: dict, order: list[str], path_of: dict[str, str]):
    """Keras 2 adds to each layer the list of its variables, trainable ones first; the root has one of its own."""
    for child in ("resnet_model", "_projection_head", "supervised_head"):
        inside = [path_of[tf1] for tf1 in order if path_of[tf1].startswith(f"model/{child}/")]
        inside.sort(key=lambda path: path.rsplit("/", 1)[-1].startswith("moving_"))
        getattr(model, child).variables = [variables[path] for path in inside]
    return [variables[path] for path in map(path_of.__getitem__, order) if variables[path].trainable]


def write_saved_model(folder, name: str, *, rename=None, attributes: bool = True, selector: int = 0) -> Path:
    """Writes a SavedModel whose object graph has the official one's shape: `model/…` and `trainable_variables_list`.

    Its `__call__(inputs, trainable)` feeds the classifier from the wanted projection layer and nothing more of the
    network.  `rename` changes a `variable.name` (another Keras version's numbering); without `attributes` variables
    can be reached through lists only, so that just their names tell them apart.
    """
    import tensorflow as tf

    content = tf2_manifest(name)
    values = tf2_values(name, slots=False)
    values = {key: value for key, value in values.items() if key.startswith("model/")}
    names = {path: (rename or str)(variable) for path, variable in tf2_variable_names(name).items()}
    root, variables = tf2_objects(values, names)
    path_of = {tf1: key.removesuffix(SUFFIX) for key, tf1 in content["checkpoint_key_to_tf1"].items()}
    root.trainable_variables_list = _lists(root.model, variables, content["variables_order"], path_of)
    if not attributes:
        _strip_to_lists(root.model)
    root.__call__ = tf.function(_heads(variables, path_of, selector))
    for trainable in (True, False):
        root.__call__.get_concrete_function(tf.TensorSpec([None, 8, 8, 3]), trainable=trainable)
    tf.saved_model.save(root, str(folder))
    return Path(folder)


def _strip_to_lists(model) -> None:
    for child in ("resnet_model", "_projection_head", "supervised_head"):
        layer = getattr(model, child)
        for attribute in [key for key in vars(layer) if not key.startswith("_self_") and key != "variables"]:
            delattr(layer, attribute)


def _heads(variables: dict, path_of: dict[str, str], selector: int):
    """The official heads on top of the mean pixel, tiled to the width of the features."""
    import tensorflow as tf

    def of(tf1_name):
        return variables[path_of[tf1_name]]

    def call(inputs, trainable):
        del trainable
        width = of("head_contrastive/nl_0/dense/kernel").shape[0]
        mean = tf.reduce_mean(inputs, [1, 2, 3], name="final_avg_pool")[:, None]
        hiddens = [tf.identity(tf.tile(mean, [1, width]), name="proj_head_input")]
        layers = sum(bool(re.fullmatch(r"head_contrastive/nl_\d+/dense/kernel", key)) for key in path_of)
        for i in range(layers):
            with tf.name_scope(f"projection_head/nl_{i}/dense"):
                hidden = tf.matmul(hiddens[-1], of(f"head_contrastive/nl_{i}/dense/kernel"), name="MatMul")
            hiddens.append(tf.nn.relu(hidden * of(f"head_contrastive/nl_{i}/batch_normalization/gamma")))
        with tf.name_scope("head_supervised/linear_layer/dense_3"):
            logits = tf.matmul(hiddens[selector], of("head_supervised/linear_layer/dense/kernel"), name="MatMul")
            logits = tf.nn.bias_add(logits, of("head_supervised/linear_layer/dense/bias"), name="BiasAdd")
        return {"final_avg_pool": hiddens[0], "logits_sup": logits}

    return call
