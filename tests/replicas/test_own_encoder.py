"""BatchNorm of encoders that others made sees the batch of all replicas, or it is said; on JAX it does by itself."""

import importlib.util
import json
import os
import zipfile

import keras
import numpy as np
import pytest

from tests import tiny_runs
from tests.commands import pictures
from tests.replicas import tiny
from tests.replicas.forked import Forks, wait
from tf_simclr import optimizers, replicas
from tf_simclr.losses import NTXent
from tf_simclr.models.network import plain
from tf_simclr.models.normalization import share_statistics
from tf_simclr.models.resnet import projection_head
from tf_simclr.models.simclr import SimCLR
from tf_simclr.run_folder import RunFolder, state

EQUAL = 1e-9
"""Of the largest magnitude, in float64; that of a bias before BatchNorm is rounding alone: 1e-3 for it."""


class Centred(keras.layers.Layer):
    """Subtracts a mean that it keeps, as code of one's own may."""

    def build(self, shape):
        self.mean = self.add_weight(shape=shape[-1:], initializer="zeros", trainable=False, name="mean")

    def call(self, x, training=None):
        mean = keras.ops.mean(x, axis=0) if training else self.mean
        if training:
            self.mean.assign(0.9 * self.mean + 0.1 * mean)
        return x - mean


class Normalised(keras.layers.BatchNormalization):
    """Computes by itself."""

    def call(self, inputs, training=None, mask=None):
        return inputs - keras.ops.mean(inputs, axis=0)


def made(*more: keras.layers.Layer) -> keras.Model:
    """An encoder with one BatchNorm at its top and one in a model within it."""
    inner = keras.Sequential(
        [keras.Input((12,)), keras.layers.Dense(6, name="dense"), keras.layers.BatchNormalization(name="in")],
        name="inner",
    )
    first = [keras.layers.Conv2D(3, 5, use_bias=False, name="conv"), keras.layers.BatchNormalization(name="out")]
    rest = [keras.layers.ReLU(), keras.layers.MaxPooling2D(2), keras.layers.Flatten(), inner, *more]
    return keras.Sequential([keras.Input((tiny.SIZE, tiny.SIZE, 3)), *first, *rest], name="encoder")


def trained(devices: replicas.Devices, **shared) -> tuple[dict[str, np.ndarray], SimCLR]:
    """State after three steps, gradients among it, and the model."""
    with devices.scope():
        encoder = made()
        share_statistics(encoder, **shared)
        model = SimCLR(encoder, projection_head(6, 2, proj_out_dim=5))
        optimizer = optimizers.build("momentum", 0.1)
        model.compile(optimizer, NTXent(0.5), jit_compile=devices.jit_compile(None))
        optimizer.build(model.trainable_variables)
    random = np.random.RandomState(0)
    for name, variable in sorted(state(model).items()):
        if name.startswith("model/") and not name.endswith("moving_variance"):
            variable.assign(random.uniform(0.5, 1.5, tuple(variable.shape)))
    devices.fit(model, tiny.stream, steps_per_epoch=3, verbose=0)
    return {name: variable.numpy() for name, variable in state(model).items()}, model


def test_two_replicas_share_the_statistics_of_an_encoder_that_others_made(float64):
    alone, two = replicas.ONE_DEVICE, replicas.find("mirrored", num_replicas=2)
    expected, _ = trained(alone)
    shared, model = trained(two)
    worst = {
        name: float(np.abs(shared[name] - value).max() / max(np.abs(value).max(), 1e-3))
        for name, value in expected.items()
    }
    assert max(worst.values()) < EQUAL, worst
    assert all(layer.synchronized for layer in model.encoder._flatten_layers() if "batch" in type(layer).__name__)
    # What is saved is for any number of replicas: Keras on JAX loads no layer that is synchronised.
    assert '"synchronized": true' not in plain(model.network()).to_json()
    local, _ = trained(two, global_bn=False)
    name = next(name for name in expected if name.endswith("moving_variance"))
    assert np.abs(local[name] - expected[name]).max() > 1e-3  # the test would notice


def test_what_each_replica_sees_is_said():
    with replicas.find("mirrored", num_replicas=2).scope():
        encoder = made(Centred(name="centred"), Normalised(name="normalised"))
        encoder(np.zeros((1, tiny.SIZE, tiny.SIZE, 3), "float32"))
        with pytest.warns(UserWarning, match=r"3 BatchNormalization layers .*one replica's part .*synchronized=True"):
            SimCLR(encoder)
        said = share_statistics(encoder)
        assert said[0] == "3 BatchNormalization layers of the encoder see the batch of all 2 replicas"
        assert "centred (Centred), normalised (Normalised) (2); make them of" in said[1]
        assert "their own replica's part" in share_statistics(made(), global_bn=False)[0]
        SimCLR(encoder)  # who was told is not warned again
    assert share_statistics(made()) == []  # on one device


NET = """
import keras
from keras import layers


def normed():
    return keras.Sequential([
        keras.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU(), layers.Flatten(),
        layers.Dense(6), layers.BatchNormalization()])
"""
WORDS = "pretrain --image_dir images --encoder normed:normed --image_size 8 --augment_on host --train_batch_size 8 "
WORDS += "--train_steps 2 --warmup_epochs 0 --optimizer momentum --learning_rate 0.01 --proj_out_dim 8 --knn_epochs 0 "
WORDS += "--collapse_images 0 --model_dir"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_a_pretraining_on_two_devices_equals_one_on_one(tmp_path, backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"needs {backend}")
    pictures.write(tmp_path / "images" / "train", per_class=8, size=8)
    (tmp_path / "normed.py").write_text(NET)
    kinds = {"one": [], "two": ["--num_replicas", "2"], "local": ["--num_replicas", "2", "--global_bn", "False"]}
    kinds = {name: words if backend == "tensorflow" or name != "one" else ["--num_replicas", "1"]
             for name, words in kinds.items()}  # fmt: skip
    with Forks(backend, XLA_FLAGS="--xla_force_host_platform_device_count=2") as forks:
        members = [
            forks.start([*WORDS.split(), name, *words], tmp_path / f"{name}.log", folder=tmp_path)
            for name, words in kinds.items()
        ]
        assert wait(members, 300)
    assert [member.code for member in members] == [0, 0, 0], "\n".join(member.said() for member in members)
    said = "2 BatchNormalization layers of the encoder see the batch of all 2 replicas"
    assert [said in member.said() for member in members] == [False, backend == "tensorflow", False]
    one, two, local = (tiny_runs.arrays(RunFolder(tmp_path / name).checkpoint(2)) for name in kinds)
    far = {k: float(np.abs(two[k] - v).max()) for k, v in one.items() if k.startswith("model/")}
    assert max(far.values()) <= 1e-5, far
    apart = max(float(np.abs(local[k] - v).max()) for k, v in one.items() if k.endswith("moving_variance"))
    # JAX has one batch of all devices, whatever is asked for.
    assert (apart > 1e-4) is (backend == "tensorflow"), apart
    with zipfile.ZipFile(tmp_path / "two" / "network.keras") as file:
        assert '"synchronized": true' not in json.dumps(json.loads(file.read("config.json")))
