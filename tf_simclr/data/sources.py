"""Where examples come from: any tfds data set, a folder of images, arrays in memory.

A source yields *records*: dicts of `image` (encoded bytes, a path or pixels), `name` (a string that tells a person
which example it is, different for each) and, where there are labels, `label` (int64).  It yields them once in order,
or endlessly in a shuffled order that is a function of a seed, from any position on.  `docs/properties.md` lists what
must hold for every source; tests/data/test_properties.py holds each of them to it.
"""

from __future__ import annotations

import functools
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from tf_simclr.data import images, rasters
from tf_simclr.data.draws import FILES, ORDER
from tf_simclr.data.folders import Folder, look
from tf_simclr.errors import check
from tf_simclr.files import contents
from tf_simclr.files.contents import silent
from tf_simclr.files.places import shown
from tf_simclr.frameworks import has_tensorflow, tf

if TYPE_CHECKING:
    Records: TypeAlias = tf.data.Dataset
else:
    Records = Iterable
PERMUTED = 2**16
"""Up to so many examples an epoch's order is drawn as a whole, all permutations alike likely; beyond, each place is
computed alone by a cipher, which costs the same for any number.  On few examples the cipher is uneven."""
_ROUNDS = 8
"""Of the cipher; with TensorFlow's four, neighbours of one epoch are visibly apart in the next."""
CORES = os.cpu_count() or 1
"""Images that are read at the same time; TensorFlow's threads are as many."""
ENDLESS = 2**62
"""A range to here takes a tenth of the time of `Dataset.counter`, which is a scan."""
AT_ONCE = 32
"""Files of which a source read front to back takes one record after the other (reference)."""
HELD_BYTES = 2**28
"""Encoded examples that a source read front to back is shuffled among at least, however few a batch has."""


def in_graph(function: Callable) -> Callable:
    """For functions that tf.data maps: without AutoGraph they trace sooner, and their errors keep their class."""
    return tf.autograph.experimental.do_not_convert(function) if has_tensorflow() else function


