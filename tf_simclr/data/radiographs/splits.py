"""Splits into training, validation and test images that share no patient – and the one of the study, which do."""

from collections.abc import Mapping, Sequence

import numpy as np

from tf_simclr.errors import check

Split = Mapping[str, np.ndarray]
"""Part → indices of its images, sorted."""


def by_patient(patients: Sequence[str], shares: Mapping[str, float], *, labels: np.ndarray, seed: int) -> dict:
    """Splits images so that all images of a patient fall into one part, and the parts have about the same labels.

    Patients are drawn in random order, those with most images first, and each goes where its label lacks most.

    Args:
        patients: one name an image.
        shares: part → share of the images; they sum to 1.
        labels: int `(n,)`, what to balance.
        seed: of the order.

    Raises:
        InputError: the shares do not sum to 1, a patient is unnamed, or there are fewer patients than parts.

    Example:
        >>> parts = by_patient(list("aabbcc"), {"train": 0.67, "test": 0.33}, labels=np.zeros(6, int), seed=0)
        >>> {name: len(rows) for name, rows in parts.items()}
        {'train': 4, 'test': 2}
    """
    check(abs(sum(shares.values()) - 1) < 1e-6, "the shares of a split must sum to 1", shares=dict(shares))
    check(all(patients), "every image must name its patient", unnamed=sum(not p for p in patients))
    names, group = np.unique(np.asarray(patients), return_inverse=True)
    check(len(names) >= len(shares), "there must be at least one patient for each part", patients=len(names))
    counts = np.zeros((len(names), int(labels.max()) + 1))
    np.add.at(counts, (group, labels), 1)
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    wanted = np.array(list(shares.values()))[:, None] * counts.sum(axis=0)
    part = np.empty(len(names), int)
    for patient in order:
        part[patient] = (wanted * (counts[patient] > 0)).sum(axis=1).argmax()
        wanted[part[patient]] -= counts[patient]
    return {name: np.flatnonzero(part[group] == i) for i, name in enumerate(shares)}


def by_image(count: int, sizes: Mapping[str, int], *, seed: int) -> dict[str, np.ndarray]:
    """Splits images without regard to patients, as the COVID-19 study did: 5,400 to train on, 934 to test.

    Raises:
        InputError: the sizes are more than there are images.
    """
    total = sum(sizes.values())
    check(total <= count, "a split must not need more images than there are", images=count, needed=total)
    rows = np.random.default_rng(seed).permutation(count)[:total]
    return {
        n: np.sort(part) for n, part in zip(sizes, np.split(rows, np.cumsum(list(sizes.values()))[:-1]), strict=True)
    }


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
