"""SimCLR's random views of an image: image → image functions whose randomness is a function of a seed alone.

`seed` is everywhere an int32 or int64 tensor of shape (2,); equal seeds give equal draws on every machine.  Images are
float32 (h, w, 3) in [0, 1].  Everything maps over `tf.data`.

References:
    Chen et al., SimCLR, arXiv:2002.05709 (Section 3, Appendix A); SimCLRv2, arXiv:2006.10029 (Appendix)
"""

from collections.abc import Callable
from itertools import permutations

import tensorflow as tf

from tf_simclr.data import images
from tf_simclr.data.images import Bicubic
from tf_simclr.errors import check

JITTER_PROBABILITY = 0.8
GRAYSCALE_PROBABILITY = 0.2
BLUR_PROBABILITY = 0.5
"""Probabilities of SimCLR, Appendix A."""
MIN_AREA = 0.08
"""Least share of the image in a crop (SimCLR, Appendix A)."""
MAX_STRENGTH = 1.25
"""Above it a contrast or saturation factor 1 - 0.8 × strength would be negative."""

_ORDERS = list(permutations(range(4)))


def random_crop_and_resize(
    image: tf.Tensor,
    size: tuple[int, int],
    *,
    seed: tf.Tensor,
    min_area: float = MIN_AREA,
    bicubic: Bicubic = "tf1",
) -> tf.Tensor:
    """A random part of the image, resized to `size` (height, width).

    Aspect ratio within 3/4 … 4/3 of the target's, from `min_area` to all of the image's area; the sampler also asks
    for at least 10 % of the image, and draws heights, so areas start at 0.10 and are not uniform, as in the reference.
    Values may leave [0, 1] by the cubic's overshoot.
    """
    box = random_box(tf.shape(image), size, seed=seed, min_area=min_area)
    return images.resize(images.crop(image, box), size, bicubic=bicubic)


def random_box(shape: tf.Tensor, size: tuple[int, int], *, seed: tf.Tensor, min_area: float = MIN_AREA) -> tf.Tensor:
    """The box that `random_crop_and_resize` cuts out: int32 (offset_y, offset_x, height, width)."""
    aspect = size[1] / size[0]
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape,
        bounding_boxes=tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
        seed=seed,
        min_object_covered=0.1,
        aspect_ratio_range=(3 / 4 * aspect, 4 / 3 * aspect),
        area_range=(min_area, 1.0),
        max_attempts=100,
        use_image_if_no_bounding_boxes=True,
    )
    return tf.concat([begin[:2], extent[:2]], 0)


def random_flip(image: tf.Tensor, *, seed: tf.Tensor) -> tf.Tensor:
    """The image, mirrored left to right with probability 0.5."""
    return _with_probability(0.5, lambda: image[:, ::-1], image, seed=seed)


def adjust_colors(
    image: tf.Tensor,
    order: tf.Tensor,
    *,
    brightness: tf.Tensor,
    contrast: tf.Tensor,
    saturation: tf.Tensor,
    hue: tf.Tensor,
    additive_brightness: bool = False,
) -> tf.Tensor:
    """Four colour changes in the given order, clipped to [0, 1] after each.

    Args:
        image: (h, w, 3).
        order: (4,) permutation of 0 brightness, 1 contrast, 2 saturation, 3 hue.
        brightness: factor, or summand with `additive_brightness`.
        contrast: factor of the distance from each channel's mean.
        saturation: factor of HSV's saturation.
        hue: summand of HSV's hue, in turns, -1 … 1.
    """
    changes = (
        lambda x: x + brightness if additive_brightness else x * brightness,
        lambda x: tf.image.adjust_contrast(x, contrast),
        lambda x: tf.image.adjust_saturation(x, saturation),
        lambda x: tf.image.adjust_hue(x, hue),
    )
    for step in range(4):
        branches = [lambda x=image, change=change: change(x) for change in changes]
        image = tf.clip_by_value(tf.switch_case(order[step], branches), 0, 1)
    return image


def random_jitter(
    image: tf.Tensor, *, seed: tf.Tensor, strength: float = 1.0, additive_brightness: bool = False
) -> tf.Tensor:
    """Random brightness, contrast, saturation and hue, in random order.

    Args:
        image: (h, w, 3).
        strength: s of the paper: factors within 1 ± 0.8 s, hue within ± 0.2 s turns; 0 … 1.25.
        additive_brightness: brightness as SimCLR v1 has it (summand within ± 0.8 s), not v2 (factor within 1 ± 0.8 s).

    Raises:
        InputError: the strength is out of its range.
    """
    check(0 <= strength <= MAX_STRENGTH, f"jitter strength must lie in [0, {MAX_STRENGTH}]", strength=strength)
    seeds = tf.random.split(seed, 2)
    amounts = 2 * tf.random.stateless_uniform((4,), seeds[0]) - 1
    factors = 1 + 0.8 * strength * amounts
    return adjust_colors(
        image,
        tf.constant(_ORDERS)[tf.random.stateless_uniform((), seeds[1], 0, len(_ORDERS), tf.int32)],
        brightness=0.8 * strength * amounts[0] if additive_brightness else factors[0],
        contrast=factors[1],
        saturation=factors[2],
        hue=0.2 * strength * amounts[3],
        additive_brightness=additive_brightness,
    )


