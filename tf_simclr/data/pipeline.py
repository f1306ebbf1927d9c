"""Streams of batches: endless views to train on, and every image once to evaluate on.

A training stream is a function of (seed, step): the batches from step k on are bit-equal to those of a straight
run, whether images are corrupt or not, and nothing before k is decoded.  That is what makes a resumed run exact.
"""

import socket
from collections.abc import Callable
from functools import partial

import tensorflow as tf

from tf_simclr.data import augment, images
from tf_simclr.data.examples import Examples, Unreadable, View, loaded_or
from tf_simclr.data.recipe import Bicubic, Recipe
from tf_simclr.data.sources import Indexed, Records, Source, cached, in_graph
from tf_simclr.errors import InputError, check

_AT_ONCE = 2
"""Batches that are made at the same time: one is begun while the last images of another are made."""
_AHEAD = 2
"""Batches that wait to be taken.  TensorFlow's own choice grows with time, and memory with it: to 24 and more."""
_ENDLESS = 2**62
_PATIENCE = 10.0
"""Seconds for a dispatcher of tf.data's service to answer; TensorFlow itself would try for an hour."""


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

    Where the source's images have partners, such as other images of the patient, the second view is of the partner.

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

    def view(image: tf.Tensor, draw: tf.Tensor, other: tf.Tensor | None = None) -> tf.Tensor:
        return augment.two_views(image, size=image_size, seed=draw, recipe=recipe, other=other)

    sizes = {"batch_size": batch_size, "buffer": buffer_size(batch_size, image_size=image_size)}
    place = {"start_step": start_step, "share": share, "deterministic": deterministic, "data_service": data_service}
    options = {"seed": seed, "unreadable": unreadable, "cache": cache, "partners": source.partner is not None}
    raw_view = partial(augment.two_views_of_raw, size=image_size, recipe=recipe) if source.partner is None else None
    return training_batches(source, view, **sizes, **place, **options, raw_view=raw_view)


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
    partners: bool = False,
    raw_view: Callable[..., tf.Tensor] | None = None,
) -> tf.data.Dataset:
    """Endless batches of `view`, with labels where there are any; the last batch of an epoch reaches into the next.

    The place of a corrupt image is taken by another, drawn from the source by the seed and the place: no batch
    shrinks, and no other place changes.  Arguments and errors as in `training_views`; `buffer` as in `Source.shuffled`.
    With `partners` the view is given the image of the source's partner, too, drawn by the seed and the place; where
    that one is corrupt, the image itself.  With `raw_view` images that can be read are seen by it (see `Examples`).
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
    numbered = _numbered(
        source, seed, batch_size=batch_size, start_step=start_step, buffer=buffer, data_service=data_service
    )
    rows = batch_size // share[1]
    if share[1] > 1:  # before anything is decoded
        numbered = numbered.filter(lambda position, _: tf.equal(position % batch_size // rows, share[0]))
    examples = Examples(
        source=source,
        view=view,
        raw_view=raw_view,
        seed=seed,
        partners=partners,
        unreadable=None if data_service else unreadable,  # Python runs in this process alone
        deterministic=deterministic,
    )
    records = numbered.batch(rows, drop_remainder=True)
    batches = records.map(in_graph(examples.batch), num_parallel_calls=_AT_ONCE, deterministic=deterministic)
    return _tuned(distributed(batches, data_service) if data_service else batches)


def _tuned(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Made ahead; each image by one thread, since threads that share an image wait for each other."""
    options = tf.data.Options()
    options.threading.max_intra_op_parallelism = 1
    return batches.prefetch(_AHEAD).with_options(options)


def _numbered(
    source: Source, seed: int, *, batch_size: int, start_step: int, buffer: int, data_service: str | None
) -> tf.data.Dataset:
    if data_service:
        return shared_out(source, seed, batch_size=batch_size, start_step=start_step, buffer=buffer)
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
        common = {"record": record, "unreadable": unreadable}
        loaded, readable = loaded_or(lambda: _placeholder(record), source, **common)
        seen = images.evaluation_view(
            loaded["image"], size=image_size, crop_proportion=crop_proportion, bicubic=bicubic
        )
        label = loaded.get("label", tf.constant(-1, tf.int64))
        return readable, (seen, label, loaded["name"])

    examples = source.ordered().map(example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    kept = examples.filter(lambda readable, _: readable).map(lambda _, example: example)
    return _tuned(kept.batch(batch_size))


def _placeholder(record: dict[str, tf.Tensor]) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensors(record | {"image": tf.zeros((1, 1, 3)), "name": ""})


def _check_readable(source: Source) -> None:
    decoded = source.ordered().map(source.decoded).ignore_errors()
    if not any(True for _ in decoded.take(1)):
        raise InputError(
            f"at least one image of {source.origin} must be readable, but none of {source.num_examples} is"
        )


def shared_out(source: Source, seed: int, *, batch_size: int, start_step: int, buffer: int) -> Records:
    """The stream of numbered records `(position, record)` in pieces, each of which one worker takes as a whole.

    A piece is a batch where a source can be read anywhere, so that every batch is that of a run without the service; it
    is an epoch where a source is read front to back, and then a resumed run begins with the epoch it was in.
    """
    size = batch_size if isinstance(source, Indexed) else source.num_examples

    @in_graph
    def piece(number: tf.Tensor) -> Records:
        start = number * size
        records = source.shuffled(seed, start=start, buffer=buffer).take(size)
        return tf.data.Dataset.zip((tf.data.Dataset.range(start, start + size), records))

    return tf.data.Dataset.range(start_step * batch_size // size, _ENDLESS).flat_map(piece)


def distributed(batches: tf.data.Dataset, address: str) -> tf.data.Dataset:
    """The batches, made by the workers of the dispatcher at `host:port`, in the order in which they come.

    Raises:
        InputError: nobody answers there.
    """
    address = address.removeprefix("grpc://")
    _check_answers(address)
    policy = tf.data.experimental.service.ShardingPolicy.DYNAMIC
    return batches.apply(tf.data.experimental.service.distribute(policy, f"grpc://{address}"))


def _check_answers(address: str) -> None:
    host, _, port = address.rpartition(":")
    check(host and port.isdecimal(), "data_service must be the dispatcher's host:port", data_service=address)
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()
    except OSError as error:
        raise InputError(
            f"a dispatcher of tf.data's service must listen at data_service. Received: {address} ({error})"
        ) from error
