"""Similarities of each view with all others, on all replicas: what every loss is made of."""

from keras import ops

from tf_simclr import replicas
from tf_simclr.errors import check

MASKED = 1e9
"""Taken from a logit that must not count; the reference's number, also its limit in float32."""


def check_temperature(temperature: float) -> None:
    """Raises `InputError` unless the temperature is above 0."""
    check(temperature > 0, "temperature must be above 0", temperature=temperature)


def normalize(z):
    """Divides each row by its length; a row of zeros stays zero (fact 20)."""
    return z * ops.rsqrt(ops.maximum(ops.sum(ops.square(z), axis=1, keepdims=True), 1e-12))


def prepare(z1, z2, *, hidden_norm: bool = True):
    """Both views' projections as tensors, divided by their lengths if `hidden_norm` says so."""
    z1, z2 = (ops.convert_to_tensor(z) for z in (z1, z2))
    return (normalize(z1), normalize(z2)) if hidden_norm else (z1, z2)


def gather_views(z1, z2):
    """First and second views of all replicas, `(N, d)` each, and the rows of this replica's in them, `(n,)`."""
    n = ops.shape(z1)[0]
    every = replicas.gather(ops.stack([z1, z2], axis=1))  # one collective instead of two
    return every[:, 0], every[:, 1], ops.arange(n, dtype="int32") + replicas.index() * n


def contrastive_logits(z1, z2, temperature: float = 0.1, *, hidden_norm: bool = True):
    """Similarities over temperature of each view with all others.

    Returns:
        `ab`, `aa`, `ba`, `bb` of shape `(n, N)` each, and `targets` `(n,)`: row `i` of `ab` compares first view `i`
        with the second views of all `N` examples on all replicas, and its other view is in column `targets[i]`.
        The diagonals of `aa` and `bb`, a view with itself, are masked.
    """
    check_temperature(temperature)
    z1, z2 = prepare(z1, z2, hidden_norm=hidden_norm)
    every1, every2, targets = gather_views(z1, z2)
    self_mask = own_columns(targets, every1) * MASKED
    ab, aa, ba, bb = (
        ops.matmul(a, ops.transpose(b)) / temperature
        for a, b in ((z1, every2), (z1, every1), (z2, every1), (z2, every2))
    )
    return ab, aa - self_mask, ba, bb - self_mask, targets


def own_columns(targets, every):
    """1 where a column of `(n, N)` is the row's own example, 0 elsewhere; `every` has `N` rows, and the dtype."""
    return ops.cast(ops.one_hot(targets, ops.shape(every)[0]), every.dtype)
