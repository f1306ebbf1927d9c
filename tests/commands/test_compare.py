"""Runs side by side."""

import numpy as np
import pytest

from tf_simclr.commands import compare
from tf_simclr.config import Compare
from tf_simclr.errors import InputError
from tf_simclr.evaluation.reports import Answers, write_report

LABELS = np.arange(100) % 2
NAMES = np.array([f"image {i}" for i in range(100)])


def evaluation(path, wrong: int, *, names=NAMES, method: str = "knn"):
    """A run that is wrong on its first images."""
    right = np.where(np.arange(100) < wrong, 1 - LABELS, LABELS)
    scores = np.eye(2)[right] * 0.8 + 0.1
    path.parent.mkdir(exist_ok=True, parents=True)
    write_report(path, command={}, results={}, answers=Answers(names, LABELS, {method: scores}))


def test_accuracies_and_paired_differences_are_printed(tmp_path, capsys):
    evaluation(tmp_path / "a/linear_eval.json", 30)
    evaluation(tmp_path / "b/linear_eval.json", 20)
    evaluation(tmp_path / "c.json", 25, names=np.array([f"other {i}" for i in range(100)]))
    compare.run(Compare(runs=(tmp_path / "a", tmp_path / "b", tmp_path / "c.json"), figures=tmp_path / "figures"))
    lines = capsys.readouterr().out.splitlines()
    assert f"{tmp_path}/a: knn" in lines[1]
    assert "70.0 (61.0–78.0)" in lines[1]
    assert "80.0 (" in lines[2]
    assert "+10.0 (+" in lines[2]  # b is right wherever a is: never a negative difference
    assert lines[3].endswith("other images")
    drawn = {path.name for path in (tmp_path / "figures").iterdir()}
    expected = {"confusion_0.png", "confusion_1.png", "confusion_2.png", "roc.png", "pr.png", "reliability.png"}
    assert drawn == expected


def test_probabilities_of_votes_and_of_logits():
    np.testing.assert_allclose(compare.positives(np.array([[1.0, 3.0], [0.0, 0.0]])), [0.75, 0])
    np.testing.assert_allclose(compare.positives(np.array([[-1.0, 1.0]])), [1 / (1 + np.exp(-2))])


def test_a_run_without_an_evaluation_is_named(tmp_path):
    with pytest.raises(InputError, match="must hold an evaluation; run linear-eval on it"):
        compare.run(Compare(runs=(tmp_path,)))
    with pytest.raises(InputError, match="at least one run"):
        compare.run(Compare())
