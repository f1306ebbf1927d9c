"""Labels as users give them: integers, one-hot rows or shares of classes, checked where they can be seen."""

import re

import keras
import numpy as np
from keras import ops

from tf_simclr.errors import InputError, check

_SUM_ERROR = 1e-2
"""By which the shares of a row may miss 1: those of many classes in float16 do."""


def rule(classes: int, least: int) -> str:
    """What labels must be."""
    most, shares = ("", "") if not classes else (f" to {classes - 1}", f", or rows of {classes} shares")
    return f"labels must be integers from {least}{most}{shares}"


def given(labels, *, classes: int, least: int = 0):
    """Labels that lie in memory, once they were looked at, in one of the two forms of `prepared`; others as they are.

    Args:
        labels: an array or list, `(n,)`, `(n, 1)` or `(n, classes)`; anything else is left to the step.
        classes: how many there are; 0: any number.
        least: the smallest label.

    Raises:
        InputError: a label is no integer in its range, or a row is no shares: not negative, 1 in all.
    """
    if not isinstance(labels, list) and not hasattr(labels, "__array__"):
        return labels
    values = np.asarray(labels)
    check(values.dtype.kind not in "USO", rule(classes, least), labels=values.reshape(-1)[:3].tolist())  # text, objects
    if values.dtype.kind not in "iufb" or values.ndim not in (1, 2):
        return labels
    if values.ndim == 2 and values.shape[1] > 1:
        shares = values.astype(keras.config.floatx())
        wrong = shares[~((shares >= 0).all(axis=1) & (np.abs(shares.sum(axis=1) - 1) <= _SUM_ERROR))]  # NaN is wrong
        check(values.shape[1] != classes or len(wrong) == 0, rule(classes, least), labels=wrong[:1].tolist())
        return shares
    values = values.reshape(-1)
    wrong = values[(values < least) | (values >= (classes or np.inf)) | (values != np.round(values))]
    check(wrong.size == 0, rule(classes, least), labels=np.unique(wrong)[:3].tolist())
    return values.astype("int32")


def prepared(labels, *, classes: int, least: int = 0):
    """Labels as a tensor `(n,)` of integers, or `(n, classes)` of shares, which fails in the step where it is neither.

    Where XLA compiles the step nothing can fail in it; Keras' cross entropy is then not a number.

    Raises:
        InputError: of a shape that is neither.
    """
    labels = ops.convert_to_tensor(labels)
    if getattr(labels.shape, "rank", 1) is None:  # a stream's batches differ in it: they cannot be rows of shares
        labels = ops.reshape(labels, (-1,))
    if len(labels.shape) == 2 and labels.shape[1] == 1:
        labels = ops.squeeze(labels, 1)
    shares = len(labels.shape) == 2 and labels.shape[1] == classes
    check(len(labels.shape) == 1 or shares, rule(classes, least), shape=tuple(labels.shape))
    if shares:
        return ops.cast(labels, keras.config.floatx())
    labels = ops.cast(labels, "int32")
    return _asserted(labels, classes=classes, least=least)


def _asserted(labels, *, classes: int, least: int):
    """The labels, once TensorFlow or PyTorch has seen that they are in their range; JAX's step can refuse nothing."""
    if keras.backend.backend() == "torch" and not keras.utils.is_keras_tensor(labels):
        given(ops.convert_to_numpy(labels), classes=classes, least=least)
    if keras.backend.backend() != "tensorflow":
        return labels
    import tensorflow as tf

    inside = (labels >= least) & (labels < classes) if classes else labels >= least
    message = f"{rule(classes, least)}. Received: labels="
    wrong = tf.boolean_mask(labels, ~inside)[:3]
    with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(inside), [message, wrong])]):
        return tf.identity(labels)


def told(error: Exception) -> InputError | None:
    """The sentence of `_asserted` in an error of TensorFlow, if it is one."""
    found = re.search(r"(labels must be integers [^']*?Received: labels=)[^\[]*\[(-?\d+(?: -?\d+)*)", str(error))
    return InputError(f"{found[1]}[{found[2].replace(' ', ', ')}]") if found else None


def cross_entropy(labels, logits):
    """Of each example, `(n,)`, from prepared labels and logits `(n, classes)`."""
    if len(labels.shape) == 2:
        return keras.losses.categorical_crossentropy(labels, logits, from_logits=True)
    losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    if keras.backend.backend() == "jax":  # which has a one-hot row of zeros, and so the loss 0, for a label too large
        losses = ops.where((labels >= 0) & (labels < logits.shape[-1]), losses, float("nan"))
    return losses


def hits(labels, logits):
    """1 where the largest logit is that of the label, `(n,)`."""
    labels = ops.argmax(labels, axis=-1) if len(labels.shape) == 2 else labels
    return keras.metrics.sparse_categorical_accuracy(labels, logits)


def top_hits(labels, logits, *, k: int):
    """1 where the label's logit is among the `k` largest, `(n,)`."""
    labels = ops.argmax(labels, axis=-1) if len(labels.shape) == 2 else labels
    scores = ops.cast(logits, "float32")  # the only type that TensorFlow's in_top_k takes
    return keras.metrics.sparse_top_k_categorical_accuracy(labels, scores, k=k)
