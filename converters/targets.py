"""Writes a network under a naming into a container; a file appears whole or not at all."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from converters.atomic import replacing
from converters.catalogue import NAMINGS
from converters.namings import Naming, layout_shape, to_layout
from converters.network import Network, without
from converters.stored import Stored
from tf_simclr.errors import InputError, check

Pairs = Iterator[tuple[str, np.ndarray]]


@dataclass(frozen=True)
class Container:
    """A kind of file that networks are written to.

    Attributes:
        name: As given to `--to`.
        ending: Of the target's name; folders have none.
        namings: What its keys can be; the first is the default.
        write: (network, path, naming) → None.
        float32: Whether it holds float32 only.
    """

    name: str
    ending: str
    namings: tuple[str, ...]
    write: Callable[[Network, Path, Naming], None]
    float32: bool = False


def named(network: Network, naming: Naming) -> Pairs:
    """Key and array of every weight in the naming's layout, read one after the other, and what else it needs."""
    for hub, key in naming.table(network.architecture).items():
        yield key, to_layout(network[hub], torch=naming.torch)
    for key, size in naming.zeros(network.architecture).items():
        yield key, np.zeros(size, np.float32)
    for key, number in naming.extras(network.architecture).items():
        yield key, np.asarray(number, np.int64)


def outline(network: Network, naming: Naming) -> dict[str, Stored]:
    """Key → shape and dtype of what `named` yields, in its order."""

    def described(shape, dtype) -> Stored:
        return Stored(tuple(shape), dtype, lambda: np.zeros(shape, dtype))

    stored = network.weights
    table = naming.table(network.architecture)
    tensors = {
        key: described(layout_shape(stored[hub].shape, torch=naming.torch), stored[hub].dtype)
        for hub, key in table.items()
    }
    tensors |= {key: described((size,), "float32") for key, size in naming.zeros(network.architecture).items()}
    return tensors | {key: described((), "int64") for key in naming.extras(network.architecture)}


def metadata(network: Network, naming: Naming) -> dict[str, str]:
    """What a safetensors file says of itself."""
    text = {"format": "pt", "naming": naming.name, "source": network.container}
    text["architecture"] = json.dumps(asdict(network.architecture), sort_keys=True)
    return text | ({"step": str(network.step)} if network.step is not None else {})


def left_behind(network: Network, naming: Naming) -> list[str]:
    """Hub names for which the naming has no place."""
    table = naming.table(network.architecture)
    return sorted(name for name in network.weights if name not in table)


def _write_pth(network: Network, path: Path, naming: Naming) -> None:
    from converters.torch_files import write_torch

    write_torch(path, named(network, naming), wrapper=naming.wrapper)


def _write_safetensors(network: Network, path: Path, naming: Naming) -> None:
    from converters.safetensors_files import write_safetensors

    write_safetensors(path, outline(network, naming), named(network, naming), metadata=metadata(network, naming))


def _write_tf1(network: Network, path: Path, naming: Naming) -> None:
    from converters.checkpoints import write_tf1

    write_tf1(path, named(network, naming), step=network.step or 0)
    _write_flags(network, path)


def _write_flags(network: Network, folder: Path) -> None:
    """The official code leaves its flags beside its checkpoints; among them what the shapes do not tell."""
    a = network.architecture
    flags = {
        "ft_proj_selector": a.ft_proj_selector,
        "num_proj_layers": a.num_proj_layers,
        "proj_head_mode": a.proj_head_mode,
        "resnet_depth": a.depth,
        "se_ratio": a.se_ratio,
        "sk_ratio": a.sk_ratio,
        "width_multiplier": a.width,
    }
    with replacing(folder / "flags.json") as (file,):
        file.write(json.dumps(flags, indent=2, sort_keys=True).encode())


def _write_tf2(network: Network, path: Path, naming: Naming) -> None:
    from converters.object_graph import write_tf2

    write_tf2(path, named(network, naming), step=network.step or 0)
    _write_flags(network, path)


def _write_savedmodel(network: Network, path: Path, naming: Naming) -> None:
    from converters.keras_network import build_keras
    from converters.saved_model import write_saved_model

    write_saved_model(path, build_keras(network), network.architecture)


def _write_keras(network: Network, path: Path, naming: Naming) -> None:
    from converters.keras_network import build_keras

    with in_place(path) as temporary:
        build_keras(network).save(temporary)


def _write_h5(network: Network, path: Path, naming: Naming) -> None:
    from converters.keras_network import build_keras

    with in_place(path) as temporary:
        build_keras(network).save_weights(temporary)


def _write_huggingface(network: Network, path: Path, naming: Naming) -> None:
    from converters.hub_folder import write_hub_folder

    write_hub_folder(path, network, naming)


@contextlib.contextmanager
def in_place(path: Path) -> Iterator[Path]:
    """A temporary name beside a file, with its ending, that replaces it when the block ends well."""
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


TORCH = ("twin", *(name for name, naming in NAMINGS.items() if naming.torch and name != "twin"))

CONTAINERS: dict[str, Container] = {
    container.name: container
    for container in (
        Container("pth", ".pth", TORCH, _write_pth),
        Container("safetensors", ".safetensors", TORCH, _write_safetensors),
        Container("huggingface", "", TORCH, _write_huggingface),
        Container("tf1", "", ("tf1",), _write_tf1),
        Container("tf2", "", ("tf2",), _write_tf2),
        Container("savedmodel", "", ("tf2",), _write_savedmodel, float32=True),
        Container("keras", ".keras", ("keras",), _write_keras, float32=True),
        Container("h5", ".weights.h5", ("keras",), _write_h5, float32=True),
    )
}


def usual_naming(network: Network, to: str) -> str:
    """The container's own naming; for the hub torchvision's, which timm reads, where it can hold the encoder."""
    if to == "huggingface" and not NAMINGS["torchvision"].refuses(without(network.architecture, "projection")):
        return "torchvision"
    return CONTAINERS[to].namings[0]


def write(network: Network, path: Path, *, to: str, naming: str) -> None:
    """Writes the network.

    Raises:
        InputError: the naming cannot hold it or does not fit the container, or the target cannot be written.
    """
    container = CONTAINERS[to]
    check(naming in container.namings, f"naming of {to} must be one of {', '.join(container.namings)}", naming=naming)
    chosen = NAMINGS[naming]
    chosen.check(network.architecture)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        container.write(network, path, chosen)
    except OSError as error:
        raise InputError(f"{path} must be writable: {error.strerror or error}; choose another place") from error
