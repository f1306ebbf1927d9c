"""What accompanies a training: its plan, and what watches, saves, counts and notes."""

import csv
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import keras
import numpy as np

from tf_simclr.errors import InputError
from tf_simclr.files import csv_of, replacing
from tf_simclr.files.lock import Beat
from tf_simclr.foreign import reading
from tf_simclr.machine.signals import Stopping
from tf_simclr.replicas import Devices, settle, steps_done
from tf_simclr.run_folder import RunFolder, captured, write_state
from tf_simclr.terminal import Line


@dataclass(frozen=True)
class Plan:
    """How long a training is and how often it is noted."""

    total_steps: int
    """Steps in all, at least 1."""
    steps_per_epoch: int
    """Steps between two lines of the history."""
    batch_size: int
    """Images a step, over all replicas."""
    checkpoint_steps: int
    """Steps between two checkpoints."""
    keep_checkpoint_max: int = 5
    """Checkpoints kept, the newest ones; 0: all."""

    epochs: int = 0
    """Epochs in all, of which the last one has the steps that are left; 0: as many as the steps fill, and what is left
    is a short one."""

    @property
    def last_epoch(self) -> int:
        """The number of epochs in all, at least 1."""
        return self.epochs or -(-self.total_steps // self.steps_per_epoch)

    def end(self, epoch: int) -> int:
        """The step that an epoch ends with, the first epoch being 0."""
        return self.total_steps if epoch + 1 >= self.last_epoch else (epoch + 1) * self.steps_per_epoch

    def epoch(self, step: int) -> tuple[int, int]:
        """The epoch that goes on after a step, the first one being 0, and how many of its steps are done."""
        # The last epoch has whatever is left: a step behind the others' ends is still in it.
        number = min(step // self.steps_per_epoch, self.last_epoch - 1)
        return number, step - number * self.steps_per_epoch

    def segments(self, step: int) -> Iterator[tuple[int, int, int, int]]:
        """Yields `(first step, epoch, last epoch + 1, steps an epoch)` of each call of `fit` from a step on.

        `fit` knows epochs of one length only: the rest of a begun one and a last one that is shorter or longer are
        calls of their own.
        """
        while step < self.total_steps:
            epoch, begun = self.epoch(step)
            last = self.last_epoch - 1
            # As many whole epochs as follow each other alike; the last one counts only where it has as many steps.
            alike = last - epoch + (self.total_steps - last * self.steps_per_epoch == self.steps_per_epoch)
            # What is left of an epoch that was begun, or a last one of another length, is a call of `fit` of its own.
            if begun or alike <= 0:
                yield step, epoch, epoch + 1, self.end(epoch) - step
                step = self.end(epoch)
            else:
                yield step, epoch, epoch + alike, self.steps_per_epoch
                step += alike * self.steps_per_epoch


class Begun(keras.callbacks.Callback):
    """Puts the means of a begun epoch back, which `fit` sets to zero as it starts."""

    def __init__(self, values):
        super().__init__()
        self.values = values

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        # Once, as the epoch begins; `fit` has set them to zero.
        for variable, value in zip(self.model.metrics_variables, self.values, strict=False):
            variable.assign(value)
        self.values = []


class Finite(keras.callbacks.Callback):
    """Stops a training whose loss is no number, at that step, before it is saved; `saved` waits for what was before."""

    def __init__(self, run: RunFolder, *, saved: Callable[[], None] = lambda: None):
        super().__init__()
        self.run, self.saved = run, saved

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if not math.isfinite(logs["loss"]):
            step = steps_done(self.model)
            # What was saved before this step reaches the disk first: it is what the user can go back to.
            self.saved()
            raise InputError(
                f"the loss must stay finite, but it is {logs['loss']} at step {step:,}; no checkpoint holds that: "
                "lower learning_rate, lengthen warmup_epochs, or raise temperature, in another folder "
                f"(the last good checkpoint: {next(iter(self.run.checkpoints()), 'none yet')})"
            )


class Checkpoints(keras.callbacks.Callback):
    """Saves the state every so many steps, after the last one and when the process is to stop; drops the oldest.

    The state is copied between two steps, and written by a thread while the training goes on, one checkpoint at a time:
    the next one waits for it.  As a context it ends when the last one is written.

    At the end of an epoch the history's line comes first: a run killed between the two writes the line again, but one
    killed the other way round would have lost it.
    """

    def __init__(self, run: RunFolder, plan: Plan, *, step: int, stopping: Stopping, devices: Devices):
        super().__init__()
        self.run, self.plan, self.step, self.stopping, self.devices = run, plan, step, stopping, devices
        self.saved, self.due = step, False
        self.agreed: signal.Signals | None = None
        """What all processes stop for, after the step at which they exchanged it; one that came since waits."""
        self.writing: threading.Thread | None = None
        self.failure: BaseException | None = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind, *_):
        try:
            self.wait()
        except InputError:
            if kind is None:  # else what ended the training is what its user should hear
                raise

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        # A thread that has ended has saved, or failed.
        if self.writing is not None and not self.writing.is_alive():
            self.wait()  # and a failure is told at once
        # Several steps may be one execution: the number of steps is asked, not counted.
        before, self.step = self.step, steps_done(self.model)
        # All processes stop behind one step: they exchange signals after each.
        self.agreed = self.devices.first_signal(self.stopping.signal)
        self.due |= self.agreed is not None
        # A multiple of checkpoint_steps lies between this step and the one before.
        self.due |= self.step // self.plan.checkpoint_steps > before // self.plan.checkpoint_steps
        self.due |= self.step == self.plan.total_steps
        # In the midst of an epoch now; at its end when the history has its line.
        if self.due and self.plan.epoch(self.step)[1] and self.step < self.plan.total_steps:
            self.save()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.due:
            self.save()

    def save(self) -> None:
        """Copies the state now, and begins to write it; waits for that only where the process is to stop.

        Raises:
            InputError: the run's folder is gone, a number is not finite, or the checkpoint before could not be written.
        """
        # Two writings at a time would be two states in memory.
        self.wait()
        if self.devices.chief:
            # Asked here as well as by the thread: a removed folder is an error of this step.
            self.run.check_there()
        # JAX's variables have old values until they are settled.
        settle(self.model)
        # The copy is taken while nobody trains; writing it takes place beside the next steps.
        arrays = captured(self.model)
        self.saved, self.due = self.step, False
        if not self.devices.chief:
            return
        self.writing = threading.Thread(target=self._write, args=(self.run.checkpoint(self.step), arrays))
        self.writing.start()
        if self.agreed is not None:
            self.wait()

    def wait(self) -> None:
        """Waits until what is being written is in its place.

        Raises:
            InputError: it could not be written.
        """
        if self.writing is not None:
            self.writing.join()
        self.writing = None
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure

    def _write(self, path: Path, arrays: dict[str, np.ndarray]) -> None:
        """Writes a checkpoint, then drops those that are too many; a failure is kept for `wait`."""
        try:
            self.run.check_there()
            write_state(path, arrays)
            # The newest ones stay; 0 keeps all.
            kept = self.plan.keep_checkpoint_max or len(self.run.checkpoints())
            for old in self.run.checkpoints()[kept:]:
                old.unlink()
        except BaseException as failure:  # whatever it is: the thread that trains must hear of it
            self.failure = failure
            try:
                # A failed write into a folder that is gone is told as that.
                self.run.check_there()
            except InputError as gone:  # the folder was removed in the midst of it
                self.failure = gone


class History(keras.callbacks.Callback):
    """One line an epoch in `history.csv`; lines after the step that a run resumes from are dropped."""

    def __init__(self, run: RunFolder, plan: Plan, *, step: int, say: Callable[[str], None] = lambda line: None):
        super().__init__()
        self.run, self.path, self.plan = run, run.history, plan
        try:
            # Steps behind the checkpoint will be taken again.
            self.rows = [row for row in read_history(run) if row["step"] <= step]
        except InputError as error:
            aside = run.history.with_name("history.damaged.csv")
            run.history.replace(aside)
            say(f"{error}; it is {aside} now, and the history begins anew: the checkpoint suffices to go on")
            self.rows = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.run.check_there()
        # An epoch's line is of the step that it ends with.
        step = self.plan.end(epoch)
        rate = self.model.optimizer.learning_rate
        row = {"step": step, "epoch": epoch + 1, **logs, "learning_rate": float(keras.ops.convert_to_numpy(rate))}
        self.rows.append(row)
        # Some numbers are not taken each epoch, and a resumed run may take others: their places stay empty.
        # Every column that any line has, in the order of their appearance.
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        lines = [[row.get(name, "") for name in columns] for row in self.rows]
        # Written anew as a whole: a line that is half written would be read.
        with replacing(self.path, durable=True) as [file]:
            file.write(csv_of([columns, *lines]))


def read_history(run: RunFolder) -> list[dict[str, float]]:
    """The lines of a run's history, numbers all; a line has no entry for what was not measured."""
    if not run.history.exists():
        return []
    with reading(run.history, "the lines of a training", advice="remove it"):
        with open(run.history, newline="", encoding="utf-8") as file:
            table = csv.DictReader(file)
            named = {*(table.fieldnames or ("step", "epoch"))}
            # An empty place has no entry.
            rows = [
                {name: (int if name in ("step", "epoch") else float)(value) for name, value in row.items() if value}
                for row in table
            ]
        if not all(row >= {"step", "epoch"} for row in (named, *(row.keys() for row in rows))):
            raise ValueError("a line has no step or no epoch")
        return rows


_SHOWN: tuple[str, ...] = ("contrast_loss", "contrast_acc", "contrast_entropy", "distillation_loss", "agreement")
_TESTED = ("top1", "knn_acc")
_SHOWN += ("supervised_loss", "supervised_acc", *_TESTED, "projection_std")
"""Metrics of the progress line, those that there are; `_TESTED` come from a test, not from each step."""
_KEPT = {"epoch": 5.0, "step": 60.0}
"""Seconds after a line that stays until another may: at the end of an epoch, and in the midst of one in a file."""


class Progress(keras.callbacks.Callback):
    """Tells how far a training is: one line, redrawn on a terminal; some stay, so that a log is read in a minute.

    The ends of epochs stay, of short ones not all, but each with a test and the last; in a file a line a minute, too.
    """

    def __init__(self, plan: Plan, step: int, *, out: TextIO | None = None):
        super().__init__()
        self.plan, self.first, self.step, self.began = plan, step, step, time.monotonic()
        self.shown = Line(out, now=self.began)
        self.kept = {"epoch": -math.inf, "step": self.began}
        self.compiled: tuple[float, int] | None = None
        """When the first execution was done, and after which step; None where it was not seen alone."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.step = steps_done(self.model)
        now = time.monotonic()
        at_once = getattr(self.model, "steps_per_execution", 1)
        # The first execution compiles: it is no measure of the pace.
        if self.compiled is None and self.step - self.first <= at_once and self.step < self.plan.total_steps:
            self.compiled = now, self.step
            return  # nothing is known of the pace yet
        if self.shown.due(now):
            self.shown.draw(self.line(logs), now=now)
        elif not self.shown.in_place and now - self.kept["step"] > _KEPT["step"]:
            self.keep(logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        due = time.monotonic() - self.kept["epoch"] > _KEPT["epoch"]
        if due or self.step >= self.plan.total_steps or any(name in logs for name in _TESTED):
            self.keep(logs)

    def keep(self, logs: dict) -> None:
        """Writes the line and leaves it."""
        self.kept = dict.fromkeys(self.kept, time.monotonic())
        self.shown.keep(self.line(logs))

    def line(self, logs: dict) -> str:
        """Step, the metrics a person watches, images a second and time left.

        The first step does not count, in which the step is compiled, where there are others to go by.
        """
        # From behind the first execution on, if there is anything behind it.
        later = self.compiled is not None and self.step > self.compiled[1]
        began, first = self.compiled if later and self.compiled is not None else (self.began, self.first)
        seconds = max(time.monotonic() - began, 1e-9) / max(self.step - first, 1)
        left = round(seconds * (self.plan.total_steps - self.step))
        shown = " ".join(f"{name} {logs[name]:.3f}" for name in _SHOWN if name in logs)
        return (
            f"step {self.step:,}/{self.plan.total_steps:,}  {shown}  "
            f"{self.plan.batch_size / seconds:,.0f} images/s  {left // 3600}:{left // 60 % 60:02d}:{left % 60:02d} left"
        )


class Served(keras.callbacks.Callback):
    """Says so, again and again, where a step waits for tf.data's service, which itself waits for ever without a word.

    The training goes on as soon as a worker is there, so nothing is stopped.  A block, during which a thread looks at
    the time that the step in hand takes.

    Args:
        address: of the dispatcher, `host:port`.
        say: takes a line for the user.
        seconds: that a step may take until this is said, and between two times; at least four times as long as the
            longest step so far.
    """

    def __init__(self, address: str, *, say: Callable[[str], None], seconds: float = 60):
        super().__init__()
        self.address, self.say, self.seconds = address, say, seconds
        self.began: float | None = None
        """When the step in hand began; None between two."""
        self.longest, self.steps, self.told = 0.0, 0, 0
        self.looks = Beat(self._look, seconds=seconds / 20)

    def __enter__(self) -> "Served":
        self.looks.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.looks.stop()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.began = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        now = time.monotonic()
        if self.told:
            self.say(f"data_service at {self.address} gives batches again")
        elif self.began is not None and self.steps:  # a step that waited, or was compiled, is no measure
            self.longest = max(self.longest, now - self.began)
        self.began, self.told = None, 0
        self.steps += 1

    def _look(self) -> None:
        began = self.began
        # Longer than all steps so far by far: else every slow step would be told of.
        limit = max(self.seconds, 4 * self.longest)
        # Told once for each further limit that passes.
        if began is None or (waited := time.monotonic() - began) < (self.told + 1) * limit:
            return
        self.told += 1
        first = "" if self.steps else ", or it is still being compiled"
        self.say(
            f"a step has waited {waited:,.0f} s for data_service at {self.address}: are the dispatcher and its "
            f"workers running{first}?  The training goes on when they are"
        )
