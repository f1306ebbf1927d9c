"""`python -m converters.inspect`: what a checkpoint holds."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from converters.command import asked
from tf_simclr.config.options import POSITIONAL
from tf_simclr.errors import exit_on_input_error
from tf_simclr.files.places import expand
from tf_simclr.terminal import write

if TYPE_CHECKING:
    from converters.names.network import Network

_SHOWN = 10


@dataclass(frozen=True)
class Options:
    """What to look at."""

    path: Annotated[Path, POSITIONAL]
    """A checkpoint (a file, a TensorFlow prefix or a folder), recognised by content."""
    naming: str | None = None
    """Names in it; by default recognised."""
    ema: bool = False
    """Look at the moving averages."""
    selector: int | None = None
    """Projection layer that feeds the classifier; by default as the stored graph says."""
    step: int | None = None
    """Which of a folder's checkpoints; by default the newest."""
    source_part: str | None = None
    """Of several networks in it the one whose names begin so; by default the trained one."""

    def __post_init__(self) -> None:
        expand(self)


def main(line: Sequence[str] | None = None, program: str = "python -m converters.inspect") -> None:
    """Says what a checkpoint holds: architecture, heads, optimizer state, averages, step, dtypes, suspicious values."""
    with exit_on_input_error():
        options = asked(Options, line, program=program, description=main.__doc__)
        from converters.loading import load

        # Its other fields are what `load` takes, by name.
        network = load(options.path, **{k: v for k, v in vars(options).items() if k != "path"})
        write("\n".join(f"{head:<12}{text}" for head, text in describe_network(network)) + "\n")


def describe_network(network: "Network") -> list[tuple[str, str]]:
    """Heading and text of each line."""
    from converters.names.describe import describe, some, tensors, version
    from converters.values import kernel_scale

    # From what it is to what it computes, then what is odd, then what was left behind.
    a = network.architecture
    style = version(a, container=network.container, has_ema=network.has_ema)
    scale = f"{kernel_scale(network):.3g} (v1's and v2's official kernels differ 16.8× in scale; --rescale of the "
    lines = [
        ("Container", f"{network.container}, {network.naming} names{', ' + style if style else ''}"),
        ("Found", describe(a)),
        ("Parameters", f"{network.parameters:,} trained, {len(network.weights)} weights"),
        ("Dtypes", _dtypes(network)),
        ("Step", "not stored" if network.step is None else str(network.step)),
        ("EMA", "moving averages beside the weights" if network.has_ema else "none"),
        ("Slots", f"{tensors(network.slots)} of optimizer state" if network.slots else "none"),
        ("Training", training(network)),
        ("Scale", scale + "converters changes it and no output)"),
        *(("Suspicious", text) for text in _suspicions(network)),
    ]
    lines += [("Left", f"{tensors(len(keys))}: {why} ({some(keys)})") for why, keys in network.left.items()]
    return lines + [("Note", note) for note in network.notes]


def _dtypes(network: "Network") -> str:
    names = [stored.dtype for stored in network.weights.values()]
    return ", ".join(f"{name} × {names.count(name)}" for name in sorted(set(names)))


def _suspicions(network: "Network") -> list[str]:
    """Tensors with NaN, infinite or only zero values, or that there are none."""
    from converters.values import suspicious

    found = [f"{name}: {text}" for name in network.weights if (text := suspicious(network[name]))]
    more = [f"… and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
    return found[:_SHOWN] + more or ["no NaN, infinite or all-zero tensors"]


def training(network: "Network") -> str:
    """What the stored heads and optimizer state tell of the training."""
    if not network.architecture.num_classes:
        return "pretrained; no classifier"
    if network.architecture.ft_proj_selector:
        return f"fine-tuned: the classifier reads projection layer {network.architecture.ft_proj_selector}"
    # An optimizer has state of what it trains: none of the encoder's means that only the classifier was trained.
    # The words of the official scopes: TF1's `base_model`, TF2's `resnet_model`.
    slots = [key for why, keys in network.left.items() if "optimizer" in why for key in keys]
    if not slots:
        return "has a classifier; whether the encoder was fine-tuned is not stored"
    return "fine-tuned" if any("base_model" in key or "resnet_model" in key for key in slots) else "linear evaluation"


if __name__ == "__main__":
    main()
