"""Fine-tuning against the reference: three-step trajectories of both codes, what is frozen, replicas.

The float64 files are the real test; what the framework rounded to float32 is rounded here, too (`test_simclr`).
"""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import golden
from tests.models import formula, grouped
from tests.models.test_simclr import Given, assert_equal_weights, flags_of, rounded
from tf_simclr import optimizers
from tf_simclr.errors import InputError
from tf_simclr.models import network
from tf_simclr.models.classifier import Classifier, MultiLabelClassifier, depth_factor, thaw
from tf_simclr.models.normalization import Normalization, precision
from tf_simclr.models.resnet import projection_head, resnet
from tf_simclr.optimizers.layerwise import layerwise

RUNS = [
    f"ft_after{after}_sel{selector}{head}" for after in (-1, 2, 4) for selector in (0, 1) for head in ("", ".zerohead")
]
RUNS += ["ft_after0_sel3_adam", "ft_after0_sel3_adam.zerohead"]
QUICK = ("ft_after2_sel1",)
CASES = [
    pytest.param(code, name, marks=() if code == "tf2" and name in QUICK else pytest.mark.slow)
    for code in ("tf1", "tf2")
    for name in RUNS
]


def build(run, *, code):
    """A classifier as the reference's flags say, filled by formula; and hub name to TF1 name."""
    flags = flags_of(run)
    normalization = Normalization(batch_norm_decay=1 - rounded(1 - 0.9))
    encoder = resnet(18, cifar_stem=True, normalization=normalization)
    model = Classifier(
        encoder,
        projection_head(512, 3, normalization=normalization),
        num_classes=10,
        fine_tune_after_block=int(flags["fine_tune_after_block"]),
        ft_proj_selector=int(flags["ft_proj_selector"]),
        frozen_layers=code,
        weight_decay=float(flags["weight_decay"]),
    )
    architecture = network.Architecture(
        18, cifar_stem=True, proj_head_mode="nonlinear", num_proj_layers=3, num_classes=10,
        ft_proj_selector=model.ft_proj_selector,
    )  # fmt: skip
    head = ("logits_sup/kernel", "logits_sup/bias") if run["head_zero_at_start"] else ()
    names = formula.fill(model.network(), architecture, but=head)
    rates = [log["lr_used"] for log in run["log"]]
    rates = Given(tf1_adam_rates(rates) if (flags["optimizer"], code) == ("adam", "tf1") else rates)
    # Three steps take less time than to trace one.
    model.compile(optimizer(flags, rates, code=code, weight_decay=model.weight_decay), run_eagerly=True)
    return model, names


def tf1_adam_rates(rates):
    """Rates with which Adam does what TF1's does, whose powers of beta are in float32 even where all else is not."""
    beta = np.float32([0.9, 0.999])
    power, found = beta.copy(), []
    for step, rate in enumerate(rates, 1):
        theirs, ours = (np.sqrt(1 - p[1]) / (1 - p[0]) for p in (power.astype(float), beta.astype(float) ** step))
        found.append(rate * theirs / ours)
        power = power * beta
    return found


def optimizer(flags, rates, *, code, weight_decay):
    """The optimizer of the flags as that code has it."""
    if flags["optimizer"] == "lars":
        return optimizers.LARS(rates, weight_decay=weight_decay)
    if flags["optimizer"] == "momentum":
        return optimizers.Momentum(rates) if code == "tf1" else optimizers.build("sgd", rates, momentum=rounded(0.9))
    betas = {"beta_1": rounded(0.9), "beta_2": rounded(0.999)}
    return keras.optimizers.Adam(rates, epsilon=1e-8 if code == "tf1" else 1e-7, **betas)


def batch(step, seed=1):
    images = golden.images(8, 32, seed + step).astype(keras.config.floatx())
    return images, (np.arange(8) * 3 + step) % 10


@pytest.mark.parametrize(("code", "name"), CASES)
def test_three_steps_equal_the_reference_in_float64(float64, code, name):
    run = golden.data(f"train/trajectories_{code}_float64.json")[name]
    model, names = build(run, code=code)
    # TF1 averages its losses in float32.
    rtol = {"tf1": 1e-6, "tf2": 1e-9}[code]
    logs = {"supervised_loss": "supervised_loss", "supervised_acc": "supervised_acc", "weight_decay": "weight_decay"}
    for step, log in enumerate(run["log"]):
        model.reset_metrics()
        ours = model.train_on_batch(*batch(step, run["image_seed"]), return_dict=True)
        for theirs, mine in (logs | {"total_loss": "loss"}).items():
            if theirs in log:
                expected = {"rtol": rtol, "atol": 1e-12}
                np.testing.assert_allclose(ours[mine], log[theirs], **expected, err_msg=f"{theirs} {step}")
    arrays = golden.arrays(f"train/trajectories_{code}_float64.npz")
    rtol = {"tf1": 1e-7, "tf2": 1e-9}[code]
    assert_equal_weights(model, names, arrays, f"{name}|last", run["norm_after_last"], rtol=rtol)


def small(**options) -> Classifier:
    """Of the smallest network, every weight random."""
    model = Classifier(grouped.encoder(), grouped.head(), num_classes=3, **options)
    return grouped.randomise(model)


def changed_by_a_step(model, *, optimizer=None) -> set[str]:
    """Names of the weights that a step changes, moving statistics too."""
    model.compile(optimizer or keras.optimizers.SGD(0.1), run_eagerly=True)
    before = {name: np.array(weight) for name, weight in network.weights_by_name(model).items()}
    model.train_on_batch(*grouped.batch())
    return {name for name, weight in network.weights_by_name(model).items() if (before[name] != np.array(weight)).any()}


@functools.cache
def all_names() -> tuple[str, ...]:
    return tuple(network.weights_by_name(small()))


def of(*parts, kinds=("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")) -> set[str]:
    """Names of the small network's weights in these parts: `stem`, `group3`, `proj1`, `logits_sup`."""
    starts = {part.split("_")[0] for part in parts}
    return {name for name in all_names() if name.split("_")[0] in starts and name.rsplit("/")[1] in kinds}


GROUPS = ("stem", "group1", "group2", "group3", "group4")


@pytest.mark.parametrize("block", [-1, 0, 2, 4])
def test_frozen_groups_stand_still_with_their_moving_statistics(block):
    model = small(fine_tune_after_block=block, weight_decay=0.1)
    # A bias before BatchNorm has no gradient but that of its weight decay.
    assert changed_by_a_step(model) == of(*GROUPS[block + 1 :], "logits_sup")


@pytest.mark.parametrize(("selector", "layers"), [(0, 0), (1, 1), (-1, 3)])
def test_the_projection_head_trains_up_to_the_layer_that_feeds_the_classifier(selector, layers):
    changed = changed_by_a_step(small(ft_proj_selector=selector, weight_decay=0.1, fine_tune_after_block=3))
    assert changed == of("group4", *(f"proj{i}" for i in range(1, layers + 1)), "logits_sup")
    still = changed_by_a_step(small(ft_proj_selector=selector, weight_decay=0.1, fine_tune_after_block=4))
    assert still == of("logits_sup")


MOVING = ("moving_mean", "moving_variance")
PROJECTION = ("proj1", "proj2", "proj3")


@pytest.mark.parametrize(
    ("code", "block", "expected"),
    [
        ("tf1", 2, of("group3", "group4", "logits_sup") | of(*GROUPS, *PROJECTION, kinds=MOVING)),
        ("tf1", 4, of("logits_sup") | of(*PROJECTION, kinds=MOVING)),
        ("tf2", 2, of("group3", "group4", "proj1", "logits_sup") | of(*GROUPS, *PROJECTION, kinds=(*MOVING,))
         | of("proj2", "proj3", kinds=("kernel",))),
        ("tf2", 4, of("proj1", "logits_sup") | of(*GROUPS, *PROJECTION, kinds=MOVING)
         | of("proj2", "proj3", kinds=("kernel",))),
    ],
)  # fmt: skip
def test_the_reference_codes_move_what_each_of_them_says(code, block, expected):
    model = small(fine_tune_after_block=block, frozen_layers=code, ft_proj_selector=1, weight_decay=0.1)
    assert changed_by_a_step(model) == expected


def test_with_lars_nothing_that_has_no_gradient_is_decayed():
    model = small(frozen_layers="tf2", ft_proj_selector=1, weight_decay=0.1)
    changed = changed_by_a_step(model, optimizer=optimizers.LARS(0.1, weight_decay=0.1))
    assert not changed & of("proj2", "proj3", kinds=("kernel", "gamma", "beta"))


def test_the_classifier_reads_the_layer_that_was_chosen():
    images, _ = grouped.batch()
    for selector in (0, 1, -1):
        model = small(ft_proj_selector=selector)
        layers = model.projection(model.encoder(images))
        expected = np.array(layers[selector]) @ np.array(model.head.kernel) + np.array(model.head.bias)
        np.testing.assert_allclose(model(images), expected, rtol=1e-5)
        np.testing.assert_allclose(model.network()(images)["logits_sup"], expected, rtol=1e-5)


def test_a_zero_classifier_starts_at_the_entropy_of_a_guess():
    model = Classifier(grouped.encoder(), num_classes=3, zero_init=True, weight_decay=1e-3)
    model.compile(optimizers.LARS(0.1, weight_decay=1e-3), run_eagerly=True)
    logs = model.train_on_batch(*grouped.batch(), return_dict=True)
    np.testing.assert_allclose(logs["loss"], np.log(3), rtol=1e-6)
    assert logs["weight_decay"] == 0


