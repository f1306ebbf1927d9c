"""Whether representations collapse: arrays in, numbers out.

References:
    Chen and He, SimSiam, arXiv:2011.10566, Section 4.1: standard deviation of normalised outputs.
    Roy and Vetterli, The effective rank, EUSIPCO 2007; Garrido et al., RankMe, arXiv:2210.02885, Section 3.
    Wang and Isola, Alignment and uniformity on the hypersphere, arXiv:2005.10242, Section 4.
"""

import numpy as np

from tf_simclr.evaluation.probes import unit


def spread(rows: np.ndarray) -> float:
    """Standard deviation of the normalised rows `(n, d)`, mean over dimensions, times √d.

    0: all point the same way; 1: they point everywhere alike.

    Example:
        >>> spread(np.ones((4, 2))), round(spread(np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])), 6)
        (0.0, 1.0)
    """
    return float(np.sqrt(rows.shape[1]) * unit(rows).std(axis=0).mean())


def _effective_rank(rows: np.ndarray) -> float:
    """The exponential of the entropy of the normalised rows' singular values, in 1..min(n, d).

    Example:
        >>> round(_effective_rank(np.eye(3)), 6), round(_effective_rank(np.ones((3, 3))), 6)
        (3.0, 1.0)
    """
    # Measured on rows of length 1: a row's length is not what collapses.
    values = np.linalg.svd(unit(rows), compute_uv=False)
    # Singular values as shares of their sum; those of rounding are none.
    shares = values[values > 1e-9 * values.sum()] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def alignment(first: np.ndarray, second: np.ndarray) -> float:
    """Mean squared distance of an example's two normalised views, `(n, d)` each: 0 (equal) to 4 (opposite).

    Example:
        >>> alignment(np.eye(2), np.eye(2)), alignment(np.eye(2), -np.eye(2))
        (0.0, 4.0)
    """
    return float(np.square(unit(first) - unit(second)).sum(axis=1).mean())


def uniformity(rows: np.ndarray) -> float:
    """Logarithm of the mean of `exp(-2 D²)` over all pairs of normalised rows `(n, d)`, n > 1: 0 where all are equal.

    Example:
        >>> uniformity(np.ones((3, 1))), round(uniformity(np.array([[1.0, 0], [-1, 0]])), 6)
        (0.0, -8.0)
    """
    units = unit(rows)
    # |a - b|² = 2 - 2 a·b for rows of length 1; each pair once.
    squares = np.maximum(2 - 2 * units @ units.T, 0)[np.triu_indices(len(units), k=1)]
    return float(np.log(np.exp(-2 * squares).mean()) + 0)


def indicators(features: np.ndarray, projections: np.ndarray) -> dict[str, float]:
    """Every number here of two views of n examples.

    Args:
        features: of the encoder, `(n, 2, d)`.
        projections: `(n, 2, k)`.
    """
    # In float64: of rows that are nearly alike, float32 shows its own rounding.
    pairs = {"feature": features.astype(np.float64), "projection": projections.astype(np.float64)}
    # (n, 2, d) → (2n, d): views of an example are rows of their own.
    flat = {name: views.reshape(-1, views.shape[2]) for name, views in pairs.items()}
    numbers = {f"{name}_std": spread(rows) for name, rows in flat.items()}
    numbers |= {f"{name}_rank": _effective_rank(rows) for name, rows in flat.items()}
    first, second = pairs["projection"].swapaxes(0, 1)
    return numbers | {"alignment": alignment(first, second), "uniformity": uniformity(first)}
