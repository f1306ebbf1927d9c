"""Splits by patient share none; the study's does."""

import numpy as np
import pytest

from tf_simclr.data.radiographs.splits import by_image, by_patient, check_patients, shared
from tf_simclr.errors import InputError

RNG = np.random.default_rng(0)
PATIENTS = [f"p{i}" for i in RNG.integers(0, 300, 1000)]
LABELS = RNG.integers(0, 2, 1000) * (RNG.uniform(size=1000) < 0.5)
SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}


@pytest.mark.parametrize("seed", range(5))
def test_a_split_by_patient_shares_none_and_has_the_shares_and_the_labels_that_it_should(seed):
    split = by_patient(PATIENTS, SHARES, labels=LABELS, seed=seed)
    assert sorted(np.concatenate(list(split.values()))) == list(range(1000))
    assert set(shared(PATIENTS, split).values()) == {0}
    check_patients(PATIENTS, split)
    for name, rows in split.items():
        assert len(rows) == pytest.approx(1000 * SHARES[name], abs=15)
        assert LABELS[rows].mean() == pytest.approx(LABELS.mean(), abs=0.03)


def test_a_split_is_a_function_of_its_seed():
    a, b, other = (by_patient(PATIENTS, SHARES, labels=LABELS, seed=s)["test"] for s in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert list(a) != list(other)


def test_the_studys_split_has_its_sizes_and_shares_patients_which_is_refused():
    with pytest.raises(InputError, match="must not need more images than there are"):
        by_image(3, tested=4, seed=0)
    split = by_image(1000, tested=150, seed=0)
    assert {name: len(rows) for name, rows in split.items()} == {"train": 850, "test": 150}
    train, test = ({PATIENTS[i] for i in split[name]} for name in ("train", "test"))
    assert shared(PATIENTS, split)["train", "test"] == len(train & test) > 50
    with pytest.raises(InputError, match=rf"'train and test': {len(train & test)}"):
        check_patients(PATIENTS, split)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: by_patient(["a"], {"train": 0.5}, labels=np.zeros(1, int), seed=0), "must sum to 1"),
        (lambda: by_patient(["a", ""], {"train": 1.0}, labels=np.zeros(2, int), seed=0), "name its patient"),
        (lambda: by_patient(["a"], SHARES, labels=np.zeros(1, int), seed=0), "one patient for each part"),
    ],
)
def test_impossible_splits_are_refused(call, reason):
    with pytest.raises(InputError, match=reason):
        call()
