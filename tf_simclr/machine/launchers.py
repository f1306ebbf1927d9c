"""Who started several processes, which of them this is, and where they meet: by options, else by the environment."""

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tf_simclr.errors import InputError, check

_Environment = Mapping[str, str]


def number_in(text: str) -> int | None:
    """The number that is written in a text, by the digits 0 to 9 and at most 18 of them; None where it is none.

    Example:
        >>> number_in("29500"), number_in("-1"), number_in("²"), number_in("9" * 5000)
        (29500, None, None, None)
    """
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def host_and_port(address: object) -> tuple[str, int] | None:
    """What an address names, its host without an IPv6 address' brackets; None where it is not of the form host:port.

    Example:
        >>> host_and_port("10.0.0.2:2222"), host_and_port("[::1]:80"), host_and_port("a..b:80")
        (('10.0.0.2', 2222), ('::1', 80), None)
    """
    # The last colon is the port's: an address of IPv6 has more of them.
    host, _, port = address.rpartition(":") if isinstance(address, str) else ("", "", "")
    host, number = host.strip("[]"), number_in(port) or 0
    try:
        host.encode("idna")  # as the system's own search for the host does
    except UnicodeError:
        return None
    return (host, number) if re.fullmatch(r"[^\s\0]+", host) and 0 < number < 65536 else None


@dataclass(frozen=True)
class Meeting:
    """Where processes meet, how many, and which of them this is."""

    address: str
    """`host:port` of the first process."""
    processes: int
    number: int
    device: int | None = None
    """The accelerator of this machine that is this process's, where several processes share it; None: all of them."""

    def __post_init__(self) -> None:
        rule = "the coordinator must be given as host:port, of the first process"
        check(host_and_port(self.address), rule, coordinator=self.address)
        check(self.processes >= 1, "num_processes must be at least 1", num_processes=self.processes)
        rule = f"process_id must be from 0 to {self.processes - 1}, another one for each process"
        check(0 <= self.number < self.processes, rule, process_id=self.number)

    @property
    def place(self) -> tuple[str, int]:
        """Host and port."""
        return host_and_port(self.address) or ("", 0)  # it is of that form, as was checked above


@dataclass(frozen=True)
class _Launcher:
    """Names of the variables that a launcher sets for each process that it starts."""

    counts: tuple[str, ...]
    """How many there are: the first of these that is set."""
    number: str
    local_count: Callable[[_Environment], int]
    """How many share this process's machine; 0 where nothing says it."""
    local_number: str
    address: Callable[[_Environment], str]
    """Where the first process can be met."""
    mark: tuple[str, str] = ("", "")
    """A variable, and how it begins, that tells this launcher from those that set the same names."""

    def count(self, environment: _Environment) -> str:
        """The name of the variable that has the number of processes."""
        return next((name for name in self.counts if environment.get(name)), self.counts[-1])

    def marked(self, environment: _Environment) -> bool:
        """Whether it has left its mark."""
        name, beginning = self.mark
        return bool(environment.get(name)) and environment[name].startswith(beginning)


def _reader(name: str) -> Callable[[_Environment], int]:
    """Reads a variable that holds a number; 0 where it holds none."""
    return lambda environment: number_in(environment.get(name, "")) or 0


def _of_torchrun(environment: _Environment) -> str:
    """torchrun listens at MASTER_PORT itself, for PyTorch's own meeting, so that this one is at the port beside it.

    Example:
        >>> _of_torchrun({"MASTER_ADDR": "a", "MASTER_PORT": "29500", "TORCHELASTIC_USE_AGENT_STORE": "True"})
        'a:29501'
    """
    host, port = environment.get("MASTER_ADDR", ""), environment.get("MASTER_PORT", "")
    taken = number_in(port)
    if taken is not None and environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        port = str(taken + (1 if taken < 65535 else -1))
    return f"{host}:{port}"


def _of_open_mpi(environment: _Environment) -> str:
    """Open MPI 5 says which machine `mpirun` runs on, whose first process is commonly process 0, and its process id.

    Example:
        >>> two_machines = {"OMPI_COMM_WORLD_LOCAL_SIZE": "2", "OMPI_COMM_WORLD_SIZE": "4"}
        >>> _of_open_mpi({"PMIX_NAMESPACE": "prterun-node-7-3787@1", **two_machines})
        'node-7:65227'
    """
    started_on, _, number = environment.get("PMIX_NAMESPACE", "").partition("@")[0].rpartition("-")
    host = started_on.partition("-")[2]
    here = environment.get("OMPI_COMM_WORLD_LOCAL_SIZE") == environment.get("OMPI_COMM_WORLD_SIZE")
    return f"{'127.0.0.1' if here else host}:{_port(number_in(number) or 0)}"


def _of_mpich(environment: _Environment) -> str:
    """MPICH and Intel MPI say nothing of other machines: processes of one machine alone can meet without an address."""
    here = environment.get("MPI_LOCALNRANKS") == environment.get("PMI_SIZE")
    return f"127.0.0.1:{_port(0)}" if here else ""


