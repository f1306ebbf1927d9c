import itertools
import math

import keras
import numpy as np
import pytest

from tests import golden, oracles
from tf_simclr import optimizers
from tf_simclr.errors import InputError

rng = np.random.default_rng(0)
CHOICES = list(itertools.product((True, False), (True, False), (0.0, 0.1)))


def run(optimizer, variables, gradients):
    """Applies each step's gradients."""
    for step in gradients:
        optimizer.apply(step, variables)


@pytest.mark.parametrize(("classic", "nesterov", "decay"), CHOICES)
def test_lars_is_the_papers_algorithm(classic, nesterov, decay):
    shapes = {"kernel": (3, 4), "logits_sup_kernel": (4, 2), "gamma": (4,), "zeros": (2, 2)}
    start = {name: np.zeros(s) if name == "zeros" else rng.normal(size=s) for name, s in shapes.items()}
    gradients = [{name: rng.normal(size=s) for name, s in shapes.items()} for _ in range(3)]
    gradients[1]["kernel"] *= 0
    variables = [keras.Variable(value, name=name, dtype="float64") for name, value in start.items()]
    lars = optimizers.LARS(0.2, 0.8, weight_decay=decay, classic_momentum=classic, use_nesterov=nesterov, eeta=0.02)
    run(lars, variables, [list(step.values()) for step in gradients])
    for variable, (name, w) in zip(variables, start.items(), strict=True):
        m, counted = np.zeros_like(w), name in ("kernel", "zeros")
        for step in gradients:
            w, m = oracles.lars_step(
                w, step[name], m, rate=np.float32(0.2), momentum=0.8, decay=decay, eeta=0.02, classic=classic,
                nesterov=nesterov, decayed=counted, adapted=counted,
            )  # fmt: skip
        np.testing.assert_allclose(variable, w, rtol=1e-12, err_msg=name)


def golden_lars(config):
    """Our optimizer with the options of a golden configuration, whose exclusions are all by name."""
    no_decay = config.get("exclude_from_weight_decay") or []
    return optimizers.LARS(
        keras.optimizers.schedules.PiecewiseConstantDecay([0, 1, 2, 3], golden.data("lars/lars.json")["lr"]),
        **{key: config[key] for key in ("momentum", "use_nesterov", "weight_decay", "classic_momentum")},
        eeta=config.get("eeta", 0.001),
        exclude_from_weight_decay=no_decay,
        exclude_from_layer_adaptation=config.get("exclude_from_layer_adaptation") or [],
        exclude_vectors=False,
    )


def test_lars_equals_the_reference_in_every_configuration():
    about, stored = golden.data("lars/lars.json"), golden.arrays("lars/lars.npz")
    assert len(about["configs"]) == 27
    for name, config in about["configs"].items():
        optimizer = golden_lars(config)
        variables = []
        for i, (path, shape) in enumerate(about["variables"]):
            value = np.random.RandomState(2000 + i).standard_normal(shape).astype(np.float32)
            value = np.zeros_like(value) if path == "base_model/conv2d_9/kernel" else value
            variables.append(keras.Variable(value, name=path.replace("/", ".")))
        for step in range(5):
            gradients = []
            for i, (path, shape) in enumerate(about["variables"]):
                seed = 2000 + 100 * (step + 1) + i
                g = (np.random.RandomState(seed).standard_normal(shape) * 0.05).astype(np.float32)
                still = (path.endswith("beta") and step == 2) or (
                    path == "head_contrastive/nl_0/dense/kernel" and step == 3
                )
                gradients.append(np.zeros_like(g) if still else g)
            optimizer.apply(gradients, variables)
            for kind, values in (("params", variables), ("momentum", optimizer.accumulators)):
                flat = np.concatenate([np.ravel(v) for v in values])
                np.testing.assert_allclose(
                    flat, stored[f"{name}/{kind}"][step], rtol=0, atol=1e-5, err_msg=f"{name} {step}"
                )


def test_momentum_keeps_the_rate_outside_of_the_accumulator():
    w, v = np.array([1.0, -2.0]), np.zeros(2)
    variable = keras.Variable(w, dtype="float64")
    rates = [0.5, 0.25, 0.125]
    optimizer = optimizers.Momentum(keras.optimizers.schedules.PiecewiseConstantDecay([0, 1], rates), 0.9)
    for rate in rates:
        g = rng.normal(size=2)
        optimizer.apply([g], [variable])
        v = 0.9 * v + g
        w = w - rate * (g + 0.9 * v)
    np.testing.assert_allclose(variable, w, rtol=1e-14)


