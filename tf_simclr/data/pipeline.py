"""Streams of batches: endless views to train on, and every image once to evaluate on.

A training stream is a function of (seed, step): the batches from step k on are bit-equal to those of a straight
run, whether images are corrupt or not, and nothing before k is decoded.  That is what makes a resumed run exact.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from tf_simclr.data import augment, check_batch, draws, examples, images, in_python
from tf_simclr.data.augment import crop_and_flip
from tf_simclr.data.examples import Examples, Unreadable, View, loaded_or
from tf_simclr.data.recipe import Bicubic, Recipe
from tf_simclr.data.sources import CORES, ENDLESS, Indexed, Records, Source, cached, in_graph
from tf_simclr.errors import InputError, check
from tf_simclr.frameworks import has_tensorflow, tf, untuned
from tf_simclr.machine.launchers import host_and_port

_AT_ONCE = 2
"""Batches that are made at the same time: one is begun while the last images of another are made."""
_AHEAD = 2
"""Batches that wait to be taken.  TensorFlow's own choice grows with time, and memory with it: to 24 and more."""
_VIEWS_BYTES = 2**30
"""Of all the small views that are made at the same time."""
_PATIENCE = 10.0
"""Seconds for a dispatcher of tf.data's service to answer; TensorFlow itself would try for an hour."""


@dataclass(frozen=True, kw_only=True)
class Stream:
    """How endless batches are drawn from a source: a function of (seed, step), whatever is made of their images.

    Raises:
        InputError: a number is out of its range.
    """

    batch_size: int
    """Images a batch, over all processes; at most the number of examples."""
    seed: int
    """Of the order and of every view."""
    buffer: int
    """Examples that a source on disk is shuffled among (`buffer_size`, `Source.shuffled`)."""
    start_step: int = 0
    """First batch."""
    share: tuple[int, int] = (0, 1)
    """This process's number and how many there are, each of which makes its rows of every batch: with `(1, 2)` the
    second half."""
    cache: bool = False
    """Keep encoded examples in memory."""
    deterministic: bool = True
    """Whether batches depend on (seed, step) alone; otherwise no view waits for a slower one before it, and a run
    cannot be repeated."""
    data_service: str | None = None
    """`host:port` of the dispatcher of tf.data's service, whose workers then make the batches.  They must see the
    files.  Each batch is made once; their order is that of their arrival (see `_shared_out`).  Corrupt images are
    replaced, but not named."""

    def __post_init__(self) -> None:
        check(self.batch_size > 0, "batch_size must be at least 1", batch_size=self.batch_size)
        check(self.start_step >= 0, "start_step must be at least 0", start_step=self.start_step)
        number, processes = self.share
        rule = "share must be a process's number and how many there are"
        check(0 <= number < processes, rule, share=self.share)
        rule = "batch_size must be a multiple of the processes"
        check(self.batch_size % processes == 0, rule, batch=self.batch_size, share=self.share)
        rule = "the workers of data_service cannot share a cache"
        check(not (self.cache and self.data_service), rule, cache=self.cache)


def buffer_size(batch_size: int, *, image_size: int) -> int:
    """Examples that a source on disk is shuffled among: 50 batches of images up to 32 px, else 10 (reference)."""
    return batch_size * (50 if image_size <= 32 else 10)


