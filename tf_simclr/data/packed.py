"""Batches as a device takes them to make views: padded integers of one size, and the boxes and numbers drawn for them.

The host decodes; everything else is `tf_simclr.data.device_views`.  An image that is larger than the padding is shrunk
to fit into it, by the means of areas, and its boxes are drawn in what is left: they cover the same shares of the image,
with the same aspect ratios, up to the rounding of a box to pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tf_simclr.data import draws, images
from tf_simclr.data.recipe import Recipe
from tf_simclr.data.sources import Source
from tf_simclr.frameworks import tf

Batch = dict[str, "tf.Tensor"]
SMALL = 64
"""Side in pixels up to which views are made a batch at a time on a CPU, too."""
_ROOM = 2.2
_STEP = 64


def side_for(image_size: int) -> int:
    """The side that images are padded to, for views of a size, where nothing is known of them: 512 for 224.

    More than twice a view's side: most of ImageNet fits, and what is shrunk still has enough pixels for most crops.
    """
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
        central: whether boxes are the squares that evaluation sees; else they are drawn.
    """

    sides: tuple[int, int]
    deep: bool
    image_size: int
    recipe: Recipe
    seed: int
    views: int = 2
    central: bool = False

    def of_raw(self, raw: tf.Tensor, *, seed: tf.Tensor | None = None) -> Batch:
        """An image `(1, height, width, 3)` and its shape `(1, 2)` of what `images.to_rgb` takes."""
        found = images.to_rgb(raw, self.padded)
        return {name: tf.ensure_shape(part, self.spec[name]) for name, part in found.items()}

    def of_images(self, image: tf.Tensor, seed: tf.Tensor, *others: tf.Tensor) -> Batch:
        """The same of images in [0, 1], one for all views or one for each."""
        made = [self.padded(tf.cast(tf.round(one * 65535), tf.uint16)) for one in (image, *others)]
        return {name: tf.concat([one[name] for one in made], 0) for name in made[0]}

    def holds(self, source: Source) -> bool:
        """Whether a batch of a source's pixels can be seen at once."""
        fits = source.sides is not None and all(own <= side for own, side in zip(source.sides, self.sides, strict=True))
        return source.vectorised and fits

    @property
    def spec(self) -> dict[str, tuple[int, ...]]:
        return {"images": (1, *self.sides, 3), "shapes": (1, 2)}

    def of_batch(self, raw: tf.Tensor) -> Batch:
        """The same of a batch of pixels in memory, `(n, h, w, 1, 3 or 4)`, that fit into the padding."""
        _, height, width, channels = raw.shape
        raw = raw[..., :3] if channels >= 3 else tf.repeat(raw, 3, axis=-1)
        right, below = self.sides[1] - width, self.sides[0] - height
        if right or below:
            raw = tf.pad(raw, ((0, 0), (0, below), (0, right), (0, 0)))
        shapes = tf.broadcast_to([height, width], (tf.shape(raw)[0], 1, 2))
        return {"images": in_bits(raw, deep=self.deep)[:, None], "shapes": shapes}

    def padded(self, pixels: tf.Tensor) -> Batch:
        """Integers `(h, w, 3)` in the corner of zeros; `tf.pad` would take three times as long."""
        height, width = self.sides
        pixels = in_bits(self.fitting(pixels), deep=self.deep)
        shape = tf.shape(pixels)
        right = tf.zeros((shape[0], width - shape[1], 3), pixels.dtype)
        below = tf.zeros((height - shape[0], width, 3), pixels.dtype)
        whole = tf.concat([tf.concat([pixels, right], 1), below], 0)
        return {"images": tf.reshape(whole, self.spec["images"]), "shapes": shape[None, :2]}

    def fitting(self, pixels: tf.Tensor) -> tf.Tensor:
        """The pixels, or where they are too many the means of areas of them, in the same proportions."""
        limits, shape = tf.constant(self.sides, tf.float32), tf.cast(tf.shape(pixels)[:2], tf.float32)
        scale = tf.reduce_min(limits / shape)

        def shrunk() -> tf.Tensor:
            size = tf.clip_by_value(tf.cast(tf.round(shape * scale), tf.int32), 1, self.sides)
            means = tf.raw_ops.ResizeArea(images=pixels[None], size=size, align_corners=False)[0]
            return tf.cast(tf.round(means), pixels.dtype)

        return tf.cond(scale < 1, shrunk, lambda: pixels)

    def finished(self, positions: tf.Tensor, seen: Batch) -> Batch:
        """The batch of images at positions of the stream, with what is drawn for them.

        Python draws for all of them at once: less than a tenth of what one operation an image would cost.
        """
        noisy = self.recipe.noise_probability > 0
        kinds = {"boxes": tf.int32, "draws": tf.float32} | ({"noise": tf.float32} if noisy else {})
        size, rows = self.image_size, positions.shape[0]
        shapes = {"boxes": (4,), "draws": (len(draws.DRAWS),), "noise": (size, size, 3)}
        drawn = tf.numpy_function(self.drawn, [positions, seen["shapes"]], list(kinds.values()), stateful=False)
        named = zip(kinds, drawn, strict=True)
        return {"images": seen["images"]} | {
            name: tf.ensure_shape(value, (rows, self.views, *shapes[name])) for name, value in named
        }

    def drawn(self, positions: np.ndarray, shapes: np.ndarray) -> list[np.ndarray]:
        """Boxes and draws, and noise where there is any, of images `(n, 1 or views, 2)`."""
        shapes = np.broadcast_to(shapes, (len(shapes), self.views, 2))
        found = draws.batch(
            self.seed, positions, shapes=shapes, size=self.image_size, recipe=self.recipe, views=self.views
        )
        if self.central:
            proportion = images.evaluation_proportion(self.image_size)
            found["boxes"] = draws.central_boxes(shapes, proportion=proportion)
        return list(found.values())


def in_bits(pixels: tf.Tensor, *, deep: bool) -> tf.Tensor:
    """Integers over their full range as those of 16 or 8 bits; only what has more bits than asked for loses any."""
    if deep == (pixels.dtype == tf.uint16):
        return pixels
    if deep:
        return tf.cast(pixels, tf.uint16) * 257
    return tf.cast(tf.round(tf.cast(pixels, tf.float32) / 257), tf.uint8)


Finish = Callable[["tf.Tensor", Batch], Batch]
"""Positions of a batch and what is seen there → the batch."""
