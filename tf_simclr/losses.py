"""NT-Xent, the loss of SimCLR.

References:
    Chen et al., SimCLR, arXiv:2002.05709, Equation 1 and Algorithm 1.
"""

import keras
from keras import ops

from tf_simclr import replicas
from tf_simclr.errors import check

MASKED = 1e9
"""Taken from a logit that must not count; the reference's number, also its limit in float32."""


def nt_xent(z1, z2, temperature: float = 0.1, *, hidden_norm: bool = True):
    """The normalised temperature-scaled cross entropy of each example.

    Each view of an example has to be told apart, by its other view, from all other images of the batch.  Within a
    `tf.distribute` step the negatives are those of every replica, and gradients flow to all of them.

    Args:
        z1: projections of the first views, `(n, d)`.
        z2: projections of the second views, `(n, d)`, in the same order.
        temperature: above 0.
        hidden_norm: whether projections are divided by their length.

    Returns:
        `(n,)`: the *sum* of both directions, as in the reference; the mean of the paper's Algorithm 1 is half of it.

    Raises:
        InputError: the temperature is not above 0.

    Example:
        >>> z = np.eye(4, dtype="float32")
        >>> nt_xent(z, z, temperature=0.5).numpy().round(4)
        array([1.2004, 1.2004, 1.2004, 1.2004], dtype=float32)
    """
    return ops.sum(ops.stack(cross_entropies(*contrastive_logits(z1, z2, temperature, hidden_norm=hidden_norm))), 0)


def contrastive_logits(z1, z2, temperature: float = 0.1, *, hidden_norm: bool = True):
    """Similarities over temperature of each view with all others.

    Returns:
        `ab`, `aa`, `ba`, `bb` of shape `(n, N)` each, and `targets` `(n,)`: row `i` of `ab` compares first view `i`
        with the second views of all `N` examples on all replicas, and its other view is in column `targets[i]`.
        The diagonals of `aa` and `bb`, a view with itself, are masked.
    """
    check(temperature > 0, "temperature must be above 0", temperature=temperature)
    z1, z2 = (ops.convert_to_tensor(z) for z in (z1, z2))
    if hidden_norm:
        z1, z2 = normalize(z1), normalize(z2)
    n = ops.shape(z1)[0]
    every = replicas.gather(ops.stack([z1, z2], axis=1))  # one collective instead of two
    every1, every2 = every[:, 0], every[:, 1]
    targets = ops.arange(n, dtype="int32") + replicas.index() * n
    self_mask = ops.cast(ops.one_hot(targets, ops.shape(every)[0]), z1.dtype) * MASKED
    ab, aa, ba, bb = (
        ops.matmul(a, ops.transpose(b)) / temperature
        for a, b in ((z1, every2), (z1, every1), (z2, every1), (z2, every2))
    )
    return ab, aa - self_mask, ba, bb - self_mask, targets


def cross_entropies(ab, aa, ba, bb, targets):
    """The loss of each example from first to second view, and from second to first, `(n,)` each."""
    return [
        keras.losses.sparse_categorical_crossentropy(targets, ops.concatenate(logits, axis=1), from_logits=True)
        for logits in ((ab, aa), (ba, bb))
    ]


def normalize(z):
    """Divides each row by its length; a row of zeros stays zero (fact 20)."""
    return z * ops.rsqrt(ops.maximum(ops.sum(ops.square(z), axis=1, keepdims=True), 1e-12))


@keras.saving.register_keras_serializable("tf_simclr")
class NTXent(keras.losses.Loss):
    """`nt_xent` as a Keras loss: `NTXent(temperature)(z1, z2)` is the mean over the batch.

    Raises:
        InputError: the temperature is not above 0.
    """

    def __init__(self, temperature: float = 0.1, *, hidden_norm: bool = True, name: str = "nt_xent", **kwargs):
        super().__init__(name=name, **kwargs)
        check(temperature > 0, "temperature must be above 0", temperature=temperature)
        self.temperature, self.hidden_norm = temperature, hidden_norm

    def call(self, y_true, y_pred):
        """Loss of each example, `(n,)`, from the projections of both views, `(n, d)` each."""
        return nt_xent(y_true, y_pred, self.temperature, hidden_norm=self.hidden_norm)

    def get_config(self):
        return super().get_config() | {"temperature": self.temperature, "hidden_norm": self.hidden_norm}


def contrastive_accuracy(ab, targets):
    """Share of first views whose most similar second view is their own, `(n,)` of 0 and 1 (fact 17)."""
    return ops.cast(ops.equal(ops.argmax(ab, axis=1), targets), ab.dtype)


def contrastive_entropy(ab):
    """Entropy in nats of the softmax of each first view over all second views, `(n,)` (fact 17)."""
    p = ops.softmax(ab, axis=1)
    return -ops.sum(p * ops.log(p + 1e-8), axis=1)
