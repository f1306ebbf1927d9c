"""Encoders of other kinds than ResNets, pretrained for a few steps on TensorFlow, and on JAX without TensorFlow.

ConvNeXt as `keras.applications` has it, a vision transformer of KerasHub, and a class of one's own; what was pretrained
on one backend then gives the same features on the other.
"""

import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import golden
from tests.backends.test_commands import images, needs_jax, succeeded
from tests.commands.test_any_encoder import CODE

pytestmark = pytest.mark.slow

VIT = """

def hub_vit():
    import keras_hub

    return keras_hub.models.ViTBackbone(
        image_shape=(32, 32, 3), patch_size=(8, 8), num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32
    )
"""
ENCODERS = {"applications:ConvNeXtTiny": 768, "mynets:hub_vit": 16, "mynets:larger_vit": 6}
__all__ = ["images"]  # a fixture


@pytest.fixture
def code(tmp_path, monkeypatch) -> Path:
    """A folder with the user's module, found as the working directory's are."""
    (tmp_path / "mynets.py").write_text(CODE + VIT)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(golden.ROOT), str(tmp_path)]))
    return tmp_path


@needs_jax
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
@pytest.mark.parametrize("name", ENCODERS)
def test_pretrains_and_gives_the_same_features_on_both(images, code, name, backend):
    if "hub" in name and importlib.util.find_spec("keras_hub") is None:
        pytest.skip("KerasHub is not installed")
    run = code / "run"
    # KerasHub needs TensorFlow's text library; Keras' Normalization takes a blocked TensorFlow for a loaded one.
    alone = None if name == "mynets:larger_vit" else "-"
    sizes = ["--image_size", "32", "--train_batch_size", "4", "--train_steps", "2", "--strategy", "one"]
    words = ["--image_dir", images, *sizes, "--encoder", name, "--proj_out_dim", "8", "--knn_epochs", "0"]
    said = succeeded("pretrain", *words, "--model_dir", run, backend=backend, blocked=alone)
    assert "images in [0, 1]" in said
    values = {}
    for other in ("tensorflow", "jax"):
        out = code / f"{other}.npz"
        embed = ["embed", "--checkpoint", run, "--encoder", name, "--split", "test", "--out", out]
        succeeded(*embed, backend=other, blocked=alone)
        with np.load(out) as file:
            values[other] = file["values"]
    assert values["jax"].shape == (12, ENCODERS[name])
    np.testing.assert_allclose(values["jax"], values["tensorflow"], atol=2e-5 * np.abs(values["tensorflow"]).max())
    assert np.ptp(values["jax"], axis=0).max() > 0
    sys.stdout.write(said)
