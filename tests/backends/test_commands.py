"""The commands on a machine that has JAX or PyTorch and no TensorFlow; each is a process of its own."""

import importlib.util
import json
from functools import partial

import keras
import numpy as np
import pytest
from PIL import Image

from tests import tiny_runs
from tests.backends.test_methods import OTHERS, run
from tests.commands import pictures
from tf_simclr.run_folder import RunFolder

SIZES = ("--image_size", "16", "--resnet_depth", "18", "--train_batch_size", "4", "--strategy", "one")
EVERYTHING = """
import importlib, pkgutil, sys
import tf_simclr, converters
left = []
for package in (tf_simclr, converters):
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not found.name.endswith("__main__"):
            try:
                importlib.import_module(found.name)
            except ModuleNotFoundError as error:
                assert error.name.split(".")[0] in ("tensorflow", "tensorflow_datasets"), error
                left.append(found.name)
sys.stdout.write(" ".join(left))
"""


@pytest.fixture
def images(tmp_path):
    """A folder of two splits and two classes, one picture of which is none."""
    pictures.splits(tmp_path / "images", size=(20, 24), growing=1)
    (tmp_path / "images" / "train" / "a" / "bad.jpg").write_bytes(b"no picture")
    return tmp_path / "images"


def succeeded(*words, backend: str = "jax", blocked: str | None = None) -> str:
    """What a command says, which must not fail."""
    done = run("tf_simclr", *words, backend=backend, blocked=blocked)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def refused(*words) -> str:
    done = run("tf_simclr", *words, backend="jax")
    assert done.returncode == 2, done.stderr[-3000:]
    return done.stderr


command = succeeded
needs_jax = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs jax")


@pytest.mark.slow
@pytest.mark.parametrize("backend", OTHERS)
def test_pretraining_evaluation_features_and_fine_tuning_of_a_folder(backend, images, tmp_path):
    model = tmp_path / "run"
    given = ("--image_dir", images, "--image_size", "16")
    words = ("--train_steps", "4", "--knn_epochs", "1", "--eval_split", "test", "--model_dir", model)
    said = command("pretrain", "--image_dir", images, *SIZES, *words, backend=backend)
    assert str(images / "train" / "a" / "bad.jpg") in said
    result = json.loads((model / "result.json").read_text())
    assert 0 <= result["knn_acc"] <= 1
    assert (model / "pairs.png").exists()
    assert len(list((model / "logs" / "train").iterdir())) >= 2
    command("linear-eval", "--checkpoint", model, *given, "--figures", tmp_path / "figures", backend=backend)
    assert sorted(one.name for one in (tmp_path / "figures").iterdir()) == ["feature_map.png", "neighbours.png"]
    found = json.loads((model / "linear_eval.json").read_text())
    assert found["results"]["checkpoint"]["test_images"] == 12
    words = ("--protocol", "sgd", "--train_epochs", "1", "--train_batch_size", "4", "--untrained", "False")
    command("linear-eval", "--checkpoint", model, *given, *words, backend=backend)
    assert (model / "linear_eval_sgd.json").exists()
    command("embed", "--checkpoint", model, *given, "--out", tmp_path / "e.npz", backend=backend)
    with np.load(tmp_path / "e.npz") as features:
        assert features["values"].shape == (12, 512)
    tuned = ("--checkpoint", model, *given, "--train_batch_size", "4", "--train_steps", "2", "--strategy", "one")
    command("finetune", *tuned, "--model_dir", tmp_path / "tuned", backend=backend)
    assert "top1" in json.loads((tmp_path / "tuned" / "result.json").read_text())


@needs_jax
@pytest.mark.slow
@pytest.mark.parametrize("blocked", [None, "-"], ids=["without TensorFlow", "beside TensorFlow"])
@pytest.mark.parametrize("equal", [False, True], ids=["of many sizes", "held by the device"])
def test_a_run_that_is_cut_off_goes_on_exactly(images, tmp_path, blocked, equal):
    if equal:
        (images / "train" / "a" / "bad.jpg").unlink()
        for path in images.rglob("*.png"):
            Image.open(path).crop((0, 0, 20, 20)).save(path)
    command = partial(succeeded, blocked=blocked)
    words = ("--image_dir", images, *SIZES, "--train_steps", "6", "--checkpoint_steps", "2", "--augment_on", "device")
    words += ("--knn_epochs", "0", "--collapse_images", "0", "--keep_checkpoint_max", "0")
    straight, cut = tmp_path / "straight", tmp_path / "cut"
    said = command("pretrain", *words, "--model_dir", straight)
    if blocked is not None:
        assert "views are made on the device" in said
        assert ("the device holds all 12 images" in said) == equal
    command("pretrain", *words, "--model_dir", cut)
    for path in RunFolder(cut).checkpoints()[:2]:  # as if it had been killed after step 2
        path.unlink()
    for path in (RunFolder(cut).result, RunFolder(cut).network):
        path.unlink()
    assert "resuming after step 2" in command("pretrain", *words, "--model_dir", cut)
    tiny_runs.assert_same_bits(RunFolder(cut).checkpoint(6), RunFolder(straight).checkpoint(6))


@needs_jax
def test_what_needs_tensorflow_names_the_extra(tmp_path):
    keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Flatten()]).save(tmp_path / "flat.keras")
    for words in (("demo",), ("export", "--checkpoint", tmp_path / "flat.keras", "--image_size", "32")):
        assert "needs tensorflow: pip install 'tf-simclr[tensorflow]'" in refused(*words)


@needs_jax
def test_every_module_but_those_of_tensorflow_can_be_imported(tmp_path):
    script = tmp_path / "everything.py"
    script.write_text(EVERYTHING)
    done = run("everything", backend="jax", PYTHONPATH=f"{tmp_path}")
    assert done.returncode == 0, done.stderr[-2000:]
    rooms = ("tf_simclr.chest.", "tf_simclr.data.radiographs.", "tf_simclr.official.")
    alone = {"tf_simclr.exports", "tf_simclr.commands.export", "tf_simclr.data.tfds_source"}
    assert not [name for name in done.stdout.split() if name not in alone and not name.startswith(rooms)]
