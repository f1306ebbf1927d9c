"""The losses beside NT-Xent: equal to loops over their formulas, and the same on several replicas."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import oracles as nt_xent_oracle
from tests.losses import oracles
from tests.losses.on_replicas import gradient_alone, gradients_on_replicas
from tf_simclr import losses
from tf_simclr.errors import InputError
from tf_simclr.losses import decoupled

rng = np.random.default_rng(0)
SHAPES = [(1, 3), (2, 2), (5, 4), (9, 16)]  # from d = 2 on: in one dimension all cosines are ties
LABELS = np.array([0, 1, 0, 2, 1, 0, 0, 3, 1])


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("hidden_norm", [True, False])
@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_each_loss_is_its_formula_summed_over_both_directions(n, d, hidden_norm):
    z1, z2 = rng.normal(size=(2, n, d))
    z2 += z1 * (np.arange(n) % 2)[:, None]  # good pairs and bad ones
    norm = {"hidden_norm": hidden_norm}
    for semi_hard in (False, True):
        options = {"semi_hard": semi_hard} | norm
        close(losses.nt_logistic(z1, z2, 0.5, **options), oracles.nt_logistic(z1, z2, 0.5, **options))
        for margin in (0, 0.8):
            close(losses.margin_triplet(z1, z2, margin, **options), oracles.margin_triplet(z1, z2, margin, **options))
    close(losses.hadsell(z1, z2, 1.3, **norm), oracles.hadsell(z1, z2, 1.3, **norm))
    close(losses.sup_con(z1, z2, LABELS[:n], 0.5, **norm), oracles.sup_con(z1, z2, LABELS[:n], 0.5, **norm))
    generalized = losses.generalized_contrastive(z1, z2, 0.5, weight=0.3, **norm)
    close(generalized, oracles.decoupled_nt_xent(z1, z2, 0.5, 0.3, **norm))
    for sigma in (None, 0.5) if n > 1 else ():  # without other examples there is nothing to be decoupled from
        close(losses.dcl(z1, z2, 0.5, sigma=sigma, **norm), oracles.dcl(z1, z2, 0.5, sigma, **norm))


def test_semi_hard_losses_look_at_one_negative_at_most():
    z1 = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    z2 = np.array([[0.6, 0.8], [0.0, 1.0], [1.0, 0.0]])  # second views 1 and 2 are farther and closer than 0's own
    ours = losses.margin_triplet(z1, z2, 1.0, semi_hard=True).numpy()
    assert ours[0] == pytest.approx((0.0 - 0.6 + 1) + (0.0 - 0.6 + 1) * 0 + max(-0.6 - 0.6 + 1, 0))
    nearest_only = losses.nt_logistic(z1, z2, 1.0, semi_hard=True).numpy()
    terms = [np.log1p(np.exp(x)) for x in (-0.6, 0.0, -0.6, -0.6)]
    assert nearest_only[0] == pytest.approx(sum(terms))


def test_supervised_contrast_of_unequal_labels_is_nt_xent():
    z1, z2 = rng.normal(size=(2, 6, 4))
    close(losses.sup_con(z1, z2, np.arange(6), 0.3), nt_xent_oracle.nt_xent(z1, z2, 0.3))


def test_the_weight_of_pairs_gets_no_gradient():
    """With it the gradient would be another one: `w` is near 0 for the best of many pairs, and its slope is not."""
    z = tf.constant(rng.normal(size=(2, 4, 3)))
    with tf.GradientTape() as tape:
        tape.watch(z)
        weight = decoupled.mises_fisher_weights(tf.reduce_sum(z[0] * z[1], axis=1), 0.5)
    assert tape.gradient(weight, z) is None


@pytest.mark.parametrize("prior", ["normal", "uniform"])
@pytest.mark.parametrize("hidden_norm", [True, False])
def test_wasserstein_losses_are_alignment_and_distance_from_what_was_drawn(prior, hidden_norm):
    z1, z2 = rng.normal(size=(2, 6, 4))
    ours = losses.generalized_contrastive(z1, z2, weight=0.7, prior=prior, hidden_norm=hidden_norm, seed=3)
    views = oracles.views(z1, z2, hidden_norm)
    every = views.reshape(-1, 4)
    points, directions = (x.numpy() for x in decoupled.draw(every, prior, hidden_norm=hidden_norm, seed=3))
    close(directions @ directions.T, np.eye(4))
    if hidden_norm:
        close(np.linalg.norm(points, axis=1), 1)
    elif prior == "uniform":
        assert abs(points).max() <= 1
        assert points.min() < -0.5
    distance = oracles.sliced_wasserstein(every, points, directions)
    close(ours, ((views[0] - views[1]) ** 2).mean(axis=1) + 2 * 0.7 * distance)


def test_points_of_a_prior_are_drawn_anew_without_a_seed():
    z1, z2 = rng.normal(size=(2, 6, 4))
    first, again = (losses.generalized_contrastive(z1, z2, prior="normal").numpy() for _ in range(2))
    assert (first != again).all()


OF_PAIRS = {
    "nt_logistic": lambda z1, z2, labels: losses.nt_logistic(z1, z2, 0.3),
    "nt_logistic, semi-hard": lambda z1, z2, labels: losses.nt_logistic(z1, z2, 0.3, semi_hard=True),
    "margin_triplet": lambda z1, z2, labels: losses.margin_triplet(z1, z2, 0.8),
    "margin_triplet, semi-hard": lambda z1, z2, labels: losses.margin_triplet(z1, z2, 0.8, semi_hard=True),
    "hadsell": lambda z1, z2, labels: losses.hadsell(z1, z2, 1.5),
    "dcl": lambda z1, z2, labels: losses.dcl(z1, z2, 0.3),
    "dclw": lambda z1, z2, labels: losses.dcl(z1, z2, 0.3, sigma=0.5),
    "sup_con": losses.sup_con,
    "generalized": lambda z1, z2, labels: losses.generalized_contrastive(z1, z2, 0.3),
    "wasserstein": lambda z1, z2, labels: losses.generalized_contrastive(z1, z2, prior="normal", seed=3),
    "hypercube": lambda z1, z2, labels: losses.generalized_contrastive(
        z1, z2, prior="uniform", hidden_norm=False, seed=3
    ),
}


EXCHANGED = ("hadsell", "dclw", "sup_con")  # projections, and then what else replicas exchange


@pytest.mark.parametrize("names", [EXCHANGED, pytest.param(tuple(OF_PAIRS), marks=pytest.mark.slow)], ids=["", "all"])
def test_two_replicas_have_the_losses_and_gradients_of_one(names):
    z, labels = rng.normal(size=(8, 2, 5)), LABELS[:8]
    for name, (loss, gradient) in gradients_on_replicas({n: OF_PAIRS[n] for n in names}, z, labels).items():
        expected = gradient_alone(OF_PAIRS[name], z, labels)
        np.testing.assert_allclose(loss, expected[0], rtol=1e-10, atol=1e-12, err_msg=name)
        np.testing.assert_allclose(gradient, expected[1], rtol=1e-9, atol=1e-12, err_msg=name)
        assert abs(gradient).max() > 1e-3


@pytest.mark.parametrize("name", OF_PAIRS)
def test_equal_projections_have_finite_gradients(name):
    z = np.ones((4, 2, 3), np.float32)
    assert np.isfinite(gradient_alone(OF_PAIRS[name], z, np.zeros(4, np.int32))[1]).all()


LOSSES = [
    losses.NTXent(0.3, hidden_norm=False, block_size=2),
    losses.NTLogistic(0.3, semi_hard=True),
    losses.MarginTriplet(0.8, semi_hard=True, hidden_norm=False),
    losses.Hadsell(1.5, hidden_norm=False),
    losses.DCL(0.3, sigma=0.5),
    losses.SupCon(0.3),
    losses.GeneralizedContrastive(0.3, weight=0.5, prior="uniform", hidden_norm=False, seed=1),
]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_a_saved_loss_comes_back_with_its_options(loss):
    z1, z2 = rng.normal(size=(2, 4, 8)).astype("float32")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert again.get_config() == loss.get_config()
    inputs = (LABELS[:4], (z1, z2)) if loss.needs_labels else (z1, z2)
    labels = {"labels": LABELS[:4]} if loss.needs_labels else {}
    expected = loss.function(z1, z2, **labels, **loss.options)
    np.testing.assert_allclose(again(*inputs), np.mean(expected), rtol=1e-6)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: losses.NTLogistic(0), "temperature must be above 0. Received: temperature=0"),
        (lambda: losses.MarginTriplet(-0.1), "margin must be at least 0"),
        (lambda: losses.Hadsell(0), "margin must be above 0"),
        (lambda: losses.DCL(sigma=0), "sigma must be None or above 0"),
        (lambda: losses.SupCon(-1), "temperature must be above 0"),
        (lambda: losses.GeneralizedContrastive(weight=-1), "weight must be at least 0"),
        (lambda: losses.GeneralizedContrastive(prior="gauss"), "prior must be one of logsumexp, normal, uniform"),
        (lambda: losses.NTXent(block_size=0), "block_size must be None or at least 1"),
        (lambda: losses.sup_con(np.eye(2), np.eye(2), np.eye(2)), r"labels must have the shape \(n,\)"),
    ],
)
def test_options_that_cannot_be_used_are_refused(build, message):
    with pytest.raises(InputError, match=message):
        build()
