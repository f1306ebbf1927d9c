"""Supervised contrastive learning: all views of the examples with one label are positives of each other.

References:
    Khosla et al., arXiv:2004.11362, Equation 2 (`L_out`).
"""

import keras
from keras import ops

from tf_simclr import replicas
from tf_simclr.errors import check
from tf_simclr.losses.similarity import ContrastiveLoss, check_temperature, contrastive_logits, own_columns


def sup_con(z1, z2, labels, temperature: float = 0.1, *, hidden_norm: bool = True):
    """The supervised contrastive loss of each example.

    A view's cross entropy is averaged over its positives: the other view of its example and both of every example
    with the same label.  Where all labels differ this is `nt_xent`.  The paper's code multiplies by
    `temperature / 0.07`, its equation does not, nor does this.

    Args:
        z1: projections of the first views, `(n, d)`.
        z2: projections of the second views, `(n, d)`, in the same order.
        labels: the class of each example, `(n,)`, integers.
        temperature: above 0.
        hidden_norm: whether projections are divided by their length.

    Returns:
        `(n,)`: the sum over both views.

    Raises:
        InputError: the temperature is not above 0, or the labels have not the shape `(n,)`.

    Example:
        >>> import numpy as np
        >>> z = np.eye(4, dtype="float32")
        >>> sup_con(z, z, [0, 0, 1, 2], temperature=0.5).numpy().round(4)
        array([3.8555, 3.8555, 1.1889, 1.1889], dtype=float32)
    """
    labels = ops.convert_to_tensor(labels)
    check(len(labels.shape) == 1, "labels must have the shape (n,)", shape=tuple(labels.shape))
    ab, aa, ba, bb, targets = contrastive_logits(z1, z2, temperature, hidden_norm=hidden_norm)
    # 1 where two examples share their label, (n, N): an example with itself, too, as its other view is a positive.
    same = ops.cast(ops.equal(ops.expand_dims(labels, 1), replicas.gather(labels)), ab.dtype)
    # Columns as of [ab, aa]: across views all of the class, within a view all but the view itself.
    positives = ops.concatenate([same, same - own_columns(targets, ops.transpose(ab))], axis=1)
    return sum(_mean_cross_entropy(ops.concatenate(logits, axis=1), positives) for logits in ((ab, aa), (ba, bb)))


def _mean_cross_entropy(logits, positives):
    """Mean over the positives of each row, `(n,)`, from 1 for a positive and 0 for another column."""
    # -log of the softmax at every column, (n, 2N): what each column would cost if it were the target.
    losses = ops.logsumexp(logits, axis=1, keepdims=True) - logits
    # Every row has a positive, its own other view: the sum below is never 0.
    return ops.sum(positives * losses, axis=1) / ops.sum(positives, axis=1)


@keras.saving.register_keras_serializable("tf_simclr")
class SupCon(ContrastiveLoss):
    """`sup_con` as a Keras loss: `SupCon(temperature)(labels, (z1, z2))` is the mean over the batch.

    Raises:
        InputError: the temperature is not above 0.
    """

    needs_labels = True

    def __init__(self, temperature: float = 0.1, *, hidden_norm: bool = True, **kwargs):
        check_temperature(temperature)
        super().__init__(sup_con, {"temperature": temperature, "hidden_norm": hidden_norm}, **kwargs)

    def call(self, y_true, y_pred):
        """Loss of each example, `(n,)`, from its label, `(n,)`, and the pair of projections, `(n, d)` each."""
        return self.function(*y_pred, y_true, **self.options)
