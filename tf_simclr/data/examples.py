"""Batches of examples from batches of records, whether all of these can be read or not."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tf_simclr.data import draws, images
from tf_simclr.data.kept.pictures import Pictures, Places
from tf_simclr.data.recipe import Recipe
from tf_simclr.data.sources import CORES, Source, in_graph
from tf_simclr.errors import InputError
from tf_simclr.frameworks import tf

View = Callable[..., Any]
"""Image (h, w, 3), seed (2,) → tensors of static shapes; with partners the partner's image is a third argument."""
_WORKERS = max(16, CORES)
"""Images of a batch that are made at the same time; TensorFlow's threads are as many as there are cores."""


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
        room: shapes to which what is seen of images is padded with zeros, where it is not of one shape.
        at_once: where most of a batch can be read at once: its places (`kept.pictures.Places`); the others are made
            one by one.
    """

    source: Source
    view: View
    raw_view: Callable[..., Any] | None
    seed: int
    partners: bool
    unreadable: Unreadable | None
    deterministic: bool
    room: Any = None
    at_once: Places | None = None

    def batch(self, positions: tf.Tensor, records: dict[str, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        """The examples of a batch's records (n,), each part in one; those that fail are made again, `mended`."""
        at_once, rows = self.at_once, positions.shape[0]
        if at_once is None:
            return self.one_by_one(positions, records)
        number, good = at_once.begun(records["image"])
        labels = [records["label"]] if self.source.labelled else []

        def mended() -> tuple[tf.Tensor, ...]:
            rest = tf.nest.map_structure(lambda part: part[~good], (positions, records))
            where, seen, *own = self.one_by_one(*rest)
            # (rest, 1) == (1, n): of each example that was made again its place in the batch, (rest,).
            places = tf.argmax(where[:, None] == positions[None], axis=1, output_type=tf.int32)
            full = at_once.mended(number, places, seen=seen, count=rows)
            return full, *(tf.tensor_scatter_nd_update(*labels, places[:, None], one) for one in own)

        number, *labels = tf.cond(tf.reduce_all(good), lambda: (number, *labels), mended)
        return positions, at_once.ended(number, count=rows), *labels

    def one_by_one(self, positions: tf.Tensor, records: dict[str, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        """As `batch`, an image after the other.

        A data set inside the map is what catches a decoder's error within the graph; one an image would cost a tenth
        of all time.
        """
        rows = tf.size(positions, out_type=tf.int64)
        together = getattr(self.source.read, "together", None) if self.unreadable is not None else None
        # A source that can, reads all records of a batch in one operation.
        raw = [] if together is None else [together(records["image"])]
        own = tf.data.Dataset.from_tensor_slices((positions, records, *raw))
        whole = own.map(in_graph(self.whole), num_parallel_calls=_WORKERS, deterministic=self.deterministic)
        # 1. All that can be read.  2. If some lack, those are made again, with others in their place.
        tried = self.stacked(whole.ignore_errors(), rows)
        nothing = tf.nest.map_structure(lambda part: tf.zeros((0, *part.shape[1:]), part.dtype), tried.element_spec)
        found = tried.concatenate(tf.data.Dataset.from_tensors(nothing)).take(1).get_single_element()
        # As a graph: what lacks is looked for only where something does.
        complete = tf.equal(tf.size(found[0], out_type=tf.int64), rows)
        parts = tf.cond(complete, lambda: found, lambda: self.completed(found, positions, records=records))
        static = positions.shape[0]
        return tf.nest.map_structure(lambda part: tf.ensure_shape(part, (static, *part.shape[1:])), parts)

    def completed(
        self, found: tuple[tf.Tensor, ...], positions: tf.Tensor, *, records: dict[str, tf.Tensor]
    ) -> tuple[tf.Tensor, ...]:
        """What was found of a batch, and at the positions that it lacks mended examples; in the order of positions."""
        # (n, found) compared: positions that no example has.
        lacking = tf.reduce_all(positions[:, None] != found[0][None], axis=1)
        rest = tf.nest.map_structure(lambda part: part[lacking], (positions, records))
        mended = tf.data.Dataset.from_tensor_slices(rest).map(in_graph(self.mended), num_parallel_calls=_WORKERS)
        made = self.stacked(mended, tf.size(positions, out_type=tf.int64)).get_single_element()
        # By position: a mended example stands where the damaged one would have.
        order = tf.argsort(tf.concat([found[0], made[0]], 0))
        return tf.nest.map_structure(lambda *pair: tf.gather(tf.concat(pair, 0), order), found, made)

    def stacked(self, made: tf.data.Dataset, rows: int | tf.Tensor) -> tf.data.Dataset:
        """Batches of so many examples; the copy into the batch is the one that pads, which costs next to nothing."""
        if self.room is None:
            return made.batch(rows)
        position, _, *label = made.element_spec
        return made.padded_batch(rows, (position.shape, self.room, *(part.shape for part in label)))

    def whole(self, position: tf.Tensor, record: dict[str, tf.Tensor], *given: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """The example of a record that can be read; fails on another.  `given` is what has been read of it already."""
        # The seed of the position, and the bytes or pixels as they are stored.
        own = self.drawn(position)
        read: Any = self.source.read
        raw = read.opened(record["image"], given[0]) if given else read(record["image"])
        if self.raw_view is not None:
            return self.labelled(position, self.raw_view(raw, seed=own), record=record)
        # With partners the record's own image, and the one that the seed draws for it.
        loaded = record | {"image": images.to_rgb(raw)}
        others = [self.source.decoded(self.meant(loaded, own))["image"]] if self.partners else []
        return self.labelled(position, self.view(loaded["image"], own, *others), record=record)

    def mended(self, position: tf.Tensor, record: dict[str, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        """The example of a record, or where that cannot be read of another, drawn from the source by the position."""
        own = self.drawn(position)
        draw = tf.random.experimental.stateless_fold_in(own, draws.SPARE)
        common: dict[str, Any] = {"record": record, "unreadable": self.unreadable}
        loaded, _ = loaded_or(lambda: _spares(self.source, seed=draw), self.source, **common)
        others = [self.partner(loaded, own)] if self.partners else []
        return self.labelled(position, self.view(loaded["image"], own, *others), record=loaded)

    def partner(self, loaded: dict[str, tf.Tensor], seed: tf.Tensor) -> tf.Tensor:
        """The image of the partner of what was loaded, which need not be what the record was of; or its own."""
        common: dict[str, Any] = {"record": self.meant(loaded, seed), "unreadable": self.unreadable}
        return loaded_or(lambda: tf.data.Dataset.from_tensors(loaded), self.source, **common)[0]["image"]

    def meant(self, loaded: dict[str, tf.Tensor], seed: tf.Tensor) -> dict[str, tf.Tensor]:
        """The record of the partner that a seed draws."""
        draw = tf.random.experimental.stateless_fold_in(seed, draws.PARTNER)
        partner: Any = self.source.partner  # there is one: `partners` says so
        return partner({name: value for name, value in loaded.items() if name != "image"}, draw)

    def drawn(self, position: tf.Tensor) -> tf.Tensor:
        """The seed (2,) of a position."""
        return tf.random.experimental.stateless_fold_in(tf.constant([self.seed, draws.VIEWS], tf.int64), position)

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
    nothing = tf.data.Dataset.from_tensors(record | {"image": np.zeros((0, 0, source.channels), np.float32)})
    own = tf.data.Dataset.from_tensors(record).map(source.decoded).ignore_errors()
    loaded = own.concatenate(nothing).take(1).get_single_element()
    readable = tf.size(loaded["image"]) > 0

    def replaced() -> dict[str, tf.Tensor]:
        noted = [] if unreadable is None else [tf.numpy_function(unreadable.add, [record["name"]], tf.bool)]
        with tf.control_dependencies(noted):
            return otherwise().take(1).get_single_element()

    return tf.cond(readable, lambda: loaded, replaced), readable


def _spares(source: Source, *, seed: tf.Tensor) -> tf.data.Dataset:
    """The readable examples, from a random one on; where there is none any more, an error that says so."""
    # From a random place on, twice through the source: every readable example is reachable.
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


# Batches as a device takes them: padded integers of one size, and the boxes and numbers drawn for them.
#
# The host decodes; all else is `device_views`.  An image that is larger than the padding is shrunk to fit, by the means
# of areas, and its boxes are drawn in what is left: they cover the same shares of the image, with the same aspect
# ratios, up to the rounding of a box to pixels.

_Batch = dict[str, "tf.Tensor"]
SMALL = 64
"""Side in pixels up to which views are made a batch at a time on a CPU, too."""
_ROOM = 2.2
_STEP = 64


def side_for(image_size: int) -> int:
    """The side that images are padded to, for views of a size, where nothing is known of them: 512 for 224.

    More than twice a view's side: most of ImageNet fits, and what is shrunk still has enough pixels for most crops.
    """
    # Rounded up to a multiple of _STEP: few sizes, few programs.
    return -(-int(_ROOM * image_size) // _STEP) * _STEP


@dataclass(frozen=True, kw_only=True)
class Packing:
    """How images become a batch.

    Attributes:
        sides: height and width that they are padded to.
        deep: whether the integers have 16 bits; others are converted.
        image_size: side of the views.
        recipe: of the views.
        seed: of the stream.
        views: of each position, 2, or 1 as fine-tuning takes them.
        apart: whether each view is of an image of its own.
        central: whether boxes are the squares that evaluation sees; else they are drawn.
        channels: of the images.
    """

    sides: tuple[int, int]
    deep: bool
    image_size: int
    recipe: Recipe
    seed: int
    views: int = 2
    apart: bool = False
    central: bool = False
    channels: int = 3

    @property
    def room(self) -> dict[str, tuple[int, ...]]:
        """What a place of a batch holds before `finished`: images in rows of numbers, and their shapes."""
        count = self.views if self.apart else 1
        return {"images": (count, self.sides[0], self.sides[1] * self.channels), "shapes": (count, 2)}

    def of_raw(self, raw: tf.Tensor, *, seed: tf.Tensor | None = None) -> _Batch:
        """An image `(1, h, 3 w)`, not padded, and its shape `(1, 2)`, of what `images.to_rgb` takes."""
        return images.to_rgb(raw, self.flat)

    def of_images(self, image: tf.Tensor, seed: tf.Tensor, *others: tf.Tensor) -> _Batch:
        """The same of images in [0, 1], one for all views; or one for each, padded."""
        # [0, 1] → 16 bits: what made them may have had more than 8.
        made = [self.flat(tf.cast(tf.round(one * 65535), tf.uint16)) for one in (image, *others)]
        if not others:
            return made[0]
        return tf.nest.map_structure(lambda *parts: tf.concat(parts, 0), *map(self.padded, made))

    def holds(self, source: Source) -> bool:
        """Whether a batch of a source's pixels can be seen at once."""
        fits = source.sides is not None and all(own <= side for own, side in zip(source.sides, self.sides, strict=True))
        return source.vectorised and fits

    def of_batch(self, raw: tf.Tensor) -> _Batch:
        """The same of a batch of pixels in memory, `(n, h, w, 1 or channels)`, that fit into the padding."""
        _, height, width, channels = raw.shape
        # Grey is repeated.
        raw = raw if channels == self.channels else tf.repeat(raw, self.channels, axis=-1)
        right, below = self.sides[1] - width, self.sides[0] - height
        if right or below:
            raw = tf.pad(raw, ((0, 0), (0, below), (0, right), (0, 0)))
        shapes = tf.broadcast_to([height, width], (tf.shape(raw)[0], 1, 2))
        # (n, h, w, c) → (n, 1, h, w, c): one image for all of its views.
        return {"images": images.in_bits(raw, deep=self.deep)[:, None], "shapes": shapes}

    def of_kept(self, source: Source) -> Places | None:
        """Places of a cache's pictures, where most of them can be read a batch at once."""
        kept: Any = source.read
        if self.apart or not isinstance(kept, Pictures) or not kept.suits(deep=self.deep):
            return None
        return Places(kept, sides=self.sides, deep=self.deep)

    def of_rows(self, rows: tf.Tensor) -> _Batch:
        """The rows `(n,)` of images that a device holds (`device_views.Held`), which have the sides of the padding."""
        return {"rows": tf.cast(rows, tf.int32), "shapes": tf.broadcast_to(self.sides, (tf.shape(rows)[0], 1, 2))}

    def flat(self, pixels: tf.Tensor) -> _Batch:
        """Integers `(h, w, channels)`, made to fit, as `(1, h, channels w)`: of few dimensions, so that whole rows are
        taken into a batch."""
        pixels = images.in_bits(self.fitting(pixels), deep=self.deep)
        shape = tf.shape(pixels)
        rows = tf.reshape(pixels, (1, shape[0], -1))
        return {"images": tf.ensure_shape(rows, (1, None, None)), "shapes": tf.ensure_shape(shape[None, :2], (1, 2))}

    def padded(self, one: _Batch) -> _Batch:
        """An image in the corner of zeros."""
        (_, height, width), (_, tall, wide) = tf.unstack(tf.shape(one["images"])), self.room["images"]
        whole = tf.pad(one["images"], ((0, 0), (0, tall - height), (0, wide - width)))
        return one | {"images": tf.ensure_shape(whole, (1, tall, wide))}

    def fitting(self, pixels: tf.Tensor) -> tf.Tensor:
        """The pixels, or where they are too many the means of areas of them, in the same proportions."""

        def shrunk() -> tf.Tensor:
            shape = tf.cast(tf.shape(pixels)[:2], tf.float32)
            # The side that fits worse decides; the proportions stay.
            scale = tf.reduce_min(tf.constant(self.sides, tf.float32) / shape)
            size = tf.clip_by_value(tf.cast(tf.round(shape * scale), tf.int32), 1, self.sides)
            means = tf.raw_ops.ResizeArea(images=pixels[None], size=size, align_corners=False)[0]
            return tf.cast(tf.round(means), pixels.dtype)

        return tf.cond(tf.reduce_any(tf.shape(pixels)[:2] > self.sides), images.seldom(shrunk), lambda: pixels)

    def finished(self, positions: tf.Tensor, seen: _Batch) -> _Batch:
        """The batch of images at positions of the stream, with what is drawn for them.

        Python draws for all of them at once: less than a tenth of what one operation an image would cost.
        """
        noisy = self.recipe.noise_probability > 0
        kinds = {"boxes": tf.int32, "draws": tf.float32} | ({"noise": tf.float32} if noisy else {})
        size, rows = self.image_size, positions.shape[0]
        shapes = {"boxes": (4,), "draws": (len(draws.DRAWS),), "noise": (size, size, 3)}
        # Python draws: the numbers depend on positions and shapes alone.
        drawn = tf.numpy_function(self.drawn, [positions, seen["shapes"]], list(kinds.values()), stateful=False)
        named = zip(kinds, drawn, strict=True)
        whole = {name: part for name, part in seen.items() if name != "shapes"}
        if "images" in seen:  # (n, images, height, channels width) → (n, images, height, width, channels)
            apart = (rows, self.room["images"][0], *self.sides, self.channels)
            whole["images"] = tf.reshape(seen["images"], apart)
        return whole | {name: tf.ensure_shape(value, (rows, self.views, *shapes[name])) for name, value in named}

    def drawn(self, positions: np.ndarray, shapes: np.ndarray) -> list[np.ndarray]:
        """Boxes and draws, and noise where there is any, of images `(n, 1 or views, 2)`."""
        how: dict[str, Any] = {"size": self.image_size, "recipe": self.recipe, "views": self.views}
        return list(draws.batch(self.seed, positions, shapes=shapes, central=self.central, **how).values())


Finish = Callable[["tf.Tensor", _Batch], _Batch]
"""Positions of a batch and what is seen there → the batch."""
