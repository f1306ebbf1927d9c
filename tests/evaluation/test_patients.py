"""Draws of patients, and weighted metrics against scikit-learn's on images that are really repeated."""

import numpy as np
import pytest

from tf_simclr.errors import InputError
from tf_simclr.evaluation import binary, patients
from tf_simclr.evaluation.binary import measures
from tf_simclr.evaluation.patients import bootstrap, weightings


def sensitivity_at_90(scores, labels):
    """The best of all thresholds that let nine tenths of the noes go."""
    cuts = [cut for cut in [*scores, np.inf] if (scores[labels == 0] < cut).mean() >= 0.9 - 1e-12]
    return max((scores[labels == 1] >= cut).mean() for cut in cuts)


PLAIN = {
    "accuracy": lambda scores, labels: ((scores > 0.5) == labels).mean(),
    "auc": binary.roc_auc,
    "average_precision": binary.average_precision,
    "sensitivity_at_90": sensitivity_at_90,
    "brier": binary.brier,
    "calibration_error": binary.expected_calibration_error,
}


@pytest.mark.parametrize("ties", [False, True])
def test_a_weight_of_k_is_the_same_as_k_copies(ties):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 120)
    scores = np.clip(rng.normal(0.4 + 0.2 * labels, 0.25), 0, 1)
    scores = np.round(scores, 1) if ties else scores
    weights = rng.integers(0, 4, (7, 120))
    weights[0] = 1
    found = measures(scores, labels, weights=weights.astype(float))
    assert list(found) == list(PLAIN)
    for draw, row in enumerate(weights):
        repeated = np.repeat(np.arange(120), row)
        for name, metric in PLAIN.items():
            assert found[name][draw] == pytest.approx(metric(scores[repeated], labels[repeated]), abs=1e-9), name


def drawn(groups, **options):
    return np.concatenate(list(weightings(groups, **options)))


def test_all_images_of_a_patient_are_drawn_together_and_as_many_patients_as_there_are():
    groups, labels = np.array(list("aabbbcdd")), np.array([0, 1, 0, 0, 1, 1, 0, 0])
    weights = drawn(groups, labels=labels, draws=4000, seed=1)
    assert weights.shape == (4000, 8)
    first = [0, 2, 5, 6]  # one image a patient
    np.testing.assert_array_equal(weights[:, first].sum(axis=1), 4)
    for a, b in ((0, 1), (2, 3), (3, 4), (6, 7)):
        np.testing.assert_array_equal(weights[:, a], weights[:, b])
    assert (weights @ labels > 0).all()
    assert (weights @ (1 - labels) > 0).all()
    assert (weights[:, first] == 0).mean() == pytest.approx(0.75**4, abs=0.03)  # left out, nearly as with no condition


def test_draws_within_strata_keep_the_number_of_patients_of_each_kind():
    groups, labels = np.array(list("aabcdef")), np.array([0, 1, 0, 0, 0, 1, 1])  # a has both, b, c, d no, e, f yes
    weights = drawn(groups, labels=labels, draws=500, seed=0, stratified=True)
    np.testing.assert_array_equal(weights[:, 0], 1)
    np.testing.assert_array_equal(weights[:, 2:5].sum(axis=1), 3)
    np.testing.assert_array_equal(weights[:, 5:].sum(axis=1), 2)
    assert len(np.unique(weights, axis=0)) > 20


def test_a_draw_with_one_class_is_drawn_again_and_its_number_stays():
    labels = np.array([1] + [0] * 9)
    weights = drawn(np.arange(10), labels=labels, draws=300, seed=0)
    assert len(weights) == 300
    assert (weights[:, 0] > 0).all()
    assert (drawn(np.arange(10), draws=300, seed=0)[:, 0] == 0).any()


def test_blocks_are_the_same_draws_as_one(monkeypatch):
    labels = np.arange(40) % 2
    whole = drawn(np.arange(40) // 2, labels=labels, draws=64, seed=3)
    monkeypatch.setattr(patients, "AT_ONCE", 40 * 16)
    assert len(list(weightings(np.arange(40) // 2, labels=labels, draws=64, seed=3))) == 4
    np.testing.assert_array_equal(drawn(np.arange(40) // 2, labels=labels, draws=64, seed=3), whole)


def test_the_standard_deviation_of_a_mean_over_patients_is_that_of_theory():
    rng = np.random.default_rng(0)
    values = np.repeat(rng.normal(size=200), 3)
    means = bootstrap(lambda weights: weights @ values / weights.sum(axis=1), np.repeat(np.arange(200), 3), draws=3000)
    assert means.std() == pytest.approx(values.std() / np.sqrt(200), rel=0.05)


def test_too_few_patients_or_one_class_are_refused(monkeypatch):
    with pytest.raises(InputError, match="at least two patients"):
        drawn(["a"] * 3, draws=5, labels=np.array([0, 1, 1]))
    with pytest.raises(InputError, match="labels must hold two classes"):
        drawn(list("ab"), draws=5, labels=np.zeros(2))
    monkeypatch.setattr(patients, "counted", lambda rng, stratum, rows: np.tile([2.0, 0.0], (rows, 1)))
    with pytest.raises(InputError, match="draws of patients must have two classes; there are too few"):
        drawn(list("ab"), draws=5, labels=np.array([0, 1]))
    with pytest.raises(InputError, match="both classes"):
        measures(np.full(3, 0.5), np.ones(3, int), weights=np.ones((1, 3)))
