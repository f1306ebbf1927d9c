"""`tf-simclr presets`: the recipes of pretraining with their sources."""

import sys

from tf_simclr.config.listing import Presets
from tf_simclr.config.presets import PRESETS, table


def run(config: Presets) -> None:
    """Prints them.  No framework is loaded for that."""
    names = list(PRESETS) if config.name == "all" else [config.name]
    sys.stdout.write("\n\n".join(map(table, names)) + "\n")
