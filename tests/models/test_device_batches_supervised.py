"""Classifiers and students on batches of which the step makes the images: equal to the host's crops and flips."""

from functools import partial

import keras
import numpy as np
import pytest

from tests.replicas import tiny
from tf_simclr.commands.supervised import _feed
from tf_simclr.config import Finetune
from tf_simclr.data import pipeline, sources, subsets
from tf_simclr.data.device_views import DeviceViews, Held
from tf_simclr.data.pipeline import Unreadable
from tf_simclr.models.classifier import Classifier
from tf_simclr.models.distillation import Distiller
from tf_simclr.replicas import Devices

SIZE = tiny.SIZE
RANDOM = np.random.RandomState(0)
PIXELS = RANDOM.randint(0, 256, (20, 12, 14, 3)).astype(np.uint8)
LABELS = RANDOM.randint(0, tiny.CLASSES, 20)
EQUAL = 1e-5


def streams(config: Finetune, *, held: bool):
    """The host's batches, and the device's with what makes the images of them."""
    source = sources.from_arrays(PIXELS, LABELS)
    small = subsets.in_pixels(source)
    own = DeviceViews(
        size=SIZE, recipe=pipeline.flips(config.augment), single=True, held=Held(small.pixels) if held else None
    )
    host = _feed(config, source, unreadable=Unreadable())
    return host, _feed(config, small if held else source, unreadable=Unreadable(), views_of=own), own


def knobs(**changes) -> Finetune:
    return Finetune(image_size=SIZE, train_batch_size=4, **changes)


@pytest.mark.parametrize("held", [False, True], ids=["brought", "held"])
@pytest.mark.parametrize("augment", [True, False])
def test_the_images_are_the_hosts(augment, held):
    host, device, views_of = streams(knobs(augment=augment), held=held)
    for step in (0, 7):
        pairs = zip(host(step).take(3), device(step).take(3), strict=True)
        for (images, labels), (batch, answers) in pairs:
            np.testing.assert_array_equal(labels, answers)
            np.testing.assert_allclose(views_of(batch), images, atol=EQUAL)


def teacher(images):
    return keras.ops.mean(images, (1, 2)) * np.array([3.0, -2.0, 1.0], "float32")


KINDS = {"classifier": Classifier, "student": partial(Distiller, teacher=teacher, alpha=0.5)}


@pytest.mark.parametrize("weights", [None, {0: 1.0, 1: 3.0, 2: 0.5}], ids=["alike", "weighted"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_training_is_the_same_whoever_makes_them(kind, weights):
    host, device, views_of = streams(knobs(), held=True)
    logs = {}
    for place, stream in (("host", host), ("device", device)):
        keras.utils.set_random_seed(0)
        images = keras.Input((SIZE, SIZE, 3))
        features = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, name="conv")(images))
        made = KINDS[kind](keras.Model(images, features), num_classes=tiny.CLASSES)
        made.compile(keras.optimizers.SGD(0.5))
        made.views_of = views_of if place == "device" else None
        logs[place] = Devices().fit(made, stream, steps_per_epoch=2, epochs=2, verbose=0, class_weight=weights)
    assert logs["host"].keys() == logs["device"].keys()
    for name, value in logs["host"].items():
        np.testing.assert_allclose(logs["device"][name], value, rtol=1e-4, err_msg=name)
    assert logs["host"]["loss"][0] != logs["host"]["loss"][1]


def test_in_half_precision_the_draws_stay_whole():
    """In bfloat16, 1 of 256 boxes of a photograph would begin elsewhere, and flips would be other ones."""
    _, device, own = streams(knobs(), held=False)
    seen = set()

    def views_of(batch):
        seen.add(str(batch["draws"].dtype))
        return own(batch)

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        encoder = keras.Sequential([keras.Input((SIZE, SIZE, 3)), keras.layers.Conv2D(4, 3)])
        encoder.add(keras.layers.GlobalAveragePooling2D())
        made = Classifier(encoder, num_classes=tiny.CLASSES)
    finally:
        keras.config.set_dtype_policy(before)
    views_of.shape = own.shape
    made.views_of = views_of
    made.compile("sgd")
    logs = Devices().fit(made, device, steps_per_epoch=2, verbose=0)
    assert np.isfinite(logs["loss"][0])
    assert seen == {"<dtype: 'float32'>"}
