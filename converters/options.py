"""The command line that `tf2torch` and `torch2tf` share; nothing heavy is imported before the options are read."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from tf_simclr.errors import exit_on_input_error
from tf_simclr.places import expand
from tf_simclr.terminal import write


@dataclass(frozen=True)
class Options:
    """What the converting commands can be told."""

    source: Annotated[Path, tyro.conf.Positional]
    """A checkpoint: a file, a TensorFlow prefix or a folder; recognised by content."""
    target: Annotated[Path | None, tyro.conf.Positional] = None
    """File or folder to write; by default in the working directory, named as the source."""
    naming: str | None = None
    """Names to write: twin (torchvision's, with heads, SK and SE), torchvision, tonylins, separius, a library's, tf1,
    tf2 or keras; by default what the format has, twin for PyTorch."""
    to: str | None = None
    """Format to write: pth, safetensors, huggingface, tf1, tf2, savedmodel, keras or h5; by default by the target's
    ending."""
    ema: bool = False
    """Take the moving averages of encoder and projection head instead of the last step's weights."""
    part: Literal["encoder", "encoder+projection", "all"] = "all"
    """What to convert."""
    selector: int | None = None
    """Projection layer that feeds the classifier (0: the pooled features); by default as the stored graph says."""
    step: int | None = None
    """Which of a folder's checkpoints; by default the newest."""
    rescale: float | None = None
    """Multiply the convolutions that a BatchNorm follows, and its statistics with them: no output changes."""
    source_naming: str | None = None
    """Names in the source; by default recognised."""
    source_part: str | None = None
    """Of several networks in the source (model and ema, student and teacher) the one whose names begin so; by default
    the trained one."""
    verify: bool = True
    """Read the written file again, compare every weight bit by bit and every endpoint on seeded images; a file that
    differs is not put in place."""
    engine: Literal["auto", "numpy", "torch"] = "auto"
    """What computes a PyTorch file's endpoints in the verification: PyTorch itself (auto, where it is installed), or
    NumPy from the file's bytes, which saves the seconds that importing PyTorch takes."""

    def __post_init__(self) -> None:
        expand(self)


def spare_threads() -> None:
    """Has NumPy multiply in one thread, unless the environment says otherwise; before NumPy is imported.

    The proof's matrices are so small that OpenBLAS' threads wait for each other seven times longer than they compute.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def run(program: str, *, description: str, usual: str) -> None:
    """Reads the options, converts, and prints the report; exit code 2 with one sentence on wrong input.

    Args:
        program: The module's name.
        description: For `--help`.
        usual: Container where neither `--to` nor the target's ending tells.
    """
    with exit_on_input_error():
        options = tyro.cli(Options, prog=f"python -m {program}", description=description)
        spare_threads()
        from converters.command import report
        from converters.conversion import convert

        done = convert(**vars(options), usual=usual)
        write(report(done))
