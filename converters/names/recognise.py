"""Every naming by name, and which of them a file's keys are written in."""

import functools
import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from converters.names import naming as namings
from converters.names import pytorch as torch_namings
from converters.names.infer import apart, candidate_names, head_names, nearest, short
from converters.names.naming import TRACKED, Naming
from converters.names.walk import part_of
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


_ALSO: tuple[Naming, ...] = (
    replace(namings.TF2, keys=functools.partial(namings.tf2_keys, model="")),
    replace(NAMINGS["lightly-sequential"], keys=torch_namings.bare_sequential_keys),
)
"""Spellings that are read, too, and never written: an official TF2 model under another name than `model`, and the
children of a torchvision ResNet in an `nn.Sequential` of any name."""


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
        InputError: none fits; says what is nearest.
    """
    ranked = _ranked(frozenset(keys), naming)
    if not ranked:
        raise InputError(unrecognised(keys, what=what, naming=naming))
    return max(ranked, key=lambda pair: pair[0])[1]


def matches_by_place(keys: frozenset[str], *, naming: str | None = None) -> list[Match]:
    """For every stem in the file the naming that fits best there."""
    best: dict[str, tuple[tuple[int, int, str], Match]] = {}
    # The better score at a stem wins: two namings may share their first name.
    for score, match in _ranked(keys, naming):
        stem = match.outer + _first(match.naming)
        if stem not in best or score > best[stem][0]:
            best[stem] = (score, match)
    return [match for _, match in best.values()]


def _ranked(keys: frozenset[str], naming: str | None) -> list[tuple[tuple[int, int, str], Match]]:
    check(naming is None or naming in NAMINGS, f"naming must be one of {', '.join(NAMINGS)}", naming=naming)
    chosen = [one for one in (*NAMINGS.values(), *_ALSO) if naming in (None, one.name)]
    return [(score, match) for one in chosen for score, match in _matches(one, keys)]


def _matches(naming: Naming, keys: frozenset[str]) -> Iterator[tuple[tuple[int, int, str], Match]]:
    """Each place in the file where at least half of the names that all networks share are found."""
    first = _first(naming)
    for key in keys:
        # The key ends with the stem's name, at a boundary.
        if key.endswith(first) and (len(key) == len(first) or key[-len(first) - 1] in "./"):
            # The stem tells a place at which a network may begin; half of the names that all networks share decide.
            outer, shared = key[: -len(first)], _shared(naming)
            found = sum(outer + name in keys for name in shared)
            if 2 * found >= len(shared):
                heads = sum(outer + name in keys for name in head_names(naming))
                # Sorted by: the least that precedes the names, then the most heads.
                yield (-len(outer), heads, outer), Match(naming, outer)


_LEAST = 4
"""Names that a network must share with a file to be near it."""


def unrecognised(keys: Collection[str], *, what: str, naming: str | None = None) -> str:
    """Says that no network was found, and which is nearest; else which namings were tried.

    Names are compared without regard to case and to what separates their parts.
    """
    known: dict[str, list[Naming]] = {}
    for one in NAMINGS.values():
        if naming in (None, one.name):
            for name in frozenset[str]().union(*candidate_names(one)):
                # Spelled alike: case and separators are left out, so that `Layer1_0` is near `layer1.0`.
                known.setdefault(_alike(name), []).append(one)
    votes: Counter[tuple[str, str]] = Counter()
    for key in keys:
        for start in (0, *(i + 1 for i, letter in enumerate(key) if letter in "./")):
            # Each key votes for every prefix behind which it is a name that some naming knows.
            votes.update((one.name, key[:start]) for one in known.get(_alike(key[start:]), ()))
    most = max(votes.values(), default=0)
    if most < _LEAST:
        shown = ", ".join(sorted(keys)[:5]) or "nothing"
        names = naming or ", ".join(NAMINGS)
        return f"{what} must hold a ResNet of SimCLR under names of {names}; it begins with {shown}"
    # A block alone has names of a stem: of places that share about as much, the outer one.
    near = min((pair for pair in votes if 2 * votes[pair] >= most), key=lambda pair: (len(pair[1]), -votes[pair]))
    chosen, outer = NAMINGS[near[0]], near[1]
    below = {key[len(outer) :] for key in keys if key.startswith(outer) and not key.endswith(TRACKED)}
    found = {name: () for name in below if name not in head_names(chosen)}
    # The encoder that differs least, to say what is missing of it.
    closest = nearest(chosen, found)
    expected: dict[str, tuple[int, ...]] = {
        key: () for hub, key in chosen.table(closest).items() if part_of(hub) == "encoder"
    }
    place = f" below {outer!r}" if outer else ""
    shared = len(expected.keys() & found.keys())
    spelled = len(set(map(_alike, expected)) & set(map(_alike, found))) - shared
    return (
        f"{what} must hold a ResNet of SimCLR; nearest network: {short(closest)} in {chosen.name} names{place}, with "
        f"{shared} of its {len(expected)} names{f' and {spelled} spelled otherwise' if spelled > 0 else ''}; "
        f"{apart(expected, found)}"
    )


def _alike(name: str) -> str:
    return re.sub(r"[./_-]+", ".", name.lower())


@functools.cache
def _shared(naming: Naming) -> frozenset[str]:
    return frozenset.intersection(*candidate_names(naming))


@functools.cache
def _first(naming: Naming) -> str:
    """The stem's first convolution, which has one name in all networks."""
    # Any architecture: the stem's first convolution is called alike in all.
    _, prefix = next(iter(naming.keys(Architecture())))
    return naming.joins(prefix, "kernel")
