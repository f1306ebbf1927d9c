"""Where TensorFlow Addons still runs: its numbers are ours, and what needs no framework works beside it.

The tests need an environment of its own with the extra `legacy` (Python 3.10 or 3.11):

    python3.11 -m venv old && old/bin/pip install '.[legacy]'
    TF_SIMCLR_LEGACY_PYTHON=old/bin/python pytest -m slow tests/project/test_legacy.py
"""

import os
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import converters
from tests import golden
from tests.converters import official
from tf_simclr import losses
from tf_simclr.data import operators
from tf_simclr.optimizers import WarmUpCosine
from tf_simclr.optimizers.adaptive import Lamb

PYTHON = os.environ.get("TF_SIMCLR_LEGACY_PYTHON", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="TF_SIMCLR_LEGACY_PYTHON names no Python with the extra `legacy`"),
]

rng = np.random.default_rng(0)
Z1, Z2 = rng.normal(size=(2, 5, 4)).astype("float32")
DISTANCES = np.linalg.norm(Z1[:, None] - Z2[None], axis=-1).astype("float32")
INPUTS = {
    "kernel": rng.normal(size=(4, 3)).astype("float32"),
    "bias": rng.normal(size=3).astype("float32"),
    "gradients": rng.normal(size=(3, 4, 3)).astype("float32"),
    "decay": 0.1,
    "peak": 0.3,
    "total": 50,
    "warmup": 10,
    "distances": DISTANCES.ravel(),
    "similar": np.eye(5, dtype="float32").ravel(),
    "margin": 2.0,
    "image": rng.uniform(size=(24, 20, 3)).astype("float32"),
    "sigma": 1.3,
    "width": 7,
    "center": np.array([9, 12], np.int32),
    "side": 8,
}


def legacy(*words: str | Path) -> str:
    """What a command prints in that environment, with this project on the path but for its tests' packages."""
    names = {"PYTHONPATH": str(golden.ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [PYTHON, *map(str, words)], env=os.environ | names, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """What TensorFlow 2.15 and TensorFlow Addons make of the inputs."""
    folder = tmp_path_factory.mktemp("legacy")
    np.savez(folder / "in.npz", **INPUTS)
    legacy(Path(__file__).parents[1] / "legacy_run.py", folder / "in.npz", folder / "out.npz")
    with np.load(folder / "out.npz") as file:
        return {name: file[name] for name in file.files}


def test_lamb_takes_the_steps_of_tensorflow_addons(theirs):
    variables = [keras.Variable(INPUTS["kernel"], name="kernel"), keras.Variable(INPUTS["bias"], name="bias")]
    optimizer, steps = Lamb(0.01, weight_decay=INPUTS["decay"]), []
    for gradient in INPUTS["gradients"]:
        optimizer.apply([tf.constant(gradient), tf.constant(gradient[0])], variables)
        steps.append(np.concatenate([variable.numpy().ravel() for variable in variables]))
    np.testing.assert_allclose(np.stack(steps), theirs["lamb"], rtol=1e-5, atol=1e-6)


def test_the_schedule_is_keras_2s_cosine_behind_a_warm_up(theirs):
    ours = WarmUpCosine(INPUTS["peak"], INPUTS["total"], warmup_steps=INPUTS["warmup"])
    rates = [float(ours(step)) for step in range(INPUTS["total"])]
    np.testing.assert_allclose(rates, theirs["cosine"], rtol=1e-5, atol=1e-7)


def test_the_pair_loss_is_that_of_tensorflow_addons(theirs):
    """Ours halves each term as the paper does, averages those of negatives, and sums both directions."""
    pairs = theirs["hadsell"].reshape(5, 5) / 2
    own, others = np.diag(pairs), pairs - np.diag(np.diag(pairs))
    expected = 2 * own + others.sum(1) / 4 + others.sum(0) / 4
    ours = losses.hadsell(Z1, Z2, INPUTS["margin"], hidden_norm=False)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_blur_and_cutout_are_those_of_tensorflow_addons(theirs):
    image = tf.constant(INPUTS["image"])
    blurred = operators.blur(image, sigma=tf.constant(INPUTS["sigma"]), kernel_size=INPUTS["width"])
    np.testing.assert_allclose(blurred, theirs["blur"], atol=1e-6)
    cut = operators.cutout(image, tf.constant(INPUTS["center"]), side=INPUTS["side"])
    np.testing.assert_array_equal(cut, theirs["cutout"])


def test_converters_read_and_write_there_without_pytorch(tmp_path):
    source = official.write_tf1(tmp_path / "ckpt", "r18_1x_sk0_cifar").parent
    legacy("-m", "converters.tf2torch", source, tmp_path / "out.safetensors", "--engine", "numpy")
    here, there = converters.load(source), converters.load(tmp_path / "out.safetensors")
    assert here.weights.keys() == there.weights.keys()
    assert all(here[name].tobytes() == there[name].tobytes() for name in here.weights)


def test_commands_without_a_framework_run_there_and_the_others_say_why_not():
    assert "71.7 %" in legacy("-m", "tf_simclr", "checkpoints", "list", "--match", "pretrained/r50_1x_sk0")
    legacy("-m", "tf_simclr", "pretrain", "--help")
    code = "import tf_simclr\ntry:\n    tf_simclr.SimCLR\nexcept ImportError as error:\n    print(error)"
    assert "needs Keras 3; this environment has the `legacy` extra's Keras 2" in legacy("-c", code)
