"""Rows of the writers' table: this project's own models, however Keras and TensorFlow save them.

The weights are read off the live model by its layers' own names, the features are what Keras computes.
"""

import functools
import zipfile
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
    from tf_simclr.models.resnet import projection_head

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
    "MoCo after fit": (moco, "key_encoder"),
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


def _shards(model: Any, folder: Path) -> Path:
    model.save_weights(folder / "m.weights.json", max_shard_size=0.01)
    return folder / "m.weights.json"


def _shards_folder(model: Any, folder: Path) -> Path:
    return _shards(model, folder).parent


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
    "model.save_weights('m.weights.json')": (_shards, ""),
    "model.save_weights('m.weights.json'), its folder": (_shards_folder, ""),
    "model.save('m.h5')": (_legacy, "keras"),
    "legacy weights .h5": (_legacy_weights, ""),
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
    if not stores and before:
        return "around the encoder|rescaling"
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


# --- what is refused, and what was damaged


def two_encoders() -> tuple[Any, ...]:
    import keras

    a, b = resnet("left_eye"), resnet("right_eye")
    for weight in b.weights:
        weight.assign(weight * 1.01)
    images = keras.Input((SIZE, SIZE, 3))
    return keras.Model(images, keras.layers.Concatenate()([a(images), b(images)])), a, b


def two(save: Callable[[Any, Path], Path], which: int | None = None) -> Callable[[Path], Made]:
    """Two different encoders in one model; one of them is asked for."""

    def make(folder: Path) -> Made:
        model, *encoders = two_encoders()
        path = save(model, folder)
        return Made(path) if which is None else made(path, encoders[which])

    return make


def of(build: Callable[[], Any], save: Callable[[Any, Path], Path] = _keras) -> Callable[[Path], Made]:
    """A model that is no network of this project's."""
    return lambda folder: Made(save(build(), folder))


def loose() -> Any:
    """An encoder whose BatchNorm has another epsilon, under the same names."""
    import keras

    def renewed(layer: Any) -> Any:
        more = {"epsilon": 1e-3} if isinstance(layer, keras.layers.BatchNormalization) else {}
        return type(layer).from_config(layer.get_config() | more)

    return keras.models.clone_model(resnet(), clone_function=renewed)


def between() -> Any:
    """An encoder with a layer of the user's own between two of its layers."""
    import keras

    encoder = resnet()

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        outputs = layer(*args, **kwargs)
        return keras.layers.UnitNormalization(name="mine")(outputs) if layer.name == "group2_block2_out" else outputs

    return keras.models.clone_model(
        encoder, call_function=call, clone_function=lambda x: type(x).from_config(x.get_config())
    )


def dilated() -> Any:
    import keras

    def renewed(layer: Any) -> Any:
        more = {"strides": (1, 1)} if layer.name == "group4_block1_conv1" else {}
        more = more or ({"strides": (1, 1)} if layer.name == "group4_block1_shortcut_conv" else {})
        return type(layer).from_config(layer.get_config() | more)

    return keras.models.clone_model(resnet(), clone_function=renewed)


def small_cnn() -> Any:
    import keras

    layers = keras.layers
    return keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.BatchNormalization(), layers.Dense(2)])


def quantised() -> tuple[Any, ...]:
    """A network whose classifier is in eight bits: a kernel, a bias, a scale."""
    model, encoder, *_ = network()
    model.quantize("int8", filters=lambda layer: layer.name == "logits_sup")
    return model, encoder


def changed(
    change: Callable[[Path], None], *, save: Callable[[Any, Path], Path] = _weights, right: bool = False
) -> Any:
    """The encoder's file, changed afterwards; `right`: it is to be read all the same."""

    def make(folder: Path) -> Made:
        model, encoder = built("the encoder alone")
        path = save(model, folder)
        change(path)
        return made(path, encoder) if right else Made(path)

    return make


def ours(change: Callable[[Path], None]) -> Callable[[Path], Made]:
    """A `.weights.h5` file of this project's own writing, changed afterwards."""

    def make(folder: Path) -> Made:
        from converters import writing as targets
        from tests.converters import networks

        path = folder / "ours.weights.h5"
        targets.write(networks.network(networks.SMALL), path, to="h5", naming="keras")
        change(path)
        return Made(path, networks.arrays(networks.SMALL) if change is _nothing else {})

    return make


def _nothing(path: Path) -> None:
    pass


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


FIRST = "layers/conv2d/vars/0"


def _edit(change: Callable[[Any], None]) -> Callable[[Path], None]:
    def edited(path: Path) -> None:
        import h5py

        with h5py.File(path, "r+") as file:
            change(file)

    return edited


def _big_endian(file: Any) -> None:
    for name in [n for n in _datasets(file) if n.startswith("layers/")]:
        array = file[name][()]
        del file[name]
        file[name] = array.astype(array.dtype.newbyteorder(">"))