@pytest.mark.parametrize(("code", "block"), [("still", 2), ("tf1", 2), ("tf2", -1)])
def test_weight_decay_is_half_the_squared_length_of_what_trains(code, block):
    """TF1's loss counts what is frozen, too (docs/official-code.md#weight-decay); BatchNorm never is."""
    model = small(fine_tune_after_block=block, frozen_layers=code, weight_decay=0.1, ft_proj_selector=2)
    parts = {
        "still": ("group3", "group4", "proj1", "proj2"),
        "tf1": (*GROUPS, *PROJECTION),
        "tf2": (*GROUPS, *PROJECTION),
    }
    decayed = of(*parts[code], "logits_sup", kinds=("kernel", "bias"))
    weights = network.weights_by_name(model)
    expected = 0.05 * sum(np.sum(np.square(np.array(weights[name], np.float64))) for name in decayed)
    model.compile("sgd", run_eagerly=True)
    np.testing.assert_allclose(
        model.test_on_batch(*grouped.batch(), return_dict=True)["weight_decay"], expected, rtol=1e-5
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda rate: keras.optimizers.SGD(rate, 0.9, nesterov=True),
        lambda rate: optimizers.Momentum(rate),
        lambda rate: optimizers.LARS(rate, weight_decay=0.01),
        lambda rate: optimizers.AdamW(rate, weight_decay=0.1),
    ],
)
def test_a_layerwise_optimizer_is_one_optimizer_a_layer_with_its_own_rate(make):
    rng = np.random.default_rng(0)
    start = {
        name: rng.standard_normal((2, 3)).astype("float32") for name in ("stem_conv1", "proj1_dense", "logits_sup")
    }
    together, apart = variables(start), variables(start)

    def factor(name):
        return depth_factor(name, 0.5)

    one = layerwise(make(0.1), factor)
    many = [make(0.1 * factor(name)) for name in start]
    for _ in range(3):
        gradients = [tf.constant(rng.standard_normal((2, 3)), tf.float32) for _ in start]
        one.apply(gradients, together)
        for gradient, variable, optimizer in zip(gradients, apart, many, strict=True):
            optimizer.apply([gradient], [variable])
    for a, b in zip(apart, together, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7, err_msg=a.path)


def test_keras_own_weight_decay_is_refused_because_it_knows_no_factors():
    with pytest.raises(InputError, match="without Keras' own weight decay"):
        layerwise(keras.optimizers.AdamW(0.1), lambda name: 1.0)


def variables(values) -> list[keras.Variable]:
    """Variables `layer/kernel`."""
    found = []
    for name, value in values.items():
        with keras.name_scope(name):
            found.append(keras.Variable(value, name="kernel"))
    return found


def test_the_loss_is_computed_in_full_precision_of_a_network_that_is_not():
    with precision("bfloat16"):
        model = small(weight_decay=1e-3)
    assert model(grouped.batch()[0]).dtype == "bfloat16"
    model.compile("sgd", run_eagerly=True)
    logits = np.array(keras.ops.cast(model(grouped.batch()[0]), "float32"), np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[range(8), grouped.batch()[1]]
    found = model.test_on_batch(*grouped.batch(), return_dict=True)["supervised_loss"]
    np.testing.assert_allclose(found, losses.mean(), rtol=1e-6)


def on_devices(count, *, make):
    """Weights and logs after two steps of `fit` on so many replicas."""
    strategy = tf.distribute.MirroredStrategy(
        [f"CPU:{i}" for i in range(count)], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )
    with strategy.scope():
        model = grouped.randomise(make())
        model.compile(keras.optimizers.SGD(0.1, 0.9))
    logs = [model.train_on_batch(*grouped.batch(seed=step), return_dict=True) for step in range(2)]
    return {name: np.array(w) for name, w in network.weights_by_name(model).items()}, logs


def test_two_replicas_equal_one(float64):
    def make():
        return Classifier(grouped.encoder(), grouped.head(), num_classes=3, ft_proj_selector=1, weight_decay=0.01,
                          fine_tune_after_block=1)  # fmt: skip

    (alone, logs), (shared, shared_logs) = (on_devices(count, make=make) for count in (1, 2))
    for name, weight in alone.items():
        np.testing.assert_allclose(shared[name], weight, rtol=1e-9, atol=1e-12, err_msg=name)
    np.testing.assert_allclose(shared_logs[0]["loss"], logs[0]["loss"], rtol=1e-5)


def test_a_saved_classifier_trains_on_as_if_it_had_never_stopped(tmp_path):
    model = small(fine_tune_after_block=2, ft_proj_selector=1, weight_decay=1e-3)
    model.compile(optimizers.LARS(0.3, weight_decay=1e-3), run_eagerly=True)
    model.train_on_batch(*grouped.batch())
    model.save(tmp_path / "classifier.keras")
    again = keras.saving.load_model(tmp_path / "classifier.keras")
    again.run_eagerly = True
    for one in (model, again):
        one.train_on_batch(*grouped.batch(seed=1))
    for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_network_that_leaves_trains_as_a_whole():
    model = small(fine_tune_after_block=4)
    model.compile("sgd")
    assert len(model.trainable_variables) == 2
    whole = thaw(model.network())
    assert len(whole.trainable_variables) == len(
        Classifier(grouped.encoder(), grouped.head(), num_classes=3).trainable_variables
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"fine_tune_after_block": 5}, r"fine_tune_after_block must lie in -1\.\.4"),
        ({"ft_proj_selector": 4}, r"ft_proj_selector must lie in -4\.\.3"),
        ({"frozen_layers": "tf3"}, "frozen_layers must be still, tf1 or tf2"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0"),
    ],
)
def test_values_out_of_range_are_refused(options, sentence):
    with pytest.raises(InputError, match=sentence):
        Classifier(grouped.encoder(), grouped.head(), num_classes=3, **options)


