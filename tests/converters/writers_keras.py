"""Rows of the writers' table: this project's own models, however Keras and TensorFlow save them.

The weights are read off the live model by its layers' own names, the features are what Keras computes.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.converters.writers import Made, Row

SIZE = 32
CLASSES = 3


def randomised(*models: Any) -> None:
    """Random values for all weights, moving statistics too: of fresh networks many are zeros and ones."""
    rng = np.random.RandomState(len(models))
    for model in models:
        for weight in model.weights:
            weight.assign(_random(rng, weight.name, tuple(weight.shape)))


def _random(rng: np.random.RandomState, name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name == "moving_variance":
        return rng.uniform(0.5, 1.5, shape)
    if name == "gamma":
        return rng.uniform(0.5, 1.0, shape)
    if name == "kernel":
        return rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[:-1]))
    return rng.standard_normal(shape) * 0.1


def made(path: Path, encoder: Any, *parts: Any) -> Made:
    """What a live encoder and heads have in them, and the encoder's features."""
    from tf_simclr.models.network import leaves

    layers = [layer for part in (encoder, *parts) for layer in (leaves(part) if hasattr(part, "layers") else [part])]
    weights = {f"{layer.name}/{w.name}": np.asarray(w) for layer in layers for w in layer.weights}
    images = np.random.RandomState(7).uniform(0, 1, (2, SIZE, SIZE, 3)).astype(np.float32)
    return Made(path, weights, images, np.asarray(encoder(images, training=False), np.float32))


# --- models: each returns the model, its encoder, and those of its parts that are the network's heads


def resnet(name: str = "encoder", **options: Any) -> Any:
    from tf_simclr import resnet as build

    encoder = build(18, cifar_stem=True, name=name, **options)
    randomised(encoder)
    return encoder


def alone() -> tuple[Any, ...]:
    encoder = resnet()
    return encoder, encoder


def simclr(*, classes: int = 0, fit: bool = True, optimizer: Any = None) -> tuple[Any, ...]:
    from tf_simclr import LARS, SimCLR

    model = SimCLR(resnet(), num_classes=classes)
    randomised(model.projection, *([model.probe] if classes else []))
    model.compile(optimizer or LARS(learning_rate=0.01, momentum=0.9))
    if fit:
        _fit(model, views=True, labels=bool(classes))
    return (model, model.encoder, model.projection, *([model.probe] if classes else []))


def _fit(model: Any, *, views: bool, labels: bool) -> None:
    rng = np.random.RandomState(3)
    x = rng.uniform(size=(4, 2, SIZE, SIZE, 3) if views else (4, SIZE, SIZE, 3)).astype(np.float32)
    model.fit(x, np.arange(4) % CLASSES if labels else None, batch_size=4, verbose=0)


def moco(*, classes: int = 0) -> tuple[Any, ...]:
    from tf_simclr.models.moco import MoCo

    model = MoCo(resnet(), queue_length=16, num_classes=classes)
    randomised(model.projection, *([model.probe] if classes else []))
    model.compile("sgd")
    _fit(model, views=True, labels=bool(classes))
    return (model, model.encoder, model.projection, *([model.probe] if classes else []))


def classifier(*, selector: int | None = None) -> tuple[Any, ...]:
    from tf_simclr import Classifier
    from tf_simclr.models.heads import projection_head

    encoder = resnet()
    projection = projection_head(512, 2) if selector is not None else None
    model = Classifier(encoder, projection, num_classes=CLASSES, ft_proj_selector=selector or 0)
    randomised(model.head, *([projection] if projection else []))
    model.compile("adam")
    _fit(model, views=False, labels=True)
    return (model, encoder, *([projection] if projection else []), model.head)


def student() -> tuple[Any, ...]:
    import keras

    from tf_simclr.models.distillation import Distiller

    model = Distiller(resnet(), teacher=lambda x: keras.ops.mean(x, (1, 2)), num_classes=CLASSES)
    randomised(model.head)
    model.compile("sgd")
    _fit(model, views=False, labels=False)
    return model, model.encoder, model.head


def network() -> tuple[Any, ...]:
    model, *parts = simclr(classes=CLASSES, fit=False)
    return (model.network(), *parts)


def sequential() -> tuple[Any, ...]:
    import keras

    encoder = resnet()
    layers = [keras.layers.Rescaling(1 / 255), encoder, keras.layers.Dropout(0.2), keras.layers.Dense(10)]
    return keras.Sequential([keras.Input((SIZE, SIZE, 3)), *layers]), encoder


def normalised() -> tuple[Any, ...]:
    import keras

    encoder = resnet()
    images = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Normalization(mean=[0.5] * 3, variance=[0.04] * 3)(images)
    return keras.Model(images, keras.layers.Dense(5, name="answer")(encoder(x))), encoder


