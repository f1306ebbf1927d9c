"""LARS, and the momentum of TensorFlow 1.

References:
    You et al., Large Batch Training of Convolutional Networks, arXiv:1708.03888
"""

import re
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tf_simclr.errors import check


@keras.saving.register_keras_serializable("tf_simclr")
class Momentum(keras.optimizers.Optimizer):
    """Momentum with the learning rate outside of the accumulator, as TensorFlow 1 has it.

    `v = momentum * v + g; w -= learning_rate * v` or, with Nesterov, `w -= learning_rate * (g + momentum * v)`.
    Keras' `SGD` has the rate inside (`v = momentum * v - learning_rate * g`): the two differ whenever the rate
    changes (docs/official-code.md#momentum; the paper's results come from this one).

    Args:
        learning_rate: a number or a schedule.
        momentum: in [0, 1).
        use_nesterov: looks one step ahead.

    Raises:
        InputError: the momentum is outside its range.
    """

    def __init__(
        self, learning_rate=0.1, momentum: float = 0.9, *, use_nesterov: bool = True, name: str = "momentum", **kwargs
    ):
        check(0 <= momentum < 1, "momentum must lie in [0, 1)", momentum=momentum)
        super().__init__(learning_rate, name=name, **kwargs)
        self.momentum, self.use_nesterov = momentum, use_nesterov

    def build(self, variables):
        """Makes one accumulator a variable."""
        if self.built:
            return
        super().build(variables)
        self.accumulators = [self.add_variable_from_reference(v, name="momentum") for v in variables]

    def update_step(self, gradient, variable, learning_rate):
        """Moves one variable by one step."""
        rate, gradient = (ops.cast(value, variable.dtype) for value in (learning_rate, gradient))
        self.assign_sub(variable, rate * self.accumulate(gradient, variable))

    def accumulate(self, gradient, variable):
        """Adds a gradient to the variable's accumulator and returns the direction to move in."""
        accumulator = self.accumulators[self._get_variable_index(variable)]
        velocity = self.momentum * accumulator + gradient  # undampened
        # v ← momentum · v + g
        self.assign(accumulator, velocity)
        # Nesterov's direction looks ahead by one more application of the momentum: momentum · v + g, with the new v.
        return self.momentum * velocity + gradient if self.use_nesterov else velocity

    def get_config(self):
        return super().get_config() | {"momentum": self.momentum, "use_nesterov": self.use_nesterov}


def trust_ratio(variable, direction, *, coefficient: float = 1.0):
    """`coefficient * |variable| / |direction|`, a scalar; 1 where that has no meaning."""
    # Lengths over all of the variable, scalars.
    w, g = (ops.sqrt(ops.sum(ops.square(value))) for value in (variable, direction))
    # A variable that starts at zero has |w| = 0, one without a gradient |g| = 0: both take a plain step.  Dividing
    # by 1 there computes no 0 / 0, which a debugger of numbers would stop at.
    defined = ops.logical_and(w > 0, g > 0)
    return ops.where(defined, coefficient * w / ops.where(defined, g, ops.ones_like(g)), ops.ones_like(g))


