"""A run on Weights & Biases, where its package is installed."""

import secrets
import zlib
from collections.abc import Mapping
from typing import Any

import keras

from tf_simclr.errors import InputError, check, in_one_line
from tf_simclr.files import read_json, write_json
from tf_simclr.frameworks import imported
from tf_simclr.run_folder import RunFolder
from tf_simclr.training import read_history


def _identity(run: RunFolder) -> str:
    """The run's name among all of a project: drawn once, and kept in its folder.

    Raises:
        InputError: what is kept is damaged.
    """
    path = run.path / "wandb.json"
    if not path.exists():
        # A run from before names were kept was called by its folder's path, and goes on under that name.
        by_path = f"{zlib.crc32(str(run.path.resolve()).encode()):08x}"
        write_json(path, {"id": by_path if run.history.exists() else secrets.token_hex(4)})
    name = read_json(path).get("id")
    check(isinstance(name, str) and name, f"{path} must hold the run's id", id=name)
    return str(name)


class Report(keras.callbacks.Callback):
    """Sends each epoch's line of the history, the sheet of pairs and the configuration.

    A resumed run goes on where it was, wherever its folder lies by now: the folder holds its name there.

    Args:
        run: whose history is sent; after its line has been written.
        project: on Weights & Biases.
        config: what `config.json` holds.

    Raises:
        InputError: the package is not installed.
    """

    def __init__(self, run: RunFolder, project: str, *, config: Mapping):
        super().__init__()
        self.run, self.wandb = run, imported("wandb", "--wandb")
        self.options = {
            "project": project,
            "id": _identity(run),
            "name": run.path.name,
            "config": dict(config),
            "dir": str(run.path),
            "resume": "allow",
        }
        self.session: Any = None

    def on_train_begin(self, logs=None):
        if self.session is not None:  # an epoch that was begun and the whole ones are two calls of `fit`
            return
        try:
            self.session = self.wandb.init(**self.options)
        except Exception as error:  # no login, no network
            raise InputError(
                "Weights & Biases must take what is reported: `wandb login` first, or keep it here for later with "
                f"WANDB_MODE=offline, or leave --wandb out ({in_one_line(error)})"
            ) from error
        pairs = self.run.path / "pairs.png"
        if pairs.exists():
            self.session.log({"augmented_pairs": self.wandb.Image(str(pairs))}, step=0)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        # What is sent is the history's line: the same numbers as on the disk.
        row = read_history(self.run)[-1]
        self.session.log(row, step=row["step"])

    def finish(self):
        """Ends the report; the last numbers are sent."""
        if self.session is not None:
            self.session.finish()
