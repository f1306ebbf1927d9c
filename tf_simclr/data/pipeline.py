"""Streams of batches: endless views to train on, and every image once to evaluate on.

A training stream is a function of (seed, step): the batches from step k on are bit-equal to those of a straight
run, whether images are corrupt or not, and nothing before k is decoded.  That is what makes a resumed run exact.
"""

import threading
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tf_simclr.data import augment, images, service
from tf_simclr.data.images import Bicubic
from tf_simclr.data.recipe import Recipe
from tf_simclr.data.sources import Source, cached, in_graph
from tf_simclr.errors import InputError, check

_NO_IMAGE = {"image": np.zeros((0, 0, 3), np.float32)}
View = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""Image (h, w, 3), seed (2,) → tensor of a static shape."""


class Unreadable:
    """The images of a run that could not be read or decoded, by name; streams add to it from any thread."""

    def __init__(self):
        self._names: set[str] = set()
        self._lock = threading.Lock()

    def add(self, name: bytes) -> np.bool_:
        """Notes a name once, however often an epoch meets it; always false, the answer to "was it read?"."""
        with self._lock:
            self._names.add(name.decode(errors="replace"))
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


def training_views(
    source: Source,
    *,
    batch_size: int,
    image_size: int,
    seed: int,
    unreadable: Unreadable,
    start_step: int = 0,
    share: tuple[int, int] = (0, 1),
    cache: bool = False,
    deterministic: bool = True,
    data_service: str | None = None,
    recipe: Recipe = augment.SIMCLR,
) -> tf.data.Dataset:
    """Endless batches of SimCLR's two views: `(views, labels)`, or `(views,)` without labels.

    Args:
        source: examples.
        batch_size: images a batch, each with two views; at most the number of examples.
        image_size: side of the views in pixels.
        seed: of order and augmentation.
        unreadable: receives the names of corrupt images.
        start_step: first batch.
        share: this process's number and how many there are, each of which makes its rows of every batch: with
            `(1, 2)` the second half.
        cache: keep encoded examples in memory.
        deterministic: whether batches depend on (seed, step) alone; otherwise no view waits for a slower one before it,
            and a run cannot be repeated.
        data_service: `host:port` of the dispatcher of tf.data's service, whose workers then make the batches.  They
            must see the files.  Each is made once; their order is that of their arrival (see `service.shared_out`).
            Corrupt images are replaced, but not named.
        recipe: how the views come about.

    Returns:
        float32 views (batch_size, 2, image_size, image_size, 3) in [0, 1], int64 labels (batch_size,); of the share.

    Raises:
        InputError: too few images for a batch, none that can be read, or a number out of its range.
    """

    def view(image: tf.Tensor, draw: tf.Tensor) -> tf.Tensor:
        return augment.two_views(image, size=image_size, seed=draw, recipe=recipe)

    sizes = {"batch_size": batch_size, "buffer": buffer_size(batch_size, image_size=image_size)}
    place = {"start_step": start_step, "share": share, "deterministic": deterministic, "data_service": data_service}
    return training_batches(source, view, **sizes, seed=seed, unreadable=unreadable, **place, cache=cache)


def buffer_size(batch_size: int, *, image_size: int) -> int:
    """Examples that a source on disk is shuffled among: 50 batches of images up to 32 px, else 10 (reference)."""
    return batch_size * (50 if image_size <= 32 else 10)


def training_batches(
    source: Source,
    view: View,
    *,
    batch_size: int,
    buffer: int,
    seed: int,
    unreadable: Unreadable,
    start_step: int = 0,
    share: tuple[int, int] = (0, 1),
    cache: bool = False,
    deterministic: bool = True,
    data_service: str | None = None,
) -> tf.data.Dataset:
    """Endless batches of `view`, with labels where there are any; the last batch of an epoch reaches into the next.

    The place of a corrupt image is taken by another, drawn from the source by the seed and the place: no batch
    shrinks, and no other place changes.  Arguments and errors as in `training_views`; `buffer` as in `Source.shuffled`.
    """
    check(batch_size > 0, "batch_size must be at least 1", batch_size=batch_size)
    check(start_step >= 0, "start_step must be at least 0", start_step=start_step)
    check(0 <= share[0] < share[1], "share must be a process's number and how many there are", share=share)
    check(batch_size % share[1] == 0, "batch_size must be a multiple of the processes", batch=batch_size, share=share)
    rule = f"{source.origin} must hold enough images for one batch; take a smaller batch_size or more images"
    check(source.num_examples >= batch_size, rule, images=source.num_examples, batch_size=batch_size)
    check(not (cache and data_service), "the workers of data_service cannot share a cache", cache=cache)
    _check_readable(source)
    source = cached(source) if cache else source
    noted = None if data_service else unreadable  # Python runs in this process alone

    @in_graph
    def example(position: tf.Tensor, record: dict[str, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        own = tf.random.experimental.stateless_fold_in(tf.constant([seed, 1], tf.int64), position)
        seeds = tf.random.split(own, 2)
        loaded, _ = _loaded(source, record, noted, otherwise=lambda: _spare(source, seed=seeds[0]))
        seen = view(loaded["image"], seeds[1])
        return (seen, loaded["label"]) if source.labelled else (seen,)

    numbered = _numbered(
        source, seed, batch_size=batch_size, start_step=start_step, buffer=buffer, data_service=data_service
    )
    rows = batch_size // share[1]
    if share[1] > 1:  # before anything is decoded
        numbered = numbered.filter(lambda position, _: tf.equal(position % batch_size // rows, share[0]))
    examples = numbered.map(example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=deterministic)
    batches = examples.batch(rows, drop_remainder=True)
    return _tuned(service.distributed(batches, data_service) if data_service else batches)


def _tuned(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Made ahead; each image by one thread, since threads that share an image wait for each other."""
    options = tf.data.Options()
    options.threading.max_intra_op_parallelism = 1
    return batches.prefetch(tf.data.AUTOTUNE).with_options(options)


