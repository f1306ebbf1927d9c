"""The public losses in float16 and bfloat16: numbers, and float32's but for what the projections were rounded by."""

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from tf_simclr import losses
from tf_simclr.models.distillation import distillation_loss

LABELS = np.array([0, 1, 2, 0, 1, 2])
CALLS = {
    "nt_xent": lambda a, b: losses.nt_xent(a, b, 0.01),
    "nt_xent in blocks": lambda a, b: losses.nt_xent(a, b, 0.01, block_size=2),
    "nt_xent as it is": lambda a, b: losses.nt_xent(a, b, 1.0, hidden_norm=False),
    "nt_logistic": lambda a, b: losses.nt_logistic(a, b, 0.01),
    "nt_logistic, semi-hard": lambda a, b: losses.nt_logistic(a, b, 0.01, semi_hard=True),
    "margin_triplet": losses.margin_triplet,
    "margin_triplet, semi-hard": lambda a, b: losses.margin_triplet(a, b, semi_hard=True),
    "hadsell": losses.hadsell,
    "hadsell as it is": lambda a, b: losses.hadsell(a, b, 50.0, hidden_norm=False),
    "dcl": lambda a, b: losses.dcl(a, b, 0.01),
    "dclw": lambda a, b: losses.dcl(a, b, 0.01, sigma=0.05),
    "sup_con": lambda a, b: losses.sup_con(a, b, LABELS, 0.01),
    "generalized": losses.generalized_contrastive,
    "generalized, normal": lambda a, b: losses.generalized_contrastive(a, b, prior="normal", seed=1),
    "generalized, uniform": lambda a, b: losses.generalized_contrastive(a, b, prior="uniform", seed=1),
    "info_nce": lambda a, b: losses.info_nce(a, b, losses.normalize(tf.cast(a[::-1], tf.float32)), 0.01),
    "contrastive_metrics": lambda a, b: losses.contrastive_metrics(a, b, 0.01)[1],
    "contrastive_entropy": lambda a, b: losses.contrastive_entropy(a),
    "distillation_loss": lambda a, b: distillation_loss(a, b, temperature=0.5),
    "normalize": lambda a, b: losses.normalize(a),
}


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("length", [1e-4, 1.0, 30.0])
def test_a_loss_in_half_precision_is_that_of_float32(name, kind, length):
    """Lengths whose squares float16 does not have, below and above."""
    rng = np.random.default_rng(0)
    z = (rng.normal(size=(2, 6, 16)) * length * np.array([1.0, 3.0, 0.1, 1, 1, 1])[:, None]).astype(kind)
    found = np.asarray(CALLS[name](*map(tf.constant, z)), np.float32)
    expected = np.asarray(CALLS[name](*map(tf.constant, z.astype(np.float32))))
    assert np.isfinite(found).all()
    precision = 1e-2 if name == "normalize" and kind is not np.float16 else 1e-3 if name == "normalize" else 1e-5
    np.testing.assert_allclose(found, expected, rtol=precision, atol=precision)


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
def test_a_row_of_zeros_stays_zero_in_half_precision(kind):
    """Its least length, 1e-6, squared is nothing in float16, and 1 over it infinite."""
    np.testing.assert_array_equal(losses.normalize(tf.zeros((2, 3), kind)), np.zeros((2, 3)))
    assert losses.normalize(tf.zeros((2, 3), kind)).dtype == kind


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
def test_gradients_in_half_precision_are_numbers(kind):
    rng = np.random.default_rng(0)
    a, b = (tf.constant(z) for z in (rng.normal(size=(2, 6, 16)) * 100).astype(kind))
    with tf.GradientTape() as tape:
        tape.watch([a, b])
        loss = tf.reduce_sum(losses.nt_xent(a, b, 0.05))
    assert all(np.isfinite(np.asarray(g, np.float32)).all() for g in tape.gradient(loss, [a, b]))
