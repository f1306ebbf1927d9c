"""SimCLR's random views of an image: image → image functions whose randomness is a function of a seed alone.

`seed` is everywhere an int32 or int64 tensor of shape (2,); equal seeds give equal draws on every machine.  Images are
float32 (h, w, 3) in [0, 1].  Everything maps over `tf.data`.

References:
    Chen et al., SimCLR, arXiv:2002.05709 (Section 3, Appendix A); SimCLRv2, arXiv:2006.10029 (Appendix)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial

from tf_simclr.data import colors, images, operators
from tf_simclr.data.device_views import cubic_table
from tf_simclr.data.draws import ASIDE
from tf_simclr.data.recipe import ORDERS, Bicubic, Recipe
from tf_simclr.frameworks import tf

SIMCLR = Recipe()
_Operator = Callable[..., "tf.Tensor"]
"""Image, `seed=` → image of the same shape."""

COMPILED_FROM = 65
"""Side in pixels from which XLA compiles the colours and the blur of a view: 3 to 4 times faster, after seconds."""
_DRAWS = 10
"""Numbers in [0, 1) that `distort` takes: flip?, jitter?, its order, its four amounts, grayscale?, blur?, sigma."""


def random_crop_and_resize(
    image: tf.Tensor,
    size: tuple[int, int],
    *,
    seed: tf.Tensor,
    min_area: float = SIMCLR.crop_min_area,
    max_aspect: float = SIMCLR.crop_max_aspect,
    bicubic: Bicubic = "tf1",
) -> tf.Tensor:
    """A random part of the image, resized to `size` (height, width).

    Aspect ratio within 1/max_aspect … max_aspect of the target's, from `min_area` to all of the image's area; the
    sampler also asks for at least 10 % of the image, and draws heights, so areas start at 0.10 and are not uniform, as
    in the reference.  Values may leave [0, 1] by the cubic's overshoot.
    """
    # The part is cut before it is resized: of a large photograph most pixels are never looked at.
    part = _part(image, size, seed, min_area=min_area, max_aspect=max_aspect)
    return images.resize(part, size, bicubic=bicubic)


def random_flip(image: tf.Tensor, *, seed: tf.Tensor) -> tf.Tensor:
    """The image, mirrored left to right with probability 0.5."""
    # Both are computed and one is taken: at this size a branch costs more than a reversed copy.
    return tf.where(tf.random.stateless_uniform((), seed) < 0.5, tf.reverse(image, [1]), image)


def random_color(image: tf.Tensor, *, seed: tf.Tensor, recipe: Recipe = SIMCLR) -> tf.Tensor:
    """Colour distortion: with the recipe's probabilities first jitter, in random order, then grayscale."""
    draws = tf.random.stateless_uniform((7,), seed)
    return colors.joined(_colored(colors.planes(image), draws, recipe))


def crop_and_flip(image: tf.Tensor, *, size: int, seed: tf.Tensor, bicubic: Bicubic = "tf1") -> tf.Tensor:
    """The view that fine-tuning and linear evaluation train on: random crop and flip only, (size, size, 3)."""
    image = random_crop_and_resize(image, (size, size), seed=seed, bicubic=bicubic)
    # The interpolation may leave [0, 1]; what a network sees does not.
    return tf.clip_by_value(random_flip(image, seed=_aside(seed)), 0, 1)


def view(
    image: tf.Tensor, *, size: int, seed: tf.Tensor, recipe: Recipe = SIMCLR, may_compile: bool = True
) -> tf.Tensor:
    """One random view of an image by a recipe, (size, size, 3) in [0, 1]: crop, flip, colours, blur, and the rest.

    Where it may, XLA compiles large views (see `COMPILED_FROM`); their numbers differ by rounding.
    """
    # 1. The part that the crop takes, in its own size.  2. Resized, changed and finished, in `_viewed`.
    part = _recipes_part(image, seed, size=size, recipe=recipe)
    return _viewed([part], 1.0, size=size, seed=seed, recipe=recipe, compiled=may_compile and size >= COMPILED_FROM)[0]