def _as_it_is(image: tf.Tensor) -> tf.Tensor:
    """What a record holds of an image, where that is what is to be decoded."""
    return tf.identity(image)


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The records of a list that memory holds, as Python has them: what `in_python` makes batches of.

    Attributes:
        images: paths `(n,)`, or pixels `(n, h, w, 1 or 3)` over their full range.
        names: `(n,)` strings.
        labels: `(n,)` int64, or None.
        upright: whether pictures are turned as their EXIF orientation says.
        opacity: whether pixels have the opacity of their pictures, too.
    """

    images: np.ndarray
    names: np.ndarray
    labels: np.ndarray | None = None
    upright: bool = False
    opacity: bool = False

    def __len__(self) -> int:
        return len(self.names)

    def taken(self, numbers: np.ndarray | slice) -> Rows:
        """Some of the rows."""
        labels = None if self.labels is None else self.labels[numbers]
        return replace(self, images=self.images[numbers], names=self.names[numbers], labels=labels)

    def pixels(self, number: int) -> np.ndarray:
        """RGB integers over their full range, `(h, w, 3)`, with opacity `(h, w, 4)`, uint8 or uint16.

        Raises:
            OSError, ValueError: the file cannot be read.
        """
        image = self.images[number]
        if self.images.ndim > 1:
            # Grey three times.
            rgb = image[..., np.minimum(range(3), image.shape[-1] - 1)]
            return rasters.opaque(rgb) if self.opacity else rgb
        encoded = self.encoded(number)
        encoded = rasters.upright(encoded) if self.upright else encoded
        return rasters.rgba(encoded) if self.opacity else rasters.rgb(encoded)

    def encoded(self, number: int) -> bytes:
        """The bytes of an image that is no array in memory, as they are stored.

        Raises:
            OSError: they cannot be read.
        """
        return Path(os.fsdecode(self.images[number])).read_bytes()

    def size(self, number: int) -> int:
        """How many bytes that are.

        Raises:
            OSError: they cannot be read.
        """
        return os.stat(self.images[number]).st_size

    def tensors(self) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
        """Index → record in a TensorFlow graph; the constants are made once, when the first record is asked for."""
        columns = {"image": self.images, "name": self.names, "label": self.labels}

        # Constants belong to the first graph that makes them, so they are made outside of all.
        @functools.cache
        def content() -> dict[str, tf.Tensor]:
            with tf.init_scope():
                given = {name: one for name, one in columns.items() if one is not None}
                return {name: tf.constant(one.tolist() if one.dtype == object else one) for name, one in given.items()}

        return in_graph(lambda index: {name: tf.gather(values, index) for name, values in content().items()})


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """Examples before decoding.

    Attributes:
        origin: what a message calls it.
        num_examples: of one epoch, corrupt ones included.
        class_names: in the order of the labels; empty where there are no labels.
        read: a record's `image` → encoded bytes or pixels; may fail on an unreadable one.
        in_memory: whether records hold what memory holds anyway.
        identity: what tells these examples from any others, JSON types that hang on the content of each of them, its
            name below `place` and its label (`contents`); takes what says a line to the user.  None where nobody can
            tell.
        place: what the names of all examples begin with, and says nothing about them: the folder that they lie in.
        only: the only class that any example has, where that is known: whoever says it always is always right.
        partner: a record and a seed → the record that it makes a positive pair with, such as another image of the
            patient, or itself; None where a pair is two views of one image.
        notes: what a user should know of these examples, a line each.
        roster: tells this list of names from others, wherever the files lie; a run that resumes knows its images by
            it.  None: by their number alone.
        division: where a set without splits was divided: how, for the result.
        several: whether an example may be of any number of classes: its label is then a row of 1, 0, and -1 for
            unknown, int64 `(classes,)`.
        rows: the records as Python has them, where memory holds their list: what is read without TensorFlow.
        sides: height and width of every image, where they are known to be the same.
        largest: height and width that no image exceeds, where they are known.
        here_alone: whether `read` runs in this process alone, and not in a worker of tf.data's service.
        vectorised: whether `read`, and an `Indexed`'s `record`, take a batch at once, too: of pixels in memory.
        pixels: all images in order, integers over their full range `(n, h, w, channels)`, where they are small and
            memory holds them (`subsets.in_pixels`); with TensorFlow a record's `image` is then its row among them.
        channels: of the images: 3, or 4 where their opacity is the last (`with_opacity`).
    """

    origin: str
    num_examples: int
    class_names: tuple[str, ...]
    read: Callable[[tf.Tensor], tf.Tensor] = _as_it_is
    in_memory: bool = False
    identity: Callable[..., list[Any]] | None = None
    place: str = ""
    only: str = ""
    partner: Callable[[dict[str, tf.Tensor], tf.Tensor], dict[str, tf.Tensor]] | None = None
    notes: tuple[str, ...] = ()
    roster: str | None = None
    division: dict[str, object] | None = None
    several: bool = False
    rows: Rows | None = None
    sides: tuple[int, int] | None = None
    largest: tuple[int, int] | None = None
    vectorised: bool = False
    here_alone: bool = False
    pixels: np.ndarray | None = None
    channels: int = 3

    def decoded(self, record: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The record with its `image` as RGB in [0, 1], (h, w, channels); fails on an unreadable or corrupt one."""
        return record | {"image": images.to_rgb(self.read(record["image"]))}

    def told(self) -> dict[str, Any]:
        """What is known of the examples, by field, for another source of the same ones; not how they are read."""
        read_anew = {"read", "in_memory", "rows", "here_alone", "pixels"}
        return {one.name: getattr(self, one.name) for one in fields(Source) if one.name not in read_anew}

    @property
    def labelled(self) -> bool:
        return bool(self.class_names)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @abstractmethod
    def ordered(self) -> Records:
        """All records once, always in the same order."""

    @abstractmethod
    def shuffled(self, seed: int, *, start: int | tf.Tensor = 0, buffer: int) -> Records:
        """Endless records from position `start` on; another order each epoch, epochs follow without a seam.

        Args:
            seed: the only thing that the order depends on.
            start: position in the endless stream; what lies before is not decoded.
            buffer: examples to shuffle among at least, where a source can only be read front to back from a disk.
        """

    def epochs(self, start: int | tf.Tensor, epoch: Callable[[tf.Tensor, tf.Tensor], Records]) -> Records:
        """Epochs one after the other: `epoch` takes a number and how many of its first records to leave out."""
        # Position → epoch and place in it: the first epoch begins in the middle, the others at their start.
        first, skipped = start // self.num_examples, start % self.num_examples  # numbers or tensors
        begun = tf.data.Dataset.range(first, first + 1).flat_map(in_graph(lambda number: epoch(number, skipped)))
        rest = tf.data.Dataset.range(first + 1, ENDLESS).flat_map(in_graph(lambda number: epoch(number, 0)))
        return begun.concatenate(rest)


