"""Several processes of JAX that share a training: how they meet, what they exchange, and what each computes alone.

Every process runs the same program on its own devices; a step's arrays lie on the devices of all of them, and a
compiled computation on such arrays needs every process.  What one process computes by itself – a test by nearest
neighbours, the files of the end – computes on its own copy (`alone`).
"""

import atexit
import contextlib
import os
import re
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from tf_simclr.errors import InputError, check, first_line
from tf_simclr.machine.launchers import Meeting, launched, meeting, number_in
from tf_simclr.replicas.life import Life
from tf_simclr.replicas.line import Line, end
from tf_simclr.replicas.roll_call import answer, call

_TIMEOUT = "TF_SIMCLR_MEETING_SECONDS"
"""Variable of the environment: seconds that a process waits for the others to appear; 300 where it is not set."""
_MORE = f"or give them more time by {_TIMEOUT}: what each reads in a bucket, it fetches before"
_LONGEST = 10**6
"""Seconds that it may wait at most, eleven days; a timer takes not much more."""
_PATIENCE = 10.0
"""Seconds that a process which is done waits for the others to be done, too."""
_MOMENT = 1.0
"""Seconds in which the system tells all connections of a process that it is gone."""
_LINES: list[Line] = []
"""To the first process; none in that one, where JAX has found it by itself, and alone."""
_LOSS = re.compile(
    r"^(UNKNOWN|UNAVAILABLE|ABORTED|CANCELLED|INTERNAL|DEADLINE_EXCEEDED): .*"
    r"(gloo|nccl|connection|socket|peer|heartbeat|coordination|barrier|preempt)",
    re.IGNORECASE | re.DOTALL,
)


def join(coordinator: str | None = None, *, num_processes: int | None = None, process_id: int | None = None) -> str:
    """Waits for the other processes, if there are any, and returns who brought them together, else "".

    Call it before JAX computes anything.  A coordinator of `auto` leaves all to `jax.distributed`.

    Raises:
        InputError: they do not come together, and why.
    """
    import jax

    # A program that has met by itself, as on a TPU pod, is left as it is.
    if jax.distributed.is_initialized():
        return "jax.distributed"
    if coordinator == "auto":
        rule = "num_processes and process_id must be left out with coordinator auto"
        check(num_processes is None and process_id is None, rule, num_processes=num_processes, process_id=process_id)
        return _initialize("jax.distributed")
    met = meeting(coordinator, num_processes=num_processes, process_id=process_id)
    if met is None:
        who = launched()
        return _initialize(who) if who else ""
    if met.processes == 1:
        return ""
    # All wait here until all have come: JAX would wait without a word, and then end them without a sentence.
    if met.number == 0:
        check_free(met.address, what="the coordinator (process_id 0)")
    assemble(met)
    # Told all, JAX must not look for more: in a job of Slurm it would take one accelerator alone.
    device = None if met.device is None else [met.device]
    place = {"coordinator_address": met.address, "num_processes": met.processes, "process_id": met.number}
    if met.number:
        _LINES.append(Line(met.place, number=met.number, count=met.processes))
        place["coordinator_address"] = _LINES[0].address
    return _initialize(met.address, **place, local_device_ids=device, cluster_detection_method="deactivate")


def assemble(met: Meeting) -> None:
    """Waits until all processes have come to where they meet; the first one listens there.

    Raises:
        InputError: who has not come in time, or came twice.
    """
    patience = _timeout()
    if met.number:
        answer(met.place, met.number, count=met.processes, seconds=patience)
    else:
        call(met.place, met.processes, seconds=patience, who=met.address, more=_MORE)


def _initialize(who: str, **place: Any) -> str:
    """Meets the other processes, at a place or where JAX finds them, and agrees on a seed where none was set."""
    import jax
    from jax._src import distributed  # JAX gives its client no public name
    from keras.src.backend.jax.distribution_lib import initialize_rng  # what keras.distribution.initialize does then

    # Else JAX aborts this process, in the midst of anything, as soon as it hears that another one is gone; so a step
    # fails that needs that one, and this one ends with a sentence (`leave`).
    jax.config.update("jax_enable_recoverability", True)
    # Else JAX takes SIGTERM for a notice to its own service, which nobody asks here: a process that is to end before
    # its training begins would go on.  The training itself has all stop after the same step.
    if hasattr(jax.config, "jax_enable_preemption_service"):
        jax.config.update("jax_enable_preemption_service", False)
    patience = _timeout()
    # The timer is ours: JAX's own timeout aborts the process without a sentence.
    late = threading.Timer(patience, _give_up, args=(who, patience))
    late.daemon = True
    late.start()
    try:
        # Twice as long, so that ours is always the first.
        jax.distributed.initialize(**place, initialization_timeout=2 * patience)
        _check_even(jax.devices(), jax.process_count())  # asked for them, each connects to each
        # One seed for all, as for `keras.distribution.initialize`.
        initialize_rng()
    except InputError:
        leave(2)
        raise
    except (RuntimeError, ValueError) as error:
        rule = f"all processes must meet before JAX computes anything, each with a number of its own ({who})"
        advice = "start all of them, with the same coordinator and num_processes"
        raise InputError(f"{rule}, but this one could not join: {first_line(error)}; {advice}") from error
    finally:
        late.cancel()
    line = _LINES[0] if _LINES else None
    life = Life(distributed.global_state.client, jax.process_index(), count=jax.process_count(), line=line)
    life.begin()
    atexit.register(_part, life)
    return who


def _check_even(devices: list[Any], count: int) -> None:
    """Refuses processes with different numbers of devices; JAX would fail on an assertion, in one after the other.

    Raises:
        InputError: so it is; all processes know of all devices, and say the same.
    """
    each = Counter(device.process_index for device in devices)
    rule = "each process must have as many devices as the others, to share each batch with them evenly"
    check(len(set(each.values())) == 1, rule, **{f"process_{number}": each[number] for number in range(count)})


