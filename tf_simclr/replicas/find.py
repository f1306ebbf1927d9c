"""Which devices there are, and the strategy that fits them: `find("auto")` looks and says what it found."""

import json
import os
from collections.abc import Callable
from contextlib import suppress

import keras

from tf_simclr.errors import InputError, check, first_line
from tf_simclr.frameworks import has_tensorflow, tf
from tf_simclr.machine.launchers import Meeting, host_and_port, started
from tf_simclr.replicas import processes
from tf_simclr.replicas.devices import Devices

_STRATEGIES = ("auto", "one", "mirrored", "multi_worker", "tpu", "data_parallel")
"""What `find` takes; the last one is JAX's, the three before it TensorFlow's."""


def find(
    strategy: str = "auto",
    *,
    num_replicas: int = 0,
    tpu_name: str | None = None,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    **tpu_place: str | None,
) -> Devices:
    """Finds the devices of this process and, with several processes, of all.  Call it before anything is computed.

    Where the processors do not train, see `leave_processors_to_input`.

    Args:
        strategy: `one`: the first device; `mirrored`: all GPUs of this machine, else its CPU; `multi_worker`: the
            processes of the environment variable `TF_CONFIG`; `tpu`; `data_parallel`: all of JAX's devices; `auto`:
            TF_CONFIG's processes, a TPU that is named here or by the environment, several GPUs, or one device – with
            JAX all of its devices.
        num_replicas: devices to take, the first ones; 0: all there are.  A CPU is divided into as many logical ones.
        tpu_name: the TPU's name or address, or `local`.
        coordinator: with JAX on several processes, `host:port` of the first one; None: what the environment says
            (JAX_COORDINATOR_ADDRESS, torchrun's variables, Slurm, Open MPI, Cloud TPU); `auto`: JAX looks for it.
        num_processes: how many processes there are, if not what the environment says.
        process_id: which of them this is.
        **tpu_place: `zone` and `project` of a TPU on Google Cloud.

    Raises:
        InputError: the strategy is not of this backend, what it needs is not there or malformed, or there are fewer
            devices.
    """
    check(strategy in _STRATEGIES, f"strategy must be one of {', '.join(_STRATEGIES)}", strategy=strategy)
    check(num_replicas >= 0, "num_replicas must be at least 0", num_replicas=num_replicas)
    backend = keras.backend.backend()
    if backend != "jax" and strategy == "auto":
        _check_alone(backend)
    # 1. Other backends than TensorFlow: one device, or JAX's own way of several.
    if backend != "tensorflow":
        fits = strategy in ("auto", "one") or (backend, strategy) == ("jax", "data_parallel")
        check(fits, "strategy must be auto, one or (JAX) data_parallel here", strategy=strategy, KERAS_BACKEND=backend)
        leave_processors_to_input()
        if backend == "jax":
            met = processes.join(coordinator, num_processes=num_processes, process_id=process_id)
            if not met and strategy == "auto":
                _check_alone(backend)
            return _on_jax(strategy, num_replicas, met=met)
        return Devices(1, f"{backend}: one device")
    # 2. TensorFlow: what is not its own is refused, then "auto" is settled.
    given = {"coordinator": coordinator, "num_processes": num_processes, "process_id": process_id}
    rule = "coordinator, num_processes and process_id are JAX's (KERAS_BACKEND=jax)"
    check(all(value is None for value in given.values()), f"{rule}; TensorFlow's workers are in TF_CONFIG", **given)
    check(strategy != "data_parallel", "data_parallel must be run with KERAS_BACKEND=jax", KERAS_BACKEND=backend)
    if strategy == "auto":
        strategy = _fitting_strategy(tpu_name, num_replicas)
    rule = f"num_replicas must be left out with strategy {strategy}"
    check(not num_replicas or strategy == "mirrored" or (strategy, num_replicas) == ("one", 1), rule, got=num_replicas)
    # 3. Where an accelerator computes, the processors are free for images.
    if strategy == "tpu" or _has_gpu():
        leave_processors_to_input()
    makers: dict[str, Callable[[], Devices]] = {
        "one": lambda: mirrored(1),
        "mirrored": lambda: mirrored(num_replicas, always=True),
        "multi_worker": multi_worker,
        "tpu": lambda: _on_tpu(tpu_name, **tpu_place),
    }
    return makers[strategy]()