def drawn(seed: int, what: int, *, number: tf.Tensor, count: int) -> tf.Tensor:
    """Random int64 `(count,)` over their full range, a function of seed, what they are for, and a number.

    `stateless_fold_in` returns (hash of the seed, number): a seed of its own as a pair, but neither half of it is a
    random number.  The first is the same for each number, the second for each seed.
    """
    pair = tf.random.experimental.stateless_fold_in(tf.constant([seed, what], tf.int64), number)
    return tf.random.stateless_uniform((count,), pair, minval=None, maxval=None, dtype=tf.int64)


@dataclass(frozen=True, kw_only=True)
class Indexed(Source):
    """A source that can be read anywhere: every epoch is a permutation of all of it."""

    record: Callable[[tf.Tensor], dict[str, tf.Tensor]]
    """Index, scalar int64 → record; where it is `vectorised` or `gathers`, indices (n,) → their records at once."""
    gathers: bool = False
    """Whether `record` takes many indices at once: where it looks things up in memory."""

    def ordered(self) -> Records:
        return tf.data.Dataset.range(self.num_examples).map(self.record)

    def shuffled(self, seed: int, *, start: int | tf.Tensor = 0, buffer: int) -> Records:
        return self.indices(seed, start=start).map(self.record)

    def indices(self, seed: int, *, start: int | tf.Tensor = 0) -> Records:
        """The indices of `shuffled`'s records."""
        if self.num_examples > PERMUTED:
            return tf.data.Dataset.range(start, ENDLESS).map(in_graph(lambda position: self.at(position, seed)))

        def epoch(number: tf.Tensor, skipped: tf.Tensor) -> Records:
            # Sorting random numbers is a permutation of which all are equally likely.
            keys = drawn(seed, ORDER, number=number, count=self.num_examples)
            return tf.data.Dataset.from_tensor_slices(tf.cast(tf.argsort(keys, stable=True), tf.int64)[skipped:])

        return self.epochs(start, epoch)

    def at(self, position: tf.Tensor, seed: int) -> tf.Tensor:
        """The index at a position of the endless stream of many examples."""
        # Too many to permute at once: a cipher from places to indices, a bijection for each epoch.
        epoch, rank = position // self.num_examples, position % self.num_examples
        # 128 random bits, of which the kernel takes 96.
        keys = tf.bitcast(drawn(seed, ORDER, number=epoch, count=2), tf.uint32)  # (2, 2)
        return tf.raw_ops.RandomIndexShuffle(
            index=rank,
            seed=tf.reshape(keys, (4,))[:3],
            max_index=tf.constant(self.num_examples - 1, tf.int64),
            rounds=_ROUNDS,
        )


