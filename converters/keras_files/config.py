"""What a Keras model's configuration tells: which layers surround the encoder, and whether it is what its names say."""

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from converters.keras_files.layers import LAYER, STEM, Surroundings
from tf_simclr.errors import InputError, check

ANY_LAYER = re.compile(r"(stem|group[1-4]_block\d{1,3})_\w+|proj\d{1,2}_\w+|final_avg_pool|logits_sup")
"""Names of this project's layers, those without weights too."""
_HARMLESS = {
    *("Dropout", "SpatialDropout2D", "GaussianNoise", "GaussianDropout", "AlphaDropout"),
    *("ActivityRegularization", "Identity", "InputLayer"),
}
"""Layers that do nothing in inference."""
_SHOWN = {
    "Dense": ("units",),
    "Rescaling": ("scale", "offset"),
    "Resizing": ("height", "width"),
    "Dropout": ("rate",),
    "Normalization": ("mean", "variance"),
    "Activation": ("activation",),
    "Conv2D": ("filters",),
}
"""Settings that are shown of a layer's class."""


@dataclass(frozen=True)
class _Node:
    """A layer's entry in a configuration."""

    kind: str
    name: str
    config: dict
    entry: dict

    @property
    def words(self) -> str:
        """`Dense(10)`; of a model its layers, too."""
        # A model within a model: its own layers say more than its class.
        if isinstance(self.config.get("layers"), list):
            return f"{self.kind}[{', '.join(one.words for one in _children(self) if one.kind != 'InputLayer')}]"
        values = [_short(self.config.get(key)) for key in _SHOWN.get(self.kind, ())]
        while values and values[-1] in ("0", "0.0", ""):
            values.pop()
        return f"{self.kind}({', '.join(values)})" if values else self.kind


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)[:40] if isinstance(value, int | str | list) and not isinstance(value, bool) else ""


def _node(entry: Any) -> _Node | None:
    if not (isinstance(entry, dict) and isinstance(entry.get("class_name"), str)):
        return None
    config = entry.get("config")
    config = config if isinstance(config, dict) else {}
    name = config.get("name", entry.get("name"))
    return _Node(entry["class_name"], name if isinstance(name, str) else "", config, entry)


def _children(node: _Node) -> list[_Node]:
    """The layers that a layer's configuration holds: of a Functional or Sequential model, or as its arguments."""
    # Lists of layers in models, else whatever of its arguments is a layer.
    layers = node.config.get("layers")
    values = layers if isinstance(layers, list) else list(node.config.values())
    found = [child for value in values if (child := _node(value)) is not None]
    return [child for child in found if child.name and "Policy" not in child.kind]  # not initializers, not types


def _everything(node: _Node) -> Iterator[_Node]:
    yield node
    for child in _children(node):
        yield from _everything(child)


def read_config(config: Any) -> Surroundings:
    """What surrounds the encoder, and what feeds the classifier.

    Args:
        config: Of a model, as Keras serialises it.

    Raises:
        InputError: the encoder's layers have settings with which the network is another than its names say.
    """
    root = _node(config)
    if root is None:
        raise InputError("its configuration must describe a Keras model")
    nodes = list(_everything(root))
    names = {node.name for node in nodes}
    # Names promise an architecture: settings that contradict them are another network.
    for node in nodes:
        _check_settings(node, names)
    around = Surroundings(selector=_selector(nodes))
    _surroundings(root, around)
    return around


def _holds(node: _Node) -> bool:
    return any(one.name == STEM for one in _everything(node))


def _surroundings(node: _Node, around: Surroundings) -> None:
    """Goes down to the encoder, and notes what stands beside it on each level."""
    children = _children(node)
    # One of the children leads to the encoder, or has its stem.
    holders = [child for child in children if _holds(child)]
    if not holders:
        return
    names = {child.name for child in holders}
    # Layer → its inputs; going back from the encoder along these meets what comes before it.
    graph = _graph(node, children)
    ahead = _reach(graph, names)
    for child in children:
        # Our own layers, and containers of nothing but those, need not be told of.
        own = child.name in names or ANY_LAYER.fullmatch(child.name) or child.kind == "InputLayer"
        if own or all(ANY_LAYER.fullmatch(one.name) or one.kind == "InputLayer" for one in _children(child) or [child]):
            continue
        if _is_operation(child, children):
            continue
        (around.before if child.name in ahead else around.after).append(child.words)
    if holders[0].name != STEM:
        _surroundings(holders[0], around)
    else:
        _check_inside(graph, children)


def _is_operation(child: _Node, siblings: list[_Node]) -> bool:
    """Operations (`Reshape`, `GetItem`, …) of a selective kernel are listed as layers are, but are the encoder's."""
    module = child.entry.get("module", "")
    selective = any("_sk_conv1" in one.name for one in siblings)
    return selective and isinstance(module, str) and ".ops." in module


def _inputs(entry: Any) -> Iterator[tuple[str, int]]:
    """The layers whose outputs a layer takes, and which of their outputs.

    Keras 2 gives each as `[name, node, output, …]`, Keras 3 as a tensor's `keras_history` of the same form.
    """
    # Keras takes false and true for 0 and 1, which are integers to Python, too.
    if isinstance(entry, list) and len(entry) >= 3 and all(map(isinstance, entry[:3], (str, int, int))):
        yield entry[0], int(entry[2])
    for value in entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ():
        yield from _inputs(value)


def _graph(node: _Node, children: list[_Node]) -> dict[str, set[str]]:
    """Name of a layer → names of those that it takes as input; empty for a model of own code."""
    # In a Sequential each layer takes the one before.
    if node.kind == "Sequential":
        return {name: {before} for before, name in itertools.pairwise(child.name for child in children)}
    return {child.name: {name for name, _ in _inputs(child.entry.get("inbound_nodes"))} for child in children}


