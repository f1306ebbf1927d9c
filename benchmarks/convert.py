"""Time and peak memory of `converters.tf2torch` beside copying the file and beside the usual script.

Claims, for the biggest official network (ResNet-152 3x SK, with all heads) whose checkpoint also holds optimizer slots:
peak memory at most 1.3 × the weights written plus the bare imports; wall time within 2.5 × `cp` of as many bytes on the
same disk plus start-up (a smaller file, below 1 GB, is copied before Python has begun, and shows its time alone).  And
for r50_1x: from the command to the verified file in a third of the time of what people write, with its imports –
`tf.train.load_checkpoint`, transpose, `torch.save` – which verifies nothing.

All commands take turns; the table shows medians.  Each starts alike: nothing is left to be written to the disk, and
what it writes is not there, as a file that is overwritten would lend `cp` its memory.  `cp` ends when its bytes are in
memory, and so does ours; the sources are in memory as far as the system has kept them.  Processor seconds tell more
than wall time on a machine that others use, too.

    python benchmarks/convert.py                      the biggest network: 7 GB of checkpoint, two times 3.5 GB written
    python benchmarks/convert.py --depth 152 --width 2 --runs 5
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro

from converters.names import walk as layers
from converters.names.naming import TF1
from converters.tensorflow.folders import write_tf1
from tf_simclr.models.architecture import Architecture

MEMORY = 1.3
TIME = 2.5
LARGE = 10**9
"""Bytes of a file from which on its time says how fast bytes are written."""
VERIFIED = 1 / 3

IMPORTS = "import converters.command, converters.conversion, converters.tensorflow.source"

PEER = """
import sys, numpy as np, tensorflow as tf, torch
reader = tf.train.load_checkpoint(sys.argv[1])
names = [n for n in reader.get_variable_to_shape_map() if not n.endswith("/Momentum") and n != "global_step"]
state = {}
for name in names:
    array = reader.get_tensor(name)
    axes = {4: (3, 2, 0, 1), 2: (1, 0)}.get(array.ndim)
    state[name] = torch.from_numpy(np.ascontiguousarray(array.transpose(axes)) if axes else array)
torch.save(state, sys.argv[2])
"""


@dataclass(frozen=True)
class Options:
    """What to measure."""

    depth: int = 152
    width: int = 3
    sk_ratio: float = 0.0625
    slots: bool = True
    """Whether the checkpoint holds Momentum slots, which are not wanted."""
    runs: int = 3
    """Of each, interleaved; medians are shown."""
    folder: Path | None = None
    """Where to write; by default the system's place for temporary files."""


class Cost(NamedTuple):
    """What a process took: wall and processor seconds, bytes of peak resident memory."""

    wall: float
    processor: float
    peak: float


def tensors(options: Options):
    """Pseudo-random weights, cheaply: values do not matter to the time."""
    heads = {"proj_head_mode": "nonlinear", "num_proj_layers": 3, "num_classes": 1000}
    network = Architecture(options.depth, options.width, options.sk_ratio, **heads)
    base = np.random.default_rng(0).standard_normal(1 << 22).astype(np.float32)
    positive = np.abs(base) + np.float32(0.5)
    table, shapes = TF1.table(network), layers.weights(network)
    for hub, key in table.items():
        array = np.resize(positive if hub.endswith(("gamma", "moving_variance")) else base, shapes[hub])
        yield key, array
        if options.slots and "moving_" not in hub and "logits" not in hub:
            yield key + "/Momentum", array


class Run(NamedTuple):
    """A command and the file that it writes, if any."""

    command: list[str]
    writes: Path | None = None


def measure(command: list[str]) -> Cost:
    os.sync()
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed: {' '.join(command)}")
    return Cost(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024.0)


