"""How much a few labels are worth on one representation and on another: the same draws for all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tf_simclr.errors import check
from tf_simclr.evaluation.metrics import accuracy
from tf_simclr.evaluation.probes import logistic_regression


@dataclass(frozen=True)
class Comparison:
    """Test accuracies of several representations on the same draws of labelled examples."""

    accuracies: Mapping[str, np.ndarray]
    """Representation's name → accuracies `(draws,)` in [0, 1]."""

    def mean(self, name: str) -> float:
        """Mean accuracy over the draws, in [0, 1]."""
        return float(np.mean(self.accuracies[name]))

    def spread(self, name: str) -> float:
        """Standard deviation over the draws (n - 1), in [0, 1]."""
        return float(np.std(self.accuracies[name], ddof=1))

    def gain(self, name: str, baseline: str) -> tuple[float, float]:
        """Mean and standard deviation of the draws' paired differences, `name` minus `baseline`."""
        difference = self.accuracies[name] - self.accuracies[baseline]
        return float(np.mean(difference)), float(np.std(difference, ddof=1))

    def table(self) -> str:
        """One line a representation: mean ± spread, and the paired gain over the last one, in percent.

        Example:
            >>> print(Comparison({"ours": np.array([0.8, 0.9]), "pixels": np.array([0.7, 0.7])}).table())
            features  accuracy (%)  gain over pixels
            ours        85.0 ± 7.1       +15.0 ± 7.1
            pixels      70.0 ± 0.0
        """
        *_, baseline = self.accuracies
        width = max(map(len, ["features", *self.accuracies]))
        gain_width = len(f"gain over {baseline}")
        lines = [f"{'features':<{width}}  accuracy (%)  gain over {baseline}"]
        for name in self.accuracies:
            gain = "{:+.1f} ± {:.1f}".format(*(100 * v for v in self.gain(name, baseline))) if name != baseline else ""
            mean = f"{100 * self.mean(name):.1f} ± {100 * self.spread(name):.1f}"
            lines.append(f"{name:<{width}}  {mean:>12}  {gain:>{gain_width}}".rstrip())
        return "\n".join(lines)


def few_label_draws(labels: np.ndarray, per_class: int, *, draws: int = 5, seed: int = 0) -> list[np.ndarray]:
    """Draws `per_class` examples of each class without replacement, several times.

    Returns:
        Row numbers `(per_class × classes,)` of each draw, sorted.

    Raises:
        InputError: a class has fewer examples.

    Example:
        >>> labels = np.array([0, 0, 0, 1, 1, 1])
        >>> [labels[rows].tolist() for rows in few_label_draws(labels, 2, draws=2)]
        [[0, 0, 1, 1], [0, 0, 1, 1]]
    """
    check(per_class >= 1 and draws >= 1, "per_class and draws must be at least 1", per_class=per_class, draws=draws)
    members = [np.flatnonzero(labels == c) for c in np.unique(labels)]
    fewest = min(map(len, members), default=0)
    check(fewest >= per_class, "each class must have at least per_class examples", per_class=per_class, fewest=fewest)
    rng = np.random.default_rng(seed)
    return [np.sort(np.concatenate([rng.choice(m, per_class, replace=False) for m in members])) for _ in range(draws)]


def compare(
    representations: Mapping[str, tuple[np.ndarray, np.ndarray]],
    labels: tuple[np.ndarray, np.ndarray],
    *,
    draws: Sequence[np.ndarray],
    l2: float = 1.0,
) -> Comparison:
    """Fits a standardised `logistic_regression` to each draw of each representation and tests it.

    Args:
        representations: name → the training and the test images in it, `(n, d)` and `(m, d)`.
        labels: the training images' `(n,)`, of which each draw sees its own rows only, and the test images' `(m,)`.
        draws: at least two row sets, from `few_label_draws`.
        l2: the same for all; few labels leave none to choose it by.
    """
    check(len(draws) > 1, "a spread needs at least two draws", draws=len(draws))

    accuracies: dict[str, list[float]] = {name: [] for name in representations}
    for name, (train, test) in representations.items():
        for rows in draws:
            probe = logistic_regression(train[rows], labels[0][rows], l2=l2)
            accuracies[name].append(accuracy(probe.predict(test), labels[1]))
    return Comparison({name: np.array(values) for name, values in accuracies.items()})
