"""Losses that add attraction within a pair to repulsion of all, where NT-Xent couples them in one softmax.

References:
    Yeh et al., Decoupled contrastive learning, arXiv:2110.06848, Section 3.
    Chen et al., Intriguing properties of contrastive losses, arXiv:2011.02803, and the authors' notebook
    `generalized_contrastive_loss.ipynb`, whose terms and constants these are.
"""

import functools
import math
from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from tf_simclr import replicas
from tf_simclr.errors import check
from tf_simclr.losses.similarity import (
    MASKED,
    ContrastiveLoss,
    check_at_least,
    check_scale,
    check_temperature,
    contrastive_logits,
    gather_views,
    normalize,
    own_columns,
    prepare,
)

_PRIORS = ("logsumexp", "normal", "uniform")


def _check_sigma(sigma: float | None) -> None:
    """Raises `InputError` unless sigma is None or above 0."""
    if sigma is not None:
        check(sigma > 0, "sigma must be None or above 0", sigma=sigma)
        check_scale("sigma", sigma)


def dcl(z1, z2, temperature: float = 0.1, *, sigma: float | None = None, hidden_norm: bool = True):
    """The decoupled contrastive loss of each example: NT-Xent without the positive in the denominator.

    A view with the similarity `s` to its positive costs `-w s/τ` and the logarithm of the sum of `exp(t/τ)` over its
    similarities `t` to both views of all other examples, so that there must be some.  The weight `w` is 1 (DCL), or
    with `sigma` (DCLW) `2 - exp(s/σ)` over the mean of `exp(s/σ)` of all examples: poorly matched pairs count for
    more.  No gradient flows through it, as it is a weight.

    Args:
        z1: projections of the first views, `(n, d)`.
        z2: projections of the second views, `(n, d)`, in the same order.
        temperature: above 0.
        sigma: above 0, the paper has 0.5; None: all pairs count the same.
        hidden_norm: whether projections are divided by their length.

    Returns:
        `(n,)`: the sum of both directions.

    Raises:
        InputError: the temperature or sigma is not above 0.

    Example:
        >>> import numpy as np
        >>> z = np.eye(4, dtype="float32")
        >>> dcl(z, z, temperature=0.5).numpy().round(4)
        array([-0.4165, -0.4165, -0.4165, -0.4165], dtype=float32)
    """
    _check_sigma(sigma)
    # NT-Xent is log(exp(s) + sum of the others) - s.  Here s leaves the sum: the better a pair is matched, the smaller
    # NT-Xent's gradient becomes with small batches (its "negative-positive coupling"), and this one's does not.
    ab, aa, ba, bb, targets = contrastive_logits(z1, z2, temperature, hidden_norm=hidden_norm)
    # (n, N), 1 where the columns are the row's own example: in `ab` that column holds the positive.
    own = own_columns(targets, ops.transpose(ab))
    positive = ops.sum(ab * own, axis=1)  # as in the other direction
    # `positive` holds s / τ; the weight is of s itself.
    weight = 1 if sigma is None else mises_fisher_weights(positive * temperature, sigma)
    # Across views the positive is masked, as it leaves the denominator; within a view the diagonal is already.
    repulsion = (
        ops.logsumexp(ops.concatenate([across - MASKED * own, within], axis=1), axis=1)
        for across, within in ((ab, aa), (ba, bb))
    )
    return sum(repulsion) - 2 * weight * positive


def mises_fisher_weights(similarity, sigma: float):
    """`2 - exp(s/σ) / mean(exp(s/σ))` of each pair, `(n,)`; the mean is over all replicas (DCL, Section 3)."""
    # In logarithms: exp(s / σ) alone would overflow float32 for σ below 0.0113.
    # s in [-1, 1] where projections have length 1, (n,) → (N,) over all replicas.
    scaled = ops.stop_gradient(similarity) / sigma
    every = replicas.gather(scaled)
    log_mean = ops.logsumexp(every) - ops.log(ops.cast(ops.shape(every)[0], every.dtype))
    return 2 - ops.exp(scaled - log_mean)


