"""`tf-simclr doctor`: what this machine can train with, and what keeps it from doing so.

Each framework is asked in a process of its own: one that crashes, hangs or is half installed is a line of the report,
not the end of it.  Nothing is imported here that a broken installation might lack.
"""

import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import tf_simclr
from tf_simclr.config import Doctor
from tf_simclr.errors import InputError
from tf_simclr.files.contents import cache_folder
from tf_simclr.frameworks import BACKENDS, check_chosen, choose_installed, chosen, installed
from tf_simclr.machine.accelerators import NAMES, Accelerator, accelerators, cure, hidden, reasons, unused, version
from tf_simclr.terminal import write

_PACKAGES = ("keras", "numpy", "tensorflow-datasets", "scikit-learn", "pydicom", "onnxruntime", "huggingface-hub")
"""Packages whose versions are told besides the frameworks'."""
_LOOK = """
import json, sys
from tf_simclr.machine.accelerators import seen
import {backend}
print("FOUND" + json.dumps({{"version": {backend}.__version__, "devices": seen("{backend}")}}))
"""
"""A program that loads a framework and tells what it sees."""
TRAIN = "from tf_simclr.commands.doctor import _two_steps; _two_steps()"
_LEAST = 1e9
"""Bytes that should be free on a disk: a run's checkpoints take some hundred megabytes."""


def run(config: Doctor) -> None:
    """Looks, tells, and ends with exit code 1 where something is in the way.

    Raises:
        SystemExit: with that code.
    """
    choose_installed()
    found = look(config)
    write((json.dumps(found, indent=2) if config.json else text(found)) + "\n")
    if found["problems"]:
        raise SystemExit(1)


def look(config: Doctor) -> dict[str, Any]:
    """Everything that the report says, as JSON types."""
    # What Keras would take, were it loaded here.
    backend = chosen()
    there = [name for name in BACKENDS if installed(name)]
    # Each framework in a process of its own, as one that crashes or hangs is an answer, too.
    with ThreadPoolExecutor() as pool:
        asked = {name: pool.submit(ask, _LOOK.format(backend=name), seconds=config.seconds) for name in there}
        frameworks: dict[str, Any] = {name: answer.result() for name, answer in asked.items()}
    machine = accelerators()
    found: dict[str, Any] = {
        "tf_simclr": tf_simclr.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "accelerators": [
            {"kind": one.kind, "name": one.name, "driven": one.driven, "hidden": hidden(one.kind)} for one in machine
        ],
        "driver": _driver() if any(one.kind == "GPU" and one.driven for one in machine) else "",
        "backend": backend,
        "settings": _settings(),
        "frameworks": frameworks,
        "packages": {name: known for name in _PACKAGES if (known := version(name))},
        "disk": {str(place): shutil.disk_usage(place).free for place in places()},
        "training": ask(TRAIN, seconds=config.seconds)
        if config.train and "version" in frameworks.get(backend, {})
        else {},
    }
    return found | {"problems": problems(found, machine)}


def ask(program: str, *, seconds: float) -> dict[str, Any]:
    """What a program in a process of its own has found, or why it has not."""
    command = [sys.executable, "-c", program]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=seconds, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return {"error": f"it gave no answer in {seconds:g} s"}
    except OSError as error:  # no process can be started: memory, rights
        return {"error": str(error)}
    # Frameworks write much before and behind: the answer has a mark.
    answer = next((line.removeprefix("FOUND") for line in done.stdout.splitlines() if line.startswith("FOUND")), None)
    log = {"log": told} if (told := reasons(done.stderr)) else {}
    if answer is not None and done.returncode == 0:
        return {**json.loads(answer), **log}
    last = next((line for line in reversed(done.stderr.strip().splitlines()) if line.strip()), "")
    end = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
    return {"error": f"{last or 'it wrote nothing'} ({end})", **log}


def _settings() -> str:
    """What is wrong with Keras' settings, by the environment or its own file; nothing where all is well."""
    try:
        check_chosen()
    except InputError as error:
        return str(error)
    return ""


