"""Several findings an image, against scikit-learn, and unknown labels that do not count."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from tf_simclr.errors import InputError
from tf_simclr.evaluation import multi_label
from tf_simclr.evaluation.intervals import auc_interval
from tf_simclr.evaluation.patients import bootstrap
from tf_simclr.evaluation.probes import chosen_regression, logistic_regression

NAMES = ("Mass", "Edema", "Hernia", "Effusion")


def made(count: int = 240, *, seed: int = 0):
    """Scores, labels with unknown ones, and patients; nobody has the third finding."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (count, 4))
    labels[:, 2] = 0
    scores = labels * [1.0, 0.5, 1.0, 2.0] + rng.normal(size=(count, 4))
    labels[rng.uniform(size=labels.shape) < 0.2] = -1
    return scores, labels, np.arange(count) // 2


def test_each_finding_is_scikit_learns_over_its_known_images():
    scores, labels, patients = made()
    found = multi_label.measured(scores, labels, names=NAMES, patients=patients)
    for column, name in enumerate(NAMES):
        of, known = found["findings"][name], labels[:, column] >= 0
        truth, said = labels[known, column], scores[known, column]
        assert (of["images"], of["positives"], of["unknown"]) == (known.sum(), truth.sum(), (~known).sum())
        if name == "Hernia":
            assert "none of the" in of["why"]
            continue
        assert of["auc"]["value"] == pytest.approx(roc_auc_score(truth, said))
        assert of["average_precision"]["value"] == pytest.approx(average_precision_score(truth, said))
        assert (of["auc"]["low"], of["auc"]["high"]) == auc_interval(said, truth, patients=patients[known])
        assert of["average_precision"]["low"] < of["average_precision"]["value"] < of["average_precision"]["high"]


def test_the_mean_leaves_out_what_has_no_auc_and_says_so():
    scores, labels, patients = made()
    found = multi_label.measured(scores, labels, names=NAMES, patients=patients)
    with_one = [found["findings"][name]["auc"]["value"] for name in NAMES if name != "Hernia"]
    mean = found["mean_auc"]
    assert mean["value"] == pytest.approx(np.mean(with_one)) == pytest.approx(multi_label.mean_auc(scores, labels))
    assert (mean["over"], mean["without"]) == (3, ["Hernia"])
    text = "\n".join(multi_label.lines(found))
    assert "mean AUC of 3 findings" in text
    assert "without Hernia" in text
    nothing = multi_label.measured(scores, np.zeros_like(labels), names=NAMES)
    assert nothing["mean_auc"] is None
    assert multi_label.lines(nothing)[-1] == "no finding has an AUC"


def test_the_interval_of_the_mean_is_that_of_a_bootstrap_over_patients():
    scores, labels, patients = made(900)
    mean = multi_label.measured(scores, labels, names=NAMES, patients=patients)["mean_auc"]

    def of_draws(weights):
        rows = [np.repeat(np.arange(900), row.astype(int)) for row in weights]
        return np.array([multi_label.mean_auc(scores[r], labels[r]) for r in rows])

    drawn = bootstrap(of_draws, patients, draws=300)
    assert mean["high"] - mean["low"] == pytest.approx(3.92 * drawn.std(), rel=0.15)


def test_several_trainings_are_averaged_and_a_column_that_nothing_was_learned_of_is_told():
    scores, labels, _ = made()
    other = scores + np.random.default_rng(1).normal(size=scores.shape)
    both = np.stack([scores, other])
    both[:, :, 1] = np.nan
    found = multi_label.measured(both, labels, names=NAMES)["findings"]
    known = labels[:, 0] >= 0
    each = [roc_auc_score(labels[known, 0], one[known, 0]) for one in (scores, other)]
    assert found["Mass"]["auc"]["value"] == pytest.approx(np.mean(each))
    assert found["Edema"]["why"] == "nothing was learned of it"
    with pytest.raises(InputError, match="of the same findings"):
        multi_label.measured(scores, labels[:, :2], names=NAMES)


def test_findings_that_are_told_apart_leave_the_mean_an_interval():
    labels = np.stack([np.arange(14) > 7, np.arange(14) % 2 == 1], 1).astype(int)
    found = multi_label.measured(labels * 5.0 + np.arange(14)[:, None] / 14, labels, names=("a", "b"))
    assert found["findings"]["a"]["separated"]
    assert found["mean_auc"]["value"] == 1
    assert 0.5 < found["mean_auc"]["low"] < 0.95


def test_masked_regressions_are_those_of_each_finding_alone():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(160, 5))
    labels = (features @ rng.normal(size=(5, 3)) + rng.normal(size=(160, 3)) > 0).astype(int)
    labels[rng.uniform(size=labels.shape) < 0.3] = -1
    together = logistic_regression(features, labels, l2=1.0, standardise=False)
    for column in range(3):
        known = labels[:, column] >= 0
        alone = logistic_regression(features[known], labels[known][:, [column]], l2=1.0, standardise=False)
        np.testing.assert_allclose(together.weights[:, column], alone.weights[:, 0], atol=1e-4)
    held = np.arange(160) % 4 == 0
    choice = chosen_regression(features, labels, held=held, grid=[0.01, 1.0], metric=multi_label.MEAN_AUC)
    for l2, value in choice.validation.items():
        alone = logistic_regression(features[~held], labels[~held], l2=l2, standardise=False)
        assert value == pytest.approx(multi_label.mean_auc(alone.scores(features[held]), labels[held]), abs=1e-6)
