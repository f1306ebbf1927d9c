"""The losses beside NT-Xent, once more and slowly: NumPy loops in float64 over one view at a time."""

import math

import numpy as np


def views(z1, z2, hidden_norm=True):
    z = np.stack([np.asarray(z1, np.float64), np.asarray(z2, np.float64)])
    return z / np.linalg.norm(z, axis=-1, keepdims=True) if hidden_norm else z


def anchors(n):
    """Example, its view that is compared, and its other view."""
    return [(k, view, 1 - view) for k in range(n) for view in (0, 1)]


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def mean(values):
    return sum(values) / len(values) if values else 0.0


def semi_hard_of(negatives, positive):
    below = [s for s in negatives if s < positive]
    return [max(below)] if below else []


def nt_logistic(z1, z2, temperature, semi_hard=False, hidden_norm=True):
    z, losses = views(z1, z2, hidden_norm), np.zeros(len(z1))
    for k, own, other in anchors(len(z1)):
        s = [z[own, k] @ z[other, j] / temperature for j in range(len(z1))]
        positive = s.pop(k)
        chosen = semi_hard_of(s, positive) if semi_hard else s
        losses[k] -= math.log(sigmoid(positive)) + mean([math.log(sigmoid(-t)) for t in chosen])
    return losses


def margin_triplet(z1, z2, margin, semi_hard=False, hidden_norm=True):
    z, losses = views(z1, z2, hidden_norm), np.zeros(len(z1))
    for k, own, other in anchors(len(z1)):
        s = [z[own, k] @ z[other, j] for j in range(len(z1))]
        positive = s.pop(k)
        chosen = [t for t in semi_hard_of(s, positive) if t > positive - margin] if semi_hard else s
        losses[k] += mean([max(t - positive + margin, 0) for t in chosen])
    return losses


def hadsell(z1, z2, margin, hidden_norm=True):
    z, losses = views(z1, z2, hidden_norm), np.zeros(len(z1))
    for k, own, other in anchors(len(z1)):
        d = [np.linalg.norm(z[own, k] - z[other, j]) for j in range(len(z1))]
        losses[k] += d.pop(k) ** 2 / 2 + mean([max(margin - t, 0) ** 2 / 2 for t in d])
    return losses


def dcl(z1, z2, temperature, sigma=None, hidden_norm=True):
    z, n, losses = views(z1, z2, hidden_norm), len(z1), np.zeros(len(z1))
    matched = [math.exp(z[0, k] @ z[1, k] / sigma) for k in range(n)] if sigma else []
    for k, own, other in anchors(n):
        negatives = [math.exp(z[own, k] @ z[v, j] / temperature) for j in range(n) if j != k for v in (0, 1)]
        weight = 2 - matched[k] / mean(matched) if sigma else 1
        losses[k] += math.log(sum(negatives)) - weight * (z[own, k] @ z[other, k]) / temperature
    return losses


def sup_con(z1, z2, labels, temperature, hidden_norm=True):
    z, n, losses = views(z1, z2, hidden_norm), len(z1), np.zeros(len(z1))
    for k, own, _ in anchors(n):
        others = [(v, j) for v in (0, 1) for j in range(n) if (v, j) != (own, k)]
        s = {o: z[own, k] @ z[o] / temperature for o in others}
        log_sum = math.log(sum(map(math.exp, s.values())))
        positives = [o for o in others if labels[o[1]] == labels[k]]
        losses[k] -= sum(s[o] - log_sum for o in positives) / len(positives)
    return losses


def decoupled_nt_xent(z1, z2, temperature, weight, hidden_norm=True):
    z, (n, d), losses = views(z1, z2, hidden_norm), np.shape(z1), np.zeros(len(z1))
    for k, own, other in anchors(n):
        total = sum(math.exp(z[own, k] @ z[v, j] / temperature) for v in (0, 1) for j in range(n))
        losses[k] += ((z[own, k] - z[other, k]) ** 2).sum() / d / 2 + weight * (math.log(total) - math.log(d))
    return losses


def sliced_wasserstein(states, points, directions):
    squares = []
    for direction in directions.T:
        one, two = (sorted(float(z @ direction) for z in points_) for points_ in (states, points))
        squares += [(a - b) ** 2 for a, b in zip(one, two, strict=True)]
    return mean(squares)
