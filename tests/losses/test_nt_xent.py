import itertools
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from tests import golden, oracles
from tf_simclr import losses
from tf_simclr.errors import InputError

rng = np.random.default_rng(0)


def pair(n, d):
    """The goldens' projections: both views, correlated (goldens' README, `loss/`)."""
    rs = np.random.RandomState(100 + n + d)
    h = rs.standard_normal((2 * n, d))
    h[n:] += 0.35 * h[:n]
    return h.astype(np.float32)


def loss_and_gradient(h, temperature, hidden_norm):
    h = tf.constant(h)
    with tf.GradientTape() as tape:
        tape.watch(h)
        n = h.shape[0] // 2
        loss = ops.mean(losses.nt_xent(h[:n], h[n:], temperature, hidden_norm=hidden_norm))
    return loss.numpy(), tape.gradient(loss, h).numpy()


@pytest.mark.parametrize(("n", "d", "temperature"), [*itertools.product((1, 2, 5), (1, 3, 16), (0.05, 0.5, 1.0))])
@pytest.mark.parametrize("hidden_norm", [True, False])
def test_nt_xent_is_equation_1_summed_over_both_directions(n, d, temperature, hidden_norm):
    z1, z2 = rng.normal(size=(2, n, d))
    expected = oracles.nt_xent(z1, z2, temperature, hidden_norm)
    np.testing.assert_allclose(
        losses.nt_xent(z1, z2, temperature, hidden_norm=hidden_norm), expected, rtol=1e-9, atol=1e-9
    )


def test_nt_xent_of_orthogonal_pairs_is_known_in_closed_form():
    n, temperature = 8, 0.5
    z = np.eye(n)
    expected = 2 * np.log(1 + (2 * n - 2) * np.exp(-1 / temperature))
    np.testing.assert_allclose(losses.nt_xent(z, z, temperature), np.full(n, expected), rtol=1e-12)


GOLDEN_CASE = re.compile(r"(?:zero_row_)?N(\d+)_d(\d+)_T([\d.]+)_norm(\d)")


def golden_cases():
    return sorted({key.rsplit("/", 1)[0] for key in golden.arrays("loss/single.npz") if "supervised" not in key})


def test_loss_gradient_and_metrics_equal_the_reference():
    stored = golden.arrays("loss/single.npz")
    cases = golden_cases()
    assert len(cases) >= 9
    for case in cases:
        n, d, temperature, norm = (float(x) for x in GOLDEN_CASE.fullmatch(case).groups())
        h = pair(int(n), int(d))
        if case.startswith("zero_row"):
            h[2] = 0
        loss, gradient = loss_and_gradient(h, temperature, bool(norm))
        np.testing.assert_allclose(loss, stored[f"{case}/loss"], rtol=1e-5, err_msg=case)
        expected = stored[f"{case}/grad"]
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-6 + 5e-5 * abs(expected).max(), err_msg=case)
        ab, *_, targets = losses.contrastive_logits(*np.split(h, 2), temperature, hidden_norm=bool(norm))
        if case.startswith("zero_row"):
            continue  # stored without metrics
        assert ops.mean(losses.contrastive_accuracy(ab, targets)) == stored[f"{case}/acc"]
        np.testing.assert_allclose(
            ops.mean(losses.contrastive_entropy(ab)), stored[f"{case}/entropy"], rtol=1e-5, atol=1e-7
        )


def test_the_keras_loss_is_the_mean_and_survives_serialisation():
    z1, z2 = rng.normal(size=(2, 4, 8)).astype("float32")
    loss = losses.NTXent(0.3, hidden_norm=False)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    expected = oracles.nt_xent(z1, z2, 0.3, hidden_norm=False).mean()
    np.testing.assert_allclose(loss(z1, z2), expected, rtol=1e-5)
    np.testing.assert_allclose(again(z1, z2), expected, rtol=1e-5)


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(InputError, match=r"temperature must be above 0. Received: temperature=0"):
        losses.nt_xent(np.ones((2, 2)), np.ones((2, 2)), 0)
    with pytest.raises(InputError, match="temperature"):
        losses.NTXent(-1.0)


def on_replicas(strategy, parts, temperature, hidden_norm):
    """Each replica's loss and the gradient of all replicas' mean loss with respect to its own rows."""

    def step(part):
        with tf.GradientTape() as tape:
            tape.watch(part)
            z1, z2 = tf.split(part, 2)
            loss = tf.reduce_mean(losses.nt_xent(z1, z2, temperature, hidden_norm=hidden_norm))
            share = loss / len(parts)
        # The gather's adjoint adds up what every replica's loss owes to this replica's rows.
        return loss, tape.gradient(share, part)

    values = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(parts[context.replica_id_in_sync_group])
    )
    results = tf.function(lambda: strategy.run(step, args=(values,)))()
    return [np.stack(strategy.experimental_local_results(result)) for result in results]


@pytest.mark.parametrize("replicas", [2, 4])
def test_replicas_share_negatives_and_gradients_as_the_reference_does(replicas):
    stored = golden.arrays(f"loss/replicas{replicas}.npz")
    cases = sorted({key.rsplit("/", 1)[0] for key in stored})
    assert cases
    strategy = tf.distribute.MirroredStrategy(
        [f"CPU:{i}" for i in range(replicas)], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )
    for case in cases:
        n, d, temperature, norm = re.fullmatch(r"R\d+_N(\d+)_d(\d+)_T([\d.]+)_norm(\d)", case).groups()
        views = pair(int(n), int(d)).reshape(2, replicas, -1, int(d))
        parts = views.swapaxes(0, 1).reshape(replicas, -1, int(d))
        loss, gradient = on_replicas(strategy, parts, float(temperature), norm == "1")
        np.testing.assert_allclose(loss, stored[f"{case}/losses"], rtol=1e-5)
        np.testing.assert_allclose(loss.mean(), stored[f"{case}/global_loss"], rtol=1e-5)
        expected = stored[f"{case}/grads"]
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-6 + 5e-5 * abs(expected).max(), err_msg=case)
