"""`tf-simclr compare`: evaluations side by side, with paired differences."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tf_simclr import plots
from tf_simclr.config import Compare
from tf_simclr.errors import InputError, check
from tf_simclr.evaluation.binary import reliability
from tf_simclr.evaluation.maps import curve_area, curve_band
from tf_simclr.evaluation.metrics import hit_rate
from tf_simclr.evaluation.reports import Answers, aligned, paired_difference, read_answers
from tf_simclr.files.places import shown
from tf_simclr.terminal import show

_Rows = dict[str, tuple[Answers, str]]


def run(config: Compare) -> None:
    """Compares as configured and prints one table."""
    check(config.runs, "compare needs at least one run folder or result", runs=0)
    # 1. Each evaluation of each run, a row a method.  2. The
    #    figures, before the table, as they may fail.  3. The table.
    rows = {f"{place}: {method}": (answers, method) for place, answers in _loaded(config) for method in answers.scores}
    figures = draw(rows, config.figures) if config.figures else []
    show(table(rows, seed=config.seed))
    for path in figures:
        show(f"figure  {path}")


_LETTERS = 44
"""Of a run's name in a line of a title or legend."""


def _loaded(config: Compare) -> list[tuple[str, Answers]]:
    """Every evaluation of the runs that kept its answers, by what a table calls it."""
    found = []
    for place in config.runs:
        # A run's folder may hold several evaluations.
        paths = sorted(path.with_suffix(".json") for path in place.glob("*.npz")) if place.is_dir() else [place]
        check(paths, f"{place} must hold an evaluation; run linear-eval on it", found=0)
        found += [(shown(place if place.is_dir() and len(paths) == 1 else path), read_answers(path)) for path in paths]
    return found


def table(rows: _Rows, *, seed: int) -> str:
    """A line a method: accuracy, and the difference from the first line on the images of both."""
    width = max(map(len, rows))
    lines = [f"{'run':<{width}}{'images':>9}{'accuracy (%)':>22}{'difference':>24}"]
    # Everything is compared with the first line.
    first = next(iter(rows.values()))
    for number, (name, (answers, method)) in enumerate(rows.items()):
        hits = answers.hits(method)
        rate = hit_rate(hits, seed=seed)
        mean, low, high = (100 * rate[name] for name in ("accuracy", "low", "high"))
        cells = f"{len(hits):>9,}{f'{mean:.1f} ({low:.1f}–{high:.1f})':>22}"
        lines.append(f"{name:<{width}}{cells}{difference((answers, method), first, seed=seed) if number else '':>24}")
    return "\n".join([*lines, "95 % bootstrap intervals over images; differences are paired, in points"])


def difference(row: tuple[Answers, str], first: tuple[Answers, str], *, seed: int) -> str:
    """The paired difference from the first line, or why there is none."""
    try:
        # On the images of both, by name.
        mine, theirs = aligned(row[0], first[0])
    except InputError:
        return "other images"
    found = paired_difference(row[0].hits(row[1])[mine], first[0].hits(first[1])[theirs], seed=seed)
    return f"{100 * found['difference']:+.1f} ({100 * found['low']:+.1f} to {100 * found['high']:+.1f})"


def draw(rows: _Rows, folder: Path) -> list[Path]:
    """Writes the figures and returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = {}
    rows = {textwrap.fill(name, _LETTERS): row for name, row in rows.items()}  # a long path would leave no room to draw
    for number, (name, (answers, method)) in enumerate(rows.items()):
        count = answers.scores[method].shape[1]
        names = answers.classes if len(answers.classes) == count else [f"class {i}" for i in range(count)]
        predictions = answers.scores[method].argmax(axis=1)
        figures[f"confusion_{number}"] = plots.confusion(answers.labels, predictions, class_names=names, title=name)
    # Curves need a yes and a no.
    two = {name: row for name, row in rows.items() if row[0].scores[row[1]].shape[1] == 2}
    if two:
        positive = {
            name: (positives(answers.scores[method]), answers.labels) for name, (answers, method) in two.items()
        }
        for kind in ("roc", "pr"):
            curves = {
                name: plots.Curve(*curve_band(*pair, kind=kind), area=curve_area(*pair, kind=kind))
                for name, pair in positive.items()
            }
            share = float(np.mean([labels.mean() for _, labels in positive.values()]))
            figures[kind] = plots.bands(
                curves, kind=kind, base_rate=share, count=_counted([labels for _, labels in positive.values()])
            )
        figures["reliability"] = plots.reliability({name: reliability(*pair) for name, pair in positive.items()})
    return [plots.save(figure, folder / f"{name}.png") for name, figure in figures.items()]


def _counted(labels: Sequence[np.ndarray]) -> str:
    """How many images the rows are about, where all are about as many."""
    counts = sorted({len(of) for of in labels})
    return f"n = {' or '.join(f'{count:,}' for count in counts)} images"


def positives(scores: np.ndarray) -> np.ndarray:
    """Probability of the second class: of logits by softmax, of votes by their share."""
    # Votes are shares; logits may be of any sign.
    if scores.min() >= 0:
        return scores[:, 1] / np.maximum(scores.sum(axis=1), 1e-12)
    return 1 / (1 + np.exp(scores[:, 0] - scores[:, 1]))
