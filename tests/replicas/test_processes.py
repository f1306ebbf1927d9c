"""Processes of JAX, joined over loopback, train as one does; killed, stopped and started again, too."""

import functools
import importlib.util
import os
import re
import signal
import socket
import time
from pathlib import Path

import numpy as np
import pytest

from tests import tiny_runs
from tests.replicas.forked import Forks, Member, wait
from tests.replicas.test_workers import LAST, free_ports
from tf_simclr.errors import InputError
from tf_simclr.machine.launchers import Meeting, launched, meeting, started
from tf_simclr.run_folder import RunFolder

needs_jax = pytest.mark.skipif(
    importlib.util.find_spec("jax") is None or not hasattr(os, "fork"), reason="needs the `jax` extra, and forks"
)


@pytest.fixture(scope="module")
def forks():
    """What forks the processes; in float64."""
    with Forks("jax", JAX_ENABLE_X64="1") as made:
        yield made


def start(
    forks: Forks, folder: Path, *, processes: int, devices: int = 1, deaths: dict | None = None, port: int = 0
) -> list[Member]:
    """The processes of a training, each of so many devices; `deaths`: process → the step after which it dies."""
    flags = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port or free_ports(1)[0]}", "JAX_NUM_PROCESSES": str(processes)}
    flags |= {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    members = []
    for index in range(processes):
        words = [folder, *([deaths[index]] if deaths and index in deaths else [])]
        log = folder.with_name(f"{folder.name}.{len(forks.members)}.log")
        own = flags | {"JAX_PROCESS_ID": str(index)}
        members.append(forks.start(words, log, folder=folder, module="tests.replicas.worker", **own))
    return members


def ended(members: list[Member]) -> list[str]:
    """What each said, when all have ended."""
    done = wait(members, 900)
    said = [member.said() for member in members]
    assert done, "\n\n".join(said)
    return said


def finish(members: list[Member]) -> list[str]:
    """The same; each has to end well."""
    said = ended(members)
    assert [member.code for member in members] == [0] * len(members), "\n\n".join(said)
    return said


@pytest.fixture(scope="module")
def alone(tmp_path_factory, forks):
    """Devices → the same training by one process that has them all."""

    @functools.cache
    def trained(devices: int):
        folder = tmp_path_factory.mktemp("alone")
        finish(start(forks, folder, processes=1, devices=devices))
        return folder

    return trained


def difference(folder, expected, of: str = "", *, step: int = LAST) -> float:
    """The largest one in what a training holds after a step, of the largest magnitude of its variable."""
    ours, theirs = (tiny_runs.arrays(RunFolder(one).checkpoint(step)) for one in (folder, expected))
    assert ours.keys() == theirs.keys()
    return max(
        float(np.abs(ours[k] - v).max() / max(np.abs(v).max(), 1e-30)) for k, v in theirs.items() if k.startswith(of)
    )


WEIGHTS, OTHER_ORDER = 1e-5, 1e-3
"""Of the weights after four steps, and of all with the momenta after ten, where sums are taken in another order.  Keras
normalises in float32 on JAX, also where the rest is float64."""


@needs_jax
@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_several_processes_equal_one_and_the_first_alone_writes(tmp_path, forks, alone, processes):
    said = finish(start(forks, tmp_path, processes=processes))
    for index, lines in enumerate(said):
        assert f"JAX: process {index} of {processes} (met by 127.0.0.1:" in lines
        assert ("images/s" in lines) is (index == 0)
    if processes == 2:  # of two numbers there is one sum
        assert difference(tmp_path, alone(processes)) <= 1e-12
    for step in (4, LAST):  # no further from as many devices of one process than these are from one device
        rounding = difference(alone(1), alone(processes), of="model/", step=step)
        assert difference(tmp_path, alone(processes), of="model/", step=step) <= max(rounding, WEIGHTS)
    assert difference(tmp_path, alone(processes)) <= OTHER_ORDER
    assert difference(tmp_path, alone(1)) <= OTHER_ORDER
    assert tiny_runs.steps(tmp_path) == tiny_runs.steps(alone(1))


@needs_jax
@pytest.mark.slow
@pytest.mark.parametrize("dying", [0, 1])
def test_one_is_killed_all_end_with_a_sentence_and_started_again_they_equal_one(tmp_path, forks, alone, dying):
    started = start(forks, tmp_path, processes=2, deaths={dying: 5})
    said = ended(started)
    assert started[dying].code == -signal.SIGKILL
    assert started[1 - dying].code == 2, said[1 - dying]
    who = "worker 0 (" if dying == 0 else "one ("
    assert f"all 2 workers must stay reachable, but worker {1 - dying} lost {who}" in said[1 - dying]
    assert "Traceback" not in said[1 - dying]
    newest = tiny_runs.steps(tmp_path)[-1]
    assert newest < LAST
    for lines in finish(start(forks, tmp_path, processes=2)):
        assert f"resuming after step {newest} from" in lines
    assert difference(tmp_path, alone(2)) <= 1e-12


@needs_jax
@pytest.mark.slow
def test_what_two_processes_began_four_and_one_go_on_with(tmp_path, forks, alone):
    ended(start(forks, tmp_path, processes=2, deaths={1: 5}))
    ended(start(forks, tmp_path, processes=4, deaths={3: 7}))
    assert tiny_runs.steps(tmp_path)[-1] in (4, 6)
    finish(start(forks, tmp_path, processes=1))
    assert difference(tmp_path, alone(1)) <= OTHER_ORDER


@needs_jax
@pytest.mark.slow
@pytest.mark.parametrize("told", [0, 1])
def test_a_signal_to_one_stops_all_after_the_same_step(tmp_path, forks, alone, told):
    started = start(forks, tmp_path, processes=2)
    while not RunFolder(tmp_path).checkpoints() and all(process.poll() is None for process in started):
        time.sleep(0.05)
    started[told].send_signal(signal.SIGTERM)
    said = ended(started)
    if [process.code for process in started] != [0, 0]:  # else it came after the last step
        assert [process.code for process in started] == [143, 143], said
        newest = tiny_runs.steps(tmp_path)[-1]
        assert all(f"SIGTERM: step {newest} is saved in" in lines for lines in said)
    finish(start(forks, tmp_path, processes=2))
    assert difference(tmp_path, alone(2)) <= 1e-12


@needs_jax
@pytest.mark.slow
def test_a_port_that_is_taken_is_named(tmp_path, forks):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        first, second = start(forks, tmp_path, processes=2, port=port)
        [said] = ended([first])
        second.send_signal(signal.SIGKILL)  # it waits for the first one
    assert first.code == 2
    assert f"port {port} of the coordinator (process_id 0), 127.0.0.1:{port}, must be free" in said
    assert "Traceback" not in said


@needs_jax
@pytest.mark.slow
def test_processes_with_other_numbers_of_devices_are_refused(tmp_path, forks):
    """As where machines have different GPUs; before: a traceback of JAX in one, and an abort in the other."""
    flags = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_ports(1)[0]}", "JAX_NUM_PROCESSES": "2"}
    started = []
    for number in range(2):
        own = {"JAX_PROCESS_ID": str(number), "XLA_FLAGS": f"--xla_force_host_platform_device_count={number + 1}"}
        log = tmp_path / f"{number}.log"
        started.append(forks.start([], log, folder=tmp_path, module="tests.replicas.meets", **flags, **own))
    for one, said in zip(started, ended(started), strict=True):
        assert one.code == 2, said
        assert "must have as many devices as the others" in said
        assert "Received: process_0=1, process_1=2" in said
        assert "Traceback" not in said