def _check_alone(backend: str) -> None:
    """Refuses processes that a launcher has started and that would each train alone.

    Raises:
        InputError: there are such.
    """
    who = started()
    own = ("TF_CONFIG",) if backend == "tensorflow" else ()
    others = who not in (None, *own, "the TPU's machines", "the TPU's slices")
    cure = {
        "tensorflow": "set TF_CONFIG for each, or KERAS_BACKEND=jax",
        "jax": "give each --coordinator, --num_processes and --process_id",
    }.get(backend, "set KERAS_BACKEND=jax")
    rule = f"{backend}'s processes do not share a training by what {who} tells them: {cure}, or start one alone"
    check(not others, f"{rule} (--strategy one)", KERAS_BACKEND=backend)


def _has_gpu() -> bool:
    """Whether TensorFlow sees a GPU."""
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def accelerated() -> bool:
    """Whether something else than processors computes: a GPU or a TPU."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.default_backend() != "cpu"
    if backend == "torch":
        # Keras has no public name for the device of its PyTorch backend.
        from keras.src.backend.torch.core import get_device

        return get_device() not in ("cpu", "meta")
    import tensorflow as tf

    return _has_gpu() or bool(tf.config.list_logical_devices("TPU"))


def leave_processors_to_input() -> None:
    """Has TensorFlow use one thread for an operation, if it has not computed anything yet.

    Where something else trains, the processors make views, each an image of its own; of threads that share an image one
    waits for the other, and XLA would divide even an image's colours among all cores.
    """
    if not has_tensorflow():
        return
    # Too late once anything was computed: the setting is a matter of speed alone, so nothing is said.
    with suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(1)


def _fitting_strategy(tpu_name: str | None, num_replicas: int) -> str:
    """What `auto` means here."""
    import tensorflow as tf

    # A cluster of one is none: a command can be tried with the variables of a larger one.
    if os.environ.get("TF_CONFIG", "").strip() and len(cluster_of(os.environ["TF_CONFIG"])[0]) > 1:
        return "multi_worker"
    if tpu_name or any(os.environ.get(name) for name in ("TPU_NAME", "COLAB_TPU_ADDR")):
        return "tpu"
    several = len(tf.config.list_physical_devices("GPU")) > 1 or num_replicas > 1
    return "mirrored" if several else "one"


def mirrored(wanted: int, *, always: bool = False) -> Devices:
    """The GPUs of this machine, else its CPU; one without a strategy, unless one is wanted `always`."""
    import tensorflow as tf

    kind = "GPU" if _has_gpu() else "CPU"
    if kind == "CPU" and wanted > 1:
        _divide_cpu(wanted)
    # Logical devices exist from the first time that they are asked for: dividing comes before.
    devices = [device.name for device in tf.config.list_logical_devices(kind)]
    if kind == "CPU":
        wanted = wanted or 1  # logical CPUs share their cores: nobody wants all of them
    taken = first(devices, wanted, kind=kind)
    name = f"{len(taken)} {kind}{'s' if len(taken) > 1 else ''}"
    if not always:
        return Devices(1, name)
    # The default reduces with NCCL, and on CPUs by collectives that several strategies of one process confuse.
    reduction = tf.distribute.ReductionToOneDevice() if kind == "CPU" else None
    strategy = tf.distribute.MirroredStrategy(taken, cross_device_ops=reduction)
    return Devices(len(taken), f"{name}: MirroredStrategy", strategy)


def _divide_cpu(wanted: int) -> None:
    """Makes logical CPUs, which takes place before TensorFlow's first operation or not at all."""
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    # Divided before, by an earlier call in this process: `first` then says whether they are enough.
    if not tf.config.get_logical_device_configuration(cpu):
        try:
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * wanted)
        except RuntimeError as error:
            raise InputError(f"num_replicas must be set before TensorFlow computes anything ({error})") from error


def first(devices: list[str], wanted: int, *, kind: str) -> list[str]:
    """The first `wanted` devices, all for 0."""
    check(wanted <= len(devices), f"num_replicas must be at most the number of {kind}s", wanted=wanted, found=devices)
    return devices[: wanted or None]


def multi_worker() -> Devices:
    """All devices of the processes that TF_CONFIG names."""
    import tensorflow as tf

    # The form is checked by us, as TensorFlow hangs or aborts on much that is wrong.
    addresses, number = cluster_of(os.environ.get("TF_CONFIG", ""))
    if len(addresses) > 1:
        processes.check_free(addresses[number], what=f"worker {number} of TF_CONFIG")
        processes.assemble(Meeting(addresses[0], len(addresses), number))
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except (RuntimeError, tf.errors.OpError) as error:
        rule = "must be started once, before TensorFlow computes anything, and reach all others"
        who = f"worker {number} of TF_CONFIG ({addresses[number]})"
        raise InputError(f"{who} {rule}, but TensorFlow says: {first_line(error)}") from error
    count = strategy.num_replicas_in_sync
    found = f"TF_CONFIG: worker {number} of {len(addresses)}, {count} replicas in all: MultiWorkerMirroredStrategy"
    return Devices(count, found, strategy)


