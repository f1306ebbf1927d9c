"""`fit` that can be stopped at any moment and goes on as if it had not been."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterable

import keras
import numpy as np

from tf_simclr.errors import InputError, surfacing
from tf_simclr.files import clear_unfinished
from tf_simclr.files.lock import hold
from tf_simclr.frameworks import has_tensorflow
from tf_simclr.machine.signals import Stopping
from tf_simclr.replicas import ONE_DEVICE, Devices, alone, steps_done
from tf_simclr.run_folder import OtherStream, RunFolder, restore_state, state
from tf_simclr.training.callbacks import Begun, Checkpoints, Finite, History, Plan, Progress
from tf_simclr.training.closing import Stop
from tf_simclr.training.curves import Curves

Feed = Callable[..., Iterable]
"""First step → endless batches from that step on; with several processes with `share=` too (`Devices.fit`)."""


def train(
    model: keras.Model,
    stream: Feed,
    *,
    plan: Plan,
    run: RunFolder,
    say: Callable[[str], None],
    watchers=(),
    callbacks=(),
    devices: Devices = ONE_DEVICE,
    stopping: Stopping | None = None,
) -> None:
    """Trains a compiled model to the plan's end, from the newest whole checkpoint of the run on.

    Args:
        model: compiled, built.
        stream: the data; must be a function of the step alone for a resumed run to equal a straight one.
        plan: length and pace.
        run: where checkpoints, history and logs go.
        say: takes one line for the user at a time.
        watchers: Keras callbacks that add to an epoch's logs, before these are written anywhere.
        callbacks: further Keras callbacks, after that.
        devices: that the model was made on.  Of several processes the chief alone writes and has watchers, all have
            the callbacks and read checkpoints, and a signal to any one of them stops all, after the same step.
        stopping: a block that goes on behind the training; None: one of its own.

    Raises:
        InputError: another process trains in the run's folder, there are checkpoints but none is whole, or the loss
            or a weight is not finite.
        SystemExit: with code 143 after SIGTERM, 129 after SIGHUP; the last step is saved.
        KeyboardInterrupt: after Ctrl-C; likewise.
    """
    # The order is important: a lock before anything is read or written, signals caught before a step is taken, the
    # newest checkpoint before callbacks look at the step.
    with contextlib.ExitStack() as stack:
        stack.enter_context(surfacing())  # what images are gone, the stream says within TensorFlow's graph
        # 1. The lock.
        if devices.chief:
            stack.enter_context(hold(run.path, say=say))
        # 2. Signals.
        stopping = stopping or stack.enter_context(Stopping())
        # 3. The newest checkpoint.
        step = _begin(model, run, devices=devices, say=say)
        saver = stack.enter_context(Checkpoints(run, plan, step=step, stopping=stopping, devices=devices))
        # 4. Callbacks.  In each epoch what watches adds numbers (`shown`), then these are written, then the state is
        # saved; a process that is to stop goes last, so that all before it have run.
        stop = Stop(saver, say=say)
        after = [saver, *callbacks, stop]
        if devices.chief:
            whole = has_tensorflow()
            # TensorBoard's callback needs TensorFlow; without it `Curves` writes the same files.
            tensorboard = keras.callbacks.TensorBoard(run.logs, write_graph=False) if whole else Curves(run.logs)
            after = [History(run, plan, step=step, say=say), tensorboard, *after]
        # `fit` sets means to zero as an epoch starts: those of an epoch that a checkpoint cut in two are put back.
        begun = [v.numpy() for v in model.metrics_variables] if plan.epoch(step)[1] else []
        # 5. One call of `fit` for each run of equal epochs.
        at_once = model.steps_per_execution
        for first, epoch, end, steps in plan.segments(step):
            # Steps at once must divide those of this call.
            _execute(model, math.gcd(at_once, steps))
            shown = [*watchers, Progress(plan, first)] if devices.chief else []
            devices.fit(
                model,
                stream,
                step=first,
                initial_epoch=epoch,
                epochs=end,
                steps_per_epoch=steps,
                verbose=0,
                callbacks=[Begun(begun), Finite(run, saved=saver.wait), *shown, *after],
            )
            # Only the first call goes on in the midst of an epoch.
            begun = []
        with devices.together():
            stop.behind_the_last()
        with alone(model, keep=True):  # what follows, one process computes by itself
            pass


def _begin(model: keras.Model, run: RunFolder, *, devices: Devices, say: Callable[[str], None]) -> int:
    """Builds what the checkpoints hold, restores the newest whole one, and returns its step.

    Raises:
        InputError: there are checkpoints but none is whole, or the processes do not see the same ones.
    """
    with devices.scope():
        # Slots exist before a checkpoint is read into them.
        model.optimizer.build(model.trainable_variables)
    if devices.chief:
        # Of processes that were killed; the lock keeps away those that still live.
        for place in (run.path, run.path / "checkpoints"):
            clear_unfinished(place)
    step = _resume(model, run, say=say)
    # Processes that see different folders would train different networks.
    devices.agree(f"the step to go on from (is {run.path} the same folder for all of them?)", step)
    if devices.process[1] > 1:  # each has drawn or read its own
        what = f"the weights at step {step} (do all have the same files and versions of packages?)"
        devices.agree(what, _digest(model))
    return step


def _digest(model: keras.Model) -> str:
    """What tells a model's state from any other."""
    found = hashlib.sha256()
    for name, variable in sorted(state(model).items()):
        found.update(name.encode() + np.ascontiguousarray(variable.numpy()).tobytes())
    return found.hexdigest()


def _execute(model: keras.Model, steps: int) -> None:
    """Sets `steps_per_execution`: where it does not divide an epoch, `fit` would take more steps than it was asked."""
    if steps != model.steps_per_execution:
        model.steps_per_execution = steps
        # The compiled step has the number in it.
        model.make_train_function(force=True)


def _resume(model: keras.Model, run: RunFolder, *, say: Callable[[str], None]) -> int:
    """Restores the newest whole checkpoint and returns its step; damaged ones are named and passed over.

    Raises:
        InputError: there are checkpoints but none is whole, or they are of another version of the stream.
    """
    for path in run.checkpoints():
        try:
            restore_state(path, model)
        except OtherStream:
            raise  # an older checkpoint of the same training is no better
        except InputError as error:
            say(f"refused: {error}")
            continue
        step = steps_done(model)
        say(f"resuming after step {step:,} from {path}")
        return step
    if run.checkpoints():
        raise InputError(f"{run.path} has checkpoints, but none is whole; remove its checkpoints folder to start anew")
    return 0
