"""Between processes that share a training: which of them this is, and what each of them knows.

One process, with any number of devices, is the rule; MultiWorkerMirroredStrategy has several.
"""

import json
from typing import Any

import keras
import numpy as np


def process(strategy) -> tuple[int, int]:
    """This process's number and how many there are."""
    if strategy is None or keras.backend.backend() != "tensorflow":
        return 0, 1
    import tensorflow as tf

    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 0, 1
    resolver = strategy.cluster_resolver
    cluster = resolver.cluster_spec().as_dict()
    chiefs = len(cluster.get("chief", ()))
    number = resolver.task_id + (chiefs if resolver.task_type == "worker" else 0)
    return number, max(1, chiefs + len(cluster.get("worker", ())))


def collect(strategy, value: Any) -> list[Any]:
    """What each process gives, plain JSON types, in the order of their numbers."""
    text = np.frombuffer(json.dumps(value).encode(), np.uint8).astype(np.int32)
    longest = int(exchange(strategy, np.array([len(text)], np.int32)).max())
    rows = exchange(strategy, np.pad(text, (0, longest - len(text)), constant_values=ord(" "))[None])
    return [json.loads(row.astype(np.uint8).tobytes()) for row in rows]


def exchange(strategy, row: np.ndarray) -> np.ndarray:
    """Rows `(1, …)` of one shape from each process, stacked in the order of their numbers."""
    import tensorflow as tf

    devices = strategy.num_replicas_in_sync // process(strategy)[1]
    values = strategy.experimental_distribute_values_from_function(lambda _: tf.constant(row))
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


def lost() -> tuple[type[Exception], ...]:
    """The errors by which TensorFlow tells that another process is gone."""
    if keras.backend.backend() != "tensorflow":
        return ()
    import tensorflow as tf

    return tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError
