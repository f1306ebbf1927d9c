import numpy as np
import pytest

from tests.evaluation import oracles
from tf_simclr.errors import InputError
from tf_simclr.evaluation import metrics


@pytest.fixture
def scored():
    rng = np.random.default_rng(0)
    return rng.integers(0, 4, (60, 7)).astype(float), rng.integers(0, 7, 60)  # few values: many ties


def test_accuracy_equals_the_loop(scored):
    scores, labels = scored
    assert metrics.accuracy(scores.argmax(1), labels) == pytest.approx(oracles.accuracy(scores.argmax(1), labels))


@pytest.mark.parametrize("k", [1, 2, 5, 7])
def test_top_k_equals_a_full_sort_also_with_ties(scored, k):
    assert metrics.top_k_accuracy(*scored, k=k) == pytest.approx(oracles.top_k_accuracy(*scored, k))


def test_top_1_is_the_accuracy_of_argmax(scored):
    scores, labels = scored
    assert metrics.top_k_accuracy(scores, labels, k=1) == metrics.accuracy(scores.argmax(1), labels)


def test_constant_scores_get_no_more_than_chance_from_their_ties():
    assert metrics.top_k_accuracy(np.zeros((10, 10)), np.arange(10), k=3) == 0.3


def test_mean_per_class_weighs_classes_equally(scored):
    scores, labels = scored
    labels = np.where(labels > 3, 0, labels)
    expected = oracles.mean_per_class_accuracy(scores.argmax(1), labels)
    assert metrics.mean_per_class_accuracy(scores.argmax(1), labels) == pytest.approx(expected)
    assert expected != pytest.approx(metrics.accuracy(scores.argmax(1), labels))


@pytest.mark.parametrize("known", [1.0, 0.8])
def test_average_precision_equals_the_devkits_loop(known):
    rng = np.random.default_rng(5)
    scores = rng.standard_normal((57, 6))
    labels = (scores + 2 * rng.standard_normal(scores.shape) > 0.8).astype(int)
    labels[rng.random(labels.shape) > known] = -1
    expected = [oracles.eleven_point_average_precision(scores[:, c], labels[:, c]) for c in range(6)]
    np.testing.assert_allclose(metrics.average_precisions(scores, labels), expected)
    assert metrics.mean_average_precision(scores, labels) == pytest.approx(np.mean(expected))


def test_average_precision_at_recalls_that_fractions_round():
    # Ten present examples, each followed by one that is absent: recall r / 10 is reached at precision r / (2 r - 1).
    scores, labels = -np.arange(20.0)[:, None], np.tile([1, 0], 10)[:, None]
    expected = np.mean([1, *(r / (2 * r - 1) for r in range(1, 11))])
    assert metrics.mean_average_precision(scores, labels) == pytest.approx(expected)


def test_a_class_that_never_occurs_has_no_average_precision():
    scores, labels = np.array([[0.9, 0.1], [0.2, 0.3]]), np.array([[1, 0], [0, 0]])
    assert np.isnan(metrics.average_precisions(scores, labels)[1])
    assert metrics.mean_average_precision(scores, labels) == 1


@pytest.mark.parametrize("name", metrics.METRICS)
def test_every_metric_takes_scores_and_gives_its_interval(name):
    metric, rng = metrics.METRICS[name], np.random.default_rng(0)
    labels = rng.integers(0, 3, 90)
    scores = np.eye(3)[labels] + 0.8 * rng.standard_normal((90, 3))
    labels = np.eye(3, dtype=int)[labels] if metric.ranks else labels
    low, high = metric.interval(scores, labels)
    assert 0.3 < low < metric(scores, labels) < high < 1
    assert high - low < 0.4


def test_bootstrap_interval_is_the_normal_one_for_a_mean_of_many_values():
    hits = np.arange(2000) < 1500
    low, high = metrics.bootstrap_interval(np.mean, [hits], draws=4000)
    half = 1.96 * np.sqrt(0.75 * 0.25 / 2000)
    assert (low, high) == pytest.approx((0.75 - half, 0.75 + half), abs=0.1 * half)


def test_bootstrap_covers_the_true_accuracy_at_its_level():
    rng = np.random.default_rng(1)
    samples = rng.random((300, 100)) < 0.7
    intervals = [metrics.bootstrap_interval(np.mean, [s], level=0.8, draws=200, seed=i) for i, s in enumerate(samples)]
    covered = np.mean([low <= 0.7 <= high for low, high in intervals])
    assert covered == pytest.approx(0.8, abs=4 * np.sqrt(0.8 * 0.2 / 300))


def test_bootstrap_draws_the_same_rows_of_all_arrays_and_repeats_with_its_seed():
    labels = np.arange(50)
    assert metrics.bootstrap_interval(metrics.accuracy, [labels, labels]) == (1, 1)
    values = np.random.default_rng(0).random(50)
    first, again, other = (metrics.bootstrap_interval(np.mean, [values], seed=s) for s in (3, 3, 4))
    assert first == again != other


@pytest.mark.parametrize(
    "call",
    [
        lambda: metrics.accuracy(np.zeros(3), np.zeros(2)),
        lambda: metrics.accuracy(np.zeros(0), np.zeros(0)),
        lambda: metrics.top_k_accuracy(np.zeros((2, 3)), np.zeros(2, int), k=4),
        lambda: metrics.bootstrap_interval(np.mean, [np.zeros(2), np.zeros(3)]),
        lambda: metrics.bootstrap_interval(np.mean, [np.zeros(2)], level=95),
    ],
)
def test_input_that_does_not_fit_is_refused_with_what_came(call):
    with pytest.raises(InputError, match="Received: "):
        call()
