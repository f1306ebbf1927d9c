"""`--cache resized`: what is kept on disk, whole or not at all, and found again by content."""

import dataclasses
import itertools
import json
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.data import oracles
from tf_simclr.data import examples, images, pipeline, sources
from tf_simclr.data.device_views import DeviceViews
from tf_simclr.data.kept import resized as module
from tf_simclr.data.kept.batches import Batches
from tf_simclr.data.kept.records import Reader
from tf_simclr.data.kept.resized import resized
from tf_simclr.data.recipe import Recipe
from tf_simclr.errors import InputError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two classes of pictures of several kinds; files of three pictures each."""
    monkeypatch.setenv("TF_SIMCLR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "SHARD", 3)
    root = tmp_path / "images"
    for i, (height, width) in enumerate([(40, 60), (80, 40), (20, 20), (12, 90), (40, 40), (60, 44), (40, 80)]):
        path = root / f"class{i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(oracles.synth(height, width, i)).save(path)
    deep = oracles.synth(40, 40, 9)[..., 0].astype(np.uint16) * 256 + 3
    (root / "class0" / "deep.png").write_bytes(tf.io.encode_png(deep[..., None]).numpy())
    return root


def pictures(source: sources.Source) -> dict[str, np.ndarray]:
    """Name → picture in [0, 1], in order."""
    found = {}
    for record in source.ordered():
        found[Path(record["name"].numpy().decode()).name] = images.to_rgb(source.read(record["image"])).numpy()
    return found


def means(picture: np.ndarray, factor: int) -> np.ndarray:
    height, width, _ = picture.shape
    return picture.reshape(height // factor, factor, width // factor, factor, 3).mean((1, 3))


def test_images_are_the_means_of_areas_and_never_enlarged(folder):
    source = sources.from_folder(folder)
    found = pictures(resized(source, size=20, kind="raw"))
    assert list(found) == list(pictures(source))
    for name, seed, height, width in (("0.png", 0, 40, 60), ("1.png", 1, 80, 40), ("4.png", 4, 40, 40)):
        expected = means(oracles.synth(height, width, seed), 2) / 255
        np.testing.assert_allclose(found[name], expected, atol=0.51 / 255, err_msg=name)
    np.testing.assert_allclose(found["2.png"], pictures(source)["2.png"], atol=1e-7)
    assert found["3.png"].shape == (12, 90, 3)
    assert found["5.png"].shape == (27, 20, 3)


def test_sixteen_bits_stay_sixteen(folder):
    deep = pictures(resized(sources.from_folder(folder), size=20, kind="jpeg"))["deep.png"]
    own = oracles.synth(40, 40, 9)[..., :1].astype(np.float64) * 256 + 3
    np.testing.assert_allclose(deep[..., :1], means(np.repeat(own, 3, 2), 2)[..., :1] / 65535, atol=1e-5)


def test_jpegs_are_near_and_small(folder):
    source = sources.from_folder(folder)
    near, exact = (pictures(resized(source, size=20, kind=kind)) for kind in ("jpeg", "raw"))
    for name, picture in exact.items():
        assert np.abs(near[name] - picture).mean() < 0.06, name


def test_labels_names_and_the_stream_stay_and_a_bad_image_is_named(folder):
    (folder / "class1" / "bad.png").write_bytes(b"no picture")
    source = sources.from_folder(folder)
    kept = resized(source, size=20)
    assert [(r["name"], r["label"]) for r in kept.ordered().as_numpy_iterator()] == [
        (r["name"], r["label"]) for r in source.ordered().as_numpy_iterator()
    ]
    unreadable = pipeline.Unreadable()
    options = {"batch_size": 4, "image_size": 16, "seed": 0}
    views = list(pipeline.training_views(kept, **options, unreadable=unreadable).take(4).as_numpy_iterator())
    again = list(pipeline.training_views(kept, **options, unreadable=unreadable, start_step=2).take(2))
    np.testing.assert_array_equal(views[2][0], again[0][0])
    assert [Path(name).name for name in unreadable.names] == ["bad.png"]


def test_all_that_is_known_of_the_images_stays(folder):
    told = dataclasses.replace(
        sources.from_folder(folder),
        notes=("these are made up",),
        division={"part": "train"},
        roster="a",
        only="cat",
        several=True,
    )
    kept = resized(told, size=20).told()
    changed = {"origin", "identity", "sides", "largest", "vectorised"}
    assert {name: kept[name] for name in kept.keys() - changed} == {
        name: value for name, value in told.told().items() if name not in changed
    }


def test_what_is_there_is_not_made_again_and_belongs_to_the_content(folder, tmp_path):
    said: list[str] = []
    first = resized(sources.from_folder(folder), size=20, say=said.append)
    (place,) = (tmp_path / "cache" / "resized").glob("*")
    assert any("shrinking 8 images" in line for line in said)
    times = {file: file.stat().st_mtime_ns for file in place.glob("records-*")}
    lost = place / "records-00001.tfrecord"
    lost.unlink()
    lost.with_suffix(".json").unlink()
    (place / "whole.json").unlink()  # as after a run that was stopped
    again = resized(sources.from_folder(folder), size=20)
    for name, picture in pictures(first).items():
        np.testing.assert_array_equal(pictures(again)[name], picture, err_msg=name)
    assert {file for file in times if file.stat().st_mtime_ns != times[file]} == {lost, lost.with_suffix(".json")}
    shutil.copytree(folder, tmp_path / "moved")
    said.clear()
    resized(sources.from_folder(tmp_path / "moved"), size=20, say=said.append)
    assert not said  # the same content lies somewhere else
    Image.fromarray(oracles.synth(40, 60, 77)).save(folder / "class0" / "0.png")
    resized(sources.from_folder(folder), size=20, say=said.append)
    assert any("shrinking" in line for line in said)
    assert len(list((tmp_path / "cache" / "resized").glob("*"))) == 2


def test_a_stop_leaves_no_half_file(folder, tmp_path, monkeypatch):
    def stopped(record):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "row_of", stopped)
    with pytest.raises(KeyboardInterrupt):
        resized(sources.from_folder(folder), size=20)
    left = [path.name for path in (tmp_path / "cache").glob("**/*")]
    assert not [name for name in left if "records" in name or name == "whole.json"]


def test_a_disk_without_room_is_refused_before_anything_is_made(folder, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage(10**6, 10**6, 10))
    with pytest.raises(InputError, match="must have room"):
        resized(sources.from_folder(folder), size=20)


def test_a_damaged_cache_is_said(folder, tmp_path):
    source = sources.from_folder(folder)
    resized(source, size=20)
    (place,) = (tmp_path / "cache" / "resized").glob("*")
    (place / "records-00000.json").write_text(json.dumps([]))
    with pytest.raises(InputError, match="is made anew"):
        resized(source, size=20)


def test_arrays_are_kept_too_and_what_nobody_can_tell_is_refused(folder):
    pixels = np.stack([oracles.synth(40, 40, i) for i in range(4)])
    source = sources.from_arrays(pixels, np.array([0, 1, 0, 1]))
    found = resized(source, size=10, kind="raw")
    assert pictures(found)["3"].shape == (10, 10, 3)
    with pytest.raises(InputError, match="by their content"):
        resized(dataclasses.replace(source, identity=None), size=10)


@pytest.mark.parametrize("kind", ["jpeg", "raw"])
def test_what_a_device_makes_of_the_cache_is_what_the_host_makes(folder, kind):
    """Padded to the largest picture of the cache alone, and read a batch at a time."""
    (folder / "class0" / "deep.png").unlink()
    (folder / "class1" / "3.png").unlink()  # 12 × 90 would be shrunk to fit
    kept = resized(sources.from_folder(folder), size=20, kind=kind)
    assert kept.largest == (40, 40)
    recipe = Recipe(use_blur=False)
    options = {"batch_size": 4, "image_size": 20, "seed": 3, "recipe": recipe, "unreadable": pipeline.Unreadable()}
    views_of = DeviceViews(size=20, recipe=recipe)
    pairs = zip(pipeline.training_views(kept, **options), pipeline.packed_views(kept, **options), strict=False)
    for (views, labels), (packed, same) in itertools.islice(pairs, 4):
        assert packed["images"].shape == (4, 1, 40, 40, 3)
        np.testing.assert_allclose(views_of(packed), views, atol=1e-5)
        np.testing.assert_array_equal(labels, same)


def test_records_are_read_together_as_one_by_one_and_damaged_ones_are_none(folder, tmp_path):
    resized(sources.from_folder(folder), size=20)
    (place,) = (tmp_path / "cache" / "resized").glob("*")
    read = Reader(place)
    rows = np.array([7, 0, 5, 5, 2])
    np.testing.assert_array_equal(read.read(rows), [read(tf.constant(row)).numpy() for row in rows])
    file = place / "records-00001.tfrecord"
    content = bytearray(file.read_bytes())
    content[20] ^= 1  # within the record of row 3
    file.write_bytes(content)
    assert [len(one) > 0 for one in read.read(np.arange(8))] == [True] * 3 + [False] + [True] * 4
    file.write_bytes(content[:-30])
    assert not read.read(np.array([5]))[0]
    file.unlink()
    assert [len(one) > 0 for one in read.read(np.arange(8))] == [True] * 3 + [False] * 3 + [True] * 2


@pytest.mark.parametrize("packed", [False, True], ids=["host", "device"])
def test_a_damaged_picture_of_a_cache_is_replaced_and_named(folder, tmp_path, packed):
    kept = resized(sources.from_folder(folder), size=20)
    (place,) = (tmp_path / "cache" / "resized").glob("*")
    file = place / "records-00001.tfrecord"
    content = bytearray(file.read_bytes())
    content[20] ^= 1
    file.write_bytes(content)
    unreadable = pipeline.Unreadable()
    make = pipeline.packed_views if packed else pipeline.training_views
    list(make(kept, batch_size=4, image_size=16, seed=0, unreadable=unreadable).take(3))
    name = list(kept.ordered().as_numpy_iterator())[3]["name"].decode()
    assert unreadable.names == [name]


def test_a_raw_cache_is_the_pixels_and_nothing_else(folder, tmp_path):
    source = sources.from_folder(folder)
    resized(source, size=20, kind="raw")
    (place,) = (tmp_path / "cache" / "resized").glob("*")
    files = sorted(map(str, place.glob("*.tfrecord")))
    records = list(tf.data.TFRecordDataset(files).as_numpy_iterator())
    rows = [row for file in sorted(place.glob("records-*.json")) for row in json.loads(file.read_bytes())]
    for record, row in zip(records, rows, strict=True):
        height, width, _ = row["shape"]
        kind = np.dtype("<u2") if row["name"].endswith("deep.png") else np.dtype(np.uint8)
        assert len(record) == height * width * 3 * kind.itemsize
        if row["name"].endswith("/2.png"):  # is not shrunk
            np.testing.assert_array_equal(np.frombuffer(record, kind).reshape(20, 20, 3), oracles.synth(20, 20, 2))


def test_a_raw_cache_of_an_older_version_is_made_anew_and_named(folder, tmp_path, monkeypatch):
    source, said = sources.from_folder(folder), []
    monkeypatch.setitem(module._VERSION, "raw", 1)
    resized(source, size=20, kind="raw")
    (old,) = (tmp_path / "cache" / "resized").glob("*")
    monkeypatch.undo()
    monkeypatch.setenv("TF_SIMCLR_CACHE", str(tmp_path / "cache"))
    resized(source, size=20, kind="raw", say=said.append)
    assert any(str(old) in line and "older version" in line for line in said)
    assert any("shrinking" in line for line in said)


def batches_of(source, count: int, **options) -> list:
    """A few packed batches, labels and the names of what was unreadable."""
    unreadable = pipeline.Unreadable()
    made = pipeline.packed_views(source, **options, unreadable=unreadable).take(count).as_numpy_iterator()
    return [*((dict(packed), labels) for packed, labels in made), sorted(Path(name).name for name in unreadable.names)]


@pytest.mark.parametrize(("kind", "batch"), [("jpeg", 8), ("raw", 7)])
def test_what_is_decoded_at_once_is_what_is_decoded_one_by_one(folder, tmp_path, monkeypatch, kind, batch):
    """Beside pictures of 16 bits, one that is too wide, one that is none, and one whose bytes have changed."""
    monkeypatch.setattr("tf_simclr.data.kept.pictures._PART", 4)  # rounds of several, and of one
    (folder / "class1" / "bad.png").write_bytes(b"no picture")
    source = sources.from_folder(folder)
    kept = resized(source, size=20, kind=kind)
    (place,) = (tmp_path / "cache" / "resized").glob("*")
    content = bytearray((place / "records-00001.tfrecord").read_bytes())
    content[20] ^= 1
    (place / "records-00001.tfrecord").write_bytes(content)
    options = {"batch_size": batch, "image_size": 16, "seed": 4}
    found = batches_of(kept, 4, **options)
    monkeypatch.setattr(examples.Packing, "of_kept", lambda self, source: None)
    expected = batches_of(kept, 4, **options)
    assert found[-1] == expected[-1]
    assert "bad.png" in found[-1]
    assert len(found[-1]) == 2
    for (packed, labels), (other, same) in zip(found[:-1], expected[:-1], strict=True):
        np.testing.assert_array_equal(labels, same)
        for name, part in other.items():
            np.testing.assert_array_equal(packed[name], part, err_msg=name)


def test_a_batch_that_somebody_holds_is_never_written_again(folder):
    kept = resized(sources.from_folder(folder), size=20, kind="raw")
    options = {"batch_size": 4, "image_size": 16, "seed": 4, "unreadable": pipeline.Unreadable()}
    held, copies = [], []
    for packed, _ in pipeline.packed_views(kept, **options).take(12):
        held.append(packed["images"])
        copies.append(packed["images"].numpy().copy())
    for one, copy in zip(held, copies, strict=True):
        np.testing.assert_array_equal(one.numpy(), copy)


def test_memory_is_used_again_when_nobody_holds_it_and_its_edges_are_zeros():
    random = np.random.default_rng(0)
    batches = Batches((3, 1, 9, 11, 3), np.uint16)
    lent, places = [], set()
    for _ in range(40):
        batch = batches.taken()
        places.add(id(batch))
        pictures = [random.integers(1, 9, (*random.integers(0, (10, 12)), 3)).astype(np.uint16) for _ in range(3)]
        for row, picture in enumerate(pictures):
            batch.put(row, picture)
        pixels, sizes = batches.given(batch)
        assert pixels.ctypes.data % 64 == 0
        expected = np.zeros_like(pixels)
        for place, picture in zip(expected, pictures, strict=True):
            place[0, : picture.shape[0], : picture.shape[1]] = picture
        np.testing.assert_array_equal(pixels, expected)
        np.testing.assert_array_equal(sizes[:, 0], [picture.shape[:2] for picture in pictures])
        lent.append((pixels[1:, :, ::2].T.view(np.int16), expected[1:, :, ::2].T))  # views of views keep it, too
        lent = lent[-3:]
        for view, own in lent:
            np.testing.assert_array_equal(view, own)
    assert len(places) <= 5


def test_a_second_process_waits_for_the_one_that_makes_the_same(folder, tmp_path, monkeypatch):
    source, said = sources.from_folder(folder), []
    first = pictures(resized(source, size=20))
    (place,) = (tmp_path / "cache" / "resized").glob("*")
    (place / "whole.json").unlink()
    monkeypatch.setattr(module, "_PATIENCE", 0.05)
    script = f"""