def _part(life: Life) -> None:
    """Ends the meeting: nobody goes before all are done, and the first process, where they meet, goes last.

    JAX has a barrier of its own for that, but not for processes that outlive each other; it would abort those that are
    slower.  A process that ends while the others go on waits seconds for them, then it is a lost one.
    """
    import jax
    from jax._src.distributed import global_state  # JAX gives its barrier no public name

    if global_state.client is None:
        return
    life.part()
    try:
        # The barrier's seconds in milliseconds.
        global_state.client.wait_at_barrier("tf_simclr: the end", int(1000 * _PATIENCE))
    except jax.errors.JaxRuntimeError:
        if not _LINES:
            return
    for line in _LINES:
        line.part()
    if jax.process_index() == 0:
        # Where they meet is the first process: it outlives the others, who say goodbye to it.
        time.sleep(_PATIENCE / 10)
    else:
        jax.distributed.shutdown()


def check_free(address: str, *, what: str) -> None:
    """Refuses a port of this machine that another program has: neither backend's own report names it.

    Args:
        address: `host:port`.
        what: what is to listen there, and who it is: "the coordinator (process_id 0)".

    Raises:
        InputError: so it is.
    """
    host, _, port = address.rpartition(":")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as one:
        # Ports that a training has just left stay half open for minutes; they are free for this purpose.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("", int(port)))
        except OSError as error:
            rule = f"port {port} of {what}, {address}, must be free there, but it is taken ({error.strerror})"
            advice = "stop that, or choose another port"
            raise InputError(f"{rule}: by another training, or by this one started twice; {advice}") from error


def _timeout(environment: Mapping[str, str] = os.environ) -> int:
    """Seconds that a process waits for the others to appear.

    Example:
        >>> _timeout({}), _timeout({"TF_SIMCLR_MEETING_SECONDS": "20"})
        (300, 20)
    """
    given = environment.get(_TIMEOUT, "300")
    seconds = number_in(given) or 0
    rule = f"{_TIMEOUT} must be a whole number of seconds, from 1 to {_LONGEST}"
    check(0 < seconds <= _LONGEST, rule, **{_TIMEOUT: given})
    return seconds


def _give_up(who: str, seconds: int) -> None:
    """Ends a process whose meeting takes too long; JAX would abort it, without a word of what to do."""
    end(
        f"all processes must meet within {seconds} s ({who}), but this one could not join: at least one has not come, "
        f"or has ended meanwhile; start all of them again, {_MORE}"
    )


def process() -> tuple[int, int]:
    """This process's number and how many there are."""
    import jax

    return jax.process_index(), jax.process_count()


def exchange(row: np.ndarray) -> np.ndarray:
    """Rows `(1, …)` of one shape from each process, stacked in the order of their numbers."""
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(row[0]))


def rows_here(array: Any) -> Any:
    """Of a global batch's array the rows that lie on this process's devices; anything else as it is."""
    if getattr(array, "is_fully_addressable", True):
        return array
    # Rows in the order of this process's devices.
    return np.concatenate([np.asarray(shard.data) for shard in array.addressable_shards])


def is_loss(error: BaseException) -> bool:
    """Whether this is how JAX tells that another process is gone: by a collective that failed on the way.

    Example:
        >>> is_loss(ValueError("UNKNOWN: Gloo AllGather failed: Connection closed by peer"))
        True
        >>> is_loss(ValueError("the batch is empty"))
        False
    """
    import jax

    # JAX raises both kinds for a collective that failed, and for much else: the words decide.
    return isinstance(error, jax.errors.JaxRuntimeError | ValueError) and _LOSS.search(str(error)) is not None


def lost_first() -> bool:
    """Whether the process that is gone is the first one, which this one may hear a moment after the step has failed."""
    return any(line.lost.wait(_MOMENT) for line in _LINES)


def leave(code: int) -> None:
    """Has this process end, when it ends, at once: others have failed, or it has, and the others learn it by that.

    JAX would first wait for those that are gone, minutes, and then abort; and if the first process left in good order,
    it would abort the others before they could say why they end.

    Args:
        code: to end with.
    """

    def at_exit() -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        # Not sys.exit: threads of the backend wait for the lost process and would keep this one.
        os._exit(code)

    if keras.backend.backend() == "jax":
        atexit.register(at_exit)  # the last that is registered is the first that runs


@contextlib.contextmanager
def alone(model: keras.Model, *, keep: bool = False) -> Iterator[None]:
    """Within, the model's variables are this process's own copies, and it computes by itself, on its first device.

    Args:
        model: whose variables lie on the devices of all processes, each of them whole on each.
        keep: they stay so afterwards: the model does not train any more.
    """
    if keras.backend.backend() != "jax" or process()[1] == 1:
        yield
        return
    import jax.numpy as jnp

    optimizer = getattr(model, "optimizer", None) if keep else None  # nobody looks at it while the model trains
    variables = {id(v): v for v in (*model.variables, *(optimizer.variables if optimizer else ()))}
    # Value and layout of each, to be put back; the copies live on the first device.
    shared = [(variable, variable._value, variable._layout) for variable in variables.values()]
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        for variable, value, _ in shared:
            # Every device of a data-parallel training has the whole value: the first one's is all of it.
            variable._value = jnp.copy(value.addressable_data(0))  # computing alone may use up what it is given
            variable._layout = None
        yield
    finally:
        # `keep`: the training is over, and nobody goes on together.
        if not keep:
            for variable, value, layout in shared:
                variable._value, variable._layout = value, layout
        keras.distribution.set_distribution(distribution)
