"""How long people wait before anything begins: `--help` of every command, and `import tf_simclr`.

Claims: the median of each `--help` is below 0.5 s; `import tf_simclr` takes at most 1.1 × `import keras` alone.  Each
run is a process of its own, and all take turns; exits 1 where one does not hold.  Beside them, without a claim, what
`from tf_simclr import SimCLR` takes, which imports Keras and TensorFlow.

    python benchmarks/startup.py
    python benchmarks/startup.py --quick        three runs, one command of each package
"""

import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

LIMIT, RATIO = 0.5, 1.1
ROOT = Path(__file__).parents[1]
CONVERTERS = ("tf2torch", "torch2tf", "inspect", "verify")


@dataclass(frozen=True)
class Options:
    """What to measure."""

    runs: int = 10
    """Of each `--help`; imports take half as many."""
    quick: bool = False


def helps() -> dict[str, list[str]]:
    """What to ask → its words behind `python`."""
    from tf_simclr.config import COMMANDS

    asked = {"tf_simclr": ["-m", "tf_simclr", "--help"]}
    asked |= {name: ["-m", "tf_simclr", *name.split(), "--help"] for name in COMMANDS}
    return asked | {f"converters.{name}": ["-m", f"converters.{name}", "--help"] for name in CONVERTERS}


IMPORTS = {
    "import tf_simclr": "import tf_simclr",
    "import keras": "import keras",
    "from tf_simclr import SimCLR": "from tf_simclr import SimCLR",
}


def seconds(words: list[str]) -> float:
    """Wall time of a process from its start to its end."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment, check=False)
    took = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed ({done.returncode}): {done.stderr[-2000:]}")
    return took


def taken(words: dict[str, list[str]], runs: int) -> dict[str, list[float]]:
    """Name → seconds of each run; the first of each, which reads files that no memory holds yet, does not count."""
    times: dict[str, list[float]] = {name: [] for name in words}
    for run in range(runs + 1):
        for name, own in words.items():
            took = seconds(own)
            if run:
                times[name].append(took)
    return times


def row(name: str, values: list[float], verdict: str) -> None:
    spread = f"{min(values):.2f} … {max(values):.2f}"
    sys.stdout.write(f"| {name} | {statistics.median(values):.2f} | {spread} | {verdict} |\n")
    sys.stdout.flush()


def main() -> int:
    """Measures, prints both tables, and says whether the claims hold."""
    options = tyro.cli(Options, description=__doc__)
    words, runs = helps(), 3 if options.quick else options.runs
    if options.quick:
        words = {name: words[name] for name in ("tf_simclr", "pretrain", "converters.tf2torch")}
    sys.stdout.write("| --help | median, s | spread | claim |\n| --- | --- | --- | --- |\n")
    holds = True
    for name, values in taken(words, runs).items():
        fits = statistics.median(values) < LIMIT
        holds &= fits
        row(name, values, f"< {LIMIT} s: {'holds' if fits else 'DOES NOT HOLD'}")
    found = taken({name: ["-c", code] for name, code in IMPORTS.items()}, max(3, runs // 2))
    ratios = [a / b for a, b in zip(found["import tf_simclr"], found["import keras"], strict=True)]
    ratio = statistics.median(ratios)
    holds &= ratio <= RATIO
    sys.stdout.write("\n| import | median, s | spread | claim |\n| --- | --- | --- | --- |\n")
    for name, values in found.items():
        claim = f"{ratio:.2f} × import keras ≤ {RATIO}: {'holds' if ratio <= RATIO else 'DOES NOT HOLD'}"
        row(name, values, claim if name == "import tf_simclr" else "")
    return 0 if holds else 1


if __name__ == "__main__":
    raise SystemExit(main())
