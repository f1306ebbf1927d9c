"""Images that cannot be read: their names, and what takes their places."""

import threading
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tf_simclr.data.sources import Source
from tf_simclr.errors import InputError

_NO_IMAGE = {"image": np.zeros((0, 0, 3), np.float32)}


class Unreadable:
    """The images of a run that could not be read or decoded, by name; streams add to it from any thread."""

    def __init__(self):
        self._names: set[str] = set()
        self._lock = threading.Lock()

    def add(self, name: bytes) -> np.bool_:
        """Notes a name once, however often an epoch meets it; always false, the answer to "was it read?"."""
        with self._lock:
            self._names.add(name.decode(errors="backslashreplace"))
        return np.bool_(False)

    @property
    def names(self) -> list[str]:
        """Sorted."""
        with self._lock:
            return sorted(self._names)

    def report(self, limit: int = 20) -> str:
        """One line with the count, then up to `limit` names; empty where everything could be read."""
        names = self.names
        if not names:
            return ""
        more = [f"… and {len(names) - limit} more"] if len(names) > limit else []
        return "\n  ".join([f"{len(names)} unreadable images were skipped:", *names[:limit], *more])


def loaded_or(
    otherwise: Callable[[], tf.data.Dataset],
    source: Source,
    *,
    record: dict[str, tf.Tensor],
    unreadable: Unreadable | None,
) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """The decoded record, or where that fails the first of `otherwise`; and whether it was the record's own.

    A data set of one element inside the map is what catches a decoder's error within the graph: Python runs for corrupt
    images only.  It holds as few stages as can be, since they are built anew for each image.
    """
    nothing = tf.data.Dataset.from_tensors(record | _NO_IMAGE)
    own = tf.data.Dataset.from_tensors(record).map(source.decoded).ignore_errors()
    loaded = own.concatenate(nothing).take(1).get_single_element()
    readable = tf.size(loaded["image"]) > 0

    def replaced() -> dict[str, tf.Tensor]:
        noted = [] if unreadable is None else [tf.numpy_function(unreadable.add, [record["name"]], tf.bool)]
        with tf.control_dependencies(noted):
            return otherwise().take(1).get_single_element()

    return tf.cond(readable, lambda: loaded, replaced), readable


def spares(source: Source, *, seed: tf.Tensor) -> tf.data.Dataset:
    """The readable examples, from a random one on; where there is none any more, an error that says so."""
    first = tf.random.stateless_uniform((), seed, 0, source.num_examples, tf.int64)
    readable = source.ordered().repeat(2).skip(first).map(source.decoded).ignore_errors()

    def refused(_: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.control_dependencies([tf.numpy_function(refuse, [source.origin], tf.bool)]):
            return tf.nest.map_structure(
                lambda spec: tf.zeros([side or 0 for side in spec.shape], spec.dtype), readable.element_spec
            )

    return readable.concatenate(tf.data.Dataset.range(1).map(refused))


def refuse(origin: bytes) -> np.bool_:
    """Ends a training whose images are all gone."""
    name = origin.decode(errors="backslashreplace")
    raise InputError(f"at least one image of {name} must stay readable while it is trained on, but none is any more")
