"""`fit` on replicas: the data that each gets, and steps where Keras 3.15 has none that work.

What Keras has fails with several steps per execution (keras-team/keras issue 19246) and with several processes (issue
20585).  Overrides private methods of Keras; `tests/replicas` runs each of them.
"""

import contextlib
from collections.abc import Callable, Iterator

import keras

from tf_simclr.errors import InputError, check
from tf_simclr.frameworks import untuned

_MAKER = "_create_device_dataset"
"""Of TensorFlow's module of iterators of several devices: what one device's is made of."""


def strategy_of(model: keras.Model):
    """The TensorFlow strategy with several replicas under which a model was made; else None."""
    strategy = model.distribute_strategy if keras.backend.backend() == "tensorflow" else None
    return strategy if strategy is not None and strategy.num_replicas_in_sync > 1 else None


class FitOnReplicas:
    """Mix into a `keras.Model`, before it: `fit`, `evaluate` and `train_on_batch` work on replicas of any kind.

    A step takes the global batch: `train_on_batch` divides it, `Devices.fit` has `fit` do it.  Logs are the means over
    replicas of what `get_metrics_result` gives.
    """

    def _make_function(self, step_function: Callable, **options):
        """Keras' maker of train and test functions: `steps_per_execution` steps, then the logs."""
        strategy = strategy_of(self)
        if strategy is None:
            return super()._make_function(step_function, **options)
        import tensorflow as tf

        execution = _execution_on(strategy, step_function, logs_of=self.get_metrics_result)
        # run_eagerly is for debugging: Python then sees every step.
        several, one = (f if self.run_eagerly else tf.function(f, reduce_retracing=True) for f in execution)

        def function(iterator):
            if not isinstance(iterator, tf.distribute.DistributedIterator):
                # Batches given by hand, as by `train_on_batch`, are divided here; a stream comes divided.
                return one(divided(strategy, next(iterator)))
            try:
                return several(iterator, self.steps_per_execution)
            # Keras ends an epoch on StopIteration, as of a Python iterator.
            except tf.errors.OutOfRangeError:
                raise StopIteration from None

        return function

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Builds what is not built from the data's specification; Keras would read a batch, and fails on workers."""
        strategy = strategy_of(self)
        if strategy is None:
            if keras.backend.backend() == "tensorflow":
                super()._maybe_symbolic_build(iterator=iterator, data_batch=data_batch)
            return
        # Shapes alone: reading a batch to learn its shape would take it from the training.
        if iterator is not None:
            data_batch = _of_first_replica(iterator._distributed_dataset.element_spec)
        with strategy.scope():
            self._symbolic_build(data_batch=data_batch)


def _execution_on(strategy, step_function: Callable, *, logs_of: Callable[[], dict]) -> tuple[Callable, Callable]:
    """Two functions, of an iterator and a number of steps, and of one batch, that return the logs.

    The loop over the steps is on the devices' host, as in the reference: what TPUs need, and what works elsewhere.
    """
    import tensorflow as tf

    @tf.autograph.experimental.do_not_convert
    def step(batch):
        # Losses, gradients and metrics of each replica; what is summed over replicas is summed within.
        strategy.run(step_function, args=(batch,))

    @tf.autograph.experimental.do_not_convert
    def logs():
        means = strategy.run(lambda: _mean_over_replicas(logs_of()))
        # The means are the same on all replicas: the first of this process stands for them.
        return {name: strategy.experimental_local_results(value)[0] for name, value in means.items()}

    def several(iterator, steps):
        for _ in tf.range(steps):
            step(next(iterator))
        return logs()

    def one(batch):
        step(batch)
        return logs()

    return several, one


def _mean_over_replicas(logs: dict) -> dict:
    """Each replica's numbers to their means, in one collective."""
    import tensorflow as tf

    # One vector, one collective: dozens of small ones cost more than the step of a small network.
    values = tf.stack([tf.cast(value, keras.config.floatx()) for value in logs.values()])
    means = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, values)
    return dict(zip(logs, tf.unstack(means), strict=True))


def divided(strategy, batch):
    """A global batch, arrays or None, as each replica's part of it.

    Raises:
        InputError: they cannot share it evenly.
    """
    import tensorflow as tf

    replicas = strategy.num_replicas_in_sync

    def part(value):
        if value is None:
            return None
        rule = f"{replicas} replicas must share a batch evenly: give a number of examples that is a multiple of it"
        check(len(value) % replicas == 0, rule, examples=len(value))
        parts = tf.split(value, replicas)
        return strategy.experimental_distribute_values_from_function(
            lambda context: parts[context.replica_id_in_sync_group]
        )

    return keras.tree.map_structure(part, batch)


def _of_first_replica(spec):
    """The specification of one replica's data."""
    return keras.tree.map_structure(lambda one: getattr(one, "_value_specs", (one,))[0], spec)


def feed(strategy, stream: Callable, *, step: int, process: tuple[int, int] = (0, 1)):
    """A stream's data from a step on, as `fit` takes it under a strategy; arguments as in `Devices.fit`.

    Returns:
        A `tf.data.Dataset` for one device and JAX, else a distributed one: each replica gets its rows of the global
        batch, the first rows the first replica.
    """
    if keras.backend.backend() == "jax" and process[1] > 1:
        # Each process reads its own share of each batch.
        return stream(step, share=process)  # Keras joins what the processes give to one global batch
    if keras.backend.backend() != "tensorflow" or strategy is None or strategy.num_replicas_in_sync == 1:
        data = stream(step)
        return data if hasattr(data, "element_spec") else iter(data)  # Keras takes no iterable but tf.data's

    def of_process(context):
        share = context.input_pipeline_id, context.num_input_pipelines
        data = stream(step, share=share) if share[1] > 1 else stream(step)
        # The number of rows tells what one replica's are.
        rows = keras.tree.flatten(data.element_spec)[0].shape[0]
        check(rows is not None, "a stream's batches must have one known size: batch(…, drop_remainder=True)")
        # A process's share of a batch → one piece a replica, in order; those of the next batch wait to be taken.
        size = context.get_per_replica_batch_size(rows * share[1])
        return data.rebatch(size, drop_remainder=True).prefetch(context.num_replicas_in_sync // share[1])

    return strategy.distribute_datasets_from_function(of_process)


@contextlib.contextmanager
def untuned_iterators(strategy) -> Iterator[None]:
    """A block in which TensorFlow's strategies make their devices' iterators without the thread that tunes them.

    As `untuned` for the stream behind them, whose options do not reach them; no public setting does.  To drop
    twenty iterators of two devices took more than eight minutes, and takes 8 seconds so.
    """
    if keras.backend.backend() != "tensorflow" or strategy is None:
        yield
        return
    from tensorflow.python.data.ops import multi_device_iterator_ops as module

    made = getattr(module, _MAKER, None)
    if made is None:  # another TensorFlow than is known: it is slower to end, no more
        yield
        return
    setattr(module, _MAKER, lambda *given, **named: untuned(made(*given, **named)))
    try:
        yield
    finally:
        setattr(module, _MAKER, made)


@contextlib.contextmanager
def evenly(model: keras.Model) -> Iterator[None]:
    """A block of Keras' loop over arrays; JAX's report of a batch that its devices cannot share becomes a sentence.

    Whatever the block raises, the model has its variables afterwards.

    Raises:
        InputError: there is such a batch.
    """
    try:
        yield
    except Exception as error:
        settle(model)
        if type(error).__name__ != "IndivisibleError":  # a class that JAX does not publish
            raise
        advice = "a batch_size and a number of examples that are multiples of the number of devices, or evaluate on one"
        raise InputError(f"JAX's devices must share each batch evenly: give {advice}. {error}") from error


_CARRIED = ("trainable_variables", "non_trainable_variables", "optimizer_variables", "metrics_variables")
"""What a step of JAX takes and returns, by Keras' names; one that does not train has no third part."""


def given_back(model: keras.Model, function: Callable) -> Callable:
    """A step of JAX that leaves its state where Keras finds it if it fails.

    Keras takes the values out of the variables before the first step, and puts them back from what the last one that
    succeeded returned: where the first one fails the model would be left without any.
    """

    def step(state, iterator):
        try:
            return function(state, iterator)
        except StopIteration:
            raise
        except Exception:
            if not any(value.is_deleted() for value in keras.tree.flatten(state)):  # the device has not begun
                names = [name for name in _CARRIED if len(state) == len(_CARRIED) or name != _CARRIED[2]]
                model._jax_state = dict(zip(names, state, strict=False))
                model._jax_state_synced = False
            raise

    return step


def settle(model: keras.Model) -> None:
    """Gives variables the state that a step left, so that they can be read in the middle of `fit`; JAX needs it."""
    if keras.backend.backend() == "jax":
        model.jax_state_sync()


def steps_done(model: keras.Model) -> int:
    """Steps since the training began, at any moment of `fit`; `int(iterations)` fails on a variable that is mirrored.

    JAX carries the state of a step outside of the variables and returns it when an epoch ends.
    """
    carried = getattr(model, "_jax_state", None)
    if carried and not model._jax_state_synced:
        # While `fit` runs on JAX variables hold old values; the newest are in what the loop carries.
        place = next(i for i, v in enumerate(model.optimizer.variables) if v is model.optimizer.iterations)
        return int(carried["optimizer_variables"][place])
    return int(model.optimizer.iterations.numpy())
