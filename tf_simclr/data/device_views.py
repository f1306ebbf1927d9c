"""Whole views where the network is: from padded integers, boxes and draws, by `keras.ops`, on any backend.

The host decodes and pads, and draws what is random (`tf_simclr.data.draws`); the device crops, resizes, flips and
changes colours for the whole batch at once.  With equal boxes and draws a view is that of `tf_simclr.data.augment` up
to rounding.  Everything is float32, whatever the network computes in.

A device does not branch: each of the four places of a colour change computes brightness and contrast (one affine map),
saturation, and hue, and every view takes its own.  No random number is drawn in it, and nothing is convolved, so it
compiles under XLA on GPUs and TPUs alike.

    views(batch)    crop and resize: (size, height) @ image @ (width, size), matrices with four weights a row
                    flip
                    four times: affine | saturation | hue, by the drawn order; clip
                    grayscale, clip, blur: sums of shifted planes, down and then across
                    rotation, noise, Sobel filter, cutout; grey input

Planes are `(n, views, channels, height, width)` in [0, 1]; amounts `(n, views)`.

References:
    Chen et al., SimCLR, arXiv:2002.05709 (Section 3, Appendix A, Figure 4)
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from tf_simclr.data.draws import DRAWS
from tf_simclr.data.recipe import LUMA, ORDERS, TINY, Bicubic, Recipe

_STEPS = 1024
"""TensorFlow rounds a place between two pixels to so many steps."""
_CUBIC = {"tf1": -0.75, "tf2": -0.5}
"""The cubic's slope at distance 1."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeviceViews:
    """`views` of a size by a recipe, as a model takes them (`SimCLR(views_of=…)`); TensorFlow compiles them by XLA.

    Attributes:
        size: side in pixels.
        recipe: how they come about.
        single: whether one view of each image is made, `(n, size, size, 3)`, and not two.
        held: images that the device holds: batches name them by `rows` instead of bringing them.
        channels: of the images.
    """

    size: int
    recipe: Recipe
    single: bool = False
    held: "Held | None" = None
    channels: int = 3

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a view."""
        return self.size, self.size, self.channels

    def __call__(self, batch: dict):
        """The views `(n, views, size, size, 3)` of a batch; see `views`."""
        batch = self.with_images(batch)
        if keras.backend.backend() == "tensorflow":
            tensors = {name: ops.convert_to_tensor(x) for name, x in batch.items()}
            found = compiled(self.size, recipe=self.recipe)(tensors)
        else:
            found = views(batch, size=self.size, recipe=self.recipe)
        return found[:, 0] if self.single else found

    def with_images(self, batch):
        """A batch that names rows of what is held, with the images themselves; any other one as it is.

        JAX calls it before a step: in a compiled one, what is held would be a constant of the program.
        """
        if self.held is None or not isinstance(batch, dict) or "rows" not in batch:
            return batch
        # `rows` is taken out: nothing else reads it.
        return {name: part for name, part in batch.items() if name != "rows"} | {"images": self.held(batch["rows"])}


class Held:
    """All images of a small set where the network is, on each replica whole; batches name rows of them.

    Make it within the scope of the devices that train.

    Args:
        pixels: uint8 or uint16 `(n, h, w, channels)`, over their full range.
    """

    def __init__(self, pixels: np.ndarray):
        self.shape, self.dtype = pixels.shape[1:], pixels.dtype
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            # A variable is there once a replica; a constant would be copied into each traced program.
            self.pixels: Any = tf.Variable(_words(pixels), trainable=False, name="images")
        elif keras.backend.backend() == "jax":
            self.pixels = _everywhere(pixels)
        else:
            self.pixels = ops.convert_to_tensor(pixels)

    def __call__(self, rows):
        """The images `(n, 1, h, w, 3)` of rows `(n,)`."""
        if keras.backend.backend() == "jax":
            return _taken()(self.pixels, rows)
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            taken = _taken_of_words(self.shape, str(self.dtype))
            return taken(tf.convert_to_tensor(self.pixels), tf.convert_to_tensor(rows))
        return self.pixels[ops.convert_to_tensor(rows)][:, None]


def _words(pixels: np.ndarray) -> np.ndarray:
    """Each image's bytes as words of 64 bits, `(n, words)`: not every GPU kernel of TensorFlow takes bytes."""
    # Padded to whole words: an image of 27 bytes takes four.
    flat = pixels.reshape(len(pixels), -1).view(np.uint8)
    return np.ascontiguousarray(np.pad(flat, ((0, 0), (0, -flat.shape[1] % 8)))).view(np.int64)