def training_views(
    source: Source,
    *,
    stream: Stream | None = None,
    image_size: int,
    unreadable: Unreadable,
    recipe: Recipe = augment.SIMCLR,
    **options: Any,
) -> tf.data.Dataset:
    """Endless batches of SimCLR's two views: `(views, labels)`, or `(views,)` without labels.

    Where the source's images have partners, such as other images of the patient, the second view is of the partner.

    Args:
        source: examples.
        stream: which batches.
        image_size: side of the views in pixels.
        unreadable: receives the names of corrupt images.
        recipe: how the views come about.
        **options: of a `Stream`, in the place of one; its buffer is then the one that fits.

    Returns:
        float32 views (batch_size, 2, image_size, image_size, 3) in [0, 1], int64 labels (batch_size,); of the share.

    Raises:
        InputError: too few images for a batch, none that can be read, or a number out of its range.
    """
    if stream is None:
        stream = Stream(buffer=buffer_size(options["batch_size"], image_size=image_size), **options)
    # 1. Without TensorFlow Python makes them.
    common: dict[str, Any] = {"stream": stream, "image_size": image_size, "unreadable": unreadable, "recipe": recipe}
    if not has_tensorflow():
        return in_python.training_views(source, **common)
    # 2. Small images a batch at a time.
    if stream.data_service is None and in_batches(source, image_size=image_size, recipe=recipe):
        batches = packed_views(source, **common, ahead=False)
        # As many batches as memory has room for, at 24 bytes a pixel: two views of three float32s.
        at_once = min(CORES, _VIEWS_BYTES // (stream.batch_size * 24 * image_size**2))
        made = augment.views_of_packed(size=image_size, recipe=recipe)
        seen = in_graph(lambda batch, *labels: (made(batch), *labels))
        order = {"deterministic": stream.deterministic}
        return _made_ahead(batches.map(seen, num_parallel_calls=max(_AT_ONCE, at_once), **order))

    # 3. Else one image after the other.
    def view(image: tf.Tensor, draw: tf.Tensor, other: tf.Tensor | None = None) -> tf.Tensor:
        return augment.two_views(image, size=image_size, seed=draw, recipe=recipe, other=other)

    # Views of two images need both decoded: no shortcut from raw bytes.
    alone = source.partner is None
    raw_view = partial(augment.two_views_of_raw, size=image_size, recipe=recipe) if alone else None
    return training_batches(source, view, stream=stream, unreadable=unreadable, partners=not alone, raw_view=raw_view)


def in_batches(source: Source, *, image_size: int, recipe: Recipe) -> bool:
    """Whether a host makes views a batch at a time: small ones of small images, by operators that compile well."""
    small = source.sides is not None and max(*source.sides, image_size) <= examples.SMALL
    return small and not any(getattr(recipe, f"{name}_probability") > 0 for name in draws.MORE)


def packed_views(
    source: Source,
    *,
    stream: Stream | None = None,
    image_size: int,
    unreadable: Unreadable,
    recipe: Recipe = augment.SIMCLR,
    views: int = 2,
    central: bool = False,
    ahead: bool = True,
    held: bool = False,
    **options: Any,
) -> tf.data.Dataset:
    """Endless batches for `device_views`, which makes of them the views of `training_views`, up to rounding.

    Images that are larger than the padding are shrunk first (`examples.side_for`), and their views are others.

    Args:
        source: examples; with partners each view is of an image of its own.
        stream: which batches; without a data service.
        image_size: side of the views in pixels.
        unreadable: receives the names of corrupt images.
        recipe: how the views come about.
        views: 2, or 1 as fine-tuning takes them: `augment.crop_and_flip`, with a recipe of nothing but flips.
        central: whether the boxes are the squares that evaluation sees.
        ahead: whether batches are made ahead.
        held: whether the device holds the source's pixels (`device_views.Held`): batches then name `rows` of them.
        **options: of a `Stream`, in the place of one.

    Returns:
        `({"images" or "rows", "boxes", "draws"}, labels)`, or without labels a tuple of the first alone; see
        `draws.batch`.

    Raises:
        InputError: as `training_views`; or a data service is asked for.
    """
    if stream is None:
        stream = Stream(buffer=buffer_size(options["batch_size"], image_size=image_size), **options)
    rule = "views on the device need batches of this process, not of data_service; augment on the host"
    check(stream.data_service is None, rule, data_service=stream.data_service)
    side = examples.side_for(image_size)
    # The sides of the source where they are known; never more than what views of this size need.
    height, width = source.sides or source.largest or (side, side)
    partners = source.partner is not None and views > 1
    packing = examples.Packing(
        sides=(min(side, height), min(side, width)),
        deep=_is_deep(source),
        image_size=image_size,
        recipe=recipe,
        seed=stream.seed,
        views=views,
        apart=partners,
        central=central,
        channels=source.channels,
    )
    of_batch = None
    # From the least to do on the host to the most: rows of what is held, whole batches, single images.
    if held:
        of_batch = packing.of_rows
    elif packing.holds(source) and not partners:
        of_batch = lambda rows: packing.of_batch(source.read(rows))  # noqa: E731
    return training_batches(
        source,
        packing.of_images,
        stream=stream,
        unreadable=unreadable,
        partners=partners,
        raw_view=None if partners else packing.of_raw,
        batch_view=of_batch,
        at_once=packing.of_kept(source),
        room=packing.room,
        finish=packing.finished,
        ahead=ahead,
    )


def single_views(
    source: Source,
    *,
    stream: Stream,
    image_size: int,
    unreadable: Unreadable,
    augment: bool = True,
    packed: bool = False,
    held: bool = False,
) -> Any:
    """Endless batches of one view an image, as training with labels takes them: `(views, labels)`.

    Args:
        source: examples.
        stream: which batches.
        image_size: side of the views in pixels.
        unreadable: receives the names of corrupt images.
        augment: random crops and flips (`augment.crop_and_flip`), else what evaluation sees.
        packed: whether batches are what a device makes the views of, by `flips(augment)` (`packed_views`).
        held: see `packed_views`.

    Raises:
        InputError: as `training_batches`.
    """
    common: dict[str, Any] = {"stream": stream, "unreadable": unreadable}
    if packed or not has_tensorflow():
        make: Callable = partial(packed_views, held=held) if packed else in_python.training_views
        # The recipe has the crop always; nothing but the flip besides.
        recipe = flips(augment)
        return make(source, image_size=image_size, recipe=recipe, views=1, central=not augment, **common)

    def view(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        if augment:
            return crop_and_flip(image, size=image_size, seed=seed)
        return images.evaluation_view(image, size=image_size)

    return training_batches(source, view, **common)


def flips(augment: bool) -> Recipe:
    """The recipe of `single_views`: flips besides the crop, or nothing."""
    return replace(in_python.ONLY_FLIP, flip_probability=0.5 if augment else 0)


def training_batches(
    source: Source,
    view: View,
    *,
    stream: Stream | None = None,
    unreadable: Unreadable,
    partners: bool = False,
    raw_view: Callable[..., Any] | None = None,
    batch_view: Callable[[tf.Tensor], Any] | None = None,
    at_once: Any = None,
    room: Any = None,
    finish: examples.Finish | None = None,
    ahead: bool = True,
    **options: Any,
) -> tf.data.Dataset:
    """Endless batches of `view`, with labels where there are any; the last batch of an epoch reaches into the next.

    The place of a corrupt image is taken by another, drawn from the source by the seed and the place: no batch
    shrinks, and no other place changes.

    Args:
        source: examples.
        view: image `(h, w, 3)` and seed `(2,)` to a tensor of a static shape.
        stream: which batches.
        unreadable: receives the names of corrupt images.
        partners: whether the view is given the image of the source's partner, too, drawn by the seed and the place;
            where that one is corrupt, the image itself.
        raw_view: sees the images that can be read in the place of `view` (see `Examples`).
        batch_view: sees what records hold of all images of a batch at once, in the place of both, where the source is
            `vectorised`.
        at_once: places of pictures of which some may fail (see `Examples`).
        room: shapes to which what is seen is padded with zeros, where it is not of one shape.
        finish: makes the batch of its positions in the stream and of what is seen there.
        ahead: whether batches are made ahead.
        **options: of a `Stream`, in the place of one.

    Raises:
        InputError: as `training_views`.
    """
    stream = stream or Stream(**options)
    check_batch(source.origin, source.num_examples, batch_size=stream.batch_size)
    _check_readable(source)
    source = cached(source) if stream.cache else source
    # 1. Records in the order of the seed, each with its position in the endless stream, by which all else is drawn.
    #    The index of a record costs nothing, and a batch of them is looked up at once where the source can.
    vectorised = batch_view is not None and source.vectorised
    looked_up = isinstance(source, Indexed) and (source.vectorised or source.gathers) and not stream.data_service
    numbered = _numbered(source, stream, indices=looked_up)
    # 2. This process's rows of each batch, before anything is decoded.
    number, processes = stream.share
    rows = stream.batch_size // processes
    if processes > 1:
        numbered = numbered.filter(lambda position, _: tf.equal(position % stream.batch_size // rows, number))
    # 3. Views of a batch at a time; Python, which notes corrupt images, runs in this process alone.
    made = Examples(
        source=source,
        view=view,
        raw_view=raw_view,
        seed=stream.seed,
        partners=partners,
        unreadable=None if stream.data_service else unreadable,
        deterministic=stream.deterministic,
        # What pads the images is the copy into the batch.
        room=room,
        at_once=at_once,
    )

    @in_graph
    def batch(positions: tf.Tensor, records: Any) -> tuple[Any, ...]:
        records = source.record(records) if looked_up and isinstance(source, Indexed) else records
        if batch_view is not None and vectorised:
            found, seen = positions, batch_view(records["image"])
            labels = [records["label"]] if source.labelled else []
        else:
            found, seen, *labels = made.batch(positions, records)
        return (seen if finish is None else finish(found, seen)), *labels

    # Without a remainder every batch has one known size.
    records = numbered.batch(rows, drop_remainder=True)
    batches = records.map(batch, num_parallel_calls=_AT_ONCE, deterministic=stream.deterministic)
    batches = distributed(batches, stream.data_service) if stream.data_service else batches
    return _made_ahead(batches) if ahead else batches


def _made_ahead(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Made before they are taken; each image by one thread, since threads that share an image wait for each other."""
    options = tf.data.Options()
    options.threading.max_intra_op_parallelism = 1
    return untuned(batches.prefetch(_AHEAD).with_options(options))


def _numbered(source: Source, stream: Stream, *, indices: bool = False) -> Records:
    """Positions of the stream and their records, or with `indices` the indices of these."""
    if stream.data_service:
        return _shared_out(source, stream)
    start = stream.start_step * stream.batch_size
    if indices and isinstance(source, Indexed):
        records = source.indices(stream.seed, start=start)
    else:
        records = source.shuffled(stream.seed, start=start, buffer=stream.buffer)
    # Numbers beside records, as nothing else remembers where in the stream a record stands.
    return tf.data.Dataset.zip((tf.data.Dataset.range(start, ENDLESS), records))


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
    how: dict[str, Any] = {"crop_proportion": crop_proportion, "bicubic": bicubic}
    if not has_tensorflow():
        common: dict[str, Any] = {"batch_size": batch_size, "image_size": image_size, "unreadable": unreadable}
        return in_python.evaluation_batches(source, **common, **how)
    _check_readable(source)

    @in_graph
    def example(record: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
        # A placeholder stands for what cannot be read, and is filtered out: it never reaches a batch.
        nothing = record | {"image": tf.zeros((1, 1, source.channels)), "name": ""}
        placeholder = partial(tf.data.Dataset.from_tensors, nothing)
        loaded, readable = loaded_or(placeholder, source, record=record, unreadable=unreadable)
        seen = images.evaluation_view(loaded["image"], size=image_size, **how)
        label = loaded.get("label", tf.constant(-1, tf.int64))
        return readable, (seen, label, loaded["name"])

    examples = source.ordered().map(example, num_parallel_calls=CORES, deterministic=True)
    kept = examples.filter(lambda readable, _: readable).map(lambda _, example: example)
    return _made_ahead(kept.batch(batch_size))


def _check_readable(source: Source) -> None:
    _is_deep(source)


def _is_deep(source: Source) -> bool:
    """Whether the first image that can be read has 16 bits a channel.

    Raises:
        InputError: none can be read.
    """

    def looked(pixels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.cast(pixels, tf.uint16), tf.constant(pixels.dtype == tf.uint16)

    # 16 bits and whether they were there, of the first image that can be read.
    decoded = source.ordered().map(in_graph(lambda record: images.to_rgb(source.read(record["image"]), looked)))
    deep = [bool(deep) for _, deep in decoded.ignore_errors().take(1)]
    if not deep:
        rule = f"at least one image of {source.origin} must be readable"
        raise InputError(f"{rule}, but none of {source.num_examples} is")
    return deep[0]


def _shared_out(source: Source, stream: Stream) -> Records:
    """The numbered records `(position, record)` in pieces, each of which one worker takes as a whole.

    A piece is a batch where a source can be read anywhere, so that every batch is that of a run without the service; it
    is an epoch where a source is read front to back, and then a resumed run begins with the epoch it was in.

    Raises:
        InputError: the source is read in this process alone.
    """
    rule = f"data_service's workers cannot read {source.origin}: its images are read by Python in this process alone"
    check(not source.here_alone, f"{rule}; leave data_service out", data_service=stream.data_service)
    # A worker takes a piece: a batch of an indexed source, a whole epoch of one that is read front to back.
    size = stream.batch_size if isinstance(source, Indexed) else source.num_examples

    @in_graph
    def piece(number: tf.Tensor) -> Records:
        start = number * size
        records = source.shuffled(stream.seed, start=start, buffer=stream.buffer).take(size)
        return tf.data.Dataset.zip((tf.data.Dataset.range(start, start + size), records))

    first = stream.start_step * stream.batch_size // size
    return tf.data.Dataset.range(first, ENDLESS).flat_map(piece)


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
    place = host_and_port(address)
    if place is None:
        raise InputError(f"data_service must be the dispatcher's host:port. Received: {address}")
    # Asked before anything is traced: TensorFlow would wait for an hour.
    try:
        socket.create_connection(place, timeout=_PATIENCE).close()
    except OSError as error:
        rule = "a dispatcher of tf.data's service must listen at data_service"
        raise InputError(f"{rule}. Received: {address} ({error})") from error
