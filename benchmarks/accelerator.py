"""What an accelerator makes of this: equality with the CPU, speed beside PyTorch, and a training on CIFAR-10.

JAX without TensorFlow; ends within `--seconds` (eight minutes), however slow the machine is: each section is a process
of its own with a budget, which notes each number as soon as it has it, and what was not measured is said with the
reason.  Everything is printed, and written as JSON.

1. `equality`: one step of ResNet-18 in float32 on the accelerator and on the CPU: loss, gradients, BatchNorm's
   statistics.  Where there is no accelerator, beside the same images in another order, which changes rounding alone.
2. `jax`, `pytorch`: a training step (both views, projection head, NT-Xent at 0.5, SGD with momentum, bfloat16) of
   ResNet-50 at 224 px, batch 256 × 2, and ResNet-18 at 32 px, 512 × 2; the images lie on the device.  Ours with views
   that are there (`views`), and with views that the step makes of padded images (`augmented`); what making them takes
   alone (`augmentation`) counts where there was no time to compile both in one.  PyTorch's network is the exact
   twin that checkpoints are converted to, at its best of {eager, torch.compile} × {contiguous, channels_last}.
   Aims: at least as fast as PyTorch's best; augmentation at most a tenth of a step.
3. `cifar10`: SimCLR with ResNet-18 on CIFAR-10's images (`--cifar10 FOLDER`, where tfds has prepared the set) for as
   many epochs as fit, all on the device; then nearest neighbours, a linear probe, images a second, and joules where
   NVIDIA's tool tells them.

    python benchmarks/accelerator.py --cifar10 DATA_DIR --out accelerator.json
    python benchmarks/accelerator.py --quick                  small versions of all of it, on a CPU in a minute or two

Steps are timed by the clock, in a row, and waited for at their end, as in a training: whatever is behind the others,
the device or who feeds it, is what they take.  A process has the device's memory alone, and takes what it needs of it.

It is made to run once, unattended: a section that fails, hangs or is killed loses what it had not measured yet, and
nothing else; the file is written anew behind each of them.  Where PyTorch sees no accelerator and JAX does, it is not
compared.  Exits 0 where all was measured and holds, 1 where something does not hold, 2 where an option cannot be used,
3 where something was not measured.
"""

import gc
import json
import math
import os
import platform
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
from typing import Literal

import numpy as np
import tyro

os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch's processes need memory, too
if "cpu" not in (os.environ.get("JAX_PLATFORMS") or "cpu"):
    os.environ["JAX_PLATFORMS"] += ",cpu"  # what an accelerator computes is compared with the CPU
ROOT = Path(__file__).parents[1]
SHARES = {"equality": 0.1, "jax": 0.27, "pytorch": 0.25, "cifar10": 0.38}
"""Of the seconds; what a section leaves is the next one's.  A quick run, which measures nothing, has no shares."""
SECONDS = {False: 480, True: 1800}
"""Of a run, and of a quick one, which a busy machine may take its time for."""
EQUAL = {"loss": 1e-5, "gradients": 1e-3, "statistics": 1e-4}
"""Largest relative differences of two devices in float32; of a gradient the length of the difference to its length."""
FASTER, AUGMENTATION = 1.0, 0.1
MODES = tuple(f"{mode} {layout}" for layout in ("channels_last", "contiguous") for mode in ("eager", "compile"))
"""The likely best first, but for eager, which is there at once: what does not fit is left out."""
KINDS = ("views", "augmentation", "augmented")
"""Of our steps: with views that are there; making views, without a step; a step that makes them."""
ROUNDS, STEPS, ENOUGH = 4, 5, 2.0
"""A step is timed in so many rounds of so many steps each; of slow steps in as many as fit into these seconds."""
NOT_REACHED = "it was not reached"


@dataclass(frozen=True)
class Options:
    """What to measure."""

    cifar10: Path | None = None
    """tfds' data folder, in which `cifar10` lies prepared; without one there is no training."""
    out: Path = Path("accelerator.json")
    """Gets all numbers."""
    seconds: float | None = None
    """For all of it; by default 480, and 1,800 with `--quick`."""
    only: tuple[Literal["equality", "jax", "pytorch", "cifar10"], ...] = tuple(SHARES)
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
    """A section's numbers, in its file from the moment on that they are known.

    Attributes:
        until: when the section's process will be ended, by the monotonic clock.
        found: what is known; `missing` has what is still to be measured, and why it was not.
    """

    def __init__(self, path: Path, *, until: float = math.inf):
        self.path, self.until, self.found = path, until, {"missing": {}}

    def expect(self, *names: str, because: str = NOT_REACHED) -> None:
        """Says what is to be measured, or why it will not be."""
        self.found["missing"] |= dict.fromkeys(names, because)
        self.add()

    def add(self, *measured: str, **values) -> None:
        """Notes values; of what was expected these are there now, and those `measured`."""
        self.found |= values
        for name in (*measured, *values):
            self.found["missing"].pop(name, None)
        written = self.path.with_suffix(".new")  # whole or not at all: the process may be killed meanwhile
        written.write_text(as_json(self.found))
        written.replace(self.path)

    @property
    def left(self) -> float:
        """Seconds."""
        return self.until - time.monotonic()


