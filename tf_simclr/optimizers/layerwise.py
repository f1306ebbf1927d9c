"""Another learning rate for each layer, with any optimizer."""

from collections.abc import Callable

import keras
from keras import ops

from tf_simclr.errors import check


class _Layerwise:
    """Mixed in before an optimizer: a variable's rate is the optimizer's times a factor of its own."""

    factor: Callable[[str], float]
    """Name of a layer → factor of the learning rate, at least 0."""

    def build(self, variables):
        """Notes each variable's factor, while layers' names are known."""
        if self.built:
            return
        super().build(variables)
        # A path ends with layer/weight: the second last part is the layer.
        self.factors = [self.factor(variable.path.split("/")[-2]) for variable in variables]

    def update_step(self, gradient, variable, learning_rate):
        """Moves one variable by one step at its own rate."""
        rate = ops.cast(learning_rate, variable.dtype) * self.factors[self._get_variable_index(variable)]
        super().update_step(gradient, variable, rate)


def layerwise(optimizer: keras.optimizers.Optimizer, factor: Callable[[str], float]) -> keras.optimizers.Optimizer:
    """The same kind of optimizer with the same options, with a factor of the learning rate for each layer.

    Args:
        optimizer: not built yet.
        factor: name of a layer → factor, at least 0.

    Raises:
        InputError: the optimizer has Keras' own weight decay, which knows no factors; `optimizers.AdamW` has another.

    Example:
        >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, name="a", kernel_initializer="ones")])
        >>> slow = layerwise(keras.optimizers.SGD(1.0), lambda name: {"a": 0.25}[name])
        >>> slow.apply([ops.ones((1, 1)), ops.zeros(1)], model.trainable_variables)
        >>> model.get_layer("a").kernel.numpy()
        array([[0.75]], dtype=float32)
    """
    rule = "optimizer must be without Keras' own weight decay: take tf_simclr.optimizers.AdamW, or none"
    check(optimizer.weight_decay is None, rule, optimizer=optimizer.name)
    # A class of its own, so that the mixin's `update_step` comes before the optimizer's in the order of inheritance.
    kind = type(f"Layerwise{type(optimizer).__name__}", (_Layerwise, type(optimizer)), {"factor": staticmethod(factor)})
    return kind.from_config(optimizer.get_config())
