"""Pieces of a batch and recomputed blocks give the gradients of the plain step."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tf_simclr.errors import InputError
from tf_simclr.losses import NTXent
from tf_simclr.models.gradient_cache import GradientCache
from tf_simclr.models.normalization import Normalization, precision
from tf_simclr.models.resnet import projection_head
from tf_simclr.models.simclr import SimCLR
from tf_simclr.optimizers import LARS, LossScale

rng = np.random.default_rng(0)
VIEWS = rng.uniform(size=(8, 2, 6, 6, 3)).astype("float32")
LABELS = np.arange(8) % 3
NORMS = {
    "layer": layers.LayerNormalization,
    "group": lambda: layers.GroupNormalization(2),
    "frozen": lambda: layers.BatchNormalization(trainable=False),
    "batch": lambda: layers.BatchNormalization(momentum=0.5),
}


def simclr(norm: str, **options) -> SimCLR:
    """A convolution, one kind of normalisation, and heads; always with the same weights."""
    keras.utils.set_random_seed(0)
    images = keras.Input((6, 6, 3))
    x = NORMS[norm]()(layers.Conv2D(4, 3, name="conv")(images))
    encoder = keras.Model(images, layers.Dense(6)(layers.Flatten()(layers.ReLU()(x))), name="encoder")
    x = h = keras.Input((6,))
    for width in (6, 4):
        x = NORMS[norm if norm != "group" else "layer"]()(layers.Dense(width, use_bias=False)(x))
    return SimCLR(encoder, keras.Model(h, [h, x]), num_classes=3, weight_decay=1e-2, **options)


def stepped(model, *, optimizer=None, eager: bool = True, **options) -> tuple[dict, list[np.ndarray]]:
    """Logs of a step of SGD with rate 1, so that weights show the gradient, and all weights after it."""
    model.compile(optimizer or keras.optimizers.SGD(1.0), NTXent(0.5), run_eagerly=eager, **options)
    logs = model.train_on_batch(VIEWS, LABELS, return_dict=True)
    return logs, [w.numpy() for w in model.variables]


def assert_equal(ours, theirs, limit: float = 1e-5) -> None:
    """Logs and weights differ by at most `limit`, relative to the largest weight of a variable, and 1 at least."""
    assert ours[0].keys() == theirs[0].keys()
    for name, value in theirs[0].items():
        assert abs(ours[0][name] - value) <= limit * max(1, abs(value)), name
    for a, b in zip(ours[1], theirs[1], strict=True):
        assert abs(a - b).max() <= limit * max(1, abs(b).max())


@pytest.mark.parametrize("norm", ["layer", "frozen", pytest.param("group", marks=pytest.mark.slow)])
@pytest.mark.parametrize("microbatch_size", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_pieces_change_nothing_where_examples_do_not_depend_on_each_other(norm, microbatch_size):
    assert_equal(stepped(simclr(norm, microbatch_size=microbatch_size)), stepped(simclr(norm)))


def by_tape(model, size: int):
    """Weights after a step of SGD with rate 1 whose pieces are in one tape, and the moving statistics' means."""
    parts = [model.encoder, model.projection]
    states = [v for part in parts for v in part.non_trainable_variables]
    start, after = [v.numpy() for v in states], []
    variables = [v for part in parts for v in part.trainable_variables]
    with tf.GradientTape() as tape:
        pieces = []
        for views in np.split(VIEWS, len(VIEWS) // size):
            features = model.encoder(np.concatenate([views[:, 0], views[:, 1]]), training=True)
            pieces.append(tf.split(model.projection(features, training=True)[-1], 2))
            after.append([v.numpy() for v in states])
            for variable, value in zip(states, start, strict=True):
                variable.assign(value)
        z1, z2 = (tf.concat(z, axis=0) for z in zip(*pieces, strict=True))
        decay = sum(tf.reduce_sum(v**2) for v in variables if v.name not in ("gamma", "beta"))
        loss = NTXent(0.5)(z1, z2) + 0.5 * model.weight_decay * decay
    found = tape.gradient(loss, [v.value for v in variables])
    weights = {id(v): v.numpy() - g.numpy() for v, g in zip(variables, found, strict=True)}
    means = [np.mean(values, axis=0) for values in zip(*after, strict=True)]
    return weights | {id(v): mean for v, mean in zip(states, means, strict=True)}


@pytest.mark.parametrize("size", [4, pytest.param(2, marks=pytest.mark.slow)])
def test_batch_norm_sees_a_piece_at_a_time_and_moves_once_to_the_mean(size):
    model = simclr("batch", microbatch_size=size)
    expected = by_tape(model, size)
    stepped(model)
    for part in (model.encoder, model.projection):
        for variable in part.variables:
            np.testing.assert_allclose(variable, expected[id(variable)], rtol=1e-5, atol=1e-5)
    assert max(abs(v.numpy()).max() for v in model.encoder.non_trainable_variables) > 0.1  # they did move


def test_pieces_of_a_graph_are_those_of_eager_execution():
    assert_equal(stepped(simclr("batch", microbatch_size=2), eager=False), stepped(simclr("batch", microbatch_size=2)))


@pytest.mark.slow
def test_xla_divides_a_batch_of_unknown_size():
    model, expected = simclr("layer", microbatch_size=4), simclr("layer")
    model.compile(loss=NTXent(0.5), jit_compile=True)
    unknown = [tf.TensorSpec((None, 2, 6, 6, 3))]
    step = tf.function(lambda views: model(views, training=True)["projections"], unknown, jit_compile=True)
    np.testing.assert_allclose(step(VIEWS), expected(VIEWS, training=True)["projections"], atol=1e-6)


@pytest.mark.slow
def test_pieces_compile_under_xla():
    compiled = stepped(simclr("batch", microbatch_size=2), eager=False, jit_compile=True)
    assert_equal(compiled, stepped(simclr("batch", microbatch_size=2)))


def test_a_batch_of_unknown_size_is_divided():
    model = simclr("layer", microbatch_size=4)
    unknown = tf.TensorSpec((None, 2, 6, 6, 3))
    step = tf.function(lambda views: model(views, training=True)["projections"], input_signature=[unknown])
    for n in (8, 5):
        expected = simclr("layer")(VIEWS[:n], training=True)["projections"]
        np.testing.assert_allclose(step(VIEWS[:n]), expected, atol=1e-6)


@pytest.mark.parametrize("eager", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["eager", "graph"])
def test_pieces_of_unequal_length_change_nothing_either(eager):
    assert_equal(stepped(simclr("layer", microbatch_size=3), eager=eager), stepped(simclr("layer")))


@pytest.mark.parametrize(("n", "size", "lengths"), [(8, 3, [2, 3, 3]), (8, 4, [4, 4]), (7, 4, [3, 4]), (3, 5, [3])])
def test_a_batch_is_in_as_few_pieces_as_can_be_of_nearly_one_length(n, size, lengths):
    seen, scale = [], layers.Dense(1)
    scale.build((n, 1))

    def function(x):
        seen.append(x.shape[0])
        return [scale(x)]

    GradientCache(function, [scale], microbatch_size=size, outputs=1)(np.ones((n, 1), "float32"))
    assert seen == lengths


def test_inference_has_no_pieces():
    expected = simclr("batch")(VIEWS[:5])["projections"]
    np.testing.assert_array_equal(simclr("batch", microbatch_size=4)(VIEWS[:5])["projections"], expected)


def test_xla_is_refused_a_batch_that_is_no_multiple():
    message = "a replica's batch must be a multiple of microbatch_size=3 where XLA compiles the step. Received: batch=8"
    with pytest.raises(InputError, match=re.escape(message)):
        stepped(simclr("layer", microbatch_size=3), eager=False, jit_compile=True)


def test_global_batch_norm_in_pieces_on_replicas_is_refused():
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    encoder = keras.Sequential([keras.Input((6, 6, 3)), layers.Flatten(), layers.Dense(6)])
    with strategy.scope(), pytest.raises(InputError, match=re.escape("give global_bn=False. Received: global_bn=True")):
        SimCLR(encoder, projection_head(6), microbatch_size=2)
    with strategy.scope():
        SimCLR(encoder, projection_head(6, normalization=Normalization(global_bn=False)), microbatch_size=2)


def test_random_numbers_are_new_in_each_piece_and_the_same_when_it_is_computed_again():
    dropout, scale = layers.Dropout(0.5, seed=1), layers.Dense(1, use_bias=False, kernel_initializer="ones")
    scale.build((8, 1))
    part = keras.Sequential([keras.Input((1,)), dropout, scale])
    cache = GradientCache(lambda x: [part(x, training=True)], [part], microbatch_size=4, outputs=1)
    with tf.GradientTape() as tape:
        y = cache(tf.reshape(tf.range(1.0, 17.0), (16, 1)))
        total = tf.reduce_sum(y)
    np.testing.assert_allclose(tape.gradient(total, scale.kernel.value), [[total]], rtol=1e-6)
    kept = y.numpy().reshape(4, 4) > 0
    assert len({tuple(row) for row in kept}) > 1
    assert (dropout.seed_generator.state.numpy() != layers.Dropout(0.5, seed=1).seed_generator.state.numpy()).any()


def test_a_scaled_loss_is_scaled_once():
    steps = []
    for microbatch_size in (0, 4):
        with precision("float16"):
            model = simclr("layer", microbatch_size=microbatch_size)
        steps.append(stepped(model, optimizer=LossScale(keras.optimizers.SGD(1.0), initial_scale=64.0)))
    rounding = 2.0**-10
    assert_equal(*steps, limit=8 * rounding)
    assert_equal(steps[1], stepped(simclr("layer")), limit=32 * rounding)


def test_pieces_come_back_with_a_saved_model(tmp_path):
    model = simclr("layer", microbatch_size=4)
    model(VIEWS)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert (again.microbatch_size, again.remat) == (4, False)


def residual(**options) -> SimCLR:
    """Two residual blocks with the names of `resnet`."""
    keras.utils.set_random_seed(0)
    x = images = keras.Input((6, 6, 3))
    for i in (1, 2):
        shortcut = x = layers.Conv2D(4, 3, padding="same", name=f"stem{i}")(x)
        x = layers.ReLU()(Normalization().layer(f"bn{i}")(layers.Conv2D(4, 3, padding="same")(x)))
        x = layers.ReLU(name=f"group{i}_block1_out")(layers.Add()([x, shortcut]))
    encoder = keras.Model(images, layers.GlobalAveragePooling2D()(x), name="encoder")
    return SimCLR(encoder, projection_head(4, 2, proj_out_dim=4), num_classes=3, weight_decay=1e-2, **options)


@pytest.mark.parametrize("eager", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["eager", "graph"])
def test_recomputed_blocks_give_the_plain_step(eager):
    assert_equal(stepped(residual(remat=True), eager=eager), stepped(residual()))


@pytest.mark.slow
def test_recomputed_blocks_and_pieces_go_together():
    assert_equal(stepped(residual(remat=True, microbatch_size=4)), stepped(residual(microbatch_size=4)))


def test_an_encoder_without_blocks_is_not_recomputed():
    with pytest.raises(InputError, match="remat needs an encoder with residual blocks"):
        simclr("layer", remat=True)(VIEWS, training=True)


def on_replicas(count: int, microbatch_size: int) -> tuple[dict, list, list]:
    """Logs, trained weights and the means over replicas of moving statistics after two steps with local BatchNorm."""
    devices = [f"CPU:{i}" for i in range(count)]
    strategy = tf.distribute.MirroredStrategy(devices, cross_device_ops=tf.distribute.ReductionToOneDevice())
    with strategy.scope() if count > 1 else tf.distribute.get_strategy().scope():
        model = simclr("batch", microbatch_size=microbatch_size)
        model.compile(LARS(0.5), NTXent(0.5))
    logs = [model.train_on_batch(VIEWS, LABELS, return_dict=True) for _ in range(2)][-1]
    moving = [[v.numpy() for v in getattr(w.value, "values", (w.value,))] for w in model.non_trainable_variables]
    return logs, [w.numpy() for w in model.trainable_variables], [np.mean(values, axis=0) for values in moving]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:1 BatchNormalization layers of the encoder:UserWarning")  # local ones are the point
def test_pieces_equal_as_many_replicas_with_local_batch_norm():
    logs, weights, moving = on_replicas(4, 0)
    for count in (1, 2):
        ours = on_replicas(count, 2)
        assert_equal((ours[0], ours[1] + ours[2]), (logs, weights + moving))


@pytest.mark.slow
@pytest.mark.parametrize(("count", "size", "dtype"), [(1, 2, "float32"), (2, 3, "float32"), (2, 2, "float16")])
def test_pieces_on_replicas_change_nothing_without_batch_norm(count, size, dtype):
    plain = stepped(simclr("layer"))
    devices = [f"CPU:{i}" for i in range(count)]
    strategy = tf.distribute.MirroredStrategy(devices, cross_device_ops=tf.distribute.ReductionToOneDevice())
    with strategy.scope(), precision(dtype):
        model = simclr("layer", microbatch_size=size)
        optimizer = keras.optimizers.SGD(1.0)
        model.compile(LossScale(optimizer, initial_scale=64.0) if dtype == "float16" else optimizer, NTXent(0.5))
    logs = model.train_on_batch(VIEWS, LABELS, return_dict=True)
    rounding = {"float32": 1e-5, "float16": 32 * 2.0**-10}[dtype]
    weights = [w.numpy() for w in model.variables]
    assert_equal((logs, weights), plain, limit=rounding)


@pytest.mark.parametrize(("microbatch_size", "n"), [(2, 6), (3, 12), (4, 7)])
def test_outputs_keep_the_order_of_the_examples(microbatch_size, n):
    scale = layers.Dense(1, use_bias=False, kernel_initializer="ones")
    scale.build((n, 1))
    rows = tf.reshape(tf.range(float(n)), (n, 1))
    cache = GradientCache(lambda x: [scale(x), 2 * x], [scale], microbatch_size=microbatch_size, outputs=2)
    once, twice = cache(rows)
    np.testing.assert_array_equal(once, rows)
    np.testing.assert_array_equal(twice, 2 * rows)


@pytest.mark.parametrize(("microbatch_size", "forward", "again"), [(3, [2, 2, 3], [2, 2]), (7, [7], [])])
def test_all_pieces_but_the_last_are_computed_again(microbatch_size, forward, again):
    scale, seen = layers.Dense(1, use_bias=False), []
    scale.build((7, 1))
    rows = tf.reshape(tf.range(7.0), (7, 1))
    see = {"parts": [scale], "microbatch_size": microbatch_size, "outputs": 1}
    cache = GradientCache(lambda x: seen.append(len(x)) or [scale(x)], **see)
    with tf.GradientTape() as tape:
        y = cache(rows)
    assert seen == forward
    np.testing.assert_allclose(tape.gradient(y, scale.kernel.value), [[21.0]])
    assert seen == forward + again
