"""Splits into training, validation and test images that share no patient – and the one of the study, which do."""

from collections.abc import Mapping, Sequence

import numpy as np

from tf_simclr.errors import check

Split = Mapping[str, np.ndarray]
"""Part → indices of its images, sorted."""
LABELS = 20
"""Most labels of which each part is to have one; of more, which are combinations of findings, many are rare."""
NAMES = {
    "train": ("train", "training", "trn", "train_val", "trainval", "development", "derivation"),
    "validation": ("validation", "val", "valid", "dev", "tune", "tuning"),
    "test": ("test", "testing", "tst", "holdout", "held_out"),
}
"""Part → what tables call it."""


def by_patient(
    patients: Sequence[str], shares: Mapping[str, float], *, labels: np.ndarray, seed: int
) -> dict[str, np.ndarray]:
    """Splits images so that all images of a patient fall into one part, and the parts are alike.

    Patients are drawn at random, stratified by their labels and by how many images they have: they stand in a row,
    those of one kind in random order, and the row is dealt out to the parts by their shares from a random start on.  So
    each patient is as likely as any other to be trained on, one with many images too, and each part has the
    collection's shares of labels and of images a patient, but for what cannot be divided.

    Args:
        patients: one name an image.
        shares: part → share of the patients; they sum to 1.
        labels: int `(n,)`, what to balance.
        seed: of the order.  It is drawn over patients as they appear, not by their names, which may be pseudonyms.

    Raises:
        InputError: the shares do not sum to 1, a patient is unnamed, or there are fewer patients than parts.

    Example:
        >>> parts = by_patient(list("aabbcc"), {"train": 0.67, "test": 0.33}, labels=np.zeros(6, int), seed=0)
        >>> {name: len(rows) for name, rows in parts.items()}
        {'train': 4, 'test': 2}
    """
    # 1. How many images of each label a patient has, (patients, labels).
    check(abs(sum(shares.values()) - 1) < 1e-6, "the shares of a split must sum to 1", shares=dict(shares))
    check(all(patients), "every image must name its patient", unnamed=sum(not p for p in patients))
    group = _appearing(patients)
    count = int(group.max()) + 1
    check(count >= len(shares), "there must be at least one patient for each part", patients=count)
    counts = np.zeros((count, int(labels.max()) + 1), np.int64)
    np.add.at(counts, (group, labels), 1)
    # 2. In a row by the rarest labels, dealt out along it, so that every part gets its share of each kind.
    rng = np.random.default_rng(seed)
    part = _dealt(_in_a_row(counts, rng), np.array(list(shares.values())), rng=rng)
    # 3. Small collections: what a part lacks is taken from the part that has most.
    _fill(part, counts, parts=len(shares), rng=rng)
    return {name: np.flatnonzero(part[group] == i) for i, name in enumerate(shares)}


def _appearing(names: Sequence[str]) -> np.ndarray:
    """Numbers of the names in the order in which they first appear.

    Example:
        >>> _appearing(["b", "a", "b"]).tolist()
        [0, 1, 0]
    """
    numbers: dict[str, int] = {}
    # `setdefault` gives the number of a known name, and else the next.
    return np.array([numbers.setdefault(str(name), len(numbers)) for name in names], np.int64)


def _in_a_row(counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Patients by kind: by their images with the rarest label, then by those with the next, … alike ones at random.

    Args:
        counts: images of each patient with each label, `(patients, labels)`.
        rng: of the order of those that are alike.
    """
    # From the most frequent label to the rarest, as `lexsort` begins with its last key.
    rarest = np.argsort(counts.sum(axis=0), kind="stable")
    chance = rng.permutation(len(counts))
    keys = [chance, *(-counts[:, label] for label in rarest[::-1])]
    return np.lexsort(keys)  # the last key counts most


def _dealt(order: np.ndarray, shares: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """A part for each patient: along the row each part gets its turn when it lacks most of its share.

    The start is random, so that the patient of a place in the row, as the one with most images, falls into each part as
    often as the part's share says.
    """
    lacks = np.zeros(len(shares))
    part = np.empty(len(order), np.int64)
    # The dealing begins somewhere before the row: which part comes first is by chance.
    for step in range(-int(rng.integers(0, 1000)), len(order)):
        # Every part is owed its share of each step; who is owed most gets the patient and pays one.
        lacks += shares
        turn = int(lacks.argmax())
        lacks[turn] -= 1
        if step >= 0:
            part[order[step]] = turn
    return part


def _fill(part: np.ndarray, counts: np.ndarray, *, parts: int, rng: np.random.Generator) -> None:
    """Has every part hold a patient, and one of each of few labels, where two have it: those with fewest images move.

    Only a handful of patients, or a label of a handful, leaves a part without; of more, none moves.
    """
    few = counts if counts.shape[1] <= LABELS else counts[:, :0]
    kinds = [np.ones(len(part), bool), *(column > 0 for column in few.T)]
    # First: has every part a patient?  Then for each label.
    for has in kinds:
        for lacking in range(parts):
            members = np.bincount(part[has], minlength=parts)
            if members[lacking] or members.max() < 2:
                continue
            # From the part with most of them, a patient with fewest images: the shares change least.
            donors = np.flatnonzero(has & (part == members.argmax()))
            fewest = donors[counts[donors].sum(axis=1) == counts[donors].sum(axis=1).min()]
            part[rng.choice(fewest)] = lacking


def by_image(count: int, *, tested: int, seed: int) -> dict[str, np.ndarray]:
    """Splits images without regard to patients, as the COVID-19 study did: 5,400 to train on, 934 to test."""
    check(0 <= tested <= count, "a split must not need more images than there are", images=count, needed=tested)
    rows = np.random.default_rng(seed).permutation(count)
    return {"train": np.sort(rows[: count - tested]), "test": np.sort(rows[count - tested :])}


def named(text: str) -> str:
    """The part that a table's word stands for, in any case of letters; empty for an empty cell.

    Raises:
        InputError: it is no name of a part.

    Example:
        >>> named("VAL "), named("")
        ('validation', '')
    """
    # `Train-Val`, `train val` and `train_val` are one word.
    word = text.strip().lower().replace("-", "_").replace(" ", "_")
    found = next((part for part, words in NAMES.items() if word in words), "")
    check(bool(found) or not word, f"a split must be one of {', '.join(NAMES)}, or empty in every row", received=text)
    return found


def shared(patients: Sequence[str], split: Split) -> dict[tuple[str, str], int]:
    """For each two parts the number of patients that both have images of."""
    sets = {name: {patients[i] for i in rows} for name, rows in split.items()}
    names = list(sets)
    return {(a, b): len(sets[a] & sets[b]) for i, a in enumerate(names) for b in names[i + 1 :]}


def check_patients(patients: Sequence[str], split: Split) -> None:
    """Refuses a split with a patient in two parts.

    Raises:
        InputError: there is one.
    """
    leaks = {f"{a} and {b}": count for (a, b), count in shared(patients, split).items() if count}
    check(not leaks, "no patient may be in two parts of a split; split by patient instead", patients_in_both=leaks)
