"""A signal to any one of several processes stops all of them after the same step, which is saved, in each command."""

import importlib.util
import json
import os
import signal
import time

import pytest

from tests import tiny_runs
from tests.commands import pictures
from tests.replicas.forked import Forks, Member, wait
from tests.replicas.test_workers import free_ports
from tf_simclr.run_folder import RunFolder

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")]
NET = """
import keras
from keras import layers


def tiny():
    return keras.Sequential([
        keras.Input((8, 8, 3)), layers.Conv2D(4, 3, use_bias=False), layers.BatchNormalization(), layers.ReLU(),
        layers.Flatten(), layers.Dense(6)])
"""
STEPS = 400
COMMON = "--image_dir images --encoder tinynet:tiny --image_size 8 --augment_on host --train_batch_size 4 "
COMMON += f"--train_steps {STEPS} --checkpoint_steps 3 --warmup_epochs 0 --optimizer momentum --learning_rate 0.01"
COMMANDS = {
    "pretrain": "--knn_epochs 0 --collapse_images 0 --proj_out_dim 4",
    "finetune": "",
    "distill": "--teacher teacher",
}
CASES = [
    ("tensorflow", "pretrain", signal.SIGTERM, 1),
    ("tensorflow", "finetune", signal.SIGINT, 1),
    ("tensorflow", "distill", signal.SIGINT, 0),
    ("jax", "pretrain", signal.SIGINT, 1),
    ("jax", "finetune", signal.SIGTERM, 0),
    ("jax", "distill", signal.SIGTERM, 1),
]


def start(forks: Forks, backend: str, words: list[str], place, name: str) -> list[Member]:
    """Two processes of a command."""
    ports = free_ports(2)
    members = []
    for number in range(2):
        config = {
            "cluster": {"worker": [f"127.0.0.1:{port}" for port in ports]},
            "task": {"type": "worker", "index": number},
        }
        variables = {
            "tensorflow": {"TF_CONFIG": json.dumps(config)},
            "jax": {
                "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{ports[0]}",
                "JAX_NUM_PROCESSES": "2",
                "JAX_PROCESS_ID": str(number),
            },
        }[backend]
        members.append(forks.start(words, place / f"{name}.{number}.log", folder=place, **variables))
    return members


@pytest.mark.parametrize(("backend", "command", "sent", "told"), CASES)
def test_a_signal_to_one_of_two(tmp_path, backend, command, sent, told):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"needs {backend}")
    pictures.write(tmp_path / "images" / "train", per_class=4, size=8)
    pictures.write(tmp_path / "images" / "test", per_class=2, size=8)
    (tmp_path / "tinynet.py").write_text(NET)
    words = [command, *COMMON.split(), *COMMANDS[command].split(), "--model_dir", "run"]
    with Forks(backend) as forks:
        if command == "distill":
            taught = [*COMMON.split(), "--train_steps", "2", "--model_dir", "teacher"]
            one = forks.start(["finetune", *taught], tmp_path / "teacher.log", folder=tmp_path)
            assert wait([one], 300)
            assert one.code == 0, one.said()
        members = start(forks, backend, words, tmp_path, "first")
        run, end = RunFolder(tmp_path / "run"), time.monotonic() + 300
        while not run.checkpoints() and time.monotonic() < end and all(member.poll() is None for member in members):
            time.sleep(0.05)
        members[told].send_signal(sent)
        ended = wait(members, 120)
        said = [member.said() for member in members]
        code = 143 if sent == signal.SIGTERM else 130
        assert [ended, *(member.code for member in members)] == [True, code, code], "\n\n".join(said)
        newest = tiny_runs.steps(tmp_path / "run")[-1]
        assert newest < STEPS
        assert all(f"{sent.name}: step {newest} is saved in" in text for text in said), said
        assert "Traceback" not in "".join(said)
        again = start(forks, backend, words, tmp_path, "again")
        while not wait(again, 0.05) and tiny_runs.steps(tmp_path / "run")[-1] <= newest:
            time.sleep(0.05)
        assert all(f"resuming after step {newest} from" in member.said() for member in again), again[0].said()
        for member in again:
            member.send_signal(signal.SIGTERM)  # to all, as a cluster does
        assert wait(again, 120)
        assert [member.code for member in again] == [143, 143], "\n\n".join(member.said() for member in again)
