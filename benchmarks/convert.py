"""Time and peak memory of `converters.tf2torch` beside copying the file and the usual script.

Claims, for the biggest official network (ResNet-152 3x SK, with all heads) whose checkpoint also holds optimizer slots:
peak memory at most 1.3 × the weights written plus the bare imports; wall time within 2.5 × `cp` of as many bytes plus
start-up.  The peer is what people write: `tf.train.load_checkpoint`, transpose, `torch.save`.

    python benchmarks/convert.py                      the biggest network: 7 GB of checkpoint, 3.5 GB written
    python benchmarks/convert.py --depth 50 --width 1 --sk-ratio 0 --runs 5
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

import numpy as np
import tyro

from converters import layers
from converters.checkpoints import write_tf1
from converters.namings import TF1
from tf_simclr.models.architecture import Architecture

MEMORY = 1.3
TIME = 2.5

IMPORTS = "import torch, converters.conversion, converters.tensorflow_files, converters.torch_files"

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


def architecture(options: Options) -> Architecture:
    heads = {"proj_head_mode": "nonlinear", "num_proj_layers": 3, "num_classes": 1000}
    return Architecture(options.depth, options.width, options.sk_ratio, **heads)


def tensors(options: Options):
    """Pseudo-random weights, cheaply: values do not matter to the time."""
    base = np.random.default_rng(0).standard_normal(1 << 22).astype(np.float32)
    table, shapes = TF1.table(architecture(options)), layers.weights(architecture(options))
    for hub, key in table.items():
        array = np.resize(base, shapes[hub])
        yield key, array
        if options.slots and "moving_" not in hub and "logits" not in hub:
            yield key + "/Momentum", array


def measure(*command: str) -> tuple[float, float]:
    """Wall time in seconds and peak resident memory in bytes of a process."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed: {' '.join(command)}")
    return time.perf_counter() - start, usage.ru_maxrss * 1024.0


def commands(folder: Path) -> dict[str, list[str]]:
    python, source = sys.executable, folder / "checkpoint_folder"
    target = str(folder / "out.pth")
    return {
        "imports": [python, "-c", IMPORTS],
        "cp": ["cp", target, str(folder / "copy")],
        "converters": [python, "-m", "converters.tf2torch", str(source), target, "--no-verify"],
        "tf + torch script": [python, "-c", PEER, str(source / "model.ckpt-0"), str(folder / "peer.pth")],
    }


def run(options: Options) -> bool:
    """Measures, prints the table, and says whether both claims hold."""
    folder = Path(tempfile.mkdtemp(prefix="convert-"))
    try:
        write_tf1(folder / "checkpoint_folder", tensors(options))
        (folder / "out.pth").touch()
        found: dict[str, list[tuple[float, float]]] = {}
        measure(*commands(folder)["converters"])  # so that `cp` has the bytes to copy, and files are in the cache
        size = (folder / "out.pth").stat().st_size
        for _ in range(options.runs):
            for name, command in commands(folder).items():
                found.setdefault(name, []).append(measure(*command))
        return show(found, size)
    finally:
        shutil.rmtree(folder)


def show(found: dict[str, list[tuple[float, float]]], size: int) -> bool:
    """Prints medians and whether the claims hold."""
    medians = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in found.items()}
    sys.stdout.write(f"{size / 1e9:.2f} GB written\n{'':20}{'seconds':>10}{'spread':>16}{'peak GB':>10}\n")
    for name, (seconds, peak) in medians.items():
        times = [row[0] for row in found[name]]
        spread = f"{min(times):.2f}–{max(times):.2f}"
        sys.stdout.write(f"{name:20}{seconds:10.2f}{spread:>16}{peak / 1e9:10.2f}\n")
    (start, bare), (copy, _), (ours, peak) = (medians[name] for name in ("imports", "cp", "converters"))
    limits = {"memory": (peak, MEMORY * size + bare), "time": (ours, TIME * copy + start)}
    for name, (value, limit) in limits.items():
        verdict = "holds" if value <= limit else "DOES NOT HOLD"
        sys.stdout.write(f"{name}: {value / limit:.2f} of what is allowed: {verdict}\n")
    return all(value <= limit for value, limit in limits.values())


if __name__ == "__main__":
    raise SystemExit(0 if run(tyro.cli(Options, description=__doc__)) else 1)
