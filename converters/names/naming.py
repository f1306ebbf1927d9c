"""A naming says what a project calls a layer's weights; a table is a naming applied to the walk.

TensorFlow's namings keep the hub's layout.  PyTorch's (`pytorch`) transpose kernels.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from converters.names.walk import Layer, walk
from tf_simclr.errors import InputError
from tf_simclr.models.architecture import Architecture

TRACKED = "num_batches_tracked"
"""PyTorch's count of batches, which no inference uses; written, and read over."""


@dataclass(frozen=True)
class Naming:
    """What a project calls each weight, and how it lays kernels out.

    Attributes:
        name: As given to `--naming`.
        keys: Architecture → for each layer of the walk that the naming knows, its prefix.
        joins: (prefix, hub weight name) → the project's key.
        torch: Whether kernels are OIHW and (out, in), as PyTorch has them.
        refuses: Architecture → why it cannot be held, or None.
        wrapper: Keys, joined by slashes, of the dictionaries under which the project's files hold the weights.
        affine: Whether every normalisation has a bias, also where SimCLR's only scales: it is zero there.
        selector: Key of the classifier's `ft_proj_selector`; empty: the files do not tell.
        library: Whether heads that do not fit SimCLR's are left behind rather than an error.
        origin: The file that states the names.
    """

    name: str
    keys: Callable[[Architecture], Iterator[tuple[Layer, str]]]
    joins: Callable[[str, str], str]
    torch: bool = False
    refuses: Callable[[Architecture], str | None] = lambda architecture: None
    wrapper: str = ""
    affine: bool = False
    selector: str = ""
    library: bool = False
    origin: str = ""

    def table(self, architecture: Architecture) -> dict[str, str]:
        """Hub name → this project's key of every weight that the project has a place for."""
        return {
            f"{layer.name}/{weight}": self.joins(prefix, weight)
            for layer, prefix in self.keys(architecture)
            for weight, _ in layer.weights
        }

    def zeros(self, architecture: Architecture) -> dict[str, int]:
        """Key → length of each bias that the project has and the network has not."""
        if not self.affine:
            return {}
        # PyTorch's BatchNorm has a bias where SimCLR's last one has none: zeros stand there.
        # Three weights: gamma and the moving statistics, no beta.
        bare = (pair for pair in self.keys(architecture) if pair[0].kind == "bn" and len(pair[0].weights) == 3)
        return {self.joins(prefix, "beta"): layer.weights[0][1][0] for layer, prefix in bare}

    def extras(self, architecture: Architecture) -> dict[str, int]:
        """Key → whole number of what a file has beside weights.

        PyTorch's counters of batches, which its strict loading asks for
        (docs/official-code.md#batch-counters); our twin's `ft_proj_selector`.
        """
        if not self.torch:
            return {}
        norms = (pair for pair in self.keys(architecture) if pair[0].kind == "bn")
        numbers = {f"{prefix}.{TRACKED}": 0 for _, prefix in norms}
        if self.selector and architecture.num_proj_layers and architecture.num_classes:
            numbers[self.selector] = architecture.ft_proj_selector
        return numbers

    def check(self, architecture: Architecture) -> None:
        """Raises `InputError` with the reason where the architecture cannot be written in this naming."""
        reason = self.refuses(architecture)
        if reason:
            raise InputError(f"naming {self.name} cannot hold this network: {reason}")


def _slashed(prefix: str, weight: str) -> str:
    """TensorFlow joins names with slashes and calls weights as the hub does."""
    return f"{prefix}/{weight}"


def _keras_keys(architecture: Architecture) -> Iterator[tuple[Layer, str]]:
    return ((layer, layer.name) for layer in walk(architecture))


def _tf1_keys(architecture: Architecture) -> Iterator[tuple[Layer, str]]:
    """TF1 numbers layers of a kind in creation order: `conv2d`, `conv2d_1`, … (docs/official-code.md#tf1-numbering)."""
    seen: Counter[str] = Counter()
    linear = architecture.proj_head_mode == "linear"
    for layer in walk(architecture):
        base = {"conv": "conv2d", "bn": "batch_normalization", "dense": "dense"}[layer.kind]
        # One counter a kind for the whole encoder, as TF1's graph counts.
        if layer.part == "encoder":
            number = seen[base]
            seen[base] += 1
            yield layer, f"base_model/{base}_{number}" if number else f"base_model/{base}"
        elif layer.part == "projection":
            yield layer, f"head_contrastive/{'l' if linear else 'nl'}_{layer.block - 1}/{base}"
        else:
            yield layer, f"head_supervised/linear_layer/{base}"


