"""`simclr-convert`, or `python -m converters`: all commands of the converters under one name."""

import difflib
import importlib
import importlib.metadata
import sys
from pathlib import Path

from tf_simclr.errors import InputError, exit_on_input_error
from tf_simclr.terminal import typed, write

COMMANDS = {
    "tf2torch": "a TensorFlow or Keras checkpoint to PyTorch",
    "torch2tf": "PyTorch weights to TensorFlow or Keras",
    "inspect": "what a checkpoint of any format holds",
    "verify": "whether two checkpoints of any formats are one network",
}
"""Name of a module of this package → what its `main` does."""

HELP = f"""usage: simclr-convert {{{",".join(COMMANDS)}}} ... (--help behind a command: its options)

Converts SimCLR checkpoints between TensorFlow, Keras and PyTorch, and proves that the network is the same.

{"".join(f"  {name:<10}{text}" + chr(10) for name, text in COMMANDS.items())}
for example: simclr-convert tf2torch model.ckpt-250228 r50.pth --naming torchvision
"""


def main() -> None:
    """Hands the command line over to the command that it begins with."""
    name, *line = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        write(HELP)
        return
    if name == "--version":
        write(f"tf-simclr {importlib.metadata.version('tf-simclr')}\n")
        return
    with exit_on_input_error():
        if name not in COMMANDS:
            # One near word is advice; a list of them would be a guess.
            near = difflib.get_close_matches(name, COMMANDS, 1)
            advice = f"did you mean {near[0]}?" if near else "see simclr-convert --help"
            if not near and Path(name).exists():  # the command was left out
                advice = f"to convert {name}: {typed('tf2torch', Path(name), program='simclr-convert')}, or torch2tf"
            names = ", ".join(COMMANDS)
            raise InputError(f"the first word must be one of the commands {names}, not {name!r}; {advice}")
    importlib.import_module(f"converters.{name}").main(line, program=f"simclr-convert {name}")


if __name__ == "__main__":
    main()
