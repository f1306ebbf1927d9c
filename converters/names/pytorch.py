"""What PyTorch projects call the layers.  Key names are facts of each project's files, cited in `origin`."""

from collections.abc import Callable, Iterator
from functools import partial

from converters.names.naming import Naming
from converters.names.walk import Layer, walk
from tf_simclr.models.architecture import Architecture

NESTED = "{}"
"""Last component of a wrapper that stands for one dictionary per first component of the keys."""

_Head = Callable[[Layer], str | None]
_Refusal = Callable[[Architecture], str | None]

_TORCH = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def _dotted(prefix: str, weight: str) -> str:
    """PyTorch joins names with dots and calls weights its own way."""
    return f"{prefix}.{_TORCH[weight]}"


def _torchvision_trunk(layer: Layer) -> str:
    """The encoder's layers as torchvision, timm and most projects call them; SK and SE by our names.

    Example:
        >>> _torchvision_trunk(Layer("conv", "shortcut_conv", (), group=2, block=1))
        'layer2.0.downsample.0'
    """
    part = {"shortcut_conv": "downsample.0", "shortcut_bn": "downsample.1"}.get(layer.role, layer.role)
    # conv1 in a block, layer1.0.conv1; in the stem conv1 alone.
    return f"layer{layer.group}.{layer.block - 1}.{part}" if layer.group else part


def _sequential_trunk(layer: Layer) -> str:
    """The trunk where a torchvision ResNet's children were put into an `nn.Sequential`: numbers, 3 is the pool."""
    name = _torchvision_trunk(layer)
    first, _, rest = name.partition(".")
    # `list(resnet.children())`: conv1, bn1, relu, maxpool, layer1 … layer4.
    number = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}.get(first, first)
    return f"{number}.{rest}" if rest else str(number)


def _separius_trunk(layer: Layer, architecture: Architecture) -> str:
    """Nested `nn.Sequential`s: a stem and four lists of blocks; activations take numbers, too."""
    sk = architecture.sk_ratio > 0
    if not layer.group:
        # Convolution, then [normalisation, activation] as one: two places a convolution.
        i = 2 * (int(layer.role[-1]) - 1)
        return f"net.0.{i}" if layer.kind == "conv" else f"net.0.{i + 1}.0"
    block = f"net.{layer.group}.blocks.{layer.block - 1}"
    if layer.role == "shortcut_conv":
        return f"{block}.projection.shortcut{'.2' if sk else ''}"
    if layer.role == "shortcut_bn":
        return f"{block}.projection.bn.0"
    if sk and layer.role in _SEPARIUS_SK:
        return f"{block}.net.2.{_SEPARIUS_SK[layer.role]}"
    # Convolution and activation alternate; a selective kernel takes one place for its convolution and activation.
    i = 2 * (int(layer.role[-1]) - 1) - (sk and layer.role[-1] == "3")
    return f"{block}.net.{i}" if layer.kind == "conv" else f"{block}.net.{i + 1}.0"


_SEPARIUS_SK = {
    "conv2": "main_conv.0",
    "bn2": "main_conv.1.0",
    "sk_conv1": "mixing_conv.0",
    "sk_bn1": "mixing_conv.1.0",
    "sk_conv2": "mixing_conv.2",
}


def _trunk_only(layer: Layer) -> None:
    return None


def _classifier(name: str, layer: Layer) -> str | None:
    return name if layer.part == "supervised" else None


def _twin_heads(layer: Layer) -> str:
    return "fc" if layer.part == "supervised" else f"projection_head.{layer.block - 1}.{layer.role}"


def _numbered(prefix: str, classifier: str, layer: Layer) -> str:
    """Linear, normalisation, ReLU, linear, … numbered in one list."""
    if layer.part == "supervised":
        return classifier
    # Three places a layer: linear, normalisation, ReLU.
    return f"{prefix}.{3 * (layer.block - 1) + (layer.kind == 'bn')}"


def _mm_neck(classifier: str, layer: Layer) -> str:
    if layer.part == "supervised":
        return classifier
    return f"neck.{'fc' if layer.kind == 'dense' else 'bn'}{layer.block - 1}"


def _keys(
    prefix: str, trunk: Callable[[Layer], str], heads: _Head, architecture: Architecture
) -> Iterator[tuple[Layer, str]]:
    for layer in walk(architecture):
        if layer.part == "encoder":
            yield layer, prefix + trunk(layer)
        elif (name := heads(layer)) is not None:
            yield layer, name


def bare_sequential_keys(architecture: Architecture) -> Iterator[tuple[Layer, str]]:
    """`_sequential_trunk` without a prefix of its own, and without heads."""
    return _keys("", _sequential_trunk, _trunk_only, architecture)


def _separius_keys(architecture: Architecture) -> Iterator[tuple[Layer, str]]:
    trunk = partial(_separius_trunk, architecture=architecture)
    return _keys("resnet.", trunk, partial(_numbered, "head.layers", "resnet.fc"), architecture)


