"""Preparation: made-up radiographs in SIIM's layout to records and back; refusals, resuming, near-duplicates."""

import fcntl
import io
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.chest.dicoms import content, dataset, stored
from tf_simclr.chest.collections import prepare, siim, synthetic, tables
from tf_simclr.chest.files.radiograph import Radiograph
from tf_simclr.chest.files.reading import read
from tf_simclr.chest.files.squares import (
    perceptual_hash,
    png,
    pseudonym,
    resized,
    shrunk,
    side_by_side,
    unpacked,
)
from tf_simclr.data.pipeline import Unreadable, evaluation_batches
from tf_simclr.data.radiographs.duplicates import near_duplicates
from tf_simclr.data.radiographs.prepared import load, smaller
from tf_simclr.errors import InputError
from tf_simclr.files import contents
from tf_simclr.files.lock import InUse


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Twelve patients; one file is damaged."""
    folder = tmp_path_factory.mktemp("raw")
    synthetic.write(folder, 12, size=64, seed=3)
    broken = sorted(folder.glob("train/*/*/*.dcm"))[4]
    broken.write_bytes(broken.read_bytes()[:3000])
    return folder


@pytest.fixture(scope="module")
def prepared(raw, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    prepare.prepare(siim.collection(raw), folder, size=32, workers=2)
    return folder


def test_records_hold_what_the_files_show_and_the_tables_say(raw, prepared):
    collection, found = siim.collection(raw), load(prepared)
    entries = {entry.image: entry for entry in collection.entries}
    salt = prepare.salt_of(prepared)
    assert len(found) == len(entries) - 1
    numbers = np.arange(len(found))
    batches = evaluation_batches(found.source(numbers), batch_size=64, image_size=32, unreadable=Unreadable())
    for images, _, names in batches:
        for image, name in zip(images.numpy(), names.numpy().astype(str), strict=True):
            expected = resized(read(entries[name].path).pixels, 32)
            np.testing.assert_allclose(image, np.repeat(expected[..., None], 3, axis=2), atol=1 / 65535)
    for name, labels, patient in zip(found.images, found.labels, found.patients, strict=True):
        assert tuple(labels) == entries[name].labels
        assert patient == pseudonym(f"made-up-{int(name[len('image03') : -1])}", salt=salt)


def test_no_patients_name_is_in_what_is_written(prepared):
    assert not any(b"made-up-" in path.read_bytes() for path in prepared.iterdir())


def test_a_part_of_the_images_with_labels_is_a_source(prepared):
    found = load(prepared)
    typical = found.column("Typical Appearance")
    rows = np.array([0, 3, 5])
    source = found.source(rows, typical, class_names=("other", "typical"))
    records = list(source.ordered().as_numpy_iterator())
    assert [r["name"].decode() for r in records] == list(found.images[rows])
    assert [r["label"] for r in records] == list(typical[rows])
    assert source.num_examples == 3
    shuffled = [r["name"].decode() for r in source.shuffled(0, start=1, buffer=3).take(5).as_numpy_iterator()]
    assert set(shuffled[2:]) == set(found.images[rows])


@pytest.mark.parametrize("bits", [8, 16])
def test_a_picture_is_made_smaller_without_aliasing(bits):
    rng = np.random.default_rng(0)
    pixels = rng.uniform(0, 1, (48, 48)).astype(np.float32)
    found = smaller(png(pixels, bits=bits), 16).numpy()[..., 0] / 65535
    np.testing.assert_allclose(found, resized(pixels, 16), atol=0.004 if bits == 8 else 2e-4)


def test_more_pixels_than_were_kept_are_refused(prepared):
    known = load(prepared)
    smaller_ones = known.source(np.arange(3), side=16)
    assert [known_image.shape for known_image in decoded(smaller_ones)] == [(16, 16, 3)] * 3
    assert known.source(np.arange(3)).identity() != smaller_ones.identity()
    with pytest.raises(InputError, match=r"keeps 32 pixels; prepare .* again with --size 64 or above"):
        known.source(np.arange(3), side=64)


def decoded(source):
    return [source.decoded(record)["image"].numpy() for record in source.ordered()]


def test_a_damaged_file_is_refused_with_its_reason_and_the_others_are_kept(prepared):
    rows = [r for path in prepared.glob("records-*.json") for r in json.loads(path.read_text())["rows"]]
    refused = [row["refused"] for row in rows if row["refused"]]
    assert len(refused) == 1
    assert "must hold 8,192 bytes of pixels, but it is cut off" in refused[0]


def test_a_stopped_preparation_goes_on_where_it_was_and_ends_the_same(raw, prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "SHARD", 5)
    collection, calls = siim.collection(raw), []

    def stop(done):
        calls.append(done)
        if done == 7 and len(calls) == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare.prepare(collection, tmp_path, size=32, workers=1, progress=stop)
    assert len(list(tmp_path.glob("*.tfrecord"))) == 1
    with pytest.raises(InputError, match="must be prepared to its end"):
        load(tmp_path)
    prepare.prepare(collection, tmp_path, size=32, workers=1, progress=stop)
    assert calls == [*range(1, 8), *range(6, len(collection.entries) + 1)]
    np.testing.assert_array_equal(load(tmp_path).hashes, load(prepared).hashes)


LABELS = "path,label,patient,sex\na.dcm,sick,1,F\nb.png,well,2,M\nc.dcm,well,3,F\n"


def own(place, *, table=LABELS, a="F", noise=0, c=None):
    """A DICOM, a picture and a damaged DICOM that a table tells of; what was there before is written over."""
    pixels = np.random.default_rng(noise).integers(0, 4096, (40, 40)).astype(np.uint16)
    (place / "a.dcm").write_bytes(content(dataset(pixels, bits=12, PatientSex=a)))
    Image.fromarray((pixels >> 4).astype(np.uint8)).save(place / "b.png", compress_level=0)
    (place / "c.dcm").write_bytes(c or content(dataset(pixels, bits=12))[:2000])
    (place / "own.csv").write_text(table)
    for name in ("a.dcm", "b.png", "c.dcm"):
        os.utime(place / name, (10**9, 10**9))
    return tables.from_csv(place / "own.csv")


@pytest.fixture(scope="module")
def of_own(tmp_path_factory):
    """A prepared folder of three files of one's own, and the files."""
    place = tmp_path_factory.mktemp("own")
    prepare.prepare(own(place), place / "out", size=32, workers=1)
    return place


