"""`fit` that can be stopped at any moment and goes on as if it had not been."""

import csv
import io
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import keras
import tensorflow as tf

from tf_simclr.checkpoint import RunFolder, restore_state, save_state
from tf_simclr.errors import InputError
from tf_simclr.files import replacing

Stream = Callable[[int], tf.data.Dataset]
"""First step → endless batches from that step on."""


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

    def segments(self, step: int):
        """Yields `(first step, epoch, last epoch + 1, steps an epoch)` of each call of `fit` from a step on.

        `fit` knows whole epochs only: the rest of a begun one and a short last one are calls of their own.
        """
        while step < self.total_steps:
            epoch, begun = divmod(step, self.steps_per_epoch)
            whole = (self.total_steps - step) // self.steps_per_epoch
            if begun or not whole:
                steps = min(self.steps_per_epoch - begun, self.total_steps - step)
                yield step, epoch, epoch + 1, steps
                step += steps
            else:
                yield step, epoch, epoch + whole, self.steps_per_epoch
                step += whole * self.steps_per_epoch


def train(
    model: keras.Model, stream: Stream, *, plan: Plan, run: RunFolder, say: Callable[[str], None], callbacks=()
) -> None:
    """Trains a compiled model to the plan's end, from the newest whole checkpoint of the run on.

    Args:
        model: compiled, built.
        stream: the data; must be a function of the step alone for a resumed run to equal a straight one.
        plan: length and pace.
        run: where checkpoints, history and logs go.
        say: takes one line for the user at a time.
        callbacks: further Keras callbacks.

    Raises:
        InputError: there are checkpoints but none is whole, or the loss or a weight is not finite.
    """
    model.optimizer.build(model.trainable_variables)
    step = resume(model, run, say=say)
    history = History(run, plan, step=step)
    saver = Checkpoints(run, plan, step=step)
    tensorboard = keras.callbacks.TensorBoard(run.logs, write_graph=False)
    begun = [v.numpy() for v in model.metrics_variables] if step % plan.steps_per_epoch else []
    at_once = model.steps_per_execution
    for first, epoch, end, steps in plan.segments(step):
        execute(model, math.gcd(at_once, steps))
        model.fit(
            stream(first),
            initial_epoch=epoch,
            epochs=end,
            steps_per_epoch=steps,
            shuffle=False,
            verbose=0,
            callbacks=[Begun(begun), Finite(), history, Progress(plan, first), tensorboard, saver, *callbacks],
        )
        begun = []


def execute(model: keras.Model, steps: int) -> None:
    """Sets `steps_per_execution`: where it does not divide an epoch, `fit` would take more steps than it was asked."""
    if steps != model.steps_per_execution:
        model.steps_per_execution = steps
        model.make_train_function(force=True)


def resume(model: keras.Model, run: RunFolder, *, say: Callable[[str], None]) -> int:
    """Restores the newest whole checkpoint and returns its step; damaged ones are named and passed over."""
    for unfinished in (run.path / "checkpoints").glob(".*.step-*.npz"):  # of a run that was killed while it saved
        unfinished.unlink()
    for path in run.checkpoints():
        try:
            restore_state(path, model)
        except InputError as error:
            say(f"refused: {error}")
            continue
        step = steps_done(model)
        say(f"resuming after step {step:,} from {path}")
        return step
    if run.checkpoints():
        raise InputError(f"{run.path} has checkpoints, but none is whole; remove its checkpoints folder to start anew")
    return 0


def steps_done(model: keras.Model) -> int:
    """Steps since the training began; `int(iterations)` fails on a variable that replicas mirror."""
    return int(model.optimizer.iterations.numpy())


class Begun(keras.callbacks.Callback):
    """Puts the means of a begun epoch back, which `fit` sets to zero as it starts."""

    def __init__(self, values):
        super().__init__()
        self.values = values

    def on_epoch_begin(self, epoch, logs=None):
        for variable, value in zip(self.model.metrics_variables, self.values, strict=False):
            variable.assign(value)
        self.values = []


class Finite(keras.callbacks.Callback):
    """Stops a training whose loss is no number before it is saved."""

    def on_train_batch_end(self, batch, logs=None):
        if not math.isfinite(logs["loss"]):
            step = steps_done(self.model)
            raise InputError(
                f"the loss must stay finite, but it is {logs['loss']} at step {step:,}; no checkpoint holds that: "
                "lower learning_rate, lengthen warmup_epochs, or raise temperature, in another folder"
            )


class Checkpoints(keras.callbacks.Callback):
    """Saves the state every so many steps and after the last one, and drops the oldest.

    At the end of an epoch the history's line comes first: a run killed between the two writes the line again, but one
    killed the other way round would have lost it.
    """

    def __init__(self, run: RunFolder, plan: Plan, *, step: int):
        super().__init__()
        self.run, self.plan, self.step, self.due = run, plan, step, False

    def on_train_batch_end(self, batch, logs=None):
        before, self.step = self.step, steps_done(self.model)
        self.due |= self.step // self.plan.checkpoint_steps > before // self.plan.checkpoint_steps
        self.due |= self.step == self.plan.total_steps
        if self.due and self.step % self.plan.steps_per_epoch and self.step < self.plan.total_steps:
            self.save()

    def on_epoch_end(self, epoch, logs=None):
        if self.due:
            self.save()

    def save(self):
        """Saves now."""
        self.due = False
        save_state(self.run.checkpoint(self.step), self.model)
        kept = self.plan.keep_checkpoint_max or len(self.run.checkpoints())
        for path in self.run.checkpoints()[kept:]:
            path.unlink()


class History(keras.callbacks.Callback):
    """One line an epoch in `history.csv`; lines after the step that a run resumes from are dropped."""

    def __init__(self, run: RunFolder, plan: Plan, *, step: int):
        super().__init__()
        self.path, self.plan = run.history, plan
        self.rows = [row for row in read_history(run) if row["step"] <= step]

    def on_epoch_end(self, epoch, logs=None):
        step = min((epoch + 1) * self.plan.steps_per_epoch, self.plan.total_steps)
        rate = self.model.optimizer.learning_rate
        row = {"step": step, "epoch": epoch + 1, **logs, "learning_rate": float(keras.ops.convert_to_numpy(rate))}
        self.rows.append(row)
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.rows[0])
        writer.writeheader()
        writer.writerows(self.rows)
        with replacing(self.path) as [file]:
            file.write(text.getvalue().encode())


def read_history(run: RunFolder) -> list[dict[str, float]]:
    """The lines of a run's history, numbers all."""
    if not run.history.exists():
        return []
    with open(run.history, newline="") as file:
        return [
            {name: (int if name in ("step", "epoch") else float)(value) for name, value in row.items()}
            for row in csv.DictReader(file)
        ]


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


SHOWN = ("contrast_loss", "contrast_acc", "contrast_entropy", "supervised_acc")
"""Metrics of the progress line."""
