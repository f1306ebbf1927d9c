"""Coordinates in which linear models of features are almost round: centred, in the covariance's eigenvectors.

A model's scores are `features @ weights + bias`.  Here its weights are those of the eigenvectors and its bias that of
centred features; `scores` and `gradient` go between both without a copy of the features.
"""

import numpy as np

ROWS = 4096
"""Examples at a time where a temporary array as large as the features would arise."""
SAMPLE = 8
"""Examples a feature that the covariance is taken from; it only steers an optimizer, so it need not be exact."""


class Coordinates:
    """The coordinates that a set of features suggests.

    With fewer examples than features, weights of the smallest norm lie in the examples' span (the representer theorem),
    so that there are only as many coordinates as examples.

    Args:
        features: `(n, d)`, float32 or float64; a memory map will do.
        standardise: lengths of weights are those for features of variance 1.

    Attributes:
        variances: `(r,)`, of the features along the eigenvectors.
    """

    def __init__(self, features: np.ndarray, *, standardise: bool = False):
        self.mean, deviation = moments(features)
        stretch = np.where((deviation > 0) & standardise, deviation, 1).astype(features.dtype)
        self.centre, self.lift = self.mean, None
        if len(features) < features.shape[1]:
            base, triangle = np.linalg.qr(((features - self.mean) / stretch).T)
            self.lift, features = base / stretch[:, None], triangle.T
            self.centre, stretch = np.zeros_like(features[0]), np.ones_like(features[0])
        self.variances, vectors = eigenvectors(features, self.centre, stretch=stretch)
        self.axes, self.features = vectors / stretch[:, None], features

    def scores(self, weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """`(n, classes)` of weights `(r, classes)` and bias `(classes,)` in these coordinates."""
        own = self.axes @ weights.astype(self.axes.dtype)
        return np.asarray(self.features @ own + (bias - self.centre @ own).astype(own.dtype))

    def gradient(self, residuals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What `scores` changes in weights and bias for a change in the scores `(n, classes)`, in double precision."""
        bias = residuals.sum(axis=0, dtype=np.float64)
        own = self.features.T @ residuals - np.outer(self.centre, bias).astype(residuals.dtype)
        return (self.axes.T @ own).astype(np.float64), bias

    def plain(self, weights: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights `(d, classes)` and bias of the features as they are."""
        own = self.axes @ weights.astype(self.axes.dtype)
        own = own if self.lift is None else self.lift @ own
        return own, (bias - self.mean @ own).astype(own.dtype)


def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation `(d,)` of each feature, summed in double precision."""
    blocks = [features[i : i + ROWS] for i in range(0, len(features), ROWS)]
    mean = sum(block.sum(axis=0, dtype=np.float64) for block in blocks) / len(features)
    squares = sum(np.square(block - mean).sum(axis=0) for block in blocks)
    return mean.astype(features.dtype), np.sqrt(squares / len(features)).astype(features.dtype)


def eigenvectors(features: np.ndarray, centre: np.ndarray, *, stretch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variances `(d,)`, at least 0, and directions `(d, d)` of the covariance of `(features - centre) / stretch`."""
    step = max(1, len(features) // (SAMPLE * features.shape[1]))
    sample = features[::step]
    covariance = sample.T @ sample / len(sample) - np.outer(centre, centre)
    variances, vectors = np.linalg.eigh(covariance / stretch / stretch[:, None])
    return np.maximum(variances, 0).astype(np.float64), vectors
