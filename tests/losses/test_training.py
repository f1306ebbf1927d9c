"""Any of the losses trains a `SimCLR`."""

import re

import keras
import numpy as np
import pytest

from tests.losses import oracles
from tf_simclr import losses
from tf_simclr.errors import InputError
from tf_simclr.models.resnet import projection_head
from tf_simclr.models.simclr import SimCLR

VIEWS = np.random.default_rng(0).uniform(size=(4, 2, 4, 4, 3)).astype("float32")
LABELS = np.array([0, 1, 0, 2])


def small(loss, **options):
    encoder = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(6)], name="encoder")
    model = SimCLR(encoder, projection_head(6, 1, proj_out_dim=4), **options)
    model.compile(keras.optimizers.SGD(0.1), loss)
    return model


class Aligned(keras.losses.Loss):
    """A loss of someone else: it knows neither temperature nor normalisation."""

    def call(self, y_true, y_pred):
        return keras.ops.sum(keras.ops.square(y_true - y_pred), axis=1)


class Unnamed(losses.ContrastiveLoss):
    """A loss of one's own around a function without a name that TensorFlow takes for a scope."""

    def __init__(self, function):
        super().__init__(function, {})


def _distance(one, other):
    return keras.ops.sum(keras.ops.square(one - other), axis=1)


@pytest.mark.parametrize("function", [_distance, lambda one, other: _distance(one, other)], ids=["private", "lambda"])
def test_a_loss_of_ones_own_needs_no_name(function):
    logs = small(Unnamed(function)).fit(VIEWS, verbose=0).history
    assert np.isfinite(logs["contrast_loss"][0])


@pytest.mark.parametrize(
    "loss",
    [
        losses.NTLogistic(),
        losses.MarginTriplet(),
        losses.Hadsell(),
        losses.DCL(sigma=0.5),
        losses.GeneralizedContrastive(),
        losses.GeneralizedContrastive(prior="normal", name="wasserstein"),
        Aligned(name="aligned"),
    ],
    ids=lambda loss: loss.name,
)
def test_a_step_with_each_loss_changes_every_weight_and_logs_finite_numbers(loss):
    model = small(loss)
    before = [w.numpy() for w in model.trainable_variables]
    logs = model.train_on_batch(VIEWS, return_dict=True)
    assert np.isfinite(list(logs.values())).all()
    kernels = [not np.array_equal(a, b) for a, b in zip(before, model.trainable_variables, strict=True)]
    assert sum(kernels) >= 2


def test_labels_reach_a_loss_that_needs_them_beside_the_probe():
    model = small(losses.SupCon(0.5), num_classes=3)
    z = model(VIEWS, training=True)["projections"].numpy()
    logs = model.train_on_batch(VIEWS, LABELS, return_dict=True)
    expected = oracles.sup_con(z[:, 0], z[:, 1], LABELS, 0.5).mean()
    np.testing.assert_allclose(logs["contrast_loss"], expected, rtol=1e-5)
    assert logs["supervised_loss"] > 0


def test_a_loss_that_needs_labels_refuses_to_go_without():
    with pytest.raises(InputError, match=re.escape("this loss needs labels: give batches of (views, labels)")):
        small(losses.SupCon()).train_on_batch(VIEWS)


def test_a_model_comes_back_with_its_loss(tmp_path):
    model = small(losses.DCL(0.2, sigma=0.5))
    model.train_on_batch(VIEWS)
    model.save(tmp_path / "simclr.keras")
    again = keras.saving.load_model(tmp_path / "simclr.keras")
    assert again.contrastive_loss.get_config() == model.contrastive_loss.get_config()
    assert again.contrastive_loss.options["sigma"] == 0.5
