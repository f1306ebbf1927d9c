"""A Keras model as its file has it, layer by layer; this project's network in it, found by the layers' names.

The names of the layers are an interface (tf_simclr/models/resnet.py): `stem_conv1`, `group1_block1_bn2`, `proj1_dense`,
`logits_sup`.  Whatever holds these layers – a `SimCLR`, a `Sequential`, a model in a model – is the network's
surroundings: listed, and left behind.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from converters.tensors import Source, Stored
from tf_simclr.errors import check

LAYER = re.compile(
    r"(stem|group[1-4]_block\d{1,3})_(conv\d|bn\d|shortcut_conv|shortcut_bn|sk_conv\d|sk_bn\d|se_conv\d)"
    r"|proj\d{1,2}_(dense|bn)|logits_sup"
)
"""Names of this project's layers with weights."""
STEM = "stem_conv1"
"""The one layer that every encoder has once."""
MOCO_KEYS = "key_"
"""Precedes the names of MoCo's second encoder (tf_simclr/models/moco.py), whose keys are below `key_encoder/`."""

OPTIMIZER = re.compile(r"(^|/)(optimizer|_?optimizers?)(/|$)")
_COUNTS = re.compile(r"(^|/)(means|metrics|_metrics|_compile_metrics|_loss_tracker|queue|seed_generator\w*)(/|$)")

_ORDER = {
    "conv": {1: ("kernel",), 2: ("kernel", "bias")},
    "dense": {1: ("kernel",), 2: ("kernel", "bias")},
    "bn": {4: ("gamma", "beta", "moving_mean", "moving_variance"), 3: ("gamma", "moving_mean", "moving_variance")},
}
"""Kind → how many weights → their names, in the order in which Keras numbers them."""


NOT_READ = Stored.odd((), "", where="optimizer state", reason="no weight")
"""In place of tensors that are only listed."""


@dataclass(frozen=True)
class LayerArrays:
    """A layer with weights.

    Attributes:
        path: In the file: `layers/functional/layers/conv2d_3`, `model/encoder/_operations/1`.
        scope: The part of the path that leads to the model that holds the layer.
        name: The layer's name; empty where the file does not tell.
        arrays: Weight's name, or its number in Keras' order → tensor.
        words: The layer as a person calls it, `Dense(10)`.
    """

    path: str
    scope: str
    name: str
    arrays: dict[str, Stored]
    words: str = ""


@dataclass
class Surroundings:
    """What a file's configuration tells beside the weights.

    Attributes:
        before: Layers between the model's input and the encoder's, in words.
        after: The other layers around the encoder.
        uncertain: Whether it is not known which of these stand before the encoder.
        selector: Which projection layer feeds the classifier; None: it does not tell.
    """

    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)
    uncertain: bool = False
    selector: int | None = None


def kind_of(name: str) -> str:
    """`conv`, `bn` or `dense`, by one of this project's layer names.

    Example:
        >>> [kind_of(name) for name in ("stem_conv1", "group1_block1_shortcut_bn", "proj2_dense", "logits_sup")]
        ['conv', 'bn', 'dense', 'dense']
    """
    if re.search(r"_bn\d?$", name):
        return "bn"
    return "conv" if "conv" in name else "dense"


def assemble(
    path: Path,
    container: str,
    *,
    layers: Sequence[LayerArrays],
    around: Surroundings,
    close: Callable[[], None] = lambda: None,
) -> Source:
    """The source whose keys are the layers' and weights' names; of several networks, each in its scope.

    Args:
        path: The file.
        container: What it is, in words.
        layers: All with weights.
        around: From the configuration, where there is one.
        close: Releases the file.

    Raises:
        InputError: none of the layers is this project's, or one has weights that it cannot have.
    """
    # 1. Which layers are ours, by their names; MoCo's keys have names of their own.
    ours = [layer for layer in layers if LAYER.fullmatch(layer.name) and _fits(path, layer)]
    of_moco = [layer for layer in layers if layer.name.startswith(MOCO_KEYS)]
    keys = [layer for layer in of_moco if LAYER.fullmatch(layer.name.removeprefix(MOCO_KEYS))]
    check(
        any(layer.name == STEM for layer in ours),
        f"{path} must hold an encoder that tf_simclr builds, told by its layers' names ({STEM}, group1_block1_conv1, "
        "…); other Keras models are read by keras.saving.load_model",
        layers=[layer.name or layer.path for layer in layers][:5],
    )
    # Two encoders in one model: their scopes tell them apart, and `candidates.py` chooses.
    repeated = [name for name, count in Counter(layer.name for layer in ours).items() if count > 1]
    # 2. Keys: layer and weight, with the scope in front where a name comes twice.
    tensors: dict[str, Stored] = {}
    for layer in ours:
        scope = f"{layer.scope}/" if repeated and layer.scope else ""
        tensors |= {f"{scope}{layer.name}/{weight}": array for weight, array in _named(layer).items()}
    for layer in (replace(layer, name=layer.name.removeprefix(MOCO_KEYS)) for layer in keys):
        tensors |= {f"{MOCO_KEYS}encoder/{layer.name}/{weight}": array for weight, array in _named(layer).items()}
    # 3. All else is listed, with a reason for each kind.
    others = [layer for layer in layers if layer not in ours and layer not in keys]
    slots = {f"{one.path}/{weight}" for one in others if OPTIMIZER.search(one.path) for weight in one.arrays}
    source = Source(path, container, tensors, slots=frozenset(slots), close=close)
    source.left, source.notes = _left(others), _sentences(around)
    source.selector, source.selector_from = _selector(ours, around)
    return source


