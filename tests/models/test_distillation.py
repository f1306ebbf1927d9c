"""Learning from a teacher, against NumPy: Equations 2 and 3 of SimCLRv2."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.models import grouped
from tests.models.test_classifier import on_devices
from tf_simclr.errors import InputError
from tf_simclr.models import network
from tf_simclr.models.distillation import Distiller, distillation_loss


def log_softmax(logits):
    """In double precision."""
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def equation_2(teacher, student, temperature):
    """Of each image, `(n,)`."""
    return -(np.exp(log_softmax(teacher / temperature)) * log_softmax(student / temperature)).sum(axis=1)


def equation_3(teacher, student, labels, *, temperature, alpha):
    """The sum over all images and the sum over those with labels, both over the number of all."""
    known = labels >= 0
    cross_entropies = -log_softmax(student)[known, labels[known]]
    return alpha * equation_2(teacher, student, temperature).mean() + (1 - alpha) * cross_entropies.sum() / len(labels)


@pytest.fixture(scope="module")
def teacher():
    return keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(3, name="logits_sup")])


def small(**options) -> Distiller:
    model = grouped.randomise(Distiller(grouped.encoder(), num_classes=3, **options))
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    return model


@pytest.mark.parametrize("temperature", [0.1, 1.0, 4.0])
def test_the_loss_is_equation_2(temperature):
    rng = np.random.default_rng(0)
    teacher, student = rng.standard_normal((2, 6, 5))
    found = distillation_loss(teacher, student, temperature=temperature)
    np.testing.assert_allclose(found, equation_2(teacher, student, temperature), rtol=1e-5)


def test_labels_are_mixed_in_as_equation_3_says(teacher):
    images, labels = grouped.batch()
    labels[::2] = -1
    model = small(teacher=teacher, alpha=0.3, temperature=2.0)
    student, wanted = model(images, training=True), np.array(teacher(images))
    expected = equation_3(wanted, np.array(student), labels, temperature=2.0, alpha=0.3)
    logs = model.train_on_batch(images, labels, return_dict=True)
    np.testing.assert_allclose(logs["loss"], expected, rtol=1e-5)
    chosen = np.array(student).argmax(axis=1)
    np.testing.assert_allclose(logs["agreement"], (chosen == wanted.argmax(axis=1)).mean(), rtol=1e-6)
    np.testing.assert_allclose(logs["supervised_acc"], (chosen == labels)[labels >= 0].mean(), rtol=1e-6)
    np.testing.assert_allclose(
        logs["supervised_loss"], -log_softmax(student)[range(8), labels][labels >= 0].mean(), rtol=1e-5
    )


def test_alpha_1_is_equation_2_whatever_the_labels(teacher):
    images, labels = grouped.batch()
    logs = []
    for batch in ((images,), (images, labels)):
        model = small(teacher=teacher)
        logs.append(model.train_on_batch(*batch, return_dict=True))
    assert logs[0] == logs[1]
    assert sorted(logs[0]) == ["agreement", "distillation_loss", "loss", "weight_decay"]


def test_cached_answers_teach_as_the_teacher_itself(teacher):
    images, labels = grouped.batch()
    present, absent = small(teacher=teacher, alpha=0.5), small(alpha=0.5)
    present.train_on_batch(images, labels)
    absent.train_on_batch(images, {"label": labels, "teacher_logits": np.array(teacher(images))})
    for a, b in zip(present.get_weights(), absent.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_the_teacher_is_neither_trained_nor_a_part_of_the_student(teacher):
    before = [np.array(weight) for weight in teacher.get_weights()]
    model = small(teacher=teacher)
    names = network.weights_by_name(model)
    assert len(names) == len(model.weights) == len(network.weights_by_name(small()))
    model.train_on_batch(grouped.batch()[0])
    for a, b in zip(before, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_two_replicas_equal_one(float64):
    def make():
        # Without a model as teacher: the first test of Classifier's shows the rest.
        def teach(images):
            return tf.reduce_mean(images, axis=(1, 2)) * 9

        return Distiller(grouped.encoder(), num_classes=3, teacher=teach, alpha=0.5, temperature=0.5, weight_decay=0.01)

    (alone, logs), (shared, shared_logs) = (on_devices(count, make=make) for count in (1, 2))
    for name, weight in alone.items():
        np.testing.assert_allclose(shared[name], weight, rtol=1e-9, atol=1e-12, err_msg=name)
    for metric in ("loss", "distillation_loss", "agreement"):
        np.testing.assert_allclose(shared_logs[0][metric], logs[0][metric], rtol=1e-5, err_msg=metric)


def test_batches_that_nobody_answers_are_refused():
    with pytest.raises(InputError, match="Distiller needs a teacher, or batches of"):
        small().train_on_batch(grouped.batch()[0])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [({"temperature": 0.0}, "temperature must be above 0"), ({"alpha": 0.0}, r"alpha must lie in \(0, 1\]")],
)
def test_values_out_of_range_are_refused(options, sentence):
    with pytest.raises(InputError, match=sentence):
        Distiller(grouped.encoder(), num_classes=3, **options)


def test_a_saved_student_learns_on_by_the_same_temperature_and_alpha(tmp_path):
    small(temperature=0.5, alpha=0.7).save(tmp_path / "student.keras")
    again = keras.saving.load_model(tmp_path / "student.keras")
    assert (again.temperature, again.alpha, again.num_classes) == (0.5, 0.7, 3)
