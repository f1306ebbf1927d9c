"""Intervals of AUCs, shares and differences against formulas by hand, and how often they cover the truth."""

import itertools

import numpy as np
import pytest
from scipy.stats import binomtest, norm
from sklearn.metrics import average_precision_score, roc_auc_score

from tf_simclr.errors import InputError
from tf_simclr.evaluation import intervals
from tf_simclr.evaluation.intervals import (
    areas,
    auc_interval,
    holm,
    paired_difference,
    precision_interval,
    separated,
    share_interval,
)
from tf_simclr.evaluation.patients import bootstrap
from tools.interval_coverage import SHAPES, Case, _true, covered, simulated


def two_scores(count: int = 80, *, seed: int = 0, ties: bool = False):
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % 3 == 0).astype(int)
    shared = rng.normal(size=count)
    scores = np.stack([labels + shared + rng.normal(size=count), 0.3 * labels + shared + rng.normal(size=count)])
    return np.round(scores) if ties else scores, labels


def delong_by_hand(first, second, labels):
    """Covariance of two AUCs by the sums over pairs of DeLong et al., Section 3."""

    def psi(a, b):
        return 1.0 if a > b else 0.5 if a == b else 0.0

    yes, no = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    v10, v01 = [], []
    for s in (first, second):
        table = np.array([[psi(s[i], s[j]) for j in no] for i in yes])
        v10.append(table.mean(axis=1))
        v01.append(table.mean(axis=0))
    return np.cov(v10) / len(yes) + np.cov(v01) / len(no)


@pytest.mark.parametrize("ties", [False, True])
def test_the_covariance_of_single_images_is_delongs(ties):
    scores, labels = two_scores(ties=ties)
    found = areas(scores, labels)
    np.testing.assert_allclose(found.values, [roc_auc_score(labels, row) for row in scores])
    np.testing.assert_allclose(found.covariance, delong_by_hand(*scores, labels), rtol=1e-9)


def test_images_that_are_copies_within_a_patient_count_once():
    scores, labels = two_scores()
    alone = areas(scores, labels)
    many = areas(np.repeat(scores, 5, axis=1), np.repeat(labels, 5), patients=np.repeat(np.arange(80), 5))
    np.testing.assert_allclose(many.covariance, alone.covariance, rtol=1e-9)
    assert many.interval() == pytest.approx(alone.interval(), abs=1e-6)
    as_if_new = areas(np.repeat(scores, 5, axis=1), np.repeat(labels, 5)).interval()
    assert np.diff(as_if_new) < 0.6 * np.diff(many.interval())


def test_the_variance_over_patients_is_that_of_a_bootstrap_over_them():
    rng = np.random.default_rng(1)
    patients = np.arange(600) // 3
    labels = (rng.uniform(size=600) < 0.2 + 0.4 * (patients % 2)).astype(int)  # patients with both
    scores = labels + rng.normal(size=200)[patients] + rng.normal(size=600)
    drawn = bootstrap(
        lambda weights: np.array(
            [roc_auc_score(labels, scores, sample_weight=row) for row in weights]
        ),
        patients, labels=labels, draws=600,
    )  # fmt: skip
    assert areas(scores, labels, patients=patients).covariance[0, 0] == pytest.approx(drawn.var(), rel=0.15)


def test_with_many_patients_the_interval_is_delongs():
    scores, labels = two_scores(6000)
    found = areas(scores, labels)
    wald = found.values[0] + norm.ppf([0.025, 0.975]) * np.sqrt(found.covariance[0, 0])
    np.testing.assert_allclose(found.interval(0), wald, atol=0.001)


def test_a_perfect_separation_has_a_width_and_is_told():
    labels = np.repeat([0, 1], [8, 6])
    assert separated(np.arange(14.0), labels)
    assert not separated(np.r_[np.arange(7.0), 9, 8, np.arange(10, 15)], labels)
    assert not separated(np.r_[np.zeros(13), 0.0], labels)
    low, high = auc_interval(np.arange(14.0), labels)
    assert high == 1
    assert 0.6 < low < 0.8
    wilsons = binomtest(600, 600).proportion_ci(method="wilson").low  # which has the largest variance that there is
    assert 0.996 > auc_interval(np.arange(1400.0), np.repeat(labels, 100))[0] > wilsons
    turned = auc_interval(-np.arange(14.0), labels)
    assert turned == pytest.approx((0, 1 - low))


def test_a_share_of_single_images_has_wilsons_interval():
    for hits, count in ((0, 10), (3, 10), (10, 10), (51, 80)):
        wanted = binomtest(hits, count).proportion_ci(method="wilson")
        found = share_interval(np.arange(count) < hits)
        assert found == pytest.approx((wanted.low, wanted.high), abs=1e-6)
    once = share_interval(np.arange(30) < 20)
    tenfold = share_interval(np.repeat(np.arange(30) < 20, 10), patients=np.repeat(np.arange(30), 10))
    assert tenfold == pytest.approx(once, abs=0.01)
    with pytest.raises(InputError, match="at least one image"):
        share_interval(np.zeros(0))


