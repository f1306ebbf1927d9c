"""`python -m tests.fuzz --files 5000 --seed 0` prints what came of so many changed files; fails if any was wrong."""

import argparse
import sys
from pathlib import Path

from tests.fuzz.campaign import run
from tests.fuzz.reader import Reader


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="part of a container's name")
    parser.add_argument("--keep", type=Path, help="folder for the files that were wrong")
    options = parser.parse_args()
    with Reader() as reader:
        result = run(reader.read, files=options.files, seed=options.seed, keep=options.keep, only=options.only)
    sys.stdout.write("\n".join([*result.faults, result.table(), ""]))
    return 1 if result.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
