"""Knobs of the commands for the official checkpoints."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from tf_simclr.config.parts import Checked
from tf_simclr.errors import check


@dataclass(frozen=True, kw_only=True)
class CheckpointsList(Checked):
    """Lists the official checkpoints: network, accuracy, what the classifier reads, and addresses."""

    match: str = ""
    """Only names with this text in them, such as pretrained/r50; of a single one everything that is known."""
    remote: str = ""
    """A gs:// folder whose content is asked of the bucket instead, such as gs://simclr-checkpoints/simclrv2."""

    def __post_init__(self):
        super().__post_init__()
        address = not self.remote or self.remote.startswith("gs://")
        check(address, "remote must be an address such as gs://simclr-checkpoints/simclrv2", remote=self.remote)


@dataclass(frozen=True, kw_only=True)
class CheckpointsGet(Checked):
    """Downloads an official checkpoint: goes on where it was stopped, compares checksums, whole or not at all."""

    name: tyro.conf.Positional[str]
    """One of `checkpoints list`, or a gs:// address of another one."""
    tf2: bool = False
    """The TF2 SavedModel instead of the TF1 checkpoint."""
    cache_dir: Path = Path("~/.cache/tf_simclr/checkpoints")
    """Where it is kept; the folder may be removed at any time."""


@dataclass(frozen=True, kw_only=True)
class CheckpointsConvert(CheckpointsGet):
    """Downloads an official checkpoint, unless it is there, and converts it, with proof, as `converters.tf2torch`."""

    target: tyro.conf.Positional[Path | None] = None
    """File or folder to write; by default in the working directory, named as the checkpoint."""
    to: str | None = None
    """Format: pth, safetensors, huggingface, tf1, tf2, savedmodel, keras or h5; by default the target's ending's."""
    naming: str | None = None
    """Names to write, such as twin, torchvision or tonylins; by default what the format has."""
    part: Literal["encoder", "encoder+projection", "all"] = "all"
    """What to convert."""
    ema: bool = False
    """Take the moving averages of encoder and projection head."""
    selector: int | None = None
    """Projection layer that feeds the classifier; by default as the stored graph says, else as the catalogue."""
    verify: bool = True
    """Compare every weight and every endpoint of what was written with the source's."""
