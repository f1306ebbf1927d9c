"""MoCo against Algorithm 1 of its paper in NumPy; its queue and keys' encoder in checkpoints and on replicas."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import tiny_runs
from tests.tiny_runs import Stop
from tf_simclr import optimizers, training
from tf_simclr.commands import pretrain
from tf_simclr.config import Pretrain
from tf_simclr.data.sources import from_arrays
from tf_simclr.errors import InputError
from tf_simclr.losses import InfoNCE, NTXent, info_nce
from tf_simclr.models.architecture import Architecture
from tf_simclr.models.moco import MoCo, Queue
from tf_simclr.models.network import build_encoder
from tf_simclr.models.normalization import Normalization
from tf_simclr.models.resnet import projection_head
from tf_simclr.run_folder import RunFolder, captured, restore_state, write_state
from tf_simclr.weights import load_encoder, load_model

LENGTH, DIM, RATE, MOMENTUM = 20, 4, 0.5, 0.9
rng = np.random.default_rng(0)


def unit(z):
    return z / np.sqrt((z**2).sum(axis=1, keepdims=True))


def oracle_loss(queries, keys, queue, temperature):
    """Equation 1 for each query, and its gradient with respect to the query before it is normalised."""
    losses, gradients = [], []
    for query, key in zip(queries, unit(keys), strict=True):
        length = np.sqrt((query**2).sum())
        every = np.vstack([key, queue])
        logits = every @ query / length / temperature
        p = np.exp(logits - logits.max())
        p /= p.sum()
        losses.append(-np.log(p[0]))
        unit_gradient = (p @ every - every[0]) / temperature
        direction = query / length
        gradients.append((unit_gradient - direction * (direction @ unit_gradient)) / length)
    return np.array(losses), np.array(gradients)


def test_the_loss_is_equation_1():
    queries, keys = rng.normal(size=(2, 5, 8))
    queue = unit(rng.normal(size=(11, 8)))
    with tf.GradientTape() as tape:
        tape.watch(given := tf.constant(queries))
        found = info_nce(given, keys, queue, 0.3)
    losses, gradients = oracle_loss(queries, keys, queue, 0.3)
    np.testing.assert_allclose(found, losses, rtol=1e-12)
    np.testing.assert_allclose(tape.gradient(found, given), gradients, rtol=1e-9)
    np.testing.assert_allclose(InfoNCE(0.3)(queries, (keys, queue)), losses.mean(), rtol=1e-6)


def test_the_queue_keeps_the_newest_keys_whatever_its_length():
    queue = Queue(5, 2)
    np.testing.assert_allclose(np.linalg.norm(queue.keys, axis=1), 1, rtol=1e-6)
    assert len({tuple(key) for key in np.asarray(queue.keys)}) == 5
    batches = [np.full((n, 2), i, "float32") for i, n in enumerate((2, 2, 3, 7))]
    expected = np.asarray(queue.keys)
    for batch in batches:
        queue.add(batch)
        expected = np.concatenate([batch, expected])[:5]
        np.testing.assert_array_equal(queue.keys, expected)


def linear(*, classes: int = 0) -> MoCo:
    """One dense layer as encoder, one as projection: all of Algorithm 1 can be written down for it."""
    dense = keras.layers.Dense(6, use_bias=False, name="dense")
    encoder = keras.Sequential([keras.Input((2, 2, 3)), keras.layers.Flatten(name="flat"), dense], name="encoder")
    inputs = keras.Input((6,))
    z = keras.layers.Dense(DIM, use_bias=False, name="proj1_dense")(inputs)
    head = keras.Model(inputs, [inputs, z], name="projection")
    options = {"queue_length": LENGTH, "key_momentum": MOMENTUM}
    return MoCo(encoder, head, num_classes=classes, weight_decay=0.01, **options)


def test_the_keys_encoder_catches_up_with_weights_that_came_from_elsewhere():
    model = linear()
    for part in (model.encoder, model.projection):
        part.set_weights([rng.normal(size=weight.shape) for weight in part.get_weights()])
    assert not np.allclose(model.encoder.get_weights()[0], model.key_encoder.get_weights()[0])
    model.catch_up()
    for part, copy in ((model.encoder, model.key_encoder), (model.projection, model.key_projection)):
        for ours, theirs in zip(part.get_weights(), copy.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def algorithm_1(weights, keys_weights, queue, views):
    """One iteration of the paper's Algorithm 1 with weight decay, and what it logs."""
    w, h = weights
    wk, hk = (MOMENTUM * old + (1 - MOMENTUM) * new for old, new in zip(keys_weights, weights, strict=True))
    x, xk = (views[:, i].reshape(len(views), -1) for i in (0, 1))
    queries, keys = x @ w @ h, xk @ wk @ hk
    losses, gradients = oracle_loss(queries, keys, queue, 0.2)
    gradients = gradients / len(views)
    new = [w - RATE * (x.T @ gradients @ h.T + 0.01 * w), h - RATE * ((x @ w).T @ gradients + 0.01 * h)]
    logits = np.column_stack([(unit(queries) * unit(keys)).sum(1), unit(queries) @ queue.T])
    acc = (logits.argmax(1) == 0).mean()
    return new, [wk, hk], np.concatenate([unit(keys), queue])[:LENGTH], losses.mean(), acc


