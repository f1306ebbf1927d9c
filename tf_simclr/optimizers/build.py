"""Optimizers by their flags, and what weight decay they leave to the loss."""

import contextlib
from collections.abc import Iterator, Sequence

import keras

from tf_simclr.errors import check
from tf_simclr.optimizers.adaptive import AdamW, Lamb
from tf_simclr.optimizers.lars import LARS, Momentum


def build(name: str, learning_rate, *, momentum: float = 0.9, weight_decay: float = 0.0) -> keras.optimizers.Optimizer:
    """One of the optimizers by its flag.

    Args:
        name: `lars`; `momentum` (Nesterov, as in TensorFlow 1); `sgd` (Nesterov, as in Keras and so in the
            reference's TF2 code); `adam`; and beside the reference's `adamw` and `lamb`.
        learning_rate: a number or a schedule.
        momentum: of the first three.
        weight_decay: of LARS, AdamW and Lamb; the others take theirs from the loss (`SimCLR.weight_decay`).

    Raises:
        InputError: an unknown name.
    """
    makers = {
        "lars": lambda: LARS(learning_rate, momentum, weight_decay=weight_decay),
        "momentum": lambda: Momentum(learning_rate, momentum),
        # Keras' own momentum: the rate is inside the accumulator, in `Momentum` it is not.
        "sgd": lambda: keras.optimizers.SGD(learning_rate, momentum, nesterov=True),
        "adam": lambda: keras.optimizers.Adam(learning_rate, epsilon=1e-8),  # TF1's epsilon
        "adamw": lambda: AdamW(learning_rate, weight_decay),
        "lamb": lambda: Lamb(learning_rate, weight_decay),
    }
    check(name in makers, f"optimizer must be one of {', '.join(makers)}", optimizer=name)
    return makers[name]()


def left_to_loss(optimizer, variables: Sequence, *, head: Sequence = ()) -> list:
    """The variables whose weight decay the optimizer leaves to the loss (docs/official-code.md#weight-decay).

    Args:
        optimizer: any, also one within a loss scale.
        variables: that the loss decays where the optimizer does nothing of this kind.
        head: the supervised head's kernel, which LARS spares.

    Returns:
        The head's of LARS, none of AdamW and Lamb, else all of them.
    """
    # A loss scaler holds the optimizer that decays.
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    # LARS spares biases and normalisation by rank, and the head by name: the head's kernel is all that is left.
    if isinstance(optimizer, LARS):
        return list(head)
    return [] if isinstance(optimizer, AdamW | Lamb) else list(variables)


@keras.saving.register_keras_serializable("tf_simclr")
class LossScale(keras.optimizers.LossScaleOptimizer):
    """Keras' dynamic loss scaling for float16, around any optimizer.

    A step whose gradient overflows changes no weight.  Two counts are kept: `iterations`, of all steps, by which the
    schedule goes on with the data and a resumed run finds its place; and the inner optimizer's, of those that were
    applied, by which Adam and its kin correct the bias of their moments: a skipped step has added nothing to these.
    """

    def __init__(self, inner_optimizer, *, name: str = "loss_scale", **kwargs):
        super().__init__(inner_optimizer, name=name, **kwargs)  # Keras would count up: other names in each checkpoint

    @property
    def iterations(self):
        """Steps so far, also those that were skipped."""
        return self._iterations

    @property
    def learning_rate(self):
        """The rate of the next step."""
        # Between steps a callback that asks for the rate must see that of the step to come.
        with self.scheduled(self._iterations):
            return self.inner_optimizer._get_current_learning_rate()

    @learning_rate.setter
    def learning_rate(self, learning_rate):
        self.inner_optimizer.learning_rate = learning_rate

    @contextlib.contextmanager
    def scheduled(self, step) -> Iterator[None]:
        """Within, the inner optimizer's schedule is at a step of all instead of at one of those that were applied."""
        # The schedule is swapped for a function of the given step; Keras calls it as it calls a schedule.
        rate = self.inner_optimizer._learning_rate
        if not isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
            yield
            return
        self.inner_optimizer._learning_rate = lambda: rate(step)
        try:
            yield
        finally:
            self.inner_optimizer._learning_rate = rate

    def _stateful_handle_finite_grads(self, grads, trainable_variables):
        with self.scheduled(self._iterations):
            # The inner optimizer's step at the rate of this step; it counts the applied ones, the line below all.
            super()._stateful_handle_finite_grads(grads, trainable_variables)
        self._iterations.assign_add(1)

    def _stateful_handle_non_finite_grads(self):
        super()._stateful_handle_non_finite_grads()
        self._iterations.assign_add(1)

    def _stateless_handle_finite_grads(self, optimizer_variables, grads, trainable_variables):
        # The same for JAX, whose optimizer is a function from a list of tensors to a list: the count is one of them.
        with self.scheduled(optimizer_variables[self.place()]):
            weights, state = super()._stateless_handle_finite_grads(optimizer_variables, grads, trainable_variables)
        return weights, self.counted(state)

    def _stateless_handle_non_finite_grads(self, optimizer_variables, trainable_variables):
        weights, state = super()._stateless_handle_non_finite_grads(optimizer_variables, trainable_variables)
        return weights, self.counted(state)

    def counted(self, state: list) -> list:
        """The optimizer's state with one more step counted."""
        return [x + 1 if i == self.place() else x for i, x in enumerate(state)]

    def place(self) -> int:
        """Where the count of all steps is in the state."""
        return next(i for i, v in enumerate(self.variables) if v is self._iterations)

    def restored(self) -> None:
        """Settles a state that was written when one count, the inner optimizer's, was that of all steps."""
        # Checkpoints of before had the inner count alone, which is then the larger.
        counted = int(self.inner_optimizer.iterations.numpy())
        if int(self._iterations.numpy()) < counted:
            self._iterations.assign(counted)
