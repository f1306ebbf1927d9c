"""How long a step takes on other machines, what limits it, and how many input workers it needs: a model on paper.

    python benchmarks/scaling.py                              a TPU v3-8, a v5e-8 and 8 GPUs, at several batches
    python benchmarks/scaling.py --device "TPU v3-8" --batch 4096 --network 50 2
    python benchmarks/scaling.py --check                      the model beside 1, 2 and 4 logical devices of this CPU
    python benchmarks/scaling.py --paper --price_per_hour v5e=1.20 A100=2.74
                                                              time, cost and command of the paper's runs on ImageNet

A step is the larger one of two times, since images are prepared while the network learns: `compute + exchange`, and
the input's.  Assumptions:

compute   forward and backward are three times the multiplications and additions of the forward pass (the gradient by
          the input and by the weights), at 15 % of the peak in bfloat16.  That share is the one behind "about 1.5 hours
          for 100 epochs of ResNet-50 at batch 4096 on 128 cores of TPU v3" (arXiv:2002.05709, Section 2.2 and
          Appendix B): 371 views a second and core, 24.5 GFLOP each, of 61.5 TFLOP/s.
gather    projections of 2 views, all-reduced as zeros around each replica's own (`replicas.gather`), and their
          gradient: 2 × 2 (R - 1) / R × 2 n × 128 × 4 bytes through each replica's links.
gradients ring all-reduce in float32: 2 (R - 1) / R × 4 bytes a weight.
BatchNorm synchronised: two sums a layer forward and two backward, each as slow as the latency of an exchange.
memory    what the backward pass keeps: each convolution's and each addition's output, in bfloat16.  Compilers that fuse
          BatchNorm and ReLU into the next layer keep no more; four fifths of the memory are for it.
hosts     where a machine has several whose network is slower than what is within one, gradients and projections cross
          it once more, between as many as there are hosts.
pieces    in `--paper`, a batch that does not fit is computed in pieces (`--microbatch_size`), which costs a second
          forward pass: 4 / 3 of the computation.

The check cannot prove bandwidths of links that are not here.  It tests the form: on logical devices of one CPU cores
are shared, so a step of n images on R devices must take a + b n + c (R - 1), with c from copies and sums whose number
grows with the replicas.  Fitted on three measurements it must predict the others within a quarter; exits 1 otherwise.
c is fitted at the smaller batch: at the larger one it would be a small difference of two long times.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

EFFICIENCY = 0.15
"""Share of the peak that SimCLR reaches (see above)."""
LATENCY = 20e-6
"""Seconds of an exchange of a few kilobytes among 8 neighbours; 10 to 50 µs are usual for NCCL and TPUs' links."""
TOLERANCE = 0.25
TIMES = ("compute", "gather", "gradients", "BatchNorm")
HOST_VIEWS, DEVICE_VIEWS, CACHED_VIEWS = 850.0, 2000.0, 4500.0
"""Views of 224 px that one processor serves in a second: those that it makes itself, with blur (1.17 ms a view); those
for which it decodes and pads, while devices make them (0.48 to 0.53 ms); and the same from a JPEG cache of 256 px
(`--cache resized`).  As benchmarks/input_pipeline.py measured them (docs/input.md), rounded down."""


@dataclass(frozen=True)
class Device:
    """A machine; numbers are of one replica: a core of a TPU v3, a chip, a GPU."""

    replicas: int
    teraflops: float
    """Peak in bfloat16."""
    memory: float
    """GB."""
    links: float
    """GB/s that an all-reduce gets in and out of a replica."""
    processors: int
    """Virtual ones of the hosts, for the input."""
    hosts: int = 1
    between: float = 0.0
    """GB/s in and out of a host, where its network is slower than the links within; 0: the links go on."""


DEVICES = {
    # cloud.google.com/tpu/docs/v3: 123 TFLOP/s and 32 GiB a chip of two cores, all-reduce 340 TB/s of 1024 chips.
    "TPU v3-8": Device(8, 61.5, 16, 166, 96),
    # cloud.google.com/tpu/docs/v5e: 197 TFLOP/s and 16 GB a chip, all-reduce 51.2 TB/s of 256 chips, 224 vCPUs.
    "TPU v5e-8": Device(8, 197, 16, 200, 224),
    # NVIDIA A100 datasheet: 312 TFLOP/s, 40 GB, NVLink 300 GB/s each way; a2-highgpu-8g has 96 vCPUs.
    "8 × A100": Device(8, 312, 40, 300, 96),
}

