"""What this machine computes with: found before a framework is imported, and compared with what the framework sees.

A GPU that a framework cannot use is no error to it: it computes on the CPU and says so among other lines.  Here it is
one: `unused` names such an accelerator, and `complaint` says what to install.

References:
    jax, `jax/_src/hardware_utils.py` (the PCI numbers of TPUs, and where NVIDIA's devices appear)
"""

import contextlib
import importlib.metadata
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from tf_simclr.errors import check
from tf_simclr.frameworks import choose_installed, chosen

GOOGLE, NVIDIA = "0x1ae0", "0x10de"
"""Numbers of the vendors of PCI devices; Google's network cards have its, too."""
_TPUS = {
    "0x0027": "TPU v2 or v3",
    "0x005e": "TPU v4",
    "0x0062": "TPU v5p",
    "0x0063": "TPU v5e",
    "0x006f": "TPU v6e",
    "0x0076": "TPU7x",
}
"""PCI device → its name."""
_DISPLAY = "0x03"
"""What the class of a PCI device begins with that is a GPU."""
_GPU_FILES = ("nvidia[0-9]*", "nvidiactl", "dxg")
"""Files that NVIDIA's driver makes, in Docker and in WSL, too."""
_TPU_FILES = ("accel[0-9]*",)
TPU_VARIABLES = ("TPU_NAME", "COLAB_TPU_ADDR", "TPU_ACCELERATOR_TYPE")
"""Environment variables of machines with a TPU, or with the address of one."""
MACHINE = "TF_SIMCLR_MACHINE"
"""Environment variable with another root of `/dev`, `/proc` and `/sys` to look in, by which tests make machines up."""


@dataclass(frozen=True)
class Accelerator:
    """A GPU or TPU.

    Attributes:
        kind: `GPU` or `TPU`.
        name: of the model, as far as the machine tells it: `NVIDIA H100 80GB HBM3`, `TPU v5e`.
        driven: whether its driver is there, without which no framework can reach it.
    """

    kind: str
    name: str
    driven: bool = True


def accelerators(environ: Mapping[str, str] = os.environ) -> list[Accelerator]:
    """The accelerators of this machine, TPUs first, each model once.

    Args:
        environ: environment variables; TF_SIMCLR_MACHINE says where `dev`, `proc` and `sys` are, by default in `/`.
    """
    root = Path(environ.get(MACHINE) or "/")
    dev, proc = root / "dev", root / "proc"
    devices = _pci_devices(root / "sys" / "bus" / "pci" / "devices")
    found = [Accelerator("TPU", _TPUS[one["device"]]) for one in devices if _is_tpu(one)]
    # A TPU may be passed on without its PCI device: then its device files or the environment tell of it.
    if not found and (has(dev, _TPU_FILES) or any(environ.get(name) for name in TPU_VARIABLES)):
        found = [Accelerator("TPU", environ.get("TPU_ACCELERATOR_TYPE") or "TPU")]
    driven = has(dev, _GPU_FILES)
    names = [read(file) for file in sorted(proc.glob("driver/nvidia/gpus/*/information"))]
    models = [match[1].strip() for text in names if (match := re.search(r"Model:\s*(.+)", text))]
    # A GPU whose driver is missing is told of, too, with `driven` False: that is what is to be mended.
    if driven or any(_is_gpu(one) for one in devices):
        found += [Accelerator("GPU", name, driven) for name in dict.fromkeys(models)] or [
            Accelerator("GPU", "NVIDIA GPU", driven)
        ]
    return list(dict.fromkeys(found))


def _pci_devices(place: Path) -> list[dict[str, str]]:
    """Vendor, device and class of each device that Linux lists there."""
    # By `vendor`, which each device has.
    return [
        {name: read(path.parent / name) for name in ("vendor", "device", "class")}
        for path in sorted(place.glob("*/vendor"))
    ]


def _is_tpu(device: Mapping[str, str]) -> bool:
    return device["vendor"] == GOOGLE and device["device"] in _TPUS


def _is_gpu(device: Mapping[str, str]) -> bool:
    return device["vendor"] == NVIDIA and device["class"].startswith(_DISPLAY)


