"""The view of evaluation as a layer, so that an exported network crops and resizes as its test did.

The numbers are those of `tf_simclr.data.images.evaluation_view` (central square, TensorFlow 1's bicubic resizing,
clipped to [0, 1]), made of gathers and sums, which every runtime has; ONNX Runtime and TensorFlow Lite do not have that
resizing.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from tf_simclr.errors import check

_STEPS = 1024
"""TensorFlow rounds the position between two pixels to so many steps (`resize_bicubic_op.cc`)."""
_SHARPNESS = -0.75
"""Coefficient of the cubic that TensorFlow 1 resizes with (there `A`)."""


def _taps() -> np.ndarray:
    """Weights `(STEPS + 1, 4)` of the pixels at -1, 0, 1, 2 from the floor of a position, for each step behind it."""
    # Keys' cubic convolution: two polynomials, by the distance of a pixel from the position.
    a, x = _SHARPNESS, np.abs(np.arange(_STEPS + 1)[:, None] / _STEPS - np.arange(-1, 3))
    inner = ((a + 2) * x - (a + 3)) * x * x + 1  # of pixels up to 1 away
    outer = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a  # of pixels 1 to 2 away
    return np.where(x <= 1, inner, outer).astype(np.float32)


@keras.saving.register_keras_serializable(package="tf_simclr")
class EvaluationView(keras.layers.Layer):
    """Images of any size to the central square that evaluation sees, at one size.

    Args:
        image_size: side of the result in pixels, at least 1.
        crop_proportion: share of the shorter side that is kept, above 0 and up to 1.
        fixed_point: calculates in 32-bit integers of which eight bits are the pixel's, for a network in int8: what
            TensorFlow Lite quantizes would be positions, too, and place pixels beside where they are.

    Input shape:
        `(n, h, w, 3)` in [0, 1].

    Output shape:
        `(n, image_size, image_size, 3)` in [0, 1].
    """

    def __init__(self, image_size: int, crop_proportion: float = 1.0, *, fixed_point: bool = False, **options: Any):
        super().__init__(**options)
        check(image_size >= 1, "image_size must be at least 1", image_size=image_size)
        rule = "crop_proportion must be above 0 and at most 1"
        check(0 < crop_proportion <= 1, rule, crop_proportion=crop_proportion)
        self.image_size, self.crop_proportion, self.fixed_point = image_size, crop_proportion, fixed_point

    def call(self, images):
        # The central square, of the shorter side times the proportion, at least one pixel.
        height, width = ops.shape(images)[1:3]
        shorter = ops.minimum(ops.cast(height, "float32"), ops.cast(width, "float32"))
        side = ops.maximum(ops.cast(ops.round(self.crop_proportion * shorter), "int32"), 1)
        pixels = ops.cast(ops.round(images * 255.0), "int32") if self.fixed_point else images
        # One axis after the other: 8 pixels an output instead of 16, as the cubic is a product of two.
        for axis, length in ((1, height), (2, width)):  # (n, h, w, 3) → (n, size, w, 3) → (n, size, size, 3)
            # As upstream: of an odd remainder the extra pixel is above and on the left.
            offset = (ops.cast(length, "int32") - side + 1) // 2
            pixels = self._resized(pixels, axis, offset=offset, side=side)
        if self.fixed_point:
            # Two axes' weights, in steps, divided while they are integers, half up: TensorFlow Lite has no int8 for a
            # factor as small as 1 / (255 · 1024²), and took 1.0486 times it.
            pixels = ops.cast((pixels + _STEPS * _STEPS // 2) // (_STEPS * _STEPS), "float32") * (1 / 255)
        return ops.clip(pixels, 0.0, 1.0)

    def _resized(self, pixels, axis: int, *, offset, side):
        """One axis of the square that begins at `offset` and is `side` long: the sum of four gathers, weighted."""
        size = self.image_size
        if self.fixed_point:
            # Integers alone, which every runtime computes alike: position i · side / size as quotient and remainder.
            exact = ops.arange(size, dtype="int32") * side
            floor, rest = exact // size, exact % size
            # The remainder rounded to 1/1024: (rest / size · 1024), half up.
            steps, table = (rest * (2 * _STEPS) + size) // (2 * size), np.rint(_taps() * _STEPS).astype(np.int32)
        else:  # float32 as TensorFlow's kernel, rounding included
            positions = ops.arange(size, dtype="float32") * (ops.cast(side, "float32") / size)
            floor = ops.cast(ops.floor(positions), "int32")
            steps = ops.cast(ops.round((positions - ops.floor(positions)) * _STEPS), "int32")
            table = _taps()
        # (size,) steps → (size, 4) weights, the first axis of each tap's beside the axes of `pixels` behind its own
        weights = ops.reshape(ops.take(table, steps, axis=0), (size, *(1,) * (3 - axis), 4))
        total = None
        for tap in range(4):
            # The border's pixel stands for those beyond it: of the square, not of the image.
            places = ops.clip(floor + (tap - 1), 0, side - 1) + offset
            part = ops.take(pixels, places, axis=axis) * ops.cast(weights[..., tap], pixels.dtype)
            total = part if total is None else total + part
        return total

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.image_size, self.image_size, input_shape[3])

    def get_config(self):
        own = {name: getattr(self, name) for name in ("image_size", "crop_proportion", "fixed_point")}
        return super().get_config() | own
