"""The devices that a training runs on, and what they and their processes exchange.

One process, with any number of devices, is the rule; TensorFlow's MultiWorkerMirroredStrategy has several, and so has
JAX where processes were brought together (`processes.join`).
"""

import contextlib
import json
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import keras
import numpy as np
from keras import ops

from tf_simclr.errors import InputError, check
from tf_simclr.machine.signals import EXIT_CODES, Interrupted, Stopped
from tf_simclr.replicas import last_words, processes
from tf_simclr.replicas.fitting import feed, untuned_iterators
from tf_simclr.replicas.line import lost
from tf_simclr.terminal import addressed

_T = TypeVar("_T")


@dataclass(frozen=True)
class Devices:
    """What `find` found.  Make and compile a model within `scope()`, train it with `fit`.

    Several processes that share a training (`multi_worker`) all run the same program; only the first one, the chief,
    writes.  What reads a model's metrics has to run in all of them: these are summed over processes as they are read.

    Example:
        >>> import numpy as np, tensorflow as tf
        >>> devices = Devices()
        >>> with devices.scope():
        ...     model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        ...     model.compile("sgd", "mse")
        >>> data = tf.data.Dataset.from_tensors((np.ones((4, 2)), np.ones((4, 1)))).repeat()
        >>> history = devices.fit(model, data.skip, steps_per_epoch=2, verbose=0)
    """

    count: int = 1
    """Replicas over all processes, at least 1."""
    description: str = "one device"
    """What was found and what is made of it, for the user: "2 GPUs: MirroredStrategy"."""
    strategy: Any = None
    """A `tf.distribute.Strategy`, a `keras.distribution.DataParallel`, or None: one device."""

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """Variables that are made in this block are on all of these devices."""
        with self.strategy.scope() if self.strategy is not None else contextlib.nullcontext():
            yield

    def check_batch(self, batch_size: int) -> None:
        """Raises `InputError` unless a batch can be divided among the replicas."""
        rule = f"train_batch_size must be a multiple of the number of replicas ({self.description})"
        check(batch_size % self.count == 0, rule, train_batch_size=batch_size, replicas=self.count)

    def jit_compile(self, wanted: bool | None) -> bool | str:
        """What `compile` takes as `jit_compile`; None leaves it to Keras, which compiles for an accelerator alone.

        Raises:
            InputError: TensorFlow cannot compile a step that several replicas of it share.
        """
        if self.count == 1 or keras.backend.backend() != "tensorflow":
            # Keras' "auto" compiles where the backend's kind of device
            # gains by it; other backends decide for themselves.
            return "auto" if wanted is None else wanted
        tpu = self.description.startswith("TPU")
        # TensorFlow's XLA compiles a replica's function, in which collectives of MirroredStrategy cannot be.
        rule = "jit_compile must be None or False with several TensorFlow replicas"
        advice = "JAX compiles on any number of devices"
        check(tpu or not wanted, f"{rule}; {advice}", jit_compile=wanted, replicas=self.count)
        return False  # a TPU's program is compiled as a whole

    def fit(self, model: keras.Model, stream: Callable, *, step: int = 0, **options) -> dict[str, list[float]]:
        """Calls the model's `fit` on a stream.

        Args:
            model: compiled, made within `scope()`.
            stream: first step to endless global batches, a `tf.data.Dataset`; where several processes share a
                training it is called with `share=(number of the process, processes)`, too, and yields this part of
                each batch.
            step: the first one.
            **options: as Keras' `fit` takes them; `steps_per_epoch` must be among them.

        Returns:
            The history.

        Raises:
            InputError: another process of the training is gone.
        """
        with contextlib.ExitStack() as stack:
            # JAX's distribution is a setting of the process while it trains; TensorFlow's came with the variables.
            if keras.backend.backend() != "tensorflow":
                stack.enter_context(self.scope())
            stack.enter_context(self.together())
            stack.enter_context(untuned_iterators(self.strategy))
            data = feed(self.strategy, stream, step=step, process=self.process)
            return model.fit(data, shuffle=False, **options).history

    @property
    def process(self) -> tuple[int, int]:
        """This process's number and how many there are; `(0, 1)` alone."""
        return process(self.strategy)

    @property
    def chief(self) -> bool:
        """Whether this process writes files and speaks to the user: the first one; alone always."""
        return self.process[0] == 0

    def collect(self, value: Any) -> list[Any]:
        """What each process gives, plain JSON types, in the order of their numbers.  All of them must call it.

        Example:
            >>> Devices().collect({"step": 3})
            [{'step': 3}]
        """
        if self.process[1] == 1:
            return [value]
        # JSON as numbers, one int32 a byte: collectives take no strings.
        text = np.frombuffer(json.dumps(value).encode(), np.uint8).astype(np.int32)
        # The longest first, so that all rows can be padded to one shape.
        longest = int(exchange(self.strategy, np.array([len(text)], np.int32)).max())
        # JSON ignores spaces behind it.
        rows = exchange(self.strategy, np.pad(text, (0, longest - len(text)), constant_values=ord(" "))[None])
        return [json.loads(row.astype(np.uint8).tobytes()) for row in rows]

    def agree(self, what: str, value: Any) -> None:
        """Raises `InputError` in every process unless all of them give the same value.

        Args:
            what: a name for the value, for the message.
            value: plain JSON types.
        """
        # Every process finds the same disagreement and raises, or none does: nobody is left waiting for a collective.
        values = self.collect(value)
        if any(other != values[0] for other in values):
            found = "; ".join(f"worker {i} has {differing(other, values)}" for i, other in enumerate(values))
            raise InputError(f"{what} must be the same for every worker, but {found}")

    def by_chief(self, work: Callable[[], _T]) -> _T | None:
        """What the first process makes, for which the others wait; None in these.  All must call it.

        Raises:
            InputError: the first one refuses; all say the same.
        """
        found, refused = None, None
        try:
            found = work() if self.chief else None
        except InputError as error:
            refused = error
        # As its user reads it: no other process knows what the first one's paths stand for.
        told = self.collect(None if refused is None else addressed(str(refused)))[0]
        if refused is None and told is not None:
            refused = InputError(told)
        if refused is not None:
            self.part()
            raise refused
        return found

    def first_signal(self, here: signal.Signals | None) -> signal.Signals | None:
        """The signal that this process was sent, or if it was not, another one of them; all must call it."""
        if self.process[1] == 1:
            return here
        # One number a process, 0 for none: signals count from 1.
        sent = exchange(self.strategy, np.array([[here or 0]], np.int32))
        return here or (signal.Signals(int(sent.max())) if sent.any() else None)

    def part(self) -> None:
        """Returns when all processes have come so far; all must call it, last of all.

        A worker of TensorFlow that leaves while another one still reads what they exchanged would break that one's
        exchange.  Whoever comes back from the first one here knows that nobody needs it any more; whether all are
        still there for the second one does not matter.  JAX's processes wait for each other as they exit.
        """
        if self.process[1] == 1 or keras.backend.backend() != "tensorflow":
            return
        # The first exchange: all are done.  The second, which nobody needs, fails in those that a faster one has left.
        self.collect(None)
        try:
            self.collect(None)
        except Exception as error:
            if not _is_loss(error):
                raise

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Turns the report that another process is gone into an `InputError` that says what to do.

        Neither TensorFlow nor JAX can take a process back into a running training: all have to be started again.
        """
        number, count = self.process
        try:
            yield
        except Exception as error:
            if count == 1:
                raise
            if isinstance(error, _Lost):
                raise
            # What is the cause lies below the sentences of whoever ran the code: the chain is walked to its end.
            cause: BaseException | None = error
            while cause is not None and not _is_loss(cause):
                cause = cause.__cause__  # who ran code of others has made its own sentence of what it raised
            gone = cause is not None
            # Code 2 where there is a sentence to read, as everywhere in the command line.
            processes.leave(2 if gone or isinstance(error, InputError) else 1)
            if not gone:
                text = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
                last_words.leave(number, addressed(text))
                raise
            # What others have said, the first one keeps: without it nobody answers.
            said = {} if (first := processes.lost_first()) else last_words.heard(count, here=number)
            who = _with_reasons(said) if said else _who_is_gone(str(cause), first=first)
            raise _Lost(lost(number, count=count, who=who)) from error
        except (SystemExit, KeyboardInterrupt) as ended:
            # A signal to this process alone: before the training, or a second Ctrl-C.
            if count > 1 and not isinstance(ended, Stopped | Interrupted):
                code = EXIT_CODES[signal.SIGINT] if isinstance(ended, KeyboardInterrupt) else ended.code
                processes.leave(code if isinstance(code, int) else 1)
                last_words.leave(number, "a signal that it was sent")
            raise


class _Lost(InputError):
    """Another process is gone: what this one says is no reason of its own."""


ONE_DEVICE = Devices()
"""What there is without a strategy."""


def process(strategy) -> tuple[int, int]:
    """This process's number and how many there are."""
    if strategy is None:
        return 0, 1
    if keras.backend.backend() == "jax":
        return processes.process()
    import tensorflow as tf

    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 0, 1
    resolver = strategy.cluster_resolver
    cluster = resolver.cluster_spec().as_dict()
    # A chief is worker 0 of the count; TF_CONFIG numbers the others by themselves.
    chiefs = len(cluster.get("chief", ()))
    number = resolver.task_id + (chiefs if resolver.task_type == "worker" else 0)
    return number, max(1, chiefs + len(cluster.get("worker", ())))


