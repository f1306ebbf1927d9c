"""JAX and PyTorch, where TensorFlow cannot be imported, train as TensorFlow does: losses, gradients, five steps.

Each backend is a process of its own, since Keras has one.  With the optimizer `momentum` the first step's accumulators
are the gradients.
"""

import importlib.util
import inspect
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from tests import golden
from tests.backends import methods
from tests.backends.blocked import NO_TENSORFLOW
from tf_simclr import losses, optimizers
from tf_simclr.errors import InputError

EQUAL = 1e-10
"""Of the largest magnitude of each tensor, in float64; there was 6e-12, in accumulators after five steps."""
METHODS = ("losses", "simclr lars", "simclr momentum", "moco momentum", "classifier lars", "distiller lars")
LOSSES = ("DCL", "GeneralizedContrastive", "NTLogistic", "MarginTriplet", "Hadsell", "SupCon")
OPTIMIZERS = {"lars": EQUAL, "momentum": EQUAL, "lamb": EQUAL, "adamw": EQUAL, "adam": 3e-4, "sgd": 1e-5}
"""What may lie between two backends.  On TensorFlow alone Keras' own round constants to float32: 1 - 0.999 is off by
4.7e-5, of which Adam makes 1.4e-4 in its second moments within five steps; SGD has 1.1e-6."""
MORE = (
    *("resnet lars", "moco lars", "classifier momentum", "distiller momentum"),
    *(f"simclr {name}" for name in OPTIMIZERS if f"simclr {name}" not in METHODS),
    *(f"simclr momentum {loss}" for loss in LOSSES),
    'simclr momentum NTXent {"block_size":4}',
    'simclr momentum DCL {"sigma":0.5}',
)
OTHERS = [
    pytest.param(name, marks=pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"needs {name}"))
    for name in ("jax", "torch")
]


def run(module: str, *words, backend: str, blocked: str | None = None, **environment) -> subprocess.CompletedProcess:
    """A module on a backend, in a process that cannot import TensorFlow unless that is the backend."""
    blocked = blocked or ("-" if backend == "tensorflow" else NO_TENSORFLOW)
    return subprocess.run(
        [sys.executable, "-m", "tests.backends.blocked", blocked, module, *map(str, words)],
        cwd=golden.ROOT,
        env=os.environ | {"KERAS_BACKEND": backend} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def trained(folder, kinds, backend: str) -> dict[str, np.ndarray]:
    file = folder / f"{backend}.npz"
    done = run("tests.backends.methods", file, *kinds, backend=backend)
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(file) as stored:
        return dict(stored)


def assert_equal(found: dict, expected: dict) -> None:
    """Every variable, metric, feature, loss and gradient is the same."""
    assert found.keys() == expected.keys()
    worst = {}
    for name, value in expected.items():
        limit = next((limit for word, limit in OPTIMIZERS.items() if word in name.split("|")[0].split()), EQUAL)
        assert np.isfinite(value).all(), name
        worst[name] = np.abs(found[name] - value).max() / max(np.abs(value).max(), 1e-30) / limit
    name = max(worst, key=worst.get)
    assert worst[name] < 1, (name, worst[name])


def test_every_public_loss_and_optimizer_is_compared():
    """Whoever adds one adds it here, too."""
    classes = {name for name in losses.__all__ if inspect.isclass(getattr(losses, name))} - {"ContrastiveLoss"}
    functions = {name for name in losses.__all__ if not inspect.isclass(getattr(losses, name))}
    assert classes == {*LOSSES, "NTXent", "InfoNCE"}
    assert functions - {"contrastive_metrics", "contrastive_accuracy"} <= {name.split(",")[0] for name in methods.CALLS}
    with pytest.raises(InputError) as refused:
        optimizers.build("none", 0.1)
    assert set(re.findall(r"\w+", str(refused.value).split("one of")[1].split(".")[0])) == set(OPTIMIZERS)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("tensorflow"), METHODS, "tensorflow")


@pytest.mark.parametrize("backend", OTHERS)
def test_methods_train_as_on_tensorflow(backend, expected, tmp_path):
    found = trained(tmp_path, METHODS, backend)
    assert_equal(found, expected)
    moved = [key for key in found if key.startswith("simclr lars|5/model/") and "kernel" in key]
    assert moved
    for key in moved:
        assert not np.allclose(found[key], found[key.replace("|5/", "|1/")])


@pytest.fixture(scope="module")
def more(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("tensorflow"), MORE, "tensorflow")


@pytest.mark.slow
@pytest.mark.parametrize("backend", OTHERS)
def test_losses_optimizers_and_a_resnet_train_as_on_tensorflow(backend, more, tmp_path):
    assert_equal(trained(tmp_path, MORE, backend), more)


@pytest.mark.slow
def test_pieces_of_a_batch_train_as_on_tensorflow_and_are_refused_on_pytorch(tmp_path):
    pytest.importorskip("jax", reason="needs jax")
    (tmp_path / "one").mkdir()
    kinds = ("pieces lars",)
    assert_equal(trained(tmp_path, kinds, "jax"), trained(tmp_path / "one", kinds, "tensorflow"))
    done = run("tests.backends.methods", tmp_path / "none.npz", *kinds, backend="torch")
    assert done.returncode != 0
    assert "microbatch_size and remat need KERAS_BACKEND=tensorflow or jax" in done.stderr
