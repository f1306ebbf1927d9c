"""How far a training is, for a person who watches."""

import sys
import time

import keras

from tf_simclr.replicas import steps_done
from tf_simclr.training.plan import Plan


class Progress(keras.callbacks.Callback):
    """Tells how far a training is: one line, redrawn on a terminal, kept at the end of each epoch."""

    def __init__(self, plan: Plan, step: int, *, out=None):
        super().__init__()
        self.plan, self.first, self.step, self.out = plan, step, step, out or sys.stderr
        self.began = self.drawn = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        self.step = steps_done(self.model)
        if self.out.isatty() and time.monotonic() - self.drawn > 0.5:
            self.drawn = time.monotonic()
            self.out.write("\r" + self.line(logs) + "\x1b[K")
            self.out.flush()

    def on_epoch_end(self, epoch, logs=None):
        self.out.write(("\r\x1b[K" if self.out.isatty() else "") + self.line(logs) + "\n")
        self.out.flush()

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
SHOWN += ("supervised_acc", "top1", "knn_acc", "projection_std")
"""Metrics of the progress line, those that there are."""
