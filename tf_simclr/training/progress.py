"""How far a training is, for a person who watches."""

import math
import sys
import time

import keras

from tf_simclr.replicas import steps_done
from tf_simclr.terminal import write
from tf_simclr.training.plan import Plan

REDRAWN = 0.5
"""Seconds between two drawings of the line on a terminal."""
KEPT = {"epoch": 5.0, "step": 60.0}
"""Seconds after a line that stays until another may: at the end of an epoch, and in the midst of one in a file."""


class Progress(keras.callbacks.Callback):
    """Tells how far a training is: one line, redrawn on a terminal; some stay, so that a log is read in a minute.

    The ends of epochs stay, of short ones not all, but each with a test and the last; in a file a line a minute, too.
    """

    def __init__(self, plan: Plan, step: int, *, out=None):
        super().__init__()
        self.plan, self.first, self.step, self.out = plan, step, step, out or sys.stderr
        self.began = self.drawn = time.monotonic()
        self.kept = {"epoch": -math.inf, "step": self.began}

    def on_train_batch_end(self, batch, logs=None):
        self.step = steps_done(self.model)
        now = time.monotonic()
        if self.out.isatty() and now - self.drawn > REDRAWN:
            self.drawn = now
            write("\r" + self.line(logs) + "\x1b[K", self.out)
        elif not self.out.isatty() and now - self.kept["step"] > KEPT["step"]:
            self.keep(logs)

    def on_epoch_end(self, epoch, logs=None):
        due = time.monotonic() - self.kept["epoch"] > KEPT["epoch"]
        if due or self.step >= self.plan.total_steps or any(name in logs for name in TESTED):
            self.keep(logs)

    def keep(self, logs: dict) -> None:
        """Writes the line and leaves it."""
        self.kept = dict.fromkeys(self.kept, time.monotonic())
        write(("\r\x1b[K" if self.out.isatty() else "") + self.line(logs) + "\n", self.out)

    def line(self, logs: dict) -> str:
        """Step, epoch, the metrics a person watches, images a second and time left."""
        seconds = max(time.monotonic() - self.began, 1e-9) / max(self.step - self.first, 1)
        left = round(seconds * (self.plan.total_steps - self.step))
        shown = " ".join(f"{name} {logs[name]:.3f}" for name in SHOWN if name in logs)
        return (
            f"step {self.step:,}/{self.plan.total_steps:,}  {shown}  "
            f"{self.plan.batch_size / seconds:,.0f} images/s  {left // 3600}:{left // 60 % 60:02d}:{left % 60:02d} left"
        )


SHOWN = ("contrast_loss", "contrast_acc", "contrast_entropy", "distillation_loss", "agreement", "supervised_loss")
TESTED = ("top1", "knn_acc")
SHOWN += ("supervised_acc", *TESTED, "projection_std")
"""Metrics of the progress line, those that there are; `TESTED` come from a test, not from each step."""