@dataclass(frozen=True, kw_only=True)
class Sequential(Source):
    """A source that is read front to back: every epoch shuffles within a buffer, as the reference does.

    Files are opened in another order each epoch, many at a time (`AT_ONCE`).  The buffer holds as many batches as the
    reference's, and never less than `HELD_BYTES` of examples: small sets are shuffled as a whole.
    """

    epoch: Callable[[tf.Tensor | None], Records]
    """Seed of the order of files, scalar int64, or None for their own order → the records of one epoch."""
    example_bytes: int = 0
    """What an encoded example takes in memory, about; 0 where nobody knows."""

    def ordered(self) -> Records:
        return self.epoch(None)

    def shuffled(self, seed: int, *, start: int | tf.Tensor = 0, buffer: int) -> Records:
        # Few bytes each: more of them are held than were asked for.
        small = HELD_BYTES // self.example_bytes if self.example_bytes else 0
        held = self.num_examples if self.in_memory else min(max(buffer, small, 1), self.num_examples)

        def epoch(number: tf.Tensor, skipped: tf.Tensor) -> Records:
            # Within a map this sets the map's own seed: the order must not depend on the global one.  Not 0: with that,
            # TensorFlow compares the tensor seeds below in Python, which fails.
            tf.random.set_seed(1)
            (files,) = tf.unstack(drawn(seed, FILES, number=number, count=1))
            (order,) = tf.unstack(drawn(seed, ORDER, number=number, count=1))
            return self.epoch(files).shuffle(held, seed=order).skip(tf.cast(skipped, tf.int64))

        return self.epochs(start, epoch)


def with_opacity(source: Source) -> Source:
    """The same images in the same order, each with the opacity of its pixels as a fourth channel."""
    read = source.read
    return replace(
        source,
        read=in_graph(lambda image: images.with_opacity(read(image))),
        rows=None if source.rows is None else replace(source.rows, opacity=True),
        vectorised=False,
        channels=4,
    )


def from_arrays(pixels: np.ndarray, labels: np.ndarray | None = None, *, class_names: tuple[str, ...] = ()) -> Source:
    """Images in memory.

    Args:
        pixels: uint8 or uint16 over their full range, (n, h, w), or (n, h, w, c) with 1, 3 or 4 channels,
            of which the last is dropped.
        labels: (n,) integers from 0 on, or None; all -1 means the same.
        class_names: by default the numbers up to the largest label.

    Raises:
        InputError: shapes, types or label values do not fit.
    """
    pixels = np.asarray(pixels)
    check(pixels.dtype in (np.uint8, np.uint16), "pixels must be uint8 or uint16 integers", dtype=str(pixels.dtype))
    pixels = pixels[..., None] if pixels.ndim == 3 else pixels
    fits = pixels.ndim == 4 and pixels.size > 0 and pixels.shape[-1] in (1, 3, 4)
    check(fits, "pixels must have shape (n, h, w) or (n, h, w, 1, 3 or 4)", shape=pixels.shape)
    pixels = pixels[..., :3]
    notes: tuple[str, ...] = ()
    # Arrays whose labels are all -1 have none.
    if labels is not None and np.shape(labels) == (len(pixels),) and np.all(np.asarray(labels) == _NO_LABEL):
        labels, notes = None, (missing_labels(np.asarray(labels), "arrays"),)
    if labels is not None:
        labels, class_names = _array_labels(labels, class_names, len(pixels))
    rows = Rows(images=pixels, names=np.array([str(i) for i in range(len(pixels))], object), labels=labels)
    content = {"image": pixels} | ({} if labels is None else {"label": labels})
    return Indexed(
        origin="arrays",
        in_memory=True,
        identity=lambda say=silent: [{key: contents.of_array(value) for key, value in content.items()}],
        num_examples=len(pixels),
        class_names=class_names if labels is not None else (),
        only=only_class(labels, class_names),
        record=rows.tensors(),
        notes=notes,
        rows=rows,
        sides=pixels.shape[1:3],
        vectorised=True,
    )


_NO_LABEL = -1
"""What TensorFlow Datasets gives an image that has no label, such as STL-10's `unlabelled`."""


def missing_labels(labels: np.ndarray, origin: str) -> str:
    """A line for the user where labels are missing: the images are then taken without any; nothing where none is.

    Example:
        >>> missing_labels(np.array([-1, -1]), "stl10 (unlabelled)")
        'stl10 (unlabelled) has no labels (all are -1)'
    """
    count = int(np.sum(labels == _NO_LABEL))
    if count == labels.size > 0:
        return f"{origin} has no labels (all are -1)"
    if count:
        return f"{origin} is taken without labels: {count:,} of {labels.size:,} images looked at have none (-1)"
    return ""