def _numbered(
    source: Source, seed: int, *, batch_size: int, start_step: int, buffer: int, data_service: str | None
) -> tf.data.Dataset:
    if data_service:
        return service.shared_out(source, seed, batch_size=batch_size, start_step=start_step, buffer=buffer)
    start = start_step * batch_size
    return tf.data.Dataset.zip((tf.data.Dataset.counter(start), source.shuffled(seed, start=start, buffer=buffer)))


def evaluation_batches(
    source: Source,
    *,
    batch_size: int,
    image_size: int,
    unreadable: Unreadable,
    crop_proportion: float | None = None,
    bicubic: Bicubic = "tf1",
) -> tf.data.Dataset:
    """Every readable image once, in the source's order: `(images, labels, names)`; the last batch may be smaller.

    Args:
        source: examples.
        batch_size: images a batch.
        image_size: side in pixels.
        unreadable: receives the names of corrupt images, which are left out.
        crop_proportion: see `images.evaluation_view`, also for `bicubic`.

    Returns:
        float32 images (b, image_size, image_size, 3) in [0, 1], int64 labels (b,), all -1 where the source has none,
        and names (b,).

    Raises:
        InputError: no image can be read, or a number is out of its range.
    """
    check(batch_size > 0, "batch_size must be at least 1", batch_size=batch_size)
    _check_readable(source)

    @in_graph
    def example(record: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
        loaded, readable = _loaded(source, record, unreadable, otherwise=lambda: _placeholder(record))
        seen = images.evaluation_view(
            loaded["image"], size=image_size, crop_proportion=crop_proportion, bicubic=bicubic
        )
        label = loaded.get("label", tf.constant(-1, tf.int64))
        return readable, (seen, label, loaded["name"])

    examples = source.ordered().map(example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    kept = examples.filter(lambda readable, _: readable).map(lambda _, example: example)
    return _tuned(kept.batch(batch_size))


def _loaded(
    source: Source,
    record: dict[str, tf.Tensor],
    unreadable: Unreadable | None,
    *,
    otherwise: Callable[[], tf.data.Dataset],
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


def _spare(source: Source, *, seed: tf.Tensor) -> tf.data.Dataset:
    """The readable examples, from a random one on."""
    first = tf.random.stateless_uniform((), seed, 0, source.num_examples, tf.int64)
    spares = source.ordered().repeat(2).skip(first)
    return spares.map(source.decoded).ignore_errors()


def _placeholder(record: dict[str, tf.Tensor]) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensors(record | {"image": tf.zeros((1, 1, 3)), "name": ""})


def _check_readable(source: Source) -> None:
    decoded = source.ordered().map(source.decoded).ignore_errors()
    if not any(True for _ in decoded.take(1)):
        raise InputError(
            f"at least one image of {source.origin} must be readable, but none of {source.num_examples} is"
        )
