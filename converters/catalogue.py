"""Every naming by name, and which of them a file's keys are written in."""

import functools
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from converters import namings, torch_namings
from converters.infer import candidate_names, head_names
from converters.namings import Naming
from tf_simclr.errors import InputError, check
from tf_simclr.models.architecture import Architecture

NAMINGS: dict[str, Naming] = {
    naming.name: naming
    for naming in (
        namings.KERAS,
        namings.TF1,
        namings.TF2,
        torch_namings.TORCHVISION,
        torch_namings.TONYLINS,
        torch_namings.SEPARIUS,
        torch_namings.TWIN,
        *torch_namings.LIBRARIES,
    )
}


@dataclass(frozen=True)
class Match:
    """How a file's keys are to be read.

    Attributes:
        naming: The naming.
        outer: What precedes its names in the file, e.g. `state_dict.module.`.
    """

    naming: Naming
    outer: str


def recognise(keys: Collection[str], *, what: str, naming: str | None = None) -> Match:
    """The naming that fits best; of two that fit, the one that explains most of the key.

    Args:
        keys: The file's keys.
        what: Names the file in an error.
        naming: The user's choice; None: all are tried.

    Raises:
        InputError: none fits.
    """
    check(naming is None or naming in NAMINGS, f"naming must be one of {', '.join(NAMINGS)}", naming=naming)
    chosen = [NAMINGS[naming]] if naming else list(NAMINGS.values())
    keys = frozenset(keys)
    ranked = [(score, match) for one in chosen for score, match in _matches(one, keys)]
    if not ranked:
        shown = ", ".join(sorted(keys)[:5]) or "nothing"
        raise InputError(
            f"{what} must hold a ResNet of SimCLR under names of {naming or ', '.join(NAMINGS)}; it begins with {shown}"
        )
    return max(ranked, key=lambda pair: pair[0])[1]


def _matches(naming: Naming, keys: frozenset[str]) -> Iterator[tuple[tuple[int, int, str], Match]]:
    """Each place in the file where at least half of the names that all networks share are found."""
    first = _first(naming)
    for key in keys:
        if key.endswith(first) and (len(key) == len(first) or key[-len(first) - 1] in "./"):
            outer, shared = key[: -len(first)], _shared(naming)
            found = sum(outer + name in keys for name in shared)
            if 2 * found >= len(shared):
                heads = sum(outer + name in keys for name in head_names(naming))
                yield (-len(outer), heads, outer), Match(naming, outer)


@functools.cache
def _shared(naming: Naming) -> frozenset[str]:
    return frozenset.intersection(*candidate_names(naming))


@functools.cache
def _first(naming: Naming) -> str:
    """The stem's first convolution, which has one name in all networks."""
    _, prefix = next(iter(naming.keys(Architecture())))
    return naming.joins(prefix, "kernel")
