"""L2-regularised logistic regression by L-BFGS, made for tens of thousands of examples of thousands of features.

The objective is convex, so what is found does not depend on how; three things make it fast, and none changes it:

- Features are centred as they are read, or in a copy where they lie far from 0 (`_FAR`).  The bias is not penalised and
  absorbs the shift.
- L-BFGS works in the eigenvectors of the features' covariance, each scaled by the curvature that the loss and the
  penalty have along it.  There the problem is almost round: tens of steps, where it takes hundreds to thousands.
- Regressions of one path of strengths begin where the one before ended.

Where classes are unbalanced and the penalty is weak, the loss is flat along directions that no fixed coordinates show,
and L-BFGS creeps.  Newton's method ends what it began (`newton.finish`), and says by how much a minimum can still be
missed: `converged` is a statement about the objective, not about why an optimizer stopped.

References:
    Kornblith et al., Do Better ImageNet Models Transfer Better?, arXiv:1805.08974, Appendix A.4
    Liu and Nocedal, On the Limited Memory BFGS Method for Large Scale Optimization (1989)
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import OptimizeResult, minimize
from scipy.special import expit

from tf_simclr.errors import check
from tf_simclr.evaluation import newton

_FLOOR = 1e-3
"""Least curvature of a class, as a share of what it has before its weights are learned."""
TOLERANCE = {"float32": 1e-7, "float64": 1e-12}
"""Relative decrease of the objective in a step below which the optimizer stops: what the precision can still tell."""
_GAP = {"float32": 1e-5, "float64": 1e-9}
"""Share of the objective by which a minimum may be missed at most by what calls itself converged."""
STEPS = 100
"""Of L-BFGS at most, where Newton's method follows with the whole matrix of second derivatives."""
SMALL = 2**20
"""Numbers in features that are computed with in double precision, whatever they came in: that takes no time."""