def _torchvision_refuses(architecture: Architecture) -> str | None:
    if architecture.sk_ratio > 0:
        return "torchvision has no selective kernels and ResNet-D stem (use --naming twin or separius)"
    if architecture.se_ratio > 0:
        return "torchvision's ResNet has no squeeze-excite (use --naming twin)"
    if not architecture.bottleneck:
        return (
            f"SimCLR's ResNet-{architecture.depth} projects the first shortcut of group 1 and torchvision's does not, "
            "so that no torchvision model computes it (use --naming twin)"
        )
    return None


def _separius_refuses(architecture: Architecture) -> str | None:
    if architecture.se_ratio > 0 or architecture.cifar_stem:
        return "Separius' ResNet has neither squeeze-excite nor a stem for small images (use --naming twin)"
    return None


def _selector_refuses(architecture: Architecture) -> str | None:
    """Their classifiers read the pooled features, always."""
    if architecture.num_classes and architecture.ft_proj_selector:
        return (
            f"its classifier reads the pooled features and this one reads projection layer "
            f"{architecture.ft_proj_selector} (use --naming twin, or --part encoder)"
        )
    return None


def _both(first: _Refusal, second: _Refusal, architecture: Architecture) -> str | None:
    return first(architecture) or second(architecture)


def _library(
    name: str,
    prefix: str,
    heads: _Head,
    origin: str,
    *,
    trunk: Callable[[Layer], str] = _torchvision_trunk,
    wrapper: str = "state_dict",
) -> Naming:
    """A project that wraps torchvision's ResNet."""
    # Prefix and trunk are bound: what is left takes the architecture.
    keys = partial(_keys, prefix, trunk, heads)
    refuses = partial(_both, _torchvision_refuses, _selector_refuses)
    return Naming(
        name, keys, _dotted, torch=True, refuses=refuses, wrapper=wrapper, affine=True, library=True, origin=origin
    )


TWIN = Naming(
    "twin",
    partial(_keys, "", _torchvision_trunk, _twin_heads),
    _dotted,
    torch=True,
    selector="ft_proj_selector",
    origin="converters/networks/in_torch.py; equals torchvision's where torchvision has the layer",
)
SEPARIUS = Naming(
    "separius",
    _separius_keys,
    _dotted,
    torch=True,
    refuses=partial(_both, _separius_refuses, _selector_refuses),
    wrapper=NESTED,
    affine=True,
    origin="Separius/SimCLRv2-Pytorch: names of resnet.py's modules, {'resnet': …, 'head': …} of convert.py",
)
TORCHVISION = _library(
    "torchvision",
    "",
    partial(_classifier, "fc"),
    "pytorch/vision torchvision/models/resnet.py; timm/models/resnet.py",
    wrapper="",
)
TONYLINS = _library("tonylins", "", partial(_classifier, "fc"), "tonylins/simclr-converter resnet_wider.py, convert.py")
_LIGHTLY = partial(_numbered, "projection_head.layers", "online_classifier.classification_head")
_MM_NECK = "open-mmlab/mmpretrain mmpretrain/models/necks/nonlinear_neck.py (fc0, bn0, …), models/heads/linear_head.py"

LIBRARIES: tuple[Naming, ...] = (
    _library(
        "lightly",
        "backbone.",
        _LIGHTLY,
        "lightly-ai/lightly benchmarks/imagenet/resnet50/simclr.py, lightly/models/modules/heads.py",
    ),
    _library(
        "lightly-sequential",
        "backbone.",
        _LIGHTLY,
        "lightly-ai/lightly examples/pytorch/simclr.py: nn.Sequential(*list(resnet.children())[:-1])",
        trunk=_sequential_trunk,
    ),
    _library(
        "solo-learn",
        "backbone.",
        partial(_classifier, "classifier"),
        "vturrisi/solo-learn solo/methods/base.py, simclr.py (its projector has biases and no normalisation)",
    ),
    _library(
        "lightning-bolts",
        "encoder.",
        _trunk_only,
        "Lightning-Universe/lightning-bolts src/pl_bolts/models/self_supervised/simclr/simclr_module.py",
    ),
    _library("mmselfsup", "backbone.", partial(_mm_neck, "head.fc"), _MM_NECK),
    _library(
        "vissl",
        "trunk._feature_blocks.",
        _trunk_only,
        "facebookresearch/vissl vissl/models/trunks/resnext.py, extra_scripts/convert_vissl_to_torchvision.py",
        wrapper="classy_state_dict/base_model/model/{}",
    ),
    _library(
        "moco",
        "module.encoder_q.",
        _trunk_only,
        "facebookresearch/moco moco/builder.py, main_lincls.py (module.encoder_q., its fc is MoCo's own head)",
    ),
)
"""Projects that people pretrain with; what of their heads does not fit SimCLR's is left behind."""
