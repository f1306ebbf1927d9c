"""Whole commands on two processes of JAX end as on one process of as many devices; the first process alone writes."""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests import golden, tiny_runs
from tests.commands import pictures
from tests.replicas.test_workers import free_ports
from tf_simclr.run_folder import RunFolder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs the `jax` extra"),
]
# Above 32 pixels comes the ImageNet stem, which leaves little to compute.
SMALL = ["--image_size", "40", "--resnet_depth", "18", "--train_batch_size", "4", "--train_steps", "4"]
SMALL += ["--warmup_epochs", "0", "--optimizer", "momentum", "--learning_rate", "0.01", "--checkpoint_steps", "2"]
COMMANDS = {
    "moco": ["pretrain", "--method", "moco", "--queue_length", "16", "--knn_epochs", "1", "--knn_images", "12"],
    "finetune": ["finetune", "--eval_epochs", "1"],
}


def done(words: list, *, processes: int, devices: int) -> list[str]:
    """What each process said; each must end well."""
    flags = {"KERAS_BACKEND": "jax", "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    if processes > 1:
        flags |= {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_ports(1)[0]}", "JAX_NUM_PROCESSES": str(processes)}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tf_simclr", *map(str, words)],
            cwd=golden.ROOT,
            env=os.environ | flags | ({"JAX_PROCESS_ID": str(index)} if processes > 1 else {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(processes)
    ]
    said = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0] * processes, "\n".join(said)
    return said


@pytest.mark.parametrize("name", COMMANDS)
def test_two_processes_equal_one_of_two_devices(tmp_path, name):
    """With one device the rounding is another, which weights that are still as small as it show."""
    pictures.write(tmp_path / "images" / "train", per_class=6, size=40)
    pictures.write(tmp_path / "images" / "test", per_class=4, size=40)
    words = [*COMMANDS[name], "--image_dir", tmp_path / "images", *SMALL]
    one, two = tmp_path / "one", tmp_path / "two"
    done([*words, "--model_dir", one], processes=1, devices=2)
    said = done([*words, "--model_dir", two], processes=2, devices=1)
    assert ["images/s" in lines for lines in said] == [True, False]
    assert tiny_runs.steps(two) == tiny_runs.steps(one) == [2, 4]
    ours, theirs = (tiny_runs.arrays(RunFolder(folder).checkpoint(4)) for folder in (two, one))
    assert ours.keys() == theirs.keys()
    far = {k: float(np.abs(ours[k] - v).max()) for k, v in theirs.items()}
    assert max(far.values()) <= 1e-6, sorted(far.items(), key=lambda item: -item[1])[:5]
    results = [json.loads((folder / "result.json").read_text()) for folder in (two, one)]
    assert results[0].keys() == results[1].keys()
    assert results[0].get("top1") == results[1].get("top1")
