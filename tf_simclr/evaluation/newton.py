"""Newton's method for the regressions of `logistic`: what L-BFGS leaves unfinished, and how far from a minimum it is.

Half of what a Newton step promises – the gradient times the step – is by how much the minimum lies below, once the
objective is nearly a parabola.

References:
    Boyd and Vandenberghe, Convex Optimization (2004), Section 9.5 (damped Newton, the decrement)
"""

from typing import Any

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.sparse.linalg import LinearOperator, cg

PARAMETERS, _WORK = 1500, 4e9
"""Largest number of unknowns, and of multiplications, for which second derivatives are written out."""
_CG_STEPS = 60
"""Of conjugate gradients to one of Newton's, where they are not."""


def fits(problem: Any) -> bool:
    """Whether the second derivatives are few enough to be written out."""
    n, unknowns = len(problem.coordinates.features), problem.position.size
    return problem.small and unknowns <= PARAMETERS and n * unknowns**2 <= _WORK


def finish(problem: Any, l2: float, *, scale: np.ndarray, gap: float, steps: int) -> float:
    """Takes damped Newton steps from the problem's position until no minimum can lie below by more than a share.

    Args:
        problem: a `logistic.Solver`, whose `position`, `(1 + r, k)` with the bias first, is moved.
        l2: strength of the penalty.
        scale: `(1 + r, k)`, along which the curvature is about 1.
        gap: share of the objective.
        steps: at most.

    Returns:
        The share of the objective by which a minimum lies below, as the last step promised.
    """
    # At most `steps` times: 1. how much a quadratic could still fall; 2. enough? 3. a step, halved until it falls.
    position = problem.position
    value, gradient = problem.objective_at(position, l2)
    dense = fits(problem)
    target = gap / 1000 if dense else gap  # one more step costs nothing, and squares what is missing
    missed = np.inf
    if not dense:
        # Without a matrix: the gradient over the curvature guessed by `scale`.
        missed = float(np.vdot(gradient * scale, gradient * scale)) / 2 / value
    for _ in range(steps):
        if missed <= target:
            break
        step = _dense_step(problem, gradient, l2=l2) if dense else _iterated_step(problem, gradient, l2=l2, scale=scale)
        # Newton's decrement: twice what the quadratic model falls by.
        decrement = -float(np.vdot(gradient, step))
        missed = decrement / 2 / value
        if not decrement > 0 or missed <= target / 1000:
            break
        length, before = 1.0, value
        while length > 1e-10:
            value, following = problem.objective_at(position + length * step, l2)
            # Armijo's rule: at least a ten-thousandth of what the slope promises.
            if value <= before - 1e-4 * length * decrement:
                break
            length /= 2
        else:
            value = before  # rounding hides what is left
            break
        position, gradient = problem.loss.free(position + length * step), following
        problem.position = position
    return max(missed, 0.0)


def _shares_at(problem: Any) -> np.ndarray:
    """What the loss's curvature is made of, `(n, k)`."""
    position = problem.position
    return np.asarray(problem.loss.curvature(problem.coordinates.scores(position[1:], position[0])))


def _dense_step(problem: Any, gradient: np.ndarray, *, l2: float) -> np.ndarray:
    """The step `(1 + r, k)` by the matrix of all second derivatives."""
    shares, (rows, k) = _shares_at(problem).astype(np.float64), gradient.shape
    own = problem.coordinates
    # (n, 1 + r): a column of ones for the bias, and the features in their coordinates.
    inputs = np.hstack([np.ones((len(own.features), 1)), ((own.features - own.centre) @ own.axes).astype(np.float64)])
    blocks = np.zeros((k, rows, k, rows))
    # Block (i, j): Xᵀ diag(w_ij) X, the second derivatives of weights of class i by those of class j.
    for i in range(k):
        for j in range(i + 1):
            weights = problem.loss.blocks(shares, i=i, j=j)
            if np.any(weights):
                blocks[i, :, j, :] = inputs.T @ (inputs * weights[:, None])
                blocks[j, :, i, :] = blocks[i, :, j, :]  # each block is symmetric
    # (k, rows, k, rows) → (k · rows, k · rows): the weights of one class after those of another.
    matrix = blocks.reshape(k * rows, k * rows)
    # The bias is not penalised.
    penalty = np.tile(np.r_[0.0, np.full(rows - 1, l2)], k)
    matrix[np.diag_indices_from(matrix)] += penalty
    if problem.loss.invariant:  # biases that all grow alike change nothing: a curvature there, too
        biases = np.ix_(np.arange(k) * rows, np.arange(k) * rows)
        matrix[biases] += np.trace(matrix[biases]) / k**2
    root = np.sqrt(np.maximum(np.diag(matrix), 1e-300))  # of one size, whatever the features are
    matrix /= root[:, None] * root
    wanted = gradient.T.ravel() / root  # (rows, k) in the matrix's order, class by class
    # As little damping as Cholesky's factorisation asks for, as rounding may leave a matrix not quite positive.
    for damping in (0.0, 1e-14, 1e-12, 1e-10, 1e-8, 1e-6):
        try:
            factor = cho_factor(matrix + damping * np.eye(len(matrix)), check_finite=False)
        except LinAlgError:
            continue
        return -(cho_solve(factor, wanted) / root).reshape(k, rows).T
    return -gradient


def _iterated_step(problem: Any, gradient: np.ndarray, *, l2: float, scale: np.ndarray) -> np.ndarray:
    """The step `(1 + r, k)` by conjugate gradients, in coordinates of about equal curvature."""
    shares = _shares_at(problem)

    # The product of the second derivatives with a direction, without the matrix: two passes over the features.
    def product(flat: np.ndarray) -> np.ndarray:
        # (rows · k,) → (1 + r, k), the bias first.
        direction = problem.loss.free(flat.reshape(scale.shape) * scale)
        own = problem.coordinates.scores(direction[1:], direction[0])
        weights, bias = problem.coordinates.gradient(problem.loss.change(shares, own))
        penalty = np.vstack([np.zeros_like(direction[:1]), l2 * direction[1:]])
        return np.asarray((problem.loss.free(np.vstack([bias, weights]) + penalty) * scale).ravel())

    size = gradient.size
    operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
    # A tenth is near enough: the next of Newton's steps corrects it.
    flat, _ = cg(operator, -(gradient * scale).ravel(), rtol=0.1, maxiter=_CG_STEPS)
    return np.asarray(problem.loss.free(flat.reshape(scale.shape) * scale))
