"""A study that was stopped goes on: what was trained is read, and nothing else is believed."""

import dataclasses
import json
from typing import ClassVar

import numpy as np
import pytest

from tests.chest import made
from tf_simclr.chest.covid import arms as covid_arms
from tf_simclr.chest.covid.rows import Fit
from tf_simclr.chest.findings import fits
from tf_simclr.chest.kept import Kept
from tf_simclr.config import ChestCovid
from tf_simclr.errors import InputError
from tf_simclr.files.contents import of_array


def fit(seed: int = 0, count: int = 6) -> Fit:
    rng = np.random.default_rng(seed)
    history = {"loss": rng.random(3).tolist(), "val_accuracy": [0.5, 0.25, 1 / 3]}
    patients = np.array([f"patient-{i // 2}" for i in range(count)])
    return Fit(history, rng.random(count).astype(np.float32), rng.integers(0, 2, count), patients, rng.random(3))


def store(folder, *say) -> Kept[Fit]:
    return Kept(folder, Fit, 1, *say)


def same(first: Fit, second: Fit) -> None:
    assert first.history == second.history
    for name in ("probabilities", "labels", "patients", "pace"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), strict=True)


def never(_):
    raise AssertionError("trained, though it was kept")


def test_a_training_is_done_once_and_comes_back_bit_by_bit(tmp_path):
    kept = store(tmp_path / "fits")
    first = kept.fetch({"seed": 0}, lambda _: dataclasses.replace(fit(), seconds=1.5))
    again = store(tmp_path / "fits")
    found = again.fetch({"seed": 0}, never)
    same(first, found)
    assert (first.seconds, found.seconds, kept.found, again.found) == (1.5, 1.5, 0, 1)
    same(again.fetch({"seed": 1}, lambda _: fit(1)), fit(1))
    assert len(list((tmp_path / "fits").iterdir())) == 2


def test_what_was_stopped_leaves_nothing(tmp_path):
    def stopped(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store(tmp_path / "fits").fetch({"seed": 0}, stopped)
    assert not list(tmp_path.rglob("*.npz"))


def foreign(path):
    other = store(path.parent / "other")
    other.fetch({"seed": 7}, lambda _: fit(7))
    next(other.folder.iterdir()).replace(path)


def without(path):
    arrays = {name: array for name, array in np.load(path).items() if name != "labels"}
    np.savez(path, **arrays)


def shorter(path):
    arrays = dict(np.load(path))
    np.savez(path, **arrays | {"labels": arrays["labels"][:-1]})


def other(**arrays):
    def damage(path):
        np.savez(path, **dict(np.load(path)) | {name: np.asarray(array) for name, array in arrays.items()})

    return damage


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 255
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:200]), "damaged"),
        (lambda path: path.write_bytes(b""), "damaged"),
        (flipped, "damaged"),
        (foreign, "must be of the settings that its name stands for"),
        (without, "must hold a training"),
        (shorter, "an answer, a label and a patient for each image"),
        (other(history=np.arange(3)), "a training"),
        (other(history="[1]"), "JSON object"),
        (other(seconds=np.zeros(3)), "a training"),
        (other(seconds=1j), "a training"),
        (other(probabilities="[0.1, 0.2]", labels='{"a": 1}'), "must have axes"),
    ],
    ids=[
        *("cut", "empty", "flipped", "foreign", "without labels", "of other lengths"),
        *("history of numbers", "history a list", "several seconds", "complex seconds", "texts for arrays"),
    ],
)
def test_a_damaged_or_foreign_file_is_made_again_with_a_sentence(tmp_path, damage, reason):
    told = []
    kept = store(tmp_path / "fits", told.append)
    kept.fetch({"seed": 0}, lambda _: fit())
    path = next(kept.folder.glob("*.npz"))
    damage(path)
    same(kept.fetch({"seed": 0}, lambda _: fit()), fit())
    assert kept.found == 0
    assert len(told) == 1
    assert "made again" in told[0]
    assert reason in told[0]
    same(kept.fetch({"seed": 0}, never), fit())


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (other(kernel=2.0), "must have axes"),
        (other(notes=np.arange(2)), "a training"),
        (other(notes="[]"), "JSON object"),
        (other(bias=np.zeros(3)), "must fit each other"),
        (other(test=np.zeros((4, 3))), "must fit each other"),
    ],
    ids=["no axes", "notes of numbers", "notes a list", "bias", "test"],
)
def test_a_damaged_fit_of_findings_is_made_again_too(tmp_path, damage, reason):
    told, parts = [], (np.zeros((5, 2)), np.zeros((4, 2)), np.zeros((3, 2)), np.zeros(2))
    kept = Kept(tmp_path / "fits", fits.Fit, 1, told.append)
    kept.fetch({"seed": 0}, lambda _: fits.Fit(*parts, {"steps": 3}))
    damage(next(kept.folder.glob("*.npz")))
    found = kept.fetch({"seed": 0}, lambda _: fits.Fit(*parts, {"steps": 3}))
    assert (kept.found, found.notes, len(told)) == (0, {"steps": 3}, 1)
    assert "made again" in told[0]
    assert reason in told[0]


