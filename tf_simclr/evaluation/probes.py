"""What frozen features are worth: linear and nearest-neighbour classifiers on them.

Features are `(n, d)` and finite, labels `(n,)` integers from 0.  Scores are `(n, classes)`, one column a label from 0
to the training labels' largest, so that they go straight into `metrics.top_k_accuracy`.

References:
    Kornblith et al., Do Better ImageNet Models Transfer Better?, arXiv:1805.08974, Appendix A.4
    Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination, arXiv:1805.01978
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from tf_simclr.errors import check
from tf_simclr.evaluation.metrics import accuracy

L2_GRID = np.logspace(-6, 5, 45)
"""The strengths that SimCLR, Appendix B.8, chooses from."""


@dataclass(frozen=True)
class LinearClassifier:
    """Scores are `features @ weights + bias`."""

    weights: np.ndarray
    """`(d, classes)`."""
    bias: np.ndarray
    """`(classes,)`; minus infinity for a class without a training example."""
    converged: bool
    """Whether the optimizer stopped by itself."""

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Unnormalised log probabilities `(n, classes)`."""
        return np.asarray(features @ self.weights + self.bias)

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Labels `(n,)`."""
        return np.asarray(self.scores(features).argmax(axis=1))


def logistic_regression(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    l2: float = 1.0,
    standardise: bool = True,
    max_iterations: int = 1000,
) -> LinearClassifier:
    """Multinomial logistic regression with an L2 penalty, by L-BFGS.

    Minimises the *sum* of the cross entropies plus `l2 / 2` times the squared weights, without the bias; scikit-learn's
    `C` is `1 / l2`.  Two classes share one weight vector.

    Args:
        standardise: scale each feature to mean 0 and variance 1 on these examples first, so that one penalty means the
            same for pixels and for features of any encoder; the classifier returned takes the features as they are.

    Raises:
        InputError: there are fewer than two classes, or features and labels do not fit each other.

    Example:
        >>> probe = logistic_regression(np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([0, 0, 1, 1]))
        >>> probe.predict(np.array([[-1.0], [4.0]]))
        array([0, 1])
    """
    return next(regressions(features, labels, strengths=[l2], standardise=standardise, max_iterations=max_iterations))


def regressions(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    strengths: Sequence[float],
    standardise: bool = True,
    max_iterations: int = 1000,
) -> Iterator[LinearClassifier]:
    """Yields the `logistic_regression` of each L2 strength, each started where the one before ended."""
    check_examples(features, labels)
    check(len(np.unique(labels)) > 1, "labels must hold at least two classes", classes=np.unique(labels).tolist())
    mean, deviation = scale(features) if standardise else (0.0, 1.0)
    scaled = (features - mean) / deviation
    model = LogisticRegression(max_iter=max_iterations, warm_start=True)
    for l2 in strengths:
        check(l2 > 0, "l2 must be above 0", l2=l2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # `converged` says it
            model.set_params(C=1 / l2).fit(scaled, labels)
        yield classifier(model, scaled.dtype, mean=mean, deviation=deviation)


def classifier(
    model: LogisticRegression, dtype: np.dtype, *, mean: np.ndarray | float, deviation: np.ndarray | float
) -> LinearClassifier:
    """The fitted model as a classifier of features that are not standardised."""
    slopes, offsets = model.coef_.astype(dtype), model.intercept_.astype(dtype)  # scikit-learn 1.7: always double
    if len(slopes) == 1:  # two classes: scikit-learn keeps the second's scores relative to the first's
        slopes, offsets = np.vstack([0 * slopes, slopes]), np.append(0, offsets)
    slopes = slopes / deviation
    weights = np.zeros((slopes.shape[1], model.classes_.max() + 1), dtype)
    bias = np.full(weights.shape[1], -np.inf, dtype)
    weights[:, model.classes_] = slopes.T
    bias[model.classes_] = offsets - (slopes * mean).sum(axis=1)
    return LinearClassifier(weights=weights, bias=bias, converged=bool((model.n_iter_ < model.max_iter).all()))


def scale(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation `(d,)` of each feature; the deviation of a constant feature is 1."""
    deviation = features.std(axis=0)
    return features.mean(axis=0), np.where(deviation > 0, deviation, 1).astype(features.dtype)


