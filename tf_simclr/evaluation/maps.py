"""Curves with intervals, and features laid out in the plane: what `plots` draws."""

import numpy as np
from sklearn import metrics
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from tf_simclr.errors import check
from tf_simclr.evaluation.binary import average_precision, check_both, roc_auc
from tf_simclr.evaluation.intervals import auc_interval, precision_interval
from tf_simclr.evaluation.patients import bootstrap, middle, repeated


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
        InputError: one class only, too few patients, or no such kind of curve.
    """
    check_both(labels)
    check(kind in ("roc", "pr"), "kind must be roc or pr", kind=kind)
    names, x = np.arange(len(labels)) if groups is None else groups, np.linspace(0, 1, 101)

    def curves(weights: np.ndarray) -> np.ndarray:
        # A draw as rows, each as often as it was drawn.
        drawn = [repeated(row) for row in weights]
        return np.array([curve(scores[rows], labels[rows], kind=kind, at=x) for rows in drawn]).reshape(-1, len(x))

    low, high = middle(bootstrap(curves, names, labels=labels, draws=draws, seed=seed))
    return x, curve(scores, labels, kind=kind, at=x), low, high


def curve_area(
    scores: np.ndarray, labels: np.ndarray, *, kind: str, groups: np.ndarray | None = None
) -> tuple[float, float, float]:
    """The area under that curve with its 95 % interval: AUC, or average precision; arguments as of `curve_band`.

    Example:
        >>> [round(number, 2) for number in curve_area(np.arange(14.0), np.repeat([0, 1], [8, 6]), kind="roc")]
        [1.0, 0.64, 1.0]
    """
    check(kind in ("roc", "pr"), "kind must be roc or pr", kind=kind)
    value, interval = (roc_auc, auc_interval) if kind == "roc" else (average_precision, precision_interval)
    low, high = interval(scores, labels, patients=groups)
    return float(value(scores, labels)), float(low), float(high)


def curve(scores: np.ndarray, labels: np.ndarray, *, kind: str, at: np.ndarray) -> np.ndarray:
    """The curve's height at the given abscissae."""
    if kind == "roc":
        x, y, _ = metrics.roc_curve(labels, scores)
        # Heights at 101 common places, so that draws can be compared place by place.
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
    # t-SNE wants three times as many points as its perplexity.
    most = (len(features) - 1) / 3
    return TSNE(2, perplexity=min(perplexity, most), random_state=seed, init="pca").fit_transform(reduced)