def _datasets(file: Any) -> list[str]:
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if hasattr(item, "shape") else None)
    return names


def _replace(value: Any) -> Callable[[Path], None]:
    def change(file: Any) -> None:
        del file[FIRST]
        file[FIRST] = value

    return _edit(change)


def _link(file: Any) -> None:
    import h5py

    del file[FIRST]
    file[FIRST] = h5py.ExternalLink("/etc/other.h5", "/x")


def _rename(file: Any) -> None:
    file["layers/conv2d/vars"].attrs["name"] = "stem_conv2"


def _unname(file: Any) -> None:
    for group in [file[name.rpartition("/")[0]] for name in _datasets(file)]:
        group.attrs.pop("name", None)


def _double_key(path: Path) -> None:
    """A configuration that has one key twice."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["config.json"] = members["config.json"].replace(b'{"module"', b'{"module": "other", "module"', 1)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def _onnx(folder: Path) -> Made:
    (folder / "encoder.onnx").write_bytes(b"\x08\x08\x12\x05keras" + bytes(64))
    return Made(folder / "encoder.onnx")


def _bad(writer: str, what: str, make: Any, reason: str) -> Row:
    return Row(writer, what, make, expect="refused", reason=reason, needs=("tensorflow",))


ROWS += [
    _bad("model.save('m.keras')", "two different encoders in one model", two(_keras), "left_eye.*right_eye"),
    _bad(
        "model.save_weights('m.weights.h5')",
        "two different encoders in one model",
        two(_weights),
        "functional.*functional_1",
    ),
    _bad("tf.train.Checkpoint(model=…)", "two different encoders in one model", two(_checkpoint), "model/1.*model/2"),
    _bad(
        "model.export(dir)",
        "two different encoders in one model",
        two(_export),
        "two weights that differ have the name",
    ),
    Row(
        "model.save('m.keras')", "one of two encoders, asked for", two(_keras, 1), options={"source_part": "right_eye"}
    ),
    _bad("model.save('m.keras')", "encoder with another epsilon", of(loose), "epsilon=0.001"),
    _bad("model.save('m.keras')", "encoder with another stride", of(dilated), "strides"),
    _bad(
        "model.save('m.keras')", "encoder with a layer of the user's between its own", of(between), "UnitNormalization"
    ),
    _bad("model.save('m.keras')", "a small CNN", of(small_cnn), "must hold an encoder that tf_simclr builds"),
    _bad(
        "model.save_weights('m.weights.h5')",
        "a small CNN",
        of(small_cnn, _weights),
        "must hold an encoder that tf_simclr",
    ),
    _bad("model.save('m.h5')", "a small CNN", of(small_cnn, _legacy), "must hold an encoder that tf_simclr builds"),
    Row(
        "model.quantize('int8')",
        "a classifier in eight bits, --part encoder",
        lambda folder: made(_keras((both := quantised())[0], folder), both[1]),
        options={"part": "encoder"},
        reason="around the encoder",
        needs=("tensorflow",),
    ),
    Row("this project (--to h5)", ".weights.h5 with checksums", ours(_nothing)),
    _bad("this project (--to h5)", "a flipped bit", ours(_flip), "checksum"),
    _bad("this project (--to h5)", "a layer renamed", ours(_edit(_rename)), "checksum"),
    _bad("model.save('m.keras')", "a flipped bit", changed(_flip, save=_keras), "CRC-32|damaged"),
    _bad("model.save('m.keras')", "cut off", changed(_cut, save=_keras), "."),
    _bad(
        "model.save('m.keras')",
        "a configuration with one key twice",
        changed(_double_key, save=_keras),
        "more than once",
    ),
    _bad("model.save_weights('m.weights.h5')", "cut off", changed(_cut), "damaged|whole"),
    _bad(
        "tf.train.Checkpoint(model=…)",
        "encoder in a dict of lists, of which TensorFlow saves nothing",
        of(lambda: subclassed()[0], _checkpoint),
        "must hold a ResNet",
    ),
    Row("h5py", "big-endian arrays", changed(_edit(_big_endian), right=True)),
    _bad("h5py", "text in place of a kernel", changed(_replace("text")), "stem_conv1/kernel|numbers"),
    _bad(
        "h5py", "a kernel of another shape", changed(_replace(np.zeros((3, 3, 3, 32), np.float32))), "stem_conv1/kernel"
    ),
    _bad("h5py", "an external link", changed(_edit(_link)), "leads elsewhere"),
    _bad("h5py", "a layer renamed", changed(_edit(_rename)), "must hold an encoder"),
    _bad("Keras before 3.7", ".weights.h5 without names", changed(_edit(_unname)), "must name its layers"),
    _bad("encoder.export(format='onnx')", "ONNX file", _onnx, "ONNX"),
]