def nested() -> tuple[Any, ...]:
    import keras

    encoder = resnet()
    images = keras.Input((SIZE, SIZE, 3))
    inner = keras.Model(images, keras.layers.Dense(7, name="middle")(encoder(images)), name="inner")
    outer = keras.Input((SIZE, SIZE, 3))
    return keras.Model(outer, keras.layers.Dense(2, name="last")(inner(outer)), name="outer"), encoder


def shared() -> tuple[Any, ...]:
    import keras

    encoder = resnet()
    a, b = keras.Input((SIZE, SIZE, 3), name="a"), keras.Input((SIZE, SIZE, 3), name="b")
    both = keras.layers.Concatenate()([encoder(a), encoder(b)])
    return keras.Model([a, b], keras.layers.Dense(2, name="same")(both)), encoder


def grafted() -> tuple[Any, ...]:
    """The encoder's layers are the model's own."""
    import keras

    encoder = resnet()
    return keras.Model(encoder.input, keras.layers.Dense(4, name="graft")(encoder.output)), encoder


def per_frame() -> tuple[Any, ...]:
    import keras

    encoder = resnet()
    frames = keras.Input((2, SIZE, SIZE, 3))
    return keras.Model(frames, keras.layers.TimeDistributed(encoder)(frames)), encoder


def subclassed() -> tuple[Any, ...]:
    import keras

    class Users(keras.Model):
        def __init__(self):
            super().__init__()
            self.parts = {"trunk": [resnet("trunk")]}
            self.answer = keras.layers.Dense(2, name="answer")

        def call(self, images):
            return self.answer(self.parts["trunk"][0](images))

    model = Users()
    model(np.zeros((1, SIZE, SIZE, 3), np.float32))
    return model, model.parts["trunk"][0]


def lower(policy: str) -> Callable[[], tuple[Any, ...]]:
    """A SimCLR network made and trained under a type policy."""

    def build() -> tuple[Any, ...]:
        import keras

        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(policy)
        try:
            return simclr(classes=CLASSES)
        finally:
            keras.config.set_dtype_policy(before)

    return build


def mirrored() -> tuple[Any, ...]:
    import tensorflow as tf

    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        return simclr(classes=CLASSES, fit=False)


def averaged() -> tuple[Any, ...]:
    import keras

    return simclr(optimizer=keras.optimizers.SGD(0.01, momentum=0.9, use_ema=True))


MODELS: dict[str, tuple[Callable[[], tuple[Any, ...]], str]] = {
    "the encoder alone": (alone, ""),
    "SimCLR after fit": (simclr, "optimizer state"),
    "SimCLR with classes after fit": (functools.partial(simclr, classes=CLASSES), "classifier reads the pooled"),
    "MoCo after fit": (moco, "second encoder"),
    "MoCo with classes after fit": (functools.partial(moco, classes=CLASSES), "classifier reads the pooled"),
    "Classifier after fit": (classifier, "optimizer state"),
    "Classifier on projection layer 1": (functools.partial(classifier, selector=1), "reads projection layer 1"),
    "Distiller (student) after fit": (student, ""),
    "SimCLR.network()": (network, "classifier reads the pooled"),
    "Sequential([Rescaling, encoder, Dropout, Dense])": (sequential, "Rescaling"),
    "Functional with Normalization before the encoder": (normalised, "Normalization"),
    "encoder two levels down in Functional models": (nested, "middle|Dense"),
    "encoder used twice in one model": (shared, "same|Dense"),
    "encoder's layers in a model of more layers": (grafted, "graft|Dense"),
    "TimeDistributed(encoder)": (per_frame, ""),
    "subclassed model with the encoder in a dict of lists": (subclassed, "answer|Dense"),
    "SimCLR under mixed_bfloat16": (lower("mixed_bfloat16"), ""),
    "SimCLR under MirroredStrategy": (mirrored, ""),
    "SimCLR with moving averages in its optimizer": (averaged, "optimizer state"),
}
"""What was made → (how, what the reading must say)."""


# --- ways to save


def _keras(model: Any, folder: Path) -> Path:
    model.save(folder / "m.keras")
    return folder / "m.keras"


def _folder(model: Any, folder: Path) -> Path:
    import keras

    keras.saving.save_model(model, folder / "m", zipped=False)
    return folder / "m"


def _weights(model: Any, folder: Path) -> Path:
    model.save_weights(folder / "m.weights.h5")
    return folder / "m.weights.h5"


def _legacy(model: Any, folder: Path) -> Path:
    import logging

    logging.disable(logging.WARNING)  # Keras calls the format legacy
    try:
        model.save(folder / "m.h5")
    finally:
        logging.disable(logging.NOTSET)
    return folder / "m.h5"


def _legacy_weights(model: Any, folder: Path) -> Path:
    """As Keras 2 wrote weights: the group `model_weights` of the whole model's file is the root."""
    import h5py

    with h5py.File(_legacy(model, folder)) as whole, h5py.File(folder / "weights.h5", "w") as file:
        for name, value in whole["model_weights"].attrs.items():
            file.attrs[name] = value
        for name in whole["model_weights"]:
            whole.copy(f"model_weights/{name}", file)
    return folder / "weights.h5"


