"""Colours of an image changed by given amounts.

The work is done on planes (3, h, w), where XLA fuses each change into one pass that vectorises.

References:
    Chen et al., SimCLR, arXiv:2002.05709 (Section 3, Appendix A); HSV: Smith, SIGGRAPH 1978
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import partial

from tf_simclr.data.recipe import LUMA, TINY
from tf_simclr.frameworks import tf


def planes(image: tf.Tensor) -> tf.Tensor:
    """The channels (c, h, w) of an image (h, w, c)."""
    return tf.transpose(image, (2, 0, 1))


def joined(channels: tf.Tensor) -> tf.Tensor:
    """The image (h, w, c) of its channels (c, h, w)."""
    return tf.transpose(channels, (1, 2, 0))


def of_colors(channels: tf.Tensor, change: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """The planes, of which the three of colour are changed; an opacity behind them stays as it is."""
    if channels.shape[0] == 3:
        return change(channels)
    return tf.concat([change(channels[:3]), channels[3:]], 0)


def clipped(channels: tf.Tensor) -> tf.Tensor:
    """Values below 0 become 0, above 1 become 1."""
    return tf.clip_by_value(channels, 0, 1)


def adjust_planes(
    channels: tf.Tensor, order: tf.Tensor, *, amounts: Sequence[tf.Tensor], additive_brightness: bool = False
) -> tf.Tensor:
    """Four colour changes in the given order, clipped to [0, 1] after each.

    A loop, since XLA would take minutes to compile four conditionals in a row.

    Args:
        channels: (3, h, w).
        order: (4,) permutation of 0 brightness, 1 contrast, 2 saturation, 3 hue.
        amounts: of brightness a factor, or with `additive_brightness` a summand; of contrast a factor of the distance
            from each channel's mean; of saturation a factor of HSV's; of hue a summand of HSV's, in turns, -1 … 1.
        additive_brightness: whether brightness is added.
    """
    changes = (operator.add if additive_brightness else operator.mul, _contrast, _saturation, _hue)
    amounts = [tf.cast(amount, tf.float32) for amount in amounts]

    def change(step: tf.Tensor, before: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # One of four changes by its number in the order, clipped after each, as upstream.
        branches = [partial(apply, before, amount) for apply, amount in zip(changes, amounts, strict=True)]
        return step + 1, clipped(tf.switch_case(order[step], branches))

    # A loop instead of four switches in a row: the graph has one switch.
    loop = {"shape_invariants": (tf.TensorShape(()), channels.shape), "maximum_iterations": 4}
    return tf.while_loop(lambda step, _: step < 4, change, (tf.constant(0), channels), **loop)[1]


def grayscale(image: tf.Tensor) -> tf.Tensor:
    """Luma (ITU-R BT.601) in all three channels."""
    return joined(of_colors(planes(image), gray_planes))


def gray_planes(channels: tf.Tensor) -> tf.Tensor:
    """`grayscale` of planes."""
    # Σ weight · channel, (h, w), in all three channels.
    luma = tf.add_n([weight * x for weight, x in zip(LUMA, tf.unstack(channels, 3), strict=True)])
    return tf.stack([luma] * 3)


def _contrast(channels: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    # The mean of each channel over the image, (3, 1, 1).
    mean = tf.reduce_mean(channels, (1, 2), keepdims=True)
    return (channels - mean) * factor + mean


def _saturation(channels: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Every channel's distance from the largest grows by the factor, at most until the smallest is 0."""
    largest, chroma = _value_and_chroma(channels)
    # HSV's saturation is chroma / value; multiplied by the factor it ends at 1, where the smallest channel is 0.
    return largest - (largest - channels) * tf.minimum(factor, largest / tf.maximum(chroma, TINY))


def _hue(channels: tf.Tensor, turns: tf.Tensor) -> tf.Tensor:
    """Hue in sixths of a turn from red; a channel is a trapezoid of the distance from its own hue."""
    red, green, blue = tf.unstack(channels, 3)
    largest, chroma = _value_and_chroma(channels)
    per_chroma = 1 / tf.maximum(chroma, TINY)
    # The formula of the sector in which the largest channel lies.
    others = tf.where(largest == green, 2 + (blue - red) * per_chroma, 4 + (red - green) * per_chroma)
    hue = tf.where(largest == red, (green - blue) * per_chroma, others) + 6 * turns + 12  # above 0

    # Back from hue to a channel: how far it lies from its own peak, as a trapezoid between value and value - chroma.
    def channel(offset: float) -> tf.Tensor:
        sixths = hue + offset
        sixths -= 6 * tf.floor(sixths * (1 / 6))
        return largest - chroma * tf.clip_by_value(tf.minimum(sixths, 4 - sixths), 0, 1)

    return tf.stack([channel(5.0), channel(3.0), channel(1.0)])


def _value_and_chroma(channels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    red, green, blue = tf.unstack(channels, 3)
    largest = tf.maximum(tf.maximum(red, green), blue)
    return largest, largest - tf.minimum(tf.minimum(red, green), blue)