def select_l2(
    train: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    *,
    grid: Sequence[float] | np.ndarray = L2_GRID,
    standardise: bool = True,
    max_iterations: int = 1000,
) -> tuple[float, dict[float, float]]:
    """Chooses the L2 strength with the highest accuracy on the validation examples; of equal ones the strongest.

    Args:
        train: features and labels to fit.
        validation: features and labels to choose by; never the test examples.

    Returns:
        The choice, and the validation accuracy of each strength.

    Example:
        >>> line, halves = np.arange(8.0)[:, None], np.repeat([0, 1], 4)
        >>> best, accuracies = select_l2((line, halves), (line + 0.1, halves), grid=[0.1, 1.0])
        >>> best, accuracies
        (1.0, {1.0: 1.0, 0.1: 1.0})
    """
    check(len(grid) > 0, "grid must hold at least one strength", grid=list(grid))
    strengths = sorted(map(float, grid), reverse=True)  # strong penalties converge fast and lead to the weak ones
    fits = regressions(*train, strengths=strengths, standardise=standardise, max_iterations=max_iterations)
    accuracies = {
        l2: accuracy(probe.predict(validation[0]), validation[1]) for l2, probe in zip(strengths, fits, strict=True)
    }
    return max(accuracies, key=lambda l2: accuracies[l2]), accuracies


def nearest(
    queries: np.ndarray, features: np.ndarray, *, k: int, block_bytes: int = 2**26
) -> tuple[np.ndarray, np.ndarray]:
    """The k features of largest cosine similarity to each query, the nearest first.

    Args:
        queries: `(q, d)`.
        features: `(n, d)`.
        k: 1..n.
        block_bytes: memory for similarities at a time; at least one row of n is kept.

    Returns:
        Row numbers of `features` and their cosines in [-1, 1], each `(q, k)`.

    Example:
        >>> nearest(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0], [3.0, 0.0], [1.0, 1.0]]), k=2)[0]
        array([[1, 2]])
    """
    check(1 <= k <= len(features), f"k must lie in 1..{len(features)}, the number of features", k=k)
    units, rows = unit(features), max(1, block_bytes // (features.itemsize * len(features)))
    blocks = [block_nearest(unit(queries[i : i + rows]) @ units.T, k) for i in range(0, len(queries), rows)]
    indices, cosines = (np.concatenate(part) for part in zip(*blocks, strict=True))
    return indices, cosines


def block_nearest(cosines: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns and values, each `(q, k)`, of the k largest of each row of `(q, n)`, the largest first."""
    columns = np.argpartition(cosines, -k, axis=1)[:, -k:]
    order = np.argsort(-np.take_along_axis(cosines, columns, axis=1), axis=1, kind="stable")
    columns = np.take_along_axis(columns, order, axis=1)
    return columns, np.take_along_axis(cosines, columns, axis=1)


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1; a row of zeros stays, and is equally far from all."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def knn_scores(
    queries: np.ndarray,
    train: tuple[np.ndarray, np.ndarray],
    *,
    k: int = 200,
    temperature: float = 0.07,
    block_bytes: int = 2**26,
) -> np.ndarray:
    """Votes of the k nearest neighbours by cosine similarity, weighted by `exp(cosine / temperature)`.

    Wu et al., Section 3.4, from where k = 200 and temperature = 0.07 come.

    Args:
        queries: `(q, d)`.
        train: features `(n, d)` and labels `(n,)` of the examples that vote.
        k: 1..n.
        temperature: above 0; the lower, the more the nearest ones decide.
        block_bytes: see `nearest`.

    Returns:
        Shares of the votes `(q, classes)`; each row sums to 1.

    Example:
        >>> knn_scores(np.array([[1.0, 0.0]]), (np.eye(2), np.array([0, 1])), k=2, temperature=1.0).round(2)
        array([[0.73, 0.27]])
    """
    check(temperature > 0, "temperature must be above 0", temperature=temperature)
    features, labels = train
    check_examples(features, labels)
    neighbours, cosines = nearest(queries, features, k=k, block_bytes=block_bytes)
    weights = np.exp((cosines - cosines[:, :1]) / temperature)  # relative to the nearest: cannot overflow
    scores = np.zeros((len(queries), int(labels.max()) + 1))
    np.add.at(scores, (np.arange(len(queries))[:, None], labels[neighbours]), weights)
    return np.asarray(scores / scores.sum(axis=1, keepdims=True))


def check_examples(features: np.ndarray, labels: np.ndarray) -> None:
    """Raises `InputError` unless features are a matrix with one label from 0 a row."""
    check(features.ndim == 2, "features must have the shape (n, d)", shape=features.shape)
    check(labels.shape == features.shape[:1], "each row of features needs one label", labels=labels.shape)
    whole = labels.dtype.kind in "iu" and labels.size > 0 and labels.min() >= 0
    check(whole, "labels must be integers from 0", dtype=str(labels.dtype))