def _everywhere(pixels: np.ndarray):
    """The pixels on each device of JAX that trains, also those of other processes."""
    import jax

    distribution = keras.distribution.distribution()
    if distribution is None:
        return jax.device_put(pixels)
    whole = jax.sharding.NamedSharding(distribution.device_mesh.backend_mesh, jax.sharding.PartitionSpec())
    # Each process gives the parts of its own devices, all of them the whole.
    return jax.make_array_from_callback(pixels.shape, whole, lambda part: pixels[part])


@functools.cache
def _taken() -> Callable:
    """Images `(n, h, w, 3)` and rows of them, to these; compiled by JAX."""
    import jax

    return jax.jit(lambda pixels, rows: pixels[rows][:, None])


@functools.cache
def _taken_of_words(shape: tuple[int, ...], dtype: str) -> Callable:
    """The same of images as words, compiled by TensorFlow."""
    import tensorflow as tf

    def taken(words, rows):
        # (rows, words) → their bytes → numbers → the padding cut off → (rows, 1, h, w, 3).
        numbers = tf.reshape(tf.bitcast(tf.gather(words, rows), dtype), (tf.shape(rows)[0], -1))
        return tf.reshape(numbers[:, : np.prod(shape)], (-1, 1, *shape))

    return tf.function(taken, jit_compile=True, autograph=False)


@functools.cache
def compiled(size: int, *, recipe: Recipe) -> Callable:
    """`views`, compiled by TensorFlow: its operations one by one would take many times as long."""
    import tensorflow as tf

    return tf.function(functools.partial(views, size=size, recipe=recipe), jit_compile=True, autograph=False)


def views(batch: dict, *, size: int, recipe: Recipe):
    """The views of a batch.

    Args:
        batch: `images`, uint8 or uint16 `(n, k, height, width, c)`, each in the upper left corner of zeros, where k is
            1 (all views are of one image) or the number of views; and as `draws.batch` makes them `boxes`, int32
            `(n, views, 4)` within the images, `draws`, float32 `(n, views, 17)`, and `noise`, if the recipe has any.
        size: side of the views in pixels.
        recipe: how they come about.

    Returns:
        float32 `(n, views, size, size, c)` in [0, 1]; of four channels the last is an opacity, whose values stay.
    """
    # (n, views) each, by its name.
    draw = {name: batch["draws"][..., i] for i, name in enumerate(DRAWS)}

    def by_chance(name: str, planes, change: Callable):
        """The planes, of those views changed whose draw is below the operator's probability."""
        probability = getattr(recipe, f"{name}_probability")
        # Both are computed and one is taken, view by view: a device has no branches within a batch.
        return ops.where(_spread(draw[name] < probability), change(planes), planes) if probability > 0 else planes

    # 1. Crops, as planes (n, views, 3, size, size).  2. Flip, colours, blur.  3. What SimCLR's recipe has not.
    planes = crops(batch["images"], batch["boxes"], size=size, bicubic=recipe.bicubic)
    planes = by_chance("flip", planes, lambda p: ops.flip(p, -1))
    planes = by_chance("jitter", planes, lambda p: of_colors(p, lambda c: jitter(c, draw, recipe=recipe)))
    planes = clipped(by_chance("grayscale", planes, lambda p: of_colors(p, _gray)))
    if recipe.use_blur:
        planes = by_chance("blur", planes, lambda p: clipped(blur(p, 0.1 + 1.9 * draw["sigma"])))
    planes = by_chance("rotation", planes, lambda p: rotation(p, draw["quarters"]))
    if recipe.noise_probability > 0:
        noise = ops.transpose(batch["noise"], (0, 1, 4, 2, 3))  # (n, views, h, w, 3) → planes (n, views, 3, h, w)
        planes = by_chance("noise", planes, lambda p: clipped(of_colors(p, lambda c: c + 0.1 * noise)))
    planes = by_chance("sobel", planes, sobel)
    planes = by_chance("cutout", planes, lambda p: cutout(p, (draw["center_y"], draw["center_x"])))
    planes = of_colors(planes, _gray) if recipe.grayscale_input else planes
    # (n, views, channels, h, w) → (n, views, h, w, channels)
    return ops.transpose(planes, (0, 1, 3, 4, 2))