def test_a_difference_is_delongs_test_and_its_interval_says_the_same():
    scores, labels = two_scores(300)
    found = paired_difference(areas(scores, labels), first=0, second=1)
    covariance = delong_by_hand(*scores, labels)
    deviation = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    gain = roc_auc_score(labels, scores[0]) - roc_auc_score(labels, scores[1])
    assert found.value == pytest.approx(gain)
    assert found.p == pytest.approx(2 * norm.sf(abs(gain) / deviation))
    assert (found.low, found.high) == pytest.approx((gain - 1.96 * deviation, gain + 1.96 * deviation), abs=0.02)
    assert (found.low > 0) == (found.p < 0.05)


def test_two_perfect_scores_leave_their_difference_open_and_one_beside_itself_does_not():
    labels = np.repeat([0, 1], [8, 6])
    perfect = np.stack([np.arange(14.0), np.r_[np.arange(8.0)[::-1], np.arange(8.0, 14)[::-1]]])
    found = paired_difference(areas(perfect, labels), first=0, second=1)
    assert found.value == 0
    assert found.low < -0.2 < 0.2 < found.high
    assert found.p == 1
    scores, labels = two_scores()
    same = paired_difference(areas(scores[[0, 0]], labels), first=0, second=1)
    assert (same.low, same.high, same.p) == pytest.approx((0, 0, 1), abs=1e-6)


def test_holms_step_down_by_hand():
    values = [0.02, 0.5, 0.004, 0.03]
    order = sorted(range(4), key=values.__getitem__)
    wanted = [0.0] * 4
    for step, place in enumerate(order):
        wanted[place] = max([wanted[order[step - 1]] if step else 0, min(1, values[place] * (4 - step))])
    assert holm(values) == pytest.approx(wanted)
    assert holm([]) == []


@pytest.mark.parametrize(("auc", "images"), list(itertools.product((0.75, 0.85, 0.95, 0.99), (1, 3))))
def test_the_interval_covers_the_true_auc_at_six_and_eight_patients(auc, images):
    case = Case(auc, positives=6, negatives=8, images=images, alike=0.6 if images > 1 else 0.0)
    share, width = covered(case, auc_interval, trials=400, seed=1)
    assert share >= 0.93
    assert width < {0.75: 0.6, 0.85: 0.55, 0.95: 0.45, 0.99: 0.4}[auc]


@pytest.mark.parametrize("auc", [0.75, 0.95])
def test_the_interval_covers_the_true_auc_at_ten_and_forty(auc):
    case = Case(auc, positives=10, negatives=40, images=3, alike=0.6)
    share, width = covered(case, auc_interval, trials=300, seed=2)
    assert share >= 0.93
    assert width < 0.4


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("auc", "positives", "negatives"), [(0.95, 6, 8), (0.85, 10, 40)])
def test_the_interval_covers_the_true_auc_whatever_the_scores_are_like(auc, positives, negatives, shape):
    case = Case(auc, positives=positives, negatives=negatives, shape=shape)
    share, width = covered(case, auc_interval, trials=400, seed=3)
    assert share >= 0.93
    assert width < 0.45


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["normal", "t of 3", "false alarms"])
@pytest.mark.parametrize(("auc", "positives", "negatives"), [(0.95, 6, 8), (0.85, 10, 40), (0.95, 50, 200)])
def test_the_interval_covers_the_true_average_precision(auc, positives, negatives, shape):
    case = Case(auc, positives=positives, negatives=negatives, shape=shape)
    share, width = covered(case, precision_interval, trials=200, seed=4, measure="average_precision")
    assert share >= 0.935 - 2 * np.sqrt(0.935 * 0.065 / 200)  # measured: 93.5 % and more, of 400 studies each
    assert width < 0.6


@pytest.mark.parametrize("shape", SHAPES)
def test_the_simulation_has_the_average_precision_that_it_says(shape):
    case = Case(0.85, positives=4000, negatives=6000, shape=shape)
    (scores, labels, _), *_ = simulated(case, trials=1, seed=0)
    assert average_precision_score(labels, scores) == pytest.approx(_true(case, "average_precision"), abs=0.02)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_simulation_has_the_auc_that_it_says(shape):
    case = Case(0.85, positives=40, negatives=60, images=2, alike=0.5, shape=shape)
    found = [intervals.areas(*drawn[:2]).values[0] for drawn in simulated(case, trials=200, seed=0)]
    assert np.mean(found) == pytest.approx(0.85, abs=0.01 if shape != "ties" else 0.02)
