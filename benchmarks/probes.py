"""Time of the nearest-neighbour and the logistic probe beside scikit-learn and faiss, for equal results.

Claims, for 50,000 features of 2,048 numbers as pooled features are (not negative, of a spectrum that falls off):
`probes.nearest` (the 200 nearest by cosine) within 1.2 × of the faster one of faiss' flat index and scikit-learn's
brute force, with the same neighbours; `probes.logistic_regression` (10 classes) within 1.2 × of scikit-learn's L-BFGS,
ending at an objective that is no higher.  Runs are interleaved, medians compared.  faiss takes part where faiss-cpu is
installed: pip install faiss-cpu.

    python benchmarks/probes.py              50,000 × 2,048; minutes
    python benchmarks/probes.py --quick      10,000 × 512
    python benchmarks/probes.py --path       our 45 strengths with refit, time and memory; with --features 8192 the
                                             largest official network's
"""

import resource
import statistics
import sys
import time
import warnings
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Literal

import numpy as np
import tyro
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors

from tf_simclr.evaluation import probes
from tf_simclr.evaluation.logistic import Solver

LIMIT = 1.2
SAME = 0.999
"""Share of neighbours that must agree; the others differ by rounding."""
TOLERANCE = 1e-5
"""scikit-learn's, with which it ends where we do; with its default, 1e-4, it stops up to 1.5 % above the minimum."""
EQUAL = 1e-3
"""Relative difference of the objectives."""
CHUNK = 2000


@dataclass(frozen=True)
class Options:
    """What to measure."""

    images: int = 50_000
    features: int = 2048
    classes: int = 10
    queries: int = 1000
    k: int = 200
    l2: float = 10.0
    runs: int = 3
    """Of each, interleaved; medians are compared."""
    quick: bool = False
    """A tenth of the work."""
    only: Literal["both", "neighbours", "regression"] = "both"
    """Of the two probes."""
    path: bool = False
    """Measure the whole choice of a strength instead, of our code alone."""


