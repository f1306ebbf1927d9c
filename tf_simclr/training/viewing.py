"""Whether a command's views are made where its network is (`--augment_on`), and what is kept there."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tf_simclr.data.device_views import DeviceViews, Held
from tf_simclr.data.examples import side_for
from tf_simclr.data.recipe import Recipe
from tf_simclr.data.sources import Source, in_graph
from tf_simclr.data.subsets import HELD_PIXELS
from tf_simclr.errors import check
from tf_simclr.frameworks import has_tensorflow, tf
from tf_simclr.replicas import Devices, accelerated
from tf_simclr.terminal import say

_NONE = "no accelerator trains"


def views_on_device(
    config: Any,
    source: Source,
    *,
    recipe: Recipe,
    devices: Devices,
    against: Sequence[str] = (),
    single: bool = False,
) -> DeviceViews | None:
    """What makes the views within a step, where the device does; None where the host makes them.

    Args:
        config: with `augment_on` and `image_size`.
        source: of the images.
        recipe: of the views.
        devices: that train.
        against: reasons for the host, a sentence each.
        single: whether each image has one view, not two.

    Raises:
        InputError: the device is asked to, and cannot.
    """
    # 1. No TensorFlow: nothing to choose, Keras' backend makes all views, before the steps.
    if not has_tensorflow():
        rule = (
            "augment_on must be auto or device without TensorFlow, since the host's views are TensorFlow's: "
            "leave it out, or pip install 'tf-simclr[tensorflow]'"
        )
        check(config.augment_on != "host", rule, augment_on=config.augment_on)
        return None
    # 2. What speaks against the device.
    tpu = "a TPU with TensorFlow rounds to bfloat16; take KERAS_BACKEND=jax"
    reasons = [*against, *([tpu] if devices.description.startswith("TPU") else [])]
    # 3. The host, where it is worth it or asked for; else the device.
    if config.augment_on == "auto" and (against_all := reasons or ([] if accelerated() else [_NONE])):
        say(f"views are made on the host: {'; '.join(against_all)}")
        return None
    if config.augment_on == "host":
        return None
    check(not reasons, f"augment_on must be host: {'; '.join(reasons)}", augment_on=config.augment_on)
    side = side_for(config.image_size)
    if source.sides is None or max(source.sides) > side:
        say(f"views are made on the device, of images of up to {side} × {side} pixels; larger ones are shrunk to fit")
    else:
        say("views are made on the device")
    return DeviceViews(size=config.image_size, recipe=recipe, single=single, channels=source.channels)


def with_held(views_of: DeviceViews, source: Source, *, devices: Devices) -> DeviceViews:
    """The same, with all images of a source whose pixels memory holds (`subsets.in_pixels`) on each device."""
    if source.pixels is None or source.partner is not None:
        return views_of
    # Within the scope, so that each replica has them.
    with devices.scope():
        held = Held(source.pixels)
    size, most = source.pixels.nbytes / 2**20, HELD_PIXELS / 2**20
    say(f"the device holds all {len(source.pixels):,} images ({size:,.1f} MiB; up to {most:,.0f} MiB are held)")
    return dataclasses.replace(views_of, held=held)


def viewed(batches: tf.data.Dataset, views_of: DeviceViews) -> tf.data.Dataset:
    """The views of packed batches, with their labels, made by the same code as in a step."""

    def seen(batch: dict[str, tf.Tensor], *labels: tf.Tensor) -> tuple[tf.Tensor, ...]:
        names = list(batch)

        def by_keras(*values: np.ndarray) -> np.ndarray:
            given = dict(zip(names, map(keras.ops.convert_to_tensor, values), strict=True))
            return keras.ops.convert_to_numpy(views_of(given))

        # TensorFlow calls Keras within the graph; other backends from outside of it, in Python.
        if keras.backend.backend() == "tensorflow":
            return views_of(batch), *labels
        views = tf.numpy_function(by_keras, [batch[name] for name in names], tf.float32)
        return tf.ensure_shape(views, (batch["draws"].shape[0], 2, *views_of.shape)), *labels

    return batches.map(in_graph(seen))
