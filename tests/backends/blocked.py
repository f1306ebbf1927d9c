"""Runs a module as where some packages are not installed: `python -m tests.backends.blocked NAMES MODULE …`.

`NAMES` are packages with commas between them, or `-` for none; the module sees the other words as its own.
"""

import runpy
import sys

NO_TENSORFLOW = "tensorflow,tensorflow_datasets"


def block(names: str) -> None:
    """From now on importing one of these packages fails as it does where they are not installed."""
    for name in names.split(",") if names != "-" else ():
        sys.modules[name] = None  # type: ignore[assignment]  # Python's own way to say so


if __name__ == "__main__":
    block(sys.argv[1])
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
