"""What frozen features are worth: linear and nearest-neighbour classifiers on them.

Features are `(n, d)` and finite, labels `(n,)` integers from 0.  Scores are `(n, classes)`, one column a label from 0
to the training labels' largest, so that they go straight into `metrics.top_k_accuracy`.

References:
    Kornblith et al., Do Better ImageNet Models Transfer Better?, arXiv:1805.08974, Appendix A.4
    Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination, arXiv:1805.01978
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tf_simclr.data import pipeline
from tf_simclr.data.device_views import DeviceViews
from tf_simclr.data.examples import Unreadable
from tf_simclr.data.sources import Source
from tf_simclr.errors import check
from tf_simclr.evaluation.logistic import LinearClassifier, Solver
from tf_simclr.evaluation.metrics import METRICS, Metric, accuracy
from tf_simclr.models.classifier import ALL, Classifier
from tf_simclr.replicas import ONE_DEVICE

L2_GRID = np.logspace(-6, 5, 45)
"""The strengths that SimCLR, Appendix B.8, chooses from."""
_PATH_TOLERANCE = 1e-5
"""Relative decrease in a step at which a regression that only has to be compared is close enough."""


def logistic_regression(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    l2: float = 1.0,
    standardise: bool = True,
    max_iterations: int = 1000,
) -> LinearClassifier:
    """Logistic regression with an L2 penalty, by L-BFGS (`logistic.Solver`): multinomial, or one a class.

    Minimises the *sum* of the cross entropies plus `l2 / 2` times the squared weights, without the bias; scikit-learn's
    `C` is `1 / l2`.  Each class has its own weights, two classes, too (there scikit-learn's `C` is `2 / l2`).

    Args:
        features: `(n, d)`.
        labels: `(n,)` integers, or `(n, classes)` for any number of classes an example: 1, 0, or -1 for unknown.
        l2: the penalty's strength, above 0.
        standardise: scale each feature to mean 0 and variance 1 on these examples first, so that one penalty means the
            same for pixels and for features of any encoder; the classifier returned takes the features as they are.
        max_iterations: of the solver; a classifier that stopped there says so (`converged`).

    Raises:
        InputError: there are fewer than two classes, or features and labels do not fit each other.

    Example:
        >>> probe = logistic_regression(np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([0, 0, 1, 1]))
        >>> probe.predict(np.array([[-1.0], [4.0]]))
        array([0, 1])
    """
    _check_examples(features, labels)
    return Solver(features, labels, standardise=standardise, max_iterations=max_iterations).fit(l2)


@dataclass(frozen=True)
class _Choice:
    """A regression whose L2 strength was chosen by examples that it did not see."""

    classifier: LinearClassifier
    """Refitted on all examples."""
    l2: float
    """The strength chosen."""
    validation: dict[float, float]
    """The metric of each strength on the examples held out, the strongest first."""


def chosen_regression(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    held: np.ndarray,
    grid: Sequence[float] | np.ndarray = L2_GRID,
    metric: Metric = METRICS["accuracy"],
) -> _Choice:
    """SimCLR, Appendix B.8: the L2 strength that does best on validation, then a fit to all examples.

    Features are taken as they are, neither standardised nor normalised.  Strengths go from strong to weak, each
    regression begun where those before point to (Kornblith et al., Appendix A.4).  Those within two hits of the best
    are fitted to their minimum before they are compared; of equal ones the strongest is taken.  Memory beside the
    features: a matrix of `(d, d)` and a few of `(n, classes)`.

    Args:
        features: of training and validation examples, `(n, d)`; a memory map will do.
        labels: theirs, as in `logistic_regression`.
        held: `(n,)` bool, the validation examples; never the test examples.
        grid: strengths above 0.
        metric: what the best one is best in.

    Example:
        >>> line, halves = np.arange(16.0)[:, None], np.repeat([0, 1], 8)
        >>> choice = chosen_regression(line, halves, held=np.arange(16) % 4 == 1, grid=[0.1, 1.0])
        >>> choice.l2, choice.validation
        (1.0, {1.0: 1.0, 0.1: 1.0})
    """
    _check_examples(features, labels)
    check(len(grid) > 0, "grid must hold at least one strength", grid=list(grid))
    check(0 < held.sum() < len(held) == len(labels), "held must be some of the examples", held=int(held.sum()))
    solver, found = Solver(features, labels, held=held), {}
    validation, truth = features[held], labels[held]
    # The strongest first: its weights are near 0, where the path begins, and each next one starts near its end.
    strengths = sorted(map(float, grid), reverse=True)
    tolerance = None if solver.small else _PATH_TOLERANCE
    positions: dict[float, np.ndarray] = {}
    for l2 in strengths:
        found[l2] = metric(solver.fit(l2, tolerance=tolerance).scores(validation), truth)
        # Strengths that may still turn out best keep their positions.
        near = [s for s in found if found[s] >= max(found.values()) - _near_tie(truth)]
        positions = {s: p for s, p in (positions | {l2: solver.position}).items() if s in near}
    if tolerance is not None and len(positions) > 1:  # what a loose fit decides hangs on where it stopped
        for l2 in positions:
            solver.begin_at(positions[l2])
            found[l2] = metric(solver.fit(l2).scores(validation), truth)
            positions[l2] = solver.position
    # Of equally good strengths the strongest.
    choice = max(positions, key=lambda l2: (found[l2], l2))
    # Then all examples learn, from where the choice ended.
    solver.release(positions[choice])
    return _Choice(classifier=solver.fit(choice), l2=choice, validation=found)


def _near_tie(truth: np.ndarray) -> float:
    """Difference of two metrics of these examples that a regression that only is near its minimum may well have."""
    return max(2 / len(truth), 0.002)


def hold_out(labels: np.ndarray, share: float, *, seed: int = 0) -> np.ndarray:
    """Draws validation examples class by class: `(n,)` bool, about `share` of each class `(n,)`.

    Each class keeps an example to learn from; so of a class with one nothing is held out, and of fewer examples than
    half of `1 / share` nothing at all, which `chosen_regression` refuses.

    Example:
        >>> hold_out(np.repeat([0, 1], 10), 0.2).nonzero()[0].shape
        (4,)
    """
    check(0 < share < 1, "the share to hold out must lie between 0 and 1", share=share)
    rng, held = np.random.default_rng(seed), np.zeros(len(labels), bool)
    owed = 0.0
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        # What rounding owes goes to the next class: the share is right over all.
        owed += share * len(members)
        count = min(round(owed), len(members) - 1)  # a class keeps an example to learn from
        held[rng.permutation(members)[:count]] = True
        owed -= count
    return held


def nearest(
    queries: np.ndarray, features: np.ndarray, *, k: int, block_bytes: int = 2**26
) -> tuple[np.ndarray, np.ndarray]:
    """The k features of largest cosine similarity to each query, the nearest first.

    Args:
        queries: `(q, d)`.
        features: `(n, d)`.
        k: 1..n.
        block_bytes: memory for similarities at a time; at least one row of n is kept.  Features are not copied.

    Returns:
        Row numbers of `features` and their cosines in [-1, 1], each `(q, k)`.

    Example:
        >>> nearest(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0], [3.0, 0.0], [1.0, 1.0]]), k=2)[0]
        array([[1, 2]])
    """
    check(1 <= k <= len(features), f"k must lie in 1..{len(features)}, the number of features", k=k)
    # As many queries at a time as their cosines to all features fit into block_bytes.
    rows = max(1, block_bytes // (features.itemsize * len(features)))
    # Queries are made of length 1; the features' lengths divide the product instead of a copy of them.
    inverse = 1 / np.maximum(np.sqrt(np.einsum("nd,nd->n", features, features)), 1e-12)
    blocks = []
    for start in range(0, len(queries), rows):
        cosines = unit(queries[start : start + rows]) @ features.T
        cosines *= inverse
        blocks.append(block_nearest(cosines, k))
    indices, cosines = (np.concatenate(part) for part in zip(*blocks, strict=True))
    return indices, cosines


def block_nearest(cosines: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns and values, each `(q, k)`, of the k largest of each row of `(q, n)`, the largest first.

    Columns are first dealt into groups: the k largest lie within the k groups whose largest members are largest, which
    are few columns of many.
    """
    columns = candidates(cosines, k)
    values = cosines if columns is None else np.take_along_axis(cosines, columns, axis=1)
    # Partition first, sort the k alone.
    best = np.argpartition(values, -k, axis=1)[:, -k:]
    order = np.argsort(-np.take_along_axis(values, best, axis=1), axis=1, kind="stable")
    best = np.take_along_axis(best, order, axis=1)
    values = np.take_along_axis(values, best, axis=1)
    return (best if columns is None else np.take_along_axis(columns, best, axis=1)), values


