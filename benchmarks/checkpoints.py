"""How long a training stands still for a checkpoint: without one, written before it goes on, and written meanwhile.

The three take turns in one process, on the same model and batch.  `stall` is the time for which a checkpoint keeps the
training from its next step, `processor` its part of that, which another program on the machine does not lengthen; what
writing meanwhile takes from the steps' processors shows in `step`.

    python benchmarks/checkpoints.py                        ResNet-50 with LARS' momenta at 64 px, batch 8 × 2
    KERAS_BACKEND=jax python benchmarks/checkpoints.py
    python benchmarks/checkpoints.py --quick                ResNet-18 at 32 px, one round
"""

import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

KINDS = ("none", "before it goes on", "meanwhile")


@dataclass(frozen=True)
class Options:
    """What to measure."""

    depth: int = 50
    image_size: int = 64
    batch_size: int = 8
    rounds: int = 1
    """Of each kind, which take turns."""
    steps: int = 24
    """A round, of which every eighth one is saved."""
    folder: Path | None = None
    """Where checkpoints go; by default where temporary files do."""
    quick: bool = False
    """A small network, one round."""


def main(options: Options) -> dict[str, dict[str, float]]:
    """Measures, prints a table, and returns it."""
    import keras
    import tensorflow as tf

    from tf_simclr import LARS, NTXent
    from tf_simclr.models import resnet
    from tf_simclr.models.simclr import SimCLR
    from tf_simclr.run_folder import RunFolder
    from tf_simclr.training import Plan, train
    from tf_simclr.training.callbacks import Checkpoints

    depth, size, batch = (18, 32, 4) if options.quick else (options.depth, options.image_size, options.batch_size)
    rounds = 1 if options.quick else options.rounds
    encoder = resnet.resnet(depth, cifar_stem=size <= 32)
    model = SimCLR(encoder, resnet.projection_head(encoder.output_shape[-1]))
    model.compile(LARS(0.1, momentum=0.9), NTXent(0.5))
    views = np.random.default_rng(0).uniform(size=(batch, 2, size, size, 3)).astype("float32")

    def stream(step: int) -> Any:
        return tf.data.Dataset.from_tensors(views).repeat()

    class Clock(keras.callbacks.Callback):
        """Notes when each step began and ended."""

        def __init__(self) -> None:
            super().__init__()
            self.times: list[tuple[float, float]] = []
            self.began = 0.0

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            self.began = time.perf_counter()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.times.append((self.began, time.perf_counter()))

    found: dict[str, dict[str, list[float]]] = {kind: {"step": [], "stall": [], "cpu": []} for kind in KINDS}
    size_of = 0
    plain = Checkpoints.save
    for number in range(-1, rounds):  # the first round compiles
        for kind in KINDS if number >= 0 else KINDS[:1]:
            stalls: list[tuple[float, float]] = []

            def save(self: Checkpoints, kind: str = kind, stalls: list[tuple[float, float]] = stalls) -> None:
                # Of the step nothing computes now, but what writes in the second kind.
                clocks = time.perf_counter, time.process_time if kind == KINDS[1] else time.thread_time
                began = [clock() for clock in clocks]
                plain(self)
                if kind == KINDS[1]:
                    self.wait()
                wall, cpu = (clock() - start for clock, start in zip(clocks, began, strict=True))
                stalls.append((wall, cpu))

            Checkpoints.save = save  # type: ignore[method-assign]
            clock = Clock()
            with tempfile.TemporaryDirectory(dir=options.folder) as place:
                model.optimizer.iterations.assign(0)
                every = 8 if kind != KINDS[0] else options.steps + 1
                plan = Plan(
                    total_steps=options.steps + 1,  # the last one is saved in any case, and waited for
                    steps_per_epoch=options.steps + 2,
                    batch_size=batch,
                    checkpoint_steps=every,
                    keep_checkpoint_max=1,
                )
                train(model, stream, plan=plan, run=RunFolder(Path(place)), say=lambda line: None, callbacks=[clock])
                size_of = max(path.stat().st_size for path in (Path(place) / "checkpoints").iterdir())
            if number >= 0:
                steps = clock.times[1 : options.steps]
                found[kind]["step"] += [end - begin for begin, end in steps]
                counted = stalls[: options.steps // 8] if kind != KINDS[0] else [(0.0, 0.0)]
                found[kind]["stall"] += [wall for wall, _ in counted]
                found[kind]["cpu"] += [cpu for _, cpu in counted]
    Checkpoints.save = plain  # type: ignore[method-assign]
    name = f"ResNet-{depth}, {size} px, {batch} × 2, {keras.backend.backend()}, {size_of / 2**20:.0f} MiB"
    sys.stdout.write(
        f"{name}\n| written | step, s | stall a checkpoint, s | processor, s |\n| --- | --- | --- | --- |\n"
    )
    table = {kind: {part: statistics.median(times) for part, times in one.items()} for kind, one in found.items()}
    for kind, one in table.items():
        sys.stdout.write(f"| {kind} | {one['step']:.2f} | {one['stall']:.2f} | {one['cpu']:.2f} |\n")
    return table


if __name__ == "__main__":
    main(tyro.cli(Options))