def read(path: Path) -> str:
    """A file of the kernel's, without its line end; nothing where it cannot be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def has(folder: Path, patterns: Sequence[str]) -> bool:
    """Whether a file of one of these names is in a folder."""
    return any(next(folder.glob(pattern), None) is not None for pattern in patterns)


def find_accelerator() -> str:
    """The first kind that there is: a TPU by its name, `GPU` or `CPU`."""
    # TPUs elsewhere, of which only a variable tells, do not decide what this machine computes with.
    environ = {name: value for name, value in os.environ.items() if name not in TPU_VARIABLES}
    first = next((one for one in accelerators(environ) if one.driven), None)
    return "CPU" if first is None else first.name if first.kind == "TPU" else "GPU"


def choose_backend(accelerator: str) -> str:
    """Has Keras compute with JAX on a TPU, elsewhere with TensorFlow or what there is, unless the environment says it.

    Args:
        accelerator: as `find_accelerator` calls it.

    Returns:
        The backend; the environment variable KERAS_BACKEND has it, too.

    Raises:
        InputError: Keras is imported already, with another backend than the TPU needs.
    """
    # A TPU is reached through JAX; elsewhere what Keras' own file says, or the first framework that is installed.
    if accelerator.startswith("TPU") and not os.environ.get("KERAS_BACKEND"):
        os.environ["KERAS_BACKEND"] = "jax"
    choose_installed()
    backend = os.environ["KERAS_BACKEND"] = chosen()
    keras = sys.modules.get("keras")
    used = backend if keras is None else keras.config.backend()
    check(used == backend, "the backend must be chosen before Keras is imported; restart Python", imported=used)
    return backend


def hidden(kind: str, *, environ: Mapping[str, str] = os.environ) -> str:
    """The environment variable by which a person has hidden accelerators of a kind on purpose; nothing if none has.

    Example:
        >>> hidden("GPU", environ={"CUDA_VISIBLE_DEVICES": "-1"}), hidden("GPU", environ={})
        ('CUDA_VISIBLE_DEVICES=-1', '')
    """
    cuda = environ.get("CUDA_VISIBLE_DEVICES")
    # The spellings by which CUDA sees no device.
    if kind == "GPU" and cuda is not None and cuda.strip() in ("", "-1", "none", "NoDevFiles"):
        return f"CUDA_VISIBLE_DEVICES={cuda}"
    platforms = environ.get("JAX_PLATFORMS", "")
    if platforms and not {"GPU": {"cuda", "gpu"}, "TPU": {"tpu"}}[kind] & {*platforms.split(",")}:
        return f"JAX_PLATFORMS={platforms}"
    return ""


def seen(backend: str) -> list[str]:
    """The devices that an imported framework computes on: `CPU`, `GPU`, `TPU`, one each.  It looks for them now."""
    if backend == "tensorflow":
        import tensorflow

        return [device.device_type for device in tensorflow.config.list_physical_devices()]
    if backend == "jax":
        import jax

        kinds = {"cpu": "CPU", "tpu": "TPU"}
        return [kinds.get(device.platform, "GPU") for device in jax.devices()]
    import torch

    return ["GPU"] * torch.cuda.device_count() or ["CPU"]


def unused(backend: str, devices: Sequence[str], *, environ: Mapping[str, str] = os.environ) -> Accelerator | None:
    """An accelerator of this machine that a framework does not see, though nobody has hidden it; None for none.

    Where the framework computes on one accelerator, the others are its own business.

    Args:
        backend: the framework.
        devices: what it sees, as `seen`.
        environ: as in `accelerators`; a TPU that they name is looked for when training begins, with an error of its
            own.
    """
    if any(device != "CPU" for device in devices):
        return None
    # The variable is then no idle accelerator: TensorFlow would have reached it.
    if backend == "tensorflow":  # it connects to a TPU of that address
        environ = {name: value for name, value in environ.items() if name not in TPU_VARIABLES}
    return next((one for one in accelerators(environ) if not hidden(one.kind, environ=environ)), None)


_NVIDIA_LIBRARIES = ("nvidia-cudnn-cu12", "nvidia-cudnn-cu13")
"""Packages that come with every pip install of CUDA."""


def cure(backend: str, accelerator: Accelerator) -> str:
    """What to do so that a framework can use an accelerator."""
    # In the order of what must be right first: the driver, then libraries, then the framework's own build.
    if accelerator.kind == "TPU":
        jax = "pip install 'tf-simclr[tpu]'"
        return jax if backend == "jax" else f"{jax}, then set KERAS_BACKEND=jax: TPUs are reached through JAX"
    if not accelerator.driven:
        return (
            "install NVIDIA's driver, so that `nvidia-smi` lists the GPU; a container must be started with it "
            "(docker run --gpus all)"
        )
    if backend == "torch":
        return "install a PyTorch for CUDA (pytorch.org, Get started), not the CPU's"
    has_libraries = any(map(version, _NVIDIA_LIBRARIES))
    if has_libraries and (backend == "tensorflow" or version("jax-cuda12-plugin") or version("jax-cuda13-plugin")):
        return (
            "the CUDA libraries are installed but cannot be loaded; compare the driver's version (nvidia-smi) with "
            "what they need, and leave no other CUDA in LD_LIBRARY_PATH"
        )
    return f"pip install 'tf-simclr[{'gpu' if backend == 'tensorflow' else 'gpu-jax'}]'"


def version(package: str) -> str:
    """The version of an installed package; nothing where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


