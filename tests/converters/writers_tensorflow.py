"""Rows of the writers' table: TensorFlow's checkpoints, by its own writers, and as Google's tools compress them."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.converters import networks, official, tables
from tests.converters.writers import Made, Row

NAME = "r18_1x_sk0_cifar"
"""The smallest official network with all heads."""


def weights() -> dict[str, np.ndarray]:
    return networks.arrays(networks.architecture(NAME))


def prefix_in(folder: Path) -> Path:
    return next(folder.rglob("*.index")).with_suffix("")


def tf1(name: str = NAME, **options) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        official.write_tf1(folder, name, **options)
        classifies = "head_supervised/linear_layer/dense/kernel" in official.manifest(name)
        return Made(folder, {key: array for key, array in weights().items() if classifies or "logits" not in key})

    return make


def tf2(name: str = NAME, **options) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        official.write_tf2(folder, name, **options)
        return Made(folder, weights())

    return make


def saved_model(**options) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        return Made(official.write_saved_model(folder / "saved_model", NAME, **options), weights())

    return make


def hub(folder: Path) -> Made:
    official.write_tf1(folder, NAME, hub=True)
    (folder / "tfhub_module.pb").write_bytes(b"\x08\x03")
    return Made(folder, weights())


def version_1(folder: Path) -> Made:
    """The format before the tensor bundle, one file, which `tf.train.Saver` still writes when it is asked to."""
    import tensorflow as tf

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        values = official.tf1_values(NAME)
        variables = [tf.compat.v1.Variable(value, name=name) for name, value in values.items()]
        session.run([variable.initializer for variable in variables])
        saver = tf.compat.v1.train.Saver(variables, write_version=tf.compat.v1.train.SaverDef.V1)
        return Made(Path(saver.save(session, str(folder / "model.ckpt"), write_meta_graph=False)), weights())


def with_others(folder: Path) -> Made:
    """Tensors of types that no weight has, beside the network."""
    import tensorflow as tf

    prefix = folder / "model.ckpt-7"
    official.save(folder / "a", official.tf1_values(NAME))
    quantised = tf.quantization.quantize(tf.ones([4]), 0.0, 1.0, tf.quint8).output
    others = {"input/quantised": quantised, "input/phase": tf.complex(1.0, 2.0), "input/words": tf.constant(["a", "b"])}
    tf.raw_ops.SaveV2(
        prefix=str(folder / "b"),
        tensor_names=list(others),
        shape_and_slices=[""] * len(others),
        tensors=list(others.values()),
    )
    parts = [str(folder / "a"), str(folder / "b")]
    tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=parts, destination_prefix=str(prefix))
    return Made(prefix, weights())


def partitioned(folder: Path) -> Made:
    """A convolution in three parts, as a partitioner leaves it, in two data files."""
    import tensorflow as tf

    values = official.tf1_values(NAME)
    name = "base_model/conv2d/kernel"
    whole = values.pop(name)
    official.save(folder / "a", values)
    shape = " ".join(map(str, whole.shape))
    cuts = [(0, 20), (20, 20), (40, 24)]
    tf.raw_ops.SaveV2(
        prefix=str(folder / "b"),
        tensor_names=[name] * len(cuts),
        shape_and_slices=[f"{shape} -:-:-:{start},{length}" for start, length in cuts],
        tensors=[whole[..., start : start + length] for start, length in cuts],
    )
    parts = [str(folder / "a"), str(folder / "b")]
    tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=parts, destination_prefix=str(folder / "model.ckpt-7"))
    return Made(folder / "model.ckpt-7", weights())


def compressed(make: Callable[[Path], Made], how: str, *, rows: int = 50) -> Callable[[Path], Made]:
    """The same with an index of compressed blocks."""

    def compress(folder: Path) -> Made:
        made = make(folder)
        tables.compress_index(prefix_in(folder), how, rows=rows)
        return made

    return compress


def text_form(folder: Path) -> Made:
    from google.protobuf import text_format
    from tensorflow.core.protobuf import saved_model_pb2

    made = saved_model(selector=1)(folder)
    graph = saved_model_pb2.SavedModel.FromString((made.path / "saved_model.pb").read_bytes())
    (made.path / "saved_model.pbtxt").write_text(text_format.MessageToString(graph))
    (made.path / "saved_model.pb").unlink()
    return made


def damaged(make: Callable[[Path], Made], *, end: str, change: Callable[[bytes], bytes]) -> Callable[[Path], Made]:
    """The same with one file's bytes changed."""

    def damage(folder: Path) -> Made:
        made = make(folder)
        path = next(folder.rglob(f"*{end}"))
        path.write_bytes(change(path.read_bytes()))
        return Made(made.path)

    return damage