def _check_generalized(temperature: float, weight: float, prior: str) -> None:
    """Raises `InputError` unless the options of `generalized_contrastive` can be used."""
    check_temperature(temperature)
    check_at_least("weight", weight, least=0)
    check(prior in _PRIORS, f"prior must be one of {', '.join(_PRIORS)}", prior=prior)


def generalized_contrastive(
    z1,
    z2,
    temperature: float = 1.0,
    *,
    weight: float = 1.0,
    prior: str = "logsumexp",
    hidden_norm: bool = True,
    seed: int | None = None,
    step=0,
):
    """Alignment of both views plus `weight` times the distance of all projections from a prior distribution.

    Alignment is half the mean square of `z1 - z2`.  The distance is, for the prior `logsumexp`, the mean over views
    of the logarithm of the sum of `exp(z·z'/τ)` over all views `z'`, itself included, divided by `d` ("decoupled
    NT-Xent"); otherwise the sliced Wasserstein distance from as many points drawn from `normal` or `uniform`, along
    random orthogonal directions; with `hidden_norm` these points are on the sphere, too, which makes of `normal` the
    uniform hypersphere, and without it `uniform` is the hypercube from -1 to 1.

    Args:
        z1: projections of the first views, `(n, d)`.
        z2: projections of the second views, `(n, d)`, in the same order.
        temperature: above 0; for `logsumexp` only.
        weight: the paper's λ, at least 0; it does what the temperature does in NT-Xent.
        prior: `logsumexp`, `normal` or `uniform`.
        hidden_norm: whether projections are divided by their length.
        seed: of the points and directions: an integer and the step draw the same ones in each call, None goes on in
            Keras' own stream.  With None each replica draws its own, and JAX refuses: both need an integer to be like
            one replica.
        step: an integer or a scalar tensor, folded into the seed: another step, other points and directions.  A
            distance from points that never change would pull projections to these points, not to their distribution.

    Returns:
        `(n,)`: the sum of both directions, twice the mean of the authors' code.  A Wasserstein distance belongs to
        the whole batch: each example has it.

    Raises:
        InputError: the temperature is not above 0, the weight below 0, or the prior not known.

    Example:
        >>> import numpy as np
        >>> z = np.eye(4, dtype="float32")
        >>> generalized_contrastive(z, z).numpy().round(4)
        array([2.101, 2.101, 2.101, 2.101], dtype=float32)
    """
    _check_generalized(temperature, weight, prior)
    z1, z2 = prepare(z1, z2, hidden_norm=hidden_norm)
    # The paper's first term: how far both views of an example lie apart, (n,).
    alignment = ops.mean(ops.square(z1 - z2), axis=1)
    # All views of all replicas, first ones before second ones, (2N, d).
    every = ops.concatenate(gather_views(z1, z2)[:2])
    if prior == "logsumexp":
        return alignment + weight * sum(_density(z, every, temperature) for z in (z1, z2))
    # With a seed each replica draws the same points and directions, and `every` is the same: so is the distance.
    points, directions = draw(every, prior, hidden_norm=hidden_norm, seed=seed, step=step)
    return alignment + weight * 2 * sliced_wasserstein(every, points, directions)


def _density(z, every, temperature: float):
    """Logarithm of the sum over all views of `exp(z·z'/τ)`, divided by their width, `(n,)`."""
    # (n, d) · (d, 2N) → (n, 2N) → (n,)
    return ops.logsumexp(ops.matmul(z, ops.transpose(every)) / temperature, axis=1) - math.log(every.shape[1])