def exchange(strategy, row: np.ndarray) -> np.ndarray:
    """Rows `(1, …)` of one shape from each process, stacked in the order of their numbers."""
    if keras.backend.backend() == "jax":
        return processes.exchange(row)
    import tensorflow as tf

    devices = strategy.num_replicas_in_sync // process(strategy)[1]
    values = strategy.experimental_distribute_values_from_function(lambda _: tf.constant(row))
    # Each device of a process gives the row: every devices-th is one process's.
    return strategy.gather(values, axis=0).numpy()[::devices]


def differing(value: Any, values: list[Any]) -> Any:
    """Of a dict, the entries that are not the same in all of them; anything else as it is.

    Example:
        >>> differing({"seed": 1, "depth": 18}, [{"seed": 0, "depth": 18}, {"seed": 1, "depth": 18}])
        {'seed': 1}
    """
    if not isinstance(value, dict):
        return value
    return {key: one for key, one in value.items() if any(other.get(key) != one for other in values)}


def _is_loss(error: BaseException) -> bool:
    """Whether this is how the backend tells that another process is gone."""
    if keras.backend.backend() == "jax":
        return processes.is_loss(error)
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return isinstance(error, tf.errors.UnavailableError | tf.errors.AbortedError | tf.errors.CancelledError)


