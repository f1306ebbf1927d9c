"""Parts of a labelled source, for learning from few labels: of each class the same share, drawn by a seed.

Whether an image belongs to a part depends on the seed, its class and its name, not on the order of the source; and the
part for a smaller share lies within the one for a larger share, as a learning curve needs it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from tf_simclr.data import images, in_python
from tf_simclr.data.examples import SMALL
from tf_simclr.data.sources import CORES, Indexed, Records, Sequential, Source, cached, in_graph
from tf_simclr.errors import InputError, check
from tf_simclr.files import contents
from tf_simclr.files.contents import silent
from tf_simclr.frameworks import has_tensorflow, tf, untuned

Record = dict[str, "tf.Tensor"]
HELD_BYTES = 2**31
"""A part with fewer bytes of encoded images is kept in memory: to read 1 % of a data set that can only be read front to
back, an epoch would read all of it."""
HELD_PIXELS = 2**30
"""Bytes of small images that are decoded into memory, and that a device may hold."""
_READ_AT_ONCE = 1024
UNKNOWN = -1
"""Label of an image whose label is held back."""


@dataclasses.dataclass(frozen=True)
class _Listing:
    """What there is in a source, without the images."""

    names: np.ndarray
    """`(n,)` bytes, in the source's order."""
    labels: np.ndarray
    """`(n,)` integers."""
    sizes: np.ndarray
    """`(n,)` bytes of memory that each image would take, 0 where records hold paths."""


