"""Numbers of the reference implementation, and the formula that fills its weights.

The whole set lies beside the project where it is developed; `tests/goldens` holds a small part of it (files of fewer
cases under the same names), so that a plain clone proves something too.  What the set's README calls a fact is quoted
as "fact N".
"""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "golden"
OWN = ROOT / "tests" / "goldens"


def path(name: str) -> Path:
    """The golden file of this name; skips the test where it is absent."""
    for folder in (SHARED, OWN):
        if (folder / name).exists():
            return folder / name
    pytest.skip("the whole set of goldens is not part of a plain clone")


def arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(path(name)) as file:
        return {key: file[key] for key in file.files}


def data(name: str):
    return json.loads(path(name).read_text())


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
