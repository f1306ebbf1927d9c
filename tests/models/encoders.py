"""Encoders of every kind that Keras can build, tiny ones; also run as a program, on another backend."""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops

from tf_simclr import Classifier, Distiller, SimCLR
from tf_simclr.models.moco import MoCo


@keras.saving.register_keras_serializable("tests")
class Own(keras.Model):
    """A class of one's own; its pooling leaves the images' size free."""

    def __init__(self, width: int = 5, **options):
        super().__init__(**options)
        self.width = width
        self.parts = [layers.Conv2D(4, 3), layers.BatchNormalization(), layers.GlobalAveragePooling2D()]
        self.last = layers.Dense(width)

    def call(self, images, training=None):
        x = images
        for part in self.parts:
            x = part(x, training=training)
        return self.last(x)

    def get_config(self):
        return super().get_config() | {"width": self.width}


@keras.saving.register_keras_serializable("tests")
class Flat(keras.Model):
    """A class of one's own for images of one size, which knows nothing of training."""

    def __init__(self, **options):
        super().__init__(**options)
        self.parts = [layers.Flatten(), layers.Dense(6)]

    def call(self, images):
        return self.parts[1](self.parts[0](images))


def functional(end: Callable, size: int | None = 16) -> keras.Model:
    """A convolution, BatchNorm and an end of any form."""
    images = keras.Input((size, size, 3))
    return keras.Model(images, end(layers.BatchNormalization()(layers.Conv2D(4, 3)(images))))


def pool(x):
    return layers.GlobalAveragePooling2D()(x)


def sequential(*parts) -> keras.Model:
    return keras.Sequential([*parts, layers.Conv2D(4, 3), layers.BatchNormalization(), layers.GlobalAveragePooling2D()])


def backbone():
    """KerasHub's ResNet, without a preset."""
    from keras_hub.models import ResNetBackbone

    stack = {name: [64] for name in ("input_conv_filters", "stackwise_num_filters")}
    stack |= {"input_conv_kernel_sizes": [3], "stackwise_num_blocks": [1], "stackwise_num_strides": [1]}
    return ResNetBackbone(**stack, block_type="basic_block", image_shape=(None, None, 3))


def application():
    """Of keras.applications: feature maps, and layers named like this project's blocks."""
    return keras.applications.MobileNetV3Small(weights=None, include_top=False, input_shape=(32, 32, 3))


ENCODERS = {
    "own class": Own,
    "own class of one size": Flat,
    "sequential without input": sequential,
    "sequential of one size": lambda: keras.Sequential([layers.Flatten(), layers.Dense(6)]),
    "layer": lambda: layers.Conv2D(4, 3),
    "feature maps": lambda: functional(lambda x: x),
    "dict of one": lambda: functional(lambda x: {"features": pool(x)}),
    "list of one": lambda: functional(lambda x: [pool(x)]),
    "network": lambda: functional(lambda x: {"initial_conv": x, "final_avg_pool": pool(x)}),
    "resizing first": lambda: sequential(layers.Resizing(12, 12), layers.Rescaling(2.0)),
    "any size": lambda: functional(pool, size=None),
}
"""Name → maker.  `Resizing` takes None for training."""
LARGE = {"keras.applications": application, "KerasHub": backbone}

MODELS = {
    "SimCLR": lambda encoder: SimCLR(encoder, num_classes=3),
    "MoCo": lambda encoder: MoCo(encoder, num_classes=3, queue_length=8),
    "Classifier": lambda encoder: Classifier(encoder, num_classes=3),
    "Distiller": lambda encoder: Distiller(encoder, teacher=lambda x: ops.mean(x, (1, 2)), num_classes=3, alpha=0.5),
}


def logits(model, images) -> np.ndarray:
    """Of a batch of images or views."""
    found = model(images, training=False)
    return ops.convert_to_numpy(found["logits_sup"][:, 0] if isinstance(found, dict) else found)


def walk(make: Callable, kind: str, folder: Path, *, size: int = 16) -> None:
    """Trains, shows, exports and saves one model of one encoder, and asserts that all agree.

    Args:
        make: an encoder.
        kind: of model.
        folder: for what is saved.
        size: of the images.
    """
    views = np.random.default_rng(0).uniform(size=(4, 2, size, size, 3)).astype("float32")
    batch = views if kind in ("SimCLR", "MoCo") else views[:, 0]
    model = MODELS[kind](make())
    model.compile(keras.optimizers.SGD(0.1))
    backup = keras.callbacks.BackupAndRestore(folder / "backup")
    history = model.fit(batch, np.array([0, 1, 2, 1]), batch_size=2, verbose=0, callbacks=[backup]).history
    assert np.isfinite(history["loss"][0])
    assert model.built
    model.summary(print_fn=lambda *_, **__: None)
    expected = logits(model, batch)

    network = model.network()
    before = network.get_weights()
    found = network(views[:, 0])["logits_sup"]
    for a, b in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, rtol=1e-4, atol=1e-5)

    for saved, of in ((model, batch), (network, views[:, 0])):
        saved.save(folder / "model.keras")
        again = keras.saving.load_model(folder / "model.keras")
        found = ops.convert_to_numpy(again(of)["logits_sup"]) if saved is network else logits(again, of)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)

    model.save_weights(folder / "model.weights.h5")
    other = MODELS[kind](make())
    if not other.built:  # as every Keras model that has seen no image
        other(batch)
    other.load_weights(folder / "model.weights.h5")
    np.testing.assert_allclose(logits(other, batch), expected, rtol=1e-4, atol=1e-5)


if __name__ == "__main__":
    for name in sys.argv[1].split(","):
        for kind in sys.argv[2].split(","):
            with tempfile.TemporaryDirectory() as place:
                walk((ENCODERS | LARGE)[name], kind, Path(place), size=32 if name in LARGE else 16)
            sys.stdout.write(f"{keras.backend.backend()}: {name}, {kind}\n")