def tf2_keys(architecture: Architecture, *, model: str = "model/") -> Iterator[tuple[Layer, str]]:
    """Object paths below the model's name in its checkpoint, which `tf.train.Checkpoint` lets be any."""
    return ((layer, model + _tf2_path(layer, architecture)) for layer in walk(architecture))


def _tf2_path(layer: Layer, architecture: Architecture) -> str:
    """A layer's path in the object graph of the official TF2 `Model` (google-research/simclr tf2/resnet.py)."""
    if layer.part == "supervised":
        # A list within the module `_projection_head`, whose layers count from 0.
        return "supervised_head/linear_layer/dense"
    if layer.part == "projection":
        leaf = "dense" if layer.kind == "dense" else "bn_relu/bn"
        return f"_projection_head/linear_layers/{layer.block - 1}/{leaf}"
    if not layer.group:
        return f"resnet_model/initial_conv_relu_max_pool/{_tf2_stem_index(layer, architecture)}/{_tf2_leaf(layer)}"
    path = _tf2_in_block(layer, architecture)
    return f"resnet_model/block_groups/{layer.group - 1}/layers/{layer.block - 1}/{path}"


def _tf2_leaf(layer: Layer) -> str:
    return "conv2d" if layer.kind == "conv" else "bn"


def _tf2_stem_index(layer: Layer, architecture: Architecture) -> int:
    """Convolutions and normalisations alternate; an identity that names `initial_conv` precedes the last one."""
    last = 3 if architecture.sk_ratio > 0 and not architecture.cifar_stem else 1
    # conv2 → 2, bn2 → 2.
    i = int(layer.role[-1])
    return 2 * (i - 1) + (layer.kind == "bn") + (layer.kind == "bn" and i == last)


def _tf2_in_block(layer: Layer, architecture: Architecture) -> str:
    sk, bottleneck = architecture.sk_ratio > 0, architecture.bottleneck
    if layer.role.startswith("shortcut"):
        # ResNet-D: pooling precedes the projection, and padding precedes the pooling where the stride is 2.
        index = (layer.kind == "bn") + (0 if not sk else 1 if layer.group == 1 else 2)
        return f"{'projection' if bottleneck else 'shortcut'}_layers/{index}/{_tf2_leaf(layer)}"
    if layer.role.startswith("se_"):
        leaf = "se_reduce" if layer.role == "se_conv1" else "se_expand"
        return f"conv_relu_dropblock_layers/{8 if sk else 9}/{leaf}" if bottleneck else f"se_layer/{leaf}"
    if not bottleneck:
        return f"conv2d_bn_layers/{_pair_index(layer, 2)}/{_tf2_leaf(layer)}"
    if sk and layer.role in _TF2_SK:
        return f"conv_relu_dropblock_layers/3/{_TF2_SK[layer.role]}"
    index = _pair_index(layer, 3)
    return f"conv_relu_dropblock_layers/{index - 1 if sk and layer.role[-1] == '3' else index}/{_tf2_leaf(layer)}"


_TF2_SK = {
    "conv2": "conv2d_fixed_padding/conv2d",
    "bn2": "batch_norm_relu/bn",
    "sk_conv1": "conv2d_0",
    "sk_bn1": "batch_norm_relu_1/bn",
    "sk_conv2": "conv2d_1",
}


def _pair_index(layer: Layer, every: int) -> int:
    """Position of `conv{i}` or `bn{i}` in a list where a convolution starts each run of `every` layers."""
    return every * (int(layer.role[-1]) - 1) + (layer.kind == "bn")


def _tf2_refuses(architecture: Architecture) -> str | None:
    if architecture.proj_head_mode == "linear":
        return "the official TF2 code cannot build a linear projection head (use --to tf1)"
    return None


KERAS = Naming("keras", _keras_keys, _slashed, origin="converters/names/walk.py")
TF1 = Naming("tf1", _tf1_keys, _slashed, origin="google-research/simclr resnet.py, model_util.py")
TF2 = Naming(
    "tf2", tf2_keys, _slashed, refuses=_tf2_refuses, origin="google-research/simclr tf2/resnet.py, tf2/model.py"
)
