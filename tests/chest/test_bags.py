"""Positive pairs of two images of a patient (MICLe): who is paired with whom, and that a resumed run pairs alike."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from tests.chest import made
from tf_simclr.commands.pretrain import to_pretrain_on
from tf_simclr.config import Pretrain
from tf_simclr.data.pipeline import Unreadable, training_views
from tf_simclr.data.radiographs import bags, partition
from tf_simclr.data.recipe import Recipe
from tf_simclr.data.sources import cached
from tf_simclr.errors import InputError

PATIENTS = "aaabbcdeeeef"
FLAT = Recipe(jitter_probability=0, grayscale_probability=0, use_blur=False)
"""Crops and flips, which a flat picture does not show."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return made.folder(tmp_path_factory.mktemp("bags") / "made", PATIENTS)


def views(source, count: int, *, start_step: int = 0, unreadable: Unreadable | None = None):
    """Batches of pairs `(4, 2, …)` as arrays."""
    options = {"batch_size": 4, "image_size": 8, "seed": 3, "unreadable": unreadable or Unreadable(), "recipe": FLAT}
    batches = training_views(source, **options, start_step=start_step).take(count)
    return [batch[0].numpy() for batch in batches]


def pairs(source, count: int, **options) -> list[tuple[int, int]]:
    """Numbers of the images of each pair."""
    return [tuple(map(made.number, pair)) for batch in views(source, count, **options) for pair in batch]


@pytest.fixture(scope="module")
def straight(prepared):
    """A hundred epochs of the whole folder."""
    return views(bags.source(prepared, np.arange(len(PATIENTS))), 300)


def test_pairs_share_the_patient_and_differ_in_image_where_there_are_several(straight):
    met = defaultdict(list)
    for first, second in (map(made.number, pair) for batch in straight for pair in batch):
        assert PATIENTS[first] == PATIENTS[second]
        assert (first == second) == (PATIENTS.count(PATIENTS[first]) == 1)
        met[first].append(second)
    assert all(len(seconds) == 100 for seconds in met.values())  # every epoch has each image once
    for number, patient in enumerate(PATIENTS):
        others = {i for i, other in enumerate(PATIENTS) if other == patient} - {number}
        assert set(met[number]) == (others or {number})
    assert abs(met[0].count(1) - 50) < 20  # 4 standard deviations: partners are all alike likely


def test_a_resumed_stream_has_the_same_pairs_bit_by_bit(prepared, straight):
    resumed = views(bags.source(prepared, np.arange(len(PATIENTS))), 3, start_step=4)
    for one, other in zip(straight[4:], resumed, strict=False):
        np.testing.assert_array_equal(one, other)


def test_no_pair_reaches_out_of_the_part(prepared):
    rows = np.array([0, 3, 4, 7, 8])  # one of a's images, both of b's, two of e's
    found = set(pairs(bags.source(prepared, rows), 40))
    assert found == {(0, 0), (3, 4), (4, 3), (7, 8), (8, 7)}


def test_records_read_where_they_lie_are_those_read_front_to_back(prepared):
    rows = np.array([1, 4, 5, 9, 11])
    for positive in (None, "ARDS"):
        ours = list(bags.source(prepared, rows, positive=positive).ordered().as_numpy_iterator())
        theirs = list(partition.source(prepared, rows, positive=positive).ordered().as_numpy_iterator())
        assert [{k: v for k, v in record.items() if k != "row"} for record in ours] == theirs


def test_a_corrupt_partner_gives_way_to_the_image_itself_and_is_named(tmp_path):
    prepared = made.folder(tmp_path / "made", "aabbb", corrupt=(1, 4))
    unreadable = Unreadable()
    found = set(pairs(bags.source(prepared, np.arange(5)), 60, unreadable=unreadable))
    assert unreadable.names == ["001", "004"]
    assert found == {(0, 0), (2, 2), (2, 3), (3, 2), (3, 3)}


def test_a_cache_keeps_the_partners(prepared):
    source = bags.source(prepared, np.arange(len(PATIENTS)))
    assert cached(source).partner is source.partner


def test_pretraining_takes_pairs_of_patients_by_an_option(prepared):
    config = Pretrain(radiographs=prepared.folder, train_split="all", pairs="patient")
    assert to_pretrain_on(config).partner is not None
    assert to_pretrain_on(Pretrain(radiographs=prepared.folder, train_split="all")).partner is None
    with pytest.raises(InputError, match="must come from --radiographs"):
        Pretrain(image_dir=Path("photos"), pairs="patient")
