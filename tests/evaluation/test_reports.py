"""Reports come back as they were written, and pairs are compared image by image."""

import numpy as np
import pytest

from tf_simclr.errors import InputError
from tf_simclr.evaluation.metrics import bootstrap_interval
from tf_simclr.evaluation.reports import Answers, aligned, paired_difference, read_answers, write_report
from tf_simclr.files import read_json

RNG = np.random.default_rng(0)
ANSWERS = Answers(
    np.array(["a", "b", "c"]), np.array([0, 1, 1]), {"knn": np.array([[2, 1], [0, 1], [1, 0]], np.float32)}
)


def test_a_report_comes_back_with_its_answers_and_what_made_it(tmp_path):
    path = tmp_path / "linear_eval.json"
    write_report(
        path, command={"command": "linear-eval", "seed": 3}, results={"knn": {"accuracy": 2 / 3}}, answers=ANSWERS
    )
    report, answers = read_json(path), read_answers(path)
    assert report["command"]["seed"] == 3
    assert report["results"] == {"knn": {"accuracy": 2 / 3}}
    assert {"python", "tensorflow", "keras"} <= report["versions"].keys()
    np.testing.assert_array_equal(answers.scores["knn"], ANSWERS.scores["knn"])
    np.testing.assert_array_equal(answers.hits("knn"), [True, True, False])


def test_what_is_no_report_is_refused(tmp_path):
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(InputError, match=r"x\.npz must be the answers"):
        read_answers(tmp_path / "x.json")


def test_a_paired_difference_is_sharper_than_two_intervals():
    hard = RNG.uniform(size=500)
    one, other = RNG.uniform(size=500) * 0.2 + 0.75 > hard, RNG.uniform(size=500) * 0.2 + 0.7 > hard
    found = paired_difference(one, other)
    assert found["difference"] == pytest.approx(one.mean() - other.mean())
    alone = np.diff(bootstrap_interval(np.mean, [one])) + np.diff(bootstrap_interval(np.mean, [other]))
    assert found["high"] - found["low"] < 0.8 * alone
    assert found["low"] <= found["difference"] <= found["high"]


def test_runs_are_compared_on_the_images_that_both_answered():
    other = Answers(np.array(["c", "x", "a"]), np.array([1, 0, 0]), {})
    rows, others = aligned(ANSWERS, other)
    assert list(ANSWERS.names[rows]) == list(other.names[others]) == ["a", "c"]
    with pytest.raises(InputError, match="same label in both runs"):
        aligned(ANSWERS, Answers(np.array(["a"]), np.array([1]), {}))
    with pytest.raises(InputError, match="some of the same images"):
        aligned(ANSWERS, Answers(np.array(["z"]), np.array([1]), {}))
