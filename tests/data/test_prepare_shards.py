"""`prepare-shards`: what it makes is what the folder was."""

import contextlib
import hashlib
import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.data import made
from tf_simclr import prepare_shards
from tf_simclr.data.shards import opening, prepare
from tf_simclr.data.shards.source import from_shards
from tf_simclr.data.shards.writers import FORMATS
from tf_simclr.data.sources import from_folder
from tf_simclr.errors import InputError
from tf_simclr.files.places import SHARDS_NOTE

every_format = pytest.mark.parametrize("format", FORMATS)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TF_SIMCLR_CACHE", str(tmp_path / "cache of indices"))


def pets(root, *, labelled=True):
    """Pictures of several kinds, of odd names, among them ones that cannot be read."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dög x", 'a "quoted", one') if labelled else (".",):
        folder = root / name
        folder.mkdir(parents=True)
        for number, ending in enumerate((".jpg", ".PNG", ".a.b.jpeg", ".bmp")):
            pixels = rng.integers(0, 256, (400 if number == 3 else 9, 300, 3), dtype=np.uint8)
            path, exif = folder / f"x {number}\n{ending}", Image.Exif()
            exif[0x0112] = 6
            Image.fromarray(pixels).save(path, "JPEG" if "j" in ending else ending[1:].upper(), exif=exif)
        (folder / "corrupt.jpg").write_bytes(b"\xff\xd8nothing")
        (folder / "empty.png").write_bytes(b"")
    return root


def content(source):
    labels = source.rows.labels if source.labelled else np.full(len(source.rows), -1)
    return sorted((source.rows.encoded(i), int(labels[i])) for i in range(len(source.rows)))


def tree(folder):
    """Path below the folder → digest of what lies there."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@every_format
def test_shards_are_the_folder(tmp_path, format):
    for split in ("train", "val"):
        pets(tmp_path / "pets" / split)
    out = prepare_shards(tmp_path / "pets", tmp_path / "out", format=format, shard_size=1)
    for split in ("train", "val"):
        folder, shards = from_folder(tmp_path / "pets" / split), from_shards(out, split)
        assert content(shards) == content(folder)
        assert shards.class_names == folder.class_names
        assert not shards.notes
        assert len([*(out / split).glob(f"{split}*")]) > 1
        upright = [from_shards(out, split, exif_orientation=True), from_folder(folder.origin, exif_orientation=True)]
        shapes = [sorted(one.rows.pixels(i).shape for i in range(18) if readable(one, i)) for one in upright]
        assert shapes[0] == shapes[1]
        assert (300, 9, 3) in shapes[0]


def readable(source, row):
    with contextlib.suppress(ValueError):
        source.rows.pixels(row)
        return True
    return False


@every_format
def test_folders_without_splits_or_without_labels(tmp_path, format):
    pets(tmp_path / "pets")
    pets(tmp_path / "flat", labelled=False)
    for name, classes in (("pets", 3), ("flat", 0)):
        out = prepare_shards(tmp_path / name, tmp_path / f"{name} out", format=format)
        source = from_shards(out)
        assert content(source) == content(from_folder(tmp_path / name))
        assert source.num_classes == classes