def _who_is_gone(report: str, *, first: bool = False) -> str:
    """Of a backend's report of a lost process what tells a user which one, and why; `first`: it is known to be that.

    Example:
        >>> _who_is_gone("aborted by: Failed to connect to /job:worker/replica:0/task:1: closed")
        'worker 1 (aborted by: Failed to connect to /job:worker/replica:0/task:1: closed)'
    """
    reason = (report.strip().splitlines() or ["no reason was given"])[0]
    # "task:3" stands in TensorFlow's report of a lost worker; JAX's names none.
    named = ["0"] if first else sorted(set(re.findall(r"task:(\d+)", report)))
    which = f"worker{'s' if len(named) > 1 else ''} {', '.join(named)}" if named else "one"
    return f"{which} ({reason})"


def _with_reasons(said: dict[int, str]) -> str:
    """Who is gone, and why, by their own words.

    Example:
        >>> _with_reasons({1: "seed must be at least 0"})
        'worker 1, which ended with: seed must be at least 0'
    """
    return "; and ".join(f"worker {number}, which ended with: {text}" for number, text in said.items())


def count() -> int:
    """Number of replicas that share a step, 1 outside of a strategy."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


def synchronize() -> bool:
    """Whether BatchNorm has to gather statistics itself: with several TensorFlow replicas only.

    JAX's data parallelism computes one global batch; with one replica the synchronised layer is slower for nothing.
    """
    return count() > 1


def index():
    """This replica's number, a scalar int tensor or 0."""
    if count() == 1:
        return 0
    import tensorflow as tf

    # Outside of a replica's own function there is no index.
    context = tf.distribute.get_replica_context()
    return 0 if context is None else context.replica_id_in_sync_group


_UNEVEN = (
    "batches that {} replicas compare with one another must give each the same number of examples: give a batch_size "
    "and a number of examples that are multiples of it"
)


