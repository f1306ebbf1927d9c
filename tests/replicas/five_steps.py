"""Five steps of `tiny` on JAX, of one or several processes: `python -m tests.replicas.five_steps FLOATX FILE [SEED …]`.

Each seed makes a file of its own, `FILE-SEED`, of the same training with the rows of its batches in another order.
"""

import sys
from pathlib import Path

import numpy as np

from tests.replicas import tiny
from tf_simclr.errors import exit_on_input_error
from tf_simclr.replicas import find


def main(floatx: str, file: str, *seeds: str) -> None:
    """Trains and writes all that came of it."""
    tiny.compute_in(floatx)
    devices = find()
    with devices.together():
        found = tiny.trained(devices, optimizer="momentum")
        if devices.chief:
            np.savez(Path(f"{file}.npz"), **found)
        for seed in seeds:
            other = tiny.trained(devices, optimizer="momentum", stream=tiny.permuted(int(seed)))
            np.savez(Path(f"{file}-{seed}.npz"), **other)


if __name__ == "__main__":
    with exit_on_input_error():
        main(*sys.argv[1:])
