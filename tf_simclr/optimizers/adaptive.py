"""AdamW and Lamb, whose weight decay is their own and spares biases and normalisation.

Keras' classes of these names decay every variable unless one is excluded by a name that another backend calls
otherwise, forget the exclusion when they are saved, and Keras' Lamb leaves the decay out of the trust ratio.

References:
    Loshchilov and Hutter, Decoupled Weight Decay Regularization, arXiv:1711.05101
    You et al., Large Batch Optimization for Deep Learning, arXiv:1904.00962
"""

import keras
from keras import ops

from tf_simclr.errors import check
from tf_simclr.optimizers.lars import trust_ratio


class Moments(keras.optimizers.Adam):
    """Adam's moving means of the gradient and of its square; what is made of them is in `direction`.

    Args:
        learning_rate: a number or a schedule.
        weight_decay: times a kernel is part of its step; variables of rank 1 or less (biases, and scale and offset of
            normalisation) have none.
        beta_1: of the mean.
        beta_2: of the mean of squares.
        epsilon: added to the root.

    Raises:
        InputError: the weight decay is negative.
    """

    def __init__(
        self,
        learning_rate=0.001,
        weight_decay: float = 0.0,
        *,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        **kwargs,
    ):
        check(weight_decay >= 0, "weight_decay must be at least 0", weight_decay=weight_decay)
        super().__init__(learning_rate, beta_1, beta_2, epsilon, **kwargs)  # Keras' own decay never learns of this one
        self.decay = weight_decay

    def update_step(self, gradient, variable, learning_rate):
        """Moves one variable by one step."""
        # AdamW and Lamb in four lines:
        #   1. m, v ← moving means of g and g², divided by 1 - βᵗ: they began at zero
        #   2. step ← m / (√v + ε)
        #   3. kernels alone: step ← step + weight_decay · w; for Lamb also step ← step · |w| / |step|
        #   4. w ← w - rate · step
        rate, gradient = (ops.cast(value, variable.dtype) for value in (learning_rate, gradient))
        mean, square = self.moments(gradient, self._get_variable_index(variable))
        step = mean / (ops.sqrt(square) + self.epsilon)
        if len(variable.shape) > 1:
            step = self.direction(step + self.decay * variable, variable)
        self.assign_sub(variable, rate * step)

    def moments(self, gradient, index: int):
        """Adds a gradient to the moving means, and returns them without the bias of their start at zero."""
        # t of the bias correction counts from 1, `iterations` from 0.
        step = ops.cast(self.iterations + 1, gradient.dtype)
        found = []
        for kept, beta, value in (
            (self._momentums[index], self.beta_1, gradient),
            (self._velocities[index], self.beta_2, ops.square(gradient)),
        ):
            new = kept + (value - kept) * (1 - beta)  # as Keras rounds it
            self.assign(kept, new)
            # The mean of t values that began at 0 is short by the factor 1 - βᵗ.
            found.append(new / (1 - ops.power(ops.convert_to_tensor(beta, gradient.dtype), step)))
        return found

    def direction(self, step, variable):
        """What a kernel's step with its decay is turned into."""
        return step

    def exclude_from_weight_decay(self, var_list=None, var_names=None):
        """Refused: Keras' exclusion works on its own decay."""
        raise ValueError(f"{type(self).__name__} decays kernels alone; nothing else can be excluded")

    def get_config(self):
        return super().get_config() | {"weight_decay": self.decay}


@keras.saving.register_keras_serializable("tf_simclr")
class AdamW(Moments):
    """Adam with decoupled weight decay: `w -= learning_rate * (m / (sqrt(v) + epsilon) + weight_decay * w)`.

    As in Algorithm 2 of its paper, where the schedule multiplies the decay, too.  Arguments and errors as in `Moments`.
    """


@keras.saving.register_keras_serializable("tf_simclr")
class Lamb(Moments):
    """AdamW whose step is scaled, kernel by kernel, to the length of its weights: LARS' idea for Adam.

    Algorithm 2 of its paper with the identity for phi: the step of AdamW, decay included, is multiplied by
    `|w| / |step|`, and by 1 where either is zero.  Variables of rank 1 or less take Adam's step as it is.  Arguments
    and errors as in `Moments`; the paper has an epsilon of 1e-6.
    """

    def __init__(self, learning_rate=0.001, weight_decay: float = 0.0, *, epsilon: float = 1e-6, **kwargs):
        super().__init__(learning_rate, weight_decay, epsilon=epsilon, **kwargs)

    def direction(self, step, variable):
        """The step in the length of the weights."""
        return trust_ratio(variable, step) * step
