"""`tf-simclr presets`: the recipes of pretraining with their sources."""

from tf_simclr.config.presets import PRESETS, table
from tf_simclr.config.training import Presets
from tf_simclr.terminal import write


def run(config: Presets) -> None:
    """Prints them.  No framework is loaded for that."""
    names = list(PRESETS) if config.name == "all" else [config.name]
    write("\n\n".join(map(table, names)) + "\n")