def medians(turns: dict[str, Run], runs: int) -> dict[str, Cost]:
    """Runs the commands in turns, prints the table, and gives each one's medians."""
    found: dict[str, list[Cost]] = {name: [] for name in turns}
    for _ in range(runs):
        for name, run in turns.items():
            found[name].append(measure(run.command))
            if run.writes:
                run.writes.unlink()
    sys.stdout.write(f"{'':24}{'wall s':>8}{'spread':>16}{'processor s':>13}{'peak GB':>9}\n")
    middle = {name: Cost(*map(statistics.median, zip(*costs, strict=True))) for name, costs in found.items()}
    for name, cost in middle.items():
        spread = "{:.2f}–{:.2f}".format(*(pick(c.wall for c in found[name]) for pick in (min, max)))
        sys.stdout.write(f"{name:24}{cost.wall:8.2f}{spread:>16}{cost.processor:13.2f}{cost.peak / 1e9:9.2f}\n")
    return middle


def claim(name: str, value: float, limit: float) -> bool:
    """Prints whether a claim holds."""
    verdict = "holds" if value <= limit else "DOES NOT HOLD"
    sys.stdout.write(f"{name}: {value / limit:.2f} of what is allowed: {verdict}\n")
    return value <= limit


def convert(source: Path, target: Path, *options: str) -> Run:
    return Run([sys.executable, "-m", "converters.tf2torch", str(source), str(target), *options], target)


def peer(source: Path, target: Path) -> Run:
    return Run([sys.executable, "-c", PEER, str(source / "model.ckpt-0"), str(target)], target)


def streams(folder: Path, options: Options) -> bool:
    """The biggest network, not verified: memory and time."""
    source, copied = folder / "checkpoint_folder", folder / "copied.pth"
    write_tf1(source, tensors(options))
    measure(convert(source, copied, "--no-verify").command)  # so that `cp` has the bytes to copy
    size = copied.stat().st_size
    sys.stdout.write(f"ResNet-{options.depth} {options.width}x: {size / 1e9:.2f} GB written\n")
    turns = {
        "imports": Run([sys.executable, "-c", IMPORTS]),
        "cp": Run(["cp", str(copied), str(folder / "copy")], folder / "copy"),
        "tf2torch, .pth": convert(source, folder / "out.pth", "--no-verify"),
        "tf2torch, .safetensors": convert(source, folder / "out.safetensors", "--no-verify"),
        "tf + torch script": peer(source, folder / "peer.pth"),
    }
    found = medians(turns, options.runs)
    start, copy = found["imports"], found["cp"]
    held = []
    for name in ("tf2torch, .pth", "tf2torch, .safetensors"):
        held.append(claim(f"{name}, memory", found[name].peak, MEMORY * size + start.peak))
        if size >= LARGE:
            held.append(claim(f"{name}, wall time", found[name].wall, TIME * copy.wall + start.wall))
        ratio = (found[name].processor - start.processor) / copy.processor
        sys.stdout.write(f"{name}: {ratio:.1f} × cp's processor time, on two threads\n")
    return all(held)


def verified(folder: Path, options: Options) -> bool:
    """r50_1x from command to verified file."""
    source = folder / "r50"
    write_tf1(source, tensors(Options(depth=50, width=1, sk_ratio=0, slots=options.slots)))
    sys.stdout.write("ResNet-50 1x, verified\n")
    ours = convert(source, folder / "r50.pth", "--engine", "numpy")  # importing PyTorch would take most of the time
    turns = {"tf2torch": ours, "tf + torch script": peer(source, folder / "peer.pth")}
    found = medians(turns, options.runs)
    return claim("verified .pth, wall time", found["tf2torch"].wall, VERIFIED * found["tf + torch script"].wall)


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    folder = Path(tempfile.mkdtemp(prefix="convert-", dir=options.folder))
    try:
        held = [verified(folder, options), streams(folder, options)]
    finally:
        shutil.rmtree(folder)
    raise SystemExit(0 if all(held) else 1)


if __name__ == "__main__":
    main()
