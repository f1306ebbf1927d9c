"""Time and peak memory of a training step beside a plain Keras 3 one and beside PyTorch.

Each step is the same: both views of a batch through the same ResNet and projection head, NT-Xent at 0.5, SGD with
momentum.  `keras` is what people write in Keras 3: `BatchNormalization(synchronized=True)` and default layers; the
network of PyTorch is the exact twin that checkpoints are converted to.  Each measurement is a process of its own, and
all take turns; of each the median step counts.

Measured, without an aim, as nobody trains on a CPU for long (benchmarks/accelerator.py has the aims): the speed beside
plain Keras and beside PyTorch's best of {eager, torch.compile} × {contiguous, channels_last}, and the peak memory
beside that of PyTorch's fastest.  A ratio is of two processes of one turn; the median counts.  "before" is what a
process held before its first step: the libraries and the weights.  GFLOP/s are of the convolutions' multiplications and
additions alone, beside what a product of two large matrices reaches here.

    python benchmarks/train_step.py                      ResNet-50 at 224 px, batch 8 × 2; ResNet-18 at 32 px, 64 × 2
    python benchmarks/train_step.py --quick              ResNet-18 at 32 px, batch 16 × 2, one run
    python benchmarks/train_step.py --contenders ours remat xla keras       what an option costs
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

import numpy as np
import tyro

PEERS = tuple(f"torch {mode} {layout}" for mode in ("eager", "compile") for layout in ("contiguous", "channels_last"))
CASES = {"ResNet-50, 224 px, 8 × 2": (50, 224, 8), "ResNet-18, 32 px, 64 × 2": (18, 32, 64)}


@dataclass(frozen=True)
class Options:
    """What to measure."""

    contenders: tuple[str, ...] = ("ours", "remat", "keras", *PEERS)
    """Also: xla."""
    precisions: tuple[str, ...] = ("float32", "bfloat16")
    runs: int = 2
    """Processes of each, which take turns."""
    steps: int = 5
    """Timed ones a process, after two that build and warm up."""
    quick: bool = False
    """A small network, one process of each."""


def of_keras(contender: str, precision: str, case: tuple[int, int, int]):
    """A function that takes one step, by us or by plain Keras."""
    import keras
    import tensorflow as tf
    from keras import layers

    from tf_simclr import NTXent
    from tf_simclr.models import normalization, resnet
    from tf_simclr.models.simclr import SimCLR

    class Plain(normalization.Normalization):
        def layer(self, name, *, zero=False, center=True):
            options = {"momentum": 0.9, "epsilon": 1e-5, "synchronized": True}
            gamma = "zeros" if zero else "ones"
            return layers.BatchNormalization(**options, center=center, gamma_initializer=gamma, name=name)

    depth, size, batch = case
    kind = Plain() if contender == "keras" else normalization.Normalization()
    with normalization.precision(precision):
        encoder = resnet.resnet(depth, cifar_stem=size <= 32, normalization=kind)
        head = resnet.projection_head(encoder.output_shape[-1], normalization=kind)
        model = SimCLR(encoder, head, remat=contender == "remat")
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), NTXent(0.5), jit_compile=contender == "xla")
    views = np.random.default_rng(0).uniform(size=(batch, 2, size, size, 3)).astype("float32")
    model.make_train_function()
    steps = iter(tf.data.Dataset.from_tensors(views).repeat())
    return lambda: float(model.train_function(steps)["loss"])


def of_torch(contender: str, precision: str, case: tuple[int, int, int]):
    """A function that takes one step in PyTorch."""
    import torch
    from torch.nn import functional

    from converters.networks.in_torch import TwinResNet
    from tf_simclr.models.architecture import Architecture

    depth, size, batch = case
    _, mode, layout = contender.split()
    torch.set_num_threads(os.cpu_count() or 1)
    heads = {"proj_head_mode": "nonlinear", "num_proj_layers": 3}
    model = TwinResNet(Architecture(depth, cifar_stem=size <= 32, **heads)).train()
    views = torch.rand(2 * batch, 3, size, size)
    if layout == "channels_last":
        model, views = (x.to(memory_format=torch.channels_last) for x in (model, views))
    network = torch.compile(model) if mode == "compile" else model
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    own, pairs = torch.eye(2 * batch, dtype=torch.bool), torch.arange(2 * batch).roll(batch)

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            z = network(views)["proj_head_output"]
        z = functional.normalize(z.float())
        loss = 2 * functional.cross_entropy((z @ z.T / 0.5).masked_fill(own, -1e9), pairs)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return float(loss)

    return step


def one(contender: str, precision: str, case: tuple[int, int, int], *, steps: int) -> dict:
    """Median seconds a step, wall and processor, and the peak memory in bytes, of this process."""
    step = (of_torch if contender.startswith("torch") else of_keras)(contender, precision, case)
    before, times = peak(), []
    for _ in range(steps + 2):
        wall, processor = time.perf_counter(), time.process_time()
        step()
        times.append((time.perf_counter() - wall, time.process_time() - processor))
    wall, processor = (statistics.median(column) for column in zip(*times[2:], strict=True))
    return {"wall": wall, "cpu": processor, "before": before, "peak": peak()}


def peak() -> float:
    """Largest resident memory so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def measure(*arguments):
    """`one`, or `yardstick`, in a process of its own."""
    root = str(Path(__file__).parents[1])
    command = [sys.executable, str(Path(__file__)), "--one", json.dumps(arguments)]
    environment = {**os.environ, "PYTHONPATH": root, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{arguments} failed ({done.returncode}): {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(name: str, case: tuple[int, int, int], options: Options, *, precision: str) -> None:
    """Measures one network in one precision, and prints the table and the ratios."""
    rows: dict[str, list[dict]] = {contender: [] for contender in options.contenders}
    for _ in range(options.runs):
        for contender in options.contenders:
            rows[contender].append(measure(contender, precision, case, options.steps))
    median = {
        contender: {key: statistics.median(row[key] for row in found) for key in found[0]}
        for contender, found in rows.items()
    }
    heads = f"{'s/step':>8}{'spread':>14}{'cpu s':>8}{'GFLOP/s':>9}{'before MB':>11}{'peak MB':>9}"
    sys.stdout.write(f"\n{name}, {precision}\n{'':26}{heads}\n")
    work, fastest = measure("yardstick", precision, case, 0)
    for contender, row in median.items():
        walls = [found["wall"] for found in rows[contender]]
        spread = f"{min(walls):.2f}–{max(walls):.2f}"
        sys.stdout.write(f"{contender:26}{row['wall']:8.2f}{spread:>14}{row['cpu']:8.2f}{work / row['wall']:9.0f}")
        sys.stdout.write(f"{row['before'] / 2**20:11.0f}{row['peak'] / 2**20:9.0f}\n")
    sys.stdout.write(f"{'product of two matrices':62}{fastest:9.0f}\n")
    tell_ratios(rows, median)
    sys.stdout.flush()


def yardstick(precision: str, case: tuple[int, int, int]) -> tuple[float, float]:
    """GFLOP of a step, and GFLOP/s of the product of two matrices of 4096 × 4096, by TensorFlow or NumPy."""
    import tensorflow as tf
    from scaling import network

    depth, image_size, batch = case
    size, step = 4096, 3 * 2 * batch * network(depth, 1, image_size=image_size).gflops
    numbers = np.random.default_rng(0).uniform(size=(size, size)).astype("float32")
    factors = [tf.cast(numbers, precision)]
    factors += [numbers] if precision == "float32" else []
    seconds = []
    for factor in factors:
        for _ in range(6):
            start = time.perf_counter()
            float((factor @ factor)[0, 0])  # waits for the result
            seconds.append(time.perf_counter() - start)
    return step, 2 * size**3 / min(seconds) / 1e9


def tell_ratios(rows: dict[str, list[dict]], median: dict[str, dict]) -> None:
    """Prints what is told of each peer that was measured."""
    peers = [name for name in median if name.startswith("torch")]
    if "ours" in rows and "keras" in rows:
        tell_ratio("plain Keras: its time", rows["keras"], rows["ours"], key="wall")
    if "ours" in rows and peers:
        best = min(peers, key=lambda name: median[name]["wall"])
        tell_ratio(f"{best}: its time", rows[best], rows["ours"], key="wall")
        tell_ratio(f"{best}: its memory", rows[best], rows["ours"], key="peak")


def tell_ratio(what: str, peer: list[dict], ours: list[dict], *, key: str) -> None:
    """Prints the ratios of the turns, by processor time too: the median, and from the least to the largest."""
    ratios, used = ([a[k] / b[k] for a, b in zip(peer, ours, strict=True)] for k in (key, "cpu"))
    ratio, spread = statistics.median(ratios), f"{min(ratios):.2f}–{max(ratios):.2f}"
    beside = f"; {statistics.median(used):.2f} × in processor time" if key == "wall" else ""
    sys.stdout.write(f"{what} is {ratio:.2f} × ours ({spread}{beside})\n")


def main() -> int:
    """Measures all, or one in this process."""
    if sys.argv[1:2] == ["--one"]:
        name, precision, case, steps = json.loads(sys.argv[2])
        found = yardstick(precision, case) if name == "yardstick" else one(name, precision, case, steps=steps)
        sys.stdout.write(json.dumps(found) + "\n")
        return 0
    options = tyro.cli(Options, description=__doc__)
    cases = CASES
    if options.quick:
        cases = {"ResNet-18, 32 px, 16 × 2": (18, 32, 16)}
        options = Options(options.contenders, options.precisions, runs=1, steps=3)
    for name, case in cases.items():
        for precision in options.precisions:
            compare(name, case, options, precision=precision)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
