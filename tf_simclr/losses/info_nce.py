"""InfoNCE against a queue of keys, the loss of MoCo.

References:
    He et al., MoCo, arXiv:1911.05722, Equation 1 and Algorithm 1.
"""

import keras
from keras import ops

from tf_simclr.losses.similarity import check_temperature, prepare, wide


def info_nce_logits(queries, keys, queue, temperature: float = 0.2):
    """Similarities over temperature of each query with its own key, column 0, and with the queue: `(n, 1 + K)`."""
    check_temperature(temperature)
    (queries, keys), queue = prepare(queries, keys), wide(queue)  # (n, d) each, (K, d): lengths 1, the queue's already
    # (n, d) with (n, d), row by row → (n, 1); then (n, d) · (d, K) → (n, K)
    own = ops.sum(queries * keys, axis=1, keepdims=True)
    return ops.concatenate([own, ops.matmul(queries, ops.transpose(queue))], axis=1) / temperature


def info_nce(queries, keys, queue, temperature: float = 0.2):
    """The cross entropy of each query to be told its own key from those of the queue.

    Args:
        queries: projections `(n, d)`.
        keys: projections `(n, d)` of the other views, in the same order.
        queue: keys `(K, d)` of length 1 of other images.
        temperature: above 0.

    Returns:
        `(n,)`; one direction only, since keys have no gradient.

    Raises:
        InputError: the temperature is not above 0.

    Example:
        >>> import numpy as np
        >>> z = np.eye(4, dtype="float32")
        >>> info_nce(z[:2], z[:2], z[2:], temperature=0.5).numpy().round(4)
        array([0.2395, 0.2395], dtype=float32)
    """
    logits = info_nce_logits(queries, keys, queue, temperature)
    # The cross entropy against column 0, written out: log sum exp minus the logit of the own key.
    return ops.logsumexp(logits, axis=1) - logits[:, 0]


@keras.saving.register_keras_serializable("tf_simclr")
class InfoNCE(keras.losses.Loss):
    """`info_nce` as a Keras loss: `InfoNCE(temperature)(queries, (keys, queue))` is the mean over the batch.

    Args:
        temperature: above 0; MoCo v2 has 0.2 (arXiv:2003.04297, Table 1).

    Raises:
        InputError: the temperature is not above 0.
    """

    def __init__(self, temperature: float = 0.2, *, name: str = "info_nce", **kwargs):
        check_temperature(temperature)
        super().__init__(name=name, **kwargs)
        self.temperature = temperature

    def call(self, y_true, y_pred):
        """Loss of each example, `(n,)`, from queries `(n, d)`, and keys `(n, d)` and queue `(K, d)`."""
        keys, queue = y_pred
        return info_nce(y_true, keys, queue, self.temperature)

    def get_config(self):
        return super().get_config() | {"temperature": self.temperature}
