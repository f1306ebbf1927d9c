"""The README's table: from every format to every other, the largest difference of any weight and of any endpoint.

python benchmarks/formats.py              prints the table in Markdown; a cell is weights / endpoints
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

from converters import writing as targets
from converters.conversion import convert
from converters.names import walk as layers
from converters.names.network import Network
from converters.tensors import Stored
from tf_simclr.models.architecture import Architecture

SMALL = Architecture(18, cifar_stem=True, proj_head_mode="nonlinear", num_proj_layers=3, num_classes=10)


def network() -> Network:
    """The smallest network with every part; random weights, moving statistics too."""
    rng = np.random.default_rng(0)

    def value(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if len(shape) > 1:
            return rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape).astype(np.float32)
        low, high = (0.5, 1.5) if name.endswith(("gamma", "moving_variance")) else (-0.1, 0.1)
        return rng.uniform(low, high, shape).astype(np.float32)

    arrays = {name: value(name, shape) for name, shape in layers.weights(SMALL).items()}
    return Network(SMALL, {name: Stored(a.shape, "float32", lambda a=a: a) for name, a in arrays.items()})


def cell(source: Path, folder: Path, to: str) -> str:
    """Converts, and says how far the written file is from its source; conversions check weights bit by bit."""
    path = folder / f"{source.name}_{to}{targets.CONTAINERS[to].ending}"
    done = convert(source, path, to=to, naming=targets.CONTAINERS[to].namings[0])
    return f"0 / {done.worst.relative:.0e}"


def main() -> None:
    names = list(targets.CONTAINERS)
    sys.stdout.write(f"| from \\ to | {' | '.join(names)} |\n|{' --- |' * (len(names) + 1)}\n")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for source in names:
            path = folder / f"source_{source}{targets.CONTAINERS[source].ending}"
            targets.write(network(), path, to=source, naming=targets.CONTAINERS[source].namings[0])
            cells = [cell(path, folder, to) for to in names]
            sys.stdout.write(f"| {source} | {' | '.join(cells)} |\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
