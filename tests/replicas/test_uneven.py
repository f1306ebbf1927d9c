"""Sets that no number of replicas or batch divides: each example weighs the same, and what cannot be so is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.models import grouped
from tf_simclr import replicas
from tf_simclr.errors import InputError
from tf_simclr.models.classifier import Classifier, MultiLabelClassifier
from tf_simclr.models.distillation import Distiller
from tf_simclr.models.moco import MoCo
from tf_simclr.models.simclr import SimCLR

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(size=(11, 4, 4, 3)).astype("float32")
VIEWS = RNG.uniform(size=(11, 2, 4, 4, 3)).astype("float32")
LABELS = RNG.integers(0, 3, 11)
FINDINGS = RNG.integers(-1, 2, (11, 3))
FINDINGS[[2, 6]] = -1  # nothing is known of two images
SIZES = [(11, 4), (7, 6), (5, 3), (1, 4)]
"""Examples, and how many are in a batch: the last batch gives replicas unequal parts, or none."""


def on(count: int):
    """The scope of so many replicas."""
    if count == 1:
        return replicas.ONE_DEVICE.scope()
    names = [f"CPU:{i}" for i in range(count)]
    return tf.distribute.MirroredStrategy(names, cross_device_ops=tf.distribute.ReductionToOneDevice()).scope()


def made(kind: str, count: int):
    """A model with random weights, the same for any number of replicas, and a teacher."""
    keras.utils.set_random_seed(0)
    teacher = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(3)])
    with on(count):
        if kind == "Classifier":
            model = Classifier(grouped.encoder(), num_classes=3)
            model.compile("sgd", metrics=["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2")])
        elif kind == "MultiLabelClassifier":
            model = MultiLabelClassifier(grouped.encoder(), num_classes=3)
            model.compile("sgd")
        elif kind == "Distiller":
            model = Distiller(grouped.encoder(), teacher=teacher, num_classes=3)
            model.compile("sgd")
        else:
            options = {"queue_length": 16} if kind == "MoCo" else {}
            model = {"MoCo": MoCo, "SimCLR": SimCLR}[kind](grouped.encoder(), grouped.head(), num_classes=3, **options)
            model.compile("sgd", metrics=["accuracy"])
    return model, teacher


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def expected_of_labels(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Means over examples in NumPy."""
    losses = -np.take_along_axis(log_softmax(logits), labels[:, None], axis=1)
    right = logits.argmax(axis=1) == labels
    second = (np.argsort(-logits, axis=1)[:, :2] == labels[:, None]).any(axis=1)
    return {
        "supervised_loss": losses.mean(),
        "supervised_acc": right.mean(),
        "accuracy": right.mean(),
        "top2": second.mean(),
    }


def expected_of_findings(logits: np.ndarray, rows: np.ndarray) -> dict[str, float]:
    """Unknown findings count nowhere."""
    known = rows >= 0
    losses = np.where(known, np.logaddexp(0, logits) - logits * (rows == 1), 0).sum(axis=1) / 3
    right = ((logits > 0) == (rows == 1))[known]
    return {"supervised_loss": losses.mean(), "supervised_acc": right.mean() if known.any() else 0.0}


KINDS = ("Classifier", "MultiLabelClassifier", "Distiller", "MoCo")
QUICK = [("Classifier", 3), ("MultiLabelClassifier", 1)]
MATRIX = [(kind, count) for kind in KINDS for count in (1, 2, 3)]


@pytest.mark.parametrize(
    ("kind", "count"), [pytest.param(*one, marks=() if one in QUICK else pytest.mark.slow) for one in MATRIX]
)
def test_each_example_weighs_the_same(kind, count):
    model, teacher = made(kind, count)
    for n, batch_size in SIZES:
        x, y = (VIEWS if kind == "MoCo" else IMAGES)[:n], (FINDINGS if kind == "MultiLabelClassifier" else LABELS)[:n]
        logs = model.evaluate(x, y, batch_size=batch_size, verbose=0, return_dict=True)
        if kind == "MoCo":
            logits = np.asarray(model.probe(model.encoder(x[:, 0])), "float64")  # the queries' alone
            expected = expected_of_labels(logits, y)
            expected.pop("top2")
        elif kind == "Distiller":
            said, asked = (np.asarray(of(x), "float64") for of in (model, teacher))
            losses = -(np.exp(log_softmax(asked)) * log_softmax(said)).sum(axis=1)
            expected = {"distillation_loss": losses.mean(), "agreement": (said.argmax(1) == asked.argmax(1)).mean()}
        else:
            of = expected_of_labels if kind == "Classifier" else expected_of_findings
            expected = of(np.asarray(model(x), "float64"), y)
        for name, value in expected.items():
            np.testing.assert_allclose(
                logs[name], value, rtol=2e-5, atol=1e-6, err_msg=f"{name} of {n} by {batch_size}"
            )