STOPPED = """
import os, signal, sys, time
from tf_simclr.errors import exit_on_input_error
from tf_simclr.replicas import find, life

life.BEAT, life.SILENCE = 0.5, 10.0
number, count, port, stopped = map(int, sys.argv[1:])
with exit_on_input_error():
    devices = find(coordinator=f"127.0.0.1:{port}", num_processes=count, process_id=number)
    with devices.together():
        assert devices.collect(number) == list(range(count))
        if number == stopped:
            os.kill(os.getpid(), signal.SIGSTOP)
        if number == 0:
            time.sleep(60 if stopped >= 0 else 15)
        devices.collect(number)
"""


@needs_jax
@pytest.mark.slow
@pytest.mark.parametrize("stopped", [0, 2, -1])
def test_one_that_falls_silent_without_a_word_is_missed(tmp_path, forks, stopped):
    """As where a machine loses its power: its connections stay open, and nothing comes."""
    port = free_ports(1)[0]
    (tmp_path / "silent.py").write_text(STOPPED)
    started = [
        forks.start([i, 3, port, stopped], tmp_path / f"{i}.log", folder=tmp_path, module="silent") for i in range(3)
    ]
    others = [process for number, process in enumerate(started) if number != stopped]
    said = ended(others)
    if stopped < 0:
        assert [process.code for process in others] == [0] * 3, said
        return
    assert started[stopped].poll() is None
    assert [process.code for process in others] == [2, 2], said
    sentence = r"all 3 workers must stay reachable, but worker \d lost "
    assert all(re.search(sentence, text) for text in said), said
    assert any(f"lost worker {stopped}, which shows no life" in text for text in said), said


