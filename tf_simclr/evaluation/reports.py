"""What an evaluation leaves behind: numbers with how they came about, and each answer, so that runs can be compared.

`NAME.json` holds command, versions, and for each method its metrics; `NAME.npz` beside it the names and labels of the
test images and each method's scores.
"""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tf_simclr.errors import check
from tf_simclr.evaluation.metrics import bootstrap_interval
from tf_simclr.files import replacing, write_json
from tf_simclr.foreign import archived
from tf_simclr.machine.accelerators import version

_PACKAGES = ("tf-simclr", "tensorflow", "keras", "numpy", "scikit-learn")


@dataclass(frozen=True)
class Answers:
    """What methods said of the same test images."""

    names: np.ndarray
    """Strings `(n,)`."""
    labels: np.ndarray
    """`(n,)`."""
    scores: Mapping[str, np.ndarray]
    """Method → scores `(n, classes)`, the larger the likelier; rows need not sum to 1."""
    classes: tuple[str, ...] = ()
    """Names of the classes; nothing where they are not known."""

    def hits(self, method: str) -> np.ndarray:
        """Whether the largest score is the label's, bool `(n,)`."""
        return self.scores[method].argmax(axis=1) == self.labels


def versions() -> dict[str, str]:
    """Python and the packages that numbers depend on."""
    return {"python": platform.python_version()} | {name: version(name) or "not installed" for name in _PACKAGES}


def write_report(
    path: Path, *, command: Mapping[str, Any], results: Mapping[str, Any], answers: Answers | None = None, **more: Any
) -> None:
    """Writes an evaluation: the answers first, so that a `.json` never lacks them.

    Args:
        path: a `.json` file.
        command: of `config.plain`.
        results: method → metrics, JSON types.
        answers: on the test images.
        more: further entries, JSON types.
    """
    # The `.npz` first, the `.json` last: whoever finds the numbers finds the answers.
    if answers is not None:
        with replacing(path.with_suffix(".npz")) as [file]:
            scores: dict[str, Any]
            scores = {f"scores/{name}": values.astype(np.float32) for name, values in answers.scores.items()}
            scores |= {"classes": np.array(answers.classes)} if answers.classes else {}
            np.savez_compressed(file, names=answers.names.astype(str), labels=answers.labels, **scores)
    write_json(path, {"command": dict(command), "versions": versions(), "results": dict(results), **more})


def read_answers(path: Path) -> Answers:
    """The answers beside a report.

    Raises:
        InputError: there are none, or the file is damaged.
    """
    place = path.with_suffix(".npz")
    with archived(place, "the answers of an evaluation", advice="evaluate again") as stored:
        scores = {key.removeprefix("scores/"): stored[key] for key in stored if key.startswith("scores/")}
        classes = stored["classes"].tolist() if "classes" in stored else ()
        return Answers(stored["names"], stored["labels"], scores, classes=tuple(map(str, classes)))


def paired_difference(hits: np.ndarray, baseline: np.ndarray, *, seed: int = 0) -> dict[str, float]:
    """Difference of two accuracies on the same images, with its 95 % bootstrap interval over the images.

    Images are drawn for both at once, so what makes an image hard for both does not widen the interval.  Of AUCs:
    `intervals.paired_difference`.

    Raises:
        InputError: they are not of the same number of images.

    Example:
        >>> paired_difference(np.array([1, 1, 1, 0]), np.array([1, 0, 1, 0]))["difference"]
        0.25
    """
    check(hits.shape == baseline.shape, "both must be of the same images", shapes=(hits.shape, baseline.shape))
    differences = hits.astype(float) - baseline.astype(float)
    low, high = bootstrap_interval(np.mean, [differences], seed=seed)
    return {"difference": float(differences.mean()), "low": float(low), "high": float(high)}


def aligned(answers: Answers, baseline: Answers) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the images that both answered, in one order.

    Raises:
        InputError: there are none, or an image has two labels.
    """
    # By name, in sorted order: both runs may have seen them in another.
    _, rows, others = np.intersect1d(answers.names, baseline.names, return_indices=True)
    check(len(rows) > 0, "both runs must have been tested on some of the same images", in_common=0)
    alike = bool((answers.labels[rows] == baseline.labels[others]).all())
    check(alike, "an image must have the same label in both runs")
    return rows, others
