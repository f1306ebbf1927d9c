"""TensorFlow 2's object checkpoints: a tensor bundle whose keys are paths through the saved objects.

The objects themselves, with the names of their edges, are stored under `_CHECKPOINTABLE_OBJECT_GRAPH`.  A variable's
key is one of its paths; which one depends on the version that wrote it, so keys are looked up by walking the graph.

References:
    TensorFlow, `core/protobuf/trackable_object_graph.proto`, `python/checkpoint/save_util_v1.py`
"""

import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from converters.tensorflow.bundle import Bundle
from converters.tensorflow.folders import write_checkpoint
from tf_simclr.errors import InputError, check
from tf_simclr.foreign import checked_name
from tf_simclr.foreign.wire import Message, encode

GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
SLOT = "/.OPTIMIZER_SLOT/"
_VALUE = "VARIABLE_VALUE"
_GENERATED = re.compile(
    # Versions of Keras number these lists differently, so that they are no names.
    r"(non_)?trainable_variables(_list)?|variables|weights|keras_api|regularization_losses|signatures"
    r"|layer(_with_weights)?-\d+|_(non_)?trainable_variables|_all_variables|_self_.*"
)
"""Edges that Keras or an export adds: second ways to a variable, numbered differently by each version."""

_OFFICIAL_MODEL = re.compile(r"^(?:.*/)?(resnet_model|_projection_head|supervised_head)(?=/)")
"""The official model's attributes, wherever in the saved object the model is."""


@dataclass(frozen=True)
class Variable:
    """A variable of an object graph.

    Attributes:
        path: Its attributes from the root, joined by `/`; for an optimizer's slot, the variable's path,
            `/.OPTIMIZER_SLOT/`, the optimizer's path and the slot's name. None if only generated edges lead to it.
        key: Its key in the bundle.
        name: Its `variable.name`, without `:0`; may be empty.
    """

    path: str | None
    key: str
    name: str


@dataclass
class Node:
    """An object: named edges to others, the keys of its values, the slots that it keeps for other variables."""

    children: list[tuple[str, int]] = field(default_factory=list)
    key: str = ""
    name: str = ""
    slots: list[tuple[int, str, int]] = field(default_factory=list)


def read_variables(bundle: Bundle) -> list[Variable]:
    """The variables of an object checkpoint, slots after the variables that they belong to.

    Returns:
        An empty list where the bundle has no object graph, i.e. is a TF1 checkpoint.

    Raises:
        InputError: the object graph is damaged or names a key that the bundle does not have.
    """
    if GRAPH_KEY not in bundle:
        return []
    try:
        # One message a node, in the order by which edges count.
        nodes = [_parse_node(Message(node)) for node in Message(bundle[GRAPH_KEY].item()).raw(1)]
        paths = _attribute_paths(nodes)
        found = [Variable(paths.get(i), node.key, node.name) for i, node in enumerate(nodes) if node.key]
        slots = dict(_slot_paths(nodes, paths))
    except InputError as error:
        raise InputError(f"the object graph in {bundle.index} must be intact, but {error}") from None
    # A graph that names what is not stored is a checkpoint with a file missing, or another's graph.
    missing = [variable.key for variable in found if variable.key not in bundle]
    check(not missing, f"{bundle.index} must have every key of its object graph", missing=missing[:20])
    # A slot's path is that of the optimizer and of the variable that it is kept for.
    variables = [Variable(slots.get(variable.key, variable.path), variable.key, variable.name) for variable in found]
    return sorted(variables, key=lambda variable: variable.key in slots)


def canonical(path: str) -> str:
    """The path in an official checkpoint, whose root calls the model `model`.

    Example:
        >>> canonical("net/resnet_model/block_groups/0/layers/1/conv2d_bn_layers/0/conv2d/kernel")
        'model/resnet_model/block_groups/0/layers/1/conv2d_bn_layers/0/conv2d/kernel'
    """
    return _OFFICIAL_MODEL.sub(r"model/\1", path, count=1)


def _parse_node(message: Message) -> Node:
    """Parses a `TrackableObject`."""
    # TrackableObject: 1 children (1 id, 2 name), 2 attributes (1 kind, 2 variable's name, 3 key), 3 slots.
    children = [(checked_name(edge.text(2)), edge.integer(1)) for edge in map(Message, message.raw(1))]
    values = [value for value in message.messages(2) if value.text(1) == _VALUE]
    key, name = (checked_name(values[0].text(3)), checked_name(values[0].text(2))) if values else ("", "")
    slots = [(slot.integer(1), checked_name(slot.text(2)), slot.integer(3)) for slot in message.messages(3)]
    return Node(children, key, name.removesuffix(":0"), slots)


