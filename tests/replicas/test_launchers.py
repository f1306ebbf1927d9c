"""Processes meet by the variables of whoever started them: torchrun itself, and Slurm's and Open MPI's variables.

What `srun` and `mpirun` set for each process is set here for processes of this machine; they themselves are not there.
"""

import importlib.util
import os
import random
import subprocess
import sys

import pytest

from tests import golden
from tests.replicas.forked import Forks, wait
from tests.replicas.test_workers import free_ports

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs the `jax` extra"),
]
PROCESSES = 2


def slurm(number: int, job: int) -> dict[str, str]:
    """Of `srun --ntasks-per-node=2`, on one node."""
    return {
        "SLURM_JOB_ID": str(job),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": str(PROCESSES),
        "SLURM_PROCID": str(number),
        "SLURM_LOCALID": str(number),
        "SLURM_STEP_NUM_NODES": "1",
    }


def open_mpi(number: int, job: int) -> dict[str, str]:
    """Of `mpirun -n 2`, on one node."""
    return {
        "OMPI_MCA_orte_hnp_uri": f"{4096 * job}.0;tcp://127.0.0.1:34911",
        "OMPI_COMM_WORLD_SIZE": str(PROCESSES),
        "OMPI_COMM_WORLD_RANK": str(number),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(number),
    }


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize(("who", "variables"), [("Slurm", slurm), ("Open MPI", open_mpi)])
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
        assert f"JAX: process {number} of 2 (met by {who}), 2 CPUs in all: DataParallel; numbers [0, 1]" in text


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