PAPER = {
    # Slices of v5e: 4 chips a host of 112 vCPUs (cloud.google.com/tpu/docs/v5e), one network of links.
    "v5e-16": Device(16, 197, 16, 200, 448, hosts=4),
    "v5e-64": Device(64, 197, 16, 200, 1792, hosts=16),
    # a2-highgpu-8g: 100 Gbit/s of network a host (cloud.google.com/compute/docs/gpus).
    "8 × A100": DEVICES["8 × A100"],
    "32 × A100": Device(32, 312, 40, 300, 384, hosts=4, between=12.5),
}
"""Machines of the issue's table; a price of `--price_per_hour` is of a device whose name holds it."""
IMAGES, BATCH = 1_281_167, 4096
"""Of ImageNet's training set (ILSVRC 2012), and of a step (arXiv:2002.05709, Section 2.3)."""


@dataclass(frozen=True)
class Network:
    """What of a network decides how long a step takes."""

    gflops: float
    """Forward, a view."""
    weights: float
    """Millions, with the projection head's."""
    norms: int
    """BatchNorm layers."""
    kept: float
    """MB that a view leaves behind for the backward pass, in bfloat16."""


@dataclass(frozen=True)
class Step:
    """Seconds of the parts of a step, and what its input and memory ask for."""

    compute: float
    gather: float
    gradients: float
    norms: float
    images: float
    """A second, while nothing waits for the input."""
    processors: float
    """That the input then needs where the host makes the views."""
    decoders: float
    """The same where the devices make them, and the host only decodes."""
    pieces: int
    """In which a replica's part must be computed to fit into its memory (`--microbatch_size`)."""

    @property
    def seconds(self) -> float:
        return self.compute + self.gather + self.gradients + self.norms


@dataclass(frozen=True)
class Options:
    """What to say."""

    device: str = "all"
    """One of the table's, or all."""
    batch: tuple[int, ...] = (512, 1024, 4096)
    """Images, of all replicas."""
    network: tuple[int, int] = (50, 1)
    """Depth and width."""
    image_size: int = 224
    views_per_core: float = HOST_VIEWS
    """That a host's processor makes in a second, with blur; benchmarks/input_pipeline.py measures it."""
    decoded_per_core: float = DEVICE_VIEWS
    """Views that it decodes and pads in a second, for devices to make; likewise."""
    cached_per_core: float = CACHED_VIEWS
    """The same from `--cache resized`."""
    paper: bool = False
    """Print time, cost and command of 100 and 800 epochs on ImageNet, on slices of TPU v5e and on A100s."""
    price_per_hour: tuple[str, ...] = ()
    """What a device costs an hour, by a part of its name: v5e=1.20 A100=2.74.  Without it the table has no cost."""
    check: bool = False
    """Measure logical devices of this CPU and compare."""
    quick: bool = False
    """Check fewer of them."""
    runs: int = 3
    """Processes of each, which take turns; medians are compared."""