def told(error: Exception) -> InputError | None:
    """The sentence of `even`, `several` or `in_twos` in an error of TensorFlow, if it is there."""
    sentences = (_UNEVEN, ALONE, NORMALISED_ALONE, _ODD)
    found = re.search("|".join(re.escape(one).replace(r"\{\}", r"\d+") for one in sentences), str(error))
    return InputError(found[0]) if found else None


def total(examples):
    """Examples of all replicas, of the number that this one has: an integer, or a scalar tensor.

    A number that is known while the step is traced is the same for each replica; others are summed.
    """
    if count() == 1:
        return examples
    if isinstance(examples, int):
        return count() * examples
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return count() * examples if context is None else context.all_reduce(tf.distribute.ReduceOp.SUM, examples)


def even(x):
    """`x` `(n, …)`; the step fails with `_UNEVEN` unless every replica has as many examples.

    Known while the step is traced wherever a stream feeds it; Keras' `fit` and `evaluate` on arrays have a last batch.
    """
    if count() == 1 or x.shape[0] is not None:
        return x
    return _where(lambda rows: total(rows) == rows * count(), x, rule=_UNEVEN.format(count()))


def _where(holds: Callable, x, *, rule: str):
    """`x` `(n, …)`; raises `InputError`, or fails in the step, unless what is asked of n holds.

    Nothing fails in a step that XLA compiles: what it is given is looked at before (`models.base`).
    """
    check(x.shape[0] is None or holds(x.shape[0]), rule)
    if x.shape[0] is not None or keras.backend.backend() != "tensorflow":
        return x
    import tensorflow as tf

    fails = tf.debugging.Assert(holds(tf.shape(x)[0]), [rule])
    with tf.control_dependencies([fails] if fails is not None else []):
        return tf.identity(x)


ALONE = (
    "a batch must have at least two examples, as the loss compares each with the others: give a batch size by which "
    "none is left alone, or drop the remainder"
)


NORMALISED_ALONE = (
    "BatchNorm must see at least two examples at once, or an image is normalised by itself alone: give larger batches, "
    "by which none is left alone, or on several replicas statistics of all of them (global_bn)"
)
_ODD = (
    "microbatch_size must be at least 3 with BatchNorm for a batch of an odd number of examples: a piece of one would "
    "be normalised by itself alone"
)


def check_several(examples: int, *, batch_size: int, rule: str = ALONE) -> None:
    """Raises `InputError` with a rule where examples make a batch in which one of them is alone.

    Example:
        >>> check_several(9, batch_size=5)
    """
    alone = min(batch_size, examples) == 1 or examples % batch_size == 1
    check(not alone, rule, examples=examples, batch_size=batch_size)


def several(x, *, rule: str = ALONE):
    """`x` `(n, …)`; raises `InputError` with a rule, or fails in the step, if n is 1."""
    return _where(lambda rows: rows != 1, x, rule=rule)


def in_twos(x):
    """`x` `(n, …)`; raises `InputError`, or fails in the step, if n is odd and pieces of two would leave one alone."""
    return _where(lambda rows: rows % 2 == 0, x, rule=_ODD)


def gather(x):
    """Stacks `x` of every replica along axis 0, in the order of their numbers, with gradients to all of them.

    Every replica must give the same shape `(n, …)`, else the step fails with `_UNEVEN`; the result is `(count * n, …)`.
    Each replica writes its part into zeros and the parts are summed, which compiles on TPUs (the reference's
    `tpu_cross_replica_concat`).
    """
    replicas = count()
    if replicas == 1:
        return x
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None:  # Keras traces a step once outside of the replicas, for its shapes alone
        return ops.concatenate([x] * replicas)  # (count · n, …), values that nobody reads
    # (n, …) → (count, n, …) with this replica's rows in its own place and zeros elsewhere → their sum → (count · n, …).
    # The sum's gradient is a sum, too: what every replica owes this one's rows comes back to them.
    x = even(x)
    # (count,) with 1 at this replica's place → (count, 1, …, 1) · (1, n, …) → (count, n, …)
    place = ops.cast(ops.one_hot(context.replica_id_in_sync_group, replicas), x.dtype)
    parts = ops.reshape(place, (replicas,) + (1,) * len(x.shape)) * ops.expand_dims(x, 0)
    parts = context.all_reduce(tf.distribute.ReduceOp.SUM, parts)
    return ops.reshape(parts, (-1, *x.shape[1:]))
