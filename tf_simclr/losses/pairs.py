"""Losses whose terms look at one positive and one negative at a time.

Positives of a view are the other view of its example; its negatives are the other views of all other examples ("the
negatives from one augmentation view", SimCLR, Appendix B.10).  Terms of negatives are averaged: the papers leave open
how they are weighed, and so a loss does not change its scale with the batch.

References:
    Chen et al., SimCLR, arXiv:2002.05709, Table 2, Section 5.1 and Appendix B.10.
    Schroff et al., FaceNet, arXiv:1503.03832, Section 3.2: semi-hard negatives.
    Hadsell et al., Dimensionality reduction by learning an invariant mapping, CVPR 2006.
"""

import keras
from keras import ops

from tf_simclr.losses.similarity import (
    MASKED,
    ContrastiveLoss,
    check_at_least,
    check_scale,
    check_temperature,
    contrastive_logits,
    gather_views,
    own_columns,
    prepare,
)


def nt_logistic(z1, z2, temperature: float = 0.1, *, semi_hard: bool = False, hidden_norm: bool = True):
    """The normalised temperature-scaled logistic loss of each example (SimCLR, Table 2).

    A view `u` with the positive `p` and the negatives `q` costs `-log σ(u·p/τ)` and the mean of `-log σ(-u·q/τ)`.

    Args:
        z1: projections of the first views, `(n, d)`.
        z2: projections of the second views, `(n, d)`, in the same order.
        temperature: above 0; the paper tried 0.1, 0.2, 0.5 and 1.
        semi_hard: of the negatives less similar than the positive only the most similar one counts, instead of the
            mean of all; none of them, where there is none.
        hidden_norm: whether projections are divided by their length.

    Returns:
        `(n,)`: the sum of both directions.

    Raises:
        InputError: the temperature is not above 0.

    Example:
        >>> import numpy as np
        >>> z = np.eye(4, dtype="float32")
        >>> nt_logistic(z, z, temperature=0.5).numpy().round(4)
        array([1.6402, 1.6402, 1.6402, 1.6402], dtype=float32)
    """
    ab, _, ba, _, targets = contrastive_logits(z1, z2, temperature, hidden_norm=hidden_norm)
    # 1 in the column of the row's own example, (n, N): the positive is picked by a product and a sum, without a gather.
    own = own_columns(targets, ops.transpose(ab))
    return sum(_logistic_terms(logits, own, semi_hard=semi_hard) for logits in (ab, ba))


def _logistic_terms(logits, own, *, semi_hard: bool):
    """One direction of `nt_logistic`, `(n,)`."""
    # (n, N) · (n, N) → (n,): the one logit that `own` keeps.
    positive = ops.sum(logits * own, axis=1)
    if semi_hard:
        negative = ops.softplus(_semi_hard_negative(logits, positive))
    else:
        negative = _mean_over_negatives(ops.softplus(logits), own)
    # -log σ(s) = softplus(-s), which neither overflows nor rounds to 0: for the positive, and with -s for negatives.
    return ops.softplus(-positive) + negative


def margin_triplet(z1, z2, margin: float = 0.4, *, semi_hard: bool = False, hidden_norm: bool = True):
    """The margin triplet loss of each example (SimCLR, Table 2).

    A view `u` with the positive `p` and the negatives `q` costs the mean of `max(u·q - u·p + m, 0)`.

    Args:
        z1: projections of the first views, `(n, d)`.
        z2: projections of the second views, `(n, d)`, in the same order.
        margin: by how much the positive has to be more similar, at least 0; the paper tried 0, 0.4, 0.8 and 1.6.
        semi_hard: of the negatives less similar than the positive only the most similar one counts, if it is within
            the margin, instead of the mean of all; an example without one costs nothing.
        hidden_norm: whether projections are divided by their length.

    Returns:
        `(n,)`: the sum of both directions.

    Raises:
        InputError: the margin is below 0.

    Example:
        >>> import numpy as np
        >>> z = np.eye(4, dtype="float32")
        >>> margin_triplet(z, z, margin=1.5).numpy()
        array([1., 1., 1., 1.], dtype=float32)
    """
    check_at_least("margin", margin, least=0)
    # Similarities (n, n · replicas) of each view with all of the other view.
    ab, _, ba, _, targets = contrastive_logits(z1, z2, 1.0, hidden_norm=hidden_norm)
    own = own_columns(targets, ops.transpose(ab))
    return sum(_triplet_terms(similarity, own, margin=margin, semi_hard=semi_hard) for similarity in (ab, ba))