def _fits(path: Path, layer: LayerArrays) -> bool:
    """Whether a layer of one of our names has as many weights as ours; a head may be somebody else's.

    Raises:
        InputError: it has not, and is the encoder's.
    """
    wanted, arrays = _ORDER[kind_of(layer.name)], layer.arrays
    # Names of weights, not numbers: Keras before 3 wrote them so, and they tell by themselves.
    if not all(key.isdigit() for key in arrays):
        return True
    fits = len(arrays) in wanted and arrays.keys() == {str(i) for i in range(len(arrays))}
    rule = f"{path} must hold {layer.name} with {' or '.join(map(str, wanted))} weights"
    check(fits or not layer.name.startswith(("stem", "group")), rule, found=sorted(arrays))
    return fits


def _named(layer: LayerArrays) -> dict[str, Stored]:
    arrays = layer.arrays
    if not all(key.isdigit() for key in arrays):
        return arrays
    # Keras numbers a layer's weights; the kind says which number is which.
    names = _ORDER[kind_of(layer.name)].get(len(arrays), tuple(arrays))
    return {name: arrays[str(i)] for i, name in enumerate(names)}


def _left(others: list[LayerArrays]) -> dict[str, list[str]]:
    """Why → keys of what is neither the network nor the optimizer's."""
    left: dict[str, list[str]] = {}
    around: list[LayerArrays] = []
    # In order: the optimizer's (slots), the training's, and layers that stand around the encoder.
    for layer in others:
        keys = [f"{layer.name or layer.path}/{weight}" for weight in layer.arrays]
        if OPTIMIZER.search(layer.path):
            continue
        if _COUNTS.search(layer.path) or _COUNTS.search(layer.name):
            left.setdefault("metrics, queues and random states of the training", []).extend(keys)
        else:
            around.append(layer)
    if around:
        # Each kind of layer once, in the order of the file.
        words = list(dict.fromkeys(layer.words or layer.name or layer.path for layer in around))
        shown = ", ".join(words[:5]) + (", …" if len(words) > 5 else "")
        left[f"weights of layers around the encoder: {shown}"] = [
            f"{layer.name or layer.path}/{weight}" for layer in around for weight in layer.arrays
        ]
    return left


def _sentences(around: Surroundings) -> list[str]:
    notes = []
    if around.before and around.uncertain:
        notes.append(
            f"The model around the encoder has {', '.join(around.before)}, left here, and the file does not tell "
            "where: if that comes before the encoder, the encoder takes what it gives, not what the model took."
        )
    elif around.before:
        notes.append(
            f"Before the encoder the model has {', '.join(around.before)}, left here: the encoder takes what that "
            "gives, not the images that the model took."
        )
    if around.after:
        notes.append(f"Around the encoder the model has {', '.join(around.after)}, left here.")
    return notes


def _selector(ours: list[LayerArrays], around: Surroundings) -> tuple[int | None, str]:
    """Which layer feeds the classifier: by the configuration, else by the attribute that holds it."""
    classifiers = [layer for layer in ours if layer.name == "logits_sup"]
    if not classifiers:
        return None, ""
    if around.selector is not None:
        return around.selector, "the model's configuration"
    if all(layer.path.rsplit("/", 1)[-1] == "probe" for layer in classifiers):
        return 0, "its place: SimCLR's probe"
    return None, ""
