"""The method against the reference: gradients, five-step trajectories, replicas.

In float64 the only limit is that the reference's framework rounded a few constants to float32; `rounded` does too.
"""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import golden, oracles
from tests.models import formula
from tf_simclr import optimizers
from tf_simclr.errors import InputError
from tf_simclr.losses import NTXent
from tf_simclr.models import network
from tf_simclr.models.normalization import Normalization
from tf_simclr.models.resnet import projection_head, resnet
from tf_simclr.models.simclr import SimCLR

LOGS = {"total_loss": "loss"} | {name: name for name in ("contrast_loss", "contrast_acc", "contrast_entropy",
        "supervised_loss", "supervised_acc", "weight_decay")}  # fmt: skip
FAST, SLOW = ["pre_lars_T0.5"], ["pre_lars_T0.1", "pre_momentum_T0.5", "pre_adam_T0.5", "pre_lars_nolineareval",
                                 "pre_lars_localbn_nonorm", "pre_lars_bndecay0.99_proj2"]  # fmt: skip
RUNS = FAST + [pytest.param(name, marks=pytest.mark.slow) for name in SLOW]


def rounded(value: float) -> float:
    return float(np.float32(value))


class Given(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rates that a golden run used."""

    def __init__(self, rates):
        self.rates = np.asarray(rates)

    def __call__(self, step):
        return keras.ops.take(keras.ops.convert_to_tensor(self.rates), keras.ops.cast(step, "int32"))


class TF1Adam(keras.optimizers.Adam):
    """Adam whose bias correction has the powers of both betas from float32 variables, multiplied up step by step.

    In TF1 these variables and the constants (beta_1, beta_2, epsilon) are float32 whatever the weights are.  The
    rounding of `1 - beta_2 ** t`, about 1e-5 of it, is what a rate within double precision has to be multiplied by.
    """

    STEPS = 10

    def powers(self, beta: float):
        """`beta ** (step + 1)` as float32 has it after as many multiplications."""
        products = np.cumprod(np.full(self.STEPS, beta, np.float32), dtype=np.float32).astype(np.float64)
        return keras.ops.take(keras.ops.convert_to_tensor(products), keras.ops.cast(self.iterations, "int32"))

    def update_step(self, gradient, variable, learning_rate):
        """As Keras', once its own correction is taken out of the rate."""
        step = keras.ops.cast(self.iterations + 1, "float64")
        exact = [1 - keras.ops.power(keras.ops.cast(beta, "float64"), step) for beta in (self.beta_1, self.beta_2)]
        theirs = [1 - self.powers(beta) for beta in (self.beta_1, self.beta_2)]
        factor = exact[0] / theirs[0] * keras.ops.sqrt(theirs[1] / exact[1])
        super().update_step(gradient, variable, learning_rate * factor)


def flags_of(run) -> dict:
    return dict(flag.removeprefix("--").split("=") for flag in run["flags"])


def build(flags, *, probe):
    """A SimCLR as the flags of the reference say, filled by formula; and hub name to TF1 name."""
    decay = 1 - rounded(1 - float(flags.get("batch_norm_decay", 0.9)))
    normalization = Normalization(batch_norm_decay=decay, global_bn=flags.get("global_bn") != "False")
    layers, dim = int(flags.get("num_proj_layers", 3)), int(flags.get("proj_out_dim", 128))
    encoder = resnet(18, cifar_stem=True, normalization=normalization)
    head = projection_head(512, layers, proj_out_dim=dim, normalization=normalization)
    decay = float(flags.get("weight_decay", 1e-6))
    model = SimCLR(encoder, head, num_classes=10 if probe else 0, weight_decay=decay)
    architecture = network.Architecture(
        18, cifar_stem=True, proj_head_mode="nonlinear", num_proj_layers=layers, proj_out_dim=dim,
        num_classes=10 if probe else 0,
    )  # fmt: skip
    return model, formula.fill(model.network(), architecture)


def compiled(model, flags, rates, *, code):
    """Compiles a model with the optimizer of the flags, as the TF1 or the TF2 code has it."""
    kind, momentum = flags.get("optimizer", "lars"), rounded(float(flags.get("momentum", 0.9)))
    if kind == "lars":  # LARS' momentum is Python's; the frameworks' own optimizers round theirs to float32
        optimizer = optimizers.LARS(Given(rates), float(flags.get("momentum", 0.9)), weight_decay=model.weight_decay)
    elif kind == "momentum":
        name = "momentum" if code == "tf1" else "sgd"
        optimizer = optimizers.build(name, Given(rates), momentum=momentum)
    else:
        make, epsilon = (TF1Adam, rounded(1e-8)) if code == "tf1" else (keras.optimizers.Adam, 1e-7)
        optimizer = make(Given(rates), beta_1=rounded(0.9), beta_2=rounded(0.999), epsilon=epsilon)
    loss = NTXent(float(flags.get("temperature", 0.1)), hidden_norm=flags.get("hidden_norm") != "False")
    model.compile(optimizer, loss)
    return model


def batch(step, seed=1):
    x = golden.images(8, 32, seed + step, channels=6)
    return np.stack([x[..., :3], x[..., 3:]], axis=1).astype(keras.config.floatx()), (np.arange(8) * 3 + step) % 10


def assert_close(actual, expected, rtol, what):
    """Relative to the largest magnitude of what is expected."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    actual = actual if actual.shape == expected.shape else golden.sample(actual, expected.size)
    worst = abs(actual - expected).max() / max(abs(expected).max(), 1e-30)
    assert worst <= rtol, f"{what}: {worst:.2g}"


def assert_equal_weights(model, names, arrays, key, norms, *, rtol):
    """The norm of every weight, and every weight that the goldens hold under a key."""
    weights = network.weights_by_name(model.network())
    stored = {name.split("|")[-1] for name in arrays if name.startswith(f"{key}|")}
    assert stored <= set(names.values())
    for hub, tf1 in names.items():
        assert_close(np.linalg.norm(weights[hub]), norms[tf1], rtol, tf1)
        if tf1 in stored:
            assert_close(weights[hub], arrays[f"{key}|{tf1}"], rtol, tf1)


@pytest.mark.parametrize("name", RUNS)
def test_trajectories_equal_the_tf2_reference_in_float64(float64, name):
    run = golden.data("train/trajectories_tf2_float64.json")[name]
    flags, logs = flags_of(run), run["log"]
    model, names = build(flags, probe=flags.get("lineareval_while_pretraining") != "False")
    compiled(model, flags, [log["lr_used"] for log in logs], code="tf2")
    for step, log in enumerate(logs):
        model.reset_metrics()
        ours = model.train_on_batch(*batch(step), return_dict=True)
        for theirs, mine in LOGS.items():
            if theirs in log:
                np.testing.assert_allclose(ours[mine], log[theirs], rtol=1e-9, atol=1e-15, err_msg=f"{theirs} {step}")
    arrays = golden.arrays("train/trajectories_tf2_float64.npz")
    assert_equal_weights(model, names, arrays, f"{name}|last", run["norm_after_last"], rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pre_lars_T0.5", "pre_momentum_T0.5", "pre_adam_T0.5"])
def test_trajectories_equal_the_tf1_reference_in_float64(float64, name):
    """TF1 trains no probe, and averages the loss in float32."""
    run = golden.data("train/trajectories_tf1_float64.json")[name]
    flags, logs = flags_of(run), run["log"]
    model, names = build(flags, probe=False)
    compiled(model, flags, [log["lr_used"] for log in logs], code="tf1")
    for step, log in enumerate(logs):
        model.reset_metrics()
        ours = model.train_on_batch(batch(step)[0], return_dict=True)
        limits = {"contrast_loss": np.finfo(np.float32).eps, "contrast_acc": 1e-9, "contrast_entropy": 1e-9}
        for theirs, rtol in limits.items():
            np.testing.assert_allclose(ours[theirs], log[theirs], rtol=rtol, err_msg=f"{theirs} {step}")
    arrays = golden.arrays("train/trajectories_tf1_float64.npz")
    assert_equal_weights(model, names, arrays, f"{name}|last", run["norm_after_last"], rtol=1e-9)


def test_the_first_steps_equal_the_reference_in_float32():
    run = golden.data("train/trajectories_tf2_float32.json")["pre_lars_T0.5"]
    flags, logs = flags_of(run), run["log"]
    model, _ = build(flags, probe=True)
    compiled(model, flags, [log["lr_used"] for log in logs], code="tf2")
    for step, rtol in enumerate((1e-5, 1e-2)):
        model.reset_metrics()
        ours = model.train_on_batch(*batch(step), return_dict=True)
        for name in ("contrast_loss", "supervised_loss", "weight_decay"):
            np.testing.assert_allclose(ours[LOGS[name]], logs[step][name], rtol=rtol)


def gradients(model, views, labels):
    """Gradient of the total loss by hub name, in training mode."""
    with tf.GradientTape() as tape:
        loss = model.compute_loss(views, labels, model(views, training=True))
    weights = {n: w for n, w in network.weights_by_name(model.network()).items() if w.trainable}
    found = tape.gradient(loss, [w.value for w in weights.values()])
    return dict(zip(weights, found, strict=True)), loss


@pytest.mark.slow
def test_gradients_and_moving_statistics_equal_the_reference_in_float64(float64):
    cases = golden.data("train/gradients_float64.json")
    arrays = golden.arrays("train/gradients_float64.npz")
    for name, case in cases.items():
        flags = flags_of(case)
        model, names = build(flags, probe=True)
        compiled(model, flags, [0.0], code="tf2")
        found, loss = gradients(model, *batch(0, case["image_seed"]))
        np.testing.assert_allclose(loss, case["total_loss"], rtol=1e-9)
        for hub, gradient in found.items():
            np.testing.assert_allclose(np.linalg.norm(gradient), case["grad_norm"][names[hub]], rtol=1e-9, err_msg=hub)
            for key in (f"{name}|grad|{names[hub]}", f"{name}|grad_sample|{names[hub]}"):
                if key in arrays:
                    assert_close(gradient, arrays[key], 1e-9, key)
        total = np.sqrt(sum(np.sum(np.square(g)) for g in found.values()))
        np.testing.assert_allclose(total, case["grad_global_norm"], rtol=1e-9)
        for hub, weight in network.weights_by_name(model.network()).items():
            if not weight.trainable:
                norm, mean = case["bn_moving_after"][names[hub]]
                np.testing.assert_allclose(np.linalg.norm(weight), norm, rtol=1e-9, err_msg=hub)
                np.testing.assert_allclose(np.mean(weight), mean, rtol=1e-9, atol=1e-12, err_msg=hub)


def test_gradients_equal_the_reference_in_float32():
    case = golden.data("train/gradients_float32.json")["T0.5_lars"]
    model, names = build(flags_of(case), probe=True)
    compiled(model, flags_of(case), [0.0], code="tf2")
    found, loss = gradients(model, *batch(0, case["image_seed"]))
    np.testing.assert_allclose(loss, case["total_loss"], rtol=1e-5)
    for hub, gradient in found.items():
        np.testing.assert_allclose(np.linalg.norm(gradient), case["grad_norm"][names[hub]], rtol=2e-3, err_msg=hub)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pre_lars_T0.5", "pre_lars_localbn_nonorm"])
def test_two_replicas_equal_the_reference_on_two(float64, name):
    run = golden.data("train/trajectories_tf2_2replicas_float64.json")[name]
    flags, logs = flags_of(run), run["log"]
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice())
    with strategy.scope():
        model, names = build(flags, probe=True)
        compiled(model, flags, [log["lr_used"] for log in logs], code="tf2")
    for step, log in enumerate(logs):
        data = tf.data.Dataset.from_tensors(batch(step)).unbatch().batch(8, drop_remainder=True)
        ours = model.fit(data, shuffle=False, verbose=0).history
        for theirs, mine in LOGS.items():
            if theirs in log:
                np.testing.assert_allclose(
                    ours[mine][0], log[theirs], rtol=1e-9, atol=1e-15, err_msg=f"{theirs} {step}"
                )
    norms = run["norm_after_last"]
    if flags.get("global_bn") == "False":  # each replica has its own moving statistics
        names = {hub: tf1 for hub, tf1 in names.items() if "moving" not in hub}
    assert_equal_weights(model, names, {}, name, norms, rtol=1e-9)


def small(**options):
    encoder = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(6)], name="encoder")
    return SimCLR(encoder, projection_head(6, 2, proj_out_dim=4), **options)


def test_labels_never_reach_the_encoder():
    views = np.random.default_rng(0).uniform(size=(4, 2, 8, 8, 3)).astype("float32")
    with_probe, without = small(num_classes=3), small()
    without.encoder.set_weights(with_probe.encoder.get_weights())
    without.projection.set_weights(with_probe.projection.get_weights())
    for model, data in ((with_probe, (views, np.array([0, 1, 2, 0]))), (without, (views,))):
        model.compile(keras.optimizers.SGD(1.0))
        before = [w.copy() for w in model.get_weights()]
        model.train_on_batch(*data)
        assert any((a != b).any() for a, b in zip(before, model.get_weights(), strict=True))
    for a, b in zip(with_probe.encoder.get_weights(), without.encoder.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_logged_means_are_those_of_the_oracle():
    views = np.random.default_rng(1).uniform(size=(4, 2, 8, 8, 3)).astype("float32")
    model = small()
    model.compile(keras.optimizers.SGD(0.0), NTXent(0.5))
    z = model(views, training=True)["projections"].numpy()
    logs = model.evaluate(views, batch_size=4, verbose=0, return_dict=True)
    inference = model(views, training=False)["projections"].numpy()
    expected = oracles.nt_xent(inference[:, 0], inference[:, 1], 0.5).mean()
    np.testing.assert_allclose(logs["contrast_loss"], expected, rtol=1e-5)
    model.reset_metrics()
    logs = model.train_on_batch(views, return_dict=True)
    np.testing.assert_allclose(logs["loss"], oracles.nt_xent(z[:, 0], z[:, 1], 0.5).mean(), rtol=1e-5)


@pytest.mark.slow
def test_the_whole_step_compiles_under_xla():
    """What trains on a TPU has to; the CPU's compiler stands in for it."""
    views, labels = np.random.default_rng(2).uniform(size=(4, 2, 32, 32, 3)).astype("float32"), np.arange(4)
    results = {}
    for compile_it in (True, False):
        keras.utils.set_random_seed(0)
        model = SimCLR(resnet(18, cifar_stem=True), projection_head(512, 2), num_classes=4, weight_decay=1e-4)
        model.compile(optimizers.LARS(0.1, weight_decay=1e-4), NTXent(0.5), jit_compile=compile_it)
        results[compile_it] = [model.train_on_batch(views, labels, return_dict=True) for _ in range(2)]
    for with_xla, without in zip(*results.values(), strict=True):
        np.testing.assert_allclose(with_xla["loss"], without["loss"], rtol=1e-4)


@pytest.mark.parametrize("head", ["given", "made"])
def test_a_saved_model_trains_on_as_if_it_had_never_stopped(tmp_path, head):
    views = np.random.default_rng(3).uniform(size=(4, 2, 8, 8, 3)).astype("float32")
    model = small(num_classes=3, weight_decay=1e-3)
    if head == "made":  # by the model itself; as it is loaded, one is given
        model = SimCLR(model.encoder, num_classes=3, weight_decay=1e-3)
    model.compile(optimizers.LARS(0.3, weight_decay=1e-3), NTXent(0.2))
    model.train_on_batch(views, np.arange(4) % 3)
    model.save(tmp_path / "simclr.keras")
    again = keras.saving.load_model(tmp_path / "simclr.keras")
    assert (again.num_classes, again.weight_decay, again.contrastive_loss.temperature) == (3, 1e-3, 0.2)
    for m in (model, again):
        m.train_on_batch(views, np.arange(4) % 3)
    for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_one_image_instead_of_views_is_refused():
    with pytest.raises(InputError, match=re.escape("views must have the shape (n, 2, h, w, 3)")):
        small()(np.zeros((4, 8, 8, 3), "float32"))


def test_a_loss_without_views_is_refused():
    model = small()
    model.compile("sgd", "mse")
    with pytest.raises(InputError, match=re.escape("like NTXent()")):
        model.train_on_batch(np.zeros((4, 2, 8, 8, 3), "float32"))
