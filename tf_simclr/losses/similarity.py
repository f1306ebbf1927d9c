"""Similarities of each view with all others, on all replicas: what every loss is made of.

Whatever projections come in, losses are computed in float32 at least: float16 ends at 65,504, and a length's square or
an exponential of a similarity is soon beyond it.
"""

import math
import numbers
from collections.abc import Callable

import keras
from keras import ops

from tf_simclr import replicas
from tf_simclr.errors import check

MASKED = 1e9
"""Taken from a logit that must not count; the reference's number, also its limit in float32."""
_SCALES = (1e-8, 1e15)
"""Range of what similarities are divided by: below, they would pass `MASKED` and float32; above, nothing is left."""


def check_scale(what: str, value: float) -> None:
    """Raises `InputError` unless a temperature, or what else divides similarities, is a number that can do so."""
    check(isinstance(value, numbers.Real), f"{what} must be a number", **{what: value})
    check(value > 0, f"{what} must be above 0", **{what: value})
    check(_SCALES[0] <= value <= _SCALES[1], f"{what} must lie from {_SCALES[0]:g} to {_SCALES[1]:g}", **{what: value})


def check_temperature(temperature: float) -> None:
    """Raises `InputError` unless the temperature is above 0 and similarities over it are finite."""
    check_scale("temperature", temperature)


def check_at_least(what: str, value: float, *, least: float) -> None:
    """Raises `InputError` unless a number is finite and at least as large."""
    check(isinstance(value, numbers.Real), f"{what} must be a number", **{what: value})
    check(value >= least, f"{what} must be at least {least:g}", **{what: value})
    check(value < math.inf, f"{what} must be finite", **{what: value})


def wide(z):
    """A tensor of numbers in float32, or as it is in float64."""
    z = ops.convert_to_tensor(z)
    return z if keras.backend.standardize_dtype(z.dtype) == "float64" else ops.cast(z, "float32")


def normalize(z):
    """Divides each row by its length, in the row's precision; a row of zeros stays zero.

    See docs/official-code.md#normalised-projections.
    """
    z = ops.convert_to_tensor(z)
    # The length is computed in float32: in float16 the square of a number above 255 is infinite.
    own, z = (z.dtype if keras.backend.is_float_dtype(z.dtype) else "float32"), wide(z)
    return ops.cast(z * ops.rsqrt(ops.maximum(ops.sum(ops.square(z), axis=1, keepdims=True), 1e-12)), own)


def _check_pair(z1, z2) -> None:
    """Raises `InputError` unless both views' projections are `(n, d)`; a loss of more views is one of each pair."""
    shapes = tuple(z1.shape), tuple(z2.shape)
    fits = len(shapes[0]) == len(shapes[1]) == 2
    # None is a number that is not known while the step is built; the step itself fails where it then differs.
    fits = fits and all(a == b or None in (a, b) for a, b in zip(*shapes, strict=True))
    rule = "z1 and z2 must have the shape (n, d) each, one projection an example and view"
    check(fits, rule, z1=shapes[0], z2=shapes[1])


def prepare(z1, z2, *, hidden_norm: bool = True):
    """Both views' projections as tensors in float32 at least, divided by their lengths if `hidden_norm` says so."""
    z1, z2 = wide(z1), wide(z2)
    _check_pair(z1, z2)
    return (normalize(z1), normalize(z2)) if hidden_norm else (z1, z2)


def gather_views(z1, z2):
    """First and second views of all replicas, `(N, d)` each, and the rows of this replica's in them, `(n,)`."""
    n = ops.shape(z1)[0]
    every = replicas.gather(ops.stack([z1, z2], axis=1))  # (n, 2, d) → (N, 2, d); one collective instead of two
    return every[:, 0], every[:, 1], own_rows(n)


def own_rows(n):
    """The rows of this replica's `n` in what was gathered of all, `(n,)`: replicas have batches of one size."""
    # Replica r holds rows r · n to r · n + n.
    return ops.arange(n, dtype="int32") + replicas.index() * n


def contrastive_logits(z1, z2, temperature: float = 0.1, *, hidden_norm: bool = True):
    """Similarities over temperature of each view with all others.

    Returns:
        `ab`, `aa`, `ba`, `bb` of shape `(n, N)` each, and `targets` `(n,)`: row `i` of `ab` compares first view `i`
        with the second views of all `N` examples on all replicas, and its other view is in column `targets[i]`.
        The diagonals of `aa` and `bb`, a view with itself, are masked.
    """
    check_temperature(temperature)
    z1, z2 = prepare(z1, z2, hidden_norm=hidden_norm)
    every1, every2, targets = gather_views(z1, z2)
    # A view must not be its own positive.  Subtracting, not replacing, as the reference does: the gradient of a masked
    # similarity is that of exp(-1e9), zero.
    self_mask = own_columns(targets, every1) * MASKED  # (n, N)
    # (n, d) · (d, N) → (n, N), four times: first with second, first with first, second with first, second with second.
    ab, aa, ba, bb = (
        ops.matmul(a, ops.transpose(b)) / temperature
        for a, b in ((z1, every2), (z1, every1), (z2, every1), (z2, every2))
    )
    return ab, aa - self_mask, ba, bb - self_mask, targets


def own_columns(targets, every):
    """1 where a column of `(n, N)` is the row's own example, 0 elsewhere; `every` has `N` rows, and the dtype."""
    # By one-hot rows and not by `scatter`: the same on every backend, and its product has a plain gradient.
    return ops.cast(ops.one_hot(targets, ops.shape(every)[0]), every.dtype)


class ContrastiveLoss(keras.losses.Loss):
    """A function of two views' projections as a Keras loss: `loss(z1, z2)` is the mean over the batch.

    Args:
        function: takes `z1`, `z2` and the options by name, returns one value per example.
        options: what the constructor of the subclass takes, so that a saved loss comes back the same.
        name: by default the function's, where it begins with a letter, else the class's.

    Attributes:
        temperature: for the contrastive metrics; 1, the cosine itself, where the loss has none.
        hidden_norm: whether projections are divided by their length.
        block_size: examples a block, where the loss can be computed in blocks.
        needs_labels: whether it is called as `loss(labels, (z1, z2))` instead.
        needs_others: whether it means nothing of an example that is alone in its batch.
    """

    needs_labels = False
    needs_others = True

    def __init__(self, function, options: dict, *, name: str | None = None, **kwargs):
        called = getattr(function, "__name__", "")
        # TensorFlow makes a scope of it, which begins with a letter: not `_private`, nor `<lambda>`.
        usable = called.isascii() and called[:1].isalpha()
        super().__init__(name=name or (called if usable else None), **kwargs)
        self.function, self.options = function, options
        self.temperature = options.get("temperature", 1.0)
        self.hidden_norm = options.get("hidden_norm", True)
        self.block_size = options.get("block_size")

    def call(self, y_true, y_pred):
        """Loss of each example, `(n,)`, from the projections of both views, `(n, d)` each."""
        return self.function(y_true, y_pred, **self.options)

    def at(self, step) -> Callable:
        """The loss of a training step, an integer or a scalar tensor: itself, unless it draws random numbers."""
        return self

    def get_config(self):
        return super().get_config() | self.options