def test_an_encoder_without_groups_can_only_be_frozen_as_a_whole():
    plain = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    Classifier(plain, num_classes=3, fine_tune_after_block=4)
    with pytest.raises(InputError, match="must be -1 or 4 for an encoder without block groups"):
        Classifier(plain, num_classes=3, fine_tune_after_block=2)


def test_batches_without_labels_are_refused():
    model = Classifier(grouped.encoder(), num_classes=3)
    model.compile("sgd", run_eagerly=True)
    with pytest.raises(InputError, match="Classifier needs labels"):
        model.train_on_batch(grouped.batch()[0])


def test_the_masked_loss_is_the_mean_over_images_of_known_cross_entropies_by_hand():
    rng = np.random.default_rng(0)
    images, labels = rng.uniform(size=(6, 8, 8, 3)).astype(np.float32), rng.integers(-1, 2, (6, 4))
    labels[0] = -1
    inputs = keras.Input((8, 8, 3))
    encoder = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(5, 3)(inputs)))
    model = MultiLabelClassifier(encoder, num_classes=4)
    model.compile(keras.optimizers.SGD(0.5))
    logits = model.predict(images, verbose=0)
    chance = 1 / (1 + np.exp(-logits))
    losses = -np.where(labels > 0, np.log(chance), np.log(1 - chance)) * (labels >= 0)
    found = model.evaluate(images, labels, verbose=0, return_dict=True)
    assert found["supervised_loss"] == pytest.approx(losses.sum() / 24, rel=1e-4)
    right = ((logits > 0) == (labels > 0)) & (labels >= 0)
    assert found["supervised_acc"] == pytest.approx(right.sum() / (labels >= 0).sum(), rel=1e-4)
    before = found["supervised_loss"]
    model.fit(images, labels, epochs=3, batch_size=6, verbose=0)
    assert model.evaluate(images, labels, verbose=0, return_dict=True)["supervised_loss"] < before


def test_an_unknown_finding_moves_no_weight():
    inputs = keras.Input((8, 8, 3))
    encoder = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs))
    model = MultiLabelClassifier(encoder, num_classes=2)
    model.compile(keras.optimizers.SGD(0.5))
    images = np.random.default_rng(1).uniform(size=(4, 8, 8, 3)).astype(np.float32)
    model.train_on_batch(images, np.full((4, 2), -1))
    before = model.head.get_weights()[0]
    model.train_on_batch(images, np.array([[1, -1], [0, -1], [1, -1], [1, -1]]))
    after = model.head.get_weights()[0]
    np.testing.assert_array_equal(after[:, 1], before[:, 1])
    assert (after[:, 0] != before[:, 0]).all()
    with pytest.raises(InputError, match="rows of 2 findings"):
        model.train_on_batch(images, np.zeros((4, 3), int))


def test_one_finding_is_enough_for_a_model_of_findings_and_one_class_for_none():
    inputs = keras.Input((8, 8, 3))
    encoder = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs))
    model = MultiLabelClassifier(encoder, num_classes=1)
    model.compile(keras.optimizers.SGD(2.0))
    images = np.random.default_rng(1).uniform(size=(16, 8, 8, 3)).astype(np.float32)
    labels = np.arange(16)[:, None] % 2
    images[labels[:, 0] == 1] *= 0.5
    model.fit(images, labels, epochs=40, batch_size=16, verbose=0)
    assert model.evaluate(images, labels, verbose=0, return_dict=True)["supervised_acc"] == 1
    with pytest.raises(InputError, match="at least 1: the findings"):
        MultiLabelClassifier(encoder, num_classes=0)
    with pytest.raises(InputError, match="at least 2"):
        Classifier(encoder, num_classes=1)
