"""The method's formulas, once more and slowly: NumPy loops that share nothing with the packages."""

import math

import numpy as np


def nt_xent(z1, z2, temperature, hidden_norm=True):
    """SimCLR, Equation 1, for the pairs (2k-1, 2k) and (2k, 2k-1) of each example, summed: `(n,)` in float64."""
    z = [np.asarray(v, np.float64) for v in (z1, z2)]
    if hidden_norm:
        z = [np.array([row / max(math.sqrt(row @ row), 1e-6) for row in view]) for view in z]
    n = len(z[0])
    losses = np.zeros(n)
    for k in range(n):
        for anchor, other in ((0, 1), (1, 0)):
            similarity = {
                (view, i): z[anchor][k] @ z[view][i] / temperature
                for view in (0, 1)
                for i in range(n)
                if (view, i) != (anchor, k)
            }
            top = max(similarity.values())
            log_sum = top + math.log(sum(math.exp(s - top) for s in similarity.values()))
            losses[k] += log_sum - similarity[other, k]
    return losses


def lars_step(w, g, m, *, rate, momentum, decay, eeta, classic, nesterov, decayed, adapted):
    """One step on one variable (arXiv:1708.03888, Algorithm 1): new weights and new momentum, float64."""
    g = g + decay * w if decayed else g

    def trust(direction):
        a, b = np.linalg.norm(w), np.linalg.norm(direction)
        return eeta * a / b if adapted and a > 0 and b > 0 else 1.0

    if classic:
        g = rate * trust(g) * g
        m = momentum * m + g
        return w - (momentum * m + g if nesterov else m), m
    m = momentum * m + g
    step = momentum * m + g if nesterov else m
    return w - rate * trust(step) * step, m


def warm_up_cosine(step, *, peak, total, warmup):
    """SimCLR, Appendix B.6."""
    if step < warmup:
        return peak * step / warmup
    if total <= warmup:
        return 0.0
    return peak * 0.5 * (1 + math.cos(math.pi * min(step - warmup, total - warmup) / (total - warmup)))
