"""Few labels: shares of each class that are nested, seeded, and the same whatever the source."""

import re

import numpy as np
import pytest
import tensorflow as tf

from tests.commands import pictures
from tf_simclr.data import subsets
from tf_simclr.data.pipeline import Unreadable, training_batches
from tf_simclr.data.sources import Sequential, from_arrays, from_folder
from tf_simclr.errors import InputError

LABELS = np.array([0] * 50 + [1] * 20 + [2] * 3)


@pytest.fixture(scope="module")
def source():
    """Seventy-three pictures, each of a grey that tells its number, in three unequal classes."""
    pixels = np.repeat(np.arange(len(LABELS), dtype=np.uint8), 16).reshape(-1, 4, 4)
    return from_arrays(pixels, LABELS, class_names=("cat", "dog", "emu"))


def sequential(source, *, reverse=False):
    """The same pictures, to be read front to back."""
    rows = next(source.ordered().batch(source.num_examples).as_numpy_iterator())
    records = tf.data.Dataset.from_tensor_slices({k: v[:: -1 if reverse else 1] for k, v in rows.items()})
    return Sequential(
        origin="front to back",
        num_examples=source.num_examples,
        class_names=source.class_names,
        epoch=lambda seed: records,
    )


def names(part) -> list[bytes]:
    return [record["name"] for record in part.ordered().as_numpy_iterator()]


@pytest.mark.parametrize(
    ("fraction", "counts"),
    [(0.01, (1, 1, 1)), (0.1, (5, 2, 1)), (0.5, (25, 10, 2)), (1.0, (50, 20, 3))],  # round halves to even: 1.5 → 2
)
def test_each_class_gives_its_share_and_at_least_one(source, fraction, counts):
    part, found = subsets.labelled_part(source, fraction)
    assert found == dict(zip(("cat", "dog", "emu"), counts, strict=True))
    assert part.num_examples == sum(counts) == len(names(part))
    assert part.origin == f"arrays, {sum(counts)} of 73 images"


def test_the_smaller_share_lies_within_the_larger_one_and_other_seeds_draw_others(source):
    parts = {(f, s): set(names(subsets.labelled_part(source, f, seed=s)[0])) for f in (0.01, 0.1, 0.5) for s in (0, 1)}
    for seed in (0, 1):
        assert parts[0.01, seed] < parts[0.1, seed] < parts[0.5, seed]
    assert parts[0.5, 0] != parts[0.5, 1]


def test_the_order_of_the_source_changes_nothing(source):
    shuffled = np.random.default_rng(0).permutation(len(LABELS))
    keys = np.array([f"{i}".encode() for i in range(len(LABELS))])
    straight = subsets.choose(LABELS, 0.2, names=keys, seed=3)
    other = subsets.choose(LABELS[shuffled], 0.2, names=keys[shuffled], seed=3)
    assert set(keys[straight]) == set(keys[shuffled][other])


def test_a_source_read_front_to_back_gives_the_same_images_and_trains(source):
    indexed, _ = subsets.labelled_part(source, 0.1)
    part, _ = subsets.labelled_part(sequential(source, reverse=True), 0.1)
    assert part.in_memory  # else each epoch of a small part would read all of the set
    assert set(names(part)) == set(names(indexed))
    options = {"batch_size": 4, "buffer": 4, "seed": 0, "unreadable": Unreadable()}
    batches = training_batches(part, lambda image, seed: image, **options).take(4).unbatch().as_numpy_iterator()
    seen = [(round(float(image[0, 0, 0]) * 255), int(label)) for image, label in batches]
    assert {f"{number}".encode() for number, _ in seen[:8]} == set(names(indexed))  # an epoch is eight images
    assert all(LABELS[number] == label for number, label in seen)


def test_a_part_too_large_for_memory_is_read_where_it_lies(source, monkeypatch):
    monkeypatch.setattr(subsets, "HELD_BYTES", 10)
    part, _ = subsets.labelled_part(sequential(source), 0.1)
    assert not part.in_memory
    assert len(names(part)) == 8


def test_files_of_a_folder_are_chosen_by_their_paths(tmp_path):
    folder = pictures.write(tmp_path, per_class=4, size=8)
    part, counts = subsets.labelled_part(from_folder(folder), 0.5)
    assert counts == {"blue": 2, "green": 2, "red": 2}
    assert {name.decode().split("/")[-2] for name in names(part)} == set(counts)


def test_other_targets_take_the_place_of_labels(source):
    for one in (source, sequential(source)):
        changed = subsets.with_targets(one, lambda record: {"label": record["label"], "twice": record["label"] * 2})
        records = list(changed.ordered().as_numpy_iterator())
        assert [record["label"]["twice"] for record in records] == list(2 * LABELS)


def test_a_source_without_labels_is_refused():
    with pytest.raises(InputError, match="arrays must have labels"):
        subsets.labelled_part(from_arrays(np.zeros((4, 4, 4), np.uint8)), 0.5)


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5])
def test_a_share_that_is_none_is_refused(fraction):
    with pytest.raises(InputError, match=re.escape("labels_fraction must lie in (0, 1]")):
        subsets.choose(LABELS, fraction, names=np.arange(73).astype("S"))
