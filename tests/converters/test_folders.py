"""Folders and archives as they come: what is taken is said, several are listed, nothing is unpacked elsewhere."""

import contextlib
import gzip
import io
import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from converters.loading import load, open_source
from converters.opening import archives, folders
from tests import golden
from tests.converters import official
from tf_simclr.errors import InputError

ARRAYS = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b.weight": np.ones(4, np.float32)}
HALVES = [{key: ARRAYS[key]} for key in ARRAYS]
SMALLEST = "r18_1x_sk0_cifar"


def read(path, **options):
    """Everything that a path gives: values by name, container, notes."""
    with contextlib.closing(open_source(path, **options)) as source:
        return {name: stored.read() for name, stored in source.tensors.items()}, source.container, source.notes


def same(values, wanted=ARRAYS):
    assert values.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(values[name], value)


def weights(path: Path, arrays=ARRAYS) -> Path:
    """Writes a small file of the kind that its ending says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".safetensors":
        save_file(arrays, path)
    elif path.suffix == ".index":
        official.save(path.with_suffix(""), arrays)
    else:
        import torch

        torch.save({key: torch.from_numpy(value) for key, value in arrays.items()}, path)
    return path


# Folders


@pytest.mark.parametrize(
    "place",
    [
        "r50_1x_sk0/saved_model/variables/variables.index",
        "version_0/checkpoints/epoch=99-step=100.ckpt",
        "1/variables/variables.index",
        "lightning_logs/version_0/checkpoints/last.ckpt",
        "a/b/c/d/e/f/weights.safetensors",
        "ckpt/model.ckpt-7.index",
        "train/weights.npz",
    ],
)
def test_one_checkpoint_some_levels_down_is_taken_and_said(tmp_path, place):
    weights(tmp_path / "given" / place)
    for name in ("README.md", "logs/events.out.tfevents.1", "figures/loss.png", "hparams.yaml"):
        (tmp_path / "given" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "given" / name).write_text("text")
    values, _, notes = read(tmp_path / "given")
    same(values)
    assert any(note.startswith("Took ") and "the only checkpoint in" in note for note in notes)


def test_several_checkpoints_below_are_a_list_to_choose_from(tmp_path):
    names = ["version_0/checkpoints/last.ckpt", "version_1/checkpoints/last.ckpt", "export/1/variables/variables.index"]
    for name in names:
        weights(tmp_path / name)
    with pytest.raises(InputError, match=r"name the file you mean, or its folder.*3 checkpoints, ") as caught:
        open_source(tmp_path)
    for name in (*names[:2], "export/1"):
        assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_many_checkpoints_are_listed_in_part_and_counted(tmp_path):
    for i in range(50):
        weights(tmp_path / f"epoch{i:02d}.npz")
    with pytest.raises(InputError, match=r"50 checkpoints, epoch00\.npz, .* and 30 more$"):
        open_source(tmp_path)


def test_what_lies_below_a_checkpoint_is_said_and_left(tmp_path):
    weights(tmp_path / "model.ckpt-7.index")
    weights(tmp_path / "hub" / "variables" / "variables.index", HALVES[0])
    values, _, notes = read(tmp_path)
    same(values)
    assert any("hub" in note and "Not read" in note for note in notes)


def test_a_file_beside_a_tensorflow_checkpoint_is_said_and_left(tmp_path):
    weights(tmp_path / "model.ckpt-7.index")
    weights(tmp_path / "converted.pth", HALVES[0])
    values, container, notes = read(tmp_path)
    same(values)
    assert container == "TF1 checkpoint"
    assert any("converted.pth also there" in note for note in notes)


@pytest.mark.parametrize("extra", ["training_args.bin", "optimizer.pt", "rng_state_0.pth", "scheduler.pt", "scaler.pt"])
def test_a_trainers_state_is_no_candidate(tmp_path, extra):
    weights(tmp_path / "pytorch_model.bin")
    weights(tmp_path / extra, HALVES[0])
    (tmp_path / "config.json").write_text("{}")
    values, _, notes = read(tmp_path)
    same(values)
    assert any(extra in note for note in notes)


@pytest.mark.parametrize("other", ["pytorch_model.bin", "tf_model.h5"])
def test_of_hugging_faces_two_forms_safetensors_is_taken_and_said(tmp_path, other):
    weights(tmp_path / "model.safetensors")
    if other.endswith(".bin"):
        weights(tmp_path / other, HALVES[0])
    else:
        h5py = pytest.importorskip("h5py")
        h5py.File(tmp_path / other, "w").close()
    values, container, notes = read(tmp_path)
    same(values)
    assert container == "safetensors file"
    assert any(f"Took model.safetensors; {other} also there" in note for note in notes)


def test_a_variant_beside_the_usual_file_is_left_and_said(tmp_path):
    weights(tmp_path / "model.safetensors")
    weights(tmp_path / "model.fp16.safetensors", HALVES[0])
    weights(tmp_path / "pytorch_model.bin", HALVES[1])
    values, _, notes = read(tmp_path)
    same(values)
    assert any("model.fp16.safetensors, pytorch_model.bin also there" in note for note in notes)


def test_a_variant_alone_is_read(tmp_path):
    weights(tmp_path / "model.fp16.safetensors")
    same(read(tmp_path)[0])


@pytest.mark.parametrize("link", ["latest.pth", "a_first.pth"])
def test_a_link_to_a_file_beside_it_is_the_same_checkpoint(tmp_path, link):
    weights(tmp_path / "epoch_200.pth")
    (tmp_path / link).symlink_to("epoch_200.pth")
    values, _, _ = read(tmp_path)
    same(values)
    weights(tmp_path / "epoch_100.pth", HALVES[0])
    with pytest.raises(InputError, match=r"2 checkpoints, epoch_100\.pth, epoch_200\.pth$"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\nsize 9\n", "a Git-LFS pointer"),
        (b"", "empty"),
        (b"<html>", "HTML"),
    ],
)
def test_what_lies_in_place_of_weights_beside_others_is_said(tmp_path, content, said):
    weights(tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").write_bytes(content)
    values, _, notes = read(tmp_path)
    same(values)
    assert any(note.startswith("Not read: model.safetensors is ") and said in note for note in notes)


def test_two_files_that_may_be_two_networks_are_not_chosen_between(tmp_path):
    weights(tmp_path / "student.safetensors")
    weights(tmp_path / "teacher.safetensors")
    with pytest.raises(InputError, match=r"student\.safetensors, teacher\.safetensors"):
        open_source(tmp_path)


def test_hugging_faces_cache_holds_each_file_once(tmp_path):
    blob = weights(tmp_path / "cache" / "blobs" / "0123abc.safetensors").rename(
        tmp_path / "cache" / "blobs" / "0123abc"
    )
    snapshot = tmp_path / "cache" / "snapshots" / "f00"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").symlink_to(os.path.relpath(blob, snapshot))
    values, _, notes = read(tmp_path / "cache")
    same(values)
    assert any("snapshots/f00/model.safetensors" in note for note in notes)


def test_links_to_folders_are_not_followed(tmp_path):
    weights(tmp_path / "a" / "weights.npz")
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    same(read(tmp_path)[0])


def test_folders_without_end_are_looked_through_to_a_bound(tmp_path, monkeypatch):
    deep = tmp_path.joinpath("deep", *"abcdefghijklmnop")
    deep.mkdir(parents=True)
    with pytest.raises(InputError, match="8 levels of folders, but has more; name the checkpoint"):
        open_source(tmp_path / "deep")
    monkeypatch.setattr(folders, "MOST", 10)
    (tmp_path / "many").mkdir()
    for i in range(11):
        (tmp_path / "many" / f"{i}").mkdir()
    with pytest.raises(InputError, match="among its first 10 files"):
        open_source(tmp_path / "many")
    weights(tmp_path / "many" / "weights.npz")  # what is named directly needs no search
    same(read(tmp_path / "many")[0])


def test_a_step_of_a_single_file_is_its_own(tmp_path):
    weights(tmp_path / "w.npz")
    weights(tmp_path / "ckpt" / "model.ckpt-7.index")
    for path in (tmp_path / "w.npz", tmp_path / "ckpt" / "model.ckpt-7", tmp_path / "ckpt" / "model.ckpt-7.index"):
        with pytest.raises(InputError, match="--step chooses among a folder's checkpoints, but "):
            open_source(path, step=8)
    for path in (tmp_path / "ckpt", tmp_path / "ckpt" / "model.ckpt-7"):
        same(read(path, step=7)[0])


# Shards


def sharded(folder, ending, *, index=True, places=None):
    folder.mkdir(exist_ok=True)
    stem = {".safetensors": "model", ".bin": "pytorch_model"}[ending]
    files = [weights(folder / f"{stem}-0000{i + 1}-of-00002{ending}", half) for i, half in enumerate(HALVES)]
    if index:
        places = places or {key: files[i].name for i, key in enumerate(ARRAYS)}
        content = {"metadata": {"total_size": 40}, "weight_map": places}
        (folder / f"{stem}{ending}.index.json").write_text(json.dumps(content))
    return files


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("ending", [".safetensors", ".bin"])
def test_weights_in_several_files_are_one_source(tmp_path, ending, index):
    files = sharded(tmp_path, ending, index=index)
    weights(tmp_path / "training_args.bin", HALVES[0])
    for path in (tmp_path, *files, *tmp_path.glob("*.index.json")):
        values, container, _ = read(path)
        same(values)
        assert container.startswith("2 ")


def test_a_missing_file_of_several_is_named(tmp_path):
    sharded(tmp_path, ".safetensors")[1].unlink()
    with pytest.raises(InputError, match=r"1 of 2 are missing: copy them, too.*model-00002-of-00002\.safetensors"):
        open_source(tmp_path)
    sharded(tmp_path / "b", ".bin", index=False)[0].unlink()
    with pytest.raises(InputError, match=r"1 of 2 are missing.*pytorch_model-00001-of-00002\.bin"):
        open_source(tmp_path / "b")


ONE, TWO = (f"model-0000{i}-of-00002.safetensors" for i in (1, 2))
MAPS = {
    "a tensor that no file has": ({"a.weight": ONE, "b.weight": TWO, "c": ONE}, "must hold every tensor that it names"),
    "a tensor too few": ({"a.weight": ONE}, "missing|one more|two"),
    "a tensor in the other file": ({"a.weight": TWO, "b.weight": ONE}, "also has one more"),
    "a file elsewhere": ({"a.weight": "../x.safetensors"}, "is no file beside it"),
    "an absolute file": ({"a.weight": "/etc/passwd"}, "is no file beside it"),
    "a file that is a number": ({"a.weight": 1}, "no weight_map"),
}


@pytest.mark.parametrize("case", MAPS)
def test_an_index_that_does_not_fit_its_files_is_refused(tmp_path, case):
    places, message = MAPS[case]
    sharded(tmp_path, ".safetensors", places=places)
    if case == "a tensor too few":
        return  # the second file is then no part of the set: its tensors are not the index's
    with pytest.raises(InputError, match=message):
        open_source(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"weight_map": {}}', '{"weight_map": {"a": "x", "a": "y"}}'])
def test_an_index_that_is_none_is_refused(tmp_path, text):
    sharded(tmp_path, ".safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(InputError, match=r"model\.safetensors\.index\.json must be an index"):
        open_source(tmp_path)


# Archives

KINDS = ["zip", "tar", "tar.gz", "tgz", "tar.bz2", "tar.xz"]


def pack(path: Path, folder: Path, *, top="") -> Path:
    """Packs a folder by the system's libraries, as the ending says."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(folder.rglob("*")):
                archive.write(file, top + file.relative_to(folder).as_posix())
        return path
    mode = {".tar": "w", ".gz": "w:gz", ".tgz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}[path.suffix]
    with tarfile.open(path, mode) as archive:
        archive.add(folder, top or ".")
    return path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("top", ["", "r50_1x_sk0/saved_model/"])
@pytest.mark.parametrize("place", ["variables/variables.index", "model.ckpt-7.index", "weights.pth", "w.safetensors"])
def test_archives_of_every_kind_are_read(tmp_path, kind, top, place):
    weights(tmp_path / "folder" / place)
    if "variables" in place:
        (tmp_path / "folder" / "saved_model.pb").touch()
        (tmp_path / "folder" / "assets").mkdir()
    values, container, notes = read(pack(tmp_path / f"given.{kind}", tmp_path / "folder", top=top))
    same(values)
    assert container.endswith("in a zip" if kind == "zip" else "in a tar")
    assert not any("simclr-" in note for note in notes)


def test_a_tar_by_the_systems_tar_is_the_same_network(tmp_path):
    official.write_saved_model(tmp_path / "hub", SMALLEST, selector=1)
    subprocess.run(["tar", "-C", tmp_path / "hub", "-czf", tmp_path / "hub.tar.gz", "."], check=True)
    with contextlib.closing(load(tmp_path / "hub")) as a, contextlib.closing(load(tmp_path / "hub.tar.gz")) as b:
        assert a.architecture == b.architecture
        assert a.architecture.ft_proj_selector == 1
        for name in a.weights:
            np.testing.assert_array_equal(a[name], b[name])
    assert not list(Path(archives.tempfile.gettempdir()).glob("simclr-*/saved_model.pb"))


@pytest.mark.parametrize("kind", KINDS)
def test_what_macos_adds_is_no_checkpoint(tmp_path, kind):
    weights(tmp_path / "folder" / "ckpt" / "model.pth")
    for name in ("__MACOSX/ckpt/._model.pth", "ckpt/._model.pth", "ckpt/.DS_Store"):
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(b"\0\x05\x16\x07\0\x02\0\0Mac OS X        ")
    same(read(pack(tmp_path / f"given.{kind}", tmp_path / "folder"))[0])


@pytest.mark.parametrize("kind", KINDS)
def test_several_checkpoints_in_an_archive_are_listed_by_their_names_in_it(tmp_path, kind):
    for name in ("a.pth", "b/c.pth"):
        weights(tmp_path / "folder" / name)
    for name in ("d/e.pth", "f/g.pth"):
        weights(tmp_path / "other" / name)
    same(read(pack(tmp_path / f"given.{kind}", tmp_path / "folder"))[0])
    with pytest.raises(
        InputError, match=r"other\.\S+ must hold .*unpack it, and name.*2 checkpoints, d/e\.pth, f/g\.pth"
    ):
        open_source(pack(tmp_path / f"other.{kind}", tmp_path / "other"))


def in_tar(path: Path, info: tarfile.TarInfo, data: bytes = b"") -> Path:
    info.size = len(data)
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize(
    "name", ["../x.index", "/tmp/x.index", "a/../../x.index", "..\\x.index", "C:\\x.index", "a/./../../x.index"]
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_members_elsewhere_are_not_unpacked(tmp_path, name, kind):
    path = tmp_path / f"x.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, b"x")
    else:
        in_tar(path, tarfile.TarInfo(name), b"x")
    before = set(tmp_path.parent.rglob("*"))
    with pytest.raises(InputError, match="plain files below its folder only"):
        open_source(path)
    assert set(tmp_path.parent.rglob("*")) == before


def test_a_file_that_is_twice_in_a_tar_is_told_so(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for content in (b"one", b"two"):
            info = tarfile.TarInfo("./model.ckpt-1.index")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    with pytest.raises(InputError, match=r"x\.tar must hold each file once; pack it again"):
        open_source(tmp_path / "x.tar")


TYPES = {
    "a link": tarfile.SYMTYPE,
    "a hard link": tarfile.LNKTYPE,
    "a character device": tarfile.CHRTYPE,
    "a block device": tarfile.BLKTYPE,
    "a pipe": tarfile.FIFOTYPE,
}


@pytest.mark.parametrize("case", TYPES)
def test_links_devices_and_pipes_in_a_tar_are_not_made(tmp_path, case):
    info = tarfile.TarInfo("model.ckpt-1.index")
    info.type, info.linkname = TYPES[case], "/etc/passwd"
    with pytest.raises(InputError, match=r"x\.tar\.gz must hold plain files below its folder only, but has 'model"):
        open_source(in_tar(tmp_path / "x.tar.gz", info))


def test_devices_in_a_zip_are_not_made(tmp_path):
    info = zipfile.ZipInfo("model.ckpt-1.index")
    info.external_attr = (stat.S_IFCHR | 0o666) << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(info, b"")
    with pytest.raises(InputError, match="a device; not unpacked"):
        open_source(tmp_path / "x.zip")


@pytest.mark.parametrize("kind", KINDS)
def test_archives_that_grow_without_measure_are_refused(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(archives, "SMALLEST", 1 << 20)
    (tmp_path / "folder").mkdir()
    for i in range(3):
        (tmp_path / "folder" / f"w{i}.pth").write_bytes(bytes(1 << 20))
    path = pack(tmp_path / f"x.{kind}", tmp_path / "folder")
    if kind == "tar":
        monkeypatch.setattr(archives, "RATIO", 0)
    with pytest.raises(InputError, match="must not become more than"):
        open_source(path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_archives_that_are_cut_off_are_refused_by_their_own_name(tmp_path, kind, share):
    weights(tmp_path / "folder" / "model.ckpt-7.index", {"w": np.random.RandomState(0).rand(50_000)})
    path = pack(tmp_path / f"x.{kind}", tmp_path / "folder")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(InputError, match=rf"{path}") as caught:
        read(path)
    assert "simclr-" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_in_an_archive_is_refused_by_its_own_name_or_does_no_harm(tmp_path, kind):
    arrays = {"w": np.random.RandomState(0).rand(500), "x": np.arange(3.0)}
    weights(tmp_path / "folder" / "model.ckpt-7.index", arrays)
    path = pack(tmp_path / f"x.{kind}", tmp_path / "folder")
    whole, random, messages = path.read_bytes(), np.random.RandomState(1), []
    for _ in range(60):
        content = bytearray(whole)
        content[random.randint(len(content))] ^= 1 << random.randint(8)
        path.write_bytes(content)
        try:
            same(read(path)[0], arrays)
        except InputError as error:
            messages.append(str(error))
    assert len(messages) > 10
    assert all(str(path) in message and "simclr-" not in message and "\n" not in message for message in messages)


def test_no_message_names_the_folder_that_is_gone(tmp_path):
    weights(tmp_path / "folder" / "model.ckpt-7.index")
    data = tmp_path / "folder" / "model.ckpt-7.data-00000-of-00001"
    data.write_bytes(bytes(data.stat().st_size))
    path = pack(tmp_path / "x.zip", tmp_path / "folder")
    source = open_source(path)
    with pytest.raises(InputError, match=r"tensor a.weight must match .* in \S+/x\.zip/model\.ckpt-7\.data") as caught:
        source.tensors["a.weight"].read()
    assert "simclr-" not in str(caught.value)
    source.close()
    assert not list(Path(archives.tempfile.gettempdir()).glob("simclr-*/model.ckpt-7.index"))


def test_a_header_that_claims_a_long_name_takes_no_memory(tmp_path):
    info = tarfile.TarInfo("././@PaxHeader")
    info.type = tarfile.XHDTYPE
    in_tar(tmp_path / "x.tar.gz", info, bytes(8 << 20))
    with pytest.raises(InputError, match=r"x\.tar\.gz must be a whole tar file, but a header of it is longer"):
        open_source(tmp_path / "x.tar.gz")


# What is no checkpoint

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 94567890\n"
PAGE = "\n<!DOCTYPE html><html><head><title>Sign in</title></head></html>"
XML = "<?xml version='1.0' encoding='UTF-8'?><Error><Code>NoSuchKey</Code></Error>"
INSTEAD = {
    "pointer": (POINTER, r"is a Git-LFS pointer to 94,567,890 bytes that lie elsewhere; run `git lfs pull`"),
    "page": (PAGE, r"is an HTML page, as sites answer with .*; download it again"),
    "old page": ("<html><body>404</body></html>", "is an HTML page"),
    "answer": (XML, r"is a server's answer in XML \(NoSuchKey\)"),
    "nothing": ("", "is empty: its download or copy broke off; get it again"),
    "json": ('{"error": "Repository not found"}', "is JSON, which .* holds no weights; name the file of weights"),
    "text": ("hello", "is text; name the file of weights, or their folder"),
}
NAMES = ["resnet50.pth", "model.safetensors", "model.keras", "x.weights.h5", "ResNet50_1x.zip", "hub.tar.gz", "noname"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", INSTEAD)
def test_what_lies_in_place_of_a_file_has_a_sentence_of_its_own(tmp_path, case, name):
    content, message = INSTEAD[case]
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=rf"{name} must be a checkpoint \(.*\), but {message}") as caught:
        open_source(tmp_path / name)
    assert "\n" not in str(caught.value)


OTHERS = {
    "w.npy": (b"\x93NUMPY\x01\0v\0", "one array of NumPy; save all weights"),
    "w.tflite": (b"\x1c\0\0\0TFL3", "a TensorFlow Lite model"),
    "w.onnx": (b"\x08\x07\x12\x07pytorch", "an ONNX model, .* take the checkpoint that it was made from"),
    "frozen.pb": (b"\x0a\x10\x0a\x05input\0\xff", "a graph without its weights, or one that was frozen"),
    "w.pth.gz": (gzip.compress(b"weights"), "compressed by gzip, and no tar; unpack it first"),
    "w.7z": (b"7z\xbc\xaf\x27\x1c\0\4", "a 7z archive; unpack it first"),
    "cat.jpg": (b"\xff\xd8\xff\xe0\0\x10JFIF", "a picture"),
    "w.dat": (b"\xff\xfe\xfd\xfc", "none of these: it begins with the bytes ff fe fd fc"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_files_of_other_programs_are_told_by_name(tmp_path, name):
    content, message = OTHERS[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name} must be a checkpoint \(.*\), but is {message}"):
        open_source(tmp_path / name)


@pytest.mark.parametrize("case", ["pointer", "page", "answer"])
@pytest.mark.parametrize("name", ["variables.index", "variables.data-00000-of-00001", "saved_model.pb"])
def test_a_tensorflow_checkpoints_file_that_was_not_downloaded_is_named(tmp_path, case, name):
    weights(tmp_path / "variables" / "variables.index")
    place = tmp_path / name if name == "saved_model.pb" else tmp_path / "variables" / name
    place.write_text(INSTEAD[case][0])
    with pytest.raises(InputError, match=rf"{name} must be a checkpoint's file, but {INSTEAD[case][1]}"):
        read(tmp_path)


@pytest.mark.parametrize("case", ["pointer", "page"])
@pytest.mark.parametrize("name", ["model.safetensors", "checkpoints/pytorch_model.bin"])
def test_a_folder_of_files_that_were_not_downloaded_says_so(tmp_path, case, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(INSTEAD[case][0])
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match=rf"must hold a checkpoint, but {name} {INSTEAD[case][1]}"):
        open_source(tmp_path)


ADDRESSES = {
    "https://storage.googleapis.com/simclr-gcs/checkpoints/ResNet50_1x.zip": "get gs://simclr-gcs/checkpoints/ResNet50_1x",
    "https://huggingface.co/org/simclr/blob/main/model.safetensors": "give hf://org/simclr, which is downloaded",
    "http://example.org/resnet50.pth": r"`curl -LO http://example\.org/resnet50\.pth`",
}


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("kind", [str, Path])
def test_addresses_say_how_to_download_them(address, kind):
    scheme, rest = address.split("://")
    plain = rest.lstrip("/")
    with pytest.raises(
        InputError, match=rf"^{scheme}://{plain} must be a path on this machine, .*{ADDRESSES[address]}"
    ):
        open_source(kind(address))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("pretrained/r152_3x_sk1", r"simclrv2/pretrained/r152_3x_sk1\?"),
        ("r50_1x_sk0", r"simclrv2/finetuned_1pct/r50_1x_sk0 or .*, …\?"),
        ("ResNet50_4x.zip", r"simclrv1/ResNet50_4x\?"),
    ],
)
def test_what_is_not_the_whole_name_of_an_official_checkpoint_says_which_is_meant(tmp_path, monkeypatch, name, meant):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=rf"^{name} must be a path at which something is, .*\(did you mean {meant}"):
        open_source(name)


def test_commands_say_what_is_wrong_with_an_address(tmp_path):
    for name, sentence in {
        f"file://{tmp_path}/none": f"file://{tmp_path}/none must exist: no object, folder or checkpoint prefix",
        "azure://x/y": "an address must be of a store that fsspec knows",
    }.items():
        command = [sys.executable, "-m", "converters.inspect", name]
        done = subprocess.run(command, cwd=golden.ROOT, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (2, "")
        assert sentence in done.stderr
        assert done.stderr.count("\n") == 1


# Run folders


def run_folder(folder, *, steps=(10, 20)):
    for step in steps:
        weights(folder / "checkpoints" / f"step-{step:08d}.npz", {"model/w": np.full(3, step, np.float32)})
    (folder / "architecture.json").write_text("{}")
    return folder


def test_a_stray_file_among_a_runs_checkpoints_is_ignored_and_said(tmp_path):
    run_folder(tmp_path / "run")
    for name in ("step-old.npz", "step-99.npz", "notes.txt"):
        shutil.copy(tmp_path / "run" / "checkpoints" / "step-00000010.npz", tmp_path / "run" / "checkpoints" / name)
    values, _, notes = read(tmp_path / "run")
    assert values["model/w"].tolist() == [20, 20, 20]
    assert any("notes.txt, step-99.npz, step-old.npz" in note for note in notes)
    assert read(tmp_path / "run", step=10)[0]["model/w"].tolist() == [10, 10, 10]


def test_a_run_folder_is_found_below_another(tmp_path):
    run_folder(tmp_path / "runs" / "first")
    assert read(tmp_path)[0]["model/w"].tolist() == [20, 20, 20]
    run_folder(tmp_path / "runs" / "second")
    with pytest.raises(InputError, match="2 checkpoints, runs/first, runs/second"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    "text",
    ['{"depth": 50.0}', '{"ft_proj_selector": 1.9}', '{"depth": 18, "depth": 50}', "[]", "{", '{"num_classes": true}'],
)
def test_an_architecture_that_is_none_is_refused(tmp_path, text):
    (run_folder(tmp_path) / "architecture.json").write_text(text)
    with pytest.raises(InputError, match=r"architecture\.json must "):
        open_source(tmp_path)
