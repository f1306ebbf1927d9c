"""JAX trains the same `SimCLR` by the same `fit`, on one device and on two, from the same `tf.data`.

JAX takes its devices from the environment when it starts: each run is a process of its own.
"""

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import golden, tiny_runs
from tests.replicas import tiny, worker
from tf_simclr.run_folder import RunFolder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs the `jax` extra"),
]
SAME, LOGS = 1e-4, 1e-5
"""Of the largest magnitude, after a step in float32: there was 3e-5, in the accumulators of momentum; and of the losses
and metrics, 1e-6."""
EXACT = 1e-10
"""Likewise after five steps in float64.  In float32 a value beside a ReLU's zero may fall on its other side, by the
order in which a processor adds, and five steps later accumulators are 1 % apart (`test_rounding`)."""


def run(module: str, *words, backend: str, devices: int, **environment: str) -> subprocess.CompletedProcess:
    """A module run on a backend with so many CPU devices."""
    flags = {"KERAS_BACKEND": backend, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    return subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-m", f"tests.replicas.{module}", *map(str, words)],
        cwd=golden.ROOT,
        env=os.environ | flags | environment,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )


def trained(folder: Path, *words, **options) -> tuple[dict, str]:
    """All that came of training, and what was said."""
    file = folder / "arrays.npz"
    done = run("tiny", file, *words, **options)
    assert done.returncode == 0, done.stderr
    return tiny_runs.arrays(file), done.stderr


UNEVEN = """
import numpy as np
from tests.models import grouped
from tests.replicas.test_uneven import IMAGES, LABELS, VIEWS
from tf_simclr import Classifier, SimCLR, replicas
from tf_simclr.errors import InputError

devices = replicas.find("auto")
with devices.scope():
    for model, images in ((Classifier(grouped.encoder(), num_classes=3), IMAGES), (SimCLR(grouped.encoder()), VIEWS)):
        model.compile("sgd")
        labels = (LABELS,) if isinstance(model, Classifier) else ()
        ways = {
            "fit": lambda n: model.fit(images[:n], *(y[:n] for y in labels), batch_size=4, verbose=0),
            "evaluate": lambda n: model.evaluate(images[:n], *(y[:n] for y in labels), batch_size=4, verbose=0),
            "predict": lambda n: model.predict(images[:n], batch_size=4, verbose=0),
            "train_on_batch": lambda n: model.train_on_batch(images[:n], *(y[:n] for y in labels)),
            "test_on_batch": lambda n: model.test_on_batch(images[:n], *(y[:n] for y in labels)),
        }
        for name, way in ways.items():
            for n in (3, 7):
                try:
                    way(n)
                except InputError as error:
                    assert "JAX's devices must share each batch evenly" in str(error), error
                else:
                    raise SystemExit(f"{name} took {n}")
                assert all(np.isfinite(weight).all() for weight in model.get_weights())
            for other in ways.values():
                other(4)
"""


def test_after_a_batch_that_devices_cannot_share_the_model_goes_on():
    flags = {"KERAS_BACKEND": "jax", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    command = [sys.executable, "-c", UNEVEN]
    done = subprocess.run(command, cwd=golden.ROOT, env=os.environ | flags, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Trainings on TensorFlow with one device, and on JAX with one and with two."""
    return {
        (backend, devices, numbers): trained(
            tmp_path_factory.mktemp("runs"), 0, numbers, backend=backend, devices=devices
        )
        for numbers in ("float32", "float64")
        for backend, devices in (("tensorflow", 1), ("jax", 1), ("jax", 2))
    }


@pytest.mark.parametrize(
    ("kind", "said"),
    [(("tensorflow", 1), "1 CPU"), (("jax", 1), "JAX: 1 CPU"), (("jax", 2), "JAX: 2 CPUs: DataParallel")],
)
def test_auto_says_what_it_found(runs, kind, said):
    assert said in runs[(*kind, "float32")][1].splitlines()


@pytest.mark.parametrize("optimizer", ["lars", "momentum"])
@pytest.mark.parametrize(
    ("numbers", "step", "same", "logs"),
    [("float32", 1, SAME, LOGS), ("float64", 1, EXACT, EXACT), ("float64", 5, EXACT, EXACT)],
)
@pytest.mark.parametrize(("one", "other"), [(("jax", 2), ("jax", 1)), (("jax", 2), ("tensorflow", 1))])
def test_two_jax_devices_equal_one_and_equal_tensorflow(runs, one, other, numbers, step, same, logs, optimizer):
    found = [runs[(*kind, numbers)][0] for kind in (one, other)]
    assert all(run[f"{optimizer}|5/model/conv/kernel"].dtype == numbers for run in found)
    assert_same(*found, step=step, optimizer=optimizer, same=same, logs=logs)


def assert_same(*runs: dict, step: int, optimizer: str, same: float = SAME, logs: float = LOGS) -> None:
    """Logs, weights, statistics and the optimizer's variables after a step are the same."""
    parts = [
        {name.split("|")[1]: value for name, value in run.items() if name.startswith(f"{optimizer}|{step}/")}
        for run in runs
    ]
    worst = tiny.differences(*parts)
    assert len(worst) == 4
    assert max(worst.values()) < same, worst
    assert worst[f"{step}/logs"] < logs, worst


def test_pieces_of_a_batch_are_the_same_on_jax_and_on_tensorflow(runs, tmp_path):
    found = []
    for backend in ("jax", "tensorflow"):
        folder = tmp_path / backend
        folder.mkdir()
        found.append(trained(folder, tiny.BATCH // 4, backend=backend, devices=1)[0])
    for optimizer in ("lars", "momentum"):
        assert_same(*found, step=1, optimizer=optimizer)
    whole = runs["tensorflow", 1, "float32"][0]["momentum|1/logs/contrast_loss"]
    assert found[0]["momentum|1/logs/contrast_loss"] != whole  # BatchNorm has seen a piece at a time


def test_steps_in_float16_that_overflow_are_skipped_on_jax_as_on_tensorflow():
    words = [sys.executable, "-m", "pytest", "tests/models/test_precision.py", "-k", "skipped or overflows"]
    environment = os.environ | {"KERAS_BACKEND": "jax"}
    done = subprocess.run(words, cwd=golden.ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "9 passed" in done.stdout


def test_a_training_on_two_jax_devices_that_is_killed_resumes_bit_by_bit(tmp_path):
    options = {"backend": "jax", "devices": 2, "JAX_ENABLE_X64": "1"}
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    done = run("worker", straight, **options)
    assert done.returncode == 0, done.stderr
    assert run("worker", killed, 7, **options).returncode == -signal.SIGKILL
    # Checkpoints are written while training goes on: the kill after step 7 may meet that of step 6 on its way.
    found = tiny_runs.steps(killed)
    assert found in ([2, 4], [2, 4, 6])
    done = run("worker", killed, **options)
    assert f"resuming after step {found[-1]} from {RunFolder(killed).checkpoint(found[-1])}" in done.stderr
    last = worker.PLAN.total_steps
    tiny_runs.assert_same_bits(RunFolder(killed).checkpoint(last), RunFolder(straight).checkpoint(last))
