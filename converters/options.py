"""What a conversion can be told: one object, the same from the command line and from Python."""

from dataclasses import dataclass
from typing import Literal

_Part = Literal["encoder", "encoder+projection", "all"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is read of the source, what is written, and how it is proven.

    Attributes: each with what it means and its default.

    Example:
        >>> from converters import Options
        >>> Options(to="keras", part="encoder").verify
        True
    """

    naming: str | None = None
    """Names to write: twin (torchvision's, with heads, SK and SE), torchvision, tonylins, separius, a library's, tf1,
    tf2 or keras; by default what the format has, twin for PyTorch."""
    to: str | None = None
    """Format to write: pth, safetensors, huggingface, tf1, tf2, savedmodel, keras or h5; by default by the target's
    ending."""
    ema: bool = False
    """Take the moving averages of encoder and projection head instead of the last step's weights."""
    part: _Part = "all"
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