def _on_tpu(name: str | None, **place: str | None) -> Devices:
    """The TPU of this name, else the one that the environment names, else one in this machine (Colab, TPU VM).

    As the reference does: resolve, connect, initialise.  It was never run on a TPU.

    Raises:
        InputError: there is none, with what was tried.
    """
    import tensorflow as tf

    failures = []
    # A name alone is looked for; without one first what the environment names, then a TPU of this machine.
    for address in [name] if name else ["", "local"]:
        try:
            given = {"tpu": address, **{key: value for key, value in place.items() if value}} if address else {}
            resolver = tf.distribute.cluster_resolver.TPUClusterResolver(**given)
            tf.config.experimental_connect_to_cluster(resolver)
            tf.tpu.experimental.initialize_tpu_system(resolver)
            strategy = tf.distribute.TPUStrategy(resolver)
        except (ValueError, RuntimeError, OSError, ImportError, tf.errors.OpError) as error:
            asked = address or "TPU_NAME, COLAB_TPU_ADDR and the metadata of the machine"
            failures.append(f"{asked}: {first_line(error)}")
            continue
        count, hosts = strategy.num_replicas_in_sync, max(1, strategy.extended.num_hosts)
        where = f"{count} cores, {hosts} host{'s' if hosts > 1 else ''}"
        return Devices(count, f"TPU {resolver.master() or 'local'}: {where}: TPUStrategy", strategy)
    rule = f"strategy tpu must find a TPU that this TensorFlow can use, but it found none. Tried: {'; '.join(failures)}"
    advice = "Today's Colab and Cloud TPU machines are reached through JAX: KERAS_BACKEND=jax and strategy auto"
    raise InputError(f"{rule}. {advice}")


def _on_jax(strategy: str, wanted: int, *, met: str = "") -> Devices:
    """JAX's devices, of all processes; several of them under `keras.distribution.DataParallel`.

    Args:
        strategy: as in `find`.
        wanted: how many; 0: all.
        met: who brought several processes together.
    """
    number, count = processes.process()
    if count > 1:
        # Each process has devices of its own, all of which take part.
        rule = f"strategy must be auto or data_parallel and num_replicas be left out with {count} processes"
        check(strategy != "one" and not wanted, rule, strategy=strategy, num_replicas=wanted)
    devices = keras.distribution.list_devices()
    kind = devices[0].split(":")[0].upper()
    hint = "XLA_FLAGS=--xla_force_host_platform_device_count=N divides a CPU" if kind == "CPU" else "take fewer"
    check(wanted <= len(devices), f"num_replicas must be at most JAX's devices; {hint}", wanted=wanted, found=devices)
    # All of them, the first `wanted`, or one.
    taken = devices[: 1 if strategy == "one" else wanted or None]
    if len(taken) == 1:
        return Devices(1, f"JAX: 1 {kind}")
    # The stream gives each process its own rows already: Keras must not divide them again.
    distribution = keras.distribution.DataParallel(devices=taken, auto_shard_dataset=False)
    where = f"process {number} of {count} (met by {met}), " if count > 1 else ""
    return Devices(len(taken), f"JAX: {where}{len(taken)} {kind}s{' in all' * (count > 1)}: DataParallel", distribution)


_FORM = '{"cluster": {"worker": ["host:port", …]}, "task": {"type": "worker", "index": 0}}'


def cluster_of(text: str) -> tuple[list[str], int]:
    """Every process's address, a chief's first, and which of them this is.

    Args:
        text: of TF_CONFIG.

    Raises:
        InputError: it is no JSON, or not of the form that TensorFlow's guide has.

    Example:
        >>> cluster_of('{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}')
        (['a:1', 'b:1'], 1)
    """
    rule = f"TF_CONFIG must have the form {_FORM}"
    try:
        config = json.loads(text)
        jobs, task = config["cluster"], config["task"]
        known = set(jobs) <= {"chief", "worker"} and len(jobs.get("chief", [])) <= 1
        addresses = [*jobs.get("chief", []), *jobs.get("worker", [])]
        # Every address once and well-formed: a worker that waits for an address that nobody has waits for ever.
        whole = type(task["index"]) is int
        fits = known and whole and 0 <= task["index"] < len(jobs[task["type"]]) and all(map(host_and_port, addresses))
        number = task["index"] + (len(jobs.get("chief", [])) if task["type"] == "worker" else 0)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"{rule}. Received: {text or 'nothing'} ({type(error).__name__}: {error})") from error
    check(fits, rule, TF_CONFIG=text)
    check(len(set(addresses)) == len(addresses), "TF_CONFIG must name every address once", TF_CONFIG=text)
    return addresses, number
