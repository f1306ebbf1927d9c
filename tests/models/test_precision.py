"""Training in bfloat16 and float16 beside float32: loss, gradient, trajectory, optimizer, resuming."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_simclr.errors import InputError
from tf_simclr.losses import NTXent
from tf_simclr.models.moco import MoCo
from tf_simclr.models.normalization import Normalization, precision
from tf_simclr.models.resnet import projection_head
from tf_simclr.models.simclr import SimCLR
from tf_simclr.optimizers import LARS, AdamW, Lamb, LossScale, WarmUpCosine
from tf_simclr.run_folder import captured, restore_state, state, write_state

rng = np.random.default_rng(0)
COLOURS = rng.uniform(size=(8, 1, 8, 8, 3))
VIEWS = (0.8 * COLOURS**2 + 0.2 * rng.uniform(size=(8, 2, 8, 8, 3))).astype("float32")
"""Pairs that differ more from each other than within: else BatchNorm divides by what bfloat16 rounds away."""
LABELS = np.arange(8) % 3
LOSS = {"bfloat16": 2e-2, "float16": 3e-3}
"""Relative to float32's; bfloat16 has 8 bits."""
COSINE = {"bfloat16": 0.99, "float16": 0.9995}
"""Of the whole gradient with float32's."""


def simclr(name: str, *, eager: bool = False, scale: float = 2.0**10) -> SimCLR:
    """A convolution, BatchNorm and heads, compiled with LARS, which computes in a precision."""
    keras.utils.set_random_seed(0)
    with precision(name):
        x = images = keras.Input((8, 8, 3))
        for i, stride in enumerate((1, 2)):
            x = keras.layers.Conv2D(8, 3, stride, use_bias=False, name=f"conv{i}")(x)
            x = keras.layers.ReLU()(Normalization().layer(f"bn{i}")(x))
        encoder = keras.Model(images, keras.layers.Flatten()(x), name="encoder")
        model = SimCLR(encoder, projection_head(32, 2, proj_out_dim=8), num_classes=3, weight_decay=1e-3)
    optimizer = LARS(WarmUpCosine(0.3, 20), weight_decay=1e-3)
    optimizer = LossScale(optimizer, initial_scale=scale) if name == "float16" else optimizer
    model.compile(optimizer, NTXent(0.5), run_eagerly=eager)
    model.optimizer.build(model.trainable_variables)
    return model


def gradient(model) -> tuple[float, np.ndarray]:
    """The loss, and its gradient as one vector."""
    with tf.GradientTape() as tape:
        outputs = model(VIEWS, training=True)
        loss = model.compute_loss(VIEWS, LABELS, outputs)
        scaled = model.optimizer.scale_loss(loss)
    found = tape.gradient(scaled, [v.value for v in model.trainable_variables])
    unscaled = float(scaled / loss)
    return float(loss), np.concatenate([(g.numpy() / unscaled).ravel() for g in found])


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_loss_and_gradient_are_those_of_float32(name):
    (loss, ours), (expected, theirs) = gradient(simclr(name)), gradient(simclr("float32"))
    assert abs(loss - expected) <= LOSS[name] * expected
    assert ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs) >= COSINE[name]
    assert 0.95 <= np.linalg.norm(ours) / np.linalg.norm(theirs) <= 1.05


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_ten_steps_follow_those_of_float32(name):
    losses = {}
    for kind in (name, "float32"):
        model = simclr(kind)
        losses[kind] = []
        for _ in range(10):
            model.reset_metrics()
            losses[kind].append(model.train_on_batch(VIEWS, LABELS, return_dict=True)["contrast_loss"])
    assert losses["float32"][-1] < losses["float32"][0] - 0.02  # it learns
    np.testing.assert_allclose(losses[name], losses["float32"], rtol=LOSS[name])


def test_weights_statistics_and_losses_stay_float32_and_features_do_not():
    model = simclr("bfloat16", eager=True)
    assert {v.dtype for v in model.variables if v.path.split("/")[0] != "seed_generator_state"} == {"float32"}
    outputs = model(VIEWS, training=True)
    assert outputs["projections"].dtype == "bfloat16"
    assert model.compute_loss(VIEWS, LABELS, outputs).dtype == "float32"


def test_projections_are_normalised_in_float32():
    """Normalised in bfloat16, lengths were off by up to 2⁻⁸ and so were the logits' diagonals."""
    model = simclr("bfloat16", eager=True)
    seen = []
    model.loss = NTXent(0.5)
    model.contrast = lambda z1, z2, labels=None: seen.extend([z1, z2]) or NTXent(0.5)(z1, z2)
    model.compute_loss(VIEWS, LABELS, model(VIEWS, training=True))
    assert {z.dtype for z in seen} == {tf.float32}