TORCHRUN = {"MASTER_ADDR": "a", "MASTER_PORT": "29500", "WORLD_SIZE": "4", "RANK": "3"}


def test_processes_meet_by_options_before_the_environment_and_alone_without_either():
    assert meeting("b:1", num_processes=2, process_id=0, environment=TORCHRUN) == Meeting("b:1", 2, 0)
    assert meeting(environment=TORCHRUN) == Meeting("a:29500", 4, 3)
    jax = {"JAX_COORDINATOR_ADDRESS": "c:2", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}
    assert meeting(environment=TORCHRUN | jax) == Meeting("c:2", 2, 1)
    assert meeting(environment={}) is None
    assert meeting(environment=TORCHRUN | {"WORLD_SIZE": "1", "RANK": "0"}) is None


@pytest.mark.parametrize(
    ("given", "environment", "message"),
    [
        (("b:1", None, 0), {}, "must be given together"),
        (("b", 2, 0), {}, "the coordinator must be given as host:port"),
        (("b:x", 2, 0), {}, "the coordinator must be given as host:port"),
        (("b:1", 2, 2), {}, "process_id must be from 0 to 1"),
        (("b:1", 2, -1), {}, "process_id must be from 0 to 1"),
        (("b:1", 0, 0), {}, "num_processes must be at least 1"),
        ((None, None, None), TORCHRUN | {"RANK": "four"}, "WORLD_SIZE and RANK must be whole numbers"),
        ((None, None, None), TORCHRUN | {"RANK": "4"}, "process_id must be from 0 to 3"),
        ((None, None, None), TORCHRUN | {"MASTER_PORT": ""}, "the coordinator must be given as host:port"),
    ],
)
def test_a_meeting_that_cannot_take_place_is_told(given, environment, message):
    coordinator, count, number = given
    with pytest.raises(InputError, match=message):
        meeting(coordinator, num_processes=count, process_id=number, environment=environment)


def test_whoever_started_several_processes_is_known():
    slurm = {"SLURM_STEP_NODELIST": "node[1-2]", "SLURM_NTASKS": "2", "SLURM_PROCID": "1"}
    assert started(slurm) == "Slurm"
    assert started(slurm | {"SLURM_NTASKS": "1"}) is None
    assert started({"SLURM_NTASKS": "2"}) is None  # the shell of an allocation: no step was started
    assert started(slurm | {"SLURM_STEP_NUM_TASKS": "1"}) is None  # nor was one of several in `salloc`'s own shell
    assert launched({"TPU_WORKER_HOSTNAMES": "t-0,t-1"}) == "the TPU's machines"
    assert launched({"TPU_WORKER_HOSTNAMES": "t-0"}) is None