@pytest.mark.parametrize(
    ("changes", "what", "count"),
    [
        ({"noise": 1}, "bytes of files", 3),
        ({"a": "M"}, "bytes of files", 1),  # the same pixels
        ({"c": content(dataset(stored(12), bits=12))}, "bytes of files", 1),  # it was refused, and can be read now
        ({"table": LABELS.replace("2,M", "2,F")}, "sex, age, view or device in the table", 1),
        ({"table": LABELS.replace("a.dcm,sick", "a.dcm,well").replace("c.dcm,well", "c.dcm,sick")}, "labels", 2),
        ({"table": LABELS.replace("well,3", "well,4"), "a": "M"}, "bytes of files and patients", 2),
    ],
)
def test_what_was_replaced_under_its_name_is_noticed(of_own, tmp_path, changes, what, count):
    for path in of_own.glob("out*"):
        (shutil.copytree if path.is_dir() else shutil.copy)(path, tmp_path / path.name)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    sizes = {path.name: path.stat().st_size for path in of_own.glob("[ab].*")}
    collection = own(tmp_path, **changes)
    assert {path.name: path.stat().st_size for path in tmp_path.glob("[ab].*")} == sizes
    with pytest.raises(InputError, match=rf"and {what} have changed \(files .*out.names.csv\).*count={count}$"):
        prepare.prepare(collection, tmp_path / "out", size=32)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert len(prepare.prepare(own(tmp_path), tmp_path / "out", size=32)) == 3  # as they were, whenever written


def test_a_second_process_is_kept_out_and_draws_no_salt_of_its_own(of_own, tmp_path):
    (tmp_path / "out").mkdir()
    with (tmp_path / "out" / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(InUse, match="is in use by"):
            prepare.prepare(own(of_own), tmp_path / "out", size=32)
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "lock"]


