"""Images that look the same, by their perceptual hashes."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

_NEAR = 15
"""Bits of 256 in which near-duplicates differ at most: different radiographs of ChestX-ray14 differ in 88 and more, a
brighter copy of half the size in 2.  Below 16, so that the search cannot miss any: of 16 parts of two such hashes at
least one is equal."""
_LARGEST = 2000
"""Images of a group all of whose pairs are compared."""


def near_duplicates(hashes: Sequence[str]) -> list[tuple[int, int, int]]:
    """Pairs of images that look alike: `(first, second, differing bits)`, the most alike first.

    Args:
        hashes: of `squares.perceptual_hash`.

    Example:
        >>> near_duplicates(["00" * 32, "ff" * 32, "00" * 31 + "01"])
        [(0, 2, 1)]
    """
    if not hashes:
        return []
    # A hash as 32 bytes, and as 16 words of 2 bytes.
    codes = np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8).reshape(len(hashes), -1)
    # Two hashes that differ in fewer bits than they have words must agree in one word at
    # least (pigeonhole): only pairs that share a word are compared, and none is missed, but in groups that are cut.
    parts = np.ascontiguousarray(codes).view(np.uint16)
    found: dict[tuple[int, int], int] = {}
    for column in parts.T:
        for rows in _equal_rows(column):
            # (r, 1, 32) against (1, r, 32): bits that differ, (r, r); of each pair once.
            differing = np.unpackbits(codes[rows][:, None] ^ codes[rows][None], axis=-1).sum(axis=-1)
            for i, j in np.argwhere(np.triu(differing <= _NEAR, 1)):
                found[int(rows[i]), int(rows[j])] = int(differing[i, j])
    return sorted(((a, b, bits) for (a, b), bits in found.items()), key=lambda pair: (pair[2], pair))


def across(pairs: Iterable[tuple[int, int, int]], parts: Mapping[str, np.ndarray]) -> dict[str, int]:
    """How many pairs have one image in one part of a split and the other in another, by the parts' names.

    Example:
        >>> across([(0, 3, 1), (1, 2, 0)], {"train": np.array([0, 1, 2]), "test": np.array([3])})
        {'train and test': 1}
    """
    part = {int(row): name for name, rows in parts.items() for row in rows}
    names = list(parts)
    found: dict[str, int] = defaultdict(int)
    for first, second, _ in pairs:
        # The parts that the two images are in; an image in no part does not count.
        two = {part[row] for row in (first, second) if row in part}
        if len(two) > 1:
            found[" and ".join(sorted(two, key=names.index))] += 1
    return dict(found)


def looks_like(own: str, hashes: Sequence[str]) -> np.ndarray:
    """Which images look like one: bool `(n,)`.

    Example:
        >>> looks_like("00" * 32, ["ff" * 32, "00" * 31 + "01"]).tolist()
        [False, True]
    """
    codes = np.frombuffer(bytes.fromhex(own + "".join(hashes)), np.uint8).reshape(len(hashes) + 1, -1)
    return np.asarray(np.unpackbits(codes[:1] ^ codes[1:], axis=-1).sum(axis=-1) <= _NEAR)


def _equal_rows(column: np.ndarray) -> list[np.ndarray]:
    """Groups of two and more rows with one value; groups too large to compare all pairs are cut into such as can be."""
    groups = defaultdict(list)
    for row, value in enumerate(column.tolist()):
        groups[value].append(row)
    many = [np.array(rows) for rows in groups.values() if len(rows) > 1]
    # Parts of a large group are compared within themselves only: it is one of blank pictures.
    return [part for rows in many for part in np.array_split(rows, -(-len(rows) // _LARGEST))]
