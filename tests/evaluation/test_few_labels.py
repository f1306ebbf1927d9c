import statistics

import numpy as np
import pytest

from tests.evaluation import oracles
from tf_simclr.errors import InputError
from tf_simclr.evaluation.probes import Comparison, compare, few_label_draws, logistic_regression


@pytest.fixture
def labels():
    return np.random.default_rng(0).permutation(np.repeat([0, 1, 4], [20, 30, 15]))


def test_each_draw_holds_so_many_different_examples_of_each_class(labels):
    for rows in few_label_draws(labels, 10, draws=7):
        assert len(set(rows.tolist())) == 30
        assert {c: labels[rows].tolist().count(c) for c in (0, 1, 4)} == {0: 10, 1: 10, 4: 10}


def test_draws_differ_from_each_other_and_repeat_with_their_seed(labels):
    first, again, other = (few_label_draws(labels, 5, draws=5, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert len({tuple(rows) for rows in first}) == 5


def test_every_example_is_as_likely_as_any_other_of_its_class(labels):
    rows = np.concatenate(few_label_draws(labels, 5, draws=2000))
    share = np.bincount(rows, minlength=len(labels)) / 2000
    expected = 5 / np.bincount(labels)[labels]
    np.testing.assert_allclose(share, expected, atol=5 * np.sqrt(0.25 / 2000))


def test_too_few_examples_of_a_class_are_refused_with_their_number(labels):
    with pytest.raises(InputError, match=r"Received: per_class=16, fewest=15"):
        few_label_draws(labels, 16)


def test_all_representations_are_probed_on_the_same_draws(labels):
    rng = np.random.default_rng(1)
    good = rng.standard_normal((65, 3)) + 2 * np.eye(5, 3)[labels]
    noise = rng.standard_normal((65, 3))
    draws = few_label_draws(labels[:50], 3, draws=3)
    result = compare(
        {"good": (good[:50], good[50:]), "noise": (noise[:50], noise[50:])}, (labels[:50], labels[50:]), draws=draws
    )
    for name, values in (("good", good), ("noise", noise)):
        expected = [
            oracles.accuracy(logistic_regression(values[rows], labels[rows]).predict(values[50:]), labels[50:])
            for rows in draws
        ]
        assert result.accuracies[name].tolist() == pytest.approx(expected)
    assert result.mean("good") > result.mean("noise")


def test_spread_and_paired_gain_are_those_of_the_statistics_module():
    a, b = [0.9, 0.7, 0.8], [0.6, 0.5, 0.3]
    result = Comparison({"a": np.array(a), "b": np.array(b)})
    assert (result.mean("a"), result.spread("a")) == pytest.approx((statistics.mean(a), statistics.stdev(a)))
    differences = [x - y for x, y in zip(a, b, strict=True)]
    assert result.gain("a", "b") == pytest.approx((statistics.mean(differences), statistics.stdev(differences)))


def test_one_draw_has_no_spread_and_is_refused(labels):
    with pytest.raises(InputError, match="at least two draws"):
        compare({"x": (np.eye(65), np.eye(65))}, (labels, labels), draws=few_label_draws(labels, 2, draws=1))