def step(
    device: Device, network: Network, *, batch: int, views_per_core: float, decoded_per_core: float = DEVICE_VIEWS
) -> Step:
    """The parts of a step of `batch` images.

    Example:
        >>> round(step(DEVICES["TPU v3-8"], Network(8.2, 28, 55, 23), batch=512, views_per_core=400).images)
        1485
    """
    r, weights = device.replicas, network.weights * 1e6
    around, views = (r - 1) / r, 2 * batch
    compute = 3 * network.gflops * 1e9 * views / r / (EFFICIENCY * device.teraflops * 1e12)
    per_second = device.links * 1e9
    gather = 2 * 2 * around * views * 128 * 4 / per_second if r > 1 else 0.0
    gradients = 2 * around * 4 * weights / per_second
    if device.between:
        apart, slower = (device.hosts - 1) / device.hosts, device.between * 1e9
        gather += 2 * 2 * apart * views * 128 * 4 / slower
        gradients += 2 * apart * 4 * weights / slower
    norms = 4 * network.norms * LATENCY if r > 1 else 0.0
    images = batch / (compute + gather + gradients + norms)
    room = 0.8 * device.memory * 1e9 - 16 * weights  # weights, gradients, momentum and a copy
    pieces = -(-views * network.kept * 1e6 // (r * room))
    input_ = 2 * images / views_per_core, 2 * images / decoded_per_core
    return Step(compute, gather, gradients, norms, images, *input_, int(pieces))


def network(depth: int, width: int, *, image_size: int) -> Network:
    """Counts what there is in an encoder and the head of three layers."""
    import keras

    from tf_simclr.models import resnet

    encoder = resnet.resnet(depth, width, cifar_stem=image_size <= 32)
    head = resnet.projection_head(encoder.output_shape[-1])
    sized = keras.models.clone_model(encoder, input_tensors=keras.Input((image_size, image_size, 3)))
    area = {layer.name: layer.output.shape[1:] for layer in sized.layers if len(layer.output.shape) == 4}
    gflops = kept = 0.0
    for layer in sized.layers:
        if isinstance(layer, keras.layers.Conv2D):
            height, columns, _ = area[layer.name]
            gflops += 2 * math.prod(layer.kernel.shape) * height * columns / 1e9
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Add):
            height, columns, channels = area[layer.name]
            kept += 2 * height * columns * channels / 1e6
    layers = [*sized.layers, *head.layers]
    norms = sum(isinstance(layer, keras.layers.BatchNormalization) for layer in layers)
    return Network(gflops, (encoder.count_params() + head.count_params()) / 1e6, norms, kept)


def machines(options: Options, network: Network, *, batches: tuple[int, int] = (1024, BATCH)) -> str:
    """The table of docs/scaling.md: one row a machine, numbers of two batches, processors at the larger one."""
    heads = ("device", "batch", "step, ms", "images/s", "processors: device / cached / host views", "pieces")
    rates = (options.decoded_per_core, options.cached_per_core, options.views_per_core)
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for name, device in DEVICES.items():
        pair = [step(device, network, batch=batch, views_per_core=options.views_per_core) for batch in batches]
        columns = (batches, [1000 * one.seconds for one in pair], [one.images for one in pair])
        row = [" / ".join(f"{value:.0f}" for value in values) for values in columns]
        needs = " / ".join(f"{2 * pair[1].images / rate:.0f}" for rate in rates) + f" of {device.processors}"
        row += [needs, " / ".join(str(one.pieces) for one in pair)]
        lines.append(f"| {' | '.join([name, *row])} |")
    return "\n".join(lines) + "\n"


def table(options: Options) -> None:
    """Prints steps of each device and batch."""
    depth, width = options.network
    found = network(depth, width, image_size=options.image_size)
    names = list(DEVICES) if options.device == "all" else [options.device]
    write = sys.stdout.write
    write(
        f"ResNet-{depth} {width}x at {options.image_size} px: {found.gflops:.1f} GFLOP and {found.kept:.0f} MB a view, "
    )
    write(f"{found.weights:.1f} M weights, {found.norms} BatchNorms\n\n")
    heads = ("device", "batch", "step, ms", *TIMES, "images/s", "processors: host views", "device views", "pieces")
    write(f"| {' | '.join(heads)} |\n")
    write("| --- " * len(heads) + "|\n")
    for name in names:
        for batch in options.batch:
            rates = {"views_per_core": options.views_per_core, "decoded_per_core": options.decoded_per_core}
            made = step(DEVICES[name], found, batch=batch, **rates)
            parts = (made.seconds, made.compute, made.gather, made.gradients, made.norms)
            times = " | ".join(f"{1000 * part:.3g}" for part in parts)
            there = DEVICES[name].processors
            needs = " | ".join(
                f"{one:.0f} of {there}" + (", more hosts" if one > there else "")
                for one in (made.processors, made.decoders)
            )
            write(f"| {name} | {batch} | {times} | {made.images:.0f} | {needs} | {made.pieces} |\n")
    write(f"\nA processor is taken to make {options.views_per_core:g} views a second, ")
    write(f"or to decode for {options.decoded_per_core:g}.\n\n{machines(options, found)}")


