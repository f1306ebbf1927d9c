"""`tf-simclr pretrain` on small pictures, from the first step to a network that loads."""

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest

from tests import golden, tiny_runs
from tests.commands import pictures
from tf_simclr.commands import pretrain
from tf_simclr.commands.parts import plans
from tf_simclr.config import Pretrain, plain
from tf_simclr.data.sources import from_arrays
from tf_simclr.errors import InputError
from tf_simclr.models.architecture import Architecture
from tf_simclr.models.network import weights_by_name
from tf_simclr.run_folder import RunFolder
from tf_simclr.training import read_history
from tf_simclr.weights import load_encoder, load_model

CHEAP = Architecture(18, proj_head_mode="nonlinear", num_proj_layers=2, proj_out_dim=16)
"""With the ImageNet stem, which leaves little to compute."""


def config(folder: Path, **changes) -> Pretrain:
    values = {
        "model_dir": folder,
        "image_size": 32,
        "resnet_depth": 18,
        "num_proj_layers": 2,
        "train_batch_size": 4,
        "train_steps": 5,
        "checkpoint_steps": 2,
        "warmup_epochs": 1,
        "learning_rate": 0.1,
    }
    return Pretrain(**values | changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run on class folders with one corrupt picture: five steps of four of thirteen, an epoch and two thirds."""
    images = pictures.write(tmp_path_factory.mktemp("images") / "train", per_class=4).parent
    bad = pictures.corrupt(images / "train" / "red" / "bad.png")
    # Above 32 pixels comes the ImageNet stem, which leaves little to compute.
    options = config(tmp_path_factory.mktemp("run"), image_dir=images, image_size=40, cache_dataset=True)
    pretrain.run(options)
    return options, bad


def test_a_run_folder_holds_everything_that_is_promised(finished):
    options, _ = finished
    run = RunFolder(options.model_dir)
    assert json.loads(run.config.read_text()) == plain(options)
    wanted = Architecture(18, proj_head_mode="nonlinear", num_proj_layers=2, proj_out_dim=128, num_classes=3)
    assert Architecture(**json.loads(run.architecture.read_text())) == wanted
    assert [path.name for path in run.checkpoints()] == [f"step-0000000{step}.npz" for step in (5, 4, 2)]
    assert [(row["epoch"], row["step"]) for row in read_history(run)] == [(1, 3), (2, 5)]
    assert list((run.logs / "train").glob("events.out.tfevents.*"))
    assert (run.path / "pairs.png").stat().st_size > 1000
    assert not [path for path in run.path.rglob(".*") if path.is_file()]  # nothing half-written is left


def test_the_result_names_the_corrupt_picture(finished):
    options, bad = finished
    result = json.loads(RunFolder(options.model_dir).result.read_text())
    assert result["unreadable"] == [str(bad)]
    assert result["step"] == 5
    assert result["seconds"] > 0
    assert {"loss", "contrast_loss", "contrast_acc", "contrast_entropy", "supervised_acc"} <= result.keys()
    assert {"supervised_top5_acc", "knn_acc", "feature_rank", "projection_std", "learning_rate"} <= result.keys()
    assert all(np.isfinite(value) for name, value in result.items() if name != "unreadable")


def test_the_exported_network_and_the_newest_checkpoint_are_one(finished):
    run = RunFolder(finished[0].model_dir)
    images = np.random.default_rng(0).uniform(size=(2, 40, 40, 3)).astype("float32")
    networks = keras.saving.load_model(run.network, compile=False), load_model(run.path)
    weights, expected = (weights_by_name(network) for network in networks)
    assert weights.keys() == expected.keys()
    for name, weight in weights.items():
        np.testing.assert_array_equal(weight, expected[name], err_msg=name)
    exported, loaded = (network(images, training=False) for network in networks)
    assert exported.keys() == loaded.keys()
    for name, value in exported.items():  # Keras' own BatchNorm in the file and the fused one here round differently
        np.testing.assert_allclose(value, loaded[name], atol=1e-5 * np.abs(loaded[name]).max(), err_msg=name)
    np.testing.assert_array_equal(load_encoder(run.path)(images, training=False), loaded["final_avg_pool"])


def test_the_same_command_on_a_finished_run_trains_nothing_and_forgets_nothing(finished, capsys):
    run = RunFolder(finished[0].model_dir)
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.is_file()}
    pretrain.run(finished[0])
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.is_file()} == before
    out, err = capsys.readouterr()
    where = "devices: 1 CPU\nviews are made on the host: no accelerator trains\n"
    assert err == f"{where}{run.path} is finished; nothing is left to train\n"
    assert "1 unreadable images were skipped" in out
    assert f"python -m converters.tf2torch {run.path}" in out


def test_another_run_is_refused_in_the_folder_of_a_finished_one(finished):
    with pytest.raises(InputError, match=r"holds a run with other options; .*seed=0 there, 1 here"):
        pretrain.run(dataclasses.replace(finished[0], seed=1))


def test_what_the_knobs_mean_for_the_network():
    source = from_arrays(np.zeros((4, 8, 8), np.uint8), np.array([0, 1, 2, 1]))
    knobs = Pretrain(resnet_depth=50, sk_ratio=0.0625, width_multiplier=2, proj_head_mode="linear", image_size=64)
    assert pretrain.describe(knobs, source) == Architecture(
        50, 2, sk_ratio=0.0625, proj_head_mode="linear", num_proj_layers=1, proj_out_dim=128, num_classes=3
    )
    knobs = Pretrain(resnet_depth=18, proj_head_mode="none", image_size=32, lineareval_while_pretraining=False)
    assert pretrain.describe(knobs, source) == Architecture(18, cifar_stem=True)


@pytest.mark.parametrize(
    ("knobs", "steps"),
    [
        # SimCLR, Section 2.2: ImageNet's 1,281,167 images in batches of 4096, 100 epochs; the code takes one more.
        ({"train_batch_size": 4096, "train_epochs": 100}, (31279, 312, 312)),
        ({"train_batch_size": 4096, "train_epochs": 100, "checkpoint_epochs": 3}, (31279, 312, 936)),
        ({"train_batch_size": 4096, "train_steps": 10, "checkpoint_steps": 4}, (10, 312, 4)),
    ],
)
def test_steps_are_counted_as_the_official_code_counts_them(knobs, steps):
    plan = plans.plan_of(Pretrain(**knobs), 1_281_167)
    assert (plan.total_steps, plan.steps_per_epoch, plan.checkpoint_steps) == steps


@pytest.mark.slow
def test_arrays_without_labels_train_no_probe(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 10), np.uint8)
    options = config(tmp_path, train_steps=3, optimizer="adam", learning_rate=1e-3)
    result = pretrain.pretrain(options, from_arrays(pixels), architecture=CHEAP)
    assert result["step"] == 3
    assert not [name for name in result if name.startswith("supervised")]
    assert "logits_sup" not in load_model(tmp_path).output


@pytest.mark.slow
def test_cifar_10_is_trained_on_as_tfds_has_it(tmp_path):
    folder = golden.beside("data/tfds")
    options = config(tmp_path, data_dir=folder, train_split="train[:40]", train_batch_size=8, train_steps=6)
    pretrain.run(options)
    result = json.loads(RunFolder(tmp_path).result.read_text())
    assert (result["step"], result["epoch"], result["unreadable"]) == (6, 2, [])
    assert load_model(tmp_path).output["logits_sup"].shape == (None, 10)


@pytest.mark.slow
def test_a_process_that_is_killed_and_started_again_ends_as_one_that_was_not(tmp_path):
    images = pictures.write(tmp_path / "images" / "train", per_class=5).parent
    bad = pictures.corrupt(images / "train" / "green" / "bad.png")
    words = f"--image_dir {images} --image_size 40 --resnet_depth 18 --train_batch_size 4 --train_steps 18"
    words += " --checkpoint_steps 1 --keep_checkpoint_max 0"
    command = [sys.executable, "-m", "tf_simclr", "pretrain", *words.split(), "--model_dir"]

    def start(name: str) -> subprocess.Popen:
        return subprocess.Popen(
            [*command, tmp_path / name], cwd=golden.ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    straight, killed = RunFolder(tmp_path / "straight"), RunFolder(tmp_path / "killed")
    process = start("straight")
    _, err = process.communicate()
    assert process.returncode == 0, err
    process = start("killed")
    while not killed.checkpoint(6).exists():  # in the second epoch of four steps
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not killed.checkpoint(18).exists()
    process = start("killed")
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert "resuming after step" in err
    assert [path.name for path in killed.checkpoints()] == [path.name for path in straight.checkpoints()]
    tiny_runs.assert_same_bits(killed.checkpoint(18), straight.checkpoint(18))
    assert killed.history.read_bytes() == straight.history.read_bytes()
    assert json.loads(killed.result.read_text())["unreadable"] == [str(bad)]


# Where views are made


@pytest.fixture(scope="module")
def on_the_device(tmp_path_factory):
    """The same five steps with views made on the host, and on the device, small pictures in memory."""
    images = pictures.write(tmp_path_factory.mktemp("images") / "train", per_class=4).parent
    runs = {}
    for place in ("host", "device"):
        runs[place] = config(tmp_path_factory.mktemp(place), image_dir=images, image_size=40, augment_on=place)
        pretrain.pretrain(runs[place], pretrain.to_pretrain_on(runs[place]), architecture=CHEAP)
    return runs


def test_a_network_does_not_hang_on_who_makes_the_views(on_the_device):
    """Within what rounding grows to in five steps of BatchNorm over eight views."""
    found, expected = (
        [row["contrast_loss"] for row in read_history(RunFolder(options.model_dir))]
        for options in (on_the_device["device"], on_the_device["host"])
    )
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    sheets = [plt.imread(options.model_dir / "pairs.png") for options in on_the_device.values()]
    assert np.abs(sheets[0] - sheets[1]).max() <= 2 / 255


def test_a_run_with_views_of_the_device_resumes_exactly_and_may_change_the_place(on_the_device, tmp_path):
    options = dataclasses.replace(on_the_device["device"], model_dir=tmp_path / "run")
    shutil.copytree(on_the_device["device"].model_dir, options.model_dir)
    run = RunFolder(options.model_dir)
    for path in (run.network, run.result, run.checkpoint(5), run.checkpoint(4)):
        path.unlink()
    pretrain.pretrain(options, pretrain.to_pretrain_on(options), architecture=CHEAP)
    with (
        np.load(run.checkpoint(5)) as found,
        np.load(RunFolder(on_the_device["device"].model_dir).checkpoint(5)) as expected,
    ):
        for name in expected.files:
            np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    run.network.unlink()
    moved = dataclasses.replace(options, augment_on="host")
    pretrain.pretrain(moved, pretrain.to_pretrain_on(moved), architecture=CHEAP)


def test_views_on_the_device_are_refused_where_others_make_them(tmp_path):
    source = from_arrays(np.zeros((8, 40, 40, 3), np.uint8))
    for changes, view in (({"data_service": "localhost:1"}, None), ({}, lambda image, seed: image)):
        options = config(tmp_path / "run", image_size=40, augment_on="device", **changes)
        with pytest.raises(InputError, match="augment_on must be host"):
            pretrain.pretrain(options, source, view=view, architecture=CHEAP)
