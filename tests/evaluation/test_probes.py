import dataclasses
import tracemalloc

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from tests.evaluation import oracles
from tf_simclr.errors import InputError
from tf_simclr.evaluation import probes
from tf_simclr.evaluation.logistic import Solver
from tf_simclr.evaluation.metrics import METRICS, mean_average_precision


def examples(*, n=40, d=4, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    return rng.standard_normal((n, d)) + 0.8 * np.eye(classes, d)[labels], labels


@pytest.mark.parametrize("classes", [2, 3])
def test_logistic_regression_is_at_the_minimum_of_the_stated_objective(classes):
    features, labels = examples(classes=classes)
    probe = probes.logistic_regression(features, labels, l2=2.0, standardise=False)
    weights = probe.weights

    def loss(flat):
        matrix = flat[: weights.size].reshape(weights.shape)
        return oracles.penalised_loss(matrix, flat[weights.size :], features, labels, 2.0)

    gradient = approx_fprime(np.concatenate([weights.ravel(), probe.bias]), loss, 1e-6)
    assert probe.converged
    assert np.abs(gradient).max() < 0.02
    assert np.abs(approx_fprime(np.zeros(gradient.size), loss, 1e-6)).max() > 5


def test_standardising_makes_the_probe_blind_to_each_features_scale_and_offset():
    features, labels = examples()
    stretched = features * [1, 10, 100, 0.01] + [0, 5, -50, 1]
    ours, theirs = probes.logistic_regression(features, labels), probes.logistic_regression(stretched, labels)
    np.testing.assert_allclose(ours.scores(features), theirs.scores(stretched), atol=1e-6)


def test_standardising_keeps_the_scores_of_a_probe_on_standardised_features():
    features, labels = examples()
    scaled = (features - features.mean(0)) / features.std(0)
    plain = probes.logistic_regression(scaled, labels, standardise=False)
    np.testing.assert_allclose(
        probes.logistic_regression(features, labels).scores(features), plain.scores(scaled), atol=1e-6
    )


def test_a_constant_feature_changes_nothing():
    features, labels = examples()
    more = np.hstack([features, np.full((len(features), 1), 7.0)])
    probe = probes.logistic_regression(more, labels)
    np.testing.assert_allclose(
        probe.scores(more), probes.logistic_regression(features, labels).scores(features), atol=1e-6
    )


def test_a_class_without_training_examples_is_never_predicted():
    features, labels = examples()
    labels = np.array([0, 2, 5])[labels]
    probe = probes.logistic_regression(features, labels)
    assert probe.scores(features).shape == (40, 6)
    assert set(probe.predict(features)) == {0, 2, 5}


def test_features_in_single_precision_are_not_copied_into_double():
    features, labels = examples()
    probe = probes.logistic_regression(features.astype(np.float32), labels)
    many = np.tile(features.astype(np.float32), (5000, 5))
    probe = dataclasses.replace(probe, weights=np.tile(probe.weights, (5, 1)))
    tracemalloc.start()
    try:
        scores = probe.scores(many)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak - 2 * scores.nbytes < many.nbytes / 2
    np.testing.assert_allclose(scores[:40], many[:40].astype(np.float64) @ probe.weights + probe.bias, rtol=1e-12)


def test_a_probe_that_ran_out_of_iterations_says_so():
    features, labels = examples()
    assert not probes.logistic_regression(features, labels, l2=1e-6, max_iterations=2).converged


@pytest.mark.parametrize("precision", [np.float32, np.float64])
@pytest.mark.parametrize(("n", "d"), [(60, 5), (30, 80)])
@pytest.mark.parametrize("l2", [1e-4, 1.0, 1e3])
def test_logistic_regression_equals_scikit_learns(precision, n, d, l2):
    features, labels = examples(n=n, d=d)
    features = (3 * features + np.linspace(-5, 5, d)).astype(precision)
    theirs = LogisticRegression(C=1 / l2, tol=1e-10, max_iter=100_000).fit(features.astype(float), labels)
    ours = probes.logistic_regression(features, labels, l2=l2, standardise=False)
    tolerance = 1e-2 if precision == np.float32 else 1e-4
    expected = theirs.predict_proba(features)
    np.testing.assert_allclose(softmax(ours.scores(features), axis=1), expected, atol=tolerance)
    losses = [
        oracles.penalised_loss(w, b, features.astype(float), labels, l2)
        for w, b in ((ours.weights, ours.bias), (theirs.coef_.T, theirs.intercept_))
    ]
    resolution = 4 * n * np.finfo(precision).eps  # of a sum of n logarithms of numbers near 1
    assert losses[0] <= losses[1] * (1 + (1e-5 if precision == np.float32 else 1e-8)) + resolution


def test_the_path_of_strengths_ends_where_single_fits_do():
    features, labels = examples(n=200, d=20)
    solver = Solver(features, labels)
    path = [solver.fit(l2).scores(features) for l2 in (10.0, 1.0, 0.1, 0.01)]
    for l2, scores in zip((10.0, 1.0, 0.1, 0.01), path, strict=True):
        np.testing.assert_allclose(scores, Solver(features, labels).fit(l2).scores(features), atol=1e-3)


def test_several_classes_an_example_are_a_regression_each_without_what_is_unknown():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((80, 6))
    labels = (features[:, :3] + 0.5 * rng.standard_normal((80, 3)) > 0).astype(int)
    labels[rng.random(labels.shape) < 0.2] = -1
    ours = probes.logistic_regression(features, labels, l2=0.5, standardise=False)
    for c in range(3):
        known = labels[:, c] >= 0
        theirs = LogisticRegression(C=2, tol=1e-10, max_iter=10_000).fit(features[known], labels[known, c])
        np.testing.assert_allclose(ours.scores(features)[:, c], theirs.decision_function(features), atol=1e-4)


def test_features_are_neither_copied_nor_changed_by_a_fit():
    features, labels = examples(n=20_000, d=100)
    before = features.copy()
    tracemalloc.start()
    held = probes.hold_out(labels, 0.01)
    probes.chosen_regression(features, labels, held=held, grid=[1.0])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.8 * features.nbytes
    np.testing.assert_array_equal(features, before)


@pytest.mark.parametrize(("n", "d"), [(90, 30), (25, 60)])
def test_the_chosen_strength_is_the_best_on_what_was_held_out_and_is_refitted_on_all(n, d):
    features, labels = examples(n=n, d=d)
    held, grid = probes.hold_out(labels, 0.3), np.logspace(-4, 4, 9)
    choice = probes.chosen_regression(features, labels, held=held, grid=grid)
    cold = {
        l2: probes.logistic_regression(features[~held], labels[~held], l2=l2, standardise=False).predict(features[held])
        for l2 in grid.tolist()
    }
    expected = {l2: oracles.accuracy(found, labels[held]) for l2, found in cold.items()}
    assert choice.validation == pytest.approx(expected, abs=1.01 / held.sum())  # paths stop close to the minimum
    assert choice.l2 == max(l2 for l2, v in choice.validation.items() if v == max(choice.validation.values()))
    assert min(choice.validation.values()) < max(choice.validation.values())
    whole = probes.logistic_regression(features, labels, l2=choice.l2, standardise=False)
    np.testing.assert_allclose(choice.classifier.scores(features), whole.scores(features), atol=1e-3)


def test_the_choice_is_by_the_metric_that_is_asked_for():
    features, labels = examples(n=120, d=10, classes=4)
    labels = np.eye(4, dtype=int)[labels]
    held = np.arange(120) % 3 == 0
    choice = probes.chosen_regression(
        features, labels, held=held, grid=[1.0, 10.0], metric=METRICS["mean_average_precision"]
    )
    alone = probes.logistic_regression(features[~held], labels[~held], l2=10.0, standardise=False)
    expected = mean_average_precision(alone.scores(features[held]), labels[held])
    assert choice.validation[10.0] == pytest.approx(expected, abs=0.01)


def test_a_class_that_is_only_held_out_is_learned_in_the_end():
    features, labels = examples(n=60, d=6)
    held = (labels == 2) | (np.arange(60) % 4 == 0)
    choice = probes.chosen_regression(features, labels, held=held, grid=[0.1, 1.0])
    assert set(choice.classifier.predict(features)) == {0, 1, 2}


def test_examples_are_held_out_class_by_class_and_by_the_seed():
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    held = probes.hold_out(labels, 0.1, seed=1)
    assert np.bincount(labels[held]).tolist() == [5, 3, 2]
    np.testing.assert_array_equal(held, probes.hold_out(labels, 0.1, seed=1))
    assert (held != probes.hold_out(labels, 0.1, seed=2)).any()
    assert probes.hold_out(np.arange(20) // 2, 0.9).sum() == 10  # each class keeps one


def test_the_papers_grid_has_45_logarithmic_steps():
    assert len(probes.L2_GRID) == 45
    assert (probes.L2_GRID[0], probes.L2_GRID[-1]) == pytest.approx((1e-6, 1e5))
    np.testing.assert_allclose(np.diff(np.log10(probes.L2_GRID)), 11 / 44)


@pytest.mark.parametrize("block_bytes", [1, 5000, 2**26])
def test_knn_votes_equal_the_loop_in_blocks_of_any_size(block_bytes):
    (features, labels), (queries, _) = examples(n=50), examples(n=21, seed=1)
    scores = probes.knn_scores(queries, (features, labels), k=7, temperature=0.1, block_bytes=block_bytes)
    expected = [oracles.knn_votes(query, features, labels, 7, 0.1) for query in queries]
    np.testing.assert_allclose(scores, expected, rtol=1e-9, atol=1e-12)


def test_nearest_neighbours_are_those_of_a_full_sort_the_nearest_first():
    (features, _), (queries, _) = examples(n=50), examples(n=9, seed=1)
    indices, cosines = probes.nearest(queries, features, k=50)
    for query, row, values in zip(queries, indices, cosines, strict=True):
        similarities = [oracles.cosine(query, f) for f in features]
        assert row.tolist() == sorted(range(50), key=lambda i: -similarities[i])
        np.testing.assert_allclose(values, sorted(similarities, reverse=True))


@pytest.mark.parametrize(("n", "k"), [(1000, 5), (1003, 5), (1000, 40), (333, 20), (16, 1), (17, 1)])
def test_neighbours_found_by_groups_are_those_of_a_full_sort(n, k):
    rng = np.random.default_rng(n)
    cosines = rng.standard_normal((7, n)).astype(np.float32)
    cosines[:, :: n // 5] = 9 - np.arange(len(cosines[0, :: n // 5]))  # neighbours in the same group
    assert probes.candidates(cosines, k) is not None or n < 400
    columns, values = probes.block_nearest(cosines, k)
    np.testing.assert_array_equal(columns, np.argsort(-cosines, axis=1, kind="stable")[:, :k])
    np.testing.assert_array_equal(values, -np.sort(-cosines, axis=1)[:, :k])


def test_votes_stay_finite_at_a_temperature_where_the_plain_exponential_overflows():
    features, labels = examples()
    scores = probes.knn_scores(features, (features, labels), k=5, temperature=1e-4)
    assert scores.argmax(1).tolist() == labels.tolist()  # each is its own nearest neighbour
    np.testing.assert_allclose(scores.sum(1), 1)


def test_neighbours_need_memory_for_one_block_of_similarities_only():
    features = np.random.default_rng(0).standard_normal((4000, 8)).astype(np.float32)
    tracemalloc.start()
    probes.nearest(features, features, k=5, block_bytes=2**20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20 < 4000 * 4000 * 4


def test_features_are_not_copied_to_be_searched():
    features = np.random.default_rng(0).standard_normal((4000, 512)).astype(np.float32)
    tracemalloc.start()
    probes.nearest(features[:64], features, k=5, block_bytes=2**18)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < features.nbytes / 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": np.zeros(4, int)}, "at least two classes"),
        ({"labels": np.array([0, 1])}, "one label"),
        ({"labels": np.array([0, 1, 0, -1])}, "integers from 0"),
        ({"labels": np.array([0.0, 1, 0, 1])}, "integers from 0"),
        ({"features": np.zeros(4)}, "shape"),
        ({"features": np.zeros((4, 2), int)}, "float32 or float64"),
        ({"labels": np.full((4, 2), 2)}, "rows of 1, 0 and -1"),
        ({"labels": np.ones((4, 2), int)}, "present in some examples and absent from others"),
        ({"l2": 0.0}, "above 0"),
    ],
)
def test_examples_that_do_not_fit_are_refused_with_what_came(changed, message):
    values = {"features": np.arange(8.0).reshape(4, 2), "labels": np.array([0, 1, 0, 1])} | changed
    with pytest.raises(InputError, match=f"{message}.*Received: "):
        probes.logistic_regression(**values)


@pytest.mark.parametrize("options", [{"k": 0}, {"k": 5}, {"k": 2, "temperature": 0.0}])
def test_options_outside_their_range_are_refused(options):
    with pytest.raises(InputError, match=r"must .*Received: "):
        probes.knn_scores(np.eye(4), (np.eye(4), np.arange(4)), **options)