def _export(model: Any, folder: Path) -> Path:
    model.export(folder / "export", verbose=False)
    return folder / "export"


def _saved_model(model: Any, folder: Path) -> Path:
    import tensorflow as tf

    tf.saved_model.save(model, str(folder / "saved"))
    return folder / "saved"


def _checkpoint(model: Any, folder: Path) -> Path:
    import tensorflow as tf

    tf.train.Checkpoint(model=model).save(str(folder / "ckpt"))
    return folder


def _root_checkpoint(model: Any, folder: Path) -> Path:
    import tensorflow as tf

    tf.train.Checkpoint(model).write(str(folder / "own"))
    return folder / "own"


def _manager(model: Any, folder: Path) -> Path:
    import tensorflow as tf

    optimizer = getattr(model, "optimizer", None)
    extra = {"optimizer": optimizer} if optimizer is not None else {}
    checkpoint = tf.train.Checkpoint(net=model, step=tf.Variable(5, dtype=tf.int64), **extra)
    manager = tf.train.CheckpointManager(checkpoint, str(folder), max_to_keep=2)
    for number in (1, 2):
        manager.save(checkpoint_number=number)
    return folder


WAYS: dict[str, tuple[Callable[[Any, Path], Path], str]] = {
    "model.save('m.keras')": (_keras, "keras"),
    "keras.saving.save_model(zipped=False)": (_folder, "keras"),
    "model.save_weights('m.weights.h5')": (_weights, "weights"),
    "model.save('m.h5')": (_legacy, "keras"),
    "legacy weights .h5": (_legacy_weights, "weights"),
    "model.export(dir)": (_export, "graph"),
    "tf.saved_model.save": (_saved_model, "graph"),
    "tf.train.Checkpoint(model=…)": (_checkpoint, "checkpoint"),
    "tf.train.Checkpoint(root)": (_root_checkpoint, "checkpoint"),
    "CheckpointManager with optimizer and step": (_manager, "checkpoint"),
}
"""Writer → (how, what it stores beside weights)."""

ALL = ("model.save('m.keras')", "model.save_weights('m.weights.h5')", "model.save('m.h5')")
QUICK = ("model.save('m.keras')", "model.save_weights('m.weights.h5')", "tf.train.Checkpoint(model=…)")
GRAPHS = ("model.export(dir)", "tf.saved_model.save", "tf.train.Checkpoint(model=…)")
CHECKPOINTS = ("tf.train.Checkpoint(model=…)", "CheckpointManager with optimizer and step")
MORE = {
    "the encoder alone": tuple(writer for writer in WAYS if writer not in ALL),
    "Sequential([Rescaling, encoder, Dropout, Dense])": tuple(writer for writer in WAYS if writer not in ALL),
    "SimCLR with classes after fit": ("tf.saved_model.save", *CHECKPOINTS),
    "MoCo with classes after fit": CHECKPOINTS,
    "Classifier on projection layer 1": CHECKPOINTS,
    "SimCLR.network()": GRAPHS,
    "Functional with Normalization before the encoder": GRAPHS,
    "encoder two levels down in Functional models": GRAPHS,
    "encoder used twice in one model": GRAPHS,
    "encoder's layers in a model of more layers": GRAPHS,
    "SimCLR under MirroredStrategy": CHECKPOINTS,
    "subclassed model with the encoder in a dict of lists": CHECKPOINTS,
}
"""Model → ways beside `ALL`."""


@functools.lru_cache(maxsize=1)
def built(what: str) -> tuple[Any, ...]:
    """A model and its parts; rows of one model follow each other."""
    import keras

    keras.utils.clear_session(free_memory=False)
    return MODELS[what][0]()


def _said(reason: str, stores: str) -> str:
    """What a reading must say, by what the file stores beside weights."""
    before = reason in ("Rescaling", "Normalization")
    if stores == "checkpoint" and before:
        return "1 layer without weights, whose kind"
    if stores == "graph" and before:
        return f"has {reason.lower()}, left here: the encoder takes"
    return reason if stores == "keras" or not reason.startswith(("classifier", "reads", "optimizer")) else ""


def _row(what: str, writer: str) -> Row:
    reason, (save, stores) = MODELS[what][1], WAYS[writer]

    def make(folder: Path) -> Made:
        model, encoder, *heads = built(what)
        found = made(save(model, folder), encoder, *heads)
        return found if "bfloat16" not in what else Made(found.path, found.weights)  # computed in eight bits

    options = {"selector": 1} if reason == "reads projection layer 1" and stores != "keras" else {}
    told = _said(reason, stores)
    quick = what.startswith("Sequential") and writer in QUICK
    return Row(writer, what, make, reason=told, options=options, needs=("tensorflow",), quick=quick)


ROWS: list[Row] = [
    _row(what, writer)
    for what in MODELS
    for writer in (*ALL, *MORE.get(what, ()))
    if not (what.startswith("MoCo") and writer == "model.save('m.h5')")  # Keras cannot: layers have one name
]