def adam_steps(w, gradients, *, rates, decay, lamb, epsilon):
    """Algorithm 2 of arXiv:1711.05101 and of arXiv:1904.00962, a number at a time."""
    w, m, v = w.astype(np.float64).copy(), np.zeros(w.shape), np.zeros(w.shape)
    for t, (g, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        step = np.zeros(w.shape)
        for i in np.ndindex(w.shape):
            m[i] = 0.9 * m[i] + 0.1 * g[i]
            v[i] = 0.999 * v[i] + 0.001 * g[i] ** 2
            step[i] = m[i] / (1 - 0.9**t) / (math.sqrt(v[i] / (1 - 0.999**t)) + epsilon)
            step[i] += decay * w[i] if w.ndim > 1 else 0
        lengths = [math.sqrt(sum(x**2 for x in array.flat)) for array in (w, step)]
        ratio = lengths[0] / lengths[1] if lamb and w.ndim > 1 and all(lengths) else 1
        w -= rate * ratio * step
    return w


@pytest.mark.parametrize(("name", "epsilon"), [("adamw", 1e-8), ("lamb", 1e-6)])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adamw_and_lamb_are_their_papers_algorithms(name, epsilon, decay):
    shapes = {"kernel": (3, 4), "gamma": (4,), "zeros": (2, 2), "still": (2, 3)}
    start = {n: np.zeros(s) if n == "zeros" else rng.normal(size=s) for n, s in shapes.items()}
    gradients = {n: [rng.normal(size=s) * (n != "still") for _ in range(4)] for n, s in shapes.items()}
    variables = [keras.Variable(value, name=n, dtype="float64") for n, value in start.items()]
    rates = [0.5, 0.25, 0.125, 0.0625]
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0, 1, 2], rates)
    run(optimizers.build(name, schedule, weight_decay=decay), variables, list(zip(*gradients.values(), strict=True)))
    for variable, (n, w) in zip(variables, start.items(), strict=True):
        options = {"rates": rates, "decay": decay, "lamb": name == "lamb", "epsilon": epsilon}
        np.testing.assert_allclose(variable, adam_steps(w, gradients[n], **options), rtol=1e-9, err_msg=n)


def test_each_weight_is_decayed_once_by_the_optimizer_or_by_the_loss():
    kernel, head = object(), object()
    both = [kernel, head]
    left = {"lars": [head], "momentum": both, "sgd": both, "adam": both, "adamw": [], "lamb": []}
    for name, expected in left.items():
        assert optimizers.left_to_loss(optimizers.build(name, 0.1), both, head=[head]) == expected, name
    assert optimizers.left_to_loss(optimizers.LossScale(optimizers.LARS()), both) == []


@pytest.mark.parametrize("name", ["lars", "adamw", "lamb"])
def test_a_saved_optimizer_goes_on_where_it_stopped(tmp_path, name):
    def model():
        m = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        schedule = optimizers.WarmUpCosine(0.3, 10, warmup_steps=2)
        m.compile(optimizers.build(name, schedule, weight_decay=0.1), "mse")
        return m

    x, y = rng.normal(size=(8, 3)).astype("float32"), rng.normal(size=(8, 2)).astype("float32")
    straight = model()
    straight.fit(x, y, batch_size=4, verbose=0, shuffle=False)
    straight.save(tmp_path / "half.keras")
    resumed = keras.saving.load_model(tmp_path / "half.keras")
    for m in (straight, resumed):
        m.fit(x, y, batch_size=4, verbose=0, shuffle=False)
    assert resumed.optimizer.get_config() == straight.optimizer.get_config()
    assert int(resumed.optimizer.iterations.numpy()) == 4
    for a, b in zip(straight.optimizer.variables, resumed.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(straight.weights, resumed.weights, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("total", "warmup"), [(10, 0), (10, 3), (10, 10), (5, 9), (1, 0)])
def test_the_schedule_is_the_papers_formula(total, warmup):
    schedule = optimizers.WarmUpCosine(0.7, total, warmup_steps=warmup)
    for step in range(15):
        expected = oracles.warm_up_cosine(step, peak=0.7, total=total, warmup=warmup)
        np.testing.assert_allclose(schedule(step), expected, rtol=1e-6, atol=1e-7)


def test_the_schedule_equals_the_reference():
    stored = golden.data("schedule/lr.json")
    assert len(stored) >= 5
    for name, case in stored.items():
        c = case["config"]
        total = c["steps"] or optimizers.train_steps(c["n"], c["bs"], epochs=c["epochs"])
        warmup = optimizers.warmup_steps(c["n"], c["bs"], warmup_epochs=c["warm"])
        assert (total, warmup) == (case["total_steps"], case["warmup_steps"]), name
        peak = optimizers.scaled_learning_rate(c["lr"], c["bs"], scaling=c["scaling"])
        schedule = optimizers.WarmUpCosine(peak, total, warmup_steps=warmup)
        rates = [float(schedule(step)) for step in case["steps"]]
        np.testing.assert_allclose(rates, case["lr_tf1"], rtol=0, atol=1e-6 * peak, err_msg=name)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optimizers.LARS(momentum=1.0), r"momentum must lie in \[0, 1\)"),
        (
            lambda: optimizers.LARS(weight_decay=-1e-4),
            "weight_decay must be at least 0. Received: weight_decay=-0.0001",
        ),
        (lambda: optimizers.Lamb(weight_decay=-1), "weight_decay must be at least 0. Received: weight_decay=-1"),
        (lambda: optimizers.WarmUpCosine(0.1, 0), "total_steps must be at least 1"),
        (lambda: optimizers.scaled_learning_rate(0.1, 64, scaling="log"), "must be linear or sqrt"),
        (lambda: optimizers.build("adagrad", 0.1), "must be one of lars, momentum, sgd, adam, adamw, lamb"),
    ],
)
def test_bad_values_are_refused_in_one_sentence(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("optimizer", "message"), [(optimizers.LARS, "when it is made"), (optimizers.AdamW, "decays kernels alone")]
)
def test_keras_own_exclusion_is_refused_since_it_would_do_nothing(optimizer, message):
    with pytest.raises(ValueError, match=message):
        optimizer().exclude_from_weight_decay(var_names=["bias"])
