"""A process that meets the others by whoever started it and says what it found: `python -m tests.replicas.meets`."""

import sys

import numpy as np

from tf_simclr.errors import exit_on_input_error
from tf_simclr.replicas import find
from tf_simclr.replicas.devices import exchange


def main() -> None:
    """Each gives its number, and has those of all."""
    devices = find()
    numbers = exchange(devices.strategy, np.array([[devices.process[0]]], np.int32)).ravel().tolist()
    sys.stdout.write(f"{devices.description}; numbers {numbers}\n")


if __name__ == "__main__":
    with exit_on_input_error():
        main()
