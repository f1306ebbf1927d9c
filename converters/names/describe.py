"""Architectures in words."""

from collections.abc import Sequence

from tf_simclr.models.architecture import Architecture

POOL = "model.maxpool = converters.networks.in_torch.TensorFlowMaxPool2d()"


def describe(architecture: Architecture) -> str:
    """An architecture in one line.

    Example:
        >>> describe(Architecture(depth=50, width=2, num_classes=10))
        'ResNet-50 2x; no SK, no SE; ImageNet stem; no projection head; 10 classes on the pooled features'
    """
    a = architecture
    sk = f"SK {a.sk_ratio:g} with ResNet-D" if a.sk_ratio else "no SK"
    se = f"SE {a.se_ratio:g}" if a.se_ratio else "no SE"
    stem = "small-image (CIFAR) stem" if a.cifar_stem else "ImageNet stem"
    stem += f" of {a.channels} channel{'s' * (a.channels > 1)}" if a.channels != 3 else ""
    head = "no projection head"
    if a.num_proj_layers:
        head = f"{a.proj_head_mode} projection head {' → '.join(map(str, (a.feature_dim, *a.proj_dims)))}"
    fed = f"projection layer {a.ft_proj_selector}" if a.ft_proj_selector else "the pooled features"
    classes = f"{a.num_classes} classes on {fed}" if a.num_classes else "no classifier"
    return f"ResNet-{a.depth} {a.width}x; {sk}, {se}; {stem}; {head}; {classes}"


def tensors(count: int) -> str:
    """A number of tensors in words.

    Example:
        >>> tensors(1), tensors(2)
        ('1 tensor', '2 tensors')
    """
    return f"{count} tensor{'' if count == 1 else 's'}"


def some(keys: Sequence[str]) -> str:
    """The first keys.

    Example:
        >>> some(["a", "b", "c"])
        'a, b, …'
    """
    return ", ".join(keys[:2]) + (", …" if len(keys) > 2 else "")


def version(architecture: Architecture, *, container: str, has_ema: bool) -> str:
    """Which release's style a checkpoint has: v1's hold no projection head (docs/official-code.md#releases)."""
    if "TF1" not in container:
        return ""
    later = architecture.num_proj_layers or architecture.sk_ratio or has_ema
    return "SimCLRv2 style" if later else "SimCLR v1 style (no projection head stored)"