def test_a_folder_that_does_not_know_its_files_says_so(of_own, tmp_path):
    shutil.copytree(of_own / "out", tmp_path / "out")
    shutil.copy(of_own / "out.salt", tmp_path)
    (path,) = tmp_path.glob("out/records-*.json")
    rows = json.loads(path.read_text())["rows"]
    path.write_text(json.dumps({"rows": [{k: v for k, v in row.items() if k != "content"} for row in rows]}))
    said = []
    prepare.prepare(own(of_own), tmp_path / "out", size=32, say=said.append)
    assert said == [f"{tmp_path}/out: 3 images are of an earlier version, which did not note what files it read"]


def test_no_digest_of_a_file_is_in_what_is_written(of_own):
    known = {contents.digest(path) for path in of_own.glob("[abc].*")}
    assert len(known) == 3
    for path in of_own.glob("out/*"):
        assert not any(digest[:16].encode() in path.read_bytes() for digest in known)


def test_another_preparation_in_the_same_folder_is_refused(raw, prepared):
    with pytest.raises(InputError, match=r"same preparation.*size=\(32, 64\)"):
        prepare.prepare(siim.collection(raw), prepared, size=64)


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(InputError, match="must be a whole prepared folder"):
        load(tmp_path)


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
def test_radiographs_become_square_as_asked(fit):
    wide = np.zeros((40, 80), np.float32)
    wide[:, 20:60] = 1
    square = resized(wide, 16, fit=fit)
    assert square.shape == (16, 16)
    bright = (square > 0.5).mean()
    assert bright == pytest.approx({"stretch": 0.5, "pad": 0.25, "crop": 1.0}[fit], abs=0.04)


@pytest.mark.parametrize("bits", [8, 12])
def test_the_picture_kept_has_the_bits_that_it_needs(bits):
    pixels = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    kept = Image.open(io.BytesIO(png(pixels, bits=bits)))
    assert kept.mode == ("L" if bits == 8 else "I;16")
    np.testing.assert_allclose(np.asarray(kept, float) / (255 if bits == 8 else 65535), pixels, atol=0.002)


def test_the_same_picture_smaller_and_brighter_is_a_near_duplicate_and_another_is_not():
    rng = np.random.default_rng(0)
    bodies = [synthetic.radiograph(synthetic.anatomy(rng), kind, size=256, rng=rng) / 4095 for kind in range(4)]
    pictures = [body.astype(np.float32) for body in bodies]
    again = resized(np.clip(0.9 * pictures[0] + 0.05, 0, 1), 128)
    hashes = [perceptual_hash(p) for p in [*pictures, again]]
    assert [(a, b) for a, b, _ in near_duplicates(hashes)] == [(0, 4)]


def test_the_search_for_near_duplicates_finds_what_comparing_all_pairs_finds():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (60, 32), dtype=np.uint8)
    for i in range(20):
        codes[40 + i] = codes[i]
        for bit in rng.integers(0, 256, i):
            codes[40 + i, bit // 8] ^= 1 << (bit % 8)
    distances = np.unpackbits(codes[:, None] ^ codes[None], axis=-1).sum(-1)
    expected = {(i, j) for i in range(60) for j in range(i + 1, 60) if distances[i, j] <= 15}
    assert {(a, b) for a, b, _ in near_duplicates([c.tobytes().hex() for c in codes])} == expected
    assert len(expected) > 12


def test_what_a_worker_returns_names_nobody(raw):
    path = next(p for p in sorted(raw.glob("train/*/*/*.dcm")))
    about, picture = unpacked(shrunk(str(path), 32, salt="grain"))
    assert about["patient"] == pseudonym("made-up-0", salt="grain")
    assert about["bits"] == 12
    assert Image.open(io.BytesIO(picture)).size == (32, 32)


def test_side_by_side_shows_the_viewers_and_the_networks_picture():
    pixels = np.tile(np.linspace(0, 1, 100, dtype=np.float32), (200, 1))
    both = side_by_side(Radiograph(pixels=pixels, bits=12), size=32)
    assert both.shape == (512, 256 + 8 + 512)
    assert both[0, 258] == 255