def test_what_lars_leaves_out_is_left_out_with_a_scaled_loss_too():
    scaled, plain = simclr("float16"), simclr("float32")
    assert scaled.optimizer.inner_optimizer.decayed == plain.optimizer.decayed
    assert scaled.optimizer.inner_optimizer.adapted == plain.optimizer.adapted
    assert 0 < sum(plain.optimizer.decayed) < len(plain.optimizer.decayed)
    np.testing.assert_allclose(scaled.l2_loss(), plain.l2_loss())


def test_a_step_that_overflows_changes_no_weight_but_counts():
    model = simclr("float16", eager=True, scale=2.0**40)
    before = [v.numpy() for v in model.trainable_variables]
    model.train_on_batch(VIEWS, LABELS)
    for a, b in zip(before, model.trainable_variables, strict=True):
        np.testing.assert_array_equal(a, b)
    assert int(model.optimizer.iterations.numpy()) == 1
    assert float(model.optimizer.dynamic_scale.numpy()) == 2.0**39


@pytest.mark.parametrize("name", ["float16", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_a_resumed_training_is_bit_equal(tmp_path, name):
    straight = simclr(name, eager=True)
    straight.train_on_batch(VIEWS, LABELS)
    write_state(tmp_path / "step.npz", captured(straight))
    resumed = simclr(name, eager=True)
    restore_state(tmp_path / "step.npz", resumed)
    for model in (straight, resumed):
        model.reset_metrics()
        model.train_on_batch(VIEWS, LABELS)
    theirs = state(straight)
    for key, variable in state(resumed).items():
        assert variable.numpy().tobytes() == theirs[key].numpy().tobytes(), key


def test_another_precision_is_refused():
    with pytest.raises(InputError, match="precision must be one of float32, bfloat16, float16"), precision("int8"):
        pass


def stepping(optimizer, weight, *, eager: bool):
    """A function that applies a gradient, as the backend's trainer does."""

    def step(gradient):
        optimizer.apply([gradient], [weight])

    def stateless(gradient):
        import jax

        apply = optimizer.stateless_apply if eager else jax.jit(optimizer.stateless_apply)
        [new], state = apply([v.value for v in optimizer.variables], [gradient], [weight.value])
        weight.assign(new)
        for variable, value in zip(optimizer.variables, state, strict=True):
            variable.assign(value)

    if keras.backend.backend() == "jax":
        return stateless
    return step if eager else tf.function(step)


@pytest.mark.parametrize("make", [keras.optimizers.Adam, AdamW, Lamb])
@pytest.mark.parametrize("eager", [False, True])
def test_steps_that_were_skipped_do_not_shrink_the_first_one_that_is_not(make, eager):
    """The bias of Adam's moments is corrected by the number of steps that went into them; the schedule has them all."""
    moved = []
    for skipped in (0, 5):
        schedule = keras.optimizers.schedules.PiecewiseConstantDecay([5], [0.5, 0.25])
        optimizer = LossScale(make(schedule), initial_scale=1.0)
        weight = keras.Variable(np.ones((2, 2), "float32"))
        optimizer.build([weight])
        step = stepping(optimizer, weight, eager=eager)
        for _ in range(skipped):
            step(keras.ops.full((2, 2), np.nan))
        assert int(optimizer.iterations.numpy()) == skipped
        assert float(optimizer.learning_rate) == 0.5
        step(keras.ops.ones((2, 2)))
        moved.append(weight.numpy() - 1)
        assert int(optimizer.iterations.numpy()) == skipped + 1
        assert float(optimizer.learning_rate) == (0.25 if skipped else 0.5)
    np.testing.assert_allclose(moved[1], moved[0], rtol=1e-5)
    assert (moved[0] < -0.1).all()


def test_a_state_that_counted_all_steps_as_applied_goes_on():
    optimizer = LossScale(keras.optimizers.SGD(0.1))
    optimizer.build([keras.Variable(np.ones(2, "float32"))])
    optimizer.inner_optimizer.iterations.assign(7)
    optimizer.restored()
    assert int(optimizer.iterations.numpy()) == 7


@pytest.mark.parametrize("eager", [False, True])
def test_a_forward_pass_that_overflows_leaves_statistics_and_queue_as_they_were(eager):
    """Also those of Keras' own BatchNormalization, in an encoder of the user's."""
    with precision("float16"):
        parts = [keras.layers.Rescaling(1e4), keras.layers.Flatten(), keras.layers.Dense(4)]
        encoder = keras.Sequential([keras.Input((8, 8, 3)), *parts, keras.layers.BatchNormalization()])
        model = MoCo(encoder, projection_head(4, 2, proj_out_dim=4), queue_length=16)
    model.compile(LossScale(keras.optimizers.SGD(0.1), initial_scale=1.0), run_eagerly=eager)
    before = [w.numpy() for w in model.weights]
    model.train_on_batch(VIEWS * 100)
    assert int(model.optimizer.iterations.numpy()) == 1
    for a, b in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=b.path)
    model.train_on_batch(VIEWS * 1e-4)
    assert any((a != b.numpy()).any() for a, b in zip(before, model.weights, strict=True))
    assert all(np.isfinite(w.numpy()).all() for w in model.weights)
