"""What users give beside images – labels, weights, metrics, projections, temperatures – is used, or answered."""

import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from tf_simclr import Classifier, Distiller, SimCLR, losses
from tf_simclr.config import Pretrain
from tf_simclr.errors import InputError
from tf_simclr.models.classifier import MultiLabelClassifier
from tf_simclr.models.distillation import distillation_loss
from tf_simclr.models.moco import MoCo
from tf_simclr.models.normalization import Normalization
from tf_simclr.models.resnet import projection_head

rng = np.random.default_rng(0)
IMAGES = rng.uniform(size=(10, 8, 8, 3)).astype("float32")
VIEWS = np.stack([IMAGES, IMAGES[::-1]], axis=1)
LABELS = np.arange(10) % 3
ONE_HOT = np.eye(3, dtype="float32")[LABELS]
LABEL_RULE = "labels must be integers from 0 to 2, or rows of 3 shares"


def encoder() -> keras.Model:
    return keras.Sequential([keras.Input((8, 8, 3)), layers.Flatten(), layers.Dense(6)], name="encoder")


def classifier(**options) -> Classifier:
    keras.utils.set_random_seed(1)
    model = Classifier(encoder(), num_classes=3)
    model.head.kernel.assign(rng.normal(size=(6, 3)))
    model.compile(keras.optimizers.SGD(0.1), **options)
    return model


def simclr(num_classes: int = 3, projection=None, **options) -> SimCLR:
    model = SimCLR(encoder(), projection, num_classes=num_classes)
    model.compile(keras.optimizers.SGD(0.1), **options)
    return model


def distiller(alpha: float = 0.5, **options) -> Distiller:
    model = Distiller(encoder(), teacher=lambda x: ops.mean(x, (1, 2)), num_classes=3, alpha=alpha)
    model.compile(keras.optimizers.SGD(0.1), **options)
    return model


def cross_entropy(logits) -> np.ndarray:
    logits = np.asarray(logits, "float64")
    return np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(logits)), LABELS]


@pytest.mark.parametrize("labels", [LABELS, LABELS[:, None], ONE_HOT, LABELS.astype("float32")])
def test_labels_in_every_form_are_the_same(labels):
    model = classifier()
    logits = model(IMAGES)
    logs = model.evaluate(IMAGES, labels, batch_size=4, verbose=0, return_dict=True)
    np.testing.assert_allclose(logs["supervised_loss"], cross_entropy(logits).mean(), rtol=1e-5)
    np.testing.assert_allclose(logs["supervised_acc"], (np.argmax(logits, 1) == LABELS).mean(), rtol=1e-6)
    probe = simclr()
    before = probe.evaluate(VIEWS, LABELS, batch_size=5, verbose=0, return_dict=True)
    assert probe.evaluate(VIEWS, labels, batch_size=5, verbose=0, return_dict=True) == before


def test_shares_may_be_mixed_smoothed_and_half_precise():
    model = classifier()
    shares = (0.9 * ONE_HOT + 0.1 / 3).astype("float16")
    logits = np.asarray(model(IMAGES), "float64")
    expected = (shares * (np.log(np.exp(logits).sum(axis=1, keepdims=True)) - logits)).sum(axis=1).mean()
    logs = model.evaluate(IMAGES, shares, verbose=0, return_dict=True)
    np.testing.assert_allclose(logs["supervised_loss"], expected, rtol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 3, 4, 7, 10])
def test_evaluate_weighs_examples_not_batches(batch_size):
    """Ten examples in batches of four are two of four and one of two, which counted as much."""
    model = classifier(metrics=["accuracy"], weighted_metrics=["accuracy"])
    logits = model(IMAGES)
    logs = model.evaluate(IMAGES, LABELS, batch_size=batch_size, verbose=0, return_dict=True)
    expected = cross_entropy(logits).mean()
    np.testing.assert_allclose([logs["loss"], logs["supervised_loss"]], expected, rtol=1e-5)
    np.testing.assert_allclose(logs["accuracy"], logs["supervised_acc"], rtol=1e-6)
    student = distiller()
    whole = student.evaluate(IMAGES, LABELS, batch_size=10, verbose=0, return_dict=True)
    parts = student.evaluate(IMAGES, LABELS, batch_size=batch_size, verbose=0, return_dict=True)
    for name in whole:
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-5, err_msg=name)


