"""What this machine computes with, found before a framework is imported: Keras' backend is chosen by then.

References:
    jax, `jax/_src/hardware_utils.py` (the PCI numbers of TPUs, and where NVIDIA's devices appear)
"""

import os
import sys
from pathlib import Path

from tf_simclr.errors import check
from tf_simclr.frameworks import BACKENDS, installed

GOOGLE = "0x1ae0"
"""Google's number among the vendors of PCI devices; its network cards have it, too."""
TPUS = {
    "0x0027": "TPU v2 or v3",
    "0x005e": "TPU v4",
    "0x0062": "TPU v5p",
    "0x0063": "TPU v5e",
    "0x006f": "TPU v6e",
    "0x0076": "TPU7x",
}
"""PCI device → its name."""
NVIDIA = ("nvidia0", "nvidiactl", "dxg")
"""Files of a GPU, in Docker and in WSL, too."""


def find_accelerator(*, pci: Path = Path("/sys/bus/pci/devices"), dev: Path = Path("/dev")) -> str:
    """The first kind that there is: a TPU by its name, `GPU` or `CPU`.

    Args:
        pci: where Linux lists PCI devices.
        dev: where it has device files.
    """
    devices = [path.parent for path in sorted(pci.glob("*/vendor")) if path.read_text().strip() == GOOGLE]
    names = [TPUS.get((device / "device").read_text().strip()) for device in devices]
    tpu = next((name for name in names if name), None)
    return tpu or ("GPU" if any((dev / name).exists() for name in NVIDIA) else "CPU")


def choose_backend(accelerator: str) -> str:
    """Has Keras compute with JAX on a TPU, elsewhere with TensorFlow or what there is, unless the environment says it.

    Args:
        accelerator: as `find_accelerator` calls it.

    Returns:
        The backend; the environment variable KERAS_BACKEND has it, too.

    Raises:
        InputError: Keras is imported already, with another backend than the TPU needs.
    """
    there = next((name for name in BACKENDS if installed(name)), "tensorflow")
    backend = os.environ.setdefault("KERAS_BACKEND", "jax" if accelerator.startswith("TPU") else there)
    keras = sys.modules.get("keras")
    used = backend if keras is None else keras.config.backend()
    check(used == backend, "the backend must be chosen before Keras is imported; restart Python", imported=used)
    return backend
