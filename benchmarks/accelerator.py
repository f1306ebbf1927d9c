"""What an accelerator makes of this: equality with the CPU, speed beside PyTorch, and a training on CIFAR-10.

JAX without TensorFlow; ends within `--seconds` (eight minutes), however slow the machine is: each section is a process
of its own with a budget, which notes each number as soon as it has it, and what did not fit is said.  Everything is
printed, and written as JSON.

1. `equality`: one step of ResNet-18 in float32 on the accelerator and on the CPU: loss, gradients, BatchNorm's
   statistics.  Where there is no accelerator, beside the same images in another order, which changes rounding alone.
2. `jax`, `pytorch`: a training step (both views, projection head, NT-Xent at 0.5, SGD with momentum, bfloat16) of
   ResNet-50 at 224 px, batch 256 × 2, and ResNet-18 at 32 px, 512 × 2; the images lie on the device.  Ours with views
   that are there, and with views that the step makes of padded images (`augmented`).  PyTorch's network is the exact
   twin that checkpoints are converted to, at its best of {eager, torch.compile} × {contiguous, channels_last}.
   Aims: at least as fast as PyTorch's best; augmentation at most a tenth of a step.
3. `cifar10`: SimCLR with ResNet-18 on CIFAR-10's images (`--cifar10 FOLDER`, where tfds has prepared the set) for as
   many epochs as fit, all on the device; then nearest neighbours, a linear probe, images a second, and joules where
   NVIDIA's tool tells them.

    python benchmarks/accelerator.py --cifar10 DATA_DIR --out accelerator.json
    python benchmarks/accelerator.py --quick                  small versions of all of it, on a CPU in a minute or two

It is made to run once, unattended: a section that fails, hangs or is killed loses what it had not measured yet, and
nothing else; the file is written anew behind each of them.  Where one of JAX and PyTorch sees no accelerator, nothing
is compared.
"""

import gc
import json
import math
import os
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch's processes need memory, too
if os.environ.get("JAX_PLATFORMS", "cpu").find("cpu") < 0:
    os.environ["JAX_PLATFORMS"] += ",cpu"  # what an accelerator computes is compared with the CPU
ROOT = Path(__file__).parents[1]
SHARES = {"equality": 0.13, "jax": 0.3, "pytorch": 0.27, "cifar10": 0.3}
"""Of the seconds; what a section leaves is the next one's."""
EQUAL = {"loss": 1e-5, "gradients": 1e-3, "statistics": 1e-4}
"""Largest relative differences of two devices in float32; of a gradient the length of the difference to its length."""
FASTER, AUGMENTATION = 1.0, 0.1
MODES = tuple(f"{mode} {layout}" for mode in ("eager", "compile") for layout in ("channels_last", "contiguous"))
"""The likely best of each first: compiling takes its time, and what does not fit is left out."""
RESERVE = 60
"""Seconds that are kept for the probes of the training."""


@dataclass(frozen=True)
class Options:
    """What to measure."""

    cifar10: Path | None = None
    """tfds' data folder, in which `cifar10` lies prepared; without one there is no training."""
    out: Path = Path("accelerator.json")
    """Gets all numbers."""
    seconds: float | None = None
    """For all of it; by default 480."""
    only: tuple[str, ...] = tuple(SHARES)
    """Sections."""
    quick: bool = False
    """Small networks, few steps."""

    @property
    def precision(self) -> str:
        """Of the steps; a CPU would take its time for bfloat16."""
        return "float32" if self.quick else "bfloat16"

    @property
    def cases(self) -> dict[str, tuple[int, int, int]]:
        """Name → depth, image size and batch size."""
        if self.quick:
            return {"ResNet-18, 16 px, 4 x 2, float32": (18, 16, 4)}
        return {"ResNet-18, 32 px, 512 x 2": (18, 32, 512), "ResNet-50, 224 px, 256 x 2": (50, 224, 256)}