def _reach(graph: dict[str, set[str]], names: set[str]) -> set[str]:
    """Names to which one comes from these along the graph."""
    # Along the arrows, as far as they lead; circles end as nothing is visited twice.
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        new = graph.get(waiting.pop(), set()) - found
        found |= new
        waiting += new
    return found


def _check_inside(graph: dict[str, set[str]], children: list[_Node]) -> None:
    """No foreign layer that computes something may stand between two layers of the encoder."""
    if any("_sk_conv1" in child.name for child in children):
        return  # a selective kernel's operations have names that Keras makes up
    encoder = {c.name for c in children if LAYER.fullmatch(c.name) and c.name.startswith(("stem", "group"))}
    forward: dict[str, set[str]] = {}
    for name, inputs in graph.items():
        for one in inputs:
            forward.setdefault(one, set()).add(name)
    # Reached from the encoder both backwards and forwards: it stands between two of its layers.
    between = _reach(graph, encoder) & _reach(forward, encoder)
    foreign = [
        child.words
        for child in children
        if child.name in between and not ANY_LAYER.fullmatch(child.name) and child.kind not in _HARMLESS
    ]
    check(not foreign, "no other layers may stand between the encoder's: it is another network", between=foreign)


def _stride(name: str, names: set[str]) -> int:
    """The stride of a convolution of the encoder, by its name and those of the others (tf_simclr/models/resnet.py)."""
    selective = "group1_block1_sk_conv1" in names  # with ResNet-D's stem and pooled shortcuts
    if name == STEM:
        return 2 if "stem_pool" in names else 1
    strided = "conv2" if "group1_block1_conv3" in names else "conv1"
    found = re.fullmatch(r"group([234])_block1_(\w+)", name)
    return 2 if found and (found[2] == strided or (found[2] == "shortcut_conv" and not selective)) else 1


def _check_settings(node: _Node, names: set[str]) -> None:
    """Raises `InputError` where a layer of the encoder has settings that its name does not have."""
    if not LAYER.fullmatch(node.name):
        return
    config = node.config
    wanted: dict[str, Any] = {}
    if "BatchNormalization" in node.kind:
        # The last projection layer only scales: docs/official-code.md#last-projection-layer.
        bare = re.fullmatch(r"proj\d+_bn", node.name) and config.get("center") is False
        wanted = {"epsilon": 1e-5, "scale": True, "center": not bare, "renorm": False}
    elif node.kind == "Conv2D":
        # Strided convolutions are padded by a layer before them: docs/official-code.md#convolution-padding.
        stride = _stride(node.name, names)
        wanted = {"strides": [stride, stride], "padding": "valid" if stride > 1 else "same"}
        wanted |= {"dilation_rate": [1, 1], "groups": 1, "data_format": "channels_last"}
        if not node.name.endswith(("se_conv1", "se_conv2")):
            wanted |= {"activation": "linear"}
    elif node.kind == "Dense":
        wanted = {"activation": "linear"}
    # Only what is there is compared: defaults of later versions are not in older files.
    wrong = [f"{key}={config[key]!r}" for key, value in wanted.items() if key in config and config[key] != value]
    if wrong:
        right = ", ".join(f"{key}={value!r}" for key, value in wanted.items())
        raise InputError(
            f"its layer {node.name} has {', '.join(wrong)}, and a SimCLR network {right}: it is another network, "
            "which weights alone would not tell"
        )


def _selector(nodes: list[_Node]) -> int | None:
    """Which output of the projection head feeds the classifier; None: there is no classifier, or it is not told."""
    for node in nodes:
        value = node.config.get("ft_proj_selector")
        if type(value) is int and value >= 0:
            return value
    # These have a probe on the pooled features and no other classifier.
    if any(type(node.config.get("microbatch_size")) is int for node in nodes):  # SimCLR and MoCo: a probe
        return 0
    classifier = next((node for node in nodes if node.name == "logits_sup"), None)
    if classifier is None or "inbound_nodes" not in classifier.entry:
        return None
    # The head has an output a layer.
    name, output = next(_inputs(classifier.entry["inbound_nodes"]), ("", 0))
    return output if name == "projection_head" else 0


def _snake_case(name: str) -> str:
    """As Keras makes group names of classes.

    Example:
        >>> _snake_case("BatchNormalization"), _snake_case("Conv2D")
        ('batch_normalization', 'conv2d')
    """
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def layer_groups_of(config: Any) -> dict[str, tuple[str, str]]:
    """Group in the HDF5 file → (name, class) of every layer and model, those of Keras before 3.7 too.

    Keras names a group there by the layer's class and its place among its kind (keras/src/saving/saving_lib.py,
    `_save_container_state`).
    """
    root = _node(config)
    return dict(_groups(root, "")) if root else {}


def _groups(node: _Node, prefix: str) -> Iterator[tuple[str, tuple[str, str]]]:
    layers = node.config.get("layers")
    yield prefix.removesuffix("/"), (node.name, node.kind)
    if not isinstance(layers, list):
        for key, value in node.config.items():
            child = _node(value)
            if child is not None:
                yield from _groups(child, f"{prefix}{key}/")
        return
    seen: Counter[str] = Counter()
    for child in _children(node):
        snake = _snake_case(child.kind)
        # `conv2d`, `conv2d_1`, …: the place among layers of this class in the list, not the layer's name.
        name = f"{snake}_{seen[snake]}" if seen[snake] else snake
        seen[snake] += 1
        yield from _groups(child, f"{prefix}layers/{name}/")
