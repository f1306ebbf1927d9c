"""Trains every method by NumPy's data on whatever backend Keras has: `python -m tests.backends.methods FILE KIND …`.

Everything is in double precision, and random weights are NumPy's: what differs between backends is rounding alone.
Keras turns float64 into float32 beside any float32 or plain number unless it computes with TensorFlow; its table that
says so is changed here (`in_double`), since in single precision five steps through BatchNorm can differ by 1e-3.
"""

import json
import os
import sys

os.environ.setdefault("JAX_ENABLE_X64", "1")

import keras
import numpy as np

from tf_simclr import losses, optimizers
from tf_simclr.models.classifier import Classifier
from tf_simclr.models.distillation import Distiller, distillation_loss
from tf_simclr.models.moco import MoCo
from tf_simclr.models.network import projection_head, weights_by_name
from tf_simclr.models.normalization import Normalization
from tf_simclr.models.resnet import resnet
from tf_simclr.models.simclr import SimCLR
from tf_simclr.run_folder import state

BATCH, SIZE, CLASSES, STEPS = 8, 8, 3, 5
NORMALIZATION = Normalization()
LABELS = np.array([0, 1, 2, 0, 1, 2])
CALLS = {
    "nt_xent": lambda a, b: losses.nt_xent(a, b, 0.1),
    "nt_xent in blocks": lambda a, b: losses.nt_xent(a, b, 0.1, block_size=2),
    "nt_xent as it is": lambda a, b: losses.nt_xent(a, b, 1.0, hidden_norm=False),
    "nt_logistic": lambda a, b: losses.nt_logistic(a, b, 0.1),
    "nt_logistic, semi-hard": lambda a, b: losses.nt_logistic(a, b, 0.1, semi_hard=True),
    "margin_triplet": losses.margin_triplet,
    "margin_triplet, semi-hard": lambda a, b: losses.margin_triplet(a, b, semi_hard=True),
    "hadsell": losses.hadsell,
    "hadsell as it is": lambda a, b: losses.hadsell(a, b, 5.0, hidden_norm=False),
    "dcl": lambda a, b: losses.dcl(a, b, 0.1),
    "dcl, weighted": lambda a, b: losses.dcl(a, b, 0.1, sigma=0.5),
    "sup_con": lambda a, b: losses.sup_con(a, b, LABELS, 0.1),
    "generalized_contrastive": losses.generalized_contrastive,  # other priors draw by each backend's own numbers
    "info_nce": lambda a, b: losses.info_nce(a, b, losses.normalize(a[::2] + 1.0), 0.1),
    "contrastive_entropy": lambda a, b: losses.contrastive_entropy(a @ keras.ops.transpose(b)),
    "contrastive_logits": lambda a, b: keras.ops.exp(losses.contrastive_logits(a, b, 0.5)[0]),
    "distillation_loss": lambda a, b: distillation_loss(a, b, temperature=0.5),
    "normalize": lambda a, b: losses.normalize(a) * b,
}
"""Every public loss of projections, and what they are made of."""


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
    loss = getattr(losses, words[2])(**json.loads(words[3] if len(words) > 3 else "{}")) if len(words) > 2 else None
    options = {"num_classes": CLASSES, "weight_decay": 1e-3}
    if name == "classifier":
        made = Classifier(encoder(), head(), ft_proj_selector=1, **options)
        made.compile(optimizer)
        return made
    if name == "distiller":
        random = np.random.RandomState(3)
        teach = keras.ops.convert_to_tensor(random.standard_normal((3, CLASSES)))
        made = Distiller(
            encoder(), teacher=lambda x: keras.ops.mean(x, (1, 2)) @ teach, alpha=0.5, temperature=0.5, **options
        )
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
    images = random.uniform(
        size=(BATCH, *(() if kind.startswith(("classifier", "distiller")) else (2,)), SIZE, SIZE, 3)
    )
    return images, random.randint(CLASSES, size=BATCH)


def of_losses() -> dict[str, np.ndarray]:
    """Values of `CALLS`, and their gradients by both views."""
    random, found = np.random.RandomState(5), {}
    views = random.standard_normal((2, 6, 4)) * np.array([1.0, 3.0, 0.1, 1, 1, 1])[:, None]
    weights = random.uniform(size=6)  # so that no gradient is one of a sum
    for name, call in CALLS.items():

        def weighed(views, call=call):
            value = call(views[0], views[1])
            scale = keras.ops.reshape(keras.ops.convert_to_tensor(weights), (6, *(1,) * (len(value.shape) - 1)))
            return keras.ops.sum(value * scale), value

        kept, gradient = value_and_gradient(weighed, views)
        found |= {f"{name}/value": kept, f"{name}/gradient": gradient}
    return found


def value_and_gradient(function, views: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of a function of a tensor that returns what is differentiated and what is kept."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        (_, kept), gradient = jax.value_and_grad(function, has_aux=True)(jax.numpy.asarray(views))
    elif backend == "torch":
        import torch

        given = torch.tensor(views, requires_grad=True)
        total, kept = function(given)
        (gradient,) = torch.autograd.grad(total, given)
    else:
        import tensorflow as tf

        given = tf.constant(views)
        with tf.GradientTape() as tape:
            tape.watch(given)
            total, kept = function(given)
        gradient = tape.gradient(total, given)
    return keras.ops.convert_to_numpy(kept), keras.ops.convert_to_numpy(gradient)


def trained(kind: str) -> dict[str, np.ndarray]:
    """State and logs after the first step and after the last one."""
    if kind == "losses":
        return of_losses()
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