class Notes:
    """A section's numbers, in its file from the moment on that they are known."""

    def __init__(self, path: Path):
        self.path, self.found = path, {}

    def add(self, **values) -> None:
        self.found |= values
        written = self.path.with_suffix(".new")  # whole or not at all: the process may be killed meanwhile
        written.write_text(json.dumps(self.found))
        written.replace(self.path)


def simclr(depth: int, size: int, *, precision: str = "bfloat16", optimizer=None):
    """A compiled SimCLR whose gammas are not zero: of those that are, no gradient reaches what is behind them.

    It is made on the CPU: an accelerator would compile a program for every shape of weights.
    """
    import jax

    with jax.default_device(jax.devices("cpu")[0]):
        return _simclr(depth, size, precision=precision, optimizer=optimizer)


def _simclr(depth: int, size: int, *, precision: str, optimizer):
    import keras

    from tf_simclr.losses import NTXent
    from tf_simclr.models import normalization, resnet
    from tf_simclr.models.simclr import SimCLR

    keras.utils.set_random_seed(0)
    with normalization.precision(precision):
        encoder = resnet.resnet(depth, cifar_stem=size <= 32) if depth else small(size)
        model = SimCLR(encoder, resnet.projection_head(encoder.output_shape[-1]))
    model.compile(optimizer or keras.optimizers.SGD(0.1, momentum=0.9), NTXent(0.5))
    model.optimizer.build(model.trainable_variables)
    return model


def placed(model, device) -> tuple:
    """The model's state on a device; copies, since a step that is compiled takes them away."""
    import jax

    return jax.tree.map(lambda x: x.copy(), jax.device_put(state_of(model), device))


def small(size: int):
    """Three layers, which compile at once, in the place of a ResNet."""
    import keras

    x = images = keras.Input((size, size, 3))
    for filters in (16, 32, 64):
        x = keras.layers.Conv2D(filters, 3, 2, use_bias=False)(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))


def state_of(model) -> tuple:
    """What a step of Keras on JAX takes and returns."""
    groups = (model.trainable_variables, model.non_trainable_variables, model.optimizer.variables)
    return tuple([variable.value for variable in group] for group in (*groups, model.metrics_variables))


