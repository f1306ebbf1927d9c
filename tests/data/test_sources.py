"""Sources: what they hold, in which order, and what they say to wrong input."""

import dataclasses
import os

import numpy as np
import pytest
import tensorflow as tf

from tests.data import oracles
from tf_simclr.data import sources, tfds_source
from tf_simclr.errors import InputError, surfacing

PIXELS = np.random.RandomState(0).randint(0, 256, (12, 5, 6, 3)).astype(np.uint8)
LABELS = np.arange(12) % 3


def write(path, number: int = 0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tf.io.encode_png(oracles.synth(8, 9, number)).numpy())


def names(records) -> list[str]:
    return [record["name"].decode() for record in records.as_numpy_iterator()]


def indices(source, count: int, seed: int = 1, start: int = 0) -> list[int]:
    return list(map(int, names(source.shuffled(seed, start=start, buffer=4).take(count))))


# Arrays


def test_arrays_come_in_order_with_their_labels():
    source = sources.from_arrays(PIXELS, LABELS, class_names=("a", "b", "c"))
    records = list(source.ordered().as_numpy_iterator())
    assert [int(record["label"]) for record in records] == LABELS.tolist()
    assert (source.num_examples, source.num_classes, source.labelled) == (12, 3, True)
    for record, pixels in zip(records, PIXELS, strict=True):
        np.testing.assert_allclose(source.decoded(record)["image"], pixels / np.float32(255), atol=1e-6)


def test_grey_arrays_without_labels_are_unlabelled_rgb():
    source = sources.from_arrays(PIXELS[..., 0])
    record = next(iter(source.ordered()))
    assert not source.labelled
    assert "label" not in record
    assert source.decoded(record)["image"].shape == (5, 6, 3)


