"""Two processes, joined by TF_CONFIG over loopback, train as one does; killed and started again, too."""

import json
import os
import re
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

from tests import golden, tiny_runs
from tests.replicas import worker
from tf_simclr.replicas import devices
from tf_simclr.run_folder import RunFolder
from tf_simclr.training import read_history

LAST = worker.PLAN.total_steps


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def start(folder, *, processes: int, deaths: dict[int, int] | None = None) -> list[subprocess.Popen]:
    """The processes of a training; `deaths`: process → the step after which it dies."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(processes)]
    started = []
    for index in range(processes):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        step = [str(deaths[index])] if deaths and index in deaths else []
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "tests.replicas.worker", folder, *step],
                cwd=golden.ROOT,
                env=os.environ | {"TF_CONFIG": json.dumps(config)},
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return started


def finish(processes: list[subprocess.Popen]) -> list[str]:
    """What each said; each has to end well."""
    said = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), "\n".join(said)
    return said


def assert_close(folder, expected):
    """Weights, moving statistics, accumulators and metrics of the last step, in float64; and the history."""
    ours, theirs = (tiny_runs.arrays(RunFolder(one).checkpoint(LAST)) for one in (folder, expected))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert np.abs(ours[name] - value).max() <= 1e-9 * max(np.abs(value).max(), 1e-30), name
    for mine, other in zip(read_history(RunFolder(folder)), read_history(RunFolder(expected)), strict=True):
        assert mine == pytest.approx(other, rel=1e-9)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The same training by one process."""
    folder = tmp_path_factory.mktemp("alone")
    finish(start(folder, processes=1))
    return folder


@pytest.mark.slow
def test_two_processes_equal_one_and_the_chief_alone_writes(tmp_path, alone):
    said = finish(start(tmp_path, processes=2))
    for index, lines in enumerate(said):
        assert f"TF_CONFIG: worker {index} of 2, 2 replicas in all: MultiWorkerMirroredStrategy" in lines
    assert ["images/s" in lines for lines in said] == [True, False]  # the chief's progress line
    assert_close(tmp_path, alone)
    writers = {path.name.split(".")[-3] for path in (tmp_path / "logs" / "train").iterdir()}  # the process's number
    assert len(writers) == 1
    assert tiny_runs.steps(tmp_path) == tiny_runs.steps(alone)


@pytest.mark.slow
def test_two_processes_of_which_one_is_killed_and_both_are_started_again_equal_one(tmp_path, alone):
    chief, killed = start(tmp_path, processes=2, deaths={1: 5})
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    error = chief.communicate()[1]
    assert chief.returncode == 2, error
    assert re.search(r"all 2 workers must stay reachable, but worker 0 lost (worker 1|one) \(", error), error
    assert "Traceback" not in error
    newest = tiny_runs.steps(tmp_path)[-1]
    assert newest < LAST
    for lines in finish(start(tmp_path, processes=2)):
        assert f"resuming after step {newest} from" in lines
    assert_close(tmp_path, alone)


def test_what_differs_between_processes_is_told_and_the_rest_is_not():
    values = [{"seed": 0, "depth": 18}, {"seed": 1, "depth": 18}]
    assert [devices.differing(value, values) for value in values] == [{"seed": 0}, {"seed": 1}]
    assert devices.differing(3, [3, 4]) == 3