NAMES = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}


def complaint(backend: str, accelerator: Accelerator, *, noise: str = "") -> str:
    """What to tell somebody whose accelerator lies idle, a line a thought.

    Args:
        backend: the framework that does not see it.
        accelerator: which one.
        noise: what the framework wrote while it looked for devices; what it says of this is repeated.
    """
    name = NAMES[backend]
    lines = [
        f"this machine has a {accelerator.kind} ({accelerator.name}), but {name} cannot use it: "
        "everything is computed on the CPU",
        f"to use it: {cure(backend, accelerator)}",
        *(f"{name} said: {line}" for line in reasons(noise)),
        "`tf-simclr doctor` looks closer; CUDA_VISIBLE_DEVICES=-1 says that the CPU is meant"
        if accelerator.kind == "GPU"
        else "`tf-simclr doctor` looks closer",
    ]
    return "\n".join(f"!! {line}" for line in lines)


# Beginnings of log lines as TensorFlow, XLA and JAX write them: date, letter of the level, source and line.
_STAMP = re.compile(r"^(?:\d{4}-\d\d-\d\d [\d:.]+: )?[IWEF]?(?:\d{4})? ?[\d:. ]*\S+\.(?:cc|h|py):\d+\] ?")
_TELLING = re.compile(r"cuda|cuinit|cudnn|cublas|nccl|dlopen|\bgpu\b|\btpu\b|libtpu|pjrt|driver|nvidia", re.IGNORECASE)
_DULL = re.compile(r"^(?:WARNING: All log messages|Unable to register|computation_placer|TF-TRT)", re.IGNORECASE)


def reasons(noise: str, *, most: int = 4) -> list[str]:
    """The lines of a framework's log that tell why it has no accelerator, without their time stamps, each once.

    Example:
        >>> reasons("2026-01-01 10:00:00.1: W x/gpu_device.cc:2343] Cannot dlopen some GPU libraries.\\nAVX2 is there")
        ['Cannot dlopen some GPU libraries.']
    """
    # 1. Without stamps equal lines are equal. 2. Only what tells of devices. 3. Each once.
    lines = [_STAMP.sub("", line).strip() for line in noise.splitlines()]
    told = [line for line in lines if _TELLING.search(line) and not _DULL.match(line)]
    return [line if len(line) <= 300 else f"{line[:300]}…" for line in dict.fromkeys(told)][:most]


class _Noise:
    """What was written to standard error within `quietly`, after it."""

    text = ""


@contextlib.contextmanager
def quietly() -> Iterator[_Noise]:
    """Keeps what native libraries write to standard error out of the user's way, for whom wants to look at it.

    Python's own standard error is the same file, and what Python writes there meanwhile is kept as well.  After an
    error everything is written where it belongs: it may be the reason.  What a TensorFlow that is loaded within notes
    later, such as that XLA compiles, is left out unless the environment asks for it; its warnings are not.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")  # read when it is loaded
    noise = _Noise()
    with _aside() as file:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.flush()
        # Native libraries write to descriptor 2 and know nothing of
        # `sys.stderr`: the descriptor itself is led into a file, and back.
        stderr = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield noise
        except Exception:
            # Of an error everything is shown: the reason may be in it.
            noise.text = _content(file)
            with contextlib.suppress(OSError):
                os.write(stderr, noise.text.encode())
            raise
        finally:
            with contextlib.suppress(OSError, ValueError, AttributeError):
                sys.stderr.flush()
            noise.text = noise.text or _content(file)
            os.dup2(stderr, 2)
            os.close(stderr)


def settle_tensorflow() -> None:
    """Has TensorFlow, where it is loaded, look for GPUs, which is when it writes most; of its warnings none is news."""
    if (tensorflow := sys.modules.get("tensorflow")) is not None:  # what only lists does not load it
        tensorflow.config.list_physical_devices()  # logical devices are the task's to make
        tensorflow.get_logger().setLevel("ERROR")


def _aside() -> BinaryIO:
    """A file that nobody else sees: in memory where the system has that, as a disk may be full."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("noise"), "w+b")
    return cast(BinaryIO, tempfile.TemporaryFile())


def _content(file: Any) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")