import sys
from pathlib import Path
from tf_simclr.files.lock import hold
with hold(Path({str(place)!r})):
    print("held", flush=True)
    sys.stdin.readline()
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", script], **pipes) as other:
        assert other.stdout.readline() == "held\n"

        def say(line: str) -> None:
            said.append(line)
            if "waiting for it" in line:
                other.stdin.write("\n")
                other.stdin.flush()

        again = pictures(resized(source, size=20, say=say))
    assert any(f"process {other.pid}" in line and "waiting for it" in line for line in said)
    for name, picture in first.items():
        np.testing.assert_array_equal(again[name], picture)


@pytest.mark.parametrize("fails", ["write", "__exit__"])
def test_a_disk_that_fills_up_meanwhile_is_a_sentence_and_what_was_made_stays(folder, tmp_path, monkeypatch, fails):
    written = []

    class Full(tf.io.TFRecordWriter):
        """Of the second file nothing more fits."""

        def __init__(self, path):
            super().__init__(path)
            written.append(path)

        def write(self, record):
            self.check("write")
            super().write(record)

        def __exit__(self, *error):
            super().__exit__(*error)
            self.check("__exit__")

        def check(self, where):
            if len(written) > 1 and where == fails:
                raise tf.errors.ResourceExhaustedError(None, None, f"{written[-1]}; No space left on device")

    with monkeypatch.context() as within:
        within.setattr(tf.io, "TFRecordWriter", Full)
        with pytest.raises(InputError, match="No space left on device; make room, and begin again"):
            resized(sources.from_folder(folder), size=20)
    (place,) = (tmp_path / "cache" / "resized").glob("*")
    assert sorted(path.name for path in place.glob("*")) == ["records-00000.json", "records-00000.tfrecord"]
    assert len(pictures(resized(sources.from_folder(folder), size=20))) == 8


