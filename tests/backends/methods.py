"""Trains every method by NumPy's data on whatever backend Keras has: `python -m tests.backends.methods FILE KIND …`.

Everything is in double precision, and random weights are NumPy's: what differs between backends is rounding alone.
Keras turns float64 into float32 beside any float32 or plain number unless it computes with TensorFlow; its table that
says so is changed here (`in_double`), since in single precision five steps through BatchNorm can differ by 1e-3.
"""

import os
import sys

os.environ.setdefault("JAX_ENABLE_X64", "1")

import keras
import numpy as np

from tf_simclr import losses, optimizers
from tf_simclr.models.classifier import Classifier
from tf_simclr.models.moco import MoCo
from tf_simclr.models.network import projection_head, weights_by_name
from tf_simclr.models.normalization import Normalization
from tf_simclr.models.resnet import resnet
from tf_simclr.models.simclr import SimCLR
from tf_simclr.run_folder import state

BATCH, SIZE, CLASSES, STEPS = 8, 8, 3, 5
NORMALIZATION = Normalization()


def in_double() -> None:
    """Keras in double precision, whatever it computes with."""
    from keras.src.backend.common import dtypes

    dtypes.BIT64_TO_BIT32_DTYPE["float64"] = "float64"
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")


def encoder(size: int = SIZE) -> keras.Model:
    """Convolution, BatchNorm, pooling: all kinds of weights, and small enough that compiling it takes no time."""
    x = images = keras.Input((size, size, 3))
    x = keras.layers.Conv2D(4, 3, use_bias=False, name="conv")(x)
    x = keras.layers.ReLU()(NORMALIZATION.layer("bn")(x))
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(x), name="encoder")


def head(width: int = 4) -> keras.Model:
    return projection_head(width, 2, proj_out_dim=6, normalization=NORMALIZATION)


def method(kind: str) -> keras.Model:
    """A compiled model by its name, of which the optimizer comes first or the loss last."""
    words = kind.split(" ")
    name, optimizer = words[0], optimizers.build(words[1], 0.1, weight_decay=1e-3)
    loss = getattr(losses, words[2])() if len(words) > 2 else None
    options = {"num_classes": CLASSES, "weight_decay": 1e-3}
    if name == "classifier":
        made = Classifier(encoder(), head(), ft_proj_selector=1, **options)
        made.compile(optimizer)
        return made
    if name == "resnet":
        made = SimCLR(resnet(18, se_ratio=0.25, cifar_stem=True), head(512), **options)
    else:
        made = {"simclr": SimCLR, "moco": MoCo, "pieces": SimCLR}[name](
            encoder(),
            head(),
            **({"queue_length": 12} if name == "moco" else {}),
            **({"microbatch_size": 4} if name == "pieces" else {}),
            **options,
        )
    made.compile(optimizer, loss or (losses.InfoNCE(0.2) if name == "moco" else losses.NTXent(0.5)))
    return made


def filled(model: keras.Model) -> keras.Model:
    """The model with NumPy's random weights, none of them zero; MoCo's copies equal what they are copies of."""
    model.optimizer.build(model.trainable_variables)
    random = np.random.RandomState(0)
    for name, variable in sorted(state(model).items()):
        if name.startswith("model/") and "seed" not in name:
            positive, size = name.endswith(("gamma", "moving_variance")), tuple(variable.shape)
            scale = 1 / max(1.0, np.sqrt(np.prod(size[:-1]))) if len(size) > 1 else 1.0
            variable.assign(random.uniform(0.5, 1.5, size) if positive else scale * random.standard_normal(size))
    if isinstance(model, MoCo):
        model.catch_up()
        model.queue.keys.assign(losses.similarity.normalize(keras.ops.convert_to_tensor(model.queue.keys)))
    return model


def batch(number: int, kind: str) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.RandomState(number)
    images = random.uniform(size=(BATCH, *(() if kind.startswith("classifier") else (2,)), SIZE, SIZE, 3))
    return images, random.randint(CLASSES, size=BATCH)


def trained(kind: str) -> dict[str, np.ndarray]:
    """State and logs after the first step and after the last one."""
    model, found = filled(method(kind)), {}
    for first, last in ((0, 1), (1, STEPS)):
        parts = zip(*(batch(number, kind) for number in range(first, last)), strict=True)
        views, labels = (np.concatenate(part) for part in parts)
        logs = model.fit(views, labels, batch_size=BATCH, shuffle=False, verbose=0).history
        values = {name: keras.ops.convert_to_numpy(variable) for name, variable in state(model).items()}
        found |= {f"{last}/{name}": value for name, value in values.items() if "seed" not in name}
        found |= {f"{last}/logs/{name}": np.array(value) for name, value in logs.items()}
    images = batch(99, "classifier")[0]
    features = model.encoder.predict(images, verbose=0)
    assert len(weights_by_name(model.encoder)) == len(model.encoder.weights)
    return found | {"features": features}


if __name__ == "__main__":
    in_double()
    np.savez(sys.argv[1], **{f"{kind}|{key}": v for kind in sys.argv[2:] for key, v in trained(kind).items()})
    assert "tensorflow" not in sys.modules or keras.backend.backend() == "tensorflow" or not sys.modules["tensorflow"]