@dataclass(frozen=True)
class LinearClassifier:
    """Scores are `features @ weights + bias`."""

    weights: np.ndarray
    """`(d, classes)`; of a `Solver` in double precision: features far from 0 leave rounded ones no digit."""
    bias: np.ndarray
    """`(classes,)`; minus infinity for a class without a training example."""
    converged: bool
    """Whether the objective is that of the minimum, but for `_GAP`."""

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Logits `(n, classes)`: unnormalised log probabilities, or each class's log odds."""
        # A block at a time: in the weights' precision a copy of the features may be twice as large as they are.
        starts = range(0, max(1, len(features)), _ROWS)
        return np.concatenate([features[i : i + _ROWS] @ self.weights + self.bias for i in starts])

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Labels `(n,)`: the class with the highest score."""
        return np.asarray(self.scores(features).argmax(axis=1))


class _Softmax:
    """One class an example: the sum of the softmax cross entropies.

    Attributes:
        known: `(k,)`, the classes among the examples that count.
        classes: columns of the scores to give, one a label from 0 to the largest.
        variance: `(k,)`, summed over the examples, that the classes have while nothing is learned.
    """

    invariant = True
    """Whether scores that all grow alike change nothing."""

    def __init__(self, labels: np.ndarray, held: np.ndarray):
        """Labels `(n,)`; examples that are held out do not count."""
        self.known, self.classes, self.used = np.unique(labels[~held]), int(labels.max()) + 1, ~held
        check(len(self.known) > 1, "labels must hold at least two classes", classes=self.known.tolist())
        # Labels as places among the classes that are there; of held-out examples any place, as they do not count.
        self.targets = np.searchsorted(self.known, labels).clip(max=len(self.known) - 1)
        counts = np.bincount(self.targets[~held], minlength=len(self.known))
        # n p (1 - p) of each class: its curvature before anything is learned.
        self.variance = counts * (1 - counts / counts.sum())

    def __call__(self, logits: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """The loss of logits `(n, k)`, which are overwritten, its gradient, and the classes' variances `(k,)`."""
        # What is right is 1 less the others, which are summed without it: 1 - p would round a small loss away.
        rows = np.arange(len(logits))
        # The largest logit at 0: exp overflows nowhere.
        logits -= logits.max(axis=1, keepdims=True)
        own = logits[rows, self.targets]
        # The right class is taken out of the sum and added behind it.
        logits[rows, self.targets] = -np.inf
        np.exp(logits, out=logits)
        others, right = logits.sum(axis=1), np.exp(own)
        total = others + right
        # log(1 + others / right) where right is not tiny, else log(total) - own.
        loss = np.sum(np.where(own > -1, np.log1p(others / np.maximum(right, 0.1)), np.log(total) - own),
                      where=self.used, dtype=np.float64)  # fmt: skip
        share = (self.used / total).astype(logits.dtype)
        # Probabilities (n, k); examples that do not count have the share 0.
        logits *= share[:, None]
        logits[rows, self.targets] = right * share
        # Σ p - Σ p² over examples: each class's variance.
        variance = logits.sum(axis=0, dtype=np.float64) - np.einsum("nk,nk->k", logits, logits)
        # Residuals p - 1 of the right class, written as minus the others.
        logits[rows, self.targets] = -(others * share)
        return float(loss), logits, variance

    def curvature(self, logits: np.ndarray) -> np.ndarray:
        """The probabilities `(n, k)` at logits `(n, k)`, 0 for an example that does not count."""
        logits = logits - logits.max(axis=1, keepdims=True)
        np.exp(logits, out=logits)
        return np.asarray(logits * (self.used / logits.sum(axis=1)).astype(logits.dtype)[:, None])

    @staticmethod
    def change(shares: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """How the residuals change where the logits change by a direction, `(n, k)`."""
        # d softmax: p (v - Σ p v).
        mean = np.einsum("nk,nk->n", shares, direction)[:, None]
        return np.asarray(shares * (direction - mean))

    @staticmethod
    def blocks(shares: np.ndarray, *, i: int, j: int) -> np.ndarray:
        """Second derivative of each example's loss by its logits i and j, `(n,)`."""
        # p_i (δ_ij - p_j)
        return np.asarray((shares[:, i] if i == j else 0) - shares[:, i] * shares[:, j])

    def free(self, position: np.ndarray) -> np.ndarray:
        """The part of weights or gradients `(…, k)` that the loss depends on: what all classes share cancels out."""
        return np.asarray(position - position.mean(axis=1, keepdims=True))


class _Sigmoid:
    """Any number of classes an example: a binary regression each, whose cross entropies are summed.

    Attributes as of `_Softmax`.
    """

    invariant = False

    def __init__(self, labels: np.ndarray, held: np.ndarray):
        """Labels `(n, classes)`: 1 present, 0 absent, -1 does not count."""
        self.known, self.classes = np.arange(labels.shape[1]), labels.shape[1]
        self.used, self.targets = (labels >= 0) & ~held[:, None], labels > 0
        # Of each class: how many labels are known, how many of them present.
        counts, present = self.used.sum(axis=0), (self.used & self.targets).sum(axis=0)
        one_sided = np.flatnonzero((present == 0) | (present == counts)).tolist()
        check(not one_sided, "each class must be present in some examples and absent from others", one_sided=one_sided)
        self.variance = present * (1 - present / counts)

    def __call__(self, logits: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """As `_Softmax` has it."""
        # -x for what is present, x for what is absent: the loss is log(1 + e^that).
        against = np.where(self.targets, -logits, logits)
        loss, wrong = np.logaddexp(0, against), expit(against)
        shares = expit(logits)
        variance = np.asarray(np.sum(shares * (1 - shares), axis=0, where=self.used, dtype=np.float64))
        # p - 1 and p, again without a subtraction from 1.
        residuals = np.where(self.used, np.where(self.targets, -wrong, wrong), 0).astype(logits.dtype)
        return float(np.sum(loss, where=self.used, dtype=np.float64)), residuals, variance

    def free(self, position: np.ndarray) -> np.ndarray:
        """As `_Softmax` has it: all of it."""
        return position

    def curvature(self, logits: np.ndarray) -> np.ndarray:
        """The variances `(n, k)` at logits `(n, k)`, 0 where none counts."""
        return np.where(self.used, expit(logits) * expit(-logits), 0).astype(logits.dtype)

    @staticmethod
    def change(shares: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """As `_Softmax` has it."""
        return np.asarray(shares * direction)

    @staticmethod
    def blocks(shares: np.ndarray, *, i: int, j: int) -> np.ndarray:
        """As `_Softmax` has it."""
        return shares[:, i] if i == j else np.zeros_like(shares[:, i])


class Solver:
    """The regressions of one set of examples, one L2 strength after the other, each begun where the last one ended.

    Minimises the *sum* of the cross entropies plus `l2 / 2` times the squared weights, without the bias.

    Args:
        features: `(n, d)`; computed with in their own precision, float32 or float64, few of them (`SMALL`) in float64.
        labels: `(n,)` integers from 0, or `(n, classes)` of 1, 0 and -1 (see `_Sigmoid`).
        held: `(n,)` bool, examples not to learn from.
        standardise: penalise as if each feature had variance 1 among all of the examples.
        max_iterations: of each strength.
    """

    def __init__(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        *,
        held: np.ndarray | None = None,
        standardise: bool = False,
        max_iterations: int = 1000,
    ):
        self.labels, self.max_iterations = labels, max_iterations
        self.loss = self.loss_without(held)
        self.small = features.size <= SMALL
        # Small problems in double precision throughout.
        features = np.asarray(features, np.float64) if self.small else features
        # Along principal axes the objective is almost round, which is what L-BFGS likes (`_Coordinates`).
        self.coordinates = _Coordinates(features, standardise=standardise)
        self.variance = self.loss.variance
        self.position = np.zeros((1 + len(self.coordinates.variances), len(self.loss.known)))  # bias first
        self.path: list[tuple[float, np.ndarray]] = []

    def loss_without(self, held: np.ndarray | None) -> _Softmax | _Sigmoid:
        """The loss of all examples but those held out."""
        held = np.zeros(len(self.labels), bool) if held is None else held
        return (_Softmax if self.labels.ndim == 1 else _Sigmoid)(self.labels, held)

    def fit(self, l2: float, *, tolerance: float | None = None) -> LinearClassifier:
        """The regression of this strength, above 0.

        Args:
            l2: the strength.
            tolerance: as in `TOLERANCE`, of a regression that only has to be near; by default the minimum is found.
        """
        check(l2 > 0, "l2 must be above 0", l2=l2)
        # 1. L-BFGS in scaled steps, from where the last strengths point to.
        precision = str(self.coordinates.features.dtype)
        whole, tolerance = tolerance is None, tolerance or max(TOLERANCE[precision], 1e-9)
        scale = self.scale(l2)

        def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
            # SciPy's vector → bias and weights (1 + r, k), in coordinates of about equal curvature.
            value, gradient = self.objective_at(self.loss.free(flat.reshape(scale.shape) * scale), l2)
            return value, (gradient * scale).ravel()

        # Newton's method follows where it fits: L-BFGS then need not come to the very end.
        most = min(self.max_iterations, STEPS) if whole and newton.fits(self) else self.max_iterations
        options = {"maxiter": most, "maxfun": 2 * most, "gtol": 0, "ftol": 0}
        start = (self.ahead(np.log(l2)) / scale).ravel()
        found = minimize(objective, start, jac=True, method="L-BFGS-B", options=options, callback=_settled(tolerance))
        self.position, converged = self.loss.free(found.x.reshape(scale.shape) * scale), found.status != 1
        # 2. Newton's steps, and how far a minimum may lie below.
        if whole:
            missed = newton.finish(self, l2, scale=self.scale(l2), gap=_GAP[precision], steps=self.max_iterations // 10)
            converged = missed <= _GAP[precision]
        # The last two strengths and where they ended: the next one's start.
        self.path = [*self.path[-1:], (np.log(l2), self.position)]
        return self.classifier(converged=converged)

    def objective_at(self, position: np.ndarray, l2: float) -> tuple[float, np.ndarray]:
        """The objective and its gradient `(1 + r, k)`."""
        loss, gradient = self.loss_at(position)
        # Row 0 is the bias, which is not penalised.
        penalised = np.vstack([np.zeros_like(position[:1]), position[1:]])
        return loss + l2 / 2 * float(np.vdot(penalised, penalised)), self.loss.free(gradient + l2 * penalised)

    def ahead(self, log_l2: float) -> np.ndarray:
        """Where a strength's regression should lie: along the path, weights are about linear in its logarithm."""
        if len(self.path) < 2 or self.path[0][0] == self.path[1][0]:
            return self.position
        # A straight line through the last two positions, in log λ.
        (first, there), (second, here) = self.path
        return np.asarray(here + (log_l2 - second) / (second - first) * (here - there))

    def scale(self, l2: float) -> np.ndarray:
        """Steps `(1 + r, k)` along which the objective has about the curvature 1."""
        # Curvature of a weight: variance of its feature's axis
        # times the class's, plus λ; of the bias the class's alone.
        variance = np.maximum(self.variance, _FLOOR * self.loss.variance)
        return np.vstack([variance, np.outer(self.coordinates.variances, variance) + l2]) ** -0.5

    def loss_at(self, position: np.ndarray) -> tuple[float, np.ndarray]:
        """The summed cross entropies and their gradient."""
        # (n, r) · (r, k) + (k,) → (n, k), and back: (r, n) · (n, k).
        logits = self.coordinates.scores(position[1:], position[0])
        loss, residuals, self.variance = self.loss(logits)
        weights, bias = self.coordinates.gradient(residuals)
        return loss, np.vstack([bias, weights])

    def classifier(self, *, converged: bool) -> LinearClassifier:
        """What was found, for features as they are, with a column for each label from 0 on."""
        weights, bias = self.coordinates.plain(self.position[1:], self.position[0])
        columns = np.zeros((len(weights), self.loss.classes))
        # A class without an example is never the answer.
        offsets = np.full(self.loss.classes, -np.inf)
        columns[:, self.loss.known], offsets[self.loss.known] = weights, bias
        return LinearClassifier(weights=columns, bias=offsets, converged=converged)

    def begin_at(self, position: np.ndarray) -> None:
        """The next strength begins at a position, not where the last ones point to."""
        self.position, self.path = position, []

    def release(self, position: np.ndarray) -> None:
        """From now on learns from the examples that were held out, too, from an earlier position on."""
        known = self.loss.known
        self.loss = self.loss_without(None)
        self.position = np.zeros((len(position), len(self.loss.known)))
        # Classes that were only among the held-out examples begin at 0.
        self.position[:, np.searchsorted(self.loss.known, known)] = position
        self.variance, self.path = self.loss.variance, []


def _settled(tolerance: float) -> Callable[[OptimizeResult], None]:
    """A callback that ends a minimisation at a step that decreases the objective by no more than this share of it.

    SciPy's own rule takes an objective below 1, as of few examples and a weak penalty, for 1.
    """
    last = np.inf

    def callback(intermediate_result: OptimizeResult) -> None:
        nonlocal last
        # `fun` falls with each step; the first has nothing to be compared with.
        last, decrease = intermediate_result.fun, last - intermediate_result.fun
        if decrease <= tolerance * last:
            raise StopIteration

    return callback


_ROWS = 4096
"""Examples at a time where a temporary array as large as the features would arise."""
_FAR = 30
"""Length of the features' mean, as a multiple of their deviations', above which a product with them has too few digits
of single precision left for what tells them apart."""
_SAMPLE = 8
"""Examples a feature that the covariance is taken from; it only steers an optimizer, so it need not be exact."""


class _Coordinates:
    """Coordinates in which linear models of a set of features are almost round: centred, along its principal axes.

    A model's scores are `features @ weights + bias`.  Here its weights are those of the eigenvectors and its bias that
    of centred features; `scores` and `gradient` go between both without a copy of the features.

    With fewer examples than features, weights of the smallest norm lie in the examples' span (the representer theorem),
    so that there are only as many coordinates as examples.

    Args:
        features: `(n, d)`, float32 or float64; a memory map will do.
        standardise: lengths of weights are those for features of variance 1.

    Attributes:
        variances: `(r,)`, of the features along the eigenvectors.
    """

    def __init__(self, features: np.ndarray, *, standardise: bool = False):
        self.mean, deviation = _moments(features)
        # A constant feature is not divided by its deviation of 0.
        stretch = np.where((deviation > 0) & standardise, deviation, 1).astype(features.dtype)
        self.centre, self.lift = self.mean, None
        if np.linalg.norm(self.mean / stretch) > _FAR * np.linalg.norm(deviation / stretch):
            features, self.centre = features - self.mean, np.zeros_like(self.mean)
        if len(features) < features.shape[1]:
            # Fewer examples than features: all that weights can do lies in the span of the examples, (d, n) → (n, n).
            base, triangle = np.linalg.qr(((features - self.centre) / stretch).T)
            self.lift, features = base / stretch[:, None], triangle.T
            self.centre, stretch = np.zeros_like(features[0]), np.ones_like(features[0])
        self.variances, vectors = _eigenvectors(features, self.centre, stretch=stretch)
        # axes (d, r): a direction's weights in the features as they are.
        self.axes, self.features = vectors / stretch[:, None], features

    def scores(self, weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """`(n, classes)` of weights `(r, classes)` and bias `(classes,)` in these coordinates."""
        # r coordinates → d weights; centring is done in the bias, as features are not copied.
        own = self.axes @ weights.astype(self.axes.dtype)
        return np.asarray(self.features @ own + (bias - self.centre @ own).astype(own.dtype))

    def gradient(self, residuals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What `scores` changes in weights and bias for a change in the scores `(n, classes)`, in double precision."""
        bias = residuals.sum(axis=0, dtype=np.float64)
        # The centre's part is taken off behind the product: features stay as they are.
        own = self.features.T @ residuals - np.outer(self.centre, bias).astype(residuals.dtype)
        return (self.axes.T @ own).astype(np.float64), bias

    def plain(self, weights: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights `(d, classes)` and bias of the features as they are."""
        own = self.axes @ weights.astype(self.axes.dtype)
        # From the span of the examples to all features.
        own = np.asarray(own if self.lift is None else self.lift @ own, np.float64)
        return own, bias - self.mean @ own


def _moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation `(d,)` of each feature, summed in double precision."""
    blocks = [features[i : i + _ROWS] for i in range(0, len(features), _ROWS)]
    # A block at a time: a copy of all features in double precision would be twice as large as they are.
    mean = sum(block.sum(axis=0, dtype=np.float64) for block in blocks) / len(features)
    squares = sum(np.square(block - mean).sum(axis=0) for block in blocks)
    return mean.astype(features.dtype), np.sqrt(squares / len(features)).astype(features.dtype)


def _eigenvectors(features: np.ndarray, centre: np.ndarray, *, stretch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variances `(d,)`, at least 0, and directions `(d, d)` of the covariance of `(features - centre) / stretch`."""
    # Every step-th example: about 8 for each feature.
    step = max(1, len(features) // (_SAMPLE * features.shape[1]))
    sample = features[::step]
    covariance = sample.T @ sample / len(sample) - np.outer(centre, centre)
    variances, vectors = np.linalg.eigh(covariance / stretch / stretch[:, None])
    return np.maximum(variances, 0).astype(np.float64), vectors
