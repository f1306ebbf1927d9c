"""A mirror holds what the store has, byte for byte, and asks for nothing twice; oracle: what was put there."""

import errno
import io
import json
import os
import tarfile
import threading
from pathlib import Path

import pytest

from tests.buckets.conftest import filled
from tf_simclr.buckets import keeping, local, mirror, patience
from tf_simclr.buckets.mirror import MANIFEST, Manifest
from tf_simclr.buckets.store import Store, crc32c
from tf_simclr.data.shards import opening
from tf_simclr.errors import InputError
from tf_simclr.files.places import SHARDS_NOTE, written
from tf_simclr.terminal import addressed


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("proxy", ["s3", "gs"], indirect=True)
def test_a_folder_is_fetched_once_and_then_what_changed(proxy, bucket, monkeypatch):
    files = {f"{name}/{i}.png": os.urandom(99) for name in "ab" for i in range(5)}
    one, asked = filled(bucket, files), []
    proxy.fault = lambda method, path, body: asked.append((method, path)) if "png" in path else None
    folder = local(bucket)
    assert contents(folder) == files
    first = len(asked)
    assert local(bucket) == folder
    assert len(asked) == first, "nothing is fetched twice"
    assert written(folder / "a" / "0.png") == f"{bucket}/a/0.png"
    assert addressed(f"read {folder}") == f"read {bucket}"
    del files["b/3.png"]
    files |= {"a/0.png": b"x" * 99, "c/new.png": b"new"}
    one.delete(["b/3.png"])
    for name in ("a/0.png", "c/new.png"):
        one.put(name, files[name])
    asked.clear()
    assert contents(local(bucket)) == files
    brought = {path.split("?")[0].replace("%2F", "/").rsplit("/", 1)[1] for method, path in asked if method == "GET"}
    assert {name for name in brought if name.endswith(".png")} == {"0.png", "new.png"}
    (folder / "a" / "1.png").write_bytes(b"cut")
    (folder / "a" / "left over").write_bytes(b"")
    assert contents(local(bucket)) == files
    assert contents(local(f"{bucket}/a")) == {n[2:]: c for n, c in files.items() if n[0] == "a"}


def test_a_file_a_prefix_and_nothing(bucket):
    filled(bucket, {"ckpt-5.index": b"i", "ckpt-5.data-00000-of-00001": b"d", "ckpt-50.index": b"other", "w.pth": b"w"})
    assert local(f"{bucket}/w.pth").read_bytes() == b"w"
    path = local(f"{bucket}/ckpt-5")
    assert sorted(one.name for one in path.parent.glob("ckpt*")) == ["ckpt-5.data-00000-of-00001", "ckpt-5.index"]
    for name in ("none", "ckpt", "w.pth/x"):
        with pytest.raises(InputError, match=rf"{bucket}/{name} must exist: no object, folder or checkpoint prefix"):
            local(f"{bucket}/{name}")