@dataclass(frozen=True)
class Run:
    """A run of the paper on a machine."""

    name: str
    epochs: int
    images: float
    """A second."""
    hours: float
    cost: float | None
    """In the currency of the price; None: no price was given."""
    pieces: int
    processors: tuple[float, float, float]
    """That decode for views made on the devices, likewise from a cache, and that make views on the host."""
    command: str


def prices(given: tuple[str, ...]) -> dict[str, float]:
    """Part of a device's name → price of one an hour.

    Example:
        >>> prices(("v5e=1.20",))
        {'v5e': 1.2}

    Raises:
        SystemExit: with code 2, where one is not of the form NAME=NUMBER, or of no device.
    """
    found = {}
    for one in given:
        name, _, number = one.partition("=")
        known = bool(name) and any(name in device for device in PAPER)
        try:
            found[name] = float(number)
        except ValueError:
            known = False
        if not known or not found[name] >= 0:
            sys.stderr.write(f"--price_per_hour must be like v5e=1.20, of {', '.join(PAPER)}. Received: {one}\n")
            raise SystemExit(2)
    return found


def runs_of_paper(options: Options, network: Network) -> list[Run]:
    """100 and 800 epochs on each machine of the table."""
    price, found = prices(options.price_per_hour), []
    for name, device in PAPER.items():
        rates = {"views_per_core": options.views_per_core, "decoded_per_core": options.decoded_per_core}
        made = step(device, network, batch=BATCH, **rates)
        seconds = made.seconds + (made.compute / 3 if made.pieces > 1 else 0.0)
        images = BATCH / seconds
        rates = (options.decoded_per_core, options.cached_per_core, options.views_per_core)
        needs = 2 * images / rates[0], 2 * images / rates[1], 2 * images / rates[2]
        for epochs in (100, 800):
            steps = round(epochs * IMAGES / BATCH)
            hours = steps * seconds / 3600
            of_one = next((value for part, value in price.items() if part in name), None)
            cost = None if of_one is None else of_one * device.replicas * hours
            command = _command(name, device, epochs=epochs, pieces=made.pieces)
            found.append(Run(name, epochs, images, hours, cost, made.pieces, needs, command))
    return found


def _command(name: str, device: Device, *, epochs: int, pieces: int) -> str:
    """What is typed for a run: on a slice of TPUs on each host, where JAX asks Cloud TPU or GKE for the others."""
    start = "python -m tf_simclr pretrain"
    if device.hosts > 1 and "v5e" not in name:
        each = device.replicas // device.hosts
        start = f"srun --nodes={device.hosts} --ntasks-per-node={each} --gpus-per-node={each} {start}"
    words = f"--preset imagenet --train_epochs {epochs} --augment_on device --mixed_precision bfloat16"
    if device.hosts > 1 and "v5e" in name:
        words += " --coordinator auto"
    if pieces > 1:
        words += f" --microbatch_size {BATCH // pieces}"
    folder = f"runs/imagenet-{epochs}-{name.replace(' × ', 'x')}"
    return f"KERAS_BACKEND=jax {start} {words} --data_dir tfds --model_dir {folder}"


def table_of(runs: list[Run]) -> str:
    """One row a machine: hours, device-hours and costs of 100 and of 800 epochs."""
    heads = (
        "devices",
        "images/s",
        "100 epochs",
        "800 epochs",
        "device-hours",
        "USD",
        "pieces",
        "processors: device / cached / host views",
    )
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for short, long in zip(runs[::2], runs[1::2], strict=True):
        device, pair = PAPER[short.name], (short, long)
        times = [f"{run.hours:.{0 if run.hours >= 10 else 1}f} h" for run in pair]
        spent = " / ".join(f"{run.hours * device.replicas:,.0f}" for run in pair)
        cost = " / ".join("–" if run.cost is None else f"{run.cost:,.0f}" for run in pair)
        needs = " / ".join(f"{one:.0f}" for one in short.processors) + f" of {device.processors}"
        row = (short.name, f"{short.images:,.0f}", *times, spent, cost, short.pieces, needs)
        lines.append(f"| {' | '.join(map(str, row))} |")
    return "\n".join(lines) + "\n"