def two_views(
    image: tf.Tensor, *, size: int, seed: tf.Tensor, recipe: Recipe = SIMCLR, other: tf.Tensor | None = None
) -> tf.Tensor:
    """Two independent random views of one image: SimCLR's positive pair; or one each of two images.

    Args:
        image: (h, w, 3) in [0, 1], any size.
        size: side of the views in pixels.
        seed: (2,); all that the draws depend on.
        recipe: how often and how strongly each operator is applied.
        other: what the second view is of, if not of the image (MICLe, arXiv:2101.05224).

    Returns:
        (2, size, size, 3) in [0, 1].
    """
    # Two seeds of one: crops of both views are drawn apart.
    pair = (image, image if other is None else other)
    parts = [_recipes_part(i, own, size=size, recipe=recipe) for i, own in zip(pair, _two_seeds(seed), strict=True)]
    return _viewed(parts, 1.0, size=size, seed=seed, recipe=recipe, compiled=size >= COMPILED_FROM)


def two_views_of_raw(raw: tf.Tensor, *, size: int, seed: tf.Tensor, recipe: Recipe = SIMCLR) -> tf.Tensor:
    """`two_views` of what `images.to_rgb` takes, sooner: of the pixels only the two parts become floating-point."""

    def parts_of(pixels: tf.Tensor) -> tuple[tf.Tensor, ...]:
        parts = [_recipes_part(pixels, own, size=size, recipe=recipe) for own in _two_seeds(seed)]
        # Integers until here: only the two parts become floating-point numbers, not the whole photograph.
        return *(tf.cast(part, tf.float32) for part in parts), tf.constant(1 / pixels.dtype.max)

    *parts, unit = images.to_rgb(raw, parts_of)
    return _viewed(parts, unit, size=size, seed=seed, recipe=recipe, compiled=size >= COMPILED_FROM)


def distort(crop: tf.Tensor, draws: tf.Tensor, *, recipe: Recipe) -> tf.Tensor:
    """Flip, colours and blur of a view by draws in [0, 1); compiles under XLA.

    Args:
        crop: (size, size, channels); what is no colour, an opacity behind the three of them, keeps its values.
        draws: (10,).
        recipe: probabilities and strengths.

    Returns:
        (size, size, channels) in [0, 1].
    """
    # (h, w, 3) → (3, h, w): as planes the sums of colours and blur vectorise.
    channels = colors.planes(tf.where(draws[0] < recipe.flip_probability, tf.reverse(crop, [1]), crop))
    # Where no jitter was drawn nothing has been clipped yet, and the cubic may leave [0, 1].
    channels = colors.clipped(colors.of_colors(channels, lambda planes: _colored(planes, draws[1:8], recipe)))
    if recipe.use_blur and recipe.blur_probability > 0:
        channels = _blurred(channels, draws[8:], probability=recipe.blur_probability)
    return colors.joined(channels)


@cache
def views_of_packed(*, size: int, recipe: Recipe) -> Callable[[dict[str, tf.Tensor]], tf.Tensor]:
    """Makes the views of a batch of small images on a CPU, five times as fast as one image after the other.

    One program of XLA a batch: the crops of all views as products, as on a device (`device_views`), then a loop that
    changes one view at a time, which takes only the branches that this view needs.

    Returns:
        `examples.Packing`'s batch to float32 views `(n, views, size, size, 3)` in [0, 1].
    """

    def weights(offset: tf.Tensor, extent: tf.Tensor, *, length: int) -> tf.Tensor:
        # The table has for each possible extent each result's pixel before it and the weights of four pixels: it is
        # looked up, not computed.
        before, weight = (tf.gather(tf.constant(x), extent) for x in cubic_table(length, size, bicubic=recipe.bicubic))
        # (n, views, size, 4): the four pixels of each result, held within the box.
        near = tf.clip_by_value(before[..., None] + tf.range(-1, 3), 0, extent[..., None, None] - 1)
        columns = tf.range(length) == (near + offset[..., None, None])[..., None]  # (n, views, size, 4, length)
        # As a matrix (n, views, size, length) of which each row has four numbers: interpolation becomes a product.
        return tf.reduce_sum(tf.where(columns, weight[..., None], 0.0), -2)

    def views(batch: dict[str, tf.Tensor]) -> tf.Tensor:
        pixels, boxes = batch["images"], batch["boxes"]
        # Rows first, then columns: (n, v, size, h) with (n, v, h, w, c) → (n, v, size, w, c) → (n, v, size, size, c).
        rows = weights(boxes[..., 0], boxes[..., 2], length=pixels.shape[2])
        columns = weights(boxes[..., 1], boxes[..., 3], length=pixels.shape[3])
        pixels = tf.cast(pixels, tf.float32) * (1 / pixels.dtype.max)
        one = pixels.shape[1] == 1
        taken = tf.einsum(f"nvyh,{'nhwc' if one else 'nvhwc'}->nvywc", rows, pixels[:, 0] if one else pixels)
        crops = tf.einsum("nvywc,nvxw->nvyxc", taken, columns)
        change = partial(_changed, size=size, recipe=recipe)
        # Every view by itself, one after the other within the compiled program: (n · v, size, size, 3).
        square = (size, size, pixels.shape[-1])
        flat = (tf.reshape(crops, (-1, *square)), tf.reshape(batch["draws"][..., :_DRAWS], (-1, _DRAWS)))
        made = tf.map_fn(change, flat, fn_output_signature=tf.float32, parallel_iterations=1)
        return tf.reshape(made, (-1, *boxes.shape[1:2], *square))

    return tf.function(views, jit_compile=True, autograph=False)