def candidates(cosines: np.ndarray, k: int) -> np.ndarray | None:
    """Columns `(q, m)` that hold each row's k largest; None where looking at all `(q, n)` costs less."""
    q, n = cosines.shape
    # n / depth maxima of groups are looked at, then k · depth columns: their sum is smallest at depth = √(n / k).
    depth = int((n / k) ** 0.5)
    if depth < 4:
        return None
    groups = n // depth
    # The largest of each group of columns; the k best groups hold the k best columns.
    largest = cosines[:, : groups * depth].reshape(q, depth, groups).max(axis=1)
    found = np.argpartition(largest, -k, axis=1)[:, -k:]
    columns = (found[:, None] + groups * np.arange(depth)[:, None]).reshape(q, -1)
    # Columns that fill no group are looked at, all of them.
    return np.hstack([columns, np.broadcast_to(np.arange(groups * depth, n), (q, n - groups * depth))])


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows `(n, d)` scaled to length 1; a row of zeros stays, and is equally far from all."""
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
    _check_examples(features, labels)
    neighbours, cosines = nearest(queries, features, k=k, block_bytes=block_bytes)
    weights = np.exp((cosines - cosines[:, :1]) / temperature)  # relative to the nearest: cannot overflow
    scores = np.zeros((len(queries), int(labels.max()) + 1))
    # Several neighbours of one class add up: `add.at`, as an index that stands twice is counted once by `+=`.
    np.add.at(scores, (np.arange(len(queries))[:, None], labels[neighbours]), weights)
    return np.asarray(scores / scores.sum(axis=1, keepdims=True))


def _check_examples(features: np.ndarray, labels: np.ndarray) -> None:
    """Raises `InputError` unless features are a matrix with one label from 0, or one row of 1, 0 and -1, a row."""
    check(features.ndim == 2, "features must have the shape (n, d)", shape=features.shape)
    check(features.dtype in (np.float32, np.float64), "features must be float32 or float64", dtype=str(features.dtype))
    paired = labels.shape[:1] == features.shape[:1] and labels.ndim in (1, 2)
    rule = "each row of features needs one label or one row of labels"
    check(paired, rule, labels=labels.shape, features=features.shape)
    least, most = (0, np.inf) if labels.ndim == 1 else (-1, 1)
    whole = labels.dtype.kind in "iu" and labels.size > 0 and least <= labels.min() and labels.max() <= most
    check(whole, "labels must be integers from 0, or rows of 1, 0 and -1", dtype=str(labels.dtype))


def train_head(
    encoder: keras.Model,
    source: Source,
    *,
    optimizer: keras.optimizers.Optimizer,
    steps: int,
    batch_size: int,
    image_size: int,
    weight_decay: float = 0.0,
    seed: int = 0,
    unreadable: Unreadable | None = None,
    progress: Callable[[int, float], None] | None = None,
    views_of: DeviceViews | None = None,
) -> LinearClassifier:
    """The linear evaluation of the official code: trains a classifier on randomly cropped and flipped images.

    The crops are other ones each epoch, so that features cannot be kept; the encoder is frozen, its BatchNorm in
    inference mode; the classifier starts at zero.  SimCLR, Appendix B.6: 90 epochs, Nesterov momentum 0.9, a rate of
    0.1 × batch / 256 with a cosine and no warm-up, no weight decay (for a batch of 4096: 1.6); LARS with pretraining's
    options does as well.

    Args:
        encoder: images to features `(n, d)`; its weights stay.
        source: labelled images.
        optimizer: with its rate or schedule.
        steps: batches to learn from, at least 1.
        batch_size: images a step.
        image_size: side in pixels.
        weight_decay: L2 that the optimizer leaves to the loss.
        seed: of the order and the augmentation.
        unreadable: receives the names of corrupt images.
        progress: called with the steps done and the running loss after each step.
        views_of: what makes the crops within a step, on the device, by `pipeline.flips(True)`; None: the host.

    Raises:
        InputError: the source has no labels or too few images, or the loss is not finite.
    """
    check(source.labelled, f"{source.origin} must have labels to learn from")
    model = Classifier(
        encoder, num_classes=source.num_classes, fine_tune_after_block=ALL, zero_init=True, weight_decay=weight_decay
    )
    # What trains is put back behind it: the encoder is the caller's.
    trains = [(layer, layer.trainable) for layer in [encoder, *encoder.layers]]
    variables = [(variable, variable.trainable) for variable in encoder.variables]
    model.compile(optimizer)
    model.views_of = views_of
    buffer = pipeline.buffer_size(batch_size, image_size=image_size)

    def batches(step: int) -> Any:
        return pipeline.single_views(
            source,
            stream=pipeline.Stream(batch_size=batch_size, buffer=buffer, seed=seed, start_step=step),
            image_size=image_size,
            unreadable=unreadable or Unreadable(),
            packed=views_of is not None,
            held=views_of is not None and views_of.held is not None,
        )

    ONE_DEVICE.fit(model, batches, epochs=1, steps_per_epoch=steps, verbose=0, callbacks=[Steps(progress)])
    for item, before in trains + variables:
        item.trainable = before
    weights, bias = (np.asarray(keras.ops.convert_to_numpy(w)) for w in (model.head.kernel, model.head.bias))
    return LinearClassifier(weights=weights, bias=bias, converged=True)


class Steps(keras.callbacks.Callback):
    """Reports each step, and stops at a loss that is no number."""

    def __init__(self, progress: Callable[[int, float], None] | None):
        super().__init__()
        self.progress = progress

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        loss = float((logs or {})["loss"])
        check(bool(np.isfinite(loss)), "the loss must stay finite; lower learning_rate", step=batch + 1)
        if self.progress:
            self.progress(batch + 1, loss)


@dataclass(frozen=True)
class Comparison:
    """How much a few labels are worth: test accuracies of several representations on the same draws of examples."""

    accuracies: Mapping[str, np.ndarray]
    """Representation's name → accuracies `(draws,)` in [0, 1]."""

    def mean(self, name: str) -> float:
        """Mean accuracy over the draws, in [0, 1]."""
        return float(np.mean(self.accuracies[name]))

    def spread(self, name: str) -> float:
        """Standard deviation over the draws (n - 1), in [0, 1]."""
        return float(np.std(self.accuracies[name], ddof=1))

    def gain(self, name: str, baseline: str) -> tuple[float, float]:
        """Mean and standard deviation of the draws' paired differences, `name` minus `baseline`."""
        difference = self.accuracies[name] - self.accuracies[baseline]
        return float(np.mean(difference)), float(np.std(difference, ddof=1))

    def table(self) -> str:
        """One line a representation: mean ± spread, and the paired gain over the last one, in percent.

        Example:
            >>> print(Comparison({"ours": np.array([0.8, 0.9]), "pixels": np.array([0.7, 0.7])}).table())
            features  accuracy (%)  gain over pixels
            ours        85.0 ± 7.1       +15.0 ± 7.1
            pixels      70.0 ± 0.0
        """
        *_, baseline = self.accuracies
        width = max(map(len, ["features", *self.accuracies]))
        gain_width = len(f"gain over {baseline}")
        lines = [f"{'features':<{width}}  accuracy (%)  gain over {baseline}"]
        for name in self.accuracies:
            gain = "{:+.1f} ± {:.1f}".format(*(100 * v for v in self.gain(name, baseline))) if name != baseline else ""
            mean = f"{100 * self.mean(name):.1f} ± {100 * self.spread(name):.1f}"
            lines.append(f"{name:<{width}}  {mean:>12}  {gain:>{gain_width}}".rstrip())
        return "\n".join(lines)


