"""What all losses share as Keras losses."""

from collections.abc import Callable

import keras


class ContrastiveLoss(keras.losses.Loss):
    """A function of two views' projections as a Keras loss: `loss(z1, z2)` is the mean over the batch.

    Args:
        function: takes `z1`, `z2` and the options by name, returns one value per example.
        options: what the constructor of the subclass takes, so that a saved loss comes back the same.

    Attributes:
        temperature: for the contrastive metrics; 1, the cosine itself, where the loss has none.
        hidden_norm: whether projections are divided by their length.
        block_size: examples a block, where the loss can be computed in blocks.
        needs_labels: whether it is called as `loss(labels, (z1, z2))` instead.
    """

    needs_labels = False

    def __init__(self, function, options: dict, **kwargs):
        super().__init__(**kwargs)
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
