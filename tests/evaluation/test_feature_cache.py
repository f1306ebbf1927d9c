import json

import keras
import numpy as np
import pytest

from tf_simclr.data.sources import from_arrays, from_folder
from tf_simclr.evaluation import features
from tf_simclr.evaluation.features import FeatureCache, Features, source_digest, weights_digest

KEY = {"weights": "a", "data": "b"}


@pytest.fixture
def counted(tmp_path):
    """A cache, what it said, and a function whose calls are counted."""
    said, calls = [], []

    def compute():
        calls.append(1)
        values = np.arange(12, dtype=np.float32).reshape(4, 3)
        return Features(values, np.arange(4), np.array(["a", "b", "ü", "long name"])), ["bad.png"]

    return FeatureCache(tmp_path / "cache", said.append), said, calls, compute


def files(cache):
    return sorted(path for path in cache.folder.rglob("*") if path.is_file())


def test_features_come_back_as_they_were_without_being_computed_again(counted):
    cache, said, calls, compute = counted
    fresh, kept = (cache.fetch(KEY, compute) for _ in range(2))
    assert len(calls) == 1
    assert isinstance(kept[0].values, np.memmap)
    for name in ("values", "labels", "names"):
        ours, theirs = getattr(kept[0], name), getattr(fresh[0], name)
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype
    assert kept[1] == fresh[1] == ["bad.png"]
    assert said == []


def test_changing_kept_features_does_not_reach_the_disk(counted):
    cache, _, _, compute = counted
    cache.fetch(KEY, compute)
    cache.fetch(KEY, compute)[0].values[:] = 7
    assert cache.fetch(KEY, compute)[0].values[0, 1] == 1


@pytest.mark.parametrize("changed", [{"weights": "c"}, {"more": 1}])
def test_another_key_has_other_features(counted, changed):
    cache, _, calls, compute = counted
    cache.fetch(KEY, compute)
    cache.fetch(KEY | changed, compute)
    assert len(calls) == 2


def test_what_there_is_none_of_stays_none(tmp_path):
    cache = FeatureCache(tmp_path)
    for _ in range(2):
        found, _ = cache.fetch(KEY, lambda: (Features(np.ones((2, 2), np.float32), None, None), []))
        assert found.labels is None
        assert found.names is None


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["values.npy", "labels.npy", "names.npy", "entry.json"])
@pytest.mark.parametrize("damage", [flip, lambda path: path.write_bytes(path.read_bytes()[:-7])])
def test_a_damaged_file_is_told_and_its_features_are_computed_again(counted, name, damage):
    cache, said, calls, compute = counted
    cache.fetch(KEY, compute)
    [path] = [path for path in files(cache) if path.name == name]
    if damage is flip and name == "entry.json":
        damage = lambda path: path.write_text(path.read_text().replace("values.npy", "valuer.npy"))  # noqa: E731
    damage(path)
    found, _ = cache.fetch(KEY, compute)
    assert len(calls) == 2
    assert found.values[1, 1] == 4
    assert len(said) == 1
    assert "are damaged" in said[0]
    cache.fetch(KEY, compute)
    assert len(calls) == 2


