"""What a training leaves behind: `result.json`, kept up to date while it runs, and the finished network."""

import time
from collections.abc import Collection, Sequence
from typing import Any

import keras

from tf_simclr.data.examples import Unreadable
from tf_simclr.errors import InputError, check
from tf_simclr.files import read_json, replacing_path, write_json
from tf_simclr.models.network import plain
from tf_simclr.replicas import ONE_DEVICE, Devices
from tf_simclr.run_folder import RunFolder
from tf_simclr.terminal import say
from tf_simclr.training.callbacks import read_history


def _read_result(folder: RunFolder) -> dict:
    """What a run's `result.json` holds.

    Raises:
        InputError: it is damaged, or holds something else.
    """
    content = read_json(folder.result)
    # What somebody else may have written under this name is no result.
    numbers = [content.get("step"), content.get("seconds")]
    names = content.get("unreadable")
    fits = all(type(number) in (int, float) for number in numbers) and isinstance(names, list)
    fits = fits and all(isinstance(name, str) for name in names or ())
    check(fits, f"{folder.result} must hold a run's step, seconds and unreadable images", has=sorted(content)[:20])
    return content


def finished_result(folder: RunFolder) -> dict | None:
    """What the `result.json` of a finished run holds, none if it is not finished.

    A damaged one is said, and made again from the run's last checkpoint.

    Raises:
        InputError: it is damaged, and there is no checkpoint.
    """
    if not (folder.network.exists() and folder.result.exists()):
        return None
    try:
        return _read_result(folder)
    except InputError as error:
        # A finished network without a readable result: the checkpoint makes it again.
        if not folder.checkpoints():
            raise
        say(f"{error}; it is made again from the last checkpoint")
        return None


class Result(keras.callbacks.Callback):
    """Keeps `result.json` up to date, so that a resumed run still knows its seconds and bad images from before.

    Of several processes each knows bad images of its own; the chief writes them all.  What is measured again when all
    is done, and is then more than a number, stays out of it (`without`).
    """

    def __init__(
        self,
        folder: RunFolder,
        unreadable: Unreadable,
        *,
        devices: Devices = ONE_DEVICE,
        division: dict[str, object] | None = None,
        notes: Sequence[str] = (),
        without: Collection[str] = (),
    ):
        super().__init__()
        self.division, self.notes, self.without = division, list(notes), without
        self.folder, self.unreadable, self.devices, self.began = folder, unreadable, devices, time.monotonic()
        # Seconds and unreadable images of before count on.
        resumes = folder.checkpoints() and folder.result.exists()
        self.before: dict = {"seconds": 0, "unreadable": []}
        try:
            self.before = _read_result(folder) if resumes else self.before
        except InputError as error:
            say(f"{error}; its seconds and unreadable images are counted anew")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.write()

    def write(self) -> dict:
        """Writes the last line of the history, the seconds spent, and the images that could not be read."""
        content: dict = {}
        if self.devices.chief:
            seconds = round(self.before["seconds"] + time.monotonic() - self.began, 1)
            last = next(iter(self.folder.steps()), 0)
            rows = read_history(self.folder) or [{"step": last}]  # it was lost, and nothing is left to train
            numbers = {name: value for name, value in rows[-1].items() if name not in self.without}
            content = {**numbers, "seconds": seconds}
        # Each process has met unreadable images of its own.
        found = self.devices.collect({"content": content, "unreadable": self.unreadable.names})
        names = {*self.before["unreadable"], *(name for one in found for name in one["unreadable"])}
        result = {**found[0]["content"], "unreadable": sorted(names)}
        result |= {} if self.division is None else {"division": self.division}
        result |= {"notes": self.notes} if self.notes else {}
        if self.devices.chief:
            write_json(self.folder.result, result)
        return result


def save_network(folder: RunFolder, network: keras.Model) -> None:
    """Writes a finished network, images to named endpoints, as a Keras file that loads without this package."""
    folder.check_there()
    with replacing_path(folder.network) as temporary:
        plain(network).save(temporary)
