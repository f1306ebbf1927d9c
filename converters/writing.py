"""Writes a network under a naming into a container; a file appears whole or not at all."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from converters.names.naming import Naming
from converters.names.network import Network, without
from converters.names.recognise import NAMINGS
from converters.names.translate import arrays, description, named
from tf_simclr.errors import InputError, check
from tf_simclr.files import replacing, replacing_path
from tf_simclr.frameworks import check_installed


@dataclass(frozen=True)
class Container:
    """A kind of file that networks are written to.

    Attributes:
        name: As given to `--to`.
        ending: Of the target's name; folders have none.
        namings: What its keys can be; the first is the default.
        write: (network, path, naming) → None.
        float32: Whether it holds float32 only.
        fresh: Whether the folder must be new or empty.
        needs: Packages that write and run it; the others are written by this project alone.
    """

    name: str
    ending: str
    namings: tuple[str, ...]
    write: Callable[[Network, Path, Naming], None]
    float32: bool = False
    fresh: bool = False
    needs: tuple[str, ...] = ()


def _write_pth(network: Network, path: Path, naming: Naming) -> None:
    from converters.pytorch.zip_file import write_state

    write_state(path, named(network, naming), wrapper=naming.wrapper)


def _write_safetensors(network: Network, path: Path, naming: Naming) -> None:
    from converters.other.safetensors_files import write_safetensors

    write_safetensors(path, named(network, naming), description=description(network, naming))


def _write_tf1(network: Network, path: Path, naming: Naming) -> None:
    from converters.tensorflow.folders import write_tf1

    write_tf1(path, arrays(network, naming), step=network.step or 0)
    _write_flags(network, path)


def _write_flags(network: Network, folder: Path) -> None:
    """The official code leaves its flags beside its checkpoints; among them what the shapes do not tell."""
    # By the official flags' names: `graph_def._in_flags` reads them back, and so does the official code.
    a = network.architecture
    # Sorted by name, as the official code writes them.
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
    from converters.tensorflow.object_graph import write_tf2

    write_tf2(path, arrays(network, naming), step=network.step or 0)
    _write_flags(network, path)


def _write_savedmodel(network: Network, path: Path, naming: Naming) -> None:
    from converters.networks.in_keras import build_keras
    from converters.tensorflow.saved_model import write_saved_model

    write_saved_model(path, build_keras(network), architecture=network.architecture)


def _write_keras(network: Network, path: Path, naming: Naming) -> None:
    from converters.networks.in_keras import build_keras

    check(path.name.endswith(".keras"), "a file of a Keras network must end in .keras", path=str(path))
    with replacing_path(path) as temporary:
        # With plain Keras layers: who loads the file needs nothing of this package.
        build_keras(network, fused=False).save(temporary)


def _write_h5(network: Network, path: Path, naming: Naming) -> None:
    from converters.keras_files.hdf5 import seal
    from converters.networks.in_keras import build_keras

    check(path.name.endswith(".weights.h5"), "a file of Keras' weights must end in .weights.h5", path=str(path))
    with replacing_path(path) as temporary:
        build_keras(network).save_weights(temporary)
        seal(temporary)  # .keras files have the zip's checksums


def _write_huggingface(network: Network, path: Path, naming: Naming) -> None:
    from converters.other.hub_folder import write_hub_folder

    write_hub_folder(path, network, naming=naming)


TORCH = ("twin", *(name for name, naming in NAMINGS.items() if naming.torch and name != "twin"))

CONTAINERS: dict[str, Container] = {
    container.name: container
    # In the order that the help shows.
    for container in (
        Container("pth", ".pth", TORCH, _write_pth),
        Container("safetensors", ".safetensors", TORCH, _write_safetensors),
        Container("huggingface", "", TORCH, _write_huggingface),
        Container("tf1", "", ("tf1",), _write_tf1),
        Container("tf2", "", ("tf2",), _write_tf2),
        Container(
            "savedmodel", "", ("tf2",), _write_savedmodel, float32=True, fresh=True, needs=("keras", "tensorflow")
        ),
        Container("keras", ".keras", ("keras",), _write_keras, float32=True, needs=("keras",)),
        Container("h5", ".weights.h5", ("keras",), _write_h5, float32=True, needs=("keras",)),
    )
}


def container_of(target: str | Path | None) -> str | None:
    """The container that a target's ending tells; folders' have none."""
    # Endings by length do not matter: none of them ends with another.
    endings = {container.ending: name for name, container in CONTAINERS.items() if container.ending}
    return next((name for ending, name in endings.items() if target is not None and str(target).endswith(ending)), None)


def usual_naming(network: Network, to: str) -> str:
    """The container's own naming; for the hub torchvision's, which timm reads, where it can hold the encoder."""
    if to == "huggingface" and not NAMINGS["torchvision"].refuses(without(network.architecture, "projection")):
        return "torchvision"
    return CONTAINERS[to].namings[0]


def check_possible(path: Path, to: str) -> None:
    """Raises `InputError` where a package is missing, or what is at the path must not be mixed with what is written."""
    check_installed(f"--to {to}", *CONTAINERS[to].needs)
    # A SavedModel's folder is read whole: files of another would be taken for its own.
    taken = path.exists() and (not path.is_dir() or any(path.iterdir()))
    mixed = CONTAINERS[to].fresh and taken
    check(not mixed, f"the folder that --to {to} writes must be new or empty; choose another", folder=str(path))


def write(network: Network, path: Path, *, to: str, naming: str) -> None:
    """Writes the network; `naming` is one of the container's.

    Raises:
        InputError: the naming cannot hold it, or the target cannot be written.
    """
    container = CONTAINERS[to]
    chosen = NAMINGS[naming]
    chosen.check(network.architecture)
    try:
        # The folder is made only here, when all that could be refused was.
        path.parent.mkdir(parents=True, exist_ok=True)
        container.write(network, path, chosen)
    except OSError as error:
        raise InputError(f"{path} must be writable: {error.strerror or error}; choose another place") from error