def test_a_computation_that_fails_leaves_nothing(counted):
    cache, *_ = counted
    with pytest.raises(KeyboardInterrupt):
        cache.fetch(KEY, lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    assert not cache.folder.exists()


def test_writing_that_is_interrupted_leaves_nothing_half_done(counted, monkeypatch):
    cache, _, calls, compute = counted

    def interrupted(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(features, "described", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cache.fetch(KEY, compute)
    assert files(cache) == []
    monkeypatch.undo()
    cache.fetch(KEY, compute)
    assert len(calls) == 2


def test_a_folder_that_cannot_be_written_costs_the_cache_only(tmp_path):
    (tmp_path / "file").write_text("")
    said = []
    cache = FeatureCache(tmp_path / "file" / "cache", said.append)
    found, _ = cache.fetch(KEY, lambda: (Features(np.ones((2, 2), np.float32), None, None), []))
    assert found.values.shape == (2, 2)
    assert "features are not kept" in said[0]


def network(scale=1.0, units=3):
    images = keras.Input((4,))
    model = keras.Model(images, keras.layers.Dense(units, kernel_initializer="ones", name="dense")(images))
    model.get_layer("dense").kernel.assign(scale * model.get_layer("dense").kernel)
    return model


def test_networks_are_told_apart_by_their_weights_alone():
    assert weights_digest(network()) == weights_digest(network())
    assert len({weights_digest(network(*case)) for case in ((1.0, 3), (1.0 + 2**-20, 3), (1.0, 2))}) == 3


def test_data_is_told_apart_by_files_and_pixels_wherever_it_lies(tmp_path):
    for place in ("here", "there"):
        (tmp_path / place / "cat").mkdir(parents=True)
        (tmp_path / place / "cat" / "1.png").write_bytes(b"12345")
    here, there = (source_digest(from_folder(tmp_path / place)) for place in ("here", "there"))
    assert here == there
    (tmp_path / "there" / "cat" / "1.png").write_bytes(b"123456")
    assert source_digest(from_folder(tmp_path / "there")) != here
    (tmp_path / "here" / "cat" / "1.png").rename(tmp_path / "here" / "cat" / "2.png")
    assert source_digest(from_folder(tmp_path / "here")) != here
    black, white = (from_arrays(np.full((2, 4, 4), value, np.uint8)) for value in (0, 255))
    assert source_digest(black) != source_digest(white)


def test_data_is_told_apart_by_labels_and_by_what_a_file_holds(tmp_path):
    pixels = np.zeros((2, 4, 4), np.uint8)
    labels = [None, np.array([0, 1]), np.array([1, 0])]
    assert len({source_digest(from_arrays(pixels, one, class_names=("a", "b"))) for one in labels}) == 3
    path = tmp_path / "cat" / "1.png"
    path.parent.mkdir()
    digests = []
    for content in (b"12345", b"12346"):
        path.write_bytes(content)
        digests.append(source_digest(from_folder(tmp_path)))
    assert digests[0] != digests[1]


def test_networks_of_the_same_weights_are_told_apart_by_what_they_compute():
    def build(strides=1, activation="relu"):
        images = keras.Input((8, 8, 3))
        convolved = keras.layers.Conv2D(2, 3, strides, kernel_initializer="ones", activation=activation)(images)
        return keras.Model(images, keras.layers.GlobalAveragePooling2D()(convolved))

    same, other, smooth = weights_digest(build()), weights_digest(build(2)), weights_digest(build(activation="gelu"))
    assert weights_digest(build()) == same  # though Keras counts on with the names of its layers
    assert len({same, other, smooth}) == 3
    compiled = build()
    compiled.compile("sgd", "mse")
    assert weights_digest(compiled) == same


def test_names_are_those_of_the_folder_that_is_asked_for(counted):
    cache, _, calls, _ = counted

    def compute(place):
        calls.append(1)
        return Features(np.ones((1, 2), np.float32), None, np.array([f"{place}cat/1.png"])), [f"{place}cat/2.png"]

    for place in ("/here/", "/elsewhere/"):
        found, unreadable = cache.fetch(KEY, lambda place=place: compute(place), place=place)
        assert (found.names.tolist(), unreadable) == ([f"{place}cat/1.png"], [f"{place}cat/2.png"])
    assert len(calls) == 1


def test_features_of_images_that_changed_meanwhile_are_not_kept(counted):
    cache, said, calls, compute = counted
    for _ in range(2):
        cache.fetch(KEY, compute, settled=lambda: False)
    assert len(calls) == 2
    assert files(cache) == []
    assert "have changed while they were computed" in said[0]


def test_an_entry_says_what_it_is_of(counted):
    cache, _, _, compute = counted
    cache.fetch(KEY, compute)
    [path] = [path for path in files(cache) if path.name == "entry.json"]
    assert json.loads(path.read_text())["key"] == {"format": features.FORMAT, **KEY}