def packed(size: int, batch: int, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Images, boxes and draws, as the host gives them to a device; images are made up."""
    from tf_simclr.data import draws
    from tf_simclr.data.recipe import Recipe

    side = size if size <= 32 else 512
    images = np.random.default_rng(seed).integers(0, 256, (batch, 1, side, side, 3), np.uint8)
    shapes = np.full((batch, 2), side)
    return {"images": images} | draws.batch(seed, np.arange(batch), shapes=shapes, size=size, recipe=Recipe())


# Sections


def equality(options: Options, notes: Notes) -> None:
    """One step here and there."""
    import jax
    import keras

    from tf_simclr.losses import nt_xent

    batch = 4 if options.quick else 32
    model = simclr(0 if options.quick else 18, 32, precision="float32")
    random = np.random.default_rng(1)
    for variable in model.trainable_variables:
        if variable.name == "gamma":
            variable.assign(random.uniform(0.5, 1.5, variable.shape))
    views = random.uniform(size=(batch, 2, 32, 32, 3)).astype("float32")

    def loss(trained, others, views):
        outputs, others = model.stateless_call(trained, others, views, training=True)
        z1, z2 = keras.ops.unstack(outputs["projections"], axis=1)
        return keras.ops.mean(nt_xent(z1, z2, 0.5)), others

    compiled = jax.jit(jax.value_and_grad(loss, has_aux=True))

    def step(device, views=views):
        given = jax.device_put((*state_of(model)[:2], views), device)
        with jax.default_matmul_precision("highest"):
            (value, others), gradients = compiled(*given)
        return jax.tree.map(np.asarray, (value, gradients, others))

    there, cpu = jax.devices()[0], jax.devices("cpu")[0]
    found = step(there)
    if there.platform == "cpu":
        notes.add(beside="the same images in another order: there is no accelerator")
        expected = step(cpu, views[::-1])
    else:
        notes.add(beside="the CPU")
        expected = step(cpu)
    pairs = {
        "loss": [(found[0], expected[0])],
        "gradients": list(zip(found[1], expected[1], strict=True)),
        "statistics": list(zip(found[2], expected[2], strict=True)),
    }
    worst = {name: max(relative(a, b) for a, b in two) for name, two in pairs.items()}
    notes.add(**worst, tensors=len(pairs["gradients"]), holds=all(worst[name] <= EQUAL[name] for name in EQUAL))


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    """Length of the difference, in that of what is expected."""
    difference = np.linalg.norm(np.asarray(found, np.float64) - np.asarray(expected, np.float64))
    return float(difference / max(float(np.linalg.norm(np.asarray(expected, np.float64))), 1e-6))


def timed(step: Callable[[], object], *, steps: int) -> float:
    """Median seconds of a step that waits for its result, after two that compile and warm up."""
    seconds = []
    for _ in range(steps + 2):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[2:])


def on_jax(options: Options, notes: Notes) -> None:
    """Our steps, with views and with images."""
    import jax

    from tf_simclr.data import device_views
    from tf_simclr.data.recipe import Recipe

    device = jax.devices()[0]
    notes.add(platform=device.platform)
    for name, (depth, size, batch) in options.cases.items():
        found: dict[str, float] = {}
        model = simclr(depth, size, precision=options.precision)

        def taking(augmented: bool, model=model, size=size, batch=batch) -> Callable[[], float]:
            data = packed(size, batch)

            def views_of(data):
                return device_views.views(data, size=size, recipe=Recipe())

            def whole(state, data):
                logs, state = model.train_step(state, (views_of(data) if augmented else data,))
                return logs["loss"], state

            data = jax.device_put(data if augmented else jax.jit(views_of)(jax.device_put(data, device)), device)
            compiled, state = jax.jit(whole, donate_argnums=0), placed(model, device)

            def one() -> float:
                nonlocal state
                loss, state = compiled(state, data)
                return float(loss)

            return one

        for kind, augmented in (("views", False), ("augmented", True)):
            try:
                found[kind] = timed(taking(augmented), steps=1 if options.quick else 20)
            except Exception as error:  # out of memory: the smaller ones count all the same
                notes.add(**{f"{name}, {kind}": said_of(error)})
            found["peak_bytes"] = (device.memory_stats() or {}).get("peak_bytes_in_use", 0)
            notes.add(**{name: dict(found)})
            gc.collect()


def said_of(error: Exception) -> str:
    """An error in a line."""
    return f"{type(error).__name__}: {(str(error).strip() or 'nothing is said').splitlines()[0][:200]}"


def on_pytorch(options: Options, notes: Notes) -> None:
    """PyTorch's steps, each way."""
    import torch
    from torch.nn import functional

    from converters.networks.in_torch import TwinResNet
    from tf_simclr.models.architecture import Architecture

    device = "cuda" if torch.cuda.is_available() else "cpu"
    notes.add(platform="gpu" if device == "cuda" else "cpu", version=torch.__version__)
    notes.add(device=torch.cuda.get_device_name() if device == "cuda" else "CPU")
    torch.backends.cudnn.benchmark = True
    found: dict[str, dict[str, float]] = {name: {} for name in options.cases}

    def taking(mode: str, *, depth: int, size: int, batch: int) -> Callable[[], float]:
        how, layout = mode.split()
        heads = {"proj_head_mode": "nonlinear", "num_proj_layers": 3}
        model = TwinResNet(Architecture(depth, cifar_stem=size <= 32, **heads)).to(device).train()
        views = torch.rand(2 * batch, 3, size, size, device=device)
        if layout == "channels_last":
            model, views = (x.to(memory_format=torch.channels_last) for x in (model, views))
        network = torch.compile(model) if how == "compile" else model
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        own = torch.eye(2 * batch, dtype=torch.bool, device=device)
        pairs = torch.arange(2 * batch, device=device).roll(batch)

        def one() -> float:
            with torch.autocast(device, torch.bfloat16, enabled=options.precision == "bfloat16"):
                z = network(views)["proj_head_output"]
            z = functional.normalize(z.float())
            loss = 2 * functional.cross_entropy((z @ z.T / 0.5).masked_fill(own, -1e9), pairs)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            return float(loss.detach())  # waits for it

        return one

    for mode in MODES[:1] if options.quick else MODES:  # all networks of a mode first: compiling takes long
        for name, (depth, size, batch) in options.cases.items():
            if device == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            try:
                one = taking(mode, depth=depth, size=size, batch=batch)
                found[name][mode] = timed(one, steps=1 if options.quick else 20)
                if device == "cuda":
                    found[name][f"{mode}: peak_bytes"] = torch.cuda.max_memory_allocated()
            except Exception as error:  # out of memory, or no compiler on this machine, which has many names
                notes.add(**{f"{name}, {mode}": said_of(error)})
            notes.add(**{name: dict(found[name])})
            one = None
            torch._dynamo.reset()
            gc.collect()


def cifar10(options: Options, notes: Notes, *, seconds: float) -> None:
    """A whole training on the device, and what its features are worth."""
    import jax
    import keras

    from tf_simclr.data import device_views, draws
    from tf_simclr.data.recipe import Recipe
    from tf_simclr.evaluation.probes import knn_scores, logistic_regression
    from tf_simclr.optimizers import LARS

    began = time.monotonic()
    most = 64 if options.quick else None
    (images, labels), (tested, answers) = (read_cifar10(options.cifar10, part, most=most) for part in ("train", "test"))
    batch = min(512, len(images) // 2)
    recipe = Recipe(color_jitter_strength=0.5, use_blur=False, blur_probability=0)
    depth = 0 if options.quick else 18
    model = simclr(depth, 32, optimizer=LARS(0.1, weight_decay=1e-4), precision=options.precision)
    rate = next(i for i, v in enumerate(model.optimizer.variables) if v is model.optimizer._learning_rate)
    device = jax.devices()[0]
    there, state = jax.device_put(images, device), placed(model, device)
    order = np.random.default_rng(0)

    def whole(state, images, chosen, drawn, speed):
        state[2][rate] = speed
        views = device_views.views({"images": images[chosen][:, None], **drawn}, size=32, recipe=recipe)
        logs, state = model.train_step(state, (views,))
        return logs["loss"], state

    step = jax.jit(whole, donate_argnums=0)
    steps_an_epoch = len(images) // batch
    peak, warmup = 1.0 * batch / 256, 10

    def epoch(number: int) -> list[tuple]:
        """What the host draws for an epoch."""
        rows = order.permutation(len(images))[: steps_an_epoch * batch].reshape(-1, batch)
        positions = (number * steps_an_epoch * batch + np.arange(rows.size)).reshape(rows.shape)
        shapes = np.full((batch, 2), 32)
        return [
            (r, draws.batch(0, p, shapes=shapes, size=32, recipe=recipe)) for r, p in zip(rows, positions, strict=True)
        ]

    def speed(done: float, epochs: int) -> np.float32:
        if done < warmup:
            return np.float32(peak * done / warmup)
        return np.float32(0.5 * peak * (1 + math.cos(math.pi * (done - warmup) / max(1, epochs - warmup))))

    loss, state = step(state, there, *epoch(0)[0], np.float32(0))  # compiles; at rate 0
    float(loss)
    first, measured = epoch(0), time.monotonic()
    with ThreadPoolExecutor(1) as host:  # an epoch as it will be, beside which the host draws the next one
        coming = host.submit(epoch, 1)
        for chosen, drawn in first:
            loss, state = step(state, there, chosen, drawn, np.float32(0))
        float(loss)
        coming.result()
    a_step = (time.monotonic() - measured) / steps_an_epoch
    stop_at = began + seconds - (2 if options.quick else RESERVE)
    left = stop_at - time.monotonic()
    epochs = 2 if options.quick else max(1, min(800, int(left / (1.1 * a_step * steps_an_epoch))))
    notes.add(images=len(images), batch=batch, seconds_a_step=a_step, epochs_planned=epochs)
    features = jax.jit(lambda values, x: model.encoder.stateless_call(*values, x, training=False)[0])

    def worth(state, say: Callable[..., None]) -> None:
        """Accuracies of probes on the features, each as soon as it is there."""
        places = {id(v): i for i, v in enumerate(model.trainable_variables)}
        others = {id(v): i for i, v in enumerate(model.non_trainable_variables)}
        values = [state[0][places[id(v)]] for v in model.encoder.trainable_variables]
        still = [state[1][others[id(v)]] for v in model.encoder.non_trainable_variables]
        pair = []
        for pixels in (images, tested):
            parts = [
                features((values, still), pixels[i : i + 500] / np.float32(255)) for i in range(0, len(pixels), 500)
            ]
            pair.append(np.concatenate([np.asarray(part, np.float32) for part in parts]))
        known, asked = pair
        votes = knn_scores(asked, (known, labels), k=min(200, len(known)))
        say(knn=float(np.mean(votes.argmax(1) == answers)))
        probe = logistic_regression(known, labels, l2=100.0, max_iterations=200)
        say(linear=float(np.mean(probe.predict(asked) == answers)))

    power = Power()
    started = time.monotonic()
    with ThreadPoolExecutor(1) as host:
        coming = host.submit(epoch, 0)
        for number in range(epochs):
            drawn_for, coming = coming.result(), host.submit(epoch, number + 1)
            for i, (chosen, drawn) in enumerate(drawn_for):
                done = number + i / steps_an_epoch
                loss, state = step(state, there, chosen, drawn, speed(done, epochs))
            if number % 10 == 9 or number + 1 == epochs:
                value = float(loss)  # waits for it
                took = time.monotonic() - started
                rate_now = (number + 1) * steps_an_epoch * batch / took
                notes.add(epochs=number + 1, loss=value, training_seconds=took, images_a_second=rate_now)
                if time.monotonic() > stop_at and number + 1 < epochs and not options.quick:
                    notes.add(cut_short=f"after {number + 1} of {epochs} epochs: steps took longer than the first ones")
                    break
    joules = power.stop()
    if joules is not None:
        images_seen = notes.found["epochs"] * steps_an_epoch * batch
        notes.add(joules=joules, images_a_joule=images_seen / max(joules, 1e-9), gpus_of_joules=power.gpus)
    worth(state, lambda **found: notes.add(**found))
    worth(placed(model, device), lambda **found: notes.add(untrained=notes.found.get("untrained", {}) | found))
    notes.add(backend=keras.backend.backend(), total_seconds=time.monotonic() - began)


class Power:
    """Energy that NVIDIA's GPUs take, by asking for their power twice a second."""

    def __init__(self) -> None:
        self.joules, self.asked, self.gpus = 0.0, 0, 0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()

    def watch(self) -> None:
        last = time.monotonic()
        command = ["nvidia-smi", "--query-gpu=power.draw", "--format=csv,noheader,nounits"]
        while not self.over.wait(0.5):
            try:
                said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout
                watts = [float(line) for line in said.split()]  # "[N/A]" of a part of a GPU is no number
            except (OSError, ValueError, subprocess.SubprocessError):
                return
            now = time.monotonic()
            self.joules, self.asked, last = self.joules + sum(watts) * (now - last), self.asked + 1, now
            self.gpus = len(watts)

    def stop(self) -> float | None:
        """Joules since the beginning; None where nobody tells."""
        self.over.set()
        self.thread.join()
        return self.joules if self.asked else None


def read_cifar10(folder: Path | None, part: str, *, most: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 `(n, 32, 32, 3)` and labels of a part that tfds has prepared; without a folder a few made-up."""
    import io

    from PIL import Image

    if folder is None:
        random = np.random.default_rng(len(part))
        labels = random.integers(0, 4, most or 64)
        plain = np.repeat((60 * labels[:, None, None, None]).astype(np.uint8), 32 * 32 * 3).reshape(-1, 32, 32, 3)
        return plain + random.integers(0, 40, plain.shape).astype(np.uint8), labels
    images, labels = [], []
    for path in sorted(Path(folder).expanduser().glob(f"cifar10/*/cifar10-{part}.tfrecord*")):
        for record in records(path):
            example = {key: value for entry in nested(record, 1, 1) for key, value in [named(entry)]}
            images.append(np.asarray(Image.open(io.BytesIO(nested(example[b"image"], 1, 1)[0])).convert("RGB")))
            labels.append(varint(nested(example[b"label"], 3, 1)[0]))
            if most and len(images) >= most:
                break
    if not images:
        raise SystemExit(f"--cifar10 must be the folder in which tfds has prepared cifar10. Received: {folder}")
    return np.stack(images), np.array(labels)


def records(path: Path) -> Iterator[bytes]:
    """The records of a TFRecord file: length, its checksum, the bytes, their checksum."""
    with path.open("rb") as file:
        while head := file.read(12):
            yield file.read(struct.unpack("<Q", head[:8])[0])
            file.read(4)


def nested(data: bytes, *numbers: int) -> list:
    """The values of a field of a field … of a protocol buffer."""
    found = [data]
    for number in numbers:
        found = [value for one in found for key, value in wire(one) if key == number]
    return found


def named(entry: bytes) -> tuple[bytes, bytes]:
    """Key and value of a map's entry."""
    parts = dict(wire(entry))
    return bytes(parts[1]), parts[2]


def varint(value) -> int:
    """A number, also where it is one of a packed list."""
    return value if isinstance(value, int) else next(iter(number(value, 0)))


def wire(data: bytes) -> Iterator[tuple[int, object]]:
    """Field numbers and values: numbers as they are, bytes of messages."""
    at = 0
    while at < len(data):
        key, at = number(data, at)
        if key & 7 == 0:
            value, at = number(data, at)
        elif key & 7 == 2:
            length, at = number(data, at)
            value, at = data[at : at + length], at + length
        else:
            width = 8 if key & 7 == 1 else 4
            value, at = data[at : at + width], at + width
        yield key >> 3, value


def number(data: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and the place behind it."""
    value = shift = 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at


# All of it


def device() -> dict[str, object]:
    """What computes, and with what."""
    from importlib.metadata import version

    import jax

    found = jax.devices()
    driver = ""
    try:
        asked = ["nvidia-smi", "--query-gpu=name,driver_version,power.limit", "--format=csv,noheader"]
        driver = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        driver = ""
    versions = {name: version(name) for name in ("jax", "jaxlib", "keras", "numpy")}
    return {"devices": [f"{one.platform}: {one.device_kind}" for one in found], "driver": driver, "versions": versions}


SECTIONS = {"equality": equality, "jax": on_jax, "pytorch": on_pytorch}


def section(name: str, options: Options, path: Path, *, seconds: float) -> None:
    """One section, in this process."""
    notes = Notes(path)
    if name == "device":
        notes.add(**device())
    elif name == "cifar10":
        cifar10(options, notes, seconds=seconds)
    else:
        SECTIONS[name](options, notes)


def apart(name: str, options: Options, *, seconds: float) -> dict:
    """A section in a process of its own, which is ended when its time is over."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "found.json"
        words = {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
        command = [sys.executable, __file__, "--section", json.dumps([name, words, str(path), seconds, time.time()])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        began, said = time.monotonic(), ""
        # Compilers start processes of their own, which would hold a pipe open and live on: a file, and a group.
        with (Path(folder) / "said").open("w+b") as file:
            process = subprocess.Popen(command, stdout=file, stderr=file, env=environment, start_new_session=True)
            try:
                if process.wait(seconds):
                    file.seek(0)
                    lines = file.read().decode(errors="replace").strip().splitlines()
                    errors = [line for line in lines if "Error" in line and not line.startswith(" ")]
                    said = (errors or lines or [f"it ended with code {process.returncode}"])[-1][:300]
            except subprocess.TimeoutExpired:
                said = f"not all of it fitted into {seconds:.0f} s"
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        try:
            found = json.loads(path.read_text())
        except (OSError, ValueError):
            found = {}
    return found | ({"ended": said} if said else {}) | {"seconds": round(time.monotonic() - began, 1)}


def report(results: dict, *, quick: bool = False) -> list[str]:
    """The lines that are printed; a quick run has nothing to say of the aims."""
    lines = []
    for name, found in results.items():
        lines.append(f"\n{name} ({found.get('seconds', 0)} s)")
        lines += [f"  {key}: {shown(value)}" for key, value in found.items() if key != "seconds"]
    for case, ours in ({} if quick else results.get("jax", {})).items():
        if not isinstance(ours, dict) or "views" not in ours:
            continue
        theirs = results.get("pytorch", {}).get(case, {})
        if results["jax"].get("platform") != results.get("pytorch", {}).get("platform"):
            theirs = {}  # one of them found no accelerator: nothing to compare
        modes = {mode: value for mode, value in theirs.items() if mode in MODES}
        if modes:
            best = min(modes, key=modes.__getitem__)
            lines.append(
                verdict(
                    f"{case}: beside PyTorch's best of {len(modes)}, {best}",
                    modes[best] / ours["views"],
                    FASTER,
                    least=True,
                )
            )
        if "augmented" in ours:
            share = max(0.0, 1 - ours["views"] / ours["augmented"])
            lines.append(verdict(f"{case}: the augmentation's share of a step", share, AUGMENTATION, least=False))
    return lines


def verdict(what: str, value: float, limit: float, *, least: bool) -> str:
    """A number beside its aim."""
    held = value >= limit if least else value <= limit
    return (
        f"{what}: {value:.2f} (aim: at {'least' if least else 'most'} {limit}): {'holds' if held else 'does not hold'}"
    )


def shown(value: object) -> str:
    """A value for people."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {shown(one)}" for key, one in value.items())
    return str(value)


def write(options: Options, results: dict) -> None:
    """What there is so far, whole or not at all."""
    written = options.out.with_name(f"{options.out.name}.new")
    written.write_text(json.dumps({"date": time.strftime("%Y-%m-%d"), "quick": options.quick, **results}, indent=2))
    written.replace(options.out)


def main() -> int:
    """Measures all, or one section in this process."""
    if sys.argv[1:2] == ["--section"]:
        name, words, path, seconds, began = json.loads(sys.argv[2])
        seconds -= time.time() - began  # what importing took
        places = {key: Path(words[key]) for key in ("cifar10", "out") if words[key] is not None}
        section(name, Options(**{**words, **places, "only": tuple(words["only"])}), Path(path), seconds=seconds)
        return 0
    options = tyro.cli(Options, description=__doc__)
    ends = time.monotonic() + (options.seconds or 480)
    results = {"device": apart("device", options, seconds=60)}
    sys.stdout.write("\n".join(report(results)) + "\n")
    write(options, results)
    waiting = [name for name in SHARES if name in options.only]
    while waiting:
        name = waiting.pop(0)
        if name == "cifar10" and options.cifar10 is None and not options.quick:
            results[name] = {"ended": "not run: no --cifar10"}
            continue
        left, share = ends - time.monotonic(), SHARES[name] / (SHARES[name] + sum(SHARES[other] for other in waiting))
        if left < 5:
            results[name] = {"ended": "not run: the time was over"}
            continue
        results[name] = apart(name, options, seconds=max(5.0, left * share))
        sys.stdout.write(f"{name}: {results[name]['seconds']} s {results[name].get('ended', '')}\n")
        sys.stdout.flush()
        write(options, results)
    write(options, results)
    sys.stdout.write("\n".join(report(results, quick=options.quick)) + "\n")
    sys.stdout.write(f"\n{options.out}\n")
    return 0 if results.get("equality", {}).get("holds", True) else 1


if __name__ == "__main__":
    raise SystemExit(main())