def listing(source: Source) -> _Listing:
    """Reads through a source once, without decoding an image.

    Raises:
        InputError: it has no labels.
    """
    check(source.labelled, f"{source.origin} must have labels to draw a part of them")
    if not has_tensorflow():
        # Without TensorFlow a source is a list of rows.
        rows = in_python.rows_of(source)
        names = np.array([name.encode() for name in rows.names])
        return _Listing(names, np.asarray(rows.labels), np.zeros(len(rows), np.int64))

    @in_graph
    def entry(record: dict[str, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        image = record["image"]
        # Bytes in memory: of encoded images their length, of arrays all of them.
        size = tf.strings.length(image) if image.dtype == tf.string else tf.size(image) * image.dtype.size
        return record["name"], record["label"], size

    listed = source.ordered().map(entry, num_parallel_calls=CORES, deterministic=True).batch(_READ_AT_ONCE)
    columns = zip(*untuned(listed).as_numpy_iterator(), strict=True)
    return _Listing(*(np.concatenate(column) for column in columns))


def names_of(source: Source) -> np.ndarray:
    """The names of all examples `(n,)`, bytes, in the source's order; no image is decoded."""
    batches = source.ordered().map(in_graph(lambda record: record["name"])).batch(_READ_AT_ONCE)
    return np.concatenate(list(untuned(batches).as_numpy_iterator()))


def choose(labels: np.ndarray, fraction: float, *, names: Sequence[bytes] | np.ndarray, seed: int = 0) -> np.ndarray:
    """Draws a share of each class: the nearest whole number of images, at least one.

    Args:
        labels: `(n,)` integers.
        fraction: in (0, 1].
        names: `(n,)`, all different; images are drawn by them.
        seed: of the draw.

    Returns:
        Row numbers, sorted.

    Raises:
        InputError: the fraction is out of its range.

    Example:
        >>> names = [b"a", b"b", b"c", b"d", b"e", b"f"]
        >>> rows = choose(np.array([0, 0, 0, 0, 1, 1]), 0.5, names=names)
        >>> [names[row] for row in rows]
        [b'a', b'c', b'e']
    """
    check(0 < fraction <= 1, "labels_fraction must lie in (0, 1]", labels_fraction=fraction)
    names, chosen = np.asarray(names), []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        # By name first: the same images are drawn in whatever order they are stored.
        rows = rows[np.argsort(names[rows], kind="stable")]
        count = max(1, round(fraction * len(rows)))
        # A seed of the class's own: classes that come or go change no other's draw.
        chosen.append(np.random.default_rng([seed, int(label)]).permutation(rows)[:count])
    return np.sort(np.concatenate(chosen))


def counts(labels: np.ndarray, class_names: Sequence[str]) -> dict[str, int]:
    """Images of each class, by its name.

    Example:
        >>> counts(np.array([0, 0, 1]), ("cat", "dog"))
        {'cat': 2, 'dog': 1}
    """
    return {name: int(np.sum(labels == label)) for label, name in enumerate(class_names)}


def labelled_part(source: Source, fraction: float, *, seed: int = 0) -> tuple[Source, dict[str, int]]:
    """A share of each class of a source, and how many images of each class that are.

    Raises:
        InputError: the source has no labels, or the fraction is out of its range.
    """
    found = listing(source)
    rows = choose(found.labels, fraction, names=found.names, seed=seed)
    part = of_rows(source, rows, names=found.names[rows])
    # What can be read anywhere stays on disk; reading front to back for 1 % would read all of it each epoch.
    stays = isinstance(source, Indexed) or found.sizes[rows].sum() > HELD_BYTES
    return part if stays else held(part), counts(found.labels[rows], source.class_names)


def held(part: Source) -> Source:
    """The same images, read into memory at once as they are stored."""
    # One batch of all of it.
    content = next(iter(part.ordered().batch(part.num_examples)))

    @in_graph
    def record(index: tf.Tensor) -> dict[str, tf.Tensor]:
        return {key: value[index] for key, value in content.items()}

    return Indexed(
        origin=part.origin,
        num_examples=part.num_examples,
        class_names=part.class_names,
        identity=part.identity,
        place=part.place,
        read=part.read,
        in_memory=True,
        record=record,
        sides=part.sides,
        channels=part.channels,
    )


def in_pixels(source: Source, *, limit: int = HELD_PIXELS, cache: bool = False) -> Source:
    """The same images in the same order, decoded once into memory, where they are small and all of one size.

    A batch of them then costs next to nothing (CIFAR-10: 150 MB, and 4 seconds to read), and a device can hold them
    all.  A source whose images are large or of different sizes, too many, or that has one that cannot be read, stays
    as it is.

    Args:
        source: any.
        limit: bytes that they may take.
        cache: whether the order is that of the source `sources.cached`.
    """
    # 1. Nothing to do, or known to be too large.
    if source.pixels is not None or source.partner is not None or not _may_be_held(source, limit):
        return source
    # 2. Without TensorFlow.
    if not has_tensorflow():
        held = in_python.all_pixels(source, most=SMALL, limit=limit)
        return source if held is None else dataclasses.replace(source, pixels=held, sides=held.shape[1:3])
    # 3. Pixels that are in memory already.
    if source.rows is not None and source.rows.images.ndim > 1 and source.channels == 3:
        own = in_python.all_pixels(source, most=SMALL, limit=limit)
        record = dataclasses.replace(source.rows, images=np.arange(source.num_examples)).tensors()
        return source if own is None else _of_pixels(source, own, changes={"record": record})
    # 4. Small files, decoded once.
    sides = source.sides or _first_sides(source)
    if sides is None or max(sides) > SMALL or source.num_examples * sides[0] * sides[1] * source.channels > limit:
        return source
    ordered = cached(source) if cache else source

    @in_graph
    def decoded(record: Record) -> Record:
        pixels = images.to_rgb(source.read(record["image"]), lambda pixels: images.in_bits(pixels, deep=True))
        return record | {"image": tf.ensure_shape(pixels, (*sides, source.channels))}

    found = source.ordered().map(decoded, num_parallel_calls=CORES, deterministic=True)
    try:
        read = list(untuned(found.batch(_READ_AT_ONCE)).as_numpy_iterator())
    except tf.errors.OpError:  # one that cannot be read, or of another size
        return source
    columns = tf.nest.map_structure(lambda *parts: np.concatenate(parts), *read)
    pixels = columns["image"]
    # Decoded to 16 bits; where all are multiples of 257 there were 8.
    pixels = pixels if np.any(pixels % 257) else (pixels // 257).astype(np.uint8)
    columns["image"] = np.arange(source.num_examples)
    content = tf.nest.map_structure(tf.constant, columns)
    changes: dict[str, Any]
    if isinstance(ordered, Indexed):
        # Records then name rows of the pixels: by index, or in a source that is read in order by name.
        look = in_graph(lambda index: tf.nest.map_structure(lambda value: tf.gather(value, index), content))
        changes = {"record": look}
    elif isinstance(ordered, Sequential) and len(set(columns["name"])) == source.num_examples:
        place, sequential = lookup(columns["name"]), ordered
        placed = in_graph(lambda record: record | {"image": place.lookup(record["name"])})
        changes = {"epoch": lambda seed: sequential.epoch(seed).map(placed)}
    else:
        return source
    return _of_pixels(ordered, pixels, changes=changes)


def _of_pixels(source: Source, pixels: np.ndarray, *, changes: dict[str, Any]) -> Source:
    """The source, whose records by the changes name rows of the pixels `(n, h, w, 3)`."""
    # On the host: a device would hold it a second time.
    with tf.device("CPU"):
        table = tf.constant(pixels)
    changes |= {"pixels": pixels, "sides": pixels.shape[1:3]}
    return dataclasses.replace(source, **changes, read=in_graph(partial(tf.gather, table)), vectorised=True)


def _may_be_held(source: Source, limit: int) -> bool:
    """Whether nothing that is known without reading speaks against it."""
    height, width = source.sides or (1, 1)
    return max(height, width) <= SMALL and source.num_examples * height * width * source.channels <= limit


def _first_sides(source: Source) -> tuple[int, int] | None:
    """Height and width of the first image; None where it cannot be read."""

    def shape(pixels: tf.Tensor) -> tuple[tf.Tensor]:
        return (tf.shape(pixels)[:2],)

    looked = source.ordered().take(1).map(in_graph(lambda record: images.to_rgb(source.read(record["image"]), shape)))
    found = [tuple(sides.tolist()) for (sides,) in looked.ignore_errors().as_numpy_iterator()]
    return found[0] if found else None


def of_rows(source: Source, rows: np.ndarray, *, names: np.ndarray) -> Source:
    """These rows of a source, in its order; the names are theirs."""
    changes: dict[str, Any] = {
        "origin": f"{source.origin}, {len(rows):,} of {source.num_examples:,} images",
        "num_examples": len(rows),
        "pixels": None,
    }
    known = source.identity
    # Part of something known: the same content and the same rows.
    changes["identity"] = known and (lambda say=silent: [known(say), contents.of_array(np.asarray(rows, np.int64))])
    if isinstance(source, Indexed):
        table = np.asarray(rows, np.int64) if not has_tensorflow() else tf.constant(rows, tf.int64)
        return dataclasses.replace(
            source,
            **changes,
            record=in_graph(lambda index: source.record(tf.gather(table, index) if has_tensorflow() else table[index])),
            rows=source.rows and source.rows.taken(np.asarray(rows)),
        )
    if not isinstance(source, Sequential):
        raise InputError(f"a part can be taken of indexed and sequential sources. Received: kind={type(source)!r}")
    sequential = source
    index = lookup(names)

    # Front to back: what is not in the part is passed over.
    def epoch(seed: tf.Tensor | None) -> Records:
        return sequential.epoch(seed).filter(in_graph(lambda record: index.lookup(record["name"]) >= 0))

    return dataclasses.replace(source, **changes, epoch=epoch)


def lookup(names: np.ndarray) -> tf.lookup.StaticHashTable:
    """Name → its place among the names, -1 for others."""
    values = tf.range(len(names), dtype=tf.int64)
    return tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(tf.constant(names), values), UNKNOWN)


def with_targets(source: Source, target: Any) -> Source:
    """The same images with other targets in the place of their labels.

    Args:
        source: the images.
        target: record → tensor, or a dictionary of tensors.
    """
    return mapped(source, lambda record: record | {"label": target(record)})


def mapped(source: Source, change: Callable[[Record], Record], *, class_names: tuple[str, ...] = ()) -> Source:
    """The same records, each changed; `class_names` are those of a source that has none."""
    changed = in_graph(change)
    names: dict[str, Any] = {
        "class_names": source.class_names or class_names,
        # What was known of the content is no longer: records have changed.
        "identity": None,
        "rows": None,
        "vectorised": False,
        "pixels": None,
    }
    if isinstance(source, Indexed):
        record = in_graph(lambda index: changed(source.record(index)))
        return dataclasses.replace(source, **names, gathers=False, record=record)
    if not isinstance(source, Sequential):
        raise InputError(f"records of indexed and sequential sources can change. Received: kind={type(source)!r}")
    sequential = source
    return dataclasses.replace(source, **names, epoch=lambda seed: sequential.epoch(seed).map(changed))