def made(options: Options, *, images: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features as a ReLU and a pooling leave them: classes overlap, 512 directions of falling weight, and noise."""
    fixed, rng = np.random.default_rng(1), np.random.default_rng(seed)
    falling = (np.arange(1, 513) ** -0.7).astype(np.float32)
    centres = 0.3 * fixed.standard_normal((options.classes, 512), np.float32)
    mixing = fixed.standard_normal((512, options.features), np.float32) * 0.3
    labels = rng.integers(0, options.classes, images)
    values = np.empty((images, options.features), np.float32)
    for start in range(0, images, CHUNK):
        part = labels[start : start + CHUNK]
        causes = (centres[part] + rng.standard_normal((len(part), 512), np.float32)) * falling
        values[start : start + CHUNK] = causes @ mixing
        values[start : start + CHUNK] += 0.02 * rng.standard_normal((len(part), options.features), np.float32)
    return np.maximum(values, 0, out=values), labels


def timed(function, *arguments):
    """Wall and processor seconds, and the function's result."""
    start, used = time.perf_counter(), time.process_time()
    result = function(*arguments)
    return time.perf_counter() - start, time.process_time() - used, result


def ours_nearest(queries: np.ndarray, features: np.ndarray, k: int) -> np.ndarray:
    return probes.nearest(queries, features, k=k)[0]


def faiss_nearest(queries: np.ndarray, features: np.ndarray, k: int) -> np.ndarray:
    import faiss

    index = faiss.IndexFlatIP(features.shape[1])
    index.add(probes.unit(features))
    return index.search(probes.unit(queries), k)[1]


def sklearn_nearest(queries: np.ndarray, features: np.ndarray, k: int) -> np.ndarray:
    return NearestNeighbors(n_neighbors=k, algorithm="brute", metric="cosine").fit(features).kneighbors(queries)[1]


def ours_regression(features: np.ndarray, labels: np.ndarray, l2: float):
    probe = probes.logistic_regression(features, labels, l2=l2, standardise=False)
    return probe.weights, probe.bias


def sklearn_regression(features: np.ndarray, labels: np.ndarray, l2: float):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged: its objective tells
        model = LogisticRegression(C=1 / l2, max_iter=1000, tol=TOLERANCE).fit(features, labels)
    return model.coef_.T, model.intercept_


def objective(classifier, features: np.ndarray, *, labels: np.ndarray, l2: float) -> float:
    """What both minimise, in double precision."""
    weights, bias = (np.asarray(part, np.float64) for part in classifier)
    loss = 0.5 * l2 * np.sum(weights**2)
    for start in range(0, len(features), CHUNK):
        logits = features[start : start + CHUNK].astype(np.float64) @ weights + bias
        own = np.take_along_axis(logits, labels[start : start + CHUNK, None], axis=1)[:, 0]
        loss += np.sum(logsumexp(logits, axis=1) - own)
    return float(loss)


def compare(name: str, contenders: dict, arguments: tuple, *, runs: int) -> tuple[bool, dict]:
    """Measures in turn, prints a line each, and says whether the first one is fast enough; with everyone's result."""
    found: dict[str, list] = {label: [] for label in contenders}
    for _ in range(runs):
        for label, function in contenders.items():
            found[label].append(timed(function, *arguments))
    medians = {label: statistics.median(seconds for seconds, *_ in runs) for label, runs in found.items()}
    ours, *others = medians.values()
    for label, median in medians.items():
        times, used, _ = zip(*found[label], strict=True)
        spread = f"({min(times):.2f}–{max(times):.2f}; {statistics.median(used):.1f} s of processors)"
        sys.stdout.write(f"{name:22}{label:14}{median:9.2f} s   {spread:42}ours / it: {ours / median:.2f}\n")
    sys.stdout.flush()
    return ours <= LIMIT * min(others), {label: runs[-1][-1] for label, runs in found.items()}


def claim(text: str, holds: bool) -> bool:
    sys.stdout.write(f"{text}: {'holds' if holds else 'DOES NOT HOLD'}\n")
    return holds


def neighbours(options: Options, features: np.ndarray) -> bool:
    queries, _ = made(options, images=options.queries, seed=2)
    contenders = {"ours": ours_nearest, "scikit-learn": sklearn_nearest}
    contenders |= {"faiss": faiss_nearest} if find_spec("faiss") else {}
    fast, found = compare("nearest neighbours", contenders, (queries, features, options.k), runs=options.runs)
    shares = {
        label: np.mean([len(np.intersect1d(a, b)) / options.k for a, b in zip(found["ours"], theirs, strict=True)])
        for label, theirs in found.items()
    }
    sys.stdout.write(f"neighbours in common: {', '.join(f'{label} {s:.5f}' for label, s in shares.items())}\n")
    same = claim("the same neighbours", min(shares.values()) >= SAME)
    return claim(f"within {LIMIT} × of the fastest", fast) and same


def regressions(options: Options, features: np.ndarray, labels: np.ndarray) -> bool:
    contenders = {"ours": ours_regression, "scikit-learn": sklearn_regression}
    fast, found = compare("logistic regression", contenders, (features, labels, options.l2), runs=options.runs)
    values = {label: objective(one, features, labels=labels, l2=options.l2) for label, one in found.items()}
    sys.stdout.write(f"objectives: {', '.join(f'{label} {value:.4f}' for label, value in values.items())}\n")
    low = claim("an objective as low", values["ours"] <= values["scikit-learn"] * (1 + 1e-6))
    same = claim(f"equal objectives to {EQUAL:.0e}", values["scikit-learn"] <= values["ours"] * (1 + EQUAL))
    return claim(f"within {LIMIT} × of scikit-learn", fast) and low and same


def whole_path(options: Options, features: np.ndarray, labels: np.ndarray) -> bool:
    """The paper's protocol: 45 strengths by a tenth of the images, then a refit."""
    evaluations, plainly = [], Solver.loss_at

    def counting(self, position):
        evaluations.append(1)
        return plainly(self, position)

    Solver.loss_at = counting
    before = peak()
    held = probes.hold_out(labels, 0.1)
    seconds, _, choice = timed(lambda: probes.chosen_regression(features, labels, held=held))
    sys.stdout.write(
        f"45 strengths and refit: {seconds:.0f} s, {len(evaluations)} passes over the features, "
        f"{(peak() - before) / 1e9:.2f} GB beside the {features.nbytes / 1e9:.2f} GB of features; "
        f"L2 {choice.l2:.1e}, validation accuracy {choice.validation[choice.l2]:.4f}\n"
    )
    return True


def peak() -> float:
    """Largest resident memory so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def run(options: Options) -> bool:
    """Prints the table, and says whether all claims hold."""
    if options.quick:
        options = replace(options, images=10_000, features=512, queries=500, k=50)
    features, labels = made(options, images=options.images)
    sys.stdout.write(f"{options.images:,} × {options.features:,}, {options.classes} classes\n")
    if options.path:
        return whole_path(options, features, labels)
    holds = [neighbours(options, features)] if options.only != "regression" else []
    holds += [regressions(options, features, labels)] if options.only != "neighbours" else []
    return all(holds)


if __name__ == "__main__":
    raise SystemExit(0 if run(tyro.cli(Options, description=__doc__)) else 1)