def grayscale(image: tf.Tensor) -> tf.Tensor:
    """Luma (ITU-R BT.601) in all three channels."""
    return tf.repeat(tf.image.rgb_to_grayscale(image), 3, axis=-1)


def random_color(
    image: tf.Tensor, *, seed: tf.Tensor, strength: float = 1.0, additive_brightness: bool = False
) -> tf.Tensor:
    """Colour distortion: with probability 0.8 jitter (see `random_jitter`), then with probability 0.2 grayscale."""
    seeds = tf.random.split(seed, 3)

    def jittered():
        return random_jitter(image, seed=seeds[0], strength=strength, additive_brightness=additive_brightness)

    image = _with_probability(JITTER_PROBABILITY, jittered, image, seed=seeds[1])
    return _with_probability(GRAYSCALE_PROBABILITY, lambda: grayscale(image), image, seed=seeds[2])


def blur(image: tf.Tensor, *, sigma: tf.Tensor, kernel_size: int) -> tf.Tensor:
    """Gaussian blur; outside the image is black, so borders darken, as in the reference.

    Args:
        image: (h, w, 3).
        sigma: standard deviation in pixels, above 0.
        kernel_size: width of the kernel in pixels; an even one is widened by 1.
    """
    offsets = tf.range(-(kernel_size // 2), kernel_size // 2 + 1, dtype=tf.float32)
    kernel = tf.nn.softmax(-(offsets**2) / (2 * sigma**2))
    across = tf.tile(kernel[None, :, None, None], (1, 1, 3, 1))
    down = tf.transpose(across, (1, 0, 2, 3))
    blurred = tf.nn.depthwise_conv2d(image[None], across, (1, 1, 1, 1), "SAME")
    return tf.nn.depthwise_conv2d(blurred, down, (1, 1, 1, 1), "SAME")[0]


def random_blur(image: tf.Tensor, *, seed: tf.Tensor) -> tf.Tensor:
    """With probability 0.5 a Gaussian blur with sigma within 0.1 … 2 pixels and a kernel of a tenth of the height.

    Each image draws its own sigma, as the paper says (Appendix A); the reference's code draws one for the whole batch.
    """
    seeds = tf.random.split(seed, 2)
    sigma = tf.random.stateless_uniform((), seeds[0], 0.1, 2.0)

    def blurred():  # clipped: a kernel's sum may exceed 1 by rounding
        return tf.clip_by_value(blur(image, sigma=sigma, kernel_size=image.shape[0] // 10), 0, 1)

    return _with_probability(BLUR_PROBABILITY, blurred, image, seed=seeds[1])


def crop_and_flip(image: tf.Tensor, *, size: int, seed: tf.Tensor, bicubic: Bicubic = "tf1") -> tf.Tensor:
    """The view that fine-tuning and linear evaluation train on: random crop and flip only, (size, size, 3)."""
    seeds = tf.random.split(seed, 2)
    image = random_crop_and_resize(image, (size, size), seed=seeds[0], bicubic=bicubic)
    return tf.clip_by_value(random_flip(image, seed=seeds[1]), 0, 1)


def view(
    image: tf.Tensor,
    *,
    size: int,
    seed: tf.Tensor,
    strength: float = 1.0,
    use_blur: bool = True,
    additive_brightness: bool = False,
    bicubic: Bicubic = "tf1",
) -> tf.Tensor:
    """One random view of an image: crop, flip, colour distortion, blur (arguments: `two_views`); (size, size, 3)."""
    seeds = tf.random.split(seed, 4)
    image = random_crop_and_resize(image, (size, size), seed=seeds[0], bicubic=bicubic)
    image = random_flip(image, seed=seeds[1])
    image = random_color(image, seed=seeds[2], strength=strength, additive_brightness=additive_brightness)
    image = tf.clip_by_value(image, 0, 1)
    return random_blur(image, seed=seeds[3]) if use_blur else image


def two_views(
    image: tf.Tensor,
    *,
    size: int,
    seed: tf.Tensor,
    strength: float = 1.0,
    use_blur: bool = True,
    additive_brightness: bool = False,
    bicubic: Bicubic = "tf1",
) -> tf.Tensor:
    """Two independent random views of one image: SimCLR's positive pair.

    Args:
        image: (h, w, 3) in [0, 1], any size.
        size: side of the views in pixels.
        seed: (2,); all that the draws depend on.
        strength: of the colour jitter, 0 … 1.25: the papers use 1 for ImageNet and 0.5 for CIFAR-10.
        use_blur: the papers blur on ImageNet and not on CIFAR-10.
        additive_brightness: brightness as in SimCLR v1.
        bicubic: the reference's `tf1` or `tf2` interpolation.

    Returns:
        (2, size, size, 3) in [0, 1].

    Raises:
        InputError: the strength is out of its range.
    """
    options = {"strength": strength, "use_blur": use_blur, "additive_brightness": additive_brightness}
    seeds = tf.random.split(seed, 2)
    return tf.stack([view(image, size=size, seed=seeds[i], bicubic=bicubic, **options) for i in range(2)])


def _with_probability(
    probability: float, changed: Callable[[], tf.Tensor], image: tf.Tensor, *, seed: tf.Tensor
) -> tf.Tensor:
    return tf.cond(tf.random.stateless_uniform((), seed) < probability, changed, lambda: image)
