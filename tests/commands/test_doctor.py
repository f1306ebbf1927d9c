"""A look at a machine: each framework's fate is a line, and the exit code says whether a training can run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import golden
from tests.ground.test_accelerators import made_machine
from tf_simclr.commands import doctor
from tf_simclr.config import Doctor
from tf_simclr.machine.accelerators import MACHINE, TPU_VARIABLES

SEEING = """
__version__ = "9.9"
class config:
    def list_physical_devices():
        return [type("Device", (), dict(device_type=kind)) for kind in {kinds}]
"""
CRASHING = "import os; os.kill(os.getpid(), 11)"
HANGING = "import time; time.sleep(60)"
HALF = "raise ImportError('libcudnn.so.9: cannot open shared object file')"


@pytest.fixture
def asked(tmp_path):
    """Runs the command in a process that finds these frameworks, on a machine that is made up."""

    def run(*words: str, backend: str | None = "tensorflow", gpu: str = "", **frameworks: str) -> tuple[int, str]:
        fake = tmp_path / "frameworks"
        fake.mkdir()
        for name in ("tensorflow", "jax", "torch"):
            content = frameworks.get(name, "raise ModuleNotFoundError")
            (fake / f"{name}.py").write_text(content)
        machine = made_machine(tmp_path / "machine", gpu=gpu)
        known = {name: value for name, value in os.environ.items() if name not in (*TPU_VARIABLES, "JAX_PLATFORMS")}
        known.pop("CUDA_VISIBLE_DEVICES", None)
        paths = os.pathsep.join([str(fake), str(golden.ROOT)])
        known |= {"PYTHONPATH": paths, MACHINE: str(machine), "KERAS_BACKEND": backend or "", "HOME": str(tmp_path)}
        command = [sys.executable, "-m", "tf_simclr", "doctor", "--train", "False", "--seconds", "10", *words]
        done = subprocess.run(command, cwd=tmp_path, env=known, capture_output=True, text=True)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout

    return run


def test_a_framework_that_crashes_hangs_or_is_half_installed_is_a_line(asked):
    code, out = asked("--seconds", "6", tensorflow=CRASHING, jax=HANGING, torch=HALF)
    lines = {line.split()[0]: line for line in out.splitlines() if not line.startswith("!!")}
    assert "(signal 11)" in lines["tensorflow"]
    assert "it gave no answer in 6 s" in lines["jax"]
    assert "libcudnn.so.9: cannot open shared object file" in lines["torch"]
    assert "!!          TensorFlow cannot be loaded" in out
    assert code == 1


def test_a_machine_whose_frameworks_work_is_well(asked):
    code, out = asked("--json", "True", tensorflow=SEEING.format(kinds=["CPU", "GPU", "GPU"]), gpu="NVIDIA A10")
    found = json.loads(out)
    assert found["frameworks"]["tensorflow"] == {"version": "9.9", "devices": ["CPU", "GPU", "GPU"]}
    assert found["accelerators"] == [{"kind": "GPU", "name": "NVIDIA A10", "driven": True, "hidden": ""}]
    others = [line for line in found["problems"] if not line.startswith(("JAX", "PyTorch"))]
    assert others == [] or "GB left" in others[0]
    assert code == 1  # the other two are there, and cannot be loaded


def test_a_gpu_that_the_backend_does_not_see_is_named_with_the_cure(asked):
    code, out = asked(tensorflow=SEEING.format(kinds=["CPU"]), gpu="NVIDIA A10")
    assert "machine     GPU: NVIDIA A10" in out
    assert "!!          TensorFlow cannot use the GPU (NVIDIA A10): " in out
    assert code == 1


def test_a_backend_that_is_unknown_is_named(asked):
    code, out = asked(backend="mxnet", tensorflow=SEEING.format(kinds=["CPU"]))
    assert "!!          KERAS_BACKEND must be one of tensorflow, jax, torch. Received: backend='mxnet'" in out
    assert code == 1


def test_the_backend_is_the_one_that_keras_own_file_names(asked, tmp_path):
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras/keras.json").write_text('{"backend": "jax"}')
    jax = "__version__ = '9'\ndef devices(): return []"
    _, out = asked(backend=None, tensorflow=SEEING.format(kinds=["CPU"]), jax=jax)
    assert ", computes with jax" in out


def test_where_disks_cannot_be_told_the_rest_is(monkeypatch, tmp_path):
    def full():
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(doctor.tempfile, "gettempdir", full)
    monkeypatch.setenv("TF_SIMCLR_CACHE", "~nobody_at_all/kept")
    assert doctor.places() == [Path.cwd()]
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert doctor.places() == []


def test_what_a_training_leaves_is_judged():
    found = {
        "backend": "tensorflow",
        "frameworks": {"tensorflow": {"version": "2", "devices": ["CPU", "GPU"]}},
        "training": {"losses": [5.0, 4.0], "seconds": 1.0, "device": "GPU"},
        "disk": {"/": 5e9},
    }
    assert doctor.problems(found, []) == []
    failed = found | {"training": {"error": "libdevice not found (exit code 1)"}}
    assert doctor.problems(failed, []) == ["the training of two steps failed: libdevice not found (exit code 1)"]
    full = found | {"disk": {"/": 2e8}}
    assert doctor.problems(full, []) == ["/ has 0.2 GB left; checkpoints need more than 1"]


def test_disks_are_told_once_each():
    devices = [Path(place).stat().st_dev for place in doctor.places()]
    assert len(devices) == len(set(devices)) >= 1


@pytest.mark.slow
def test_two_steps_are_trained_for_real():
    found = doctor.ask(doctor.TRAIN, seconds=300)
    assert len(found["losses"]) == 2
    assert doctor.look(Doctor(train=False))["frameworks"]["tensorflow"]["version"]