PATTERNS = {
    "{train,val}-{00..01}.tar": {"train-00.tar", "train-01.tar", "val-00.tar"},
    "train-*.tar": {"train-00.tar", "train-01.tar", "train-100.tar"},
    "*-0?.tar": {"train-00.tar", "train-01.tar", "val-00.tar"},
    "{train,deep}*/[a-m]*.tar": {"deep/a.tar"},
    "train-{00..99}.tar": {"train-00.tar", "train-01.tar"},
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_fetches_what_fits_it(proxy, bucket, pattern):
    """The oracle is what was put there; the pattern's place here is one that its reader expands alike."""
    names = ["train-00.tar", "train-01.tar", "train-100.tar", "val-00.tar", "deep/a.tar", "deep/z.tar", "deep/x/a.tar"]
    filled(bucket, {name: name.encode() for name in names})
    place, asked = local(f"{bucket}/{pattern}"), []
    assert place.name == pattern.rpartition("/")[2]
    folder = place.parents[pattern.count("/")]
    assert set(contents(folder)) == PATTERNS[pattern]
    assert written(place) == f"{bucket}/{pattern}"
    ends = {name.rpartition("/")[2] for name in names}
    proxy.fault = lambda method, path, body: asked.append(path) if path.split("?")[0].split("/")[-1] in ends else None
    local(f"{bucket}/{pattern}")
    assert not asked, "nothing is fetched twice"
    with pytest.raises(InputError, match=r"must mean something that is there, but no object in .* fits"):
        local(f"{bucket}/none-*.tar")


@pytest.mark.parametrize("pattern", ["*.tar", "out/*.tar", "*/*/*.tar"])
def test_shards_that_a_note_in_the_bucket_names_are_missed_by_a_pattern(bucket, pattern):
    """Before: of eleven of twelve tars the note stayed in the bucket, and a fresh machine trained on eleven."""
    folder = "" if pattern == "*.tar" else "out/" if pattern == "out/*.tar" else "out/train/"
    top, split = ("out/", "train/") if folder == "out/train/" else (folder, "")
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("x.bmp"))
    content = tar.getvalue()
    names = [f"{split}images-00000{number}.tar" for number in range(3)]
    note = {"files": {name: len(content) for name in names} | {f"{split}classes.txt": 4}}
    files = {f"{top}{name}": content for name in names}
    one = filled(bucket, files | {f"{top}{SHARDS_NOTE}": json.dumps(note).encode(), f"{folder}classes.txt": b"cat\n"})
    assert len(opening.of_split(local(f"{bucket}/{pattern}"), "train")[0]) == 3
    one.delete([f"{top}{names[1]}"])
    with pytest.raises(InputError, match=r"must hold whole what its prepared\.json names; run prepare-shards again"):
        opening.of_split(local(f"{bucket}/{pattern}"), "train")
    one.delete([f"{top}{SHARDS_NOTE}"])
    assert len(opening.of_split(local(f"{bucket}/{pattern}"), "train")[0]) == 2


@pytest.mark.parametrize("pattern", ["train-*.tar", "train-{00..99}.tar", "deep/?.tar"])
def test_a_pattern_means_nothing_that_the_store_has_no_more(bucket, pattern):
    """Before: shards made anew under other names lay beside the former ones, and each image was seen twice."""
    old, new = ("deep/a.tar", "deep/b.tar") if "deep" in pattern else ("train-00.tar", "train-10.tar")
    one = filled(bucket, {old: b"1", "other.tar": b"3"})
    local(f"{bucket}/other.tar")
    folder = local(f"{bucket}/{pattern}").parents[pattern.count("/")]
    one.delete([old])
    one.put(new, b"2")
    local(f"{bucket}/{pattern}")
    assert contents(folder) == {new: b"2", "other.tar": b"3"}
    one.put(old, b"4")
    local(f"{bucket}/{pattern}")
    assert contents(folder) == {new: b"2", old: b"4", "other.tar": b"3"}


@pytest.mark.parametrize("name", ["run[1]", "run{a,b}", "run*", "why?", "a#b%20c", "ünï cödé"])
def test_a_name_is_what_it_says_where_it_is_there(bucket, name):
    """Before: what a run had written at `run[1]` could not be read there, since brackets mean a pattern."""
    filled(f"{bucket}/{name}", {"a": b"1", "deep/b": b"22"})
    filled(bucket, {"run1/a": b"another", "why1/a": b"another", f"{name}/model.ckpt-7.index": b"333"})
    assert contents(local(f"{bucket}/{name}")) == {"a": b"1", "deep/b": b"22", "model.ckpt-7.index": b"333"}
    assert local(f"{bucket}/{name}/a").read_bytes() == b"1"
    prefix = local(f"{bucket}/{name}/model.ckpt-7")
    assert prefix.with_name("model.ckpt-7.index").read_bytes() == b"333"


def test_the_answers_of_a_result_come_with_it(bucket):
    """Before: `compare` found the numbers without them."""
    filled(bucket, {"knn.json": b"{}", "knn.npz": b"answers", "other.npz": b"", "knn2.npz": b""})
    path = local(f"{bucket}/knn.json")
    assert contents(path.parent) == {"knn.json": b"{}", "knn.npz": b"answers"}


