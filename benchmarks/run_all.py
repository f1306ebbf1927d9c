"""All benchmarks, one after the other; a summary says which claims failed, and the exit code is 1 if one did.

make bench                                     all of them: hours, and 20 GB of memory for the large batches
make bench QUICK=1                             small versions: minutes; their numbers are not the README's
make bench ARGS="--only startup probes"        some of them
make bench ARGS="--photos FOLDER --torchvision_python ENV/bin/python"       the input pipeline's own options
"""

import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

HERE = Path(__file__).parent
QUICK = {
    "input_pipeline": ["--rounds", "2", "--batches", "3"],
    "convert": ["--depth", "50", "--width", "1", "--runs", "1"],
}
"""What makes a benchmark short that has no `--quick`."""
WORDS = {"scaling": ["--check"]}
SAID = {0: "holds", 3: "not measured, or not all of it"}
"""Exit code of a benchmark → what the summary says; 3 is `accelerator`'s where there is none."""
NAMES = (
    "startup",
    "input_pipeline",
    "train_step",
    "probes",
    "scaling",
    "checkpoints",
    "frozen_transfer",
    "convert",
    "accelerator",
    "large_batch",
)
"""In the order in which they run: those that take longest come last."""


@dataclass(frozen=True)
class Options:
    """What to run."""

    only: tuple[str, ...] = ()
    """Names of some; by default all."""
    quick: bool = False
    """Small versions."""
    photos: Path | None = None
    """A folder of JPEG files for the input pipeline; by default scikit-learn's two photographs, cut."""
    torchvision_python: str | None = None
    """Interpreter of an environment with torchvision; without one it is not compared with."""


def words(name: str, options: Options) -> list[str]:
    """What stands behind `python` to run a benchmark."""
    chosen = [str(HERE / f"{name}.py"), *WORDS.get(name, [])]
    if options.quick:
        chosen += QUICK.get(name, ["--quick"])
    if name == "input_pipeline":
        chosen += ["--photos", str(options.photos)] if options.photos else []
        chosen += ["--torchvision_python", options.torchvision_python] if options.torchvision_python else []
    return chosen


def machine() -> str:
    """Processor, cores and versions, for the head of a table."""
    from importlib.metadata import version

    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text().splitlines() if cpus.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    packages = ", ".join(f"{name} {version(name)}" for name in ("tensorflow", "keras", "numpy"))
    kind = f"{len(models)} × {models[0]}" if models else platform.processor()
    return f"{kind}; {platform.system()} {platform.machine()}, Python {platform.python_version()}, {packages}"


def main() -> int:
    """Runs them and prints the summary."""
    options = tyro.cli(Options, description=__doc__)
    unknown = sorted(set(options.only) - set(NAMES))
    if unknown:
        sys.stderr.write(f"--only must be among {', '.join(NAMES)}. Received: {', '.join(unknown)}\n")
        return 2
    write = sys.stdout.write
    write(f"{machine()}\n")
    failed, rows = [], []
    for name in options.only or NAMES:
        write(f"\n## {name}\n\n")
        sys.stdout.flush()
        start = time.monotonic()
        code = subprocess.run([sys.executable, *words(name, options)], check=False).returncode
        rows.append(f"{name:16}{time.monotonic() - start:8.0f} s  {SAID.get(code, f'FAILED ({code})')}\n")
        failed += [name] if code not in SAID else []
    write(f"\n## Summary\n\n{''.join(rows)}")
    write(f"\nClaims that do not hold: {', '.join(failed)}\n" if failed else "\nAll claims hold.\n")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
