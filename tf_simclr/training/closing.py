"""What is left to do behind a training's last step, by one of its processes, for which the others wait."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tf_simclr.replicas import Devices
from tf_simclr.training.callbacks import Stopping

_T = TypeVar("_T")


class Closing:
    """What is left to do behind the last step, which is saved: tests and files, by the first process.

    A signal to the one that works ends it at once, and the others with it; one to another process ends all as soon as
    the work in hand is done, for which that one waits.

    Args:
        stopping: the block of the whole training.
        devices: that it ran on.
        saved: the last checkpoint.
        say: takes a line for the user.
    """

    def __init__(self, stopping: Stopping, *, devices: Devices, saved: Path, say: Callable[[str], None]):
        self.stopping, self.devices, self.saved, self.say = stopping, devices, saved, say

    def by_chief(self, work: Callable[[], _T]) -> _T | None:
        """What the first process makes, None in the others; all must call it.

        Raises:
            InputError: the first one refuses; all say the same.
            SystemExit: after SIGTERM or SIGHUP.
            KeyboardInterrupt: after Ctrl-C.
        """

        def interruptible() -> _T | None:
            try:
                with self.stopping.at_once():
                    return work()
            except (SystemExit, KeyboardInterrupt):
                if self.stopping.signal is None:
                    raise
                return None  # all are told below

        found = self.devices.by_chief(interruptible)
        self.stop()
        return found

    def stop(self) -> None:
        """Ends all processes where one was sent a signal; all must call it."""
        sent = self.devices.first_signal(self.stopping.signal)
        if sent is None:
            return
        self.say(f"{sent.name}: the last step is saved in {self.saved}; the same command goes on from there")
        self.devices.part()
        self.stopping.signal = sent
        self.stopping.obey()
