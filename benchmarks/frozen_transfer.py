"""Time of the COVID-19 study's table with features computed once, beside training with the encoder in the loop.

The six rows (25, 25, 25, 25, 20 and 30 epochs) on 5,400 radiographs to train on and 934 to test, 64 px enlarged to 224,
batches of 32.  Ours: one pass of the frozen ResNet-50 over all images, then the heads on its features.  Peers: the
frozen encoder under the head, which computes the same features anew in every epoch (what the study did), and the
encoder trained with the head.

Neither peer is run to its end, which would take days: a few steps of each are timed, their median is multiplied by the
steps of all rows.  Ours is measured on a part of the images and of the epochs, too, and multiplied alike.  Each row is
tested after every epoch, by all.

Claim: at least 20 × faster than either.

    python benchmarks/frozen_transfer.py              ResNet-50 at 224 px; about five minutes
    python benchmarks/frozen_transfer.py --quick      ResNet-18 at 64 px
"""

import statistics
import sys
import time
from dataclasses import dataclass

import keras
import numpy as np
import tyro

from tf_simclr import resnet
from tf_simclr.chest.covid.learner import Learner, batches
from tf_simclr.chest.covid.rows import ROWS
from tf_simclr.data.pipeline import Unreadable, evaluation_batches
from tf_simclr.data.sources import from_arrays
from tf_simclr.evaluation.features import extract

LIMIT = 20
TRAIN, TEST, BATCH, PIXELS = 5400, 934, 32, 64
"""The study's."""
EPOCHS = sum(row.epochs for row in ROWS)


@dataclass(frozen=True)
class Options:
    """What to measure."""

    depth: int = 50
    image_size: int = 224
    images: int = 96
    """Through the encoder, timed."""
    steps: int = 4
    """Of training with the encoder in the loop, timed after one that warms up."""
    head_epochs: int = 2
    """Of each of the six heads, timed after one that warms up."""
    quick: bool = False
    """A small network at 64 px."""


class Steps(keras.callbacks.Callback):
    """Seconds of each step, or of each epoch with its test."""

    def __init__(self, *, epochs: bool):
        super().__init__()
        self.seconds: list[float] = []
        kind = "epoch" if epochs else "train_batch"
        setattr(self, f"on_{kind}_begin", self.start)
        setattr(self, f"on_{kind}_end", self.stop)

    def start(self, number, logs=None):
        self.began = time.perf_counter()

    def stop(self, number, logs=None):
        self.seconds.append(time.perf_counter() - self.began)

    def median(self) -> float:
        """Of all but the first, which warms up."""
        return statistics.median(self.seconds[1:])


def images(count: int):
    """Grey pictures of the study's size."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, PIXELS, PIXELS), dtype=np.uint8)
    return from_arrays(pixels, rng.integers(0, 2, count))


def of_features(encoder: keras.Model, options: Options) -> float:
    """Seconds for the features of one image, the first batch left out."""
    sizes = {"batch_size": BATCH, "image_size": options.image_size, "crop_proportion": 1.0}
    times = []
    pictures = evaluation_batches(images(options.images + BATCH), **sizes, unreadable=Unreadable())
    extract(encoder, pictures, progress=lambda done: times.append(time.perf_counter()))
    return (times[-1] - times[0]) / options.images


def of_heads(width: int, options: Options) -> float:
    """Seconds for the heads of all rows on features, the study's number of them."""
    rng = np.random.default_rng(0)
    values = np.abs(rng.standard_normal((TRAIN + TEST, width), np.float32))
    labels = rng.integers(0, 2, len(values))
    total = 0.0
    for row in ROWS:
        learner, times = Learner(width, row), Steps(epochs=True)
        learner.model.fit(
            values[:TRAIN],
            labels[:TRAIN].astype(np.float32),
            batch_size=BATCH,
            epochs=1 + options.head_epochs,
            validation_data=(values[TRAIN:], labels[TRAIN:].astype(np.float32)),
            callbacks=[times],
            verbose=0,
        )
        total += times.median() * row.epochs
    return total


def of_step(encoder: keras.Model, options: Options, *, after_block: int) -> float:
    """Seconds of a training step with the encoder in the loop."""
    learner = Learner(encoder.output_shape[-1], ROWS[0], encoder=encoder, after_block=after_block)
    times = Steps(epochs=False)
    stream = batches(images(4 * BATCH), size=options.image_size, batch_size=BATCH, seed=0)
    learner.model.fit(stream, steps_per_epoch=1 + options.steps, callbacks=[times], shuffle=False, verbose=0)
    return times.median()


def main() -> int:
    """Measures and compares."""
    options = tyro.cli(Options, description=__doc__)
    if options.quick:
        options = Options(depth=18, image_size=64, head_epochs=1, steps=3)
    encoder = resnet(options.depth)
    image = of_features(encoder, options)
    heads = of_heads(encoder.output_shape[-1], options)
    ours = image * (TRAIN + TEST) + heads
    steps = {name: of_step(encoder, options, after_block=block) for name, block in PEERS.items()}
    sys.stdout.write(
        f"ResNet-{options.depth}, {PIXELS} px enlarged to {options.image_size}, {TRAIN:,} + {TEST:,} images, "
        f"{len(ROWS)} rows of {EPOCHS} epochs together; times of a part, multiplied\n"
        f"{'':36}{'measured':>22}{'six rows':>12}{'ours':>10}\n"
        f"{'features once':36}{f'{1000 * image:.1f} ms/image':>22}{hours(image * (TRAIN + TEST)):>12}\n"
        f"{'the heads':36}{f'{1000 * heads / EPOCHS:.0f} ms/epoch':>22}{hours(heads):>12}\n"
        f"{'ours, both':58}{hours(ours):>12}\n"
    )
    found = [compare(name, step, ours=ours, image=image) for name, step in steps.items()]
    return 0 if all(found) else 1


PEERS = {"frozen encoder in the loop": 4, "encoder trained, too": -1}
"""Peer → block groups that stay frozen."""


def compare(name: str, step: float, *, ours: float, image: float) -> bool:
    """Prints what a peer would take, and whether the claim holds."""
    total = EPOCHS * (step * (TRAIN // BATCH) + image * TEST)
    ratio = total / ours
    holds = "holds" if ratio >= LIMIT else "DOES NOT HOLD"
    sys.stdout.write(
        f"{name:36}{f'{step:.2f} s/step':>22}{hours(total):>12}{ratio:8.0f} ×  ({LIMIT} × claimed: {holds})\n"
    )
    return ratio >= LIMIT


def hours(seconds: float) -> str:
    """A time as people say it."""
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{seconds:.0f} s"


if __name__ == "__main__":
    raise SystemExit(main())
