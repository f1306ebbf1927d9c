"""A folder for the Hugging Face hub: weights, a configuration that timm reads, and a model card."""

import json
from dataclasses import asdict
from pathlib import Path

from converters.names.describe import POOL, describe
from converters.names.naming import Naming
from converters.names.network import Network
from converters.names.translate import description, named
from converters.other.safetensors_files import write_safetensors
from tf_simclr.files import replacing
from tf_simclr.models.architecture import Architecture

_TIMM = ("torchvision", "tonylins")
"""Namings that timm's ResNets read."""


def write_hub_folder(folder: Path, network: Network, *, naming: Naming) -> None:
    """Writes `model.safetensors`, `config.json` and `README.md`."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = named(network, naming)
    write_safetensors(folder / "model.safetensors", weights, description=description(network, naming))
    texts = {"config.json": json.dumps(_config(network, naming), indent=2) + "\n", "README.md": _card(network, naming)}
    for name, text in texts.items():
        with replacing(folder / name) as (file,):
            file.write(text.encode())


def _config(network: Network, naming: Naming) -> dict:
    """`config.json` as `timm.models.load_model_config_from_hub` reads it, and our own architecture.

    The reference takes pixels in [0, 1] as they are: mean 0 and standard deviation 1.
    """
    a = network.architecture
    ours = {"library_name": "tf_simclr", "tf_simclr": asdict(a), "naming": naming.name}
    if not _timm_reads(a, naming):
        return ours
    # In timm's words what our networks see: [0, 1], so a mean of 0 and a deviation of 1, and the same crop.
    size = 32 if a.cifar_stem else 224
    pretrained = {
        "input_size": [3, size, size],
        "interpolation": "bicubic",
        "crop_pct": 0.875,
        "mean": [0.0, 0.0, 0.0],
        "std": [1.0, 1.0, 1.0],
        "num_classes": a.num_classes,
        "pool_size": [7, 7],
        "first_conv": "conv1",
        "classifier": "fc",
    }
    timm = {"architecture": f"resnet{a.depth}", "num_classes": a.num_classes, "num_features": a.feature_dim}
    return ours | timm | {"global_pool": "avg", "pretrained_cfg": pretrained, "library_name": "timm"}


def _timm_reads(architecture: Architecture, naming: Naming) -> bool:
    """Whether timm has a model of this architecture: its ResNets have one width and the ImageNet stem."""
    a = architecture
    return naming.name in _TIMM and a.width == 1 and not a.cifar_stem and naming.refuses(a) is None


def _card(network: Network, naming: Naming) -> str:
    """The model card."""
    a = network.architecture
    step = f", step {network.step}" if network.step is not None else ""
    lines = [
        "---",
        "license: apache-2.0",
        f"library_name: {'timm' if _timm_reads(a, naming) else 'tf_simclr'}",
        "tags: [simclr, self-supervised-learning, image-feature-extraction]",
        "---",
        f"# SimCLR ResNet-{a.depth} {a.width}x",
        "",
        f"{describe(a)}.",
        "",
        f"Converted from a {network.container}{step}{' (moving averages)' if network.ema else ''} by `converters`; "
        f"{network.parameters / 1e6:.1f} M parameters, {naming.name} names.",
        "",
        f"Images are {'RGB' if a.channels == 3 else f'of {a.channels} channels'} in [0, 1], not normalised: "
        "centre crop 0.875, bicubic.",
        "",
        "```python",
        "import converters",
        'model = converters.load_torch("this/folder")',
        f'features = model(images)["final_avg_pool"]  # images (n, {a.channels}, h, w)',
        "```",
    ]
    if _timm_reads(a, naming):
        lines += [
            "",
            "With timm, the pooling must be TensorFlow's for the same features:",
            "",
            "```python",
            "import timm, converters.networks.in_torch",
            'model = timm.create_model("local-dir:this/folder", pretrained=True)',
            POOL,
            "```",
        ]
    return "\n".join(lines) + "\n"
