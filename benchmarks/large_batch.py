"""Peak memory and time of a pretraining step with and without gradient caching (`--microbatch_size`).

Claims, for ResNet-50 at 64 px: a batch of 4096 in pieces of 43 needs at most 1.3 × the memory of a batch of 64 without
pieces, plus its embeddings; a step in pieces takes at most 1.45 × the time of the naive step, at the sizes where that
fits (a second forward pass is a third more work).  Each measurement is a process of its own; those to be compared run
one after the other, several times, and medians are compared.  Memory is the peak resident one, views included, where
all threads take it from one arena: from several, what is resident grows with the steps by who happened to take it.

    python benchmarks/large_batch.py            256 … 4096: an hour or more on two cores, and 20 GB
    python benchmarks/large_batch.py --quick    ResNet-18 at 32 px, 64 … 512: minutes
    python benchmarks/large_batch.py --batches 4096 --naive 64 --runs 1      the memory claim alone
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

MEMORY = 1.3
TIME = 1.45


@dataclass(frozen=True)
class Options:
    """What to measure."""

    depth: int = 50
    image_size: int = 64
    piece: int = 43
    """Examples a piece at most: 256 are 6 pieces, 4096 are 96."""
    batches: tuple[int, ...] = (256, 512, 1024, 2048, 4096)
    """Batches in pieces."""
    naive: tuple[int, ...] = (64, 256)
    """Batches without; the first one is what the memory claim starts from."""
    steps: int = 1
    """Timed ones a process, after one that builds the graph; 0: that one alone."""
    runs: int = 3
    """Of each batch that is measured both ways, interleaved; of the others one."""
    quick: bool = False
    """A small network and small batches."""


QUICK = {"depth": 18, "image_size": 32, "batches": (64, 128, 512), "naive": (64, 128), "steps": 2, "runs": 3}


def one(batch: int, piece: int, options: Options) -> dict:
    """Seconds a step, wall and processor, and peak memory in bytes, of this process; `piece` 0: without pieces."""
    import tensorflow as tf

    from tf_simclr import LARS, NTXent, resnet
    from tf_simclr.models.simclr import SimCLR

    encoder = resnet(options.depth, cifar_stem=options.image_size <= 32)
    model = SimCLR(encoder, microbatch_size=piece)
    model.compile(LARS(0.1), NTXent(0.5), jit_compile=False)
    shape = (batch, 2, options.image_size, options.image_size, 3)
    one_batch_in_memory = tf.data.Options()
    one_batch_in_memory.autotune.enabled = False
    views = tf.data.Dataset.counter().map(lambda i: tf.random.stateless_uniform(shape, (0, i)))
    model.make_train_function()
    steps = iter(views.with_options(one_batch_in_memory))
    times = []
    for _ in range(1 + options.steps):
        wall, processor = time.perf_counter(), time.process_time()
        float(model.train_function(steps)["loss"])
        times.append((time.perf_counter() - wall, time.process_time() - processor))
    wall, processor = (statistics.median(column) for column in zip(*(times[1:] or times), strict=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"wall": wall, "processor": processor, "peak": peak, "features": encoder.output_shape[-1]}


def measure(batch: int, piece: int, options: Options) -> dict:
    """`one` in a process of its own."""
    sys.stderr.write(f"batch {batch}, {f'pieces of {piece}' if piece else 'naive'}\n")
    arguments = json.dumps([batch, piece, options.depth, options.image_size, options.steps])
    command = [sys.executable, str(Path(__file__)), "--one", arguments]
    root = str(Path(__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "TF_CPP_MIN_LOG_LEVEL": "3", "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"batch {batch} failed ({done.returncode}): {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measured(options: Options) -> dict[tuple[int, int], list[dict]]:
    """Batch and piece to its measurements."""
    both = set(options.batches) & set(options.naive)
    found: dict[tuple[int, int], list[dict]] = {}
    for batch in sorted({*options.naive, *options.batches}):
        kinds = [0] * (batch in options.naive) + [options.piece] * (batch in options.batches)
        for _ in range(options.runs if batch in both else 1):
            for piece in kinds:
                found.setdefault((batch, piece), []).append(measure(batch, piece, options))
    return found


def run(options: Options) -> bool:
    """Measures, prints the table, and says whether the claims hold."""
    found = measured(options)
    median = {
        key: {name: statistics.median(row[name] for row in rows) for name in rows[0]} for key, rows in found.items()
    }
    sys.stdout.write(f"ResNet-{options.depth} at {options.image_size} px, pieces of {options.piece}\n")
    sys.stdout.write(f"{'batch':>6}{'':>10}{'s/step':>9}{'spread':>16}{'cpu s':>9}{'peak MB':>9}\n")
    for (batch, piece), row in median.items():
        times = [r["wall"] for r in found[batch, piece]]
        spread = f"{min(times):.2f}–{max(times):.2f}"
        kind = "in pieces" if piece else "naive"
        sys.stdout.write(f"{batch:6}{kind:>10}{row['wall']:9.2f}{spread:>16}{row['processor']:9.2f}")
        sys.stdout.write(f"{row['peak'] / 2**20:9.0f}\n")
    return all([*memory_claim(options, median), *time_claims(options, median)])


def memory_claim(options: Options, median: dict):
    """Whether the largest batch in pieces fits into what the smallest naive one needs."""
    base, batch = median[options.naive[0], 0], max(options.batches)
    row = median[batch, options.piece]
    embeddings = batch * 2 * (row["features"] + 128) * 4
    allowed = MEMORY * base["peak"] + embeddings
    yield verdict(f"memory of {batch} beside {options.naive[0]}", row["peak"] / allowed * MEMORY, MEMORY)


def time_claims(options: Options, median: dict):
    """Whether pieces cost no more than a second forward pass and a little."""
    for batch in options.batches:
        if batch > options.piece and (batch, 0) in median:
            naive, ours = median[batch, 0], median[batch, options.piece]
            sys.stdout.write(f"processor time of {batch}: {ours['processor'] / naive['processor']:.2f} ×\n")
            yield verdict(f"time of {batch}", ours["wall"] / naive["wall"], TIME)


def verdict(what: str, ratio: float, limit: float) -> bool:
    """Prints a ratio and whether it holds."""
    sys.stdout.write(f"{what}: {ratio:.2f} ×, allowed {limit} ×: {'holds' if ratio <= limit else 'DOES NOT HOLD'}\n")
    return ratio <= limit


def main() -> int:
    """Measures all, or one in this process."""
    if sys.argv[1:2] == ["--one"]:
        batch, piece, depth, size, steps = json.loads(sys.argv[2])
        result = one(batch, piece, Options(depth=depth, image_size=size, steps=steps))
        sys.stdout.write(json.dumps(result) + "\n")
        return 0
    options = tyro.cli(Options, description=__doc__)
    return 0 if run(Options(**QUICK) if options.quick else options) else 1


if __name__ == "__main__":
    raise SystemExit(main())
