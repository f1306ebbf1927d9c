"""Batches of examples from batches of records, whether all of these can be read or not."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tf_simclr.data.sources import Source, in_graph
from tf_simclr.errors import InputError
from tf_simclr.frameworks import tf

View = Callable[..., Any]
"""Image (h, w, 3), seed (2,) → tensors of static shapes; with partners the partner's image is a third argument."""
_WORKERS = max(16, os.cpu_count() or 1)
"""Images of a batch that are made at the same time; TensorFlow's threads are as many as there are cores."""
_NO_IMAGE = {"image": np.zeros((0, 0, 3), np.float32)}


class Unreadable:
    """The images of a run that could not be read or decoded, by name; streams add to it from any thread."""

    def __init__(self) -> None:
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


@dataclass(frozen=True, kw_only=True)
class Examples:
    """What becomes of a record at a place of the stream: `(position, view)` or `(position, view, label)`.

    Attributes:
        source: where the records are from.
        view: what is seen of an image.
        raw_view: the same of what `images.to_rgb` takes, `seed=`, where that is sooner; None without.
        seed: all that the draws depend on, with the position.
        partners: whether the view takes the image of the source's partner, too.
        unreadable: receives the names of corrupt images; None where Python cannot run.
        deterministic: whether the examples of a batch are in the order of their positions.
    """

    source: Source
    view: View
    raw_view: Callable[..., Any] | None
    seed: int
    partners: bool
    unreadable: Unreadable | None
    deterministic: bool

    def batch(self, positions: tf.Tensor, records: dict[str, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        """The examples of a batch's records (n,), each part in one; those that fail are made again, `mended`.

        A data set inside the map is what catches a decoder's error within the graph; one an image would cost a tenth
        of all time.
        """
        rows = positions.shape[0]
        own = tf.data.Dataset.from_tensor_slices((positions, records))
        whole = own.map(in_graph(self.whole), num_parallel_calls=_WORKERS, deterministic=self.deterministic)
        tried = whole.ignore_errors().batch(rows)
        nothing = tf.nest.map_structure(lambda part: tf.zeros((0, *part.shape[1:]), part.dtype), tried.element_spec)
        found = tried.concatenate(tf.data.Dataset.from_tensors(nothing)).take(1).get_single_element()
        complete = tf.equal(tf.shape(found[0])[0], rows)
        parts = tf.cond(complete, lambda: found, lambda: self.completed(found, positions, records=records))
        return tf.nest.map_structure(lambda part: tf.ensure_shape(part, (rows, *part.shape[1:])), parts)

    def completed(
        self, found: tuple[tf.Tensor, ...], positions: tf.Tensor, *, records: dict[str, tf.Tensor]
    ) -> tuple[tf.Tensor, ...]:
        """What was found of a batch, and at the positions that it lacks mended examples; in the order of positions."""
        lacking = tf.reduce_all(positions[:, None] != found[0][None], axis=1)
        rest = tf.nest.map_structure(lambda part: part[lacking], (positions, records))
        mended = tf.data.Dataset.from_tensor_slices(rest).map(in_graph(self.mended), num_parallel_calls=_WORKERS)
        made = mended.batch(positions.shape[0]).get_single_element()
        order = tf.argsort(tf.concat([found[0], made[0]], 0))
        return tf.nest.map_structure(lambda *pair: tf.gather(tf.concat(pair, 0), order), found, made)

    def whole(self, position: tf.Tensor, record: dict[str, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        """The example of a record that can be read; fails on another."""
        own = self.drawn(position)
        if self.raw_view is not None:
            return self.labelled(position, self.raw_view(self.source.read(record["image"]), seed=own), record=record)
        loaded = self.source.decoded(record)
        others = [self.source.decoded(self.meant(loaded, own))["image"]] if self.partners else []
        return self.labelled(position, self.view(loaded["image"], own, *others), record=record)

    def mended(self, position: tf.Tensor, record: dict[str, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        """The example of a record, or where that cannot be read of another, drawn from the source by the position."""
        own = self.drawn(position)
        draw = tf.random.experimental.stateless_fold_in(own, 2)
        common: dict[str, Any] = {"record": record, "unreadable": self.unreadable}
        loaded, _ = loaded_or(lambda: spares(self.source, seed=draw), self.source, **common)
        others = [self.partner(loaded, own)] if self.partners else []
        return self.labelled(position, self.view(loaded["image"], own, *others), record=loaded)

    def partner(self, loaded: dict[str, tf.Tensor], seed: tf.Tensor) -> tf.Tensor:
        """The image of the partner of what was loaded, which need not be what the record was of; or its own."""
        common: dict[str, Any] = {"record": self.meant(loaded, seed), "unreadable": self.unreadable}
        return loaded_or(lambda: tf.data.Dataset.from_tensors(loaded), self.source, **common)[0]["image"]

    def meant(self, loaded: dict[str, tf.Tensor], seed: tf.Tensor) -> dict[str, tf.Tensor]:
        """The record of the partner that a seed draws."""
        draw = tf.random.experimental.stateless_fold_in(seed, 1)
        partner: Any = self.source.partner  # there is one: `partners` says so
        return partner({name: value for name, value in loaded.items() if name != "image"}, draw)

    def drawn(self, position: tf.Tensor) -> tf.Tensor:
        """The seed (2,) of a position."""
        return tf.random.experimental.stateless_fold_in(tf.constant([self.seed, 1], tf.int64), position)

    def labelled(self, position: tf.Tensor, seen: tf.Tensor, *, record: dict[str, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        """An example, with its label where the source has any."""
        return (position, seen, record["label"]) if self.source.labelled else (position, seen)


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

    def nothing(spec: tf.TensorSpec) -> tf.Tensor:
        sides = spec.shape.as_list() if spec.shape.rank is not None else ()  # a source need not know its images' rank
        return tf.zeros([side or 0 for side in sides], spec.dtype)

    def refused(_: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.control_dependencies([tf.numpy_function(refuse, [source.origin], tf.bool)]):
            return tf.nest.map_structure(nothing, readable.element_spec)

    return readable.concatenate(tf.data.Dataset.range(1).map(refused))


def refuse(origin: bytes) -> np.bool_:
    """Ends a training whose images are all gone."""
    name = origin.decode(errors="backslashreplace")
    raise InputError(f"at least one image of {name} must stay readable while it is trained on, but none is any more")
