import tracemalloc

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from tests.evaluation import oracles
from tf_simclr.errors import InputError
from tf_simclr.evaluation import probes


def examples(*, n=40, d=4, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    return rng.standard_normal((n, d)) + 0.8 * np.eye(classes, d)[labels], labels


@pytest.mark.parametrize("classes", [2, 3])
def test_logistic_regression_is_at_the_minimum_of_the_stated_objective(classes):
    features, labels = examples(classes=classes)
    probe = probes.logistic_regression(features, labels, l2=2.0, standardise=False)
    # Two classes share one weight vector w: the penalty w² / 2 is that of weights ±w / 2 at twice the strength.
    weights = probe.weights - probe.weights.mean(axis=1, keepdims=True)
    strength = 4.0 if classes == 2 else 2.0

    def loss(flat):
        matrix = flat[: weights.size].reshape(weights.shape)
        return oracles.penalised_loss(matrix, flat[weights.size :], features, labels, strength)

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


def test_features_in_single_precision_stay_in_it():
    features, labels = examples()
    assert probes.logistic_regression(features.astype(np.float32), labels).weights.dtype == np.float32


def test_a_probe_that_ran_out_of_iterations_says_so():
    features, labels = examples()
    assert not probes.logistic_regression(features, labels, l2=1e-6, max_iterations=2).converged


def test_the_selected_strength_is_the_best_on_validation_and_of_equals_the_strongest():
    (train, labels), (validation, truth) = examples(n=30, d=30), examples(n=200, d=30, seed=1)
    grid = np.logspace(-4, 4, 9)
    best, accuracies = probes.select_l2((train, labels), (validation, truth), grid=grid)
    cold = {
        l2: oracles.accuracy(probes.logistic_regression(train, labels, l2=l2).predict(validation), truth)
        for l2 in grid.tolist()
    }
    assert accuracies == pytest.approx(cold, abs=0.01)  # warm and cold starts end close to one minimum, not on it
    assert best == max(l2 for l2, score in accuracies.items() if score == max(accuracies.values()))
    assert min(accuracies.values()) < max(accuracies.values())


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


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": np.zeros(4, int)}, "at least two classes"),
        ({"labels": np.array([0, 1])}, "one label"),
        ({"labels": np.array([0, 1, 0, -1])}, "integers from 0"),
        ({"labels": np.array([0.0, 1, 0, 1])}, "integers from 0"),
        ({"features": np.zeros(4)}, "shape"),
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
