"""Whose images are whose, where a table and the files themselves say it, or neither.

A split by patient is as good as what is known of patients.  What is not known, or known in two ways, is said before a
split is made of it.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

_MOST = 0.5
"""Share of the images above which one patient that two sources make together is a placeholder, such as ANONYMOUS."""

_SEVERAL = 10
"""Images of which that is said, at least."""


def reconciled(
    table: Sequence[str], files: Sequence[str], *, images: Sequence[str]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """A patient for each image, and what is to be said of them.

    Where the table and the files contradict each other, images that either gives to one patient are one patient's: so
    no split lets through what one of them would have kept apart.

    Args:
        table: what the collection's table says of each image, or empty.
        files: what the image's own file says, or empty.
        images: names, each once; an image of no patient is a patient of its own.

    Returns:
        Strings `(n,)`, and sentences.

    Example:
        >>> patients, said = reconciled(list("aabcde"), list("111234"), images=list("uvwxyz"))
        >>> len(set(patients[:3])), len(set(patients))
        (1, 4)
        >>> said[0]
        'the table and the files contradict each other in 1 patient: images that either gives to one are one patient’s'
    """
    said = []
    count = len(images)
    known = {name for name in files if name}
    # The same identity in every file is an anonymiser's placeholder.
    if len(known) == 1 and len({name for name in table if name}) > 1 and sum(map(bool, files)) > 1:
        said.append("the files name one patient for all, and are not heard; the table's patients count")
        files = [""] * count
    # In the order of trust: table, file, each image for itself.
    own = np.array([t or f or image for t, f, image in zip(table, files, images, strict=True)], dtype=object)
    # Two sources may name one person differently: whom either takes for one is one, so that no split tears a patient.
    merged, contradicted = _joined(table, files, own=own)
    several = "patient" if contradicted == 1 else "patients"
    contradict = f"the table and the files contradict each other in {contradicted:,} {several}"
    # Unless that joins most images to one: then a source is wrong.
    if contradicted and len(set(own)) > 2 and Counter(merged).most_common(1)[0][1] > _MOST * count:
        said.append(f"{contradict}; together they would be one patient of most images, so the table's count")
    else:
        own = merged  # without a contradiction, too: the table may know one image's patient and the file another's
        if contradicted:
            said.append(f"{contradict}: images that either gives to one are one patient’s")
    nameless = sum(not (t or f) for t, f in zip(table, files, strict=True))
    if nameless:
        said.append(
            f"{nameless:,} of {count:,} images name no patient: each counts as a patient of its own, so that one "
            "person may be in two parts of a split"
        )
    most = max(Counter(own).values(), default=0)
    if count >= _SEVERAL and most > _MOST * count and len(set(own)) > 1:
        said.append(f"one patient has {most:,} of {count:,} images, as a placeholder such as ANONYMOUS would")
    if count > 1 and len(set(own)) == 1:
        said.append(f"all {count:,} images name one patient: no split by patient can be made of them")
    return own.astype(str), tuple(said)


def _joined(table: Sequence[str], files: Sequence[str], *, own: np.ndarray) -> tuple[np.ndarray, int]:
    """The patients with those joined that share an image by the table or by the files, and how many were."""
    parent: dict[str, str] = {}

    # Union-find: every name points to another of its group, the root to itself; paths are halved on the way.
    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = name = parent[parent[name]]
        return name

    of_file: dict[str, set[str]] = defaultdict(set)
    of_table: dict[str, set[str]] = defaultdict(set)
    for t, f in zip(table, files, strict=True):
        if t and f:
            of_file[f].add(t)
            of_table[t].add(f)
            # Two names of one image are of one patient.
            parent[root(f"t{t}")] = root(f"f{f}")
    contradicted = sum(len(names) > 1 for names in of_file.values())
    contradicted = contradicted or sum(len(names) > 1 for names in of_table.values())
    roots = [root(f"t{t}" if t else f"f{f}") if t or f else name for t, f, name in zip(table, files, own, strict=True)]
    # A group is called by its first image's name.
    first: dict[str, str] = {}
    for place, name in zip(roots, own, strict=True):
        first.setdefault(place, name)
    return np.array([first[place] for place in roots], dtype=object), contradicted