def paper(options: Options) -> None:
    """Prints the table of the paper's runs, then a command for each."""
    depth, width = options.network
    known = network(depth, width, image_size=options.image_size)
    found = runs_of_paper(options, known)
    given = ", ".join(f"{name} {price:g}" for name, price in prices(options.price_per_hour).items())
    sys.stdout.write(f"{table_of(found)}\n{known}\n")
    sys.stdout.write(f"Prices of a device an hour, as they were given: {given or 'none'}.\n\n")
    sys.stdout.write("".join(f"{run.command}\n" for run in found))


def one(replicas: int, batch: int) -> float:
    """Median seconds of a step of ResNet-18 at 32 px on logical devices of this CPU, in this process."""
    import keras
    import numpy as np
    import tensorflow as tf

    from tf_simclr import NTXent
    from tf_simclr.models import resnet
    from tf_simclr.models.simclr import SimCLR
    from tf_simclr.replicas import find

    devices = find("mirrored", num_replicas=replicas) if replicas > 1 else find("one")
    with devices.scope():
        encoder = resnet.resnet(18, cifar_stem=True)
        model = SimCLR(encoder, resnet.projection_head(encoder.output_shape[-1]))
        model.compile(keras.optimizers.SGD(0.1, momentum=0.9), NTXent(0.5), jit_compile=False)
    views = np.random.default_rng(0).uniform(size=(batch, 2, 32, 32, 3)).astype("float32")
    seconds: list[float] = []

    class Clock(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            self.start = time.perf_counter()

        def on_train_batch_end(self, batch, logs=None):
            float(logs["loss"])
            seconds.append(time.perf_counter() - self.start)

    def stream(step: int, *, share: tuple[int, int] = (0, 1)) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensors((views,)).repeat()

    devices.fit(model, stream, step=0, steps_per_epoch=7, verbose=0, callbacks=[Clock()])
    return statistics.median(seconds[2:])


def measured(replicas: int, batch: int) -> float:
    """`one` in a process of its own: logical devices are made once a process."""
    root = str(Path(__file__).parents[1])
    command = [sys.executable, str(Path(__file__)), "--one", json.dumps([replicas, batch])]
    environment = {**os.environ, "PYTHONPATH": root, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{replicas} devices failed ({done.returncode}): {done.stderr[-2000:]}")
    return float(done.stdout.splitlines()[-1])


def check(options: Options) -> bool:
    """Fits the form on three measurements, prints all beside it, and says whether the others agree."""
    small, large = (16, 48) if options.quick else (32, 96)
    fitted = [(1, small), (1, large), (2, small)]
    places = [*fitted, (4, large)] if options.quick else [*fitted, (2, large), (4, small), (4, large)]
    times: dict[tuple[int, int], list[float]] = {place: [] for place in places}
    for _ in range(1 if options.quick else options.runs):
        for place in places:
            times[place].append(measured(*place))
    found = {place: statistics.median(values) for place, values in times.items()}
    slope = (found[1, large] - found[1, small]) / (large - small)
    fixed, exchange = found[1, small] - slope * small, found[2, small] - found[1, small]
    sys.stdout.write("| devices | batch | measured, s | spread | model | model / measured |\n" + "| --- " * 6 + "|\n")
    holds = True
    for (replicas, batch), seconds in found.items():
        model = fixed + slope * batch + exchange * (replicas - 1)
        own = times[replicas, batch]
        verdict = "fitted" if (replicas, batch) in fitted else f"{model / seconds:.2f}"
        holds &= abs(model / seconds - 1) <= TOLERANCE
        sys.stdout.write(f"| {replicas} | {batch} | {seconds:.2f} | {min(own):.2f} … {max(own):.2f} | {model:.2f} | ")
        sys.stdout.write(f"{verdict} |\n")
    sys.stdout.write(f"within {TOLERANCE:.0%}: {'holds' if holds else 'DOES NOT HOLD'}\n")
    return holds


def main() -> int:
    """Prints the table, the check, or one measurement."""
    if sys.argv[1:2] == ["--one"]:
        sys.stdout.write(f"{one(*json.loads(sys.argv[2]))}\n")
        return 0
    options = tyro.cli(Options, description=__doc__)
    if options.device != "all" and options.device not in DEVICES:
        sys.stderr.write(f"--device must be one of {', '.join(DEVICES)}. Received: {options.device}\n")
        return 2
    if options.check:
        return 0 if check(options) else 1
    if options.paper:
        paper(options)
        return 0
    table(options)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
