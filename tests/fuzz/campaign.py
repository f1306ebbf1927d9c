"""Many mutants of every container, read, counted, and those that were not as they must be kept."""

import hashlib
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.containers import CONTAINERS, Mutant, mutate
from tests.fuzz.reader import Outcome

COLUMNS = ("equal", "refused", "explained", "otherwise", "traceback", "slow", "large")
"""The last four must stay 0.  `explained`: read otherwise, as it must be where the checksums were made to fit the
change, or as a format without checksums cannot notice."""
WRONG = COLUMNS[-4:]
Read = Callable[[str, Path], Outcome]


@dataclass
class Result:
    """What came of a campaign.

    Attributes:
        counts: Container → column → how many.
        faults: Where each wrong one was kept, and what came of it.
        worst: Longest time in seconds and most memory in bytes of any.
    """

    counts: dict[str, Counter] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    worst: tuple[float, int] = (0.0, 0)

    @property
    def files(self) -> int:
        return sum(sum(count[name] for name in COLUMNS[:5]) for count in self.counts.values())

    @property
    def wrong(self) -> int:
        return sum(count[name] for count in self.counts.values() for name in WRONG)

    def table(self) -> str:
        """A row a container."""
        width = max(map(len, CONTAINERS))
        rows = [" ".join([f"{'container':<{width}}", f"{'files':>6}", *(f"{name:>9}" for name in COLUMNS)])]
        for name, count in [*self.counts.items(), ("all", sum(self.counts.values(), Counter()))]:
            files = sum(count[column] for column in COLUMNS[:5])
            rows.append(" ".join([f"{name:<{width}}", f"{files:>6}", *(f"{count[column]:>9}" for column in COLUMNS)]))
        seconds, memory = self.worst
        return "\n".join([*rows, f"longest {seconds:.1f} s, most memory {memory >> 20} MB for one file"])


def judge(found: Outcome, mutant: Mutant, *, intact: str) -> Iterator[str]:
    """The columns that a mutant counts in."""
    if found.kind != "read":
        yield found.kind
    elif found.text == intact:
        yield "equal"
    else:
        yield "explained" if mutant.sealed else "otherwise"
    if found.slow:
        yield "slow"
    if found.large:
        yield "large"


def run(read: Read, *, files: int, seed: int, keep: Path | None = None, only: str = "") -> Result:
    """Reads so many mutants.

    Args:
        read: What opens them.
        files: How many, over all containers by their weights.
        seed: Decides every one of them: the n-th of a container is the same whatever the number of files.
        keep: Where to keep those that were wrong; by default nowhere.
        only: Part of the containers' names.
    """
    result = Result()
    chosen = {name: container for name, container in CONTAINERS.items() if only in name}
    total = sum(container.weight for container in chosen.values())
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        for kind, container in chosen.items():
            counts = result.counts[kind] = Counter()
            intact = Path(name) / hashlib.sha256(kind.encode()).hexdigest()[:8] / "intact"
            intact.mkdir(parents=True)
            path = container.make(intact)
            first = read(container.door, path)
            if first.kind != "read":
                raise AssertionError(f"the intact {kind} must be read: {first}")
            for number in range(max(1, round(files * container.weight / total))):
                folder = intact.with_name(f"mutant-{number}")
                mutant = mutate(container, intact, folder, path=path, rng=random.Random(f"{seed}/{kind}/{number}"))
                found = read(container.door, mutant.path)
                columns = list(judge(found, mutant, intact=first.text))
                counts.update(columns)
                result.worst = max(result.worst[0], found.seconds), max(result.worst[1], found.memory)
                if set(columns) & set(WRONG):
                    result.faults.append(f"{kind} {number} ({mutant.file}): {', '.join(columns)}: {found}")
                    if keep:
                        shutil.copytree(folder, keep / f"{kind} {number}", dirs_exist_ok=True)
                shutil.rmtree(folder)
    return result