@pytest.mark.parametrize(("rows", "batch_size"), [(10, 4), (9, 4), (7, 6)])
def test_replicas_weigh_examples_too(rows, batch_size):
    """The last batch gives replicas unequal parts, or none."""
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice())
    with strategy.scope():
        model = classifier(metrics=["accuracy"])
    alone = classifier(metrics=["accuracy"])
    alone.set_weights(model.get_weights())
    expected = alone.evaluate(IMAGES[:rows], LABELS[:rows], batch_size=rows, verbose=0, return_dict=True)
    logs = model.evaluate(IMAGES[:rows], LABELS[:rows], batch_size=batch_size, verbose=0, return_dict=True)
    for name, value in expected.items():
        np.testing.assert_allclose(logs[name], value, rtol=1e-5, err_msg=name)


def test_weights_of_classes_and_examples_weigh_the_loss():
    weights = np.array([1.0, 2.0, 0.5])
    model = classifier()
    expected = (weights[LABELS] * cross_entropy(model(IMAGES))).mean()
    logs = model.evaluate(IMAGES, LABELS, sample_weight=weights[LABELS], verbose=0, return_dict=True)
    np.testing.assert_allclose(logs["supervised_loss"], expected, rtol=1e-5)
    for labels in (LABELS, ONE_HOT):
        model = classifier()
        expected = (weights[LABELS] * cross_entropy(model(IMAGES))).mean()
        logs = model.fit(IMAGES, labels, batch_size=10, class_weight=dict(enumerate(weights)), verbose=0).history
        np.testing.assert_allclose(logs["supervised_loss"][0], expected, rtol=1e-5)


def test_compiled_metrics_are_those_of_the_logits():
    history = simclr(metrics=["accuracy"]).fit(VIEWS, LABELS, verbose=0).history
    np.testing.assert_allclose(history["accuracy"], history["supervised_acc"], rtol=1e-6)
    model = classifier(metrics=["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2")])
    logs = model.evaluate(IMAGES, LABELS, verbose=0, return_dict=True)
    best = np.argsort(-np.asarray(model(IMAGES)), axis=1)[:, :2]
    np.testing.assert_allclose(logs["top2"], (best == LABELS[:, None]).any(axis=1).mean(), rtol=1e-6)


NO_LABELS = {
    "halves": LABELS + 0.5,
    "no numbers": np.where(LABELS == 1, np.nan, LABELS.astype("float32")),
    "words": LABELS.astype(str),
    "two classes at once": ONE_HOT + np.roll(ONE_HOT, 1, axis=1),
    "negative shares": 2 * ONE_HOT - np.roll(ONE_HOT, 1, axis=1),
    "rows without a number": ONE_HOT * np.nan,
    "complex numbers": LABELS.astype("complex64"),
}


@pytest.mark.parametrize("stream", [False, True], ids=["array", "stream"])
@pytest.mark.parametrize("kind", NO_LABELS)
def test_what_is_no_label_is_said(kind, stream):
    labels = NO_LABELS[kind]
    given = (tf.data.Dataset.from_tensor_slices((IMAGES, labels)).batch(5),) if stream else (IMAGES, labels)
    with pytest.raises(InputError, match=rf"^{re.escape(LABEL_RULE)}"):
        classifier().evaluate(*given, verbose=0)


@pytest.mark.parametrize("labels", [LABELS.astype(object), LABELS.astype("uint8"), ONE_HOT.astype("int64")])
def test_labels_of_other_types_are_the_same(labels):
    model = classifier()
    expected = model.evaluate(IMAGES, LABELS, verbose=0)
    np.testing.assert_allclose(model.evaluate(IMAGES, labels, verbose=0), expected, rtol=1e-6)
    if labels.dtype != object:
        stream = tf.data.Dataset.from_tensor_slices((IMAGES, labels)).batch(10)
        np.testing.assert_allclose(model.evaluate(stream, verbose=0), expected, rtol=1e-6)


@pytest.mark.parametrize("stream", [False, True], ids=["array", "stream"])
@pytest.mark.parametrize("wrong", [2, 0.5, np.nan, -2])
def test_findings_that_are_none_are_said(wrong, stream):
    model = MultiLabelClassifier(encoder(), num_classes=3)
    model.compile("sgd")
    rows = np.array(ONE_HOT)
    model.evaluate(IMAGES, rows, verbose=0)
    rows[3, 1] = wrong
    given = (tf.data.Dataset.from_tensor_slices((IMAGES, rows)).batch(5),) if stream else (IMAGES, rows)
    with pytest.raises(InputError, match=r"^labels must be rows of 3 findings: 1 present, 0 absent, -1 unknown\. Rec"):
        model.evaluate(*given, verbose=0)