@pytest.mark.slow
def test_what_a_killed_process_leaves_is_completed_bit_by_bit(folder, tmp_path, monkeypatch):
    """Ended by SIGKILL while it writes the header, within a picture, or between a file and what is noted of it."""
    source = sources.from_folder(folder)
    resized(source, size=20)
    (place,) = (tmp_path / "cache" / "resized").glob("*")
    whole = {path.name: path.read_bytes() for path in place.iterdir()}
    assert len(whole) == 7
    script = """
import os, signal, sys
from tf_simclr.data import sources
from tf_simclr.data.kept import resized as module
import tensorflow as tf
module.SHARD, dies_at, seen = 3, int(sys.argv[2]), 0
made, noted = module.row_of, module.write_json
def count(function):
    def counted(*given):
        global seen
        seen += 1
        if seen == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*given)
    return counted
module.row_of, module.write_json = count(made), count(noted)
module.resized(sources.from_folder(sys.argv[1]), size=20)
"""
    shutil.rmtree(place)
    for dies_at in (2, 4, 6, 7):  # each goes on where the one before was ended
        done = subprocess.run([sys.executable, "-c", script, str(folder), str(dies_at)], check=False)
        assert done.returncode == -9
        assert not (place / "whole.json").exists()
    resized(source, size=20)
    assert {path.name: path.read_bytes() for path in place.iterdir()} == whole