def _triplet_terms(similarity, own, *, margin: float, semi_hard: bool):
    """One direction of `margin_triplet`, `(n,)`."""
    # As above: (n,), the similarity of each view with its other view.
    positive = ops.sum(similarity * own, axis=1)
    if semi_hard:
        return ops.relu(_semi_hard_negative(similarity, positive) - positive + margin)
    return _mean_over_negatives(ops.relu(similarity - ops.expand_dims(positive, 1) + margin), own)


def _semi_hard_negative(similarity, positive):
    """The largest similarity below the positive's, `(n,)`; where there is none, one so small that it costs nothing."""
    # A comparison has no gradient, the maximum has: it flows to the one negative that was chosen.
    return ops.max(ops.where(similarity < ops.expand_dims(positive, 1), similarity, -MASKED), axis=1)


def _mean_over_negatives(terms, own):
    """Mean over the columns of the other examples, `(n,)`; 0 without any."""
    others = 1 - own
    # The division by at least 1: with one example on one replica there is no negative, and 0 / 0 would spread.
    return ops.sum(terms * others, axis=1) / ops.maximum(ops.sum(others, axis=1), 1)


def hadsell(z1, z2, margin: float = 1.0, *, hidden_norm: bool = True):
    """The margin loss on distances of each example (Hadsell et al., their loss function).

    Two views of one example at the distance `D` cost `D²/2`, views of two examples `max(m - D, 0)²/2`; the latter
    is averaged over all other examples.

    Args:
        z1: projections of the first views, `(n, d)`.
        z2: projections of the second views, `(n, d)`, in the same order.
        margin: the distance from which on examples do not repel each other, above 0.
        hidden_norm: whether projections are divided by their length (distances are then at most 2, orthogonal
            ones √2); the paper does not.

    Returns:
        `(n,)`: the sum of both directions.

    Raises:
        InputError: the margin is not above 0.

    Example:
        >>> import numpy as np
        >>> z = np.array([[0.0, 0.0], [3.0, 4.0]])
        >>> hadsell(z, z + [[0.0, 2.0]], margin=6.0, hidden_norm=False).numpy().round(4)
        array([6.8667, 6.8667])
    """
    check_scale("margin", margin)
    z1, z2 = prepare(z1, z2, hidden_norm=hidden_norm)
    every1, every2, targets = gather_views(z1, z2)
    own = own_columns(targets, every1)
    attraction = 0.5 * ops.sum(ops.square(z1 - z2), axis=1)
    repulsion = (0.5 * ops.square(ops.relu(margin - _distances(a, b))) for a, b in ((z1, every2), (z2, every1)))
    # Each direction has the attraction, D² / 2 both times, and the repulsion of its own negatives.
    return 2 * attraction + sum(_mean_over_negatives(terms, own) for terms in repulsion)


def _distances(a, b):
    """Euclidean distances of all rows of `a` from all of `b`, `(n, N)`; the gradient of a distance of 0 is 0."""
    squares = [ops.sum(ops.square(z), axis=1) for z in (a, b)]
    # |a - b|² = |a|² + |b|² - 2 a·b: (n, 1) + (N,) - (n, N), without the (n, N, d) of all differences.
    squared = ops.expand_dims(squares[0], 1) + squares[1] - 2 * ops.matmul(a, ops.transpose(b))
    return ops.sqrt(ops.maximum(squared, 1e-12))  # the root of 0 has no gradient, and rounding may fall below it


@keras.saving.register_keras_serializable("tf_simclr")
class NTLogistic(ContrastiveLoss):
    """`nt_logistic` as a Keras loss.

    Raises:
        InputError: the temperature is not above 0.
    """

    def __init__(self, temperature: float = 0.1, *, semi_hard: bool = False, hidden_norm: bool = True, **kwargs):
        check_temperature(temperature)
        options = {"temperature": temperature, "semi_hard": semi_hard, "hidden_norm": hidden_norm}
        super().__init__(nt_logistic, options, **kwargs)


@keras.saving.register_keras_serializable("tf_simclr")
class MarginTriplet(ContrastiveLoss):
    """`margin_triplet` as a Keras loss.

    Raises:
        InputError: the margin is below 0.
    """

    def __init__(self, margin: float = 0.4, *, semi_hard: bool = False, hidden_norm: bool = True, **kwargs):
        check_at_least("margin", margin, least=0)
        options = {"margin": margin, "semi_hard": semi_hard, "hidden_norm": hidden_norm}
        super().__init__(margin_triplet, options, **kwargs)


@keras.saving.register_keras_serializable("tf_simclr")
class Hadsell(ContrastiveLoss):
    """`hadsell` as a Keras loss.

    Raises:
        InputError: the margin is not above 0.
    """

    def __init__(self, margin: float = 1.0, *, hidden_norm: bool = True, **kwargs):
        check_scale("margin", margin)
        super().__init__(hadsell, {"margin": margin, "hidden_norm": hidden_norm}, **kwargs)