@pytest.mark.parametrize(
    ("pixels", "labels", "rule"),
    [
        (PIXELS.astype(np.float32), None, "pixels must be uint8 or uint16"),
        (PIXELS[0, 0], None, "pixels must have shape"),
        (PIXELS[:0], None, "pixels must have shape"),
        (PIXELS, LABELS[:5], "labels must be one integer"),
        (PIXELS, LABELS - 1, "labels must be one integer"),
        (PIXELS, LABELS * 1.5, "labels must be one integer"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(pixels, labels, rule):
    with pytest.raises(InputError, match=rule):
        sources.from_arrays(pixels, labels)


def test_a_label_without_a_class_name_is_refused():
    with pytest.raises(InputError, match="each label must have a class name"):
        sources.from_arrays(PIXELS, LABELS, class_names=("a", "b"))


# Order


@pytest.mark.parametrize("count", [1, 2, 3, 12, 100])
def test_every_epoch_is_another_permutation_of_all_images(count):
    source = sources.from_arrays(np.zeros((count, 2, 2), np.uint8))
    found = indices(source, 3 * count)
    epochs = [found[i * count : (i + 1) * count] for i in range(3)]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    assert count < 12 or len(set(map(tuple, epochs))) == 3


def test_the_order_depends_on_the_seed_alone():
    source = sources.from_arrays(PIXELS)
    first = indices(source, 24)
    tf.random.set_seed(77)
    assert indices(source, 24) == first
    assert indices(source, 24, seed=2) != first


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("start", [0, 5, 12, 31])
def test_a_stream_from_a_position_on_is_the_rest_of_the_stream(start, kept, tmp_path):
    for i in range(12):
        write(tmp_path / f"{i}.png", i)
    source = sources.from_folder(tmp_path)
    source = sources.cached(source) if kept else source
    whole = names(source.shuffled(3, buffer=4).take(45))
    tf.random.set_seed(5)
    assert names(source.shuffled(3, start=start, buffer=4).take(45 - start)) == whole[start:]


def test_the_first_images_of_an_epoch_are_spread_over_all_positions():
    source = sources.from_arrays(np.zeros((10, 2, 2), np.uint8))
    found = indices(source, 10 * 1000)[::10]
    share = np.bincount(found, minlength=10) / 1000
    assert np.abs(share - 0.1).max() <= 4 * np.sqrt(0.1 * 0.9 / 1000)


# Folders


def test_class_folders_give_labels_sorted_by_name(tmp_path):
    for name in ("dog/1.PNG", "cat/b.png", "cat/deeper/a.JpEg", "cat/.hidden.png", ".hidden/x.png", "dog/notes.txt"):
        write(tmp_path / name)
    (tmp_path / "empty").mkdir()
    source = sources.from_folder(tmp_path)
    assert source.class_names == ("cat", "dog")
    found = [(name[len(str(tmp_path)) + 1 :]) for name in names(source.ordered())]
    assert found == ["cat/b.png", "cat/deeper/a.JpEg", "dog/1.PNG"]
    assert [int(record["label"]) for record in source.ordered()] == [0, 0, 1]


def test_images_directly_in_the_folder_are_unlabelled(tmp_path):
    write(tmp_path / "b.png")
    write(tmp_path / "a.gif")
    source = sources.from_folder(str(tmp_path))
    assert not source.labelled
    assert [os.path.basename(name) for name in names(source.ordered())] == ["a.gif", "b.png"]


def test_class_folders_can_be_read_without_labels(tmp_path):
    write(tmp_path / "cat" / "a.png")
    write(tmp_path / "train" / "a.png")
    source = sources.from_folder(tmp_path, labelled=False)
    assert (source.num_examples, source.class_names) == (2, ())


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path):
    write(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cat").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "data")
    assert sources.from_folder(tmp_path / "data").num_examples == 1


def test_a_folder_that_gives_no_images_is_refused_with_the_reason(tmp_path):
    with pytest.raises(InputError, match="the image folder must exist"):
        sources.from_folder(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(InputError, match="must hold at least one file of the kinds"):
        sources.from_folder(tmp_path)


def test_a_layout_with_two_readings_is_refused(tmp_path):
    write(tmp_path / "cat" / "a.png")
    write(tmp_path / "loose.png")
    assert not sources.from_folder(tmp_path).labelled
    with pytest.raises(InputError, match=r"loose\.png does not"):
        sources.from_folder(tmp_path, labelled=True)


def test_splits_are_not_taken_for_classes(tmp_path):
    write(tmp_path / "train" / "cat" / "a.png")
    write(tmp_path / "val" / "cat" / "a.png")
    with pytest.raises(InputError, match=r"look like splits; give .*train"):
        sources.from_folder(tmp_path)


def test_a_cached_folder_needs_its_files_once(tmp_path):
    for i in range(3):
        write(tmp_path / f"{i}.png", i)
    source = sources.cached(sources.from_folder(tmp_path))
    assert len(names(source.ordered())) == 3
    for path in tmp_path.iterdir():
        path.unlink()
    loaded = [source.decoded(record)["image"] for record in source.ordered()]
    np.testing.assert_allclose(loaded[2], oracles.synth(8, 9, 2) / np.float32(255), atol=1e-6)


# TensorFlow Datasets


def _store(folder, name: str, count: int, **features):
    """Lets tfds prepare a set of `count` images, each of one grey, in three files."""
    import tensorflow_datasets as tfds

    def examples():
        for i in range(count):
            label = {"label": i % 3} if "label" in features else {}
            yield f"{i:03}", {"image": np.full((4, 4, 3), i, np.uint8), "number": i} | label

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            shared = {"image": tfds.features.Image(shape=(None, None, 3)), "number": np.int64}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(shared | features))

        def _split_generators(self, manager):
            return {"train": examples()}

        def _generate_examples(self):
            return iter(())

    Builder.name = name
    config = tfds.download.DownloadConfig(num_shards=3, try_download_gcs=False)
    Builder(data_dir=folder).download_and_prepare(download_config=config)


def store_tiny(folder):
    import tensorflow_datasets as tfds

    _store(folder, "tiny", 30, label=tfds.features.ClassLabel(names=["a", "b", "c"]))


def records_of(shard) -> tuple[bytearray, list[int]]:
    """The bytes of a TFRecord file, and where its records begin and end."""
    data, ends = bytearray(shard.read_bytes()), [0]
    while ends[-1] < len(data):  # length, its checksum, the record, its checksum
        ends.append(ends[-1] + 16 + int.from_bytes(data[ends[-1] : ends[-1] + 8], "little"))
    return data, ends


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with two small sets that tfds prepared: `tiny` with labels and `plain` without."""
    folder = tmp_path_factory.mktemp("tfds")
    store_tiny(folder)
    _store(folder, "plain", 9)
    return folder


def values(source, records) -> list[int]:
    return [round(float(source.decoded(record)["image"][0, 0, 0]) * 255) for record in records]


def test_a_tfds_split_has_its_images_labels_and_classes(prepared):
    source = tfds_source.from_tfds("tiny", data_dir=prepared)
    assert (source.num_examples, source.class_names) == (30, ("a", "b", "c"))
    records = list(source.ordered())
    found = values(source, records)
    assert sorted(found) == list(range(30))
    assert [value % 3 for value in found] == [int(record["label"]) for record in records]
    assert len(set(names(source.ordered()))) == 30


@pytest.mark.parametrize("damage", ["cut between records", "cut within one", "another bit"])
def test_a_tfds_set_with_a_damaged_file_is_a_sentence(tmp_path, damage):
    store_tiny(tmp_path)
    shard = sorted(tmp_path.glob("tiny/*/*.tfrecord-*"))[-1]
    data, ends = records_of(shard)
    data[ends[-2] + 40] ^= 1
    shard.write_bytes(data if damage == "another bit" else data[: ends[-2] + 30 * ("within" in damage)])
    with pytest.raises(InputError, match=r"files must be whole, but one is cut off or damaged \("), surfacing():
        list(tfds_source.from_tfds("tiny", data_dir=tmp_path).ordered())


def test_tfds_split_syntax_carries_over(prepared):
    parts = [tfds_source.from_tfds("tiny", part, data_dir=prepared) for part in ("train[:40%]", "train[40%:]")]
    assert [part.num_examples for part in parts] == [12, 18]
    assert sorted(values(parts[0], parts[0].ordered()) + values(parts[1], parts[1].ordered())) == list(range(30))


def test_a_tfds_set_without_labels_is_unlabelled(prepared):
    source = tfds_source.from_tfds("plain", data_dir=prepared)
    assert not source.labelled
    assert set(next(iter(source.ordered()))) == {"image", "name"}


@pytest.mark.parametrize("start", [0, 7, 30, 68])
def test_a_tfds_stream_from_a_position_on_is_the_rest_of_the_stream(prepared, start):
    source = tfds_source.from_tfds("tiny", data_dir=prepared)
    whole = names(source.shuffled(3, buffer=8).take(90))
    tf.random.set_seed(5)
    assert names(source.shuffled(3, start=start, buffer=8).take(90 - start)) == whole[start:]
    epochs = [whole[i : i + 30] for i in (0, 30, 60)]
    assert len({tuple(sorted(epoch)) for epoch in epochs}) == 1
    assert len(set(map(tuple, epochs))) == 3


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ({"name": "tiny", "split": "validation"}, "the split must be one of train, or a part of these"),
        ({"name": "tiny", "split": "train["}, "the split must be one of train"),
        ({"name": "tiny", "split": "train[:0]"}, "the split must hold examples"),
        ({"name": "tiny", "label_key": "number"}, r"label_key must name one of the label features of tiny \(label\)"),
        ({"name": "plain", "label_key": "label"}, "label features of plain .there is none"),
        ({"name": "tiny", "image_key": "picture"}, "image_key must name one of the image features"),
        ({"name": "no_such_set"}, "the data set must be one that tfds finds"),
    ],
)
def test_what_a_tfds_set_does_not_have_is_refused_with_what_it_has(prepared, arguments, rule):
    with pytest.raises(InputError, match=rule):
        tfds_source.from_tfds(**arguments, data_dir=prepared)


@pytest.mark.parametrize("name", ["mnist", "imagenet2012_subset/1pct"])
def test_a_set_that_is_not_prepared_is_answered_without_the_network(tmp_path, name, monkeypatch):
    import socket

    def refuse(*arguments):
        pytest.fail("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(InputError, match=f"the data set {name} must be prepared, but is not in"):
        tfds_source.from_tfds(name, data_dir=tmp_path)


def test_a_source_in_memory_says_what_the_one_before_said():
    source = sources.from_arrays(np.zeros((4, 8, 8, 3), np.uint8), np.arange(4))
    told = dataclasses.replace(
        source,
        in_memory=False,
        notes=("these are made up",),
        division={"part": "train"},
        roster="a",
        only="cat",
        largest=(8, 8),
        several=True,
    )
    held = sources.cached(told)
    names = {one.name for one in dataclasses.fields(sources.Source)}
    kept = names - {"read", "in_memory", "rows", "here_alone", "pixels"}
    assert {name: getattr(held, name) for name in kept} == {name: getattr(told, name) for name in kept}
