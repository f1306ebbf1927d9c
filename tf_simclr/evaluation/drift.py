"""How far one set of images is from another: grey levels and features, with the chance that it is nothing.

Chances are those of permutations: how often two sets drawn from all of the values together are as far apart.  That
needs values that could be exchanged, so callers give one a patient.

References:
    Gretton et al., A Kernel Two-Sample Test, JMLR 13 (2012), Section 2.2 (MMD) and 3 (the unbiased estimate)
    Heusel et al., arXiv:1706.08500, Section 2 (the Fréchet distance of features)
"""

import numpy as np
from scipy.spatial.distance import cdist
from scipy.stats import wasserstein_distance

from tf_simclr.errors import check

_MOST = 500
"""Values of each set that a kernel is computed for; of more, so many are drawn."""


def mean_discrepancy(
    ours: np.ndarray, theirs: np.ndarray, *, permutations: int = 500, seed: int = 0
) -> tuple[float, float]:
    """The squared maximum mean discrepancy of two sets of vectors, and its p-value.

    A Gaussian kernel of the median distance; 0 on average where both are of one distribution.

    Args:
        ours: `(n, d)`, at least two.
        theirs: `(m, d)`, at least two.
        permutations: draws for the p-value.
        seed: of the draws.
    """
    check(len(ours) >= 2 and len(theirs) >= 2, "sets must have two values at least", ours=len(ours), theirs=len(theirs))
    rng = np.random.default_rng(seed)
    # At most _MOST of each: the kernel has as many squared numbers.
    parts = [rows[rng.permutation(len(rows))[:_MOST]] for rows in (ours, theirs)]
    together = np.concatenate(parts).astype(float)
    count, first = len(together), len(parts[0])
    # (n, n), all pairs of both sets together.
    squares = cdist(together, together, "sqeuclidean")
    # The median heuristic: the kernel's width from the distances that there are.
    middle = float(np.median(squares[~np.eye(count, dtype=bool)]))
    kernel = np.exp(-squares / (middle if middle > 0 else 1.0))
    np.fill_diagonal(kernel, 0)  # the unbiased estimate leaves out each value with itself
    # Row 0 is the true division into ours and theirs, the others are random ones: (permutations + 1, n).
    chosen = np.zeros((permutations + 1, count))
    chosen[0, :first] = 1
    for row in chosen[1:]:
        row[rng.permutation(count)[:first]] = 1
    # Σ of the kernel within ours, (p, n) · (n, n) → (p, n), with itself row by row → (p,); likewise theirs, and across.
    within = np.einsum("pi,pi->p", chosen @ kernel, chosen)
    rest = np.einsum("pi,pi->p", (1 - chosen) @ kernel, 1 - chosen)
    across = np.einsum("pi,pi->p", chosen @ kernel, 1 - chosen)
    last = count - first
    # MMD² of each division, unbiased: pairs without an example's pair with itself.
    found = within / (first * (first - 1)) + rest / (last * (last - 1)) - 2 * across / (first * last)
    return float(found[0]), chance(found)


def distance(ours: np.ndarray, theirs: np.ndarray, *, permutations: int = 500, seed: int = 0) -> tuple[float, float]:
    """How far values `(n,)` have to be moved to become others `(m,)` (Wasserstein), in their unit, and its p-value."""
    check(len(ours) >= 2 and len(theirs) >= 2, "sets must have two values at least", ours=len(ours), theirs=len(theirs))
    rng, together = np.random.default_rng(seed), np.concatenate([ours, theirs])
    # The same values in another order, cut at the same place: a random division.
    orders = [np.arange(len(together)), *(rng.permutation(len(together)) for _ in range(permutations))]
    found = [wasserstein_distance(together[order[: len(ours)]], together[order[len(ours) :]]) for order in orders]
    return float(found[0]), chance(np.array(found))


def chance(found: np.ndarray) -> float:
    """P-value of the first of these numbers among all of them, itself included, so that it is never 0.

    Example:
        >>> chance(np.array([5.0, 1.0, 2.0, 6.0]))
        0.5
    """
    # As large as what was found, or larger; 1e-12 for what rounding makes unlike.
    return float(np.mean(found >= found[0] - 1e-12))


def frechet(ours: np.ndarray, theirs: np.ndarray, *, most: int = 32) -> float:
    """The Fréchet distance of two sets of vectors, as of normal distributions, along the first principal axes of both.

    Args:
        ours: `(n, d)`.
        theirs: `(m, d)`.
        most: axes; fewer where there are fewer vectors, of which a covariance could not be told.
    """
    together = np.concatenate([ours, theirs]).astype(float)
    # A third of the smaller set: a covariance of more axes than that is mostly noise.
    count = max(1, min(most, min(len(ours), len(theirs)) // 3, together.shape[1]))
    # Principal axes of both sets together, (axes, d).
    axes = np.linalg.svd(together - together.mean(axis=0), full_matrices=False)[2][:count]
    a, b = ours @ axes.T, theirs @ axes.T
    first, second = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    values, vectors = np.linalg.eigh(first)
    # The root of a covariance by its eigenvalues; tr (A^½ B A^½)^½ is the Fréchet distance's third term.
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    crossed = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ second @ root), 0)).sum()
    apart = np.square(a.mean(axis=0) - b.mean(axis=0)).sum()
    return float(max(apart + np.trace(first) + np.trace(second) - 2 * crossed, 0.0))