def trained(kind: str, count: int) -> tuple[dict, list[np.ndarray]]:
    """History and weights of two epochs of seven examples by four, of which the last one has three."""
    model, _ = made(kind, count)
    y = FINDINGS if kind == "MultiLabelClassifier" else LABELS
    history = model.fit(IMAGES[:7], y[:7], batch_size=4, epochs=2, shuffle=False, verbose=0).history
    return history, model.get_weights()


@pytest.mark.parametrize(
    ("kind", "counts"),
    [
        ("Classifier", (3,)),
        pytest.param("Classifier", (2, 4), marks=pytest.mark.slow),
        pytest.param("MultiLabelClassifier", (2, 3), marks=pytest.mark.slow),
        pytest.param("Distiller", (2, 3), marks=pytest.mark.slow),
    ],
)
def test_training_is_that_of_one_device_however_a_batch_is_divided(kind, counts):
    """On three replicas four examples are two, two and none; on two three are two and one."""
    history, weights = trained(kind, 1)
    for count in counts:
        found = trained(kind, count)
        for name, values in history.items():
            np.testing.assert_allclose(found[0][name], values, rtol=1e-5, atol=1e-6, err_msg=f"{name} on {count}")
        for one, other in zip(weights, found[1], strict=True):
            np.testing.assert_allclose(other, one, rtol=1e-4, atol=2e-5)


class Alone(keras.losses.Loss):
    """A loss of somebody's own, which looks at one replica's pairs."""

    def call(self, y_true, y_pred):
        return keras.ops.sum(keras.ops.square(y_true - y_pred), axis=1)


@pytest.mark.parametrize("kind", ["SimCLR", pytest.param("MoCo", marks=pytest.mark.slow)])
def test_training_on_pairs_that_are_divided_unevenly_is_refused_and_leaves_the_weights(kind):
    model, _ = made(kind, 2)
    for loss in [None, Alone()] if kind == "SimCLR" else [None]:
        model.compile("sgd", loss=loss)
        before = model.get_weights()
        with pytest.raises(InputError, match=r"batches that 2 replicas compare .* must give each the same number"):
            model.fit(VIEWS[:3], LABELS[:3], batch_size=4, verbose=0)
        for one, other in zip(before, model.get_weights(), strict=True):
            np.testing.assert_allclose(other, one, rtol=1e-6)  # MoCo's keys may follow what stands still
    with pytest.raises(InputError, match="2 replicas must share a batch evenly"):
        model.train_on_batch(VIEWS[:3], LABELS[:3])


@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_what_replicas_compare_with_one_another_must_be_divided_evenly(count):
    model, _ = made("SimCLR", count)
    for n, batch_size in SIZES[:2]:
        with pytest.raises(
            InputError, match=f"batches that {count} replicas compare .* must give each the same number"
        ):
            model.evaluate(VIEWS[:n], LABELS[:n], batch_size=batch_size, verbose=0)
    even = 2 * count
    logs = model.evaluate(VIEWS[:even], LABELS[:even], batch_size=even, verbose=0, return_dict=True)
    alone, _ = made("SimCLR", 1)
    alone.set_weights(model.get_weights())
    expected = alone.evaluate(VIEWS[:even], LABELS[:even], batch_size=even, verbose=0, return_dict=True)
    for name, value in expected.items():
        np.testing.assert_allclose(logs[name], value, rtol=1e-4, atol=1e-6, err_msg=name)


def test_a_batch_that_jaxs_devices_cannot_share_is_one_sentence():
    with pytest.raises(InputError, match="JAX's devices must share each batch evenly"), replicas.evenly(keras.Model()):
        raise type("IndivisibleError", (ValueError,), {})("axis 0 is partitioned 3 times, but the size is 4")
    with pytest.raises(ValueError, match="another"), replicas.evenly(keras.Model()):
        raise ValueError("another")