def _changed(view: tuple[tf.Tensor, tf.Tensor], *, size: int, recipe: Recipe) -> tf.Tensor:
    crop, draws = view
    changed = distort(tf.ensure_shape(crop, (size, size, crop.shape[-1])), draws, recipe=recipe)
    return colors.grayscale(changed) if recipe.grayscale_input else changed


def _sampled(
    shape: tf.Tensor, size: tuple[int, int], seed: tf.Tensor, *, min_area: float, max_aspect: float
) -> tuple[tf.Tensor, tf.Tensor]:
    # Upstream's aspect ratios are around that of the result: 1 for squares.
    aspect = size[1] / size[0]
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        # One box, all of the image; at least a tenth of it must be in the crop, as upstream.
        shape,
        bounding_boxes=tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
        seed=seed,
        min_object_covered=0.1,
        aspect_ratio_range=(aspect / max_aspect, aspect * max_aspect),
        area_range=(min_area, 1.0),
        # As upstream; where none of a hundred fits, the whole image.
        max_attempts=100,
        use_image_if_no_bounding_boxes=True,
    )
    return begin, extent


def _part(image: tf.Tensor, size: tuple[int, int], seed: tf.Tensor, *, min_area: float, max_aspect: float) -> tf.Tensor:
    begin, extent = _sampled(tf.shape(image), size, seed, min_area=min_area, max_aspect=max_aspect)
    return tf.ensure_shape(tf.slice(image, begin, extent), (None, None, image.shape[-1]))


def _recipes_part(image: tf.Tensor, seed: tf.Tensor, *, size: int, recipe: Recipe) -> tf.Tensor:
    return _part(image, (size, size), seed, min_area=recipe.crop_min_area, max_aspect=recipe.crop_max_aspect)


def _two_seeds(seed: tf.Tensor) -> list[tf.Tensor]:
    return tf.unstack(tf.random.split(seed, 2))


def _viewed(
    parts: Sequence[tf.Tensor],
    unit: tf.Tensor | float,
    *,
    size: int,
    seed: tf.Tensor,
    recipe: Recipe,
    compiled: bool,
) -> tf.Tensor:
    """Views (n, size, size, 3) in [0, 1] of parts of images that have `unit` for what is 1 / 1."""
    crops = [images.resize(part, (size, size), bicubic=recipe.bicubic) for part in parts]
    # All views' numbers in one draw, (views, 10): each operation costs 50 µs.
    draws = tf.random.stateless_uniform((len(parts), _DRAWS), _aside(seed))
    change = _compiled(recipe) if compiled else partial(_distorted, recipe=recipe)
    return _finished(change(crops, unit, draws), seed, recipe)


def _distorted(crops: Sequence[tf.Tensor], unit: tf.Tensor, draws: tf.Tensor, *, recipe: Recipe) -> tf.Tensor:
    pairs = zip(crops, tf.unstack(draws), strict=True)
    return tf.stack([distort(crop * unit, own, recipe=recipe) for crop, own in pairs])


@cache
def _compiled(recipe: Recipe) -> Callable[..., tf.Tensor]:
    return tf.function(partial(_distorted, recipe=recipe), jit_compile=True, autograph=False)