def _attribute_paths(nodes: list[Node]) -> dict[int, str]:
    """The shortest path of attributes to each node, breadth first in the order of edges, as TensorFlow names keys."""
    # Breadth first from the root: the first path to a node is a shortest one, in the order of edges.
    paths, waiting = {0: ""}, deque([0])
    while waiting:
        current = waiting.popleft()
        for name, child in nodes[current].children if current < len(nodes) else ():
            # Edges point at places in the list.
            check(child < len(nodes), "an edge leads to an object that does not exist", edge=name)
            if child not in paths and not _GENERATED.fullmatch(name):
                paths[child] = checked_name(f"{paths[current]}/{name}".lstrip("/"))
                waiting.append(child)
    return paths


def _slot_paths(nodes: list[Node], paths: dict[int, str]) -> Iterator[tuple[str, str]]:
    """Yields the key and the path of every optimizer slot."""
    for i, node in enumerate(nodes):
        for owner, slot, variable in node.slots:
            check(max(owner, variable) < len(nodes), "a slot belongs to an object that does not exist", slot=slot)
            if owner in paths and i in paths:
                yield nodes[variable].key, f"{paths[owner]}{SLOT}{paths[i]}/{slot}"


def write_tf2(folder: str | Path, tensors: Iterable[tuple[str, np.ndarray]], *, step: int = 0) -> Path:
    """Writes an object checkpoint that `tf.train.Checkpoint(model=…, global_step=…)` of the official code restores.

    Args:
        folder: Made if it is missing.
        tensors: Object paths (`model/resnet_model/…/kernel`; slots as in `Variable.path`) and values, one at a time;
            `global_step` and `save_counter` are added.

    Returns:
        The checkpoint's prefix, `<folder>/ckpt-<step>`.
    """
    return write_checkpoint(Path(folder) / f"ckpt-{step}", _with_graph(tensors, step=step))


def _with_graph(tensors: Iterable[tuple[str, np.ndarray]], *, step: int) -> Iterator[tuple[str, np.ndarray | bytes]]:
    """Yields each tensor under its key, then the object graph that all of them make."""
    # What `tf.train.Checkpoint` counts itself, so that it restores without a complaint.
    counters = {"global_step": np.asarray(step, np.int64), "save_counter": np.asarray(1, np.int64)}
    paths = list(counters)
    yield from ((path + SUFFIX, value) for path, value in counters.items())
    for path, value in tensors:
        if path not in counters:
            paths.append(path)
            # The path itself is the key.
            yield path + SUFFIX, value
    yield GRAPH_KEY, encode_graph(_build_graph(paths))


def _build_graph(paths: Iterable[str]) -> list[Node]:
    """The objects that these paths pass through, the root first."""
    nodes, ids = [Node()], {"": 0}

    def locate(path: str) -> int:
        if path not in ids:
            # Parents first, each once: the tree of all paths.
            parent, _, name = path.rpartition("/")
            owner = nodes[locate(parent)]
            ids[path] = len(nodes)
            owner.children.append((name, ids[path]))
            nodes.append(Node())
        return ids[path]

    for path in paths:
        if SLOT not in path:
            # A weight's node has its key.
            nodes[locate(path)].key = path + SUFFIX
            continue
        # `VARIABLE/.OPTIMIZER_SLOT/OPTIMIZER/NAME`: a value of its own, which hangs on the optimizer's node.
        owner, _, slot = path.partition(SLOT)
        optimizer, _, name = slot.rpartition("/")
        nodes[locate(optimizer)].slots.append((locate(owner), name, len(nodes)))
        nodes.append(Node(key=path + SUFFIX))
    return nodes


def encode_graph(nodes: list[Node]) -> bytes:
    """Serialises a `TrackableObjectGraph`."""
    return b"".join(encode(1, encode_node(node)) for node in nodes)


def encode_node(node: Node) -> bytes:
    children = [encode(1, encode(1, child) + encode(2, name)) for name, child in node.children]
    value = [encode(2, encode(1, _VALUE) + encode(2, node.name) + encode(3, node.key))] if node.key else []
    slots = [encode(3, encode(1, owner) + encode(2, name) + encode(3, i)) for owner, name, i in node.slots]
    return b"".join((*children, *value, *slots))