def of_colors(planes, change: Callable):
    """The planes, of which the three of colour are changed; an opacity behind them stays as it is."""
    if planes.shape[2] == 3:
        return change(planes)
    return ops.concatenate([change(planes[:, :, :3]), planes[:, :, 3:]], axis=2)


def _spread(numbers):
    """A number a view, `(n, views)`, beside its planes."""
    return numbers[..., None, None, None]


def clipped(planes):
    """Values below 0 become 0, above 1 become 1."""
    return ops.clip(planes, 0.0, 1.0)


# Geometry


def crops(images, boxes, *, size: int, bicubic: Bicubic):
    """The boxes of images, resized by cubic interpolation without antialiasing; values may leave [0, 1].

    Args:
        images: integers `(n, 1 or views, height, width, 3)`.
        boxes: `(n, views, 4)`: offset_y, offset_x, height, width.
        size: side of the results in pixels.
        bicubic: which of the reference's two.

    Returns:
        `(n, views, channels, size, size)`.
    """
    _, k, height, width, _ = images.shape
    # 255 or 65,535 is 1.
    unit = 1 / np.iinfo(keras.backend.standardize_dtype(images.dtype)).max
    rows = interpolation(boxes[..., 0], boxes[..., 2], length=height, size=size, bicubic=bicubic)
    columns = interpolation(boxes[..., 1], boxes[..., 3], length=width, size=size, bicubic=bicubic)
    pixels = ops.cast(images, "float32")
    # (n, views, size, height) @ (n, height, width, 3): one image serves all of its views
    image, pixels = ("nhwc", pixels[:, 0]) if k == 1 else ("nvhwc", pixels)
    # 1. (…, size, height) by the image's rows; 2. by its columns, (…, 3, size, width) with (…, size, width).
    taken = product(rows, pixels, equation=f"nvyh,{image}->nvcyw")
    return product(taken, columns, equation="nvcyw,nvxw->nvcyx") * unit


def product(left, right, *, equation: str):
    """`ops.einsum` of float32 as exact as float32 allows, where a device's usual products round their factors."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        with jax.default_matmul_precision("highest"):
            return ops.einsum(equation, left, right)
    if backend == "tensorflow" and rounds_factors():
        # Split products: what TF32 cuts off the factors is multiplied apart and added.
        lefts, rights = halves(left), halves(right)
        small = ops.einsum(equation, lefts[0], rights[1]) + ops.einsum(equation, lefts[1], rights[0])
        return ops.einsum(equation, lefts[0], rights[0]) + small
    return ops.einsum(equation, left, right)  # PyTorch rounds nothing unless it is asked to


def rounds_factors() -> bool:
    """Whether TensorFlow multiplies in TF32, with 10 bits behind the point, as it does on NVIDIA's GPUs since 2020."""
    import tensorflow as tf

    return tf.config.experimental.tensor_float_32_execution_enabled() and bool(tf.config.list_physical_devices("GPU"))


def halves(x):
    """Numbers of TensorFlow as what TF32 holds of them and the rest: a product of two rests would be below rounding."""
    import tensorflow as tf

    # The upper 10 bits behind the point, by masking the lower 13 of float32's 23.
    upper = tf.bitcast(tf.bitwise.bitwise_and(tf.bitcast(x, tf.int32), -(2**13)), tf.float32)
    return upper, x - upper


def interpolation(offset, extent, *, length: int, size: int, bicubic: Bicubic):
    """The weights of pixels in a row of results: `(n, views, size, length)` from offsets and extents `(n, views)`.

    A result lies between four pixels; at a border `tf1` takes the last one again, `tf2` leaves out what is missing.
    """
    tables = map(ops.convert_to_tensor, cubic_table(length, size, bicubic=bicubic))
    before, weights = (ops.take(table, extent, axis=0) for table in tables)
    # (n, views, size) positions and (n, views, size, 4) weights of each extent that was drawn.
    offset, last = offset[..., None], extent[..., None] - 1
    columns = ops.arange(length, dtype="int32")
    places = [ops.clip(before + k, 0, last) + offset for k in range(-1, 3)]  # (n, views, size) each
    # 1 where a column is the pixel that a weight is of: (n, views, size, length).
    hits = [ops.cast(place[..., None] == columns, "float32") for place in places]
    return sum(weights[..., i, None] * hit for i, hit in enumerate(hits))


