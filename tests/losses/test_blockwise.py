"""NT-Xent in blocks is NT-Xent: value and gradient, eager, in a graph, under XLA, and on replicas."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import oracles
from tests.losses.on_replicas import gradient_alone, gradients_on_replicas
from tf_simclr import losses
from tf_simclr.losses import blockwise
from tf_simclr.models.resnet import projection_head
from tf_simclr.models.simclr import SimCLR

rng = np.random.default_rng(0)
CASES = [(1, 3, 0.5, True), (2, 3, 0.1, True), (5, 8, 0.5, False), (7, 16, 0.05, True)]
LIMIT = {"float32": 1e-5, "float64": 1e-10}


def value_and_gradient(z, weights, temperature, hidden_norm, block_size):
    with tf.GradientTape() as tape:
        tape.watch(z)
        options = {"hidden_norm": hidden_norm, "block_size": block_size}
        loss = losses.nt_xent(z[0], z[1], temperature, **options)
        total = tf.reduce_sum(loss * weights)
    return loss, tape.gradient(total, z)


def worst(ours, theirs):
    """Largest difference, relative to the largest value."""
    return max(np.abs(a - b).max() / max(np.abs(b).max(), 1e-3) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_any_block_size_gives_the_plain_loss_and_gradient(case, dtype):
    n, d, temperature, hidden_norm = case
    z, weights = tf.constant(rng.normal(size=(2, n, d)), dtype), tf.constant(rng.uniform(size=n), dtype)
    plain = value_and_gradient(z, weights, temperature, hidden_norm, None)
    expected = oracles.nt_xent(*z.numpy().astype(np.float64), temperature, hidden_norm)
    np.testing.assert_allclose(plain[0], expected, rtol=1e-4, atol=1e-5)
    for block_size in (1, 2, 3, n, 100):
        ours = value_and_gradient(z, weights, temperature, hidden_norm, block_size)
        assert worst([x.numpy() for x in ours], [x.numpy() for x in plain]) < LIMIT[dtype]


@pytest.mark.parametrize("how", ["graph", "unknown size", "XLA"])
def test_a_compiled_function_gives_the_plain_loss_and_gradient(how):
    z, weights = tf.constant(rng.normal(size=(2, 7, 4)), "float32"), tf.constant(rng.uniform(size=7), "float32")
    unknown = [tf.TensorSpec((2, None, 4)), tf.TensorSpec((None,))]
    options = {"graph": {}, "unknown size": {"input_signature": unknown}, "XLA": {"jit_compile": True}}[how]
    plain = value_and_gradient(z, weights, 0.3, True, None)
    for block_size in (3, None):
        compiled = tf.function(lambda z, w, size=block_size: value_and_gradient(z, w, 0.3, True, size), **options)
        assert worst([x.numpy() for x in compiled(z, weights)], [x.numpy() for x in plain]) < 1e-5


def test_the_whole_of_a_large_batch_and_blocks_of_it_agree():
    """The size at which blocks are chosen: both ways there, in float32."""
    n = 1024
    assert blockwise.choose(n - 1, None) is None
    assert blockwise.choose(n, None) == blockwise.BLOCK
    z, weights = tf.constant(rng.normal(size=(2, n, 16)), "float32"), tf.ones(n) / n
    chosen, plain = (value_and_gradient(z, weights, 0.1, True, size) for size in (None, 10**6))
    assert worst([x.numpy() for x in chosen], [x.numpy() for x in plain]) < 1e-5


@pytest.mark.parametrize("replicas", [2, 4])
def test_replicas_have_the_losses_and_gradients_of_one(replicas):
    z, labels = rng.normal(size=(8, 2, 5)), np.arange(8)

    def loss(z1, z2, labels, block_size=3):
        weights = tf.cast(labels, z1.dtype) / 4 + 1  # unlike upstream gradients, which replicas have to exchange
        return losses.nt_xent(z1, z2, 0.3, block_size=block_size) * weights

    plain = gradient_alone(lambda *args: loss(*args, block_size=None), z, labels)
    spread = gradients_on_replicas({"blocks": loss}, z, labels, replicas)["blocks"]
    for found in (gradient_alone(loss, z, labels), spread):
        assert worst(found, plain) < 1e-10


@pytest.mark.parametrize("hidden_norm", [True, False])
def test_metrics_in_blocks_are_those_of_all_similarities(hidden_norm):
    z1, z2 = rng.normal(size=(2, 9, 4))
    z2 += z1
    ab, *_, targets = losses.contrastive_logits(z1, z2, 0.5, hidden_norm=hidden_norm)
    expected = losses.contrastive_accuracy(ab, targets), losses.contrastive_entropy(ab)
    assert 0 < np.mean(expected[0]) < 1
    for block_size in (1, 4, 9, 50, None):
        ours = losses.contrastive_metrics(z1, z2, 0.5, hidden_norm=hidden_norm, block_size=block_size)
        np.testing.assert_array_equal(ours[0], expected[0])
        np.testing.assert_allclose(ours[1], expected[1], rtol=1e-12)


PEAK = """
import sys
import tensorflow as tf
from tf_simclr import losses

def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1024

@tf.function
def gradient(z):
    with tf.GradientTape() as tape:
        tape.watch(z)
        loss = tf.reduce_mean(losses.nt_xent(z[0], z[1], block_size=int(sys.argv[2]) or 10**9))
    return tape.gradient(loss, z)

gradient(tf.random.normal((2, 64, 128)))  # loads what any run loads
z = tf.random.normal((2, int(sys.argv[1]), 128))
open("/proc/self/clear_refs", "w").write("5")
before = peak()
gradient(z)
sys.stdout.write(str(peak() - before))
"""


def peak_memory(n, block_size):
    """MB that the loss and its gradient add to a fresh process."""
    command = [sys.executable, "-c", PEAK, str(n), str(block_size)]
    root = Path(__file__).parents[2]
    return float(subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells a process its peak memory")
def test_memory_grows_with_the_batch_and_not_with_its_square():
    one, four = (peak_memory(n, 256) for n in (2048, 8192))
    assert four < 5 * one
    assert four < 2 * 8192 * 2 * 8192 * 4 / 2**20 / 2  # half of one matrix of all similarities


def model(block_size):
    encoder = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(6)], name="encoder")
    encoder.set_weights([rng_of(1, (48, 6)), rng_of(2, (6,))])
    head = projection_head(6, 1, proj_out_dim=4)
    head.set_weights([rng_of(i, w.shape) ** 2 + 0.1 for i, w in enumerate(head.weights)])
    simclr = SimCLR(encoder, head)
    simclr.compile(keras.optimizers.SGD(0.1), losses.NTXent(0.5, block_size=block_size))
    return simclr


def rng_of(seed, shape):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.slow
def test_fit_on_two_replicas_in_blocks_ends_with_the_weights_of_one_without():
    views = np.random.default_rng(3).uniform(size=(8, 2, 4, 4, 3)).astype("float32")
    data = tf.data.Dataset.from_tensor_slices((views,)).batch(8, drop_remainder=True)
    one = model(None)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice())
    with strategy.scope():
        two = model(3)
    logs = [m.fit(data, epochs=2, shuffle=False, verbose=0).history for m in (one, two)]
    for name, values in logs[0].items():
        np.testing.assert_allclose(logs[1][name], values, rtol=1e-5, atol=1e-7, err_msg=name)
    for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-6)
