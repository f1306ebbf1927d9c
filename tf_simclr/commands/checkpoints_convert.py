"""`tf-simclr checkpoints convert`: an official checkpoint for PyTorch, Keras or another format, with proof."""

import contextlib
from pathlib import Path

import converters
from converters.command import report
from converters.conversion import default_target
from converters.names.selector import ASSUMED
from converters.published.catalogue import CHECKPOINTS
from tf_simclr.commands.checkpoints_get import get, say
from tf_simclr.config.checkpoints import CheckpointsConvert
from tf_simclr.terminal import write


def run(config: CheckpointsConvert) -> None:
    """Downloads unless it is there, converts, and prints the report.

    Raises:
        InputError: see `checkpoints get` and `converters.convert`.
    """
    source = get(config)
    said = {name: getattr(config, name) for name in ("to", "naming", "part", "ema", "verify")}
    target = config.target or default_target(Path(config.name), config.to or "pth")
    done = converters.convert(source, target, **said, selector=selector(config, source), usual="pth")
    official = CHECKPOINTS.get(config.name)
    expected = None if official is None or config.part != "all" else official.selector
    if expected is not None and done.architecture.ft_proj_selector != expected:
        say(f"the catalogue expects the classifier on projection layer {expected}; what the file says was taken")
    write(report(done))


def selector(config: CheckpointsConvert, source: Path) -> int | None:
    """The projection layer that feeds the classifier where the catalogue must tell: no graph lies beside the file."""
    official = CHECKPOINTS.get(config.name)
    if config.selector is not None or official is None or config.part != "all":
        return config.selector
    with contextlib.closing(converters.load(source, ema=config.ema)) as network:
        return official.selector if ASSUMED in network.notes else None
