"""Processes meet by the variables of whoever started them: torchrun and, where it is installed, `mpirun` themselves.

What `srun` and two `mpirun`s set for each process is set here for processes of this machine, too.
"""

import importlib.util
import os
import random
import shutil
import subprocess
import sys

import keras
import pytest

from tests import golden
from tests.replicas.forked import Forks, wait
from tests.replicas.test_workers import free_ports
from tf_simclr import cli
from tf_simclr.config import COMMANDS
from tf_simclr.errors import InputError
from tf_simclr.machine.launchers import Meeting, meeting, started
from tf_simclr.replicas import find
from tf_simclr.replicas.find import cluster_of
from tf_simclr.replicas.processes import _timeout

pytestmark = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs the `jax` extra")
PROCESSES = 2


def slurm(number: int, job: int) -> dict[str, str]:
    """Of `srun --ntasks-per-node=2`, on one node."""
    return {
        "SLURM_JOB_ID": str(job),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": str(PROCESSES),
        "SLURM_PROCID": str(number),
        "SLURM_LOCALID": str(number),
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NUM_TASKS": str(PROCESSES),
        "SLURM_STEP_TASKS_PER_NODE": str(PROCESSES),
        "SLURM_NODEID": "0",
    }


def step(number: int, *, nodes: str = "node[01-02]", each: str = "2(x2)", tasks: int = 4) -> dict[str, str]:
    """Of `srun --nodes=2 --ntasks-per-node=2`."""
    count = int(each.partition("(")[0])
    return slurm(number, 3) | {
        "SLURM_STEP_NODELIST": nodes,
        "SLURM_NTASKS": str(tasks),
        "SLURM_STEP_NUM_TASKS": str(tasks),
        "SLURM_STEP_TASKS_PER_NODE": each,
        "SLURM_NODEID": str(number // count),
        "SLURM_LOCALID": str(number % count),
    }


def test_tasks_of_slurm_share_the_accelerators_of_their_machine():
    assert [meeting(environment=step(n)) for n in range(4)] == [
        Meeting("node01:61443", 4, n, device=n % 2) for n in range(4)
    ]
    # One task a machine has them all; so has each of several that see their own alone.
    assert meeting(environment=step(1, each="1(x2)", tasks=2)) == Meeting("node01:61443", 2, 1)
    for own in ({"SLURM_GPUS_PER_TASK": "2", "CUDA_VISIBLE_DEVICES": "0,1"}, {"CUDA_VISIBLE_DEVICES": "3"}):
        assert meeting(environment=step(3) | own) == Meeting("node01:61443", 4, 3)
    assert meeting(environment=step(3) | {"CUDA_VISIBLE_DEVICES": "0,1"}).device == 1
    assert meeting(environment=step(3) | {"SLURM_STEP_ID": "1"}).address == "node01:61540"
    # A shell of `salloc --ntasks=4` is a step of one task, in a job of four.
    assert meeting(environment=step(0) | {"SLURM_STEP_NUM_TASKS": "1"}) is None


@pytest.mark.parametrize("inner", ["torchrun", "Open MPI", "MPICH"])
def test_what_srun_starts_may_start_the_processes(inner):
    """The daemons of `mpirun`, and `torchrun` once a machine, are steps of Slurm; what they start is not."""
    daemon = step(1, each="1(x2)", tasks=2)
    theirs, expected = {
        "torchrun": (
            {"MASTER_ADDR": "node01", "MASTER_PORT": "29500", "WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1"}
            | {"LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_USE_AGENT_STORE": "False"},
            Meeting("node01:29500", 4, 3, device=1),
        ),
        "Open MPI": (
            open_mpi_5(1, 7) | {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3"},
            Meeting("node-7:61447", 4, 3, device=1),
        ),
        "MPICH": (
            {"PMI_SIZE": "4", "PMI_RANK": "3", "MPI_LOCALNRANKS": "2", "MPI_LOCALRANKID": "1"}
            | {"JAX_COORDINATOR_ADDRESS": "node01:9"},
            Meeting("node01:9", 4, 3, device=1),
        ),
    }[inner]
    assert started(daemon | theirs) == inner
    assert meeting(environment=daemon | theirs) == expected


def open_mpi_4(number: int, job: int) -> dict[str, str]:
    """Of `mpirun -n 2`, on one node."""
    return {
        "OMPI_MCA_orte_hnp_uri": f"{4096 * job}.0;tcp://127.0.0.1:34911",
        "OMPI_COMM_WORLD_SIZE": str(PROCESSES),
        "OMPI_COMM_WORLD_RANK": str(number),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(number),
    }


def open_mpi_5(number: int, job: int) -> dict[str, str]:
    """Likewise: it has no ORTE any more, of whose variables JAX takes the address."""
    return {
        "PMIX_NAMESPACE": f"prterun-node-7-{job}@1",
        "OMPI_COMM_WORLD_SIZE": str(PROCESSES),
        "OMPI_COMM_WORLD_RANK": str(number),
        "OMPI_COMM_WORLD_LOCAL_SIZE": str(PROCESSES),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(number),
    }


def test_open_mpi_5_and_mpich_say_what_jax_does_not_read():
    here, node = open_mpi_5(1, 7), "node-7"
    assert meeting(environment=here) == Meeting("127.0.0.1:61447", 2, 1, device=1)
    several = here | {"OMPI_COMM_WORLD_LOCAL_SIZE": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}
    assert meeting(environment=several) == Meeting(f"{node}:61447", 2, 1)
    assert meeting(environment=several | {"JAX_COORDINATOR_ADDRESS": "c:9"}) == Meeting("c:9", 2, 1)
    mpich = {"PMI_SIZE": "2", "PMI_RANK": "1", "MPI_LOCALNRANKS": "2", "MPI_LOCALRANKID": "1"}
    assert meeting(environment=mpich) == Meeting("127.0.0.1:61440", 2, 1, device=1)
    with pytest.raises(InputError, match="JAX_COORDINATOR_ADDRESS=HOST:PORT, of the first process, must be set where"):
        meeting(environment=mpich | {"MPI_LOCALNRANKS": "1"})
    for variables, who in ((here, "Open MPI"), (mpich, "MPICH"), (open_mpi_4(0, 3), "Open MPI")):
        assert started(variables) == who
        assert meeting(environment={**variables, "OMPI_COMM_WORLD_SIZE": "1", "PMI_SIZE": "1"}) is None
    assert meeting(environment=open_mpi_4(0, 3)) is None  # JAX finds it
    # Slurm's `srun --mpi=pmi2` sets the names that MPICH has, but is Slurm.
    assert meeting(environment=slurm(0, 3) | {"PMI_SIZE": "2", "PMI_RANK": "0"}) == meeting(environment=slurm(0, 3))
    assert started(slurm(0, 3) | {"PMI_SIZE": "2", "PMI_RANK": "0"}) == "Slurm"


def test_slices_of_tpus_are_several_processes():
    hosts = {"TPU_WORKER_HOSTNAMES": "t-0", "TPU_WORKER_ID": "0"}
    slices = {"MEGASCALE_COORDINATOR_ADDRESS": "t-0", "MEGASCALE_NUM_SLICES": "2", "MEGASCALE_SLICE_ID": "1"}
    assert started(hosts) is None
    assert started(hosts | slices) == "the TPU's slices"
    assert started({"TPU_PROCESS_ADDRESSES": "t-0:8471,t-1:8471", "TPU_WORKER_ID": "1"}) == "the TPU's machines"


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}, "JAX_PROCESS_ID must be set together, or none"),
        ({"JAX_COORDINATOR_ADDRESS": "a:1"}, "JAX_PROCESS_ID must be set together, or none"),
        ({"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "²", "JAX_PROCESS_ID": "0"}, "must be whole numbers"),
        ({"JAX_COORDINATOR_ADDRESS": "a:²", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}, "given as host:port"),
        ({"JAX_COORDINATOR_ADDRESS": "a..b:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}, "host:port"),
        ({"JAX_COORDINATOR_ADDRESS": "a:70000", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}, "host:port"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "MASTER_ADDR must be set, too, where WORLD_SIZE says"),
        ({"WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "RANK must be set, too, where WORLD_SIZE says"),
        (open_mpi_5(0, 7) | {"OMPI_COMM_WORLD_RANK": "2"}, "process_id must be from 0 to 1"),
    ],
)
def test_variables_that_do_not_suffice_are_named(variables, message):
    with pytest.raises(InputError, match=message):
        meeting(environment=variables)


@pytest.mark.parametrize("value", ["", " ", "²", "٣", "-1", "1e3", "two", "7" * 30, "9" * 5000, "[" * 50_000])
def test_a_variable_may_hold_anything(value):
    """Each of each launcher's variables is read or refused in a sentence: no number is too long for that."""
    jax = {"JAX_COORDINATOR_ADDRESS": "c:2", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}
    torchrun = {"MASTER_ADDR": "a", "MASTER_PORT": "29500", "WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1"}
    torchrun |= {"LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "x", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    slices = {"MEGASCALE_COORDINATOR_ADDRESS": "t-0", "MEGASCALE_NUM_SLICES": "2", "TPU_WORKER_HOSTNAMES": "t-0,t-1"}
    workers = {"TF_CONFIG": '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}'}
    refused = 0
    for variables in (jax, torchrun, slices, workers, slurm(1, 7), open_mpi_4(1, 7), open_mpi_5(1, 7)):
        for name in variables:
            changed = variables | {name: value}
            started(changed)
            try:
                found = meeting(environment=changed)
            except InputError:
                refused += 1
            else:
                assert found is None or 0 <= found.number < found.processes < 1000, (name, found)
    assert refused > 5
    with pytest.raises(InputError, match="TF_CONFIG must have the form"):
        cluster_of(value)
    with pytest.raises(InputError, match="TF_SIMCLR_MEETING_SECONDS must be a whole number of seconds"):
        _timeout({"TF_SIMCLR_MEETING_SECONDS": value})


def test_what_is_left_in_a_shell_starts_nothing():
    for variables in (
        {"MASTER_ADDR": "a", "MASTER_PORT": "1"},
        {"WORLD_SIZE": "1"},
        {"SLURM_NTASKS": "4"},
        {"RANK": "3"},
    ):
        assert meeting(environment=variables) is None
        assert started(variables) is None


@pytest.mark.parametrize("backend", ["tensorflow", "torch"])
def test_processes_that_each_would_train_alone_are_refused(monkeypatch, backend):
    for name, value in slurm(0, 3).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    with pytest.raises(
        InputError, match=f"{backend}'s processes do not share a training by what Slurm tells them: set "
    ):
        find("auto")


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_workers_of_tensorflow_do_not_each_train_alone_on_another_backend(monkeypatch, backend):
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    workers = '{{"cluster": {{"worker": [{}]}}, "task": {{"type": "worker", "index": 0}}}}'
    monkeypatch.setenv("TF_CONFIG", workers.format('"a:1", "b:1"'))
    with pytest.raises(InputError, match=f"{backend}'s processes do not share a training by what TF_CONFIG tells them"):
        find("auto")
    assert find("one").count == 1
    monkeypatch.setenv("TF_CONFIG", workers.format('"a:1"'))
    assert "process" not in find("auto").description


ALONE = [name for name, kind in COMMANDS.items() if not hasattr(kind, "coordinator")]


def test_the_trainings_alone_take_several_processes():
    assert {*COMMANDS} - {*ALONE} == {"pretrain", "finetune", "distill"}


@pytest.mark.parametrize("name", sorted({*ALONE} - {*cli._LOOKING}))
def test_commands_that_are_no_training_refuse_several_processes(monkeypatch, name):
    """Each would compute the same and write the same files."""
    monkeypatch.setattr("tf_simclr.config.first_look.look_first", lambda config: None)
    monkeypatch.setattr("tf_simclr.chest.first_look.look_first", lambda config: None)
    monkeypatch.setattr(cli, "task", lambda name: pytest.fail("it began"))
    for variable, value in open_mpi_5(1, 7).items():
        monkeypatch.setenv(variable, value)
    config = object.__new__(COMMANDS[name])  # its options do not matter
    with pytest.raises(InputError, match=f"{name} must be started once, in one process, but Open MPI has started"):
        cli._run(config)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize(
    ("who", "variables"), [("localhost:", slurm), ("Open MPI", open_mpi_4), ("127.0.0.1:", open_mpi_5)]
)
def test_processes_meet_by_the_variables_of(tmp_path, who, variables):
    job = random.SystemRandom().randrange(4096)  # JAX takes the port from the job's number
    with Forks("jax") as forks:
        options = {"folder": tmp_path, "module": "tests.replicas.meets"}
        members = [
            forks.start([], tmp_path / f"{number}.log", **options, **variables(number, job))
            for number in range(PROCESSES)
        ]
        assert wait(members, 300)
    said = [member.said() for member in members]
    assert [member.code for member in members] == [0] * PROCESSES, said
    for number, text in enumerate(said):
        assert f"JAX: process {number} of 2 (met by {who}" in text
        assert "2 CPUs in all: DataParallel; numbers [0, 1]" in text


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("mpirun") is None, reason="needs mpirun, of Open MPI or MPICH")
def test_processes_meet_that_mpirun_started():
    allowed = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    allowed |= {"PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}
    words = ["mpirun", "-n", str(PROCESSES), sys.executable, "-m", "tests.replicas.meets"]
    environment = os.environ | allowed | {"KERAS_BACKEND": "jax", "PYTHONPATH": str(golden.ROOT)}
    done = subprocess.run(words, cwd=golden.ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("2 CPUs in all: DataParallel; numbers [0, 1]") == PROCESSES


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torchrun, of the `torch` extra")
def test_processes_meet_that_torchrun_started():
    """It listens at MASTER_PORT itself, so that they must meet elsewhere."""
    port = free_ports(1)[0]
    words = ["-m", "torch.distributed.run", "--nnodes=1", f"--nproc_per_node={PROCESSES}", "--rdzv_backend=c10d"]
    words += [f"--rdzv_endpoint=localhost:{port}", "-m", "tests.replicas.meets"]
    environment = os.environ | {"KERAS_BACKEND": "jax", "PYTHONPATH": str(golden.ROOT)}
    done = subprocess.run(
        [sys.executable, *words], cwd=golden.ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for number in range(PROCESSES):
        assert f"JAX: process {number} of 2 (met by localhost:" in done.stdout
    assert done.stdout.count("2 CPUs in all: DataParallel; numbers [0, 1]") == PROCESSES
