"""A small training as a process of its own, to be killed: `python -m tests.killed_run`.

Imports take longer than the training, so one process imports and forks another for each folder that stdin names; it
tells the number of each, and how it ended, on stdout.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import keras
import numpy as np

from tf_simclr.data import pipeline
from tf_simclr.data.sources import from_arrays
from tf_simclr.errors import exit_on_input_error
from tf_simclr.models.resnet import projection_head
from tf_simclr.models.simclr import SimCLR
from tf_simclr.optimizers import LARS, WarmUpCosine
from tf_simclr.run_folder import RunFolder
from tf_simclr.training import Plan, train

STEPS = 300
PLAN = Plan(total_steps=STEPS, steps_per_epoch=11, batch_size=4, checkpoint_steps=1, keep_checkpoint_max=2)
"""A checkpoint a step: much of the time is spent in writing one."""


def model() -> SimCLR:
    """With dropout, whose random numbers go on, too; wide enough for a checkpoint that takes some time to write."""
    layers = [
        keras.layers.Flatten(name="flat"),
        keras.layers.Dense(300, name="dense"),
        keras.layers.BatchNormalization(name="bn"),
        keras.layers.Dropout(0.2, name="dropout"),
    ]
    encoder = keras.Sequential([keras.Input((8, 8, 3)), *layers], name="encoder")
    simclr = SimCLR(encoder, projection_head(300, 2, proj_out_dim=16), num_classes=3, weight_decay=1e-3)
    simclr.compile(LARS(WarmUpCosine(0.05, STEPS, warmup_steps=20), weight_decay=1e-3))
    return simclr


def run(folder: str) -> None:
    """Trains on 47 noisy pictures with SimCLR's augmentation to the plan's end, or goes on where another stopped."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    source = from_arrays(rng.integers(0, 256, (47, 12, 12, 3), np.uint8), rng.integers(0, 3, 47))
    unreadable = pipeline.Unreadable()

    def stream(step: int):
        sizes = {"batch_size": 4, "image_size": 8}
        return pipeline.training_views(source, **sizes, seed=5, unreadable=unreadable, start_step=step)

    train(model(), stream, plan=PLAN, run=RunFolder(Path(folder)), say=lambda line: sys.stderr.write(line + "\n"))


def main() -> None:
    for line in sys.stdin:
        number = os.fork()
        if number == 0:
            sys.stdin.close()
            with exit_on_input_error():
                run(line.strip())
            os._exit(0)
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
        _, status = os.waitpid(number, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
