"""A prepared folder serves every command: its parts share no patient, and its labels are the task that is asked for."""

import dataclasses

import numpy as np
import pytest

from tf_simclr.chest.collections import prepare, siim, synthetic
from tf_simclr.commands.parts.images import open_source
from tf_simclr.config import LinearEval
from tf_simclr.data.radiographs import partition
from tf_simclr.data.radiographs.prepared import load
from tf_simclr.data.radiographs.splits import shared
from tf_simclr.errors import InputError

POSITIVE = "Typical Appearance"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chest")
    synthetic.write(folder / "raw", 24, seed=0)
    prepare.prepare(siim.collection(folder / "raw"), folder / "ready", size=16)
    return load(folder / "ready")


def records(source):
    return list(source.ordered().as_numpy_iterator())


def test_the_parts_are_all_images_and_share_no_patient(prepared):
    parts = partition.parts(prepared, positive=POSITIVE)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(len(prepared)))
    assert list(parts) == ["train", "validation", "test"]
    assert set(shared(prepared.patients, parts).values()) == {0}
    other = partition.parts(prepared, positive=POSITIVE, seed=1)
    assert list(other["train"]) != list(parts["train"])


def test_commands_open_the_parts_with_the_task_that_is_asked_for(prepared):
    config = LinearEval(checkpoint=None, radiographs=prepared.folder, positive=POSITIVE)
    rows = partition.parts(prepared, positive=POSITIVE)["validation"]
    source = open_source(config, "validation", labelled=True)
    assert source.class_names == (f"not {POSITIVE}", POSITIVE)
    found = records(source)
    assert [record["name"].decode() for record in found] == list(prepared.images[rows])
    assert [int(record["label"]) for record in found] == list(prepared.column(POSITIVE)[rows])
    whole = open_source(dataclasses.replace(config, positive=None), "all")
    assert whole.class_names == prepared.classes
    assert [int(record["label"]) for record in records(whole)] == list(prepared.labels.argmax(axis=1))


def test_features_of_two_parts_or_tasks_are_told_apart_by_the_cache(prepared):
    known = [
        partition.part(prepared, name, positive=positive).identity()
        for name, positive in (("train", POSITIVE), ("test", POSITIVE), ("train", None))
    ]
    assert len({str(identity) for identity in known}) == 3


def test_images_with_several_findings_have_labels_only_for_one_of_them(prepared):
    several = dataclasses.replace(prepared, labels=np.maximum(prepared.labels, np.eye(4, dtype=np.int64)[0]))
    assert not partition.part(several, "train").labelled
    assert partition.part(several, "train", positive=POSITIVE).labelled


def test_the_official_split_is_kept_and_refused_where_it_shares_a_patient(prepared):
    _, patient = np.unique(prepared.patients, return_inverse=True)
    official = dataclasses.replace(prepared, splits=np.where(patient % 3 == 0, "test", "train"))
    parts = partition.parts(official, positive=POSITIVE)
    np.testing.assert_array_equal(parts["test"], np.flatnonzero(patient % 3 == 0))
    assert set(shared(prepared.patients, parts).values()) == {0}
    assert len(parts["validation"]) == pytest.approx(len(np.flatnonzero(patient % 3)) / 8, abs=2)
    twice = np.flatnonzero(patient == np.bincount(patient).argmax())
    assert len(twice) > 1
    splits = official.splits.copy()
    splits[twice] = ["train", "test"] + ["train"] * (len(twice) - 2)
    with pytest.raises(InputError, match="no patient may be in two parts"):
        partition.parts(dataclasses.replace(official, splits=splits), positive=POSITIVE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_dir": "a", "radiographs": "b"}, "from image_dir or from radiographs, not both"),
        ({"positive": "Mass"}, "give --radiographs, too"),
        ({"radiographs": "b", "split_seed": -1}, "split_seed must be at least 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        LinearEval(checkpoint=None, **options)


def test_a_part_or_class_that_is_not_there_is_refused_by_name(prepared):
    with pytest.raises(InputError, match="must be one of train, validation, test, all"):
        partition.part(prepared, "train[:10%]")
    with pytest.raises(InputError, match="the class must be one of"):
        partition.part(prepared, "train", positive="Mass")
