"""How well the second view of each example is found among those of all."""

from keras import ops

from tf_simclr.losses import blockwise
from tf_simclr.losses.similarity import check_temperature, gather_views, prepare, wide


def contrastive_accuracy(ab, targets):
    """Share of first views whose most similar second view is their own, `(n,)` of 0 and 1 (fact 17)."""
    ab = wide(ab)
    return ops.cast(ops.equal(ops.argmax(ab, axis=1), targets), ab.dtype)


def contrastive_entropy(ab):
    """Entropy in nats of the softmax of each first view over all second views, `(n,)` (fact 17)."""
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
    z1, z2 = (ops.stop_gradient(z) for z in prepare(z1, z2, hidden_norm=hidden_norm))
    _, every2, targets = gather_views(z1, z2)

    def of_block(_, block):
        z, own = block
        ab = ops.matmul(z, ops.transpose(every2)) / temperature
        found = ops.stack([contrastive_accuracy(ab, own), contrastive_entropy(ab)], axis=1)
        return found, found

    n = ops.shape(z1)[0]
    size = blockwise.choose(n, block_size) or n
    return ops.unstack(blockwise.over_blocks(of_block, [z1, targets], like=z1[:, :2], size=size), axis=1)