@keras.saving.register_keras_serializable("tf_simclr")
class LARS(Momentum):
    """Momentum whose step is scaled, variable by variable, to the length of its weights.

    A variable's step is multiplied by the trust ratio `eeta * |w| / |g|`, where `g` holds the coupled weight decay
    already; it is 1 where either length is 0 and for variables that are not adapted.

    Args:
        learning_rate: a number or a schedule.
        momentum: in [0, 1).
        use_nesterov: looks one step ahead.
        weight_decay: coupled: `weight_decay * w` is added to the gradient.
        classic_momentum: accumulates the scaled steps, as the paper does; otherwise ("popular momentum") accumulates
            gradients and scales what comes out.
        eeta: the paper's trust coefficient.
        exclude_from_weight_decay: regular expressions, searched in the variables' paths.  The reference excludes the
            supervised head since SimCLRv2 (docs/official-code.md#lars).
        exclude_from_layer_adaptation: likewise; if empty, what is not decayed is not adapted.
        exclude_vectors: neither decays nor adapts variables of rank 1 or less: biases, and scale and offset of
            normalisation.

    Example:
        >>> kernel = keras.Variable([[3.0, 4.0]])
        >>> LARS(1.0, momentum=0.0).apply([keras.ops.convert_to_tensor([[0.0, 2.0]])], [kernel])
        >>> kernel.numpy()  # the gradient times 0.001 * 5 / 2
        array([[3.   , 3.995]], dtype=float32)

    Raises:
        InputError: a value is outside its range.
    """

    def __init__(
        self,
        learning_rate=0.3,
        momentum: float = 0.9,
        *,
        use_nesterov: bool = False,
        weight_decay: float = 0.0,
        classic_momentum: bool = True,
        eeta: float = 0.001,
        exclude_from_weight_decay: Sequence[str] = ("logits_sup",),
        exclude_from_layer_adaptation: Sequence[str] = (),
        exclude_vectors: bool = True,
        name: str = "lars",
        **kwargs,
    ):
        check(weight_decay >= 0, "weight_decay must be at least 0", weight_decay=weight_decay)
        check(eeta > 0, "eeta must be above 0", eeta=eeta)
        # Keras' own decay is decoupled, so it never learns of this one.
        super().__init__(learning_rate, momentum, use_nesterov=use_nesterov, name=name, **kwargs)
        self.options: dict[str, Any] = {
            "weight_decay": weight_decay,
            "classic_momentum": classic_momentum,
            "eeta": eeta,
            "exclude_from_weight_decay": list(exclude_from_weight_decay),
            "exclude_from_layer_adaptation": list(exclude_from_layer_adaptation),
            "exclude_vectors": exclude_vectors,
        }

    def build(self, variables):
        """Notes, while paths are known, which variables are decayed and which are adapted."""
        if self.built:
            return
        super().build(variables)
        no_decay = self.options["exclude_from_weight_decay"]
        self.decayed = [not self.excluded(v, no_decay) for v in variables]
        self.adapted = [
            # Upstream's rule: an empty list of what is not adapted means the list of what is not decayed.
            not self.excluded(v, self.options["exclude_from_layer_adaptation"] or no_decay)
            for v in variables
        ]

    def excluded(self, variable, patterns: Sequence[str]) -> bool:
        """Whether a variable is left out by its rank or its path."""
        vector = self.options["exclude_vectors"] and len(variable.shape) <= 1
        # Searched anywhere in the path, as upstream does with `re.search`: "logits_sup" is found in
        # "simclr/logits_sup/kernel".
        return bool(vector) or any(re.search(pattern, variable.path) for pattern in patterns)

    def update_step(self, gradient, variable, learning_rate):
        """Moves one variable by one step."""
        # The order is the algorithm (docs/official-code.md#lars):
        #   1. g ← g + weight_decay · w          coupled, so that the ratio below sees it
        #   2. ratio ← eeta · |w| / |g|          1 for biases and normalisation, and where a length is 0
        #   3. v ← momentum · v + rate · ratio · g
        #   4. w ← w - v
        # "Popular" momentum accumulates g itself and scales v, so that old gradients follow today's rate.
        # Variables are numbered when the optimizer is built: a lookup by name would cost each step.
        index = self._get_variable_index(variable)
        rate, gradient = (ops.cast(value, variable.dtype) for value in (learning_rate, gradient))
        if self.decayed[index]:
            gradient = gradient + self.options["weight_decay"] * variable
        adapted = self.adapted[index]
        # Classic: v holds steps in weights' units, each with the rate of its own day.
        if self.options["classic_momentum"]:
            step = self.accumulate(rate * self.ratio(variable, gradient, adapted=adapted) * gradient, variable)
        else:
            step = self.accumulate(gradient, variable)
            step = rate * self.ratio(variable, step, adapted=adapted) * step
        self.assign_sub(variable, step)

    def ratio(self, variable, direction, *, adapted: bool):
        """The trust ratio of a variable that is adapted, 1 of others."""
        return trust_ratio(variable, direction, coefficient=self.options["eeta"]) if adapted else 1.0

    def exclude_from_weight_decay(self, var_list=None, var_names=None):
        """Refused: Keras' exclusion works on its own, decoupled decay."""
        raise ValueError("LARS takes exclude_from_weight_decay when it is made, not later")

    def get_config(self):
        return super().get_config() | self.options