def _of_slurm(environment: _Environment) -> str:
    """The first machine of the step, by which `srun` numbers its tasks, at a port of the job's and step's own.

    Example:
        >>> _of_slurm({"SLURM_STEP_NODELIST": "gpu[007-009,12]-ib,cpu1", "SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "0"})
        'gpu007-ib:62055'
    """
    # Names, of which numbers in brackets make several: the first of the first.
    first = re.match(r"(?:[^,\[]|\[[^\]]*\]?)*", environment["SLURM_STEP_NODELIST"])
    host = re.sub(r"\[(\d*)[^\]]*\]?", r"\1", first[0] if first else "")
    job, step = (_reader(name)(environment) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    return f"{host}:{_port(job + 97 * step)}"


def _slurm_s_tasks(environment: _Environment) -> int:
    """Tasks of the step on this machine.

    Example:
        >>> [_slurm_s_tasks({"SLURM_STEP_TASKS_PER_NODE": "8(x3),2", "SLURM_NODEID": str(n)}) for n in (0, 2, 3)]
        [8, 8, 2]
    """
    text = environment.get("SLURM_STEP_TASKS_PER_NODE") or environment.get("SLURM_TASKS_PER_NODE", "")
    each = [[int(count)] * int(times or 1) for count, times in re.findall(r"([0-9]{1,9})(?:\(x([0-9]{1,6})\))?", text)]
    found, here = [count for counts in each for count in counts], _reader("SLURM_NODEID")(environment)
    return found[here] if here < len(found) else 0


def _port(number: int) -> int:
    """One of the last 4,096, by a job's number: two jobs seldom collide."""
    return 65536 - 4096 + number % 4096


_OF_JAX = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
_LAUNCHERS = {
    "torchrun": _Launcher(
        ("WORLD_SIZE",),
        "RANK",
        _reader("LOCAL_WORLD_SIZE"),
        "LOCAL_RANK",
        address=_of_torchrun,
        mark=("TORCHELASTIC_RUN_ID", ""),
    ),
    "Open MPI": _Launcher(
        ("OMPI_COMM_WORLD_SIZE",),
        "OMPI_COMM_WORLD_RANK",
        _reader("OMPI_COMM_WORLD_LOCAL_SIZE"),
        "OMPI_COMM_WORLD_LOCAL_RANK",
        address=_of_open_mpi,
        mark=("PMIX_NAMESPACE", "prte"),  # its `mpirun`'s; Slurm's own begins otherwise
    ),
    "MPICH": _Launcher(
        ("PMI_SIZE",),
        "PMI_RANK",
        _reader("MPI_LOCALNRANKS"),
        "MPI_LOCALRANKID",
        address=_of_mpich,
        mark=("MPI_LOCALNRANKS", ""),
    ),
    # The step's own number first: in a shell of `salloc` the other one is the job's, and the step has one task.
    "Slurm": _Launcher(
        ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"),
        "SLURM_PROCID",
        _slurm_s_tasks,
        "SLURM_LOCALID",
        address=_of_slurm,
        mark=("SLURM_STEP_NODELIST", ""),
    ),
}
"""The innermost first: `srun` may start `mpirun`'s and torchrun's own processes, which start those of the training."""
_BARE = "torchrun"
"""Whose variables are set by hand, too, without its mark."""
_KNOWN_TO_JAX = {
    "Open MPI": ("OMPI_MCA_orte_hnp_uri", "OMPI_COMM_WORLD_SIZE"),
    "the TPU's slices": ("MEGASCALE_COORDINATOR_ADDRESS", "MEGASCALE_NUM_SLICES"),
}
"""Who starts processes whose variables JAX reads itself: one that is there if it started this process, the number."""


def meeting(
    coordinator: str | None = None,
    *,
    num_processes: int | None = None,
    process_id: int | None = None,
    environment: _Environment = os.environ,
) -> Meeting | None:
    """What options say, else the environment; None: this process is alone, or JAX finds the others by itself.

    Raises:
        InputError: something of it is missing or malformed.

    Example:
        >>> meeting("10.0.0.1:1234", num_processes=2, process_id=1)
        Meeting(address='10.0.0.1:1234', processes=2, number=1, device=None)
    """
    given = {"coordinator": coordinator, "num_processes": num_processes, "process_id": process_id}
    # 1. Options come first: whoever gives them knows better than a launcher's variables.
    if any(value is not None for value in given.values()):
        rule = "coordinator, num_processes and process_id must be given together: --coordinator HOST:PORT "
        check(None not in given.values(), rule + "--num_processes N --process_id I", **given)
        return Meeting(str(coordinator), int(num_processes or 0), int(process_id or 0))
    # 2. JAX's own variables, all three.  3. A launcher's numbers, with its address or the one that was set for it.
    address, *numbers = (environment.get(name, "") for name in _OF_JAX)
    who = _launcher(environment)
    if any(numbers) or (address and who is None and launched(environment) is None):
        rule = f"{', '.join(_OF_JAX)} must be set together, or none of them"
        found = dict(zip(_OF_JAX, (address, *numbers), strict=True))
        check(all(found.values()), rule, **{name: value for name, value in found.items() if value})
        count, number = _numbers(dict(zip(_OF_JAX[1:], numbers, strict=True)))
        return Meeting(address, count, number) if count > 1 else None
    if who is None:
        return None
    names = _LAUNCHERS[who]
    wanted = (names.count(environment), names.number)
    count, number = _numbers({name: environment.get(name, "") for name in wanted})
    if count == 1:
        return None
    address = address or names.address(environment)
    rule = f"{_OF_JAX[0]}=HOST:PORT, of the first process, must be set where {who} starts processes on several machines"
    check(address, rule)
    here, local = names.local_count(environment), number_in(environment.get(names.local_number, ""))
    shared = here > 1 and not _has_its_own(environment, here)
    return Meeting(address, count, number, local if shared else None)


def _has_its_own(environment: _Environment, here: int) -> bool:
    """Whether a process sees its own accelerators alone, of a machine that several share.

    Args:
        environment: of the process.
        here: processes of its machine.

    Example:
        >>> _has_its_own({"CUDA_VISIBLE_DEVICES": "3"}, 4), _has_its_own({"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, 4)
        (True, False)
    """
    seen = next((found for name in _SEEN if (found := environment.get(name))), None)
    return bool(environment.get("SLURM_GPUS_PER_TASK")) or (seen is not None and len(seen.split(",")) < here)


_SEEN = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
"""Variables that name the accelerators that a process sees."""


def _numbers(found: Mapping[str, str]) -> list[int]:
    """Of variables, which must hold whole numbers."""
    numbers = [number for value in found.values() if (number := number_in(value)) is not None]
    check(len(numbers) == len(found), f"{' and '.join(found)} must be whole numbers", **found)
    return numbers


def _launcher(environment: _Environment) -> str | None:
    """Which launcher of `_LAUNCHERS` started this process; None: none of them, or one that JAX knows better.

    Raises:
        InputError: it says that there are several processes, but not all that is needed.
    """
    if any(environment.get(mark) and environment.get(count) for mark, count in _KNOWN_TO_JAX.values()):
        return None
    # 1. Who has left a mark.  2. torchrun's variables alone, which people set by themselves.
    for who in (*(who for who, names in _LAUNCHERS.items() if names.marked(environment)), _BARE):
        names = _LAUNCHERS[who]
        count = environment.get(names.count(environment), "")
        if not count:
            continue
        needed = (names.number, *(("MASTER_ADDR",) if who == "torchrun" else ()))
        missing = [name for name in needed if not environment.get(name)]
        if not missing:
            return who
        rule = f"{', '.join(missing)} must be set, too, where {names.count(environment)} says that there are several"
        check(count in ("0", "1"), f"{rule} processes", **{names.count(environment): count})
    return None


def launched(environment: _Environment = os.environ) -> str | None:
    """Who started several processes whose variables JAX reads by itself; None: nobody.

    Example:
        >>> launched({"TPU_WORKER_HOSTNAMES": "t-0,t-1"})
        "the TPU's machines"
    """
    # A number above 1 is asked for, too: there may be a job of one process.
    for who, (mark, count) in _KNOWN_TO_JAX.items():
        if environment.get(mark) and (number_in(environment.get(count, "")) or 0) > 1:
            return who
    hosts = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES", "")
    return "the TPU's machines" if "," in hosts else None


def started(environment: _Environment = os.environ) -> str | None:
    """Whose variables say that this is one of several processes, of any backend; None: nobody's.

    Example:
        >>> started({"MASTER_ADDR": "a", "MASTER_PORT": "1", "WORLD_SIZE": "2", "RANK": "1"})
        'torchrun'
        >>> started({"TF_CONFIG": '{"cluster": {"worker": ["a:1", "b:1"]}}'})
        'TF_CONFIG'
    """
    counts = {"JAX": environment.get(_OF_JAX[1], "")}
    try:
        who = _launcher(environment)
    except InputError:  # whoever needs it says what is missing
        who = None
    if who is not None:
        counts[who] = environment.get(_LAUNCHERS[who].count(environment), "")
    for name, count in counts.items():
        if (number_in(count) or 0) > 1:
            return name
    try:
        jobs = json.loads(environment.get("TF_CONFIG") or "{}").get("cluster", {})
        workers = sum(len(jobs.get(job, ())) for job in ("chief", "worker"))
    except (ValueError, TypeError, AttributeError, RecursionError):
        workers = 0  # whoever needs it says what is wrong with it
    return "TF_CONFIG" if workers > 1 else launched(environment)
