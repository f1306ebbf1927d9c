"""How a training ends: by a signal, or behind its last step by what one process does, for which the others wait.

All processes end together, and only when what is saved lies where the next start looks for it: launchers give those
that are left some seconds as soon as one has ended.
"""

import signal
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import keras

from tf_simclr.errors import InputError
from tf_simclr.machine.signals import Stopping
from tf_simclr.replicas import Devices
from tf_simclr.run_folder import RunFolder
from tf_simclr.terminal import addressed
from tf_simclr.training.callbacks import Checkpoints

_T = TypeVar("_T")


class Stop(keras.callbacks.Callback):
    """Ends a process that is to stop as soon as its last step is saved; the last callback, so that all others ran."""

    def __init__(self, saver: Checkpoints, *, say: Callable[[str], None]):
        super().__init__()
        self.saver, self.say = saver, say

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        # The last of the callbacks: all others have seen this step.
        several = self.saver.devices.process[1] > 1  # alone, there is nobody to agree with
        agreed, step = self.saver.agreed if several else self.saver.stopping.signal, self.saver.step
        if agreed is not None and self.saver.saved == step:
            self.end(agreed)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.on_train_batch_end(0)

    def behind_the_last(self) -> None:
        """Ends all processes where one was sent a signal since the last step; all must call it."""
        agreed = self.saver.devices.first_signal(self.saver.stopping.signal)
        if agreed is not None:
            self.end(agreed)

    def end(self, agreed: signal.Signals) -> NoReturn:
        """Says where the last step is, and ends this process."""
        saver = self.saver
        saver.devices.by_chief(saver.wait)
        saved = Closing(saver.stopping, devices=saver.devices, run=saver.run, step=saver.saved, say=self.say)
        saved.end(agreed)


class Closing:
    """What is left to do behind a step that is saved: where it is the last one, tests and files, by the first process.

    A signal to the one that works ends it at once, and the others with it; one to another process ends all as soon as
    the work in hand is done, for which that one waits.

    Args:
        stopping: the block of the whole training.
        devices: that it ran on.
        run: its folder.
        step: that is saved.
        say: takes a line for the user.
    """

    def __init__(self, stopping: Stopping, *, devices: Devices, run: RunFolder, step: int, say: Callable[[str], None]):
        self.stopping, self.devices, self.run, self.step, self.say = stopping, devices, run, step, say

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
        if sent is not None:
            self.end(sent)

    def end(self, sent: signal.Signals) -> NoReturn:
        """Says where the step is saved, when it is, and ends all processes as a signal asks for; all must call it."""
        # The first process alone knows whether its bucket has all; the others wait for that here.
        trouble = self.devices.collect(self._send() if self.devices.chief else None)[0]
        if trouble is None:
            where = f"in {self.run.checkpoint(self.step)}; the same command goes on from there"
        else:
            here = "this machine" if self.devices.process[1] == 1 else "the machine of worker 0"
            where = f"on {here} alone, where the same command goes on from it: {trouble}"
        self.say(f"{sent.name}: step {self.step:,} is saved {where}")
        self.devices.part()
        self.stopping.signal = sent
        self.stopping.obey(together=True)

    def _send(self) -> str | None:
        """Sends a run that lies in a bucket, and returns why it is not all there, if so."""
        try:
            self.run.send()
        except InputError as error:
            return addressed(str(error))
        return None