@pytest.mark.parametrize(
    "weights", [{"0": 1.0}, {7: 1.0}, {-1: 1.0}, {0: -1.0}, {0: np.nan}, {0: "x"}, [1.0, 1.0, 1.0], {0.5: 1}]
)
def test_weights_of_classes_that_would_count_for_nothing_are_said(weights):
    """Keras leaves classes out that it does not find, in silence."""
    with pytest.raises(InputError, match="class_weight must give numbers of at least 0 to classes from 0 to 2"):
        classifier().fit(IMAGES, LABELS, class_weight=weights, verbose=0)


def test_weights_of_classes_are_refused_for_shares_of_several():
    """Keras took the largest share's weight for all of the row."""
    shares = 0.7 * ONE_HOT + 0.1
    with pytest.raises(InputError, match="class_weight needs labels of one class each"):
        classifier().fit(IMAGES, shares, class_weight={0: 2.0}, verbose=0)
    classifier().fit(IMAGES, shares, sample_weight=np.ones(10), verbose=0)


@pytest.mark.parametrize(
    "weights", [np.full(10, np.nan), -np.ones(10), np.ones((10, 3)), np.array(["1"] * 10), np.full(10, np.inf)]
)
def test_weights_of_examples_that_are_none_are_said(weights):
    rule = "sample_weight must be one number of at least 0 for each example"
    for way in ("fit", "evaluate", "train_on_batch", "test_on_batch"):
        quiet = {} if way.endswith("batch") else {"verbose": 0}
        with pytest.raises(InputError, match=rule):
            getattr(classifier(), way)(IMAGES, LABELS, sample_weight=weights, **quiet)


@pytest.mark.parametrize(("make", "images"), [(classifier, IMAGES), (simclr, VIEWS)])
def test_images_in_integers_and_no_images_are_said(make, images):
    with pytest.raises(InputError, match="images must be floats in"):
        make().fit((255 * images).astype("uint8"), LABELS, verbose=0)
    with pytest.raises(InputError, match="there must be at least one example"):
        make().fit(images[:0], LABELS[:0], verbose=0)


def test_a_metric_that_cannot_take_what_there_is_is_said():
    with pytest.raises(InputError, match=r"each of compile's metrics must take labels \(10,\) and logits \(10, 3\)"):
        classifier(metrics=[keras.metrics.AUC()]).evaluate(IMAGES, LABELS, batch_size=10, verbose=0)


@pytest.mark.parametrize("wrong", [7, 3, -1])
@pytest.mark.parametrize("make", [classifier, simclr])
@pytest.mark.parametrize("kind", ["array", "stream", "compiled stream"])
def test_labels_beyond_the_classes_are_said(make, wrong, kind):
    labels = LABELS.copy()
    labels[4] = wrong
    images, stream = VIEWS if make is simclr else IMAGES, kind != "array"
    given = (tf.data.Dataset.from_tensor_slices((images, labels)).batch(5),) if stream else (images, labels)
    with pytest.raises(InputError, match=rf"^{re.escape(LABEL_RULE)}\. Received: labels=\[{wrong}\]$"):
        make(jit_compile=kind == "compiled stream").fit(*given, shuffle=not stream, verbose=0)


@pytest.mark.parametrize("batch", ["images", "images and labels"])
def test_a_compiled_step_refuses_labels_of_every_task_and_takes_what_is_right(batch):
    """XLA drops what TensorFlow asserts: rows that are no shares were learned from in silence."""
    shares, findings = ONE_HOT.copy(), ONE_HOT.copy()
    shares[4], findings[4] = 0.5, 3
    several = MultiLabelClassifier(encoder(), num_classes=3)
    several.compile("sgd", jit_compile=True)
    for model, labels, wrong in (
        (classifier(jit_compile=True), ONE_HOT, shares), (several, ONE_HOT, findings),
        (distiller(jit_compile=True), LABELS, LABELS - 2),
    ):  # fmt: skip
        right = IMAGES if batch == "images" else (IMAGES, labels)
        if batch == "images and labels" or isinstance(model, Distiller):
            stream = tf.data.Dataset.from_tensor_slices(right).batch(5)
            assert np.isfinite(model.fit(stream, shuffle=False, verbose=0).history["loss"][0])
        before = model.get_weights()
        with pytest.raises(InputError, match="labels must be"):
            model.fit(tf.data.Dataset.from_tensor_slices((IMAGES[4:], wrong[4:])).batch(5), shuffle=False, verbose=0)
        np.testing.assert_array_equal(before[0], model.get_weights()[0])


