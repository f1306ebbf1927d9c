"""SimCLR checkpoints between TensorFlow, Keras and PyTorch, without losing a digit.

Example:
    >>> import converters
    >>> converters.convert("ckpt_dir", "weights.pth")  # doctest: +SKIP
    >>> model = converters.load_torch("weights.pth")  # doctest: +SKIP
"""

import importlib
from typing import Any

from tf_simclr.moved import remember

_PLACES = {
    "Conversion": "conversion",
    "Options": "options",
    "convert": "conversion",
    "load": "loading",
    "load_torch": "loading",
}

__all__ = ["Conversion", "Options", "convert", "load", "load_torch"]

remember()


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used: NumPy, PyTorch and TensorFlow are slow to import."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Kept nowhere: Python asks again for each use, and finds the module in `sys.modules`.
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
