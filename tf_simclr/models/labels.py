"""Labels as users give them: integers, one-hot rows or shares of classes, checked where they can be seen."""

import re
from collections.abc import Mapping

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
    if values.dtype.kind == "O":  # such as a column of a table
        values = np.asarray(values.tolist())
    known = values.dtype.kind in "iufb" or (values.dtype.kind == "V" and hasattr(labels, "shape"))  # V: bfloat16
    check(known, rule(classes, least), labels=values.reshape(-1)[:3].tolist())  # text, objects, dates
    if values.dtype.kind == "V" or values.ndim not in (1, 2):
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

    Where XLA compiles the step nothing can fail in it: they are looked at in front of it, too (`models.base`).

    Raises:
        InputError: of a shape that is neither.
    """
    labels = ops.convert_to_tensor(labels)
    kind = keras.backend.standardize_dtype(labels.dtype)
    check(kind not in ("string", "complex64", "complex128"), rule(classes, least), dtype=kind)
    if getattr(labels.shape, "rank", 1) is None:  # a stream's batches differ in it: they cannot be rows of shares
        labels = ops.reshape(labels, (-1,))
    if len(labels.shape) == 2 and labels.shape[1] == 1:
        labels = ops.squeeze(labels, 1)
    shares = len(labels.shape) == 2 and labels.shape[1] == classes
    check(len(labels.shape) == 1 or shares, rule(classes, least), shape=tuple(labels.shape))
    labels = _asserted(labels, classes=classes, least=least)
    return ops.cast(labels, keras.config.floatx() if shares else "int32")


def _asserted(labels, *, classes: int, least: int):
    """The labels, once TensorFlow or PyTorch has seen what they are; JAX's step can refuse nothing."""
    if keras.backend.backend() == "torch" and not keras.utils.is_keras_tensor(labels):
        given(ops.convert_to_numpy(labels), classes=classes, least=least)
    if keras.backend.backend() != "tensorflow":
        return labels
    import tensorflow as tf

    if labels.dtype == tf.bool:
        return labels
    floats = labels.dtype.is_floating
    if len(labels.shape) == 2:
        values = tf.cast(labels, tf.float32)  # of float16, too, whose sums are rough
        whole = tf.abs(tf.reduce_sum(values, axis=1) - 1) <= _SUM_ERROR  # not of NaN
        inside = whole & tf.reduce_all(values >= 0, axis=1)
    else:
        inside = (labels >= least) & (labels < classes) if classes else labels >= least
        inside = inside & (labels == tf.round(labels)) if floats else inside
    message = f"{rule(classes, least)}. Received: labels="
    wrong = tf.reshape(tf.boolean_mask(labels, ~inside)[: 3 if len(labels.shape) == 1 else 1], (-1,))
    with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(inside), [message, wrong])]):
        return tf.identity(labels)


def _rule_of_findings(classes: int) -> str:
    """What rows of findings must be."""
    return f"labels must be rows of {classes} findings: 1 present, 0 absent, -1 unknown"


def check_findings(rows, *, classes: int) -> None:
    """Looks at rows of findings `(n, classes)` that lie in memory; anything else is left to the step.

    Raises:
        InputError: they have another shape, or hold another number than 1, 0 and -1.
    """
    if isinstance(rows, list) or hasattr(rows, "__array__"):
        values, rule = np.asarray(rows), _rule_of_findings(classes)
        fits = values.dtype.kind in "iufb" and values.ndim == 2 and values.shape[1] == classes
        check(fits, rule, dtype=str(values.dtype), shape=values.shape)
        wrong = values[~np.isin(values, (-1, 0, 1))]
        check(wrong.size == 0, rule, labels=np.unique(wrong)[:3].tolist())


def findings(rows, *, classes: int):
    """Rows of findings `(n, classes)` as a tensor, which TensorFlow looks at in its step.

    Raises:
        InputError: they have another shape.
    """
    rows, rule = ops.convert_to_tensor(rows), _rule_of_findings(classes)
    check(len(rows.shape) == 2 and rows.shape[1] == classes, rule, shape=tuple(rows.shape))
    if keras.backend.backend() != "tensorflow":
        return rows
    import tensorflow as tf

    known = (rows == -1) | (rows == 0) | (rows == 1)
    wrong = tf.boolean_mask(rows, ~known)[:3]
    with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(known), [f"{rule}. Received: labels=", wrong])]):
        return tf.identity(rows)


def told(error: Exception) -> InputError | None:
    """The sentence of `_asserted` in an error of TensorFlow, if it is one."""
    number = r"(?:-?[\d.]+(?:e[+-]?\d+)?|-?nan|-?inf)"
    pattern = rf"(labels must be (?:integers|rows) [^']*?Received: labels=)[^\[]*\[({number}(?: {number})*)"
    found = re.search(pattern, str(error), re.IGNORECASE)
    return InputError(f"{found[1]}[{found[2].replace(' ', ', ')}]") if found else None


def check_weights(options: Mapping, *, classes: int) -> None:
    """Refuses weights that would count for nothing, or for something that nobody means.

    Args:
        options: with `class_weight`, class → weight; with `sample_weight`, `(n,)` or `(n, 1)` where it lies in memory.
        classes: how many there are.

    Raises:
        InputError: so it is.
    """
    of_classes, of_examples = options.get("class_weight"), options.get("sample_weight")
    if of_classes is not None:
        rule = f"class_weight must give numbers of at least 0 to classes from 0 to {classes - 1}"
        fits = isinstance(of_classes, Mapping) and all(
            isinstance(name, int | np.integer) and 0 <= name < classes and _is_weight(value)
            for name, value in of_classes.items()
        )
        check(fits, rule, class_weight=of_classes)
    if isinstance(of_examples, list) or hasattr(of_examples, "__array__"):
        values = np.asarray(of_examples)
        rule = "sample_weight must be one number of at least 0 for each example, (n,)"
        fits = values.dtype.kind in "iufb" and (values.ndim == 1 or (values.ndim == 2 and values.shape[1] == 1))
        check(fits, rule, dtype=str(values.dtype), shape=values.shape)
        wrong = values[~(np.isfinite(values) & (values >= 0))]
        check(wrong.size == 0, rule, sample_weight=wrong[:3].tolist())


def check_weighable(labels, options: Mapping) -> None:
    """Refuses weights of classes for labels that are shares of several: Keras would weigh all by the largest one's.

    Args:
        labels: as `given` gives them.
        options: with `class_weight`.

    Raises:
        InputError: so it is.
    """
    if options.get("class_weight") is not None and isinstance(labels, np.ndarray) and labels.ndim == 2:
        mixed = labels[labels.max(axis=1) < 1 - _SUM_ERROR]
        rule = "class_weight needs labels of one class each; weigh examples whose labels are shares by sample_weight"
        check(len(mixed) == 0, rule, labels=mixed[:1].tolist())


def _is_weight(value) -> bool:
    return isinstance(value, int | float | np.number) and bool(np.isfinite(value) and value >= 0)


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
