"""Numbers of the reference implementation, and the formula that fills its weights.

All of them lie in `tests/goldens`, packed by `xz`; the README there says how each was made.  Tests name a file without
`.xz`.  Inputs that are not part of the repository (data sets, files by others) lie in `shared/` beside the checkout
where there is one: `beside` gives their path.
"""

import functools
import io
import json
import lzma
import zlib
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
GOLDENS = ROOT / "tests" / "goldens"
OTHERS = {
    "data/tfds": "a TensorFlow Datasets folder of CIFAR-10's first 20,000 training and 5,000 test images",
    "data/photos": "a folder of ImageNet's JPEGs",
    "data/nih_cxr": "NIH ChestX-ray14's csv and 693 of its images",
    "real": "the SavedModels of TensorFlow Serving's test data (tensorflow/serving, commit 9d981c5c27)",
}
"""What some tests read and the repository does not hold: its place in `shared` → what it is."""


def content(name: str) -> bytes:
    """A golden file as it was before it was packed."""
    return lzma.decompress((GOLDENS / f"{name}.xz").read_bytes())


@functools.lru_cache(maxsize=8)  # up to 3 MB each; parametrised tests ask for the same file again and again
def _npz(name: str) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(content(name))) as file:
        stored = {key: file[key] for key in file.files}
    for array in stored.values():
        array.flags.writeable = False  # one test must not change what the next one compares with
    return stored


def arrays(name: str) -> dict[str, np.ndarray]:
    """The arrays of a golden `.npz`; they cannot be written to."""
    return dict(_npz(name))


def data(name: str):
    """What a golden `.json` holds."""
    return json.loads(content(name))


def beside(name: str) -> Path:
    """`shared/<name>` beside the checkout; skips the test, and says what would make it run, where it is absent."""
    path = ROOT.parent / "shared" / name
    if not path.exists():
        pytest.skip(f"runs with {OTHERS[name]} in ../shared/{name} (not ours to publish)")
    return path


def fill(name: str, shape) -> np.ndarray:
    """The weight of a TF1 variable, by formula (goldens' README, Section 1)."""
    name = name.split(":")[0]
    last = name.rsplit("/", 1)[-1]
    rs = np.random.RandomState(zlib.crc32(name.encode()))
    if last == "kernel":
        a = rs.standard_normal(shape)
        a -= a.mean(axis=tuple(range(len(shape) - 1)))
        a *= np.sqrt(2.0 / np.prod(shape[:-1]))
    elif last == "gamma":
        a = rs.uniform(0.5, 1.0, shape)
    elif last == "moving_variance":
        a = rs.uniform(0.5, 1.5, shape)
    elif last in ("beta", "moving_mean", "bias"):
        a = rs.standard_normal(shape) * 0.1
    elif last in ("Momentum", "Adam"):
        a = rs.standard_normal(shape) * 1e-3
    elif last == "Adam_1":
        a = rs.uniform(0.0, 1e-6, shape)
    else:
        raise KeyError(name)
    return np.asarray(a, np.float32)


def images(n: int, size: int, seed: int = 0, channels: int = 3) -> np.ndarray:
    return np.random.RandomState(seed).uniform(0, 1, (n, size, size, channels)).astype(np.float32)


def sample(tensor, count: int = 512) -> np.ndarray:
    """The elements that the goldens keep of a large tensor."""
    flat = np.asarray(tensor).reshape(-1)
    return flat[(np.arange(count, dtype=np.int64) * 1000003) % flat.size]
