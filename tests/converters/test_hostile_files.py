"""Broken and hostile input: one clear sentence, no code run, nothing half-written."""

import argparse
import contextlib
import json
import os
import pickle
import shutil
import stat
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch

import converters
from converters import verify
from converters import writing as targets
from converters.loading import open_source
from tests.converters import networks, official
from tests.converters.networks import SMALL
from tf_simclr.errors import InputError

NAMES = {"pth": "twin", "safetensors": "twin", "keras": "keras", "h5": "keras"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Writes the small network into a container once: container → path."""
    folder, made = tmp_path_factory.mktemp("whole"), {}

    def write(to: str):
        if to not in made:
            made[to] = folder / f"small{targets.CONTAINERS[to].ending}"
            targets.write(networks.network(SMALL), made[to], to=to, naming=NAMES[to])
        return made[to]

    return write


def touch(path):
    """What a hostile pickle would run."""
    with open(path, "w") as file:
        file.write("ran")


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return touch, (str(self.path),)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, legacy):
    path, mark = tmp_path / "hostile.pth", tmp_path / "mark"
    torch.save({"weights": Hostile(mark)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(InputError, match="pickle asks for other code, which was not run"):
        open_source(path)
    assert not mark.exists()


def test_a_bare_pickle_is_refused_and_not_run(tmp_path):
    path, mark = tmp_path / "hostile.pth", tmp_path / "mark"
    path.write_bytes(pickle.dumps({"conv1.weight": Hostile(mark)}, protocol=2))
    with pytest.raises(InputError):
        open_source(path)
    assert not mark.exists()


def test_options_that_training_scripts_store_are_allowed(tmp_path):
    state = torch.load(targets_path(tmp_path), weights_only=True)
    torch.save({"state_dict": state, "args": argparse.Namespace(lr=0.3), "epoch": 3}, tmp_path / "run.ckpt")
    assert len(converters.load(tmp_path / "run.ckpt").weights) == 116


def targets_path(folder):
    path = folder / "plain.pth"
    targets.write(networks.network(SMALL), path, to="pth", naming="twin")
    return path


def read_all(path):
    network = converters.load(path)
    return [network[name] for name in network.weights]


@pytest.mark.parametrize("to", NAMES)
@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.999])
def test_truncated_files_are_refused(files, tmp_path, to, part):
    whole = files(to)
    path = tmp_path / whole.name
    data = whole.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(InputError):
        read_all(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../outside.index", "plain files below its folder only"),
        ("folder/../../outside.index", "plain files below its folder only"),
        ("/absolute.index", "plain files below its folder only"),
        ("C:\\outside.index", "plain files below its folder only"),
        ("..\\outside.index", "plain files below its folder only"),
        ("readme.txt", "must hold a checkpoint"),
    ],
)
def test_zips_with_members_elsewhere_are_not_unpacked(tmp_path, name, message):
    path = tmp_path / "v1.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, b"x")
    before = set(tmp_path.parent.iterdir())
    with pytest.raises(InputError, match=message):
        open_source(path)
    assert set(tmp_path.parent.iterdir()) == before


def test_zips_with_links_are_not_unpacked(tmp_path):
    path = tmp_path / "v1.zip"
    link = zipfile.ZipInfo("model.ckpt-1.index")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match="plain files below its folder only"):
        open_source(path)


def test_a_zip_that_is_cut_off_is_refused(tmp_path):
    official.write_tf1(tmp_path / "ckpt", "r18_1x_sk0_cifar")
    data = shutil.make_archive(str(tmp_path / "v1"), "zip", tmp_path, "ckpt")
    content = (tmp_path / "v1.zip").read_bytes()
    (tmp_path / "v1.zip").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="must be a whole zip file"):
        open_source(data)


def test_a_zip_with_a_flipped_bit_is_refused(tmp_path):
    official.write_tf1(tmp_path / "ckpt", "r18_1x_sk0_cifar")
    shutil.make_archive(str(tmp_path / "v1"), "zip", tmp_path, "ckpt")
    content = bytearray((tmp_path / "v1.zip").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "v1.zip").write_bytes(content)
    with pytest.raises(InputError):
        read_all(tmp_path / "v1.zip")


@pytest.mark.parametrize(
    "header",
    [
        b"\xff" * 8 + b"{",
        (2**40).to_bytes(8, "little") + b"{}",
        (10).to_bytes(8, "little") + b"{not json!",
        *(
            len(text).to_bytes(8, "little") + text
            for entry in (
                {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]},
                {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
                {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
                {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]},
                {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]},
                {"dtype": "F32", "shape": [1]},
                {"dtype": "F32", "shape": [1], "data_offsets": [0]},
                [],
            )
            for text in [json.dumps({"conv1.weight": entry}).encode()]
        ),
    ],
)
def test_safetensors_headers_that_lie_are_refused(tmp_path, header):
    (tmp_path / "x.safetensors").write_bytes(header + b"\0" * 4)
    with pytest.raises(InputError):
        open_source(tmp_path / "x.safetensors")


def test_empty_folders_strange_files_and_missing_ones_are_one_sentence(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("hello")
    (tmp_path / "zero").touch()
    for name in ("empty", "text", "zero", "missing"):
        with pytest.raises(InputError, match=name):
            open_source(tmp_path / name)


def test_a_folder_of_several_files_asks_which(files, tmp_path):
    for name in ("a.pth", "b.pth"):
        shutil.copy(files("pth"), tmp_path / name)
    with pytest.raises(InputError, match=r"name the file you mean.*a\.pth.*b\.pth"):
        open_source(tmp_path)


def test_objects_in_npz_files_are_refused(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.array([{}], dtype=object))
    with pytest.raises(InputError, match="plain arrays"):
        open_source(tmp_path / "x.npz")


@pytest.mark.parametrize("to", ["pth", "safetensors", "tf1", "keras", "huggingface"])
def test_a_target_that_cannot_be_written_is_one_sentence_and_leaves_nothing(tmp_path, to):
    (tmp_path / "file").write_text("in the way")
    target = tmp_path / "file" / f"out{targets.CONTAINERS[to].ending}"
    with pytest.raises(InputError, match="must be writable"):
        targets.write(networks.network(SMALL), target, to=to, naming=targets.CONTAINERS[to].namings[0])
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("to", ["pth", "safetensors", "tf1", "tf2", "keras", "h5", "savedmodel"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupt_or_a_full_disk_leaves_what_was_there(files, tmp_path, to, error):
    network = networks.network(SMALL)
    target = tmp_path / f"out{targets.CONTAINERS[to].ending}"
    if targets.CONTAINERS[to].ending:
        target.write_text("older")
    stored = network.weights["group4_block1_conv1/kernel"]

    def fail():
        raise error

    network.weights["group4_block1_conv1/kernel"] = type(stored)(stored.shape, stored.dtype, fail)
    with pytest.raises((KeyboardInterrupt, InputError)):
        targets.write(network, target, to=to, naming=targets.CONTAINERS[to].namings[0])
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert left == ([target] if targets.CONTAINERS[to].ending else [])
    assert all(path.read_text() == "older" for path in left)


def run(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_commands_answer_wrong_input_on_stderr_with_code_2(tmp_path):
    root = networks.golden.ROOT
    for command in ("tf2torch", "torch2tf", "inspect"):
        done = run(f"converters.{command}", tmp_path / "missing", cwd=root)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"{tmp_path / 'missing'} must exist: no file, folder or checkpoint prefix")
        assert done.stderr.count("\n") == 1


def test_verify_says_which_endpoint_differs_first_and_fails(files, tmp_path):
    network = networks.network(SMALL)
    bias = network["logits_sup/bias"] + 1
    network.weights["logits_sup/bias"] = type(network.weights["logits_sup/bias"])(bias.shape, "float32", lambda: bias)
    targets.write(network, tmp_path / "other.safetensors", to="safetensors", naming="twin")
    equal, lines = verify.run(verify.Options(files("pth"), tmp_path / "other.safetensors"))
    assert not equal
    assert lines[-1].startswith("DIFFERENT: first logits_sup, by ")
    equal, lines = verify.run(verify.Options(files("pth"), files("safetensors")))
    assert (equal, lines[-1]) == (True, "EQUAL within 1e-10")
    done = run("converters.verify", files("pth"), tmp_path / "other.safetensors", cwd=networks.golden.ROOT)
    assert (done.returncode, done.stderr) == (1, "")


def test_inspect_says_what_is_in_a_file(tmp_path):
    official.write_tf1(tmp_path, "r18_1x_sk0_cifar.finetune_all.lars")
    done = run("converters.inspect", tmp_path, cwd=networks.golden.ROOT)
    assert done.returncode == 0, done.stderr
    for part in (
        "TF1 checkpoint, tf1 names",
        "ResNet-18 1x",
        "11,770,186 trained",
        "fine-tuned",
        "no NaN",
        "float32 × 121",
    ):
        assert part in done.stdout


def test_tf2torch_needs_no_tensorflow(tmp_path):
    official.write_tf1(tmp_path / "ckpt", "r18_1x_sk0_cifar")
    code = (
        "import sys; from converters.tf2torch import main; "
        f"sys.argv = ['tf2torch', {str(tmp_path / 'ckpt')!r}, {str(tmp_path / 'out.pth')!r}]; main(); "
        "sys.exit(bool({'tensorflow', 'keras'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=networks.golden.ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Verified weights bit-equal" in done.stdout


@pytest.mark.parametrize("to", ["run", "npz"])
def test_no_flipped_bit_of_an_archives_directory_is_more_than_one_sentence(tmp_path, to):
    """Damage there can claim encryption, an unknown compression, another version or another length."""
    np.savez(tmp_path / "x.npz", **{"model/a": np.arange(4.0), "model/b": np.ones(3)})
    content = (tmp_path / "x.npz").read_bytes()
    if to == "run":
        (tmp_path / "run" / "checkpoints").mkdir(parents=True)
        (tmp_path / "run" / "architecture.json").write_text("{}")
    path = tmp_path / ("run/checkpoints/step-00000001.npz" if to == "run" else "y.npz")
    refused = 0
    for place in range(content.index(b"PK\x01\x02"), len(content)):
        broken = bytearray(content)
        broken[place] ^= 1
        path.write_bytes(broken)
        try:
            with contextlib.closing(open_source(tmp_path / "run" if to == "run" else path)) as source:
                _ = [stored.read() for stored in source.tensors.values()]
        except InputError:
            refused += 1
    assert refused > 20


@pytest.mark.parametrize("to", ["pth", "safetensors"])
def test_a_disk_without_room_is_said_before_anything_is_read(tmp_path, monkeypatch, to):
    from converters import tensors

    network = networks.network(SMALL)
    bytes_there = sum(stored.nbytes for stored in network.weights.values())
    few = type("Disk", (), {"f_bavail": bytes_there // 2, "f_frsize": 1})
    monkeypatch.setattr(tensors.os, "fstatvfs", lambda descriptor: few, raising=False)
    with pytest.raises(InputError, match="must be writable: No space left on device"):
        targets.write(network, tmp_path / f"x.{to}", to=to, naming="twin")
    assert not list(tmp_path.iterdir())
