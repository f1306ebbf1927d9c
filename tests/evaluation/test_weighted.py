"""Weighted metrics against those of `binary` (scikit-learn's) on images that are really repeated."""

import numpy as np
import pytest

from tf_simclr.errors import InputError
from tf_simclr.evaluation import binary
from tf_simclr.evaluation.binary import both_classes, group_weights, measures

PLAIN = {
    "accuracy": lambda scores, labels: ((scores > 0.5) == labels).mean(),
    "auc": binary.roc_auc,
    "average_precision": binary.average_precision,
    "sensitivity_at_90": lambda scores, labels: binary.sensitivity_at(scores, labels, specificity=0.9),
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


def test_all_images_of_a_patient_are_drawn_together_and_as_many_patients_as_there_are():
    groups, labels = np.array(list("aabbbcdd")), np.array([0, 1, 0, 0, 1, 1, 0, 0])
    weights = group_weights(groups, draws=4000, seed=1, fits=both_classes(labels))
    assert weights.shape == (4000, 8)
    first = [0, 2, 5, 6]  # one image a patient
    np.testing.assert_array_equal(weights[:, first].sum(axis=1), 4)
    for a, b in ((0, 1), (2, 3), (3, 4), (6, 7)):
        np.testing.assert_array_equal(weights[:, a], weights[:, b])
    assert (weights @ labels > 0).all()
    assert (weights @ (1 - labels) > 0).all()
    assert (weights[:, first] == 0).mean() == pytest.approx(0.75**4, abs=0.03)  # left out, nearly as with no condition


def test_too_few_patients_or_one_class_are_refused():
    with pytest.raises(InputError, match="at least two groups"):
        group_weights(["a"] * 3, draws=5, seed=0, fits=both_classes(np.array([0, 1, 1])))
    with pytest.raises(InputError, match="draws of patients must have both classes"):
        group_weights(list("ab"), draws=5, seed=0, fits=both_classes(np.zeros(2)))
    with pytest.raises(InputError, match="both classes"):
        measures(np.full(3, 0.5), np.ones(3, int), weights=np.ones((1, 3)))
