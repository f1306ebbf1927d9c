"""Whole commands on two processes, of TensorFlow and of JAX, end as on one; the first process alone writes."""

import importlib.util
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from tests import golden, tiny_runs
from tests.commands import pictures
from tests.replicas.test_workers import free_ports
from tf_simclr.run_folder import RunFolder
from tf_simclr.training import read_history

needs_jax = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs the `jax` extra")
BACKENDS = ["tensorflow", pytest.param("jax", marks=needs_jax)]
# Above 32 pixels comes the ImageNet stem, which leaves little to compute.
SMALL = ["--image_size", "40", "--resnet_depth", "18", "--train_batch_size", "4", "--train_steps", "4"]
SMALL += ["--warmup_epochs", "0", "--optimizer", "momentum", "--learning_rate", "0.01", "--checkpoint_steps", "2"]


def environment(backend: str, index: int, addresses: list[str]) -> dict[str, str]:
    """What makes a process one of several; nothing for one address."""
    flags = {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    if len(addresses) == 1:
        return os.environ | flags
    if backend == "tensorflow":
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        return os.environ | flags | {"TF_CONFIG": json.dumps(task)}
    flags |= {"JAX_COORDINATOR_ADDRESS": addresses[0], "JAX_NUM_PROCESSES": str(len(addresses))}
    return os.environ | flags | {"JAX_PROCESS_ID": str(index)}


def start(words: list, *, backend: str, processes: int) -> list[subprocess.Popen]:
    addresses = [f"127.0.0.1:{port}" for port in free_ports(processes)]
    return [
        subprocess.Popen(
            [sys.executable, "-m", "tf_simclr", *map(str, words)],
            cwd=golden.ROOT,
            env=environment(backend, index, addresses),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(processes)
    ]


def done(words: list, *, backend: str, processes: int) -> list[str]:
    """What each process said; each must end well."""
    started = start(words, backend=backend, processes=processes)
    said = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0] * processes, "\n".join(said)
    return said


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    pictures.write(folder / "train", per_class=6, size=40)
    pictures.write(folder / "test", per_class=4, size=40)
    return folder


@pytest.fixture(scope="module")
def teacher(tmp_path_factory, images):
    folder = tmp_path_factory.mktemp("teacher") / "run"
    done(["finetune", "--image_dir", images, "--model_dir", folder, *SMALL], backend="tensorflow", processes=1)
    return folder


COMMANDS = {
    "moco": ["pretrain", "--method", "moco", "--queue_length", "16", "--knn_epochs", "1", "--knn_images", "12"],
    "finetune": ["finetune", "--eval_epochs", "1"],
    "distill": ["distill", "--teacher_views", "same"],
    "distill, cached": ["distill", "--teacher_views", "cached", "--eval_epochs", "1"],
}


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", COMMANDS)
def test_two_processes_equal_one(tmp_path, images, teacher, backend, name):
    words = [*COMMANDS[name], "--image_dir", images, *SMALL]
    words += ["--teacher", teacher] if name.startswith("distill") else []
    one, two = tmp_path / "one", tmp_path / "two"
    done([*words, "--model_dir", one], backend=backend, processes=1)
    said = done([*words, "--model_dir", two], backend=backend, processes=2)
    assert ["the teacher answers for" in lines for lines in said] == [name == "distill, cached", False]
    assert tiny_runs.steps(two) == tiny_runs.steps(one)
    rows = zip(read_history(RunFolder(two)), read_history(RunFolder(one)), strict=True)
    for mine, other in rows:
        assert mine == pytest.approx(other, rel=2e-3, abs=2e-3)
    ours, theirs = (tiny_runs.arrays(RunFolder(folder).checkpoint(4)) for folder in (two, one))
    assert ours.keys() == theirs.keys()
    worst = {k: float(np.abs(ours[k] - v).max() / max(np.abs(v).max(), 1e-30)) for k, v in theirs.items()}
    assert max(value for key, value in worst.items() if key.startswith("model/")) <= 1e-3, worst
    results = [json.loads((folder / "result.json").read_text()) for folder in (two, one)]
    assert results[0].keys() == results[1].keys()
    if "top1" in results[0]:
        assert results[0]["top1"] == results[1]["top1"]


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["linear-eval", "embed"])
def test_what_one_process_computes_is_refused_on_several(tmp_path, teacher, backend, name):
    words = [name, "--checkpoint", teacher, *(["--out", tmp_path / "features.npz"] if name == "embed" else [])]
    for process in start(words, backend=backend, processes=2):
        said = process.communicate()[0]
        assert process.returncode == 2, said
        assert f"{name} must be started once, in one process, but" in said
        assert "Traceback" not in said
    assert not (tmp_path / "features.npz").exists()


@pytest.mark.slow
def test_a_worker_that_is_started_twice_is_told_its_port(tmp_path, images):
    words = ["pretrain", "--image_dir", images, "--model_dir", tmp_path / "run", *SMALL]
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    commands = [sys.executable, "-m", "tf_simclr", *map(str, words)]
    env, pipes = environment("tensorflow", 0, addresses), {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    twice = [subprocess.Popen(commands, cwd=golden.ROOT, env=env, **pipes, text=True) for _ in range(2)]
    while all(process.poll() is None for process in twice):
        time.sleep(0.1)
    ended, other = sorted(twice, key=lambda process: process.poll() is None)
    other.kill()
    said = ended.communicate()[0]
    other.communicate()
    assert ended.returncode == 2, said
    assert f"port {addresses[0].rpartition(':')[2]} of worker 0 of TF_CONFIG, {addresses[0]}, must be free" in said
    assert "Traceback" not in said
