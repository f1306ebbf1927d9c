"""What watches a training: the loss stays finite, checkpoints are written, a begun epoch keeps its means."""

import math
from collections.abc import Callable

import keras

from tf_simclr.errors import InputError
from tf_simclr.replicas import Devices, settle, steps_done
from tf_simclr.run_folder import RunFolder, save_state
from tf_simclr.training.plan import Plan
from tf_simclr.training.stopping import Stopping


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
    """Stops a training whose loss is no number, at that step, before it is saved."""

    def __init__(self, run: RunFolder):
        super().__init__()
        self.run = run

    def on_train_batch_end(self, batch, logs=None):
        if not math.isfinite(logs["loss"]):
            step = steps_done(self.model)
            raise InputError(
                f"the loss must stay finite, but it is {logs['loss']} at step {step:,}; no checkpoint holds that: "
                "lower learning_rate, lengthen warmup_epochs, or raise temperature, in another folder "
                f"(the last good checkpoint: {next(iter(self.run.checkpoints()), 'none yet')})"
            )


class Checkpoints(keras.callbacks.Callback):
    """Saves the state every so many steps, after the last one and when the process is to stop; drops the oldest.

    At the end of an epoch the history's line comes first: a run killed between the two writes the line again, but one
    killed the other way round would have lost it.
    """

    def __init__(self, run: RunFolder, plan: Plan, *, step: int, stopping: Stopping, devices: Devices):
        super().__init__()
        self.run, self.plan, self.step, self.stopping, self.devices = run, plan, step, stopping, devices
        self.saved, self.due = step, False

    def on_train_batch_end(self, batch, logs=None):
        before, self.step = self.step, steps_done(self.model)
        self.due |= self.stopping.signal is not None
        self.due |= self.step // self.plan.checkpoint_steps > before // self.plan.checkpoint_steps
        self.due |= self.step == self.plan.total_steps
        if self.due and self.step % self.plan.steps_per_epoch and self.step < self.plan.total_steps:
            self.save()

    def on_epoch_end(self, epoch, logs=None):
        if self.due:
            self.save()

    def save(self):
        """Saves now.

        Raises:
            InputError: the run's folder is gone.
        """
        if self.devices.chief:
            self.run.check_there()
        settle(self.model)
        save_state(self.run.checkpoint(self.step), self.model, write=self.devices.chief)
        self.saved, self.due = self.step, False
        if not self.devices.chief:
            return
        kept = self.plan.keep_checkpoint_max or len(self.run.checkpoints())
        for path in self.run.checkpoints()[kept:]:
            path.unlink()


class Stop(keras.callbacks.Callback):
    """Ends a process that is to stop as soon as its last step is saved; the last callback, so that all others ran."""

    def __init__(self, saver: Checkpoints, *, say: Callable[[str], None]):
        super().__init__()
        self.saver, self.say = saver, say

    def on_train_batch_end(self, batch, logs=None):
        stopping, step = self.saver.stopping, self.saver.step
        if stopping.signal is not None and self.saver.saved == step:
            path = self.saver.run.checkpoint(step)
            self.say(f"{stopping.signal.name}: step {step:,} is saved in {path}; the same command goes on from there")
            stopping.obey()

    def on_epoch_end(self, epoch, logs=None):
        self.on_train_batch_end(0)