def test_what_is_kept_in_a_bucket_is_brought_once_and_sent_whole(proxy, bucket, tmp_path, monkeypatch):
    """As `evaluation.features` keeps: a folder whose last file says that it is whole."""
    said, writes = [], proxy.writes
    folder = keeping.kept_at(bucket)
    writes.clear()
    (folder / "a").mkdir(parents=True)
    for name in ("entry.json", "values.npy"):
        (folder / "a" / name).write_bytes(name.encode())
    keeping.send(folder / "a", last="entry.json", say=said.append)
    assert [path.rsplit("/", 1)[1].split("?")[0] for _, path in writes] == ["values.npy", "entry.json"]
    monkeypatch.setenv("TF_SIMCLR_CACHE", str(tmp_path / "another machine"))
    other = keeping.kept_at(bucket)
    keeping.bring(other / "a", last="entry.json", say=said.append)
    assert contents(other) == {"a/entry.json": b"entry.json", "a/values.npy": b"values.npy"}
    Store(bucket).delete(["a/entry.json"])  # of a writer that was killed: as if nothing were there
    monkeypatch.setenv("TF_SIMCLR_CACHE", str(tmp_path / "a third"))
    third = keeping.kept_at(bucket)
    keeping.bring(third / "a", last="entry.json", say=said.append)
    assert contents(third) == {}
    assert not said
    monkeypatch.setattr(patience, "PATIENCE", 0.1)
    proxy.fault = lambda *_: "500"
    keeping.bring(third / "a", last="entry.json", say=said.append)
    keeping.send(other / "a", last="entry.json", say=said.append)
    assert [line.split(" ")[0] for line in said] == ["nothing", f"{bucket}/a"]


def test_a_file_of_a_cache_stays_until_the_store_s_is_here(proxy, bucket, monkeypatch):
    """It was removed first: another process that read it failed, and a fetch that broke off had lost it."""
    said = []
    path = keeping.kept_at(f"{bucket}/logits.npz")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"the one here")
    filled(bucket, {"logits.npz": b"the store's"})
    monkeypatch.setattr(patience, "PATIENCE", 0.1)
    proxy.fault = lambda method, path, body: "500" if method == "GET" and "list-type" not in path else None
    keeping.bring(path, say=said.append)
    assert path.read_bytes() == b"the one here"
    assert [line.split(" ")[0] for line in said] == ["nothing"]
    proxy.fault = lambda *_: None
    keeping.bring(path, say=said.append)
    assert path.read_bytes() == b"the store's"


@pytest.mark.parametrize("proxy", ["gs"], indirect=True)
def test_what_an_earlier_process_has_brought_is_not_fetched_again(proxy, bucket, monkeypatch):
    path = keeping.kept_at(f"{bucket}/logits.npz")
    filled(bucket, {"logits.npz": b"values"})
    keeping.bring(path, say=pytest.fail)
    monkeypatch.setattr(keeping, "_KNOWN", {})
    monkeypatch.setattr(keeping, "fetched", lambda *_, **__: pytest.fail("it is here"))
    keeping.bring(path, say=pytest.fail)
    assert path.read_bytes() == b"values"
    path.write_bytes(b"valueS")
    with pytest.raises(pytest.fail.Exception, match="it is here"):
        keeping.bring(path, say=print)


def test_a_folder_that_was_a_file_and_a_file_that_was_a_folder(bucket):
    one = filled(bucket, {"x": b"file"})
    assert contents(local(bucket)) == {"x": b"file"}
    one.delete(["x"])
    one.put("x/y", b"below")
    assert contents(local(bucket)) == {"x/y": b"below"}
    one.delete(["x/y"])
    one.put("x", b"again")
    assert contents(local(bucket)) == {"x": b"again"}


def test_a_download_that_was_stopped_goes_on(proxy, bucket):
    files = {f"{i:02}": os.urandom(50) for i in range(40)}
    filled(bucket, files)
    served = []

    def fault(method, path, body):
        if method == "GET" and "list-type" not in path:
            served.append(path)
            return "403" if len(served) > 25 else None
        return None

    proxy.fault = fault
    with pytest.raises(InputError, match="open to you"):
        local(bucket)
    proxy.fault = lambda method, path, body: (
        served.append(path) if method == "GET" and "list-type" not in path else None
    )
    served.clear()
    assert contents(local(bucket)) == files
    assert len(served) < 40


