"""Curves with intervals, and features laid out in the plane: what `diagnostics` draws."""

import numpy as np
from sklearn import metrics
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from tf_simclr.errors import check
from tf_simclr.evaluation.binary import check_both


def curve_band(
    scores: np.ndarray,
    labels: np.ndarray,
    *,
    kind: str,
    groups: np.ndarray | None = None,
    draws: int = 200,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A ROC (`"roc"`) or precision-recall (`"pr"`) curve at 101 places with its 95 % bootstrap band.

    Args:
        scores: `(n,)`.
        labels: 0 or 1, `(n,)`.
        kind: which curve.
        groups: what to draw, patients for example; by default images.
        draws: of the bootstrap.
        seed: of the draws.

    Returns:
        Abscissae (1 − specificity, or recall), the curve, and the band's lower and upper edge, each `(101,)`.

    Raises:
        InputError: one class only, or no such kind of curve.
    """
    check_both(labels)
    check(kind in ("roc", "pr"), "kind must be roc or pr", kind=kind)
    members = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    rows_of = np.split(np.argsort(members, kind="stable"), np.cumsum(np.bincount(members))[:-1])
    rng, x = np.random.default_rng(seed), np.linspace(0, 1, 101)
    drawn = []
    for _ in range(draws):
        rows = np.concatenate([rows_of[i] for i in rng.integers(0, len(rows_of), len(rows_of))])
        if 0 < labels[rows].sum() < len(rows):
            drawn.append(curve(scores[rows], labels[rows], kind=kind, at=x))
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0) if drawn else (np.zeros(101), np.ones(101))
    return x, curve(scores, labels, kind=kind, at=x), low, high


def curve(scores: np.ndarray, labels: np.ndarray, *, kind: str, at: np.ndarray) -> np.ndarray:
    """The curve's height at the given abscissae."""
    if kind == "roc":
        x, y, _ = metrics.roc_curve(labels, scores)
        return np.interp(at, x, y)
    precision, recall, _ = metrics.precision_recall_curve(labels, scores)
    return np.interp(at, recall[::-1], precision[::-1])


def planar(features: np.ndarray, *, seed: int = 0, perplexity: float = 30.0) -> np.ndarray:
    """Features `(n, d)` in the plane `(n, 2)`: t-SNE of their first 50 principal components (scikit-learn).

    Distances between far groups mean nothing (van der Maaten and Hinton, JMLR 9, 2008).

    Raises:
        InputError: fewer than four images.
    """
    check(len(features) >= 4, "a map needs at least four images", images=len(features))
    parts = min(50, *features.shape)
    reduced = PCA(parts, random_state=seed, svd_solver="randomized").fit_transform(features)
    most = (len(features) - 1) / 3
    return TSNE(2, perplexity=min(perplexity, most), random_state=seed, init="pca").fit_transform(reduced)
