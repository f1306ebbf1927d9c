"""The smallest training that has all parts: a dense encoder, a projection head, a probe, LARS and a schedule."""

import contextlib
import functools
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tf_simclr.models.resnet import projection_head
from tf_simclr.models.simclr import SimCLR
from tf_simclr.optimizers import LARS, WarmUpCosine
from tf_simclr.run_folder import RunFolder, state
from tf_simclr.training import Plan, train

BATCH = 8
PLAN = Plan(total_steps=20, steps_per_epoch=6, batch_size=BATCH, checkpoint_steps=2, keep_checkpoint_max=0)
"""Three epochs and two steps of a fourth."""


def model(*, start: int = 0, rate: float = 0.05, at_once: int = 1) -> SimCLR:
    """A compiled model, its state set to one of several starts; tracing the step takes seconds, so it is kept."""
    kept, initial = compiled(rate, at_once)
    for name, variable in state(kept).items():
        variable.assign(initial[name] + np.asarray(start, variable.dtype))
    return kept


@functools.cache
def compiled(rate: float = 0.05, at_once: int = 1, *, classes: int = 3) -> tuple[SimCLR, dict[str, np.ndarray]]:
    """A compiled model with its first state; its encoder takes images of 4 × 4 pixels."""
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Flatten(name="flat"),
        keras.layers.Dense(6, name="dense"),
        keras.layers.BatchNormalization(name="bn"),
    ]
    encoder = keras.Sequential([keras.Input((4, 4, 3)), *layers], name="encoder")
    simclr = SimCLR(encoder, projection_head(6, 2, proj_out_dim=5), num_classes=classes, weight_decay=1e-3)
    schedule = WarmUpCosine(rate, PLAN.total_steps, warmup_steps=3)
    simclr.compile(LARS(schedule, weight_decay=1e-3), steps_per_execution=at_once)
    simclr.optimizer.build(simclr.trainable_variables)
    return simclr, {name: variable.numpy() for name, variable in state(simclr).items()}


def stream(step: int, *, bad_step: int | None = None) -> tf.data.Dataset:
    """Endless batches, each a function of its number alone; those from `bad_step` on are not numbers."""

    def batch(number):
        seed = tf.stack([number, 7])
        views = tf.random.stateless_uniform((BATCH, 2, 4, 4, 3), seed)
        if bad_step is not None:
            views = tf.where(number < bad_step, views, np.nan)
        return views, tf.random.stateless_uniform((BATCH,), seed, maxval=3, dtype=tf.int64)

    return tf.data.Dataset.counter(step).map(batch)


class Stop(keras.callbacks.Callback):
    """Ctrl-C after a step; `epoch`: after the epoch that ends with it."""

    def __init__(self, step: int, *, epoch: bool = False):
        super().__init__()
        self.step, self.epoch = step, epoch

    def on_train_batch_end(self, batch, logs=None):
        if not self.epoch and int(self.model.optimizer.iterations.numpy()) == self.step:
            raise KeyboardInterrupt

    def on_epoch_end(self, epoch, logs=None):
        if self.epoch and int(self.model.optimizer.iterations.numpy()) == self.step:
            raise KeyboardInterrupt


def run(folder: Path, *, stop: Stop | None = None, plan: Plan = PLAN, at_once: int = 1, start: int = 0) -> list[str]:
    """Trains in a folder, until it is stopped, and returns what was said."""
    said: list[str] = []
    callbacks = [stop] if stop is not None else []
    with contextlib.suppress(KeyboardInterrupt) if callbacks else contextlib.nullcontext():
        tiny = model(start=start, at_once=at_once)
        train(tiny, stream, plan=plan, run=RunFolder(folder), say=said.append, callbacks=callbacks)
    return said


def steps(folder: Path) -> list[int]:
    """Steps of the checkpoints, the first one first."""
    return sorted(int(path.stem.removeprefix("step-")) for path in RunFolder(folder).checkpoints())


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def assert_same_bits(path: Path, expected: Path) -> None:
    """Both checkpoints hold the same variables, bit by bit."""
    ours, theirs = arrays(path), arrays(expected)
    assert ours.keys() == theirs.keys()
    differing = [name for name in ours if ours[name].tobytes() != theirs[name].tobytes()]
    assert not differing
