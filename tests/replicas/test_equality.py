"""N replicas with a part of the batch each do what one does with all of it.

In float64, where nothing but the order of sums differs: loss, every metric, every gradient (the momentum optimizer's
accumulators after one step), weights, BatchNorm's moving statistics and optimizer slots after five steps.
"""

import numpy as np
import pytest
import tensorflow as tf

from tests.replicas import tiny
from tf_simclr import losses, replicas
from tf_simclr.losses import similarity

EQUAL = 1e-9
"""Of the largest magnitude; five steps with momentum multiply rounding, 1e-16, by some thousands."""
CASES = [(count, at_once, name) for name in ("lars", "momentum") for count in (1, 2, 4) for at_once in (1, 4)]
QUICK = [(2, 4, "momentum")]


@pytest.fixture(scope="module")
def alone():
    """What one device without a strategy does, by optimizer; once a module."""
    known = {}

    def of(name: str):
        if name not in known:
            known[name] = tiny.trained(replicas.ONE_DEVICE, optimizer=name)
        return known[name]

    return of


@pytest.mark.parametrize(
    ("count", "at_once", "name"),
    [case if case in QUICK else pytest.param(*case, marks=pytest.mark.slow) for case in CASES],
)
def test_replicas_equal_one_device_with_the_global_batch(float64, alone, count, at_once, name):
    devices = replicas.find("mirrored", num_replicas=count)
    assert devices.count == count
    worst = tiny.differences(tiny.trained(devices, optimizer=name, at_once=at_once), alone(name))
    assert worst.keys() == {f"{step}/{kind}" for step in (1, 5) for kind in ("model", "optimizer", "metrics", "logs")}
    assert max(worst.values()) < EQUAL, worst


@pytest.mark.slow
def test_a_gather_without_gradients_is_noticed_though_the_loss_stays(float64, alone, monkeypatch):
    gather = replicas.gather

    def without_gradients(x):
        return tf.stop_gradient(gather(x))

    monkeypatch.setattr(similarity.replicas, "gather", without_gradients)
    devices = replicas.find("mirrored", num_replicas=2)
    found = tiny.trained(devices, optimizer="momentum")
    monkeypatch.undo()
    worst = tiny.differences(found, alone("momentum"))
    assert worst["1/logs"] < EQUAL
    assert worst["1/optimizer"] > 0.01


@pytest.mark.slow
def test_local_batch_norm_is_noticed(float64, alone, monkeypatch):
    monkeypatch.setattr("tf_simclr.models.normalization.replicas.synchronize", lambda: False)
    worst = tiny.differences(tiny.trained(replicas.find("mirrored", num_replicas=2)), alone("lars"))
    assert worst["1/logs"] > 1e-3


@pytest.mark.slow
def test_a_batch_given_by_hand_is_divided_among_the_replicas(float64):
    views, labels = (part.numpy() for part in next(iter(tiny.stream(0))))
    devices = replicas.find("mirrored", num_replicas=2)
    logs = tiny.model(devices).train_on_batch(views, labels, return_dict=True)
    z = tiny.model(replicas.ONE_DEVICE)(views, training=True)["projections"].numpy()
    expected = losses.nt_xent(z[:, 0], z[:, 1], 0.5).numpy().mean()
    np.testing.assert_allclose(logs["contrast_loss"], expected, rtol=1e-9)
