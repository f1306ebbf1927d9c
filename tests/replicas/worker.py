"""A process of a training that several share: `python -m tests.replicas.worker FOLDER [STEP]` dies after a step.

In float64, so that nothing but the order of sums differs from one process that does all.
"""

import hashlib
import os
import signal
import sys
from pathlib import Path

import keras

from tests.replicas import tiny
from tf_simclr import replicas
from tf_simclr.errors import exit_on_input_error
from tf_simclr.models.network import weights_by_name
from tf_simclr.run_folder import RunFolder
from tf_simclr.training import Plan, train

PLAN = Plan(total_steps=10, steps_per_epoch=4, batch_size=tiny.BATCH, checkpoint_steps=2, keep_checkpoint_max=0)


class Die(keras.callbacks.Callback):
    """Kills this process, as nothing can catch it, after a step."""

    def __init__(self, step: int):
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch, logs=None):
        if replicas.steps_done(self.model) == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def main(folder: Path, *deaths: str) -> None:
    """Trains in a folder on what TF_CONFIG says; at the end all processes have to have the same weights."""
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    devices = replicas.find()
    say(devices.description)
    with devices.together():
        model = tiny.model(devices)
        dying = [Die(int(step)) for step in deaths]
        train(model, tiny.stream, plan=PLAN, run=RunFolder(folder), say=say, callbacks=dying, devices=devices)
        content = b"".join(weight.numpy().tobytes() for weight in weights_by_name(model).values())
        devices.agree("the weights", hashlib.sha256(content).hexdigest())


if __name__ == "__main__":
    with exit_on_input_error():
        main(Path(sys.argv[1]), *sys.argv[2:])