def test_the_longest_time_is_remembered_whatever_lies_there(tmp_path):
    kept = store(tmp_path)
    assert [kept.longest({"of": 1}, seconds) for seconds in (3.0, 0.5, 4.0)] == [3, 3, 4]
    next(tmp_path.glob("*.json")).write_text(json.dumps({"seconds": "long"}))
    assert kept.longest({"of": 1}, 2.0) == 2


def test_digests_tell_values_shapes_and_texts_apart():
    arrays = [np.arange(4), np.arange(4.0), np.arange(4).reshape(2, 2), np.array(["a", "b"]), np.array(["a", "c"])]
    assert len({of_array(array) for array in [*arrays, arrays[0][::-1], np.array([])]}) == 7
    assert of_array(np.arange(8)[::2]) == of_array(np.array([0, 2, 4, 6]))


class FakeLearner:
    """Answers by its seed and settings at once; stops when `left` trainings are done."""

    done: ClassVar[list[tuple]] = []
    left = np.inf

    def __init__(self, *_, **settings):
        self.settings = settings

    def on_features(self, values, labels, *, parts, patients, seed, **options):
        if FakeLearner.left <= 0:
            raise KeyboardInterrupt
        FakeLearner.left -= 1
        FakeLearner.done.append((self.settings.get("optimizer"), self.settings.get("after_block"), seed))
        test = parts["test"]
        made_up = np.random.default_rng([seed, len(values)]).random(len(test))
        return Fit({"loss": [float(seed)]}, made_up, labels[test], patients[test], [1.0])

    def on_images(self, data, labels, *, sizes, **options):
        return self.on_features(np.zeros(len(data)), labels, patients=data.patients, **options)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return made.folder(tmp_path_factory.mktemp("kept") / "made", "aabbccddeeffgghh")


@pytest.fixture
def learner(monkeypatch):
    monkeypatch.setattr(covid_arms, "Learner", FakeLearner)
    monkeypatch.setattr(covid_arms, "weights_digest", lambda encoder: "the weights")
    monkeypatch.setattr(FakeLearner, "done", [])
    monkeypatch.setattr(FakeLearner, "left", np.inf)
    return FakeLearner


class Encoder:
    """Stands for a network."""

    output_shape = (None, 4)


def arms(config: ChestCovid, data) -> covid_arms.Arms:
    """Two heads on features, and an encoder in the loop, two seeds each: twelve trainings."""
    study = covid_arms.Study(config, data)
    values = np.random.default_rng(0).random((len(data), 4), np.float32)
    found = study.on_features("sgd", values) | study.on_features("lars", values, optimizer="lars")
    return found | study.on_images("tuned", Encoder(), after_block=3)


def flat(found: covid_arms.Arms) -> list[Fit]:
    return [one for kinds in found.values() for fits in kinds.values() for one in fits]


def test_a_study_that_was_stopped_trains_what_is_left_and_ends_as_if_it_had_not_been(data, learner, tmp_path):
    config = ChestCovid(positive="ARDS", model_dir=tmp_path / "straight", seeds=2, tuning_seeds=2, test_share=0.5)
    straight, trained = arms(config, data), list(learner.done)
    assert len(trained) == 12
    assert all(one.seconds > 0 for one in flat(straight))
    again = dataclasses.replace(config, model_dir=tmp_path / "stopped")
    learner.left, learner.done = 9, []
    with pytest.raises(KeyboardInterrupt):
        arms(again, data)
    learner.left = np.inf
    for one, other in zip(flat(straight), flat(arms(again, data)), strict=True):
        same(one, other)
    assert learner.done == trained  # each once, in the same order
    arms(dataclasses.replace(again, tuning_seeds=3), data)
    assert learner.done[12:] == [("sgd", 3, 2)] * 2  # one more seed on both splits, nothing else


@pytest.mark.parametrize(
    "change",
    [{"learning_rate": 0.5}, {"seed": 5}, {"test_share": 0.3}, {"train_batch_size": 8}, {"positive": "No Finding"}],
    ids=str,
)
def test_other_settings_are_trained_anew(data, learner, tmp_path, change):
    config = ChestCovid(positive="ARDS", model_dir=tmp_path, seeds=1, tuning_seeds=1, test_share=0.5)
    arms(config, data)
    before = len(learner.done)
    arms(dataclasses.replace(config, **change), data)
    # A learning rate is that of the optimizer that was asked for: LARS' own stays.
    assert len(learner.done) - before == (4 if "learning_rate" in change else 6)


def test_a_folder_in_which_another_process_works_is_refused(data, tmp_path):
    from tf_simclr.chest.covid import command as chest_covid
    from tf_simclr.files.lock import HELD, hold

    with hold(tmp_path):
        HELD.discard(tmp_path.resolve())  # as if it were another process
        with pytest.raises(InputError, match="is in use by process"):
            chest_covid.run(ChestCovid(data=str(data.folder), positive="ARDS", model_dir=tmp_path))
        HELD.add(tmp_path.resolve())
