"""NT-Xent, the loss of SimCLR.

References:
    Chen et al., SimCLR, arXiv:2002.05709, Equation 1 and Algorithm 1.
"""

import keras
from keras import ops

from tf_simclr.losses import blockwise
from tf_simclr.losses.similarity import (
    ContrastiveLoss,
    check_temperature,
    contrastive_logits,
    gather_views,
    prepare,
    wide,
)


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
    # NT-Xent in four lines, for N examples on all replicas, of which this one has n:
    #   1. similarities over temperature of each first view with all second views, ab (n, N), and with all first views
    #      but itself, aa (n, N); the same the other way round, ba and bb;
    #   2. a softmax over the 2N - 1 others of each view: the rows [ab, aa] and [ba, bb], (n, 2N) with one masked;
    #   3. the cross entropy of each row against the column of the example's other view, (n,);
    #   4. the sum of both directions, not their mean (docs/official-code.md#sum-of-both-directions).
    block_size = blockwise.choose(ops.shape(z1)[0], block_size)
    if block_size is None:
        return sum(_cross_entropies(*contrastive_logits(z1, z2, temperature, hidden_norm=hidden_norm)))
    z1, z2 = prepare(z1, z2, hidden_norm=hidden_norm)
    # The same, taken apart: a cross entropy is the logarithm of the sum over all others minus the positive's logit.
    # Only the sums need blocks; the positive's logit is one product a pair, the same in both directions.
    others = blockwise.log_sum_exp(ops.stack([z1, z2], axis=1), temperature, block_size=block_size)  # (n, 2)
    return ops.sum(others, axis=1) - 2 / temperature * ops.sum(z1 * z2, axis=1)


def _cross_entropies(ab, aa, ba, bb, targets):
    """The loss of each example from first to second view, and from second to first, `(n,)` each."""
    # (n, N) twice, beside each other → (n, 2N); `targets` count into the first half, where the other views are.
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

    def __init__(self, temperature: float = 0.1, *, hidden_norm: bool = True, block_size: int | None = None, **kwargs):
        check_temperature(temperature)
        blockwise.check_block_size(block_size)
        options = {"temperature": temperature, "hidden_norm": hidden_norm, "block_size": block_size}
        super().__init__(nt_xent, options, **kwargs)


def contrastive_accuracy(ab, targets):
    """Share of first views whose most similar second view is their own, `(n,)` of 0 and 1.

    See docs/official-code.md#contrast-metrics.
    """
    ab = wide(ab)
    return ops.cast(ops.equal(ops.argmax(ab, axis=1), targets), ab.dtype)


def contrastive_entropy(ab):
    """Entropy in nats of the softmax of each first view over all second views, `(n,)`.

    See docs/official-code.md#contrast-metrics.
    """
    # The entropy of p, 1e-8 inside the logarithm as upstream, so that a p that rounds to 0 costs nothing.
    p = ops.softmax(wide(ab), axis=1)
    return -ops.sum(p * ops.log(p + 1e-8), axis=1)


def contrastive_metrics(z1, z2, temperature: float = 0.1, *, hidden_norm: bool = True, block_size: int | None = None):
    """`contrastive_accuracy` and `contrastive_entropy` of each example, without gradients and in blocks.

    Args:
        z1: projections of the first views, `(n, d)`.
        z2: projections of the second views, `(n, d)`, in the same order.
        temperature: above 0; the entropy depends on it.
        hidden_norm: whether projections are divided by their length.
        block_size: examples whose similarities are in memory at once, as for `nt_xent`.

    Returns:
        Two tensors `(n,)`.

    Raises:
        InputError: the temperature is not above 0, or the block size not at least 1.

    Example:
        >>> import numpy as np
        >>> accuracy, entropy = contrastive_metrics(np.eye(4), np.eye(4), temperature=1.0)
        >>> accuracy.numpy(), entropy.numpy().round(4)
        (array([1., 1., 1., 1.]), array([1.2683, 1.2683, 1.2683, 1.2683]))
    """
    check_temperature(temperature)
    # Metrics only watch: without the stop every step would differentiate them, too.
    z1, z2 = (ops.stop_gradient(z) for z in prepare(z1, z2, hidden_norm=hidden_norm))
    _, every2, targets = gather_views(z1, z2)

    def of_block(_, block):
        z, own = block
        # (b, d) · (d, N) → (b, N): the first views of a block with all second views, one direction as upstream.
        ab = ops.matmul(z, ops.transpose(every2)) / temperature
        # Two numbers a row, (b, 2): a scan carries one tensor.
        found = ops.stack([contrastive_accuracy(ab, own), contrastive_entropy(ab)], axis=1)
        return found, found

    n = ops.shape(z1)[0]
    size = blockwise.choose(n, block_size) or n
    return ops.unstack(blockwise.over_blocks(of_block, [z1, targets], like=z1[:, :2], size=size), axis=1)
