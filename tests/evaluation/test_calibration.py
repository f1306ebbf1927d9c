"""Platt's scaling against a general optimizer, and what a calibration says of patients it was not counted on."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from tf_simclr.errors import InputError
from tf_simclr.evaluation.calibration import calibrate, logit, platt


def drawn(count: int, *, slope: float = 2.0, intercept: float = -1.0, seed: int = 0):
    """Scores, and labels that are positive as often as expit(slope × score + intercept) says."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 1.5, count)
    return scores, (rng.uniform(size=count) < 1 / (1 + np.exp(-(slope * scores + intercept)))).astype(int)


def by_hand(scores, labels, weights):
    """Platt's objective, minimized by a method that knows nothing of it."""
    positives, negatives = weights[labels == 1].sum(), weights[labels == 0].sum()
    targets = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))

    def loss(at):
        z = at[0] * scores + at[1]
        return (weights * (np.log1p(np.exp(-np.abs(z))) + np.maximum(z, 0) - targets * z)).sum()

    return minimize(loss, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 4000}).x


def test_scaling_finds_what_a_general_optimizer_finds_for_each_weighting():
    scores, labels = drawn(120)
    weights = np.random.default_rng(1).integers(0, 4, (3, 120)).astype(float)
    found = platt(scores, labels, weights=weights)
    assert found.shape == (3, 2)
    for row, weight in zip(found, weights, strict=True):
        np.testing.assert_allclose(row, by_hand(scores, labels, weight), atol=1e-5)


def test_scores_that_tell_all_images_apart_stay_finite_and_large_ones_are_no_trouble():
    scores = np.array([-900.0, -800.0, 700.0, 1000.0])
    slope, intercept = platt(scores, np.array([0, 0, 1, 1]))
    said = expit(slope * scores + intercept)
    assert np.isfinite([slope, intercept]).all()
    np.testing.assert_allclose(said[[0, 1]].mean(), 1 / 4, atol=0.05)  # Platt's targets of two and two
    np.testing.assert_allclose(said[[2, 3]].mean(), 3 / 4, atol=0.05)


def test_a_calibration_undoes_overconfidence_for_patients_it_was_not_counted_on():
    scores, labels = drawn(1500)
    found = calibrate(4 * scores + 3, labels, patients=np.arange(1500) // 2)
    new, truth = drawn(20000, seed=5)
    said = found(4 * new + 3)
    for low in np.arange(0, 1, 0.2):
        within = (said >= low) & (said < low + 0.2)
        assert abs(truth[within].mean() - said[within].mean()) < 0.05
    np.testing.assert_allclose([4 * found.slope, 3 * found.slope + found.intercept], [2.0, -1.0], atol=0.3)


def test_the_spread_holds_the_heads_and_shrinks_with_more_patients():
    few, many = (calibrate(*drawn(count)) for count in (60, 1200))
    widths = [np.ptp(logit(np.array(found.spread(np.array([0.4, 0.4]))))) for found in (few, many)]
    assert widths[1] < widths[0] / 3  # of log-odds; by the square root of 20 it would be 4.5
    low, high = many.spread(np.array([-1.0, 1.0]))
    assert low < many(np.array(-1.0)) < many(np.array(1.0)) < high


def test_images_of_one_patient_are_one_piece_of_evidence():
    scores, labels = drawn(60)
    alone = calibrate(scores, labels).spread(np.array([0.0]))
    tenfold = [np.repeat(x, 10) for x in (scores, labels, np.arange(60))]
    together = calibrate(tenfold[0], tenfold[1], patients=tenfold[2]).spread(np.array([0.0]))
    as_if_new = calibrate(tenfold[0], tenfold[1]).spread(np.array([0.0]))
    assert np.ptp(together) > 0.7 * np.ptp(alone) > 1.5 * np.ptp(as_if_new)


def test_images_alike_are_counted_as_they_are():
    found = calibrate(*drawn(300))
    count, positives, low, high = found.alike(0.3, images=30)
    nearest = sorted(range(300), key=lambda i: abs(found.probabilities[i] - 0.3))[:30]
    assert (count, positives) == (30, found.labels[nearest].sum())
    assert (low, high) == (found.probabilities[nearest].min(), found.probabilities[nearest].max())


@pytest.mark.parametrize(
    ("scores", "labels", "words"),
    [
        (np.zeros(20), np.zeros(20, int), "both classes"),
        (np.full(20, np.nan), np.arange(20) % 2, "finite"),
        (np.zeros(20), np.arange(19) % 2, "each held-out image"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(scores, labels, words):
    with pytest.raises(InputError, match=words):
        calibrate(scores, labels)


def test_log_odds_of_certainty_are_finite():
    np.testing.assert_allclose(expit(logit(np.array([0.0, 0.2, 1.0]))), [0, 0.2, 1], atol=1e-6)


@pytest.mark.parametrize(
    ("scores", "labels", "patients", "words"),
    [
        (np.arange(9.0), np.arange(9) % 2, np.arange(9), "9 held-out patients"),
        (np.arange(60.0), np.arange(60) // 30, np.arange(60) // 10, "6 held-out patients"),
        (np.arange(40.0), (np.arange(40) > 37).astype(int), np.arange(40), "2 of the rarer class"),
        (-np.arange(40.0), np.arange(40) // 20, np.arange(40), "higher scores are less often positive"),
    ],
    ids=["few", "few with many images", "few of a class", "the wrong way round"],
)
def test_where_there_is_nothing_to_count_on_scores_stay_as_they_are_and_it_is_said(scores, labels, patients, words):
    found = calibrate(scores, labels, patients=patients)
    assert words in found.missing
    np.testing.assert_allclose(found(np.array([-1.0, 2.0])), expit([-1.0, 2.0]))
    assert found.spread(np.array([-1.0, 1.0])) == pytest.approx(np.quantile(expit([-1, 1]), [0.025, 0.975]))
    assert calibrate(*drawn(40)).missing == ""
