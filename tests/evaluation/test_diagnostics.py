"""Figures show what they were given."""

import numpy as np
import pytest

from tf_simclr import plots
from tf_simclr.errors import InputError
from tf_simclr.evaluation.binary import reliability, roc_auc
from tf_simclr.evaluation.maps import curve_band, planar

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 2, 200)
SCORES = np.clip(0.5 + 0.2 * (LABELS - 0.5) + RNG.normal(0, 0.2, 200), 0, 1)


def test_a_confusion_matrix_counts_labels_against_predictions():
    figure = plots.confusion(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 1]), class_names=["a", "b", "c"])
    numbers = [text.get_text() for text in figure.axes[0].texts]
    assert numbers == ["1", "1", "0", "0", "1", "0", "0", "1", "0"]
    assert figure.get_suptitle().splitlines() == ["Confusion matrix", "4 images, 50.0 % on the diagonal"]


@pytest.mark.parametrize("kind", ["roc", "pr"])
def test_a_curve_lies_in_its_band(kind):
    x, y, low, high = curve_band(SCORES, LABELS, kind=kind)
    assert (low <= y + 0.02).all()
    assert (y <= high + 0.02).all()
    if kind == "roc":
        assert np.trapezoid(y, x) == pytest.approx(roc_auc(SCORES, LABELS), abs=0.01)
    figure = plots.bands({"ours": (x, y, low, high)}, kind=kind, base_rate=LABELS.mean())
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), y)
    told = [text.get_text() for text in figure.legends[0].get_texts()]
    if kind == "roc":
        assert told == [f"ours: AUC {np.trapezoid(y, x):.2f}", "chance: AUC 0.50"]
    assert "95 % interval" in figure.axes[0].get_title()


def test_a_reliability_diagram_has_its_bins():
    bins = reliability(SCORES, LABELS)
    figure = plots.reliability({"ours": bins})
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_xydata(), np.stack(bins[:2], axis=1))


def test_a_map_keeps_far_groups_apart_and_is_a_function_of_its_seed():
    features = np.concatenate([RNG.normal(0, 1, (30, 8)), RNG.normal(12, 1, (30, 8))])
    labels = np.repeat([0, 1], 30)
    places = planar(features, perplexity=10)
    np.testing.assert_array_equal(places, planar(features, perplexity=10))
    distances = np.linalg.norm(places[:, None] - places[None], axis=-1) + 1e9 * np.eye(60)
    assert (labels[distances.argmin(axis=1)] == labels).all()
    figure = plots.feature_map(places, labels, class_names=["a", "b"], method="t-SNE")
    assert len(figure.axes[0].collections) == 2
    with pytest.raises(InputError, match="at least four images"):
        planar(features[:3])


def test_a_search_marks_its_best():
    figure = plots.search({"rate": [0.001, 0.1, 1.0], "kind": ["a", "b", "a"]}, [0.1, 0.9, 0.5], metric="accuracy")
    rate, kind = figure.axes
    assert rate.get_xscale() == "log"
    np.testing.assert_allclose(rate.collections[1].get_offsets(), [[0.1, 0.9]])
    assert kind.get_xlabel() == "kind"