class AtStep(keras.random.SeedGenerator):
    """A seed and a step as a source of random numbers that has no state: the same draw whenever both are the same.

    Args:
        seed: an integer.
        step: an integer or a scalar tensor.
    """

    def __init__(self, seed: int, step):
        self.seed, self.step = seed, step  # and no variable, which Keras' class keeps

    def next(self, ordered=True):
        """The two numbers that Keras' random functions start from, `(2,)`."""
        # Keras keeps a seed in the type in which its backend counts; a negative seed wraps round as C's unsigned does.
        dtype = "uint32" if keras.backend.backend() == "jax" else "int32"
        seed = np.array(self.seed & 0xFFFFFFFF, "uint32").astype(dtype)
        return ops.stack([ops.convert_to_tensor(seed, dtype), ops.cast(self.step, dtype)])


def draw(every, prior: str, *, hidden_norm: bool, seed: int | None, step=0):
    """As many points of the prior as there are views, `(2N, d)`, and orthogonal directions, `(d, d)`."""
    of_points = of_directions = None
    if seed is not None:  # with the same one the first points would be the directions
        of_points, of_directions = AtStep(seed, step), AtStep(seed + 1, step)
    # A normal draw put on the sphere is uniform there; a uniform one lies in the cube from -1 to 1.
    sample = keras.random.normal if prior == "normal" else functools.partial(keras.random.uniform, minval=-1.0)
    points = sample(ops.shape(every), dtype=every.dtype, seed=of_points)
    width = every.shape[1]
    # Q of the QR decomposition of a normal matrix: d orthogonal directions, none of them preferred.
    directions, _ = ops.qr(keras.random.normal((width, width), dtype=every.dtype, seed=of_directions))
    return normalize(points) if hidden_norm else points, directions


def sliced_wasserstein(states, points, directions):
    """Mean squared difference of the sorted projections on each direction, a scalar.

    Example:
        >>> import numpy as np
        >>> states, points = np.array([[0.0], [4.0]]), np.array([[3.0], [2.0]])
        >>> float(sliced_wasserstein(states, points, np.eye(1)))
        2.5
    """
    # In one dimension the optimal transport of equally many points is sorting; every column is a direction of its own.
    # (2N, d) · (d, d) → (2N, d), each column sorted by itself.
    projected, expected = (ops.sort(ops.matmul(z, directions), axis=0) for z in (states, points))
    return ops.mean(ops.square(projected - expected))


@keras.saving.register_keras_serializable("tf_simclr")
class DCL(ContrastiveLoss):
    """`dcl` as a Keras loss; with `sigma` DCLW.

    Raises:
        InputError: the temperature or sigma is not above 0.
    """

    def __init__(self, temperature: float = 0.1, *, sigma: float | None = None, hidden_norm: bool = True, **kwargs):
        check_temperature(temperature)
        _check_sigma(sigma)
        options = {"temperature": temperature, "sigma": sigma, "hidden_norm": hidden_norm}
        super().__init__(dcl, options, **kwargs)


@keras.saving.register_keras_serializable("tf_simclr")
class GeneralizedContrastive(ContrastiveLoss):
    """`generalized_contrastive` as a Keras loss; `SimCLR` draws from the prior anew in each step (`at`).

    Raises:
        InputError: the temperature is not above 0, the weight below 0, or the prior not known.
    """

    def __init__(
        self,
        temperature: float = 1.0,
        *,
        weight: float = 1.0,
        prior: str = "logsumexp",
        hidden_norm: bool = True,
        seed: int | None = None,
        **kwargs,
    ):
        _check_generalized(temperature, weight, prior)
        options = {"temperature": temperature, "weight": weight, "prior": prior}
        options |= {"hidden_norm": hidden_norm, "seed": seed}
        super().__init__(generalized_contrastive, options, **kwargs)

    def at(self, step) -> Callable:
        """The loss of a step: another step, another draw from the prior, if that is one that is drawn from."""
        if self.options["prior"] == "logsumexp" or self.options["seed"] is None:
            return self
        # A fresh loss, not this one changed: the compiled step holds the tensor of the step only within its own graph.
        loss = type(self)(**self.get_config())
        loss.options["step"] = step
        return loss
