"""Metrics and classifiers once more, as loops over plain Python numbers."""

import math


def accuracy(predictions, labels):
    return sum(int(p) == int(label) for p, label in zip(predictions, labels, strict=True)) / len(labels)


def top_k_accuracy(scores, labels, k):
    hits = 0
    for row, label in zip(scores, labels, strict=True):
        ranked = sorted(range(len(row)), key=lambda c: (-row[c], c))
        hits += int(label) in ranked[:k]
    return hits / len(labels)


def mean_per_class_accuracy(predictions, labels):
    shares = []
    for c in sorted(set(map(int, labels))):
        own = [int(p) for p, label in zip(predictions, labels, strict=True) if int(label) == c]
        shares.append(own.count(c) / len(own))
    return sum(shares) / len(shares)


def cosine(a, b):
    dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(float(x) ** 2 for x in a) * sum(float(y) ** 2 for y in b))


def knn_votes(query, features, labels, k, temperature):
    """Shares of the classes' votes for one query: Wu et al., arXiv:1805.01978, Section 3.4."""
    nearest = sorted(((cosine(query, f), int(label)) for f, label in zip(features, labels, strict=True)), reverse=True)
    votes = [0.0] * (max(map(int, labels)) + 1)
    for similarity, label in nearest[:k]:
        votes[label] += math.exp(similarity / temperature)
    return [vote / sum(votes) for vote in votes]


def penalised_loss(weights, bias, features, labels, l2):
    """Sum of softmax cross entropies plus l2 / 2 times the squared weights (d, classes)."""
    loss = l2 / 2 * sum(float(w) ** 2 for row in weights for w in row)
    for x, label in zip(features, labels, strict=True):
        logits = [sum(x[i] * weights[i][c] for i in range(len(x))) + bias[c] for c in range(len(bias))]
        top = max(logits)
        loss += top + math.log(sum(math.exp(v - top) for v in logits)) - logits[int(label)]
    return loss


def eleven_point_average_precision(scores, labels):
    """PASCAL VOC 2007's development kit, for one class: labels 1, 0 and -1 (left out)."""
    ranked = [label for _, label in sorted(zip(-scores, labels, strict=True), key=lambda pair: pair[0])]
    hits = misses = 0
    points = []
    for label in ranked:
        hits, misses = hits + (label == 1), misses + (label == 0)
        if hits + misses:
            points.append((hits, hits / (hits + misses)))
    total = ranked.count(1)
    return sum(max(p for h, p in points if 10 * h >= t * total) for t in range(11)) / 11
