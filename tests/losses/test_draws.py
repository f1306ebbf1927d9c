"""`generalized` draws from its prior anew in each step, the same points in the same step, however the step is run."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from tf_simclr import SimCLR
from tf_simclr.losses import GeneralizedContrastive, generalized_contrastive
from tf_simclr.run_folder import captured, restore_state, write_state

VIEWS = np.random.default_rng(0).uniform(size=(16, 2, 4, 4, 3)).astype("float32")


def model(*, eager: bool = False, prior: str = "normal") -> SimCLR:
    keras.utils.set_random_seed(2)
    encoder = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(8, name="features")])
    made = SimCLR(encoder, keras.layers.Dense(8, name="z"))
    made.compile(keras.optimizers.SGD(0.01, name="sgd"), GeneralizedContrastive(prior=prior, seed=5), run_eagerly=eager)
    return made


def test_another_step_is_another_draw_and_the_same_step_the_same():
    z = np.random.default_rng(1).normal(size=(2, 16, 8)).astype("float32")
    drawn = [float(generalized_contrastive(*z, prior="normal", seed=5, step=step)[0]) for step in (0, 0, 1, 2)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 3
    loss = GeneralizedContrastive(prior="normal", seed=5)
    assert float(loss(*z)) == float(loss.at(0)(*z)) != float(loss.at(1)(*z))
    assert "step" not in loss.get_config()


@pytest.mark.parametrize("eager", [False, True])
def test_a_resumed_training_draws_what_a_straight_one_does(tmp_path, eager):
    straight = model(eager=eager)
    for _ in range(2):
        straight.train_on_batch(VIEWS)
    write_state(tmp_path / "step.npz", captured(straight))
    resumed = model(eager=eager)
    resumed.optimizer.build(resumed.trainable_variables)
    restore_state(tmp_path / "step.npz", resumed)
    for one in (straight, resumed):
        one.reset_metrics()
    logs = [one.train_on_batch(VIEWS, return_dict=True) for one in (straight, resumed)]
    assert logs[0] == logs[1]
    for a, b in zip(straight.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def losses_of(made, steps: int = 3) -> list[float]:
    """Of steps that change nothing, so that only what is drawn differs."""
    made.optimizer.learning_rate = 0.0
    found = []
    for _ in range(steps):
        made.reset_metrics()
        found.append(float(made.train_on_batch(VIEWS, return_dict=True)["contrast_loss"]))
    return found


def test_graph_and_eager_draw_the_same():
    graph, eager = losses_of(model()), losses_of(model(eager=True))
    np.testing.assert_allclose(graph, eager, rtol=1e-6)
    assert len(set(graph)) == 3


@pytest.mark.slow
def test_jax_draws_anew_in_each_step():
    pytest.importorskip("jax")
    code = "from tests.losses.test_draws import *; print(*losses_of(model()))"
    root = Path(__file__).parents[2]
    environment = os.environ | {"KERAS_BACKEND": "jax", "PYTHONPATH": str(root), "TF_CPP_MIN_LOG_LEVEL": "3"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, cwd=root, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    assert len(set(run.stdout.split())) == 3
