"""The stages of the ARDS pipeline as folders, and which radiographs may be pretrained on."""

import json

import numpy as np
import pytest

from tests.chest import made
from tf_simclr.chest.ards import stages as ards
from tf_simclr.chest.ards.runs import Pipeline
from tf_simclr.chest.ards.stages import STAGES, Stage
from tf_simclr.config import ChestArds
from tf_simclr.data.radiographs import partition
from tf_simclr.errors import InputError


def whole(root, name: str, **settings) -> Stage:
    stage = Stage(root, name)
    stage.begin(settings)
    stage.finish({"made": True})
    return stage


def test_there_are_eight_stages_and_each_needs_earlier_ones_only():
    names = list(STAGES)
    assert len(names) == 8
    assert all(names.index(needed) < names.index(name) for name, (_, needs) in STAGES.items() for needed in needs)


def test_a_stage_is_done_once_and_goes_on_where_it_was_stopped(tmp_path):
    stage = Stage(tmp_path, "initial")
    assert stage.begin({"seed": 0})
    assert stage.begin({"seed": 0})  # it was stopped: there is still something to do
    stage.finish({"made": True})
    assert not stage.begin({"seed": 0})
    assert stage.result == {"made": True}
    assert stage.path.name == "1-initial"
    assert stage.title.startswith("stage 1 of 8, initial: ")


def test_a_stage_alone_names_the_one_it_lacks(tmp_path):
    Stage(tmp_path, "initial").begin({})  # begun, not whole
    with pytest.raises(InputError, match="stage pretrain must have stage initial before it"):
        Stage(tmp_path, "pretrain").begin({})


def test_other_settings_are_refused_with_both_values(tmp_path):
    whole(tmp_path, "initial", depth=18)
    with pytest.raises(InputError, match=r"must be of the same settings.*depth='18 there, 50 here'"):
        Stage(tmp_path, "initial").begin({"depth": 50})


def test_what_was_built_on_an_earlier_making_of_a_stage_is_refused(tmp_path):
    whole(tmp_path, "initial", depth=18)
    whole(tmp_path, "pretrain", steps=10)
    (tmp_path / "1-initial/stage.json").unlink()
    whole(tmp_path, "initial", depth=50)
    with pytest.raises(InputError, match="stage initial="):
        Stage(tmp_path, "pretrain").begin({"steps": 10})


def test_what_is_validated_or_tested_on_is_never_pretrained_on(tmp_path):
    target = made.folder(tmp_path / "target", "aabbccdd")
    rows = {"train": np.array([0, 1, 2, 3]), "validation": np.array([4, 5]), "test": np.array([6, 7])}
    assert ards.unlabelled(target, target=target, rows=rows).tolist() == [0, 1, 2, 3]
    other = made.folder(tmp_path / "other", "dxyabzz", size=12)  # d is tested on
    for number, prepared in enumerate((target, other)):
        prepared.hashes[:] = [np.random.default_rng([number, i]).bytes(32).hex() for i in range(len(prepared))]
    other.hashes[5] = f"{int(target.hashes[4], 16) ^ 7:064x}"  # three bits from one to choose by
    other.hashes[3] = f"{int(target.hashes[0], 16) ^ 7:064x}"  # like one to train on: stays
    assert ards.unlabelled(other, target=target, rows=rows).tolist() == [1, 2, 3, 4, 6]


def test_radiographs_of_different_parts_that_look_the_same_are_told(tmp_path):
    target = made.folder(tmp_path / "target", "aabbccddeeffgghhiijj")
    target.hashes[:] = [np.random.default_rng(i).bytes(32).hex() for i in range(len(target))]
    config = ChestArds(radiographs=str(target.folder), positive="ARDS", model_dir=tmp_path)
    job = Pipeline(config, target, "ARDS", None)
    assert job.alike_in_words == "No two radiographs of different parts look the same."
    train, test = job.rows["train"], job.rows["test"]
    target.hashes[test[0]] = f"{int(target.hashes[train[0]], 16) ^ 7:064x}"  # three bits apart
    target.hashes[train[1]] = target.hashes[train[2]]  # of one part: no matter
    again = Pipeline(config, target, "ARDS", None)
    assert again.alike_in_words.startswith("Pairs of radiographs that look the same: 1 in train and test.")


def test_a_part_of_one_class_is_refused_and_counts_are_of_patients_and_images(tmp_path):
    prepared = made.folder(tmp_path / "few", "aabcdd")  # b and d have ARDS
    with pytest.raises(InputError, match="patients must have images of both classes"):
        ards.check_split(prepared, partition.parts(prepared, positive="ARDS"), positive="ARDS")
    counted = ards.counts(prepared, {"train": np.array([0, 1, 4, 5, 2])}, positive="ARDS")
    assert counted == {"train": {"images": 5, "patients": 3, "positive images": 3, "positive patients": 2}}
    assert json.loads(json.dumps(counted)) == counted


def test_a_stage_from_before_an_option_came_goes_on_with_the_options_default(tmp_path):
    whole(tmp_path, "initial", depth=18)
    assert not Stage(tmp_path, "initial").begin({"depth": 18, "new": 3}, defaults={"new": 3, "other": 1})
    with pytest.raises(InputError, match=r"new='3 there, 4 here'"):
        Stage(tmp_path, "initial").begin({"depth": 18, "new": 4}, defaults={"new": 3})
    whole(tmp_path, "pretrain", steps=2)
    assert not Stage(tmp_path, "pretrain").begin({"steps": 2})