@functools.cache
def cubic_table(length: int, size: int, *, bicubic: Bicubic) -> tuple[np.ndarray, np.ndarray]:
    """For each extent up to `length` the pixel before each of `size` results, and the weights of the four around it.

    Made by NumPy, since a compiler may fuse a product with a sum, and then a place is rounded to another step.

    Returns:
        int32 `(length + 1, size)` and float32 `(length + 1, size, 4)`.
    """
    return cubic_weights(np.arange(length + 1), size, bicubic=bicubic)


def cubic_weights(extents: np.ndarray, size: int, *, bicubic: Bicubic) -> tuple[np.ndarray, np.ndarray]:
    """Of each extent `(n,)` the pixel before each result, int32 `(n, size)`, and float32 weights `(n, size, 4)`."""
    # (extents, 1) with (size,): everything for every extent at once.
    extent, i = np.asarray(extents, np.float32)[:, None], np.arange(size, dtype=np.float32)
    scale = extent / np.float32(size)
    # TF1 puts pixel i at i, TF2 at i + ½ (half-pixel centres).
    place = i * scale if bicubic == "tf1" else (i + np.float32(0.5)) * scale - np.float32(0.5)
    before = np.floor(place)
    # As TensorFlow's kernel, which looks its weights up in a table of 1024 steps.
    between = np.rint((place - before) * np.float32(_STEPS)) / np.float32(_STEPS)
    near = np.arange(-1, 3, dtype=np.float32)
    # (extents, size, 4), by the distance from each of the four pixels.
    weights = cubic(np.abs(between[..., None] - near), _CUBIC[bicubic])
    if bicubic == "tf2":
        # TF2 leaves out pixels beyond the border and divides by what is left; TF1 repeats the border's pixel.
        at = before[..., None] + near
        weights = np.where((at >= 0) & (at < extent[..., None]), weights, 0)
        weights = weights / np.maximum(weights.sum(-1, keepdims=True), np.float32(TINY))
    return before.astype(np.int32), weights.astype(np.float32)


def cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic of distances from 0 on."""
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    return np.where(distance <= 1, near, ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a)


def rotation(planes, quarters):
    """Square planes, turned counter-clockwise by a share of a turn: 0, 1/4, 1/2 or 3/4."""
    # A quarter turn is a transposition and a flip, a half turn two flips.
    turned = ops.swapaxes(planes, -1, -2)
    k = _spread(ops.round(4 * quarters))
    odd = ops.where(k == 1, ops.flip(turned, -2), ops.flip(turned, -1))
    even = ops.where(k == 0, planes, ops.flip(planes, (-2, -1)))
    return ops.where((k == 1) | (k == 3), odd, even)


def cutout(planes, center):
    """Mid-grey in a square of half the side around a place, `(y, x)` over the side."""
    size = planes.shape[-1]
    half, line = round(0.5 * size), ops.arange(size, dtype="float32")
    # As TensorFlow's version: the centre is any pixel, and the square may reach beyond the image.
    begins = [_spread(ops.floor(place * size)) - half // 2 for place in center]
    inside = [(line >= begin) & (line < begin + half) for begin in begins]  # (n, views, 1, 1, size)
    return ops.where(ops.swapaxes(inside[0], -1, -2) & inside[1], 0.5, planes)


# Colour


def jitter(planes, draw: dict, *, recipe: Recipe):
    """Brightness, contrast, saturation and hue in the drawn order, by the drawn amounts; clipped after each."""
    # (n, views, 4), the order of the changes of each view.
    order = ops.take(ops.convert_to_tensor(ORDERS, "int32"), ops.cast(draw["order"] * len(ORDERS), "int32"), axis=0)
    amount = {
        name: (2 * draw[name] - 1) * (getattr(recipe, name) * recipe.color_jitter_strength)
        for name in ("brightness", "contrast", "saturation", "hue")
    }
    factor, summand = ops.ones_like(draw["order"]), amount["brightness"]
    if not recipe.additive_brightness:
        # Factors reach from max(1 - δ, 0) to 1 + δ, as upstream.
        delta = recipe.brightness * recipe.color_jitter_strength
        factor = 1 + amount["brightness"] if delta <= 1 else draw["brightness"] * (1 + delta)
        summand = ops.zeros_like(factor)
    # Every view has its own change at each place: all are computed, and each takes its own.
    for place in range(4):
        which = order[..., place]
        bright = which == 0
        # brightness and contrast are one map, (planes - mean) × factor + mean + summand, each with one half of it idle
        mean = ops.where(_spread(bright), 0.0, ops.mean(planes, (-2, -1), keepdims=True))
        by = _spread(ops.where(bright, factor, 1 + amount["contrast"]))
        affine = (planes - mean) * by + mean + _spread(ops.where(bright, summand, 0.0))
        other = ops.where(_spread(which == 2), saturation(planes, 1 + amount["saturation"]), hue(planes, amount["hue"]))
        planes = clipped(ops.where(_spread(which < 2), affine, other))
    return planes


def _value_and_chroma(planes):
    """HSV's value, the largest channel, and its distance from the smallest: `(n, views, 1, h, w)`."""
    largest = ops.max(planes, 2, keepdims=True)
    return largest, largest - ops.min(planes, 2, keepdims=True)


