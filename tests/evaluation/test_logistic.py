"""The logistic regression beside scikit-learn's at a tight tolerance, with unbalanced classes and weak penalties."""

import numpy as np
import pytest
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression

from tf_simclr.evaluation import logistic, newton
from tf_simclr.evaluation.logistic import Solver
from tf_simclr.evaluation.probes import chosen_regression

SLOW = [(60, 80, 3), (300, 8, 6)]
SIZES = [(60, 5, 2), (200, 20, 3), *(pytest.param(size, marks=pytest.mark.slow) for size in SLOW)]
"""Examples, features, classes."""
CLOSE = 1e-5
"""Relative: how far above the lower of the two objectives ours may be."""


def made(n: int, d: int, *, classes: int, balance: str, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Features of overlapping or separable classes, and labels that are even, halved from class to class, or all 0
    but one each."""
    rng = np.random.default_rng(n + d)
    shares = {"even": np.ones(classes), "halved": 0.5 ** np.arange(classes), "one": np.eye(classes)[0] + 1e-9}[balance]
    labels = rng.choice(classes, n, p=shares / shares.sum())
    labels[:classes] = np.arange(classes)
    return (rng.normal(size=(n, d)) + 0.6 * rng.normal(size=(classes, d))[labels]) * scale, labels


def objective(features, labels, weights, *, bias, l2) -> float:
    """In double precision, whatever the weights are in."""
    weights, bias = np.asarray(weights, np.float64), np.asarray(bias, np.float64)
    logits = features @ weights + bias
    losses = logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]
    return losses.sum() + l2 / 2 * np.square(weights).sum()


def of_sklearn(features, labels, l2: float) -> float:
    """The objective that scikit-learn ends at."""
    classes = labels.max() + 1
    model = LogisticRegression(C=(2 if classes == 2 else 1) / l2, tol=1e-9, max_iter=1000, solver="newton-cholesky")
    model.fit(features, labels)
    weights, bias = model.coef_.T, model.intercept_
    if classes == 2:
        weights, bias = np.hstack([-weights / 2, weights / 2]), np.r_[-bias / 2, bias / 2]
    return objective(features, labels, weights, bias=bias, l2=l2)


@pytest.mark.filterwarnings("ignore")  # scikit-learn's, of solvers that it falls back to: its own minimum is compared
@pytest.mark.parametrize("balance", ["even", "halved", "one"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_minimum_is_found_where_classes_are_unbalanced_and_the_penalty_is_weak(size, balance):
    n, d, classes = size
    for scale in (0.01, 1.0, 30.0):
        features, labels = made(n, d, classes=classes, balance=balance, scale=scale)
        for l2 in (1e-6, 1e-3, 1.0, 1e3):
            expected = of_sklearn(features, labels, l2)
            found = Solver(features, labels).fit(l2)
            ours = objective(features, labels, found.weights, bias=found.bias, l2=l2)
            assert found.converged
            assert ours <= expected * (1 + CLOSE) + 1e-12, f"scale {scale}, l2 {l2}: {ours} above {expected}"


@pytest.mark.parametrize("labels", ["one", "many"])
def test_what_does_not_fit_into_one_matrix_is_finished_by_conjugate_gradients(monkeypatch, labels):
    features, single = made(400, 30, classes=4, balance="halved", scale=1.0)
    given = single if labels == "one" else np.eye(4, dtype=int)[single]
    whole = Solver(features, given).fit(1e-4)
    monkeypatch.setattr(newton, "PARAMETERS", 0)
    iterated = Solver(features, given).fit(1e-4)
    assert iterated.converged
    scores = whole.scores(features)
    np.testing.assert_allclose(iterated.scores(features), scores, rtol=0, atol=1e-3 * np.abs(scores).max())


def test_what_stops_before_the_minimum_says_so(monkeypatch):
    monkeypatch.setattr(newton, "PARAMETERS", 0)
    features, labels = made(200, 20, classes=3, balance="halved", scale=1.0)
    assert not Solver(features, labels, max_iterations=3).fit(1e-6).converged


def test_single_precision_finds_it_too(monkeypatch):
    """With more features than `SMALL` they stay as they are."""
    features, labels = made(300, 20, classes=4, balance="halved", scale=1.0)
    features = features.astype(np.float32)
    expected = Solver(features, labels).fit(1e-3)
    monkeypatch.setattr(logistic, "SMALL", 0)
    found = Solver(features, labels).fit(1e-3)
    ours, best = (
        objective(features.astype(float), labels, fit.weights, bias=fit.bias, l2=1e-3) for fit in (found, expected)
    )
    assert ours <= best * (1 + 1e-4)


@pytest.mark.parametrize("standardise", [False, True])
@pytest.mark.parametrize("far", [0.0, 10.0, 1e3, 1e6])
@pytest.mark.parametrize(("precision", "small"), [("float32", True), ("float32", False), ("float64", False)])
@pytest.mark.parametrize("size", [(400, 20, 3), (40, 60, 3)], ids=["many", "few"])
def test_features_far_from_zero_are_told_apart_as_well_as_near_it(
    size, precision, small, far, standardise, monkeypatch
):
    """Weights in single precision left a mean of 1e6 no digit: the objective was off by 1e-3, "converged"."""
    n, d, classes = size
    features, labels = made(n, d, classes=classes, balance="halved", scale=1.0)
    features = (features + far).astype(precision)
    monkeypatch.setattr(logistic, "SMALL", 2**20 if small else 0)
    found = Solver(features, labels, standardise=standardise).fit(1e-2)
    exact = features.astype(np.float64)
    mean, stretch = exact.mean(axis=0), exact.std(axis=0) if standardise else np.ones(d)
    monkeypatch.setattr(logistic, "SMALL", 2**20)
    best = Solver((exact - mean) / stretch, labels).fit(1e-2)  # whose weights scikit-learn's are, in the tests above
    expected = objective((exact - mean) / stretch, labels, best.weights, bias=best.bias, l2=1e-2)
    ours = found.scores(features)
    losses = logsumexp(ours, axis=1) - ours[np.arange(n), labels]
    value = losses.sum() + 1e-2 / 2 * np.square(found.weights * stretch[:, None]).sum()
    assert found.converged
    assert abs(value / expected - 1) < (1e-8 if precision == "float64" or small else 1e-4)


def test_the_strength_does_not_hang_on_how_loose_a_path_is(monkeypatch):
    """One hit more of a fit that had not ended moved the strength 30-fold."""
    features, labels = made(400, 30, classes=4, balance="halved", scale=1.0)
    held = np.arange(400) % 5 == 0
    grid = np.logspace(-6, 3, 10)
    strict = chosen_regression(features, labels, held=held, grid=grid)
    monkeypatch.setattr(logistic, "SMALL", 0)
    loose = chosen_regression(features, labels, held=held, grid=grid)
    assert loose.l2 == strict.l2
    best = max(strict.validation.values())
    assert strict.l2 == max(l2 for l2, value in strict.validation.items() if value == best)