def test_training_is_algorithm_1(float64):
    model = linear()
    model.compile(keras.optimizers.SGD(RATE), InfoNCE(0.2))
    weights = [w.numpy() for w in model.trainable_variables]
    assert [w.shape for w in weights] == [(12, 6), (6, 4)]
    keys_weights, queue = weights, model.queue.keys.numpy()
    for _ in range(4):
        views = rng.uniform(size=(7, 2, 2, 2, 3))
        model.reset_metrics()
        logs = model.train_on_batch(views, return_dict=True)
        weights, keys_weights, queue, loss, acc = algorithm_1(weights, keys_weights, queue, views)
        np.testing.assert_allclose(logs["contrast_loss"], loss, rtol=1e-6)
        np.testing.assert_allclose(logs["contrast_acc"], acc, rtol=1e-6)
        for found, expected in zip(model.trainable_variables, weights, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-9)
        for found, expected in zip(
            (*model.key_encoder.weights, *model.key_projection.weights), keys_weights, strict=True
        ):
            np.testing.assert_allclose(found, expected, rtol=1e-9)
        np.testing.assert_allclose(model.queue.keys, queue, rtol=1e-9)


def test_evaluation_moves_neither_the_queue_nor_the_keys_encoder():
    model = linear(classes=3)
    model.compile(keras.optimizers.SGD(RATE), InfoNCE(0.2))
    model.train_on_batch(rng.uniform(size=(7, 2, 2, 2, 3)), np.arange(7) % 3)  # else the two encoders are equal
    before = [w.numpy() for w in model.weights]
    logs = model.evaluate(rng.uniform(size=(7, 2, 2, 2, 3)), np.arange(7) % 3, verbose=0, return_dict=True)
    assert {"contrast_loss", "contrast_acc", "contrast_entropy", "supervised_acc"} <= logs.keys()
    for old, new in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, new)


def with_batch_norm(*, eager: bool = True) -> MoCo:
    norm = Normalization().layer("bn")
    layers = [keras.layers.Flatten(name="flat"), keras.layers.Dense(6, name="dense"), norm]
    encoder = keras.Sequential([keras.Input((2, 2, 3)), *layers], name="encoder")
    options = {"queue_length": 13, "key_momentum": MOMENTUM, "num_classes": 3}
    model = MoCo(encoder, projection_head(6, 2, proj_out_dim=DIM), **options)
    model.compile(optimizers.LARS(RATE, weight_decay=1e-3), InfoNCE(0.2), run_eagerly=eager)
    return model


def test_the_keys_encoder_takes_the_batchs_statistics_and_has_moving_ones_of_its_own():
    model = with_batch_norm()
    views = rng.uniform(1, 2, size=(8, 2, 2, 2, 3)).astype("float32")
    images = views[:, 1].reshape(8, -1)
    kernel = model.key_encoder.weights[0].numpy()
    model.train_on_batch(views, np.arange(8) % 3)
    moving = {w.name: w.numpy() for w in model.key_encoder.weights}["moving_mean"]
    np.testing.assert_allclose(moving, 0.1 * (images @ kernel).mean(axis=0), rtol=1e-4)


def batch(step: int):
    """Views and labels of a step."""
    draw = np.random.default_rng(step)
    return draw.uniform(size=(8, 2, 2, 2, 3)).astype("float32"), draw.integers(0, 3, 8)


def test_a_checkpoint_brings_back_queue_and_keys_encoder(tmp_path):
    straight, resumed = with_batch_norm(), with_batch_norm()
    for model in (straight, resumed):
        model.optimizer.build(model.trainable_variables)
    for step in range(4):
        if step == 2:
            write_state(tmp_path / "half.npz", captured(straight))
        straight.train_on_batch(*batch(step))
    restore_state(tmp_path / "half.npz", resumed)
    for step in (2, 3):
        resumed.train_on_batch(*batch(step))
    write_state(tmp_path / "straight.npz", captured(straight))
    write_state(tmp_path / "resumed.npz", captured(resumed))
    tiny_runs.assert_same_bits(tmp_path / "resumed.npz", tmp_path / "straight.npz")
    held = tiny_runs.arrays(tmp_path / "half.npz").keys()
    assert {"model/queue/keys", "model/key_dense/kernel", "model/key_bn/moving_mean", "model/dense/kernel"} <= held