def test_pictures_that_change_while_they_are_shrunk_are_in_no_cache(folder, tmp_path, monkeypatch):
    source, noted = sources.from_folder(folder), module.row_of

    def meanwhile(record):
        Image.fromarray(oracles.synth(40, 60, 77)).save(folder / "class1" / "5.png")
        return noted(record)

    monkeypatch.setattr(module, "row_of", meanwhile)
    with pytest.raises(InputError, match=r"must stay as they are while they are shrunk.*begin again"):
        resized(source, size=20)
    assert not list((tmp_path / "cache").rglob("records-*"))
    monkeypatch.setattr(module, "row_of", noted)
    again = pictures(resized(sources.from_folder(folder), size=20, kind="raw"))
    np.testing.assert_allclose(again["5.png"], means(oracles.synth(40, 60, 77), 2) / 255, atol=0.51 / 255)


@pytest.mark.parametrize("damage", ["cut", "gone", "listed"])
@pytest.mark.parametrize("kind", ["jpeg", "raw"])
def test_a_damaged_file_of_a_cache_is_a_sentence(folder, tmp_path, kind, damage):
    source = sources.from_folder(folder)
    resized(source, size=20, kind=kind)
    (place,) = (tmp_path / "cache" / "resized").glob("*")
    file = place / "records-00001.tfrecord"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-9])
    elif damage == "gone":
        file.unlink()
    else:
        file.with_suffix(".json").write_text("[{}]")
    with pytest.raises(InputError, match="is made anew") as refused:
        resized(source, size=20, kind=kind)
    assert str(place) in str(refused.value)
    assert "radiographs" not in str(refused.value)
