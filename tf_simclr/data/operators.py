"""The operators of SimCLR's Figure 4 beside crop, flip and colour: blur, rotation, noise, Sobel filter, cutout.

Images are float32 (h, w, 3) in [0, 1]; `seed` (2,) is all that the draws of the random ones depend on.

References:
    Chen et al., SimCLR, arXiv:2002.05709 (Figures 4 and 5); cutout: DeVries and Taylor, arXiv:1708.04552
"""

from __future__ import annotations

from functools import reduce
from operator import add

from tf_simclr.data.colors import joined, planes
from tf_simclr.errors import check
from tf_simclr.frameworks import tf


def blur(image: tf.Tensor, *, sigma: tf.Tensor, kernel_size: int) -> tf.Tensor:
    """Gaussian blur; outside the image is black, so borders darken, as in the reference.

    Args:
        image: (h, w, 3).
        sigma: standard deviation in pixels, above 0.
        kernel_size: width of the kernel in pixels; an even one is widened by 1.
    """
    return joined(blur_planes(planes(image), sigma=sigma, kernel_size=kernel_size))


def blur_planes(channels: tf.Tensor, *, sigma: tf.Tensor, kernel_size: int) -> tf.Tensor:
    """`blur` of planes: sums of shifted planes, down and then across, which vectorise; a small convolution does not."""
    radius = kernel_size // 2
    offsets = tf.range(-radius, radius + 1, dtype=tf.float32)
    # As in `device_views.blur`: a softmax is the normalised Gaussian.
    kernel = tf.unstack(tf.nn.softmax(-(offsets**2) / (2 * tf.cast(sigma, tf.float32) ** 2)))
    # (3, h, w) → (3, h + 2r, w + 2r), zeros around.
    padded = tf.pad(channels, ((0, 0), (radius, radius), (radius, radius)))
    _, height, width = channels.shape
    down = reduce(add, (weight * padded[:, i : i + height] for i, weight in enumerate(kernel)))
    return reduce(add, (weight * down[:, :, i : i + width] for i, weight in enumerate(kernel)))


def rotate(image: tf.Tensor, quarters: tf.Tensor) -> tf.Tensor:
    """The image, turned counter-clockwise by quarters of a turn (0 … 3); it must be square to keep its shape."""
    turned = [lambda k=k: tf.image.rot90(image, k) for k in range(4)]
    return tf.ensure_shape(tf.switch_case(tf.cast(quarters, tf.int32), turned), image.shape)


def random_rotation(image: tf.Tensor, *, seed: tf.Tensor) -> tf.Tensor:
    """A square image, turned by 0, 90, 180 or 270 degrees, each as often."""
    height, width = image.shape[:2]
    check(height == width, "only square images can be rotated", height=height, width=width)
    return rotate(image, tf.random.stateless_uniform((), seed, 0, 4, tf.int32))


def random_noise(image: tf.Tensor, *, seed: tf.Tensor, std: float = 0.1) -> tf.Tensor:
    """Gaussian noise on every value of a colour, clipped to [0, 1].  The paper names no strength."""
    check(std >= 0, "the noise's standard deviation must be at least 0", std=std)
    noise = tf.random.stateless_normal((*tf.unstack(tf.shape(image)[:2]), 3), seed, 0.0, std)
    noise = tf.pad(noise, ((0, 0), (0, 0), (0, image.shape[-1] - 3)))  # none on an opacity behind the colours
    return tf.clip_by_value(image + noise, 0, 1)


def sobel(image: tf.Tensor, *, seed: tf.Tensor | None = None) -> tf.Tensor:
    """Length of the Sobel gradient of each channel, clipped to [0, 1]; borders are mirrored.

    The gradient is that of the 3 × 3 kernels without division: an edge of height 1 is 4.  Nothing is drawn: `seed` is
    there to be called like the others.
    """
    return tf.clip_by_value(tf.norm(tf.image.sobel_edges(tf.convert_to_tensor(image)[None])[0], axis=-1), 0, 1)


def cutout(image: tf.Tensor, center: tf.Tensor, *, side: int) -> tf.Tensor:
    """Mid-grey in a square; the original fills with 0 after removing the mean, which these networks do not.

    Args:
        image: (h, w, 3).
        center: (2,) integers y, x; the square may reach over the border.
        side: of the square in pixels.
    """
    # Half of the side before the centre: (2,) int32.
    begin = center - side // 2
    y, x = tf.range(tf.shape(image)[0])[:, None], tf.range(tf.shape(image)[1])[None]
    inside = (y >= begin[0]) & (y < begin[0] + side) & (x >= begin[1]) & (x < begin[1] + side)
    return tf.where(inside[..., None], 0.5, image)


def random_cutout(image: tf.Tensor, *, seed: tf.Tensor, proportion: float = 0.5) -> tf.Tensor:
    """A square of half of the image's height (arXiv:1708.04552, Section 4.1), centred on any of its pixels."""
    check(0 <= proportion <= 1, "cutout's proportion must lie in [0, 1]", proportion=proportion)
    place = tf.random.stateless_uniform((2,), seed)
    center = tf.cast(place * tf.cast(tf.shape(image)[:2], tf.float32), tf.int32)
    return cutout(image, center, side=round(proportion * image.shape[0]))