def test_a_saved_model_comes_back_with_queue_and_keys_encoder(tmp_path):
    model = with_batch_norm()
    model.train_on_batch(*batch(0))
    model.save(tmp_path / "moco.keras")
    again = keras.saving.load_model(tmp_path / "moco.keras")
    assert (again.queue_length, again.key_momentum, again.num_classes) == (13, MOMENTUM, 3)
    for ours, theirs in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert len(again.trainable_variables) == len(model.trainable_variables)


@pytest.mark.slow
def test_two_replicas_are_one(float64):
    results = []
    for devices in (["CPU:0"], ["CPU:0", "CPU:1"]):
        keras.utils.set_random_seed(3)
        reduction = tf.distribute.ReductionToOneDevice()
        with tf.distribute.MirroredStrategy(devices, cross_device_ops=reduction).scope():
            model = with_batch_norm(eager=False)
        assert model.key_encoder.layers[-1].synchronized == (len(devices) > 1)
        logs = [model.train_on_batch(*batch(step), return_dict=True) for step in range(3)]
        results.append((logs, {w.path: w.numpy() for w in model.weights}))
    (logs, weights), (logs_of_two, weights_of_two) = results
    for one, two in zip(logs, logs_of_two, strict=True):
        for name, value in one.items():
            np.testing.assert_allclose(two[name], value, rtol=1e-6, err_msg=name)
    for path, value in weights.items():
        np.testing.assert_allclose(weights_of_two[path], value, rtol=1e-9, atol=1e-12, err_msg=path)


@pytest.mark.slow
def test_a_run_of_a_resnet_loads_as_an_encoder(tmp_path):
    architecture = Architecture(18, cifar_stem=True, proj_head_mode="nonlinear", num_proj_layers=2)
    model = MoCo(build_encoder(architecture, Normalization()), projection_head(512, 2), queue_length=32)
    model.compile(optimizers.LARS(0.1), InfoNCE(0.2))
    views = rng.uniform(size=(4, 2, 32, 32, 3)).astype("float32")
    model.train_on_batch(views)
    run = RunFolder(tmp_path)
    run.begin({"command": "pretrain"}, architecture)
    write_state(run.checkpoint(1), captured(model))
    expected = model.network()(views[:, 0], training=False)["final_avg_pool"]
    np.testing.assert_array_equal(load_encoder(tmp_path)(views[:, 0], training=False), expected)


@pytest.mark.slow
def test_a_whole_run_by_its_option_stops_goes_on_and_loads(tmp_path):
    source = from_arrays(rng.integers(0, 256, (9, 40, 40, 3), np.uint8), np.arange(9) % 3)
    options = {"method": "moco", "queue_length": 30, "key_momentum": 0.9, "image_size": 40, "resnet_depth": 18}
    options |= {"num_proj_layers": 2, "train_batch_size": 4, "checkpoint_steps": 1, "knn_epochs": 0, "warmup_epochs": 1}
    results = []
    for name, stops in (("straight", ()), ("stopped", (Stop(3),))):
        config = Pretrain(model_dir=tmp_path / name, train_steps=4, **options)
        with pytest.MonkeyPatch.context() as patch:
            for stop in stops:
                patch.setattr(training.loop, "Stop", lambda *_, stop=stop, **__: stop)
                with pytest.raises(KeyboardInterrupt):
                    pretrain.pretrain(config, source)
        results.append(pretrain.pretrain(config, source))
    straight, stopped = (RunFolder(tmp_path / name) for name in ("straight", "stopped"))
    tiny_runs.assert_same_bits(stopped.checkpoint(4), straight.checkpoint(4))
    assert {"contrast_loss", "contrast_acc", "supervised_acc"} <= results[0].keys()
    assert load_model(straight.path).output["logits_sup"].shape == (None, 3)


@pytest.mark.parametrize("other", [{"loss": "dcl"}, {"hidden_norm": False}])
def test_options_that_mean_nothing_to_moco_are_refused(other):
    with pytest.raises(InputError, match="must be left out with --method moco"):
        Pretrain(method="moco", **other)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Queue(0, 3), "queue_length must be at least 1. Received: queue_length=0"),
        (lambda: MoCo(linear().encoder, linear().projection, key_momentum=1.0), "key_momentum must lie in [0, 1)"),
        (lambda: MoCo(linear().encoder, linear().projection, microbatch_size=2), "microbatch_size must be 0 with MoCo"),
        (lambda: InfoNCE(0.0), "temperature must be above 0"),
    ],
)
def test_bad_values_are_refused_in_one_sentence(make, message):
    with pytest.raises(InputError, match=re.escape(message)):
        make()


def test_another_loss_is_refused():
    model = linear()
    model.compile("sgd", NTXent(0.5))
    with pytest.raises(InputError, match=re.escape("loss must be InfoNCE(temperature) with MoCo")):
        model.train_on_batch(np.zeros((4, 2, 2, 2, 3), "float32"))