def _finished(views: tf.Tensor, seed: tf.Tensor, recipe: Recipe) -> tf.Tensor:
    """The operators that SimCLR's own recipe does not have, where a recipe has them, and grey input."""
    # Cutout last: nothing changes the square that it leaves.
    more: dict[_Operator, float] = {
        operators.random_rotation: recipe.rotation_probability,
        operators.random_noise: recipe.noise_probability,
        operators.sobel: recipe.sobel_probability,
        operators.random_cutout: recipe.cutout_probability,
    }
    chosen = {operator: probability for operator, probability in more.items() if probability > 0}
    if chosen:
        # A seed a view, by yet another way from the seed: crops, colours and these must not share a stream.
        seeds = tf.unstack(tf.random.split(_aside(_aside(seed)), views.shape[0]))
        views = tf.stack([_operated(image, chosen, own) for image, own in zip(tf.unstack(views), seeds, strict=True)])
    return tf.stack([colors.grayscale(image) for image in tf.unstack(views)]) if recipe.grayscale_input else views


def _operated(image: tf.Tensor, chosen: dict[_Operator, float], seed: tf.Tensor) -> tf.Tensor:
    """The image after each operator with its probability, in their order."""
    # Two seeds an operator: what it does, and whether.
    seeds = tf.unstack(tf.random.split(seed, 2 * len(chosen)))
    for (operator, probability), own, whether in zip(chosen.items(), seeds[::2], seeds[1::2], strict=True):
        drawn = tf.random.stateless_uniform((), whether) < probability
        image = tf.cond(drawn, partial(operator, image, seed=own), lambda image=image: image)
    return image


def _aside(seed: tf.Tensor) -> tf.Tensor:
    # One to one, as 3 is odd: seeds that differ stay apart.
    return seed * tf.constant([1, 3], seed.dtype) + tf.constant([0, ASIDE], seed.dtype)


def _colored(channels: tf.Tensor, draws: tf.Tensor, recipe: Recipe) -> tf.Tensor:
    """Jitter by draws 0 … 5, grayscale by draw 6."""
    if recipe.jitter_probability > 0:
        # A branch: where no jitter is drawn none is computed.
        drawn = draws[0] < recipe.jitter_probability
        before = channels
        channels = tf.cond(drawn, lambda: _jittered(before, draws[1:6], recipe), lambda: before)
    if recipe.grayscale_probability > 0:
        drawn = draws[6] < recipe.grayscale_probability
        colored = channels
        channels = tf.cond(drawn, lambda: colors.gray_planes(colored), lambda: colored)
    return channels


def _jittered(channels: tf.Tensor, draws: tf.Tensor, recipe: Recipe) -> tf.Tensor:
    """Order by draw 0, amounts by the others."""
    number = tf.cast(draws[0] * len(ORDERS), tf.int32)  # float32 draws are below 1 by 2^-23: never 24
    limits = (recipe.brightness, recipe.contrast, recipe.saturation, recipe.hue)
    # Uniform in [-1, 1) times the strength times each one's range.
    summands = tf.unstack((2 * draws[1:] - 1) * recipe.color_jitter_strength * tf.constant(limits))
    brightness, delta = summands[0], recipe.brightness * recipe.color_jitter_strength
    if not recipe.additive_brightness:  # uniform from max(1 - delta, 0) on, as the reference: not many zeros
        brightness = 1 + summands[0] if delta <= 1 else draws[1] * (1 + delta)
    return colors.adjust_planes(
        channels,
        tf.gather(tf.constant(ORDERS), number),
        amounts=(brightness, 1 + summands[1], 1 + summands[2], summands[3]),
        additive_brightness=recipe.additive_brightness,
    )


def _blurred(channels: tf.Tensor, draws: tf.Tensor, *, probability: float) -> tf.Tensor:
    """Whether by draw 0, sigma by draw 1; clipped, since a kernel's sum may exceed 1 by rounding."""
    # A tenth of the height, as upstream: (3, h, w).
    size = channels.shape[1] // 10

    def blurred() -> tf.Tensor:
        return colors.clipped(operators.blur_planes(channels, sigma=0.1 + 1.9 * draws[1], kernel_size=size))

    return tf.cond(draws[0] < probability, blurred, lambda: channels)