def small(folder: Path) -> Made:
    """Too small to be a network; enough to be damaged."""
    values = {f"base_model/conv2d_{i}/kernel": np.arange(60, dtype=np.float32) + i for i in range(30)}
    official.save(folder / "model.ckpt-7", values)
    return Made(folder)


def flipped(share: float) -> Callable[[bytes], bytes]:
    def flip(content: bytes) -> bytes:
        place = int(share * len(content))
        return content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :]

    return flip


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


packed = functools.partial(compressed, small)
SAVER, CHECKPOINT, SAVED = "tf.train.Saver", "tf.train.Checkpoint", "tf.saved_model.save"
GOOGLE = "Google's TensorFlow (compressed index)"

ROWS = [
    Row(SAVER, "official TF1 checkpoint", tf1(selector=1), reason="reads projection layer 1, by model.ckpt-7.meta"),
    Row(SAVER, "official TF1 checkpoint with Momentum slots", tf1(f"{NAME}.finetune_all.lars"), reason="optimizer"),
    Row(SAVER, "official TF1 checkpoint with Adam slots", tf1(f"{NAME}.pretrain.adam"), reason="optimizer"),
    Row(SAVER, "format before the tensor bundle (V1)", version_1),
    Row(SAVER, "a partitioned variable, two data files", partitioned),
    Row(SAVER, "quantised, complex and text tensors beside the network", with_others, reason="no part of this network"),
    Row("hub.Module.export", "TF1 hub module", hub),
    Row(CHECKPOINT, "official TF2 checkpoint", tf2()),
    Row(CHECKPOINT, "official TF2 checkpoint with Adam slots", tf2(f"{NAME}.pretrain.adam")),
    Row(SAVED, "official SavedModel", saved_model(selector=2), reason="projection layer 2, by saved_model.pb"),
    Row(SAVED, "SavedModel, variables in lists alone", saved_model(attributes=False)),
    Row(SAVED, "SavedModel, graph as text", text_form, reason="projection layer 1, by saved_model.pbtxt"),
    *(
        Row(GOOGLE, f"{what}, blocks by {how}", compressed(make, how))
        for how in ("google", "copies", "literals", "mixed")
        for what, make in (("TF1 checkpoint", tf1()), ("TF2 checkpoint", tf2()), ("SavedModel", saved_model()))
    ),
    Row(GOOGLE, "TF1 hub module", compressed(hub, "google")),
    Row(GOOGLE, "one block an entry", compressed(tf1(), "mixed", rows=1)),
    Row(
        GOOGLE,
        "a flipped bit in a block",
        damaged(packed("google"), end=".index", change=flipped(0.3)),
        "refused",
        reason="checksum of the block",
        quick=True,
    ),
    Row(
        GOOGLE,
        "an index that is cut off",
        damaged(packed("google"), end=".index", change=half),
        "refused",
        reason="must end with a table's magic number",
        quick=True,
    ),
    Row(
        SAVER,
        "a flipped bit in a tensor",
        damaged(tf1(), end="data-00000-of-00001", change=flipped(0.5)),
        "refused",
        reason="must match its checksum",
    ),
    Row(
        SAVER,
        "a data file that is cut off",
        damaged(small, end="data-00000-of-00001", change=half),
        "refused",
        reason="is cut off",
        quick=True,
    ),
]
