"""`tf-simclr checkpoints get`: an official checkpoint into the cache.  No framework is loaded for that."""

import sys
from pathlib import Path

from converters.published.bucket import split
from converters.published.catalogue import find
from converters.published.download import fetch
from tf_simclr.config.checkpoints import CheckpointsGet
from tf_simclr.errors import check
from tf_simclr.lock import hold
from tf_simclr.terminal import write


def run(config: CheckpointsGet) -> None:
    """Downloads, and prints where the checkpoint lies.

    Raises:
        InputError: it is not known, or cannot be downloaded.
    """
    write(f"{get(config)}\n")


def get(config: CheckpointsGet) -> Path:
    """The checkpoint's folder or file in the cache, downloaded if it is not there.

    Raises:
        InputError: it is not known, or cannot be downloaded.
    """
    address = place(config)
    folder = config.cache_dir.joinpath(*split(address))
    with hold(config.cache_dir, say=say):
        return fetch(address, folder, progress=Progress(address))


def place(config: CheckpointsGet) -> str:
    """Where it is to be had."""
    if config.name.startswith("gs://"):
        check(not config.tf2, "tf2 chooses between the addresses of a name; an address needs none", name=config.name)
        return config.name
    return find(config.name).tf2 if config.tf2 else find(config.name).tf1


def say(line: str) -> None:
    write(line + "\n", sys.stderr)


class Progress:
    """Says how far a download is: in place on a terminal, else every tenth."""

    def __init__(self, address: str):
        self.address, self.said = address, -1

    def __call__(self, done: int, total: int) -> None:
        steps = 1000 if sys.stderr.isatty() else 10
        share = steps * done // max(total, 1)
        if share > self.said:
            self.said = share
            end = "\r" if sys.stderr.isatty() and share < steps else "\n"
            text = f"{self.address}: {done / 1e6:,.1f} of {total / 1e6:,.1f} MB ({done / max(total, 1):.0%})"
            write(text + end, sys.stderr)
