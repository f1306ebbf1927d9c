"""The learning rate over time, and how many steps that is.

References:
    Chen et al., SimCLR, arXiv:2002.05709, Section 2.3 and Appendix B
"""

import math

import keras
from keras import ops

from tf_simclr.errors import check


@keras.saving.register_keras_serializable("tf_simclr")
class WarmUpCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up from 0, then a cosine to 0 without restarts (SimCLR, Section 4 and Appendix B.6).

    The rate of a step uses the number of steps before it, so the first one has rate 0 if there is a warm-up.
    If the warm-up is as long as the training or longer, the rate drops to 0 after it.

    Args:
        peak: the rate at the end of the warm-up; see `scaled_learning_rate`.
        total_steps: length of the training, at least 1.
        warmup_steps: at least 0.

    Example:
        >>> rate = WarmUpCosine(0.3, 100, warmup_steps=10)
        >>> [round(float(rate(step)), 3) for step in (0, 5, 10, 55, 100)]
        [0.0, 0.15, 0.3, 0.15, 0.0]

    Raises:
        InputError: a number of steps is outside its range.
    """

    def __init__(self, peak: float, total_steps: int, *, warmup_steps: int = 0):
        check(total_steps >= 1, "total_steps must be at least 1", total_steps=total_steps)
        check(warmup_steps >= 0, "warmup_steps must be at least 0", warmup_steps=warmup_steps)
        self.config = {"peak": peak, "total_steps": total_steps, "warmup_steps": warmup_steps}

    def __call__(self, step):
        """The rate of a step, a float32 scalar."""
        # In the order of the constructor.
        peak, total, warmup = self.config.values()
        step = ops.cast(step, "float32")
        done = ops.minimum((step - warmup) / max(total - warmup, 1), 1.0)  # share of the cosine; 1 beyond the end
        # With a warm-up as long as the training the cosine would have length 0: the rate is 0 after it.
        cosine = 0.5 * (1.0 + ops.cos(math.pi * done)) * (1.0 if total > warmup else 0.0)
        # Both branches are computed, so neither may divide by 0: hence the maxima with 1.
        return peak * ops.where(step < warmup, step / max(warmup, 1), cosine)

    def get_config(self):
        return self.config


def scaled_learning_rate(learning_rate: float, batch_size: int, *, scaling: str = "linear") -> float:
    """The peak learning rate for a batch size (SimCLR, Section 4 and Appendix B.1).

    Args:
        learning_rate: the rate for a batch of 256 (`linear`), or of one (`sqrt`).
        batch_size: images over all replicas.
        scaling: `linear`: `rate * batch / 256`; `sqrt`: `rate * sqrt(batch)`, for small batches and few epochs.

    Raises:
        InputError: an unknown scaling.

    Example:
        >>> scaled_learning_rate(0.3, 4096), round(scaled_learning_rate(0.075, 4096, scaling="sqrt"), 6)
        (4.8, 4.8)
    """
    check(scaling in ("linear", "sqrt"), "learning_rate_scaling must be linear or sqrt", learning_rate_scaling=scaling)
    return learning_rate * (batch_size / 256 if scaling == "linear" else math.sqrt(batch_size))


def train_steps(num_examples: int, batch_size: int, *, epochs: int) -> int:
    """Steps of a training; the reference counts one more than the quotient (docs/official-code.md#train-steps).

    Example:
        >>> train_steps(50_000, 512, epochs=100)
        9766
    """
    # Upstream's count, kept because the schedule's length depends on it: one step more where the division is even.
    return num_examples * epochs // batch_size + 1


def warmup_steps(num_examples: int, batch_size: int, *, warmup_epochs: float) -> int:
    """Steps of the warm-up, rounded after a floor division as in the reference (docs/official-code.md#learning-rate).

    Example:
        >>> warmup_steps(1_281_167, 4096, warmup_epochs=10)
        3127
    """
    return round(warmup_epochs * num_examples // batch_size)