def test_an_image_without_a_label_counts_for_a_student_s_distillation_alone():
    labels = np.where(LABELS == 1, -1, LABELS)
    assert np.isfinite(distiller().fit(IMAGES, labels, verbose=0).history["loss"][0])
    with pytest.raises(InputError, match=r"labels must be integers from -1 to 2.*\[5\]"):
        distiller().fit(IMAGES, np.where(LABELS == 1, 5, LABELS), verbose=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: simclr().fit(VIEWS, verbose=0), "a probe of num_classes=3 needs labels"),
        (lambda: simclr().fit(VIEWS, LABELS, class_weight={0: 1.0}, verbose=0), "SimCLR takes no class_weight"),
        (lambda: simclr().fit(VIEWS, LABELS, sample_weight=LABELS, verbose=0), "SimCLR takes no sample_weight"),
        (lambda: simclr(0, metrics=["accuracy"]).fit(VIEWS, verbose=0), "metrics are of the probe: give num_classes"),
        (lambda: classifier(loss="mse"), "the loss of Classifier is the softmax cross entropy"),
        (lambda: classifier().fit(IMAGES, verbose=0), "Classifier needs labels"),
        (lambda: classifier().fit(IMAGES, ONE_HOT[:, :2], verbose=0), r"rows of 3 shares. Received: shape=\(None, 2\)"),
        (lambda: classifier().fit(IMAGES, LABELS + 0.5, verbose=0), "labels must be integers from 0 to 2"),
        (lambda: classifier().fit(IMAGES, LABELS.astype(str), verbose=0), r"from 0.*labels=\['0', '1', '2'\]"),
        (lambda: simclr().fit(VIEWS, LABELS.astype(str).astype("O"), verbose=0), r"from 0.*labels=\['0', '1', '2'\]"),
        (lambda: classifier().fit(IMAGES, 2 * ONE_HOT, verbose=0), r"rows of 3 shares.*labels=\[\[2.0, 0.0, 0.0\]\]"),
        (lambda: classifier().evaluate(IMAGES, ONE_HOT - 1 / 3, verbose=0), "rows of 3 shares.*labels=.*-0.3"),
        (lambda: simclr().fit(VIEWS, np.where(ONE_HOT == 1, np.nan, 0), verbose=0), "rows of 3 shares.*labels=.*nan"),
        (lambda: classifier().fit(VIEWS, LABELS, verbose=0), r"Classifier takes images \(n, h, w, 3\), not views"),
        (lambda: distiller().evaluate(VIEWS, LABELS, verbose=0), r"Distiller takes images .*views\[:, 0\]"),
        (lambda: Classifier(encoder(), num_classes=1), "num_classes must be at least 2: of one, every guess is right"),
        (lambda: simclr(projection=layers.Reshape((2, 3))), "projection must give"),
        (lambda: teacher(5), r"a teacher must give logits \(n, num_classes=3\). Received: shape=\(None, 5\)"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_said_in_one_sentence(call, message):
    with pytest.raises(InputError, match=message):
        call()


def teacher(width: int):
    model = Distiller(encoder(), teacher=lambda x: ops.zeros((ops.shape(x)[0], width)), num_classes=3)
    model.compile("sgd")
    model.fit(IMAGES, verbose=0)


@pytest.mark.parametrize("form", ["tensor", "list", "sequential", "layer"])
@pytest.mark.parametrize("kind", [SimCLR, MoCo, Classifier])
def test_a_projection_may_give_its_last_output_alone(form, kind):
    """`projection(…)[-1]` was the last example's row."""
    features = keras.Input((6,))
    z = layers.Dense(4)(features)
    make = {
        "tensor": lambda: keras.Model(features, z),
        "list": lambda: keras.Model(features, [features, z]),
        "sequential": lambda: keras.Sequential([layers.Dense(4)]),
        "layer": lambda: layers.Dense(4),
    }[form]
    if kind is Classifier:
        model = Classifier(encoder(), make(), num_classes=3, ft_proj_selector=1)
        assert model.head.kernel.shape == (4, 3)
        batch = IMAGES
    else:
        model = kind(encoder(), make(), **{"queue_length": 8} if kind is MoCo else {})
        assert model(VIEWS)["projections"].shape == (10, 2, 4)
        batch = VIEWS
    model.compile(keras.optimizers.SGD(0.1))
    assert np.isfinite(model.fit(batch, LABELS, verbose=0).history["loss"][0])
    assert model.network()(IMAGES)["proj_head_output"].shape == (10, 4)


def test_layers_that_the_user_has_frozen_stay_frozen():
    part = encoder()
    part.trainable = False
    before = part.get_weights()
    model = Classifier(part, num_classes=3)
    model.compile(keras.optimizers.SGD(1.0))
    model.fit(IMAGES, LABELS, verbose=0)
    for a, b in zip(before, part.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("temperature", [0, -1, float("nan"), float("inf"), 1e-40, 1e-9, "0.1", None])
@pytest.mark.parametrize(
    "make", [losses.NTXent, losses.NTLogistic, losses.DCL, losses.SupCon, losses.GeneralizedContrastive, losses.InfoNCE,
             lambda t: Distiller(encoder(), num_classes=3, temperature=t),
             lambda t: distillation_loss(IMAGES[:, 0, 0], IMAGES[:, 1, 1], temperature=t)],
)  # fmt: skip
def test_temperatures_that_overflow_are_refused(make, temperature):
    with pytest.raises(InputError, match=r"temperature must (be above 0|be a number|lie from 1e-08 to 1e\+15)"):
        make(temperature)


@pytest.mark.parametrize("temperature", [1e-8, 1e-4, 1e15])
@pytest.mark.parametrize("make", [losses.NTXent, losses.NTLogistic, losses.DCL, losses.GeneralizedContrastive])
def test_temperatures_that_are_taken_give_numbers(make, temperature):
    z = rng.normal(size=(2, 6, 4)).astype("float32")
    with tf.GradientTape() as tape:
        first = tf.constant(z[0])
        tape.watch(first)
        loss = make(temperature)(first, z[1])
    assert np.isfinite(loss)
    assert np.isfinite(tape.gradient(loss, first)).all()


def test_jax_says_the_same():
    pytest.importorskip("jax")
    code = """
import keras, numpy as np
from keras import layers
from tests.models import test_given as given
from tf_simclr.errors import InputError
for make, images in ((given.classifier, given.IMAGES), (given.simclr, given.VIEWS)):
    for wrong in (7, -1):
        labels = given.LABELS.copy(); labels[4] = wrong
        batches = [(images[:5], labels[:5]), (images[5:], labels[5:])]
        for data in ((images, labels), ((b for b in batches),)):
            try:
                make().fit(*data, verbose=0)
                print("not refused")
            except InputError as error:
                print(error)
model = given.classifier(metrics=["accuracy"])
logs = model.evaluate(given.IMAGES, given.ONE_HOT, batch_size=4, verbose=0, return_dict=True)
assert abs(logs["accuracy"] - logs["supervised_acc"]) < 1e-6, logs
history = given.simclr(projection=layers.Dense(4)).fit(given.VIEWS, given.LABELS, verbose=0).history
assert np.isfinite(history["loss"][0])
"""
    root = Path(__file__).parents[2]
    environment = os.environ | {"KERAS_BACKEND": "jax", "PYTHONPATH": str(root), "TF_CPP_MIN_LOG_LEVEL": "3"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, cwd=root, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    lines = run.stdout.splitlines()
    assert len(lines) == 8
    for line, wrong in zip(lines, (7, 7, -1, -1) * 2, strict=True):
        assert line == f"{LABEL_RULE}. Received: labels=[{wrong}]"


ALONE = "a batch must have at least two examples, as the loss compares each with the others"


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", ["last of arrays", "stream", "last of a stream", "last of a compiled", "a batch"])
def test_an_image_alone_in_its_batch_has_no_loss(kind, training):
    """The loss of one pair was 0, without a word, and nothing was learned."""
    model = simclr(num_classes=0, jit_compile=kind == "last of a compiled")
    stream = tf.data.Dataset.from_tensor_slices(VIEWS[:5])
    method = functools.partial(model.fit, shuffle=False) if training else model.evaluate
    run = {
        "last of arrays": lambda: method(VIEWS[:7], batch_size=3, verbose=0),
        "stream": lambda: method(stream.batch(1, drop_remainder=True), verbose=0),
        "last of a stream": lambda: method(stream.batch(4), verbose=0),
        "last of a compiled": lambda: method(stream.batch(4), verbose=0),
        "a batch": lambda: (model.train_on_batch if training else model.test_on_batch)(VIEWS[:1]),
    }[kind]
    before = model.get_weights()
    with pytest.raises(InputError, match=ALONE):
        run()
    if not kind.startswith("last of a "):  # whose first batch is as good as any
        for one, other in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
    assert np.isfinite(model.train_on_batch(VIEWS[:2])).all()  # and it goes on


@pytest.mark.filterwarnings("ignore:You are using a softmax")  # of the metrics, which are of one column
def test_a_loss_that_compares_with_others_than_the_batch_takes_an_image_alone():
    class Apart(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return ops.sum(ops.square(y_true - y_pred), axis=1)

    model = simclr(num_classes=0, projection=layers.Dense(4), loss=Apart())
    assert model.fit(VIEWS[:2], batch_size=1, verbose=0).history["loss"][0] > 0
    model = MoCo(encoder(), layers.Dense(4), queue_length=8)
    model.compile(keras.optimizers.SGD(0.1))
    assert model.fit(VIEWS[:2], batch_size=1, verbose=0).history["loss"][0] > 0
    with pytest.raises(InputError, match="train_batch_size must be at least 2"):
        Pretrain(train_batch_size=1)
    assert Pretrain(train_batch_size=1, method="moco").train_batch_size == 1


def test_pieces_of_one_image_are_refused_where_batch_norm_would_see_its_two_views_alone():
    """Of two rows it makes 1 and -1: each image's views were opposites, whatever it showed."""
    rule = "microbatch_size must be at least 2 with BatchNorm"
    with pytest.raises(InputError, match=rule):
        SimCLR(encoder(), microbatch_size=1)
    SimCLR(encoder(), layers.Dense(4), microbatch_size=1)


NORMALISED = "BatchNorm must see at least two examples at once, or an image is normalised by itself alone"
PIECES = "microbatch_size must be at least 3 with BatchNorm for a batch of an odd number of examples"


@pytest.mark.parametrize("kind", ["arrays", "stream", "a known size", "a batch"])
def test_an_image_alone_in_its_piece_is_refused_where_batch_norm_sees_a_piece(kind):
    """A batch of five in pieces of two has a piece of one, whose two views were each other's opposites."""
    stream = tf.data.Dataset.from_tensor_slices(VIEWS[:5])

    def run(model):
        return {
            "arrays": lambda: model.fit(VIEWS[:5], batch_size=5, verbose=0),
            "stream": lambda: model.fit(stream.batch(5), shuffle=False, verbose=0),
            "a known size": lambda: model.fit(stream.batch(5, drop_remainder=True), shuffle=False, verbose=0),
            "a batch": lambda: model.train_on_batch(VIEWS[:5]),
        }[kind]()

    def made(size: int, projection=None) -> SimCLR:
        model = SimCLR(encoder(), projection, microbatch_size=size)
        model.compile(keras.optimizers.SGD(0.1))
        return model

    model = made(2)
    before = model.get_weights()
    with pytest.raises(InputError, match=PIECES):
        run(model)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    model.evaluate(VIEWS[:5], batch_size=5, verbose=0)  # by moving statistics
    run(made(3))
    run(made(2, layers.Dense(4)))


def test_an_image_alone_on_its_replica_is_refused_where_batch_norm_sees_a_replica():
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice())

    def made(**options) -> SimCLR:
        with strategy.scope():
            model = SimCLR(encoder(), projection_head(6, normalization=Normalization(**options)))
            model.compile(keras.optimizers.SGD(0.1))
        return model

    with pytest.raises(InputError, match=NORMALISED):
        made(global_bn=False).train_on_batch(VIEWS[:2])
    assert made(global_bn=True).train_on_batch(VIEWS[:2])[0] > 0
    assert made(global_bn=False).train_on_batch(VIEWS[:4])[0] > 0


@pytest.mark.parametrize("kind", ["arrays", "stream", "last of a compiled stream"])
def test_a_query_alone_is_refused_where_batch_norm_would_make_it_nothing(kind):
    """Of one row BatchNorm makes 0: whatever MoCo's image showed, its projection was the same."""
    model = MoCo(encoder(), queue_length=8)
    model.compile(keras.optimizers.SGD(0.1), jit_compile="compiled" in kind)
    stream = tf.data.Dataset.from_tensor_slices(VIEWS[:5])
    given = {"arrays": VIEWS[:5], "stream": stream.batch(1)}.get(kind, stream.batch(4))
    options = {"batch_size": 4} if kind == "arrays" else {"shuffle": False}
    with pytest.raises(InputError, match=NORMALISED):
        model.fit(given, **options, verbose=0)
    assert np.isfinite(model.evaluate(VIEWS[:1], verbose=0)).all()