def saturation(planes, factor):
    """Every channel's distance from the largest grows by the factor, at most until the smallest is 0."""
    largest, chroma = _value_and_chroma(planes)
    return largest - (largest - planes) * ops.minimum(_spread(factor), largest / ops.maximum(chroma, TINY))


def hue(planes, turns):
    """Hue in sixths of a turn from red; a channel is a trapezoid of the distance from its own hue."""
    red, green, blue = (planes[:, :, i : i + 1] for i in range(3))
    largest, chroma = _value_and_chroma(planes)
    per_chroma = 1 / ops.maximum(chroma, TINY)
    others = ops.where(largest == green, 2 + (blue - red) * per_chroma, 4 + (red - green) * per_chroma)
    own = ops.where(largest == red, (green - blue) * per_chroma, others) + 6 * _spread(turns) + 12  # above 0

    def channel(offset: float):
        sixths = own + offset
        sixths = sixths - 6 * ops.floor(sixths * (1 / 6))
        return largest - chroma * clipped(ops.minimum(sixths, 4 - sixths))

    return ops.concatenate([channel(5.0), channel(3.0), channel(1.0)], axis=2)


def _gray(planes):
    """Luma (ITU-R BT.601) in all three channels."""
    luma = sum(weight * planes[:, :, i : i + 1] for i, weight in enumerate(LUMA))
    return ops.concatenate([luma] * 3, axis=2)


# Neighbours


def blur(planes, sigma):
    """Gaussian blur by sigmas in pixels, the kernel a tenth of the side; outside is black."""
    size = planes.shape[-1]
    radius = size // 10 // 2
    if radius == 0:  # below 20 px the kernel is one pixel, and nothing is blurred; Keras warns of such a softmax
        return planes
    offsets = ops.arange(-radius, radius + 1, dtype="float32")
    # exp(-d² / 2σ²) divided by its sum is a softmax.
    kernel = ops.softmax(-(offsets**2) / (2 * sigma[..., None] ** 2), axis=-1)  # (n, views, taps)
    # Zeros around: outside is black, as upstream.
    padded = ops.pad(planes, ((0, 0), (0, 0), (0, 0), (radius, radius), (radius, radius)))
    # Down and then across: 2 · taps shifted sums instead of taps².
    down = sum(_spread(kernel[..., i]) * padded[..., i : i + size, :] for i in range(2 * radius + 1))
    return sum(_spread(kernel[..., i]) * down[..., i : i + size] for i in range(2 * radius + 1))


def sobel(planes):
    """Length of each channel's Sobel gradient, clipped; borders are mirrored, and an edge of height 1 is 4."""
    size = planes.shape[-1]
    # Mirrored without the border itself, as TensorFlow's Sobel pads.
    near = ops.concatenate([planes[..., 1:2, :], planes, planes[..., -2:-1, :]], axis=-2)
    near = ops.concatenate([near[..., 1:2], near, near[..., -2:-1]], axis=-1)

    def at(dy: int, dx: int):
        return near[..., 1 + dy : 1 + dy + size, 1 + dx : 1 + dx + size]

    # Weights 1, 2, 1 along the edge, the difference across it.
    down = sum(weight * (at(1, dx) - at(-1, dx)) for dx, weight in ((-1, 1), (0, 2), (1, 1)))
    across = sum(weight * (at(dy, 1) - at(dy, -1)) for dy, weight in ((-1, 1), (0, 2), (1, 1)))
    return clipped(ops.sqrt(down * down + across * across))
