"""What a conversion did, in words."""

from converters.catalogue import NAMINGS
from converters.conversion import Conversion
from tf_simclr.models.architecture import Architecture

POOL = "model.maxpool = converters.torch_resnet.TensorFlowMaxPool2d()"


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
    head = "no projection head"
    if a.num_proj_layers:
        head = f"{a.proj_head_mode} projection head {' → '.join(map(str, (a.feature_dim, *a.proj_dims)))}"
    fed = f"projection layer {a.ft_proj_selector}" if a.ft_proj_selector else "the pooled features"
    classes = f"{a.num_classes} classes on {fed}" if a.num_classes else "no classifier"
    return f"ResNet-{a.depth} {a.width}x; {sk}, {se}; {stem}; {head}; {classes}"


def version(architecture: Architecture, *, container: str, has_ema: bool) -> str:
    """Which release's style a checkpoint has: v1's hold no projection head (goldens' fact 1)."""
    if "TF1" not in container:
        return ""
    later = architecture.num_proj_layers or architecture.sk_ratio or has_ema
    return "SimCLRv2 style" if later else "SimCLR v1 style (no projection head stored)"


def report(done: Conversion) -> str:
    """Lines that say what was found, written, left behind, proven, and how to load it."""
    network = done.network
    style = version(done.architecture, container=network.container, has_ema=network.has_ema)
    step = f", step {network.step}" if network.step is not None else ""
    kind = f"{network.container} in {network.naming} names{step}{', ' + style if style else ''}"
    dtypes = ", ".join(sorted({stored.dtype for stored in network.weights.values()}))
    lines = [
        ("Read", f"{done.source}: {kind}{', moving averages (EMA)' if network.ema else ''}"),
        ("Found", describe(done.architecture)),
        (
            "Wrote",
            f"{done.target}: {len(network.weights)} weights, {done.bytes / 1e6:.1f} MB, {dtypes}, {done.naming} names",
        ),
    ]
    lines += [("Left", f"{len(keys)} tensors: {why} ({_some(keys)})") for why, keys in network.left.items()]
    lines += [("Note", note) for note in network.notes]
    lines += _proof(done) + _loading(done)
    return "\n".join(f"{head:<9}{text}" for head, text in lines) + "\n"


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:2]) + (", …" if len(keys) > 2 else "")


def _proof(done: Conversion) -> list[tuple[str, str]]:
    worst = done.worst
    if worst is None:
        return [("Verified", "no (--no-verify)")]
    text = (
        f"weights bit-equal; {len(done.differences)} endpoints differ by at most {worst.relative:.1e} of their largest "
    )
    lines = [("Verified", text + f"magnitude ({worst.name}, {done.precision})")]
    if done.rescaling is not None:
        lines.append(("Rescaled", f"no output changed by more than {done.rescaling.relative:.1e} of its largest"))
    if done.torchvision is not None:
        lines.append(
            (
                "Note",
                "torchvision and timm take these weights, but pool with other windows: their features differ by "
                f"{done.torchvision.relative:.0%} of the largest. The cure: {POOL}",
            )
        )
    return lines


def _loading(done: Conversion) -> list[tuple[str, str]]:
    if NAMINGS[done.naming].torch:
        code = [
            "import converters",
            f'model = converters.load_torch("{done.target}")',
            'features = model(images)["final_avg_pool"]  # images (n, 3, h, w) in [0, 1], not normalised',
        ]
    else:
        code = [
            "import tf_simclr",
            f'model = tf_simclr.load_model("{done.target}")',
            'features = model(images)["final_avg_pool"]  # images (n, h, w, 3) in [0, 1], not normalised',
        ]
    return [("Load", code[0]), *(("", line) for line in code[1:])]
