"""Checkpoints of any format into memory."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.names.network import Network, understand
from converters.opening.source import open_source

if TYPE_CHECKING:
    from converters.networks.in_torch import TwinResNet


def load(
    path: str | Path,
    *,
    naming: str | None = None,
    ema: bool = False,
    part: str = "all",
    selector: int | None = None,
    step: int | None = None,
    source_part: str | None = None,
) -> Network:
    """Opens a checkpoint of any format; weights are read when asked for.

    Args:
        path: A file, a checkpoint's prefix or a folder; recognised by content.
        naming: Naming of its keys; by default recognised.
        ema: Takes the moving averages of encoder and projection head.
        part: `encoder`, `encoder+projection` or `all`.
        selector: The projection layer that feeds the classifier; by default as stored, else 0.
        step: Which of a folder's checkpoints; by default the newest.
        source_part: Of several networks in the file (model and EMA, student and teacher) the one whose names begin so;
            by default the trained one.

    Returns:
        `architecture`, and `weights`: name (`group1_block1_conv3/kernel`, …) → tensor in TensorFlow's layout;
        `network[name]` reads one.

    Raises:
        InputError: it is damaged, unknown, or not whole.
    """
    source = open_source(path, step=step)
    try:
        return understand(source, naming=naming, ema=ema, selector=selector, part=part, source_part=source_part)
    except BaseException:
        source.close()
        raise


def load_torch(path: str | Path, **selection: Any) -> "TwinResNet":
    """A checkpoint of any format as the exact PyTorch twin, in evaluation mode.

    Args:
        path: As `load`.
        **selection: As `load`.

    Returns:
        A module from images `(n, 3, h, w)` in [0, 1], not normalised, to a dict of endpoints by the official names.
    """
    from converters.networks.twin import build_twin

    network = load(path, **selection)
    try:
        return build_twin(network)
    finally:
        network.close()
