"""NT-Xent, the loss of SimCLR.

References:
    Chen et al., SimCLR, arXiv:2002.05709, Equation 1 and Algorithm 1.
"""

import keras
from keras import ops

from tf_simclr.losses import blockwise
from tf_simclr.losses.base import ContrastiveLoss
from tf_simclr.losses.similarity import check_temperature, contrastive_logits, prepare


def nt_xent(z1, z2, temperature: float = 0.1, *, hidden_norm: bool = True, block_size: int | None = None):
    """The normalised temperature-scaled cross entropy of each example.

    Each view of an example has to be told apart, by its other view, from all other images of the batch.  Within a
    `tf.distribute` step the negatives are those of every replica, and gradients flow to all of them.

    Args:
        z1: projections of the first views, `(n, d)`.
        z2: projections of the second views, `(n, d)`, in the same order.
        temperature: above 0.
        hidden_norm: whether projections are divided by their length.
        block_size: examples whose similarities are in memory at once, at least 1; the result is the same.  None:
            all of a small batch, `blockwise.BLOCK` of a large one or of one whose size is not known beforehand.

    Returns:
        `(n,)`: the *sum* of both directions, as in the reference; the mean of the paper's Algorithm 1 is half of it.

    Raises:
        InputError: the temperature is not above 0, or the block size not at least 1.

    Example:
        >>> import numpy as np
        >>> z = np.eye(4, dtype="float32")
        >>> nt_xent(z, z, temperature=0.5).numpy().round(4)
        array([1.1889, 1.1889, 1.1889, 1.1889], dtype=float32)
    """
    check_temperature(temperature)
    block_size = blockwise.choose(ops.shape(z1)[0], block_size)
    if block_size is None:
        return sum(cross_entropies(*contrastive_logits(z1, z2, temperature, hidden_norm=hidden_norm)))
    z1, z2 = prepare(z1, z2, hidden_norm=hidden_norm)
    others = blockwise.log_sum_exp(ops.stack([z1, z2], axis=1), temperature, block_size=block_size)
    return ops.sum(others, axis=1) - 2 / temperature * ops.sum(z1 * z2, axis=1)


def cross_entropies(ab, aa, ba, bb, targets):
    """The loss of each example from first to second view, and from second to first, `(n,)` each."""
    return [
        keras.losses.sparse_categorical_crossentropy(targets, ops.concatenate(logits, axis=1), from_logits=True)
        for logits in ((ab, aa), (ba, bb))
    ]


@keras.saving.register_keras_serializable("tf_simclr")
class NTXent(ContrastiveLoss):
    """`nt_xent` as a Keras loss: `NTXent(temperature)(z1, z2)` is the mean over the batch.

    Args:
        temperature: as `hidden_norm` and `block_size` in `nt_xent`.

    Example:
        >>> import numpy as np
        >>> z = np.eye(4, dtype="float32")
        >>> round(float(NTXent(temperature=0.5)(z, z)), 4)
        1.1889

    Raises:
        InputError: the temperature is not above 0, or the block size not at least 1.
    """

    def __init__(
        self,
        temperature: float = 0.1,
        *,
        hidden_norm: bool = True,
        block_size: int | None = None,
        name: str = "nt_xent",
        **kwargs,
    ):
        check_temperature(temperature)
        blockwise.check_block_size(block_size)
        options = {"temperature": temperature, "hidden_norm": hidden_norm, "block_size": block_size}
        super().__init__(nt_xent, options, name=name, **kwargs)