@every_format
def test_the_same_options_and_seed_give_the_same_files_and_another_seed_another_order(tmp_path, format):
    pets(tmp_path / "pets")
    found = [prepare_shards(tmp_path / "pets", tmp_path / str(n), format=format, seed=n // 2) for n in range(3)]
    assert tree(found[0]) == tree(found[1])
    orders = [[one.rows.encoded(i) for i in range(18)] for one in map(from_shards, (found[0], found[2]))]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


@every_format
def test_what_was_stopped_anywhere_goes_on_and_nobody_sees_a_part(tmp_path, format, monkeypatch):
    pets(tmp_path / "pets")
    whole = prepare_shards(tmp_path / "pets", tmp_path / "whole", format=format, shard_size=1)
    examples, done = prepare._examples, []

    def stopped(source, order, start, stop):
        for one in examples(source, order, start, stop):
            if len(done) == 17:  # in the last shard
                raise KeyboardInterrupt
            done.append(one.key)
            yield one

    monkeypatch.setattr(prepare, "_examples", stopped)
    with pytest.raises(KeyboardInterrupt):
        prepare_shards(tmp_path / "pets", tmp_path / "out", format=format, shard_size=1)
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(prepare, "_examples", examples)
    (tmp_path / ".out.making" / ".4711.images-000001.half").write_bytes(b"of a process that was killed")
    with pytest.raises(InputError, match="was begun with other images or options"):
        prepare_shards(tmp_path / "pets", tmp_path / "out", format=format, shard_size=1, seed=3)
    said = []
    prepare_shards(tmp_path / "pets", tmp_path / "out", format=format, shard_size=1, say=said.append)
    assert tree(tmp_path / "out") == tree(whole)
    assert "are there)" in said[-1]
    prepare_shards(tmp_path / "pets", tmp_path / "out", format=format, shard_size=1, say=said.append)
    assert "is there and whole" in said[-1]
    assert not [*tmp_path.glob(".out*")]
    with pytest.raises(InputError, match="must not be there yet"):
        prepare_shards(tmp_path / "pets", tmp_path / "out", format=format, shard_size=2)


@every_format
def test_shards_of_which_some_are_missing_are_refused_and_made_again(tmp_path, format):
    """As a copy or an upload that broke off leaves them, the note first; before, what was there was trained on."""
    for split in ("train", "val"):
        pets(tmp_path / "pets" / split)
    out = prepare_shards(tmp_path / "pets", tmp_path / "out", format=format, shard_size=1)
    whole = tree(out)
    times = {path.name: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert times[SHARDS_NOTE] == min(times[name] for name in times if "train-" in name or name == SHARDS_NOTE)
    shards = sorted(path for path in (out / "train").iterdir() if path.name != "classes.txt")
    shards[0].unlink()
    shards[-1].write_bytes(shards[-1].read_bytes()[:-100])
    for place, split in ((out, "train"), (out / "train", "train")):
        with pytest.raises(InputError, match=r"must hold whole what its prepared\.json names|must be there, but 1 is"):
            from_shards(place, split)
    from_shards(out, "val")  # what is whole is read
    said = []
    prepare_shards(tmp_path / "pets", out, format=format, shard_size=1, say=said.append)
    assert tree(out) == whole
    assert any("lacks 2 of its files, which are made again" in line for line in said), said
    from_shards(out, "train")
    # The note of an earlier version names no files.
    note = out / SHARDS_NOTE
    note.write_text(json.dumps({"settings": json.loads(note.read_text())["settings"]}))
    shards[0].unlink()
    prepare_shards(tmp_path / "pets", out, format=format, shard_size=1, say=said.append)
    assert any("has no list of its files, as of an earlier version" in line for line in said)
    assert tree(out).keys() == whole.keys()
    assert opening.lacking(out) == []


def test_a_note_names_no_files_elsewhere(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / SHARDS_NOTE).write_text('{"files": {"../x": 1, "/etc/passwd": 1, "a": "1", "b": 2}}')
    assert opening.lacking(tmp_path / "out") == ["a", "b"]


def test_shards_become_shards_of_another_kind(tmp_path):
    place = made.write_tars(tmp_path / "tars")
    for format in ("parquet", "tfrecord", "tar"):
        place = prepare_shards(place, tmp_path / format, format=format)
        assert content(from_shards(place)) == content(from_shards(tmp_path / "tars"))


def test_other_readers_read_them(tmp_path):
    """TensorFlow's own, with its own comparison of checksums; and Hugging Face's library."""
    datasets = pytest.importorskip("datasets", reason="needs the extra `shards`")
    made.write_folder(tmp_path / "pets")
    expected = content(from_folder(tmp_path / "pets"))
    out = prepare_shards(tmp_path / "pets", tmp_path / "records", format="tfrecord")
    kinds = {"image/encoded": tf.io.FixedLenFeature((), tf.string), "label": tf.io.FixedLenFeature((), tf.int64)}
    records = tf.data.TFRecordDataset([str(path) for path in sorted(out.glob("images*"))])
    parsed = [tf.io.parse_single_example(record, kinds) for record in records]
    assert sorted((one["image/encoded"].numpy(), int(one["label"])) for one in parsed) == expected
    out = prepare_shards(tmp_path / "pets", tmp_path / "tables", format="parquet")
    loaded = datasets.Dataset.from_parquet([str(path) for path in sorted(out.glob("*.parquet"))], cache_dir=tmp_path)
    assert loaded.features["label"].names == ["class0", "class1", "class2"]
    undecoded = loaded.cast_column("image", datasets.Image(decode=False))
    assert sorted((one["image"]["bytes"], one["label"]) for one in undecoded) == expected
    assert np.asarray(loaded[0]["image"]).shape == (4, 4, 3)


def test_no_room_wrong_options_and_lost_images_are_refused(tmp_path, monkeypatch):
    pets(tmp_path / "pets")
    for options, sentence in (({"format": "zip"}, "format must be one of"), ({"shard_size": 0}, "at least 1")):
        with pytest.raises(InputError, match=sentence):
            prepare_shards(tmp_path / "pets", tmp_path / "out", **options)
    with pytest.raises(InputError, match="must exist"):
        prepare_shards(tmp_path / "pest", tmp_path / "out")
    usage = prepare.shutil.disk_usage
    monkeypatch.setattr(prepare.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10})())
    with pytest.raises(InputError, match="must have room"):
        prepare_shards(tmp_path / "pets", tmp_path / "out")
    monkeypatch.setattr(prepare.shutil, "disk_usage", usage)
    assert not (tmp_path / "out").exists()