def as_json(found: dict) -> str:
    """JSON, which has no word for what is no number."""

    def plain(value: object) -> object:
        if isinstance(value, dict):
            return {key: plain(one) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [plain(one) for one in value]
        return str(value) if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(plain(found), indent=2, allow_nan=False)


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

    there, cpu = jax.devices()[0], jax.devices("cpu")[0]
    alone = there.platform == "cpu"
    notes.add(beside="the same images in another order: there is no accelerator" if alone else "the CPU")
    notes.expect(*EQUAL)
    given = [
        jax.device_put((*state_of(model)[:2], one), device)
        for device, one in ((there, views), (cpu, views[::-1] if alone else views))
    ]
    with jax.default_matmul_precision("highest"):  # else an accelerator rounds the factors of products
        traced = [jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(*one) for one in given]
    with ThreadPoolExecutor(len(traced)) as pool:  # each takes its time, on processors that are there anyway
        steps = list(pool.map(lambda one: one.compile(), traced))
    found, expected = (jax.tree.map(np.asarray, step(*one)) for step, one in zip(steps, given, strict=True))
    pairs = {
        "loss": [(found[0][0], expected[0][0])],
        "gradients": list(zip(found[1], expected[1], strict=True)),
        "statistics": list(zip(found[0][1], expected[0][1], strict=True)),
    }
    # NumPy's maximum of what is no number is none, and holds nothing.
    worst = {name: float(np.max([relative(a, b) for a, b in two])) for name, two in pairs.items()}
    holds = all(worst[name] <= EQUAL[name] for name in EQUAL)
    notes.add(**worst, tensors=len(pairs["gradients"]), holds=holds)


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    """Length of the difference, in that of what is expected."""
    difference = np.linalg.norm(np.asarray(found, np.float64) - np.asarray(expected, np.float64))
    return float(difference / max(float(np.linalg.norm(np.asarray(expected, np.float64))), 1e-6))


def timed(step: Callable[[], object], *, quick: bool = False) -> float:
    """Seconds a step, the median of rounds of steps in a row, each waited for at its end by `float`.

    Before them two, of which the first compiles what is not compiled yet, and a few that warm up.
    """
    for _ in range(2):
        began = time.perf_counter()
        float(step())
    a_step = max(time.perf_counter() - began, 1e-9)
    fit = 1 if quick else max(1, min(ROUNDS * STEPS, int(ENOUGH / a_step)))
    rounds, seconds = min(ROUNDS, fit), []
    for _ in range(min(STEPS, fit - 1)):
        float(step())
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(fit // rounds):
            last = step()
        float(last)
        seconds.append((time.perf_counter() - began) / (fit // rounds))
    return statistics.median(seconds)


def on_jax(options: Options, notes: Notes) -> None:
    """Our steps, with views and with images."""
    import jax

    from tf_simclr.data import device_views
    from tf_simclr.data.recipe import Recipe

    device = jax.devices()[0]
    notes.add(platform=device.platform)
    notes.expect(*(f"{name}: {kind}" for kind in KINDS for name in options.cases))
    models: dict[str, object] = {}
    found: dict[str, dict[str, float]] = {name: {} for name in options.cases}

    def taking(name: str, kind: str) -> Callable[[], object]:
        """A compiled step of a kind, and what it takes, on the device."""
        depth, size, batch = options.cases[name]
        recipe, data = Recipe(), jax.device_put(packed(size, batch), device)

        def views_of(data):
            return device_views.views(data, size=size, recipe=recipe)

        def compiled(function, *given, **how):
            began = time.monotonic()
            made = jax.jit(function, **how).lower(*given).compile()
            found[name][f"{kind}: seconds to compile"] = time.monotonic() - began
            found[name][f"{kind}: bytes"] = bytes_of(made)
            return made

        if kind == "augmentation":
            # One number of all of them, so that all are computed and none has to be written.
            made = compiled(lambda data: views_of(data).sum(), data)
            return lambda: made(data)
        model = models.setdefault(name, None) or simclr(depth, size, precision=options.precision)
        models[name] = model

        def whole(state, data):
            logs, state = model.train_step(state, (views_of(data) if kind == "augmented" else data,))
            return logs["loss"], state

        data = data if kind == "augmented" else jax.jit(views_of)(data)
        state = placed(model, device)
        step = compiled(whole, state, data, donate_argnums=0)

        def one():
            nonlocal state
            loss, state = step(state, data)
            return loss

        return one

    for kind in KINDS:  # of all networks what comes first: compiling takes long
        for name in options.cases:
            what = f"{name}: {kind}"
            before = found[name].get("views: seconds to compile", 0.0)
            if kind == "augmented" and notes.left < before / 2:  # half of it has been compiled once
                notes.expect(
                    what, because=f"{notes.left:.0f} s were left, and its network took {before:.0f} to compile"
                )
                continue
            try:
                found[name][kind] = timed(taking(name, kind), quick=options.quick)
                notes.add(what, **{name: dict(found[name])})
            except Exception as error:  # out of memory: the smaller ones count all the same
                notes.expect(what, because=said_of(error))
            # Since the process began, with what choosing among algorithms took; "bytes" is what a program says.
            notes.add(peak_bytes=(device.memory_stats() or {}).get("peak_bytes_in_use", 0))
            gc.collect()


def bytes_of(compiled) -> int:
    """Memory that a compiled program takes at once: what goes in, what comes out elsewhere, and between."""
    known = compiled.memory_analysis()
    names = ("argument_size_in_bytes", "output_size_in_bytes", "temp_size_in_bytes", "alias_size_in_bytes")
    taken, made, between, shared = (int(getattr(known, name, 0)) for name in names)
    return taken + made + between - shared


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
    modes = MODES[:1] if options.quick else MODES
    notes.expect(*(f"{name}: {mode}" for mode in modes for name in options.cases))
    if device == "cpu" and not options.quick:
        because = "PyTorch sees no accelerator: a build for this one is needed (https://pytorch.org/get-started)"
        notes.expect(*notes.found["missing"], because=because)
        return
    torch.backends.cudnn.benchmark = True  # chooses among algorithms, as XLA does
    found: dict[str, dict[str, float]] = {name: {} for name in options.cases}

    def taking(mode: str, *, depth: int, size: int, batch: int) -> Callable[[], object]:
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

        def one():
            with torch.autocast(device, torch.bfloat16, enabled=options.precision == "bfloat16"):
                z = network(views)["proj_head_output"]
            z = functional.normalize(z.float())
            loss = 2 * functional.cross_entropy((z @ z.T / 0.5).masked_fill(own, -1e9), pairs)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            return loss.detach()

        return one

    for mode in modes:  # all networks of a mode first: compiling takes long
        for name, (depth, size, batch) in options.cases.items():
            try:
                if device == "cuda":
                    torch.cuda.empty_cache()
                    torch.cuda.reset_peak_memory_stats()
                found[name][mode] = timed(taking(mode, depth=depth, size=size, batch=batch), quick=options.quick)
                if device == "cuda":
                    found[name][f"{mode}: peak_bytes"] = torch.cuda.max_memory_allocated()
                notes.add(f"{name}: {mode}", **{name: dict(found[name])})
            except Exception as error:  # out of memory, or no compiler on this machine, which has many names
                notes.expect(f"{name}: {mode}", because=said_of(error))
            with suppress(Exception):  # of a Python that it does not know, it refuses even this
                torch._dynamo.reset()
            gc.collect()


def cifar10(options: Options, notes: Notes) -> None:
    """A whole training on the device, and what its features are worth."""
    import jax
    import keras

    from tf_simclr.data import device_views, draws
    from tf_simclr.data.recipe import Recipe
    from tf_simclr.evaluation.probes import knn_scores, logistic_regression
    from tf_simclr.optimizers import LARS

    began = time.monotonic()
    notes.expect("epochs", "knn", "linear", "untrained")
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

    features = jax.jit(lambda values, x: model.encoder.stateless_call(*values, x, training=False)[0])

    def worth(state) -> dict[str, float]:
        """Accuracies of probes on the features."""
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
        probe = logistic_regression(known, labels, l2=100.0, max_iterations=200)
        right = {"knn": votes.argmax(1) == answers, "linear": probe.predict(asked) == answers}
        return {name: float(np.mean(one)) for name, one in right.items()}

    # 1. What compiles, and how long the probes take, of features that are not trained.
    drawn_for = epoch(0)
    step = jax.jit(whole, donate_argnums=0).lower(state, there, *drawn_for[0], np.float32(0)).compile()
    probes = time.monotonic()
    notes.add(untrained=worth(state))
    reserve = 1.3 * (time.monotonic() - probes) + 5
    # 2. An epoch as it will be, at rate 0, beside which the host draws the next one.
    measured = time.monotonic()
    with ThreadPoolExecutor(1) as host:
        coming = host.submit(epoch, 1)
        for chosen, drawn in drawn_for:
            loss, state = step(state, there, chosen, drawn, np.float32(0))
        float(loss)
        coming.result()
    a_step = (time.monotonic() - measured) / steps_an_epoch
    stop_at = notes.until - reserve
    epochs = max(1, min(800, int((stop_at - time.monotonic()) / (1.1 * a_step * steps_an_epoch))))
    epochs = 2 if options.quick else epochs
    notes.add(images=len(images), batch=batch, seconds_a_step=a_step, epochs_planned=epochs)

    # 3. The training, and what it was worth.
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
    if joules is None:
        notes.add(joules=power.said)
    else:
        images_seen = notes.found["epochs"] * steps_an_epoch * batch
        notes.add(joules=joules, images_a_joule=images_seen / max(joules, 1e-9), gpus_of_joules=power.gpus)
    notes.add(**worth(state))
    notes.add(backend=keras.backend.backend(), total_seconds=time.monotonic() - began)


class Power:
    """Energy that NVIDIA's GPUs take, by asking for their power twice a second."""

    def __init__(self) -> None:
        self.joules, self.asked, self.gpus = 0.0, 0, 0
        self.said = "nvidia-smi was not asked yet"
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
            except (OSError, ValueError, subprocess.SubprocessError) as error:
                self.said = f"nvidia-smi tells no power ({said_of(error)})"
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
    encoded, labels = [], []
    for path in files_of(folder, part):
        for record in records(path):
            example = {key: value for entry in nested(record, 1, 1) for key, value in [named(entry)]}
            encoded.append(nested(example[b"image"], 1, 1)[0])
            labels.append(varint(nested(example[b"label"], 3, 1)[0]))
            if most and len(encoded) >= most:
                break
    with ThreadPoolExecutor() as pool:
        images = list(pool.map(lambda one: np.asarray(Image.open(io.BytesIO(one)).convert("RGB")), encoded))
    return np.stack(images), np.array(labels)


def files_of(folder: Path, part: str) -> list[Path]:
    """The files of a part of CIFAR-10 as tfds has prepared it."""
    return sorted(folder.expanduser().glob(f"cifar10/*/cifar10-{part}.tfrecord*"))


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
    from importlib.metadata import distributions, version

    import jax

    found = jax.devices()
    try:
        asked = ["nvidia-smi", "--query-gpu=name,driver_version,power.limit", "--format=csv,noheader"]
        driver = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        driver = ""
    there = {one.metadata["Name"] or "" for one in distributions()}
    plugins = sorted(name for name in there if name.startswith(("jax-cuda", "jax-rocm", "libtpu", "torch")))
    versions = {name: version(name) for name in ("jax", "jaxlib", "keras", "numpy", *plugins) if name in there}
    return {
        "platform": found[0].platform,
        "devices": [f"{one.platform}: {one.device_kind}" for one in found],
        "driver": driver,
        "versions": {"python": platform.python_version(), **versions},
    }


SECTIONS = {
    "device": lambda _, notes: notes.add(**device()),
    "equality": equality,
    "jax": on_jax,
    "pytorch": on_pytorch,
    "cifar10": cifar10,
}


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
                if code := process.wait(seconds):
                    file.seek(0)
                    lines = file.read().decode(errors="replace").strip().splitlines()
                    errors = [line for line in lines if "Error" in line and not line.startswith(" ")]
                    end = f"it ended by signal {-code}" if code < 0 else f"it ended with code {code}"
                    last = [(errors or lines or [""])[-1]]
                    said = ": ".join(part for part in ([end, *last] if code < 0 else last) if part)[:300] or end
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
    missing = {what: said if said and why == NOT_REACHED else why for what, why in found.pop("missing", {}).items()}
    missing |= {"all of it": said} if said and not missing else {}
    return found | {"missing": missing, "seconds": round(time.monotonic() - began, 1)}


def report(results: dict, *, quick: bool = False) -> tuple[list[str], bool]:
    """The lines that are printed, and whether all that was measured holds; a quick run says nothing of the aims."""
    lines, held = [], [results.get("equality", {}).get("holds", True)]
    for name, found in results.items():
        lines.append(f"\n{name} ({found.get('seconds', 0)} s)")
        lines += [f"  {key}: {shown(value)}" for key, value in found.items() if key not in ("seconds", "missing")]
        lines += [f"  not measured: {what}, because: {why}" for what, why in found.get("missing", {}).items()]

    def aim(what: str, value: float, limit: float, *, least: bool) -> None:
        held.append(value >= limit if least else value <= limit)
        words = f"{what}: {value:.2f} (aim: at {'least' if least else 'most'} {limit})"
        lines.append(f"{words}: {'holds' if held[-1] else 'does not hold'}")

    ours, theirs = results.get("jax", {}), results.get("pytorch", {})
    compared = ours.get("platform") == theirs.get("platform")
    for case in () if quick else Options().cases:
        steps = ours.get(case, {})
        modes = {mode: value for mode, value in theirs.get(case, {}).items() if mode in MODES}
        if "views" not in steps:
            continue
        if modes and compared:
            best = min(modes, key=modes.__getitem__)
            aim(
                f"{case}: beside PyTorch's best of {len(modes)}, {best}",
                modes[best] / steps["views"],
                FASTER,
                least=True,
            )
        if "augmented" in steps:
            share, how = max(0.0, 1 - steps["views"] / steps["augmented"]), ""
        elif "augmentation" in steps:
            share, how = steps["augmentation"] / (steps["augmentation"] + steps["views"]), ", made alone"
        else:
            continue
        aim(f"{case}: the augmentation's share of a step{how}", share, AUGMENTATION, least=False)
    return lines, all(held)


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
    written.write_text(as_json({"date": time.strftime("%Y-%m-%d"), "quick": options.quick, **results}))
    written.replace(options.out)


def main() -> int:
    """Measures all, or one section in this process."""
    if sys.argv[1:2] == ["--section"]:
        name, words, path, seconds, began = json.loads(sys.argv[2])
        until = time.monotonic() + seconds - (time.time() - began)  # what importing took
        places = {key: Path(words[key]) for key in ("cifar10", "out") if words[key] is not None}
        options = Options(**{**words, **places, "only": tuple(words["only"])})
        SECTIONS[name](options, Notes(Path(path), until=until))
        return 0
    options = tyro.cli(Options, description=__doc__)
    if wrong := refused(options):
        sys.stderr.write(f"{wrong}\n")
        return 2
    ends = time.monotonic() + (options.seconds or SECONDS[options.quick])
    results = {"device": apart("device", options, seconds=SECONDS[True] if options.quick else 60)}
    sys.stdout.write("\n".join(report(results)[0]) + "\n")
    write(options, results)
    waiting = [name for name in SHARES if name in options.only]
    alone = results["device"].get("platform") == "cpu" and not options.quick
    while waiting:
        name = waiting.pop(0)
        left, share = ends - time.monotonic(), SHARES[name] / (SHARES[name] + sum(SHARES[other] for other in waiting))
        seconds = left if options.quick else left * share
        if alone:
            because = "JAX sees no accelerator: --quick is for a CPU, and JAX's own build for this one is needed"
            results[name] = {"missing": {"all of it": because}}
        elif name == "cifar10" and options.cifar10 is None and not options.quick:
            results[name] = {"missing": {"all of it": "there is no --cifar10"}}
        elif left < 5:
            results[name] = {"missing": {"all of it": "the time was over"}}
        else:
            results[name] = apart(name, options, seconds=max(5.0, seconds))
            sys.stdout.write(f"{name}: {results[name]['seconds']} s\n")
            sys.stdout.flush()
        write(options, results)
    lines, holds = report(results, quick=options.quick)
    sys.stdout.write("\n".join(lines) + f"\n\n{options.out}\n")
    whole = not any(found.get("missing") for found in results.values())
    return 0 if holds and whole else 3 if holds else 1


def refused(options: Options) -> str:
    """Why options cannot be used, before minutes are spent; nothing where they can."""
    if not options.out.absolute().parent.is_dir():
        return f"--out must lie in a folder that is there. Received: {options.out}"
    if options.cifar10 is not None and not all(files_of(options.cifar10, part) for part in ("train", "test")):
        return f"--cifar10 must be the folder in which tfds has prepared cifar10. Received: {options.cifar10}"
    if options.seconds is not None and not options.seconds > 0:
        return f"--seconds must be above 0. Received: {options.seconds}"
    return ""


if __name__ == "__main__":
    raise SystemExit(main())