def _driver() -> str:
    """The version of NVIDIA's driver as `nvidia-smi` tells it; nothing where that cannot be asked."""
    command = ["nvidia-smi", "--query-gpu=driver_version,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout.strip() else ""


def places() -> list[Path]:
    """Folders that commands write to by default, as far as they exist: this one, the cache, the temporary one.

    Of several on one disk the first.
    """
    wanted = []
    for place in (Path.cwd, cache_folder, lambda: Path(tempfile.gettempdir())):
        # This folder may be removed, the home unknown, the temporary folders full: their disks cannot be told.
        with contextlib.suppress(OSError, InputError):
            wanted.append(place())
    there = [next(one for one in (place, *place.parents) if one.is_dir()) for place in wanted]
    # One folder a disk.
    return list({place.stat().st_dev: place for place in reversed(there)}.values())[::-1]


def problems(found: dict[str, Any], machine: list[Accelerator]) -> list[str]:
    """What is in the way of a training, a line each, with what to do."""
    backend, lines = found["backend"], []
    lines += [found["settings"]] if found.get("settings") else []
    if backend in BACKENDS and backend not in found["frameworks"]:
        lines.append(f"{NAMES[backend]} is not installed: pip install 'tf-simclr[{backend}]'")
    for name, one in found["frameworks"].items():
        if "error" in one:
            lines.append(f"{NAMES[name]} cannot be loaded: {one['error']}")
    devices = found["frameworks"].get(backend, {}).get("devices")
    # An accelerator that the machine has and the framework does not see.
    idle = unused(backend, devices) if devices is not None else None
    if idle is not None:
        lines.append(f"{NAMES[backend]} cannot use the {idle.kind} ({idle.name}): {cure(backend, idle)}")
    if "error" in found["training"]:
        lines.append(f"the training of two steps failed: {found['training']['error']}")
    elif any(kind != "CPU" for kind in devices or []) and found["training"].get("device") == "CPU":
        lines.append("the training of two steps ran on the CPU although there is an accelerator")
    lines += [
        f"{place} has {free / 1e9:.1f} GB left; checkpoints need more than {_LEAST / 1e9:g}"
        for place, free in found["disk"].items()
        if free < _LEAST
    ]
    return lines


def text(found: dict[str, Any]) -> str:
    """The report as a person reads it."""
    lines = [
        ("tf_simclr", f"{found['tf_simclr']} on Python {found['python']}, {found['platform']}, {found['cores']} cores"),
        ("machine", ", ".join(map(_named, found["accelerators"])) or "no GPU or TPU, as far as its files tell"),
    ]
    lines += [("driver", found["driver"])] if found["driver"] else []
    for name in BACKENDS:
        one = found["frameworks"].get(name)
        lines.append((name, "not installed" if one is None else _seen_by(one)))
        lines += [("", f"said: {line}") for line in (one or {}).get("log", []) if found["accelerators"]]
    lines.append(("keras", f"{found['packages'].get('keras', 'not installed')}, computes with {found['backend']}"))
    rest = [f"{name} {known}" for name, known in found["packages"].items() if name != "keras"]
    lines.append(("packages", ", ".join(rest)))
    lines += [("disk", f"{free / 1e9:,.1f} GB free in {place}") for place, free in found["disk"].items()]
    if "seconds" in found["training"]:
        one = found["training"]
        losses = " and ".join(f"{loss:.3f}" for loss in one["losses"])
        lines.append(("training", f"two steps on {one['device']} in {one['seconds']:.1f} s, losses {losses}"))
    lines += [("!!", line) for line in found["problems"]] or [("", "nothing is in the way of a training")]
    return "\n".join(f"{name:<12}{line}" for name, line in lines)


def _named(one: dict[str, Any]) -> str:
    """An accelerator in words."""
    notes = ["no driver"] * (not one["driven"]) + [f"hidden by {one['hidden']}"] * bool(one["hidden"])
    return f"{one['kind']}: {one['name']}" + (f" ({', '.join(notes)})" if notes else "")


def _seen_by(one: dict[str, Any]) -> str:
    """What a framework sees, in words."""
    if "error" in one:
        return one["error"]
    counts = [f"{one['devices'].count(kind)} {kind}" for kind in dict.fromkeys(one["devices"])]
    return f"{one['version']}: {', '.join(counts)}"


def _two_steps() -> None:
    """Trains SimCLR's smallest ResNet for two steps as every training does, and prints what came of it."""
    import time

    import keras
    import numpy as np

    from tf_simclr import LARS, NTXent, SimCLR, resnet
    from tf_simclr.machine.accelerators import seen

    began = time.monotonic()
    keras.utils.set_random_seed(0)
    model = SimCLR(resnet(18))
    model.compile(LARS(learning_rate=0.3), loss=NTXent(temperature=0.5))
    views = np.random.default_rng(0).uniform(size=(8, 2, 32, 32, 3)).astype("float32")
    losses = [float(model.train_on_batch(views, return_dict=True)["loss"]) for _ in range(2)]
    kinds = seen(keras.config.backend())
    device = next((kind for kind in kinds if kind != "CPU"), "CPU")
    answer = {"losses": losses, "seconds": round(time.monotonic() - began, 1), "device": device}
    write(f"FOUND{json.dumps(answer)}\n")
    if not np.isfinite(losses).all():
        raise SystemExit(f"the losses must be finite, but are {losses}")
