"""Optimizers by their flags, and what weight decay they leave to the loss."""

from collections.abc import Sequence

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
        "sgd": lambda: keras.optimizers.SGD(learning_rate, momentum, nesterov=True),
        "adam": lambda: keras.optimizers.Adam(learning_rate, epsilon=1e-8),  # TF1's epsilon
        "adamw": lambda: AdamW(learning_rate, weight_decay),
        "lamb": lambda: Lamb(learning_rate, weight_decay),
    }
    check(name in makers, f"optimizer must be one of {', '.join(makers)}", optimizer=name)
    return makers[name]()


def left_to_loss(optimizer, variables: Sequence, *, head: Sequence = ()) -> list:
    """The variables whose weight decay the optimizer leaves to the loss (fact 12).

    Args:
        optimizer: any, also one within a loss scale.
        variables: that the loss decays where the optimizer does nothing of this kind.
        head: the supervised head's kernel, which LARS spares.

    Returns:
        The head's of LARS, none of AdamW and Lamb, else all of them.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if isinstance(optimizer, LARS):
        return list(head)
    return [] if isinstance(optimizer, AdamW | Lamb) else list(variables)