def few_label_draws(labels: np.ndarray, per_class: int, *, draws: int = 5, seed: int = 0) -> list[np.ndarray]:
    """Draws `per_class` examples of each class without replacement, several times.

    Returns:
        Row numbers `(per_class × classes,)` of each draw, sorted.

    Raises:
        InputError: a class has fewer examples.

    Example:
        >>> labels = np.array([0, 0, 0, 1, 1, 1])
        >>> [labels[rows].tolist() for rows in few_label_draws(labels, 2, draws=2)]
        [[0, 0, 1, 1], [0, 0, 1, 1]]
    """
    check(per_class >= 1 and draws >= 1, "per_class and draws must be at least 1", per_class=per_class, draws=draws)
    members = [np.flatnonzero(labels == c) for c in np.unique(labels)]
    fewest = min(map(len, members), default=0)
    check(fewest >= per_class, "each class must have at least per_class examples", per_class=per_class, fewest=fewest)
    rng = np.random.default_rng(seed)
    return [np.sort(np.concatenate([rng.choice(m, per_class, replace=False) for m in members])) for _ in range(draws)]


def compare(
    representations: Mapping[str, tuple[np.ndarray, np.ndarray]],
    labels: tuple[np.ndarray, np.ndarray],
    *,
    draws: Sequence[np.ndarray],
) -> Comparison:
    """Fits a standardised `logistic_regression` to each draw of each representation and tests it.

    The L2 strength is 1 for all: few labels leave none to choose it by.

    Args:
        representations: name → the training and the test images in it, `(n, d)` and `(m, d)`.
        labels: the training images' `(n,)`, of which each draw sees its own rows only, and the test images' `(m,)`.
        draws: at least two row sets, from `few_label_draws`.
    """
    check(len(draws) > 1, "a spread needs at least two draws", draws=len(draws))
    accuracies: dict[str, np.ndarray] = {}
    for name, (train, test) in representations.items():
        probes = (logistic_regression(train[rows], labels[0][rows]) for rows in draws)
        accuracies[name] = np.array([accuracy(probe.predict(test), labels[1]) for probe in probes])
    return Comparison(accuracies)