def only_class(labels: np.ndarray | None, class_names: Sequence[str]) -> str:
    """The only class that occurs among labels `(n,)`; nothing where several do, or none.

    Example:
        >>> only_class(np.array([1, 1]), ("cat", "dog")), only_class(np.array([0, 1]), ("cat", "dog"))
        ('dog', '')
    """
    found = np.unique(labels if labels is not None and np.ndim(labels) == 1 else [])
    return str(class_names[int(found[0])]) if len(found) == 1 else ""


def _array_labels(labels: np.ndarray, class_names: tuple[str, ...], count: int) -> tuple[np.ndarray, tuple[str, ...]]:
    labels = np.asarray(labels)
    fits = labels.shape == (count,) and np.issubdtype(labels.dtype, np.integer) and labels.min() >= 0
    check(fits, "labels must be one integer from 0 on for each image, or all -1", shape=labels.shape, images=count)
    class_names = tuple(class_names) or tuple(map(str, range(int(labels.max()) + 1)))
    check(labels.max() < len(class_names), "each label must have a class name", largest_label=int(labels.max()))
    return labels.astype(np.int64), class_names


def from_folder(
    folder: str | Path | Folder,
    *,
    labelled: bool | None = None,
    numbers: np.ndarray | None = None,
    exif_orientation: bool = False,
) -> Source:
    """Image files of a folder; in one sub-folder a class, in any depth below it, or all in the folder itself.

    Hidden files and folders are passed over; what else is no picture is told in `notes`.  Classes are the sub-folders
    with images, sorted by name.

    Args:
        folder: where to look, or what `folders.look` has found there.
        labelled: whether sub-folders are classes; by default they are where they alone hold images.
        numbers: of the files that are taken; by default all.
        exif_orientation: whether pictures are turned as their EXIF orientation says; the reference does not.

    Raises:
        InputError: no such folder, no image in it, or a layout that can be read in two ways.
    """
    found = folder if isinstance(folder, Folder) else look(folder)
    # Pictures in the folder itself have no class.
    labelled = not found.loose if labelled is None else labelled
    chosen = range(len(found.files)) if numbers is None else numbers
    files = [found.files[row] for row in chosen]
    rows = Rows(
        images=np.array([os.fsencode(file) for file in files], object),
        names=np.array([shown(file) for file in files], object),
        labels=found.labels()[chosen] if labelled else None,
        upright=exif_orientation,
    )
    names = [shown(found.below[row]) for row in chosen]

    @in_graph
    def read(path: Any) -> Any:
        encoded = tf.io.read_file(path)
        return images.upright(encoded) if exif_orientation else encoded

    return Indexed(
        origin=shown(found.root),
        num_examples=len(files),
        class_names=tuple(map(shown, found.classes)) if labelled else (),
        identity=lambda say=silent: [names, contents.digests(files, say=say), *["upright"] * exif_orientation],
        place=f"{shown(found.root)}/",
        read=read,
        record=rows.tensors(),
        notes=tuple(found.notes(labelled=labelled)),
        roster=found.roster,
        rows=rows,
        gathers=True,
    )


def cached(source: Source) -> Source:
    """The same examples, kept in memory as encoded bytes or pixels once they have been read (`cache_dataset`).

    A file that cannot be read is kept as no bytes at all: it fails to decode like any other corrupt image.
    """

    @in_graph
    def held(record: Any) -> Any:
        # What cannot be read is kept as nothing: the second epoch finds it as unreadable as the first.
        read = tf.data.Dataset.from_tensors(record["image"]).map(source.read).ignore_errors()
        nothing = tf.data.Dataset.from_tensors(tf.zeros((), read.element_spec.dtype))
        return record | {"image": read.concatenate(nothing).take(1).get_single_element()}

    if source.in_memory:
        return source
    memory = source.ordered().map(held, num_parallel_calls=CORES, deterministic=True).cache()
    # Records of what could not be read have no shape; of others four channels are known beforehand.
    read = in_graph(lambda image: tf.ensure_shape(image, (None, None, 4))) if source.channels == 4 else _as_it_is
    return Sequential(**source.told(), epoch=lambda seed: memory, in_memory=True, read=read)