def test_what_is_listed_but_gone_is_said(proxy, bucket, capsys):
    one = filled(bucket, {"a": b"1", "b": b"2"})
    one.find()  # the listing that the proxy then repeats
    one.delete(["b"])
    proxy.fault = lambda method, path, body: "stale"
    assert contents(local(bucket)) == {"a": b"1"}
    assert proxy.count
    assert f"{bucket}: 1 objects were listed, but are gone: b" in capsys.readouterr().err


def test_a_run_is_what_its_manifest_names_whatever_the_listing_says(proxy, bucket):
    one = filled(bucket, {"checkpoints/step-00000001.npz": b"1", "config.json": b"{}"})
    one.find()
    proxy.fault = lambda method, path, body: "stale"
    new = {"checkpoints/step-00000002.npz": b"22", "config.json": b"{ }"}
    filled(bucket, new)
    one.delete(["checkpoints/step-00000001.npz"])
    files = {name: (len(content), crc32c(content)) for name, content in new.items()}
    one.put(MANIFEST, Manifest(files, writer="w", number=3, version="").text())
    assert contents(local(bucket)) == new


def test_a_checkpoint_that_is_not_what_the_manifest_says_is_refused(bucket):
    one = filled(bucket, {"checkpoints/step-00000002.npz": b"22", "history.csv": b"newer"})
    files = {"checkpoints/step-00000002.npz": (2, crc32c(b"21")), "history.csv": (2, crc32c(b"ol"))}
    one.put(MANIFEST, Manifest(files, writer="w", number=3, version="").text())
    with pytest.raises(InputError, match=r"step-00000002.npz must be what was written there.* it is damaged"):
        local(bucket)
    files["checkpoints/step-00000002.npz"] = (2, crc32c(b"22"))
    one.put(MANIFEST, Manifest(files, writer="w", number=4, version="").text())
    assert contents(local(bucket))["history.csv"] == b"newer", "of what is written anew the newest counts"


@pytest.mark.parametrize(
    "damage",
    [{"files": 3}, {"files": {"../x": {"size": 1, "crc32c": 1}}}, {"files": {"x": {"size": "many"}}}, {"number": None}],
)
def test_a_damaged_manifest_is_said(bucket, damage):
    good = {"kind": "tf_simclr run folder", "writer": "w", "number": 1, "files": {}}
    filled(bucket, {MANIFEST: json.dumps(good | damage).encode(), "x": b"1"})
    with pytest.raises(InputError, match=rf"{MANIFEST} must be what tf_simclr wrote, but is damaged"):
        local(bucket)


def test_a_cache_on_a_file_system_without_locks(bucket, monkeypatch):
    """As Lustre without `flock`; before, it was said that another process fetched, and a traceback followed."""

    def none(file, kind):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(mirror.fcntl, "flock", none)
    filled(bucket, {"a": b"1"})
    assert contents(local(bucket)) == {"a": b"1"}


def test_processes_that_want_the_same_fetch_it_once(proxy, bucket):
    files = {f"{i}.bin": os.urandom(2000) for i in range(30)}
    filled(bucket, files)
    served = []
    proxy.fault = lambda method, path, body: served.append(path) if method == "GET" and ".bin" in path else None
    threads = [threading.Thread(target=local, args=(bucket,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert contents(local(bucket)) == files
    assert len(served) == 30


def test_a_disk_that_is_too_small_is_said_before_anything_is_fetched(bucket, monkeypatch):
    filled(bucket, {"x": b"1"})
    monkeypatch.setattr(mirror, "_SPARE", 1 << 60)
    with pytest.raises(InputError, match=r"the disk of .* must hold what lies at .*TF_SIMCLR_CACHE"):
        local(bucket)


def test_functions_and_converters_take_addresses(bucket, tmp_path):
    from PIL import Image

    from converters.published.by_name import located
    from tf_simclr.data.folders import look

    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    filled(bucket, {f"pets/{name}/x.png": (tmp_path / "x.png").read_bytes() for name in ("cat", "dog")})
    filled(bucket, {"w.safetensors": b"weights"})
    assert len(look(f"{bucket}/pets").files) == 2
    assert located(Path(f"{bucket}/w.safetensors")).read_bytes() == b"weights"
    with pytest.raises(InputError, match=rf"{bucket}/none must exist"):
        located(Path(f"{bucket}/none"))
