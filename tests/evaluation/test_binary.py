"""Metrics of yes-or-no questions by hand."""

import numpy as np
import pytest

from tf_simclr.errors import InputError
from tf_simclr.evaluation import binary

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 2, 60)
SCORES = np.round(np.clip(0.5 + 0.15 * (LABELS - 0.5) + RNG.normal(0, 0.2, 60), 0, 1), 2)  # with ties


def test_auc_is_the_share_of_pairs_in_the_right_order():
    pairs = [(a > b) + 0.5 * (a == b) for a in SCORES[LABELS == 1] for b in SCORES[LABELS == 0]]
    assert binary.roc_auc(SCORES, LABELS) == pytest.approx(np.mean(pairs))


def test_average_precision_is_the_step_sum():
    expected, found_before = 0.0, 0
    for threshold in sorted(set(SCORES), reverse=True):
        chosen = np.greater_equal(SCORES, threshold)
        found = LABELS[chosen].sum()
        expected += (found - found_before) / LABELS.sum() * found / chosen.sum()
        found_before = found
    assert binary.average_precision(SCORES, LABELS) == pytest.approx(expected)


def test_calibration_is_the_mean_gap_of_the_bins():
    gaps = []
    for low in np.arange(10) / 10:
        inside = np.array([min(int(s * 10), 9) == round(low * 10) for s in SCORES])
        if inside.any():
            gaps.append(inside.sum() * abs(SCORES[inside].mean() - LABELS[inside].mean()))
    assert binary.expected_calibration_error(SCORES, LABELS) == pytest.approx(sum(gaps) / 60)
    assert binary.brier(SCORES, LABELS) == pytest.approx(
        np.mean([(s - y) ** 2 for s, y in zip(SCORES, LABELS, strict=True)])
    )


def test_one_class_alone_is_refused():
    with pytest.raises(InputError, match=r"must hold both classes, 0 and 1. Received: found=\[1\]"):
        binary.roc_auc(SCORES, np.ones(60, int))
