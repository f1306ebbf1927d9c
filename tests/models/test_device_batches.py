"""Models on batches that are no views yet: padded images, boxes and draws, of which the step makes the views."""

import numpy as np
import pytest
import tensorflow as tf

from tests.replicas import tiny
from tf_simclr.data import pipeline, sources, subsets
from tf_simclr.data.device_views import DeviceViews, Held
from tf_simclr.data.recipe import Recipe
from tf_simclr.errors import InputError
from tf_simclr.models.moco import MoCo
from tf_simclr.models.simclr import SimCLR
from tf_simclr.replicas import Devices, find
from tf_simclr.run_folder import state

SIZE, BATCH = tiny.SIZE, tiny.BATCH
RECIPE = Recipe(color_jitter_strength=0.5, use_blur=False)


@pytest.fixture(scope="module")
def streams():
    """The same training, as views and as what they are made of."""
    random = np.random.RandomState(0)
    pixels = random.randint(0, 256, (20, 12, 12, 3)).astype(np.uint8)
    source = sources.from_arrays(pixels, random.randint(0, tiny.CLASSES, 20))
    common = {"image_size": SIZE, "recipe": RECIPE, "unreadable": pipeline.Unreadable()}

    held = subsets.in_pixels(source)

    def of(make, source=source, **options):
        def stream(step, share=(0, 1)):
            return make(source, batch_size=BATCH, seed=3, start_step=step, share=share, **common, **options)

        return stream

    device = {"device": of(pipeline.packed_views), "held": of(pipeline.packed_views, held, held=True)}
    return {"host": of(pipeline.training_views), "pixels": held.pixels} | device


def after_steps(devices: Devices, streams, place: str, *, steps: int = 3, at_once: int = 1, **options) -> dict:
    made = tiny.model(devices, **options)
    if place != "host":
        with devices.scope():
            held = Held(streams["pixels"]) if place == "held" else None
        made.views_of = DeviceViews(size=SIZE, recipe=RECIPE, held=held)
    if at_once > 1:
        made.steps_per_execution = at_once
        made.make_train_function(force=True)
    logs = devices.fit(made, streams[place], steps_per_epoch=steps, verbose=0)
    return {name: v.numpy() for name, v in state(made).items()} | {f"logs/{n}": np.array(v) for n, v in logs.items()}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"jit_compile": True},
        {"microbatch_size": 3},
        pytest.param({"microbatch_size": 4, "jit_compile": True}, marks=pytest.mark.slow),
        {"at_once": 3},
    ],
    ids=str,
)
def test_a_training_is_the_same_whoever_makes_the_views(streams, options):
    found, expected = (after_steps(Devices(), streams, place, **options) for place in ("device", "host"))
    worst = tiny.differences({f"3/{n}": v for n, v in found.items()}, {f"3/{n}": v for n, v in expected.items()})
    assert max(worst.values()) <= 1e-3, worst


@pytest.mark.parametrize("options", [{}, {"jit_compile": True}, {"microbatch_size": 4}, {"at_once": 3}], ids=str)
def test_a_training_on_images_that_the_device_holds_is_the_same_bit_for_bit(streams, options):
    found, expected = (after_steps(Devices(), streams, place, **options) for place in ("held", "device"))
    assert found.keys() == expected.keys()  # the images are no part of a checkpoint
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_batches_that_nobody_makes_views_of_are_refused(streams):
    made = tiny.model(Devices())
    with pytest.raises(InputError, match="need views_of"):
        Devices().fit(made, streams["device"], steps_per_epoch=1, verbose=0)


@pytest.mark.parametrize("method", [SimCLR, MoCo])
def test_a_model_takes_them_in_half_precision_and_unbuilt(streams, method):
    """The draws stay float32: in bfloat16 a third of the orders of colour changes would never come."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        encoder = keras.Sequential([keras.layers.Conv2D(4, 3), keras.layers.GlobalAveragePooling2D()])
        options = {"queue_length": 16} if method is MoCo else {}
        seen = []
        own = DeviceViews(size=SIZE, recipe=RECIPE)

        def views_of(batch):
            seen.append((batch["draws"].dtype, batch["images"].dtype))
            return own(batch)

        views_of.shape = own.shape
        made = method(encoder, views_of=views_of, **options)
        made.compile("sgd")
        logs = made.fit(streams["device"](0), steps_per_epoch=2, verbose=0, shuffle=False).history
    finally:
        keras.config.set_dtype_policy(before)
    assert np.isfinite(logs["loss"][0])
    assert set(seen) == {(tf.float32, tf.uint8)}


@pytest.mark.slow
@pytest.mark.parametrize(("place", "at_once"), [("device", 1), ("device", 3), ("held", 1), ("held", 3)])
def test_replicas_make_the_views_of_their_rows(streams, place, at_once):
    two = find("mirrored", num_replicas=2)
    found = after_steps(two, streams, place, at_once=at_once)
    expected = after_steps(Devices(), streams, "host")
    worst = tiny.differences({f"3/{n}": v for n, v in found.items()}, {f"3/{n}": v for n, v in expected.items()})
    assert max(worst.values()) <= 1e-3, worst
