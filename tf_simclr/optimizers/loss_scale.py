"""Loss scaling for float16."""

import keras


@keras.saving.register_keras_serializable("tf_simclr")
class LossScale(keras.optimizers.LossScaleOptimizer):
    """Keras' dynamic loss scaling for float16, around any optimizer.

    A step whose gradient overflows changes no weight, but here it counts: the schedule goes on with the data, and a
    resumed run finds its place.
    """

    def __init__(self, inner_optimizer, *, name: str = "loss_scale", **kwargs):
        super().__init__(inner_optimizer, name=name, **kwargs)  # Keras would count up: other names in each checkpoint

    def _stateful_handle_non_finite_grads(self):
        super()._stateful_handle_non_finite_grads()
        self.inner_optimizer.iterations.assign_add(1)

    def _stateless_handle_non_finite_grads(self, optimizer_variables, trainable_variables):
        weights, state = super()._stateless_handle_non_finite_grads(optimizer_variables, trainable_variables)
        steps = self.inner_optimizer.iterations
        return weights, [x + 1 if v is steps else x for v, x in zip(self.variables, state, strict=True)]
