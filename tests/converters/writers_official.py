"""Rows of the writers' table: what TensorFlow and the official code write.

Names, shapes and values are the goldens' (`tests/converters/published/catalogue.py`); TensorFlow itself writes.
"""

import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.converters import networks, official, tables
from tests.converters.writers import Made, Row

NAME = "r18_1x_sk0_cifar"
"""The smallest official network: projection head and classifier."""


def weights() -> dict[str, np.ndarray]:
    return networks.arrays(networks.architecture(NAME))


def tf1(**options: Any) -> Callable[[Path], Made]:
    """A TF1 checkpoint in a folder, by the checkpoint's prefix."""

    def make(folder: Path) -> Made:
        return Made(official.write_tf1(folder, NAME, **options), weights())

    return make


def training(name: str, **options: Any) -> Callable[[Path], Made]:
    """A TF1 checkpoint with an optimizer's slots, by its folder; pretraining without the probe has no classifier."""

    def make(folder: Path) -> Made:
        official.write_tf1(folder, name, **options)
        return Made(folder, {k: v for k, v in weights().items() if not k.startswith("logits_sup")})

    return make


def of_folder(make: Callable[[Path], Made]) -> Callable[[Path], Made]:
    return lambda folder: Made(folder, make(folder).weights)


def by_index(folder: Path) -> Made:
    made = tf1()(folder)
    return Made(made.path.with_name(made.path.name + ".index"), made.weights)


def averages(folder: Path, *, ema: bool) -> Made:
    """Each weight twice, as SimCLRv2's code stores moving averages; the classifier has none."""
    values = official.tf1_values(NAME)
    plain = {k: v for k, v in values.items() if k != "global_step"}
    other = {f"ema_model/{k}": v + 1 for k, v in plain.items() if not k.startswith("head_supervised")}
    if ema:
        other, plain = (
            {k: plain[k.removeprefix("ema_model/")] for k in other},
            {k: v + (not k.startswith("head_supervised")) for k, v in plain.items()},
        )
    return Made(official.write_tf1(folder, NAME, values=plain | other), weights())


def two_steps(folder: Path) -> Made:
    official.write_tf1(folder, NAME, step=3, values={"base_model/conv2d/kernel": np.zeros((3, 3, 3, 64), np.float32)})
    official.write_tf1(folder, NAME, step=7, state=False)
    official.write_state(folder, "model.ckpt-7", "model.ckpt-3")
    return Made(folder, weights())


def two_older(folder: Path) -> Made:
    made = two_steps(folder)
    changed = {"stem_conv1/kernel": np.zeros((3, 3, 3, 64), np.float32)}
    return Made(made.path, {**made.weights, **changed})


def compressed(how: str) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        made = tf1()(folder)
        tables.compress_index(made.path, how)
        return made

    return make


def first_version(folder: Path) -> Made:
    """`Saver` before TensorFlow 1.0: one file."""
    import tensorflow as tf

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        for name, value in official.tf1_values(NAME).items():
            tf.compat.v1.get_variable(name, initializer=value)
        session.run(tf.compat.v1.global_variables_initializer())
        saver = tf.compat.v1.train.Saver(write_version=tf.compat.v1.train.SaverDef.V1)
        return Made(Path(saver.save(session, str(folder / "model.ckpt"), write_meta_graph=False)), weights())


def sharded(folder: Path) -> Made:
    """Data in three files, as many workers write them."""
    import tensorflow as tf

    values = list(official.tf1_values(NAME).items())
    parts = [str(folder / f"part{i}") for i in range(3)]
    for i, part in enumerate(parts):
        official.save(Path(part), dict(values[i::3]))
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=parts, destination_prefix=str(folder / "model.ckpt-7"), delete_old_dirs=False
    )
    return Made(folder / "model.ckpt-7", weights())


def tf2(name: str = NAME, *, compress: bool = False, **options: Any) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        prefix = official.write_tf2(folder, name, **options)
        if compress:
            tables.compress_index(prefix, "google")
        return Made(folder, weights())

    return make


def saved_model(*, inside: str = "", compress: bool = False, **options: Any) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        place = official.write_saved_model(folder / (inside or "saved_model"), NAME, **options)
        if compress:
            tables.compress_index(place / "variables" / "variables", "google")
        return Made(folder if inside else place, weights())

    return make


def packed(name: str) -> Callable[[Path], Made]:
    """A SavedModel in an archive: in TF Hub's form its files are at the top."""

    def make(folder: Path) -> Made:
        place = official.write_saved_model(folder / "saved_model", NAME)
        if name.endswith(".zip"):
            with zipfile.ZipFile(folder / name, "w") as archive:
                for path in sorted(place.rglob("*")):
                    archive.write(path, Path("release") / path.relative_to(folder))
        else:
            with tarfile.open(folder / name, "w:gz") as archive:
                archive.add(place, ".")
        shutil.rmtree(place)
        return Made(folder / name, weights())

    return make


def hub(folder: Path) -> Made:
    official.write_tf1(folder / "module", NAME, hub=True)
    (folder / "module" / "tfhub_module.pb").write_bytes(b"\x08\x03")
    return Made(folder / "module", weights())


def stored_as(dtype: str) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        import tensorflow as tf

        kind = tf.as_dtype(dtype).as_numpy_dtype
        values = {k: v if k == "global_step" else v.astype(kind) for k, v in official.tf1_values(NAME).items()}
        official.save(folder / "model.ckpt-7", values)
        return Made(folder / "model.ckpt-7", {k: v.astype(kind) for k, v in weights().items()})

    return make


def with_strange_tensors(folder: Path) -> Made:
    """Beside the weights a text, a complex, a boolean and a 16-bit tensor."""
    import tensorflow as tf

    values = official.tf1_values(NAME)
    values |= {"note": np.array(b"text", object), "z": np.ones(2, np.complex64), "b": np.ones(2, bool)}
    values |= {"u": np.ones(2, np.uint16), "h": np.ones(2, tf.bfloat16.as_numpy_dtype)}
    official.save(folder / "model.ckpt-7", values)
    return Made(folder / "model.ckpt-7", weights())


def broken(change: Callable[[Path], None], make: Callable[[Path], Made] | None = None) -> Callable[[Path], Made]:
    """A checkpoint of which something was changed afterwards."""

    def changed(folder: Path) -> Made:
        made = (make or tf1())(folder)
        change(made.path)
        return Made(made.path)

    return changed


def _flip(ending: str, place: float) -> Callable[[Path], None]:
    def change(prefix: Path) -> None:
        path = prefix.with_name(prefix.name + ending)
        data = bytearray(path.read_bytes())
        data[int(len(data) * place)] ^= 16
        path.write_bytes(bytes(data))

    return change


def _cut(ending: str) -> Callable[[Path], None]:
    def change(prefix: Path) -> None:
        path = prefix.with_name(prefix.name + ending)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return change


def _remove_data(prefix: Path) -> None:
    prefix.with_name(prefix.name + ".data-00000-of-00001").unlink()


def _lfs(prefix: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 44781732\n"
    prefix.with_name(prefix.name + ".data-00000-of-00001").write_bytes(pointer)


def slim(folder: Path) -> Made:
    """Another project's ResNet."""
    official.save(folder / "resnet_v1_50.ckpt", {"resnet_v1_50/conv1/weights": np.zeros((7, 7, 3, 64), np.float32)})
    return Made(folder / "resnet_v1_50.ckpt")


def one_missing(folder: Path) -> Made:
    return Made(official.write_tf1(folder, NAME, values={"base_model/batch_normalization_5/beta": None}))


def named(text: str) -> Callable[[Path], Made]:
    """Nothing is made: only a name is given."""
    return lambda folder: Made(Path(text))


def lite(folder: Path) -> Made:
    (folder / "model.tflite").write_bytes(b"\x1c\0\0\0TFL3" + bytes(64))
    return Made(folder / "model.tflite")


def _tf(writer: str, what: str, make: Callable[[Path], Made], **options: Any) -> Row:
    return Row(writer, what, make, needs=("tensorflow",), **options)


def _refused(writer: str, what: str, make: Callable[[Path], Made], *, reason: str) -> Row:
    return _tf(writer, what, make, expect="refused", reason=reason)


SAVER = "official TF1 code (tf.train.Saver)"
OBJECT = "official TF2 code (tf.train.Checkpoint)"
SAVED = "official TF2 code (tf.saved_model.save)"

ROWS = [
    _tf(SAVER, "checkpoint, by its prefix", tf1(), quick=True),
    _tf(SAVER, "checkpoint, by its folder", of_folder(tf1())),
    _tf(SAVER, "checkpoint, by its .index", by_index),
    _tf(
        SAVER, "graph: classifier on the features", tf1(selector=0), reason="reads the pooled features, by model.ckpt-7"
    ),
    _tf(SAVER, "with Momentum slots", training(f"{NAME}.pretrain.momentum"), reason="optimizer"),
    _tf(SAVER, "with Adam slots", training(f"{NAME}.pretrain.adam"), reason="optimizer"),
    _tf(SAVER, "with LARS' slots", training(f"{NAME}.pretrain.lars"), reason="optimizer"),
    _tf(SAVER, "weights and moving averages", lambda folder: averages(folder, ema=False)),
    _tf(SAVER, "the moving averages, by --ema", lambda folder: averages(folder, ema=True), options={"ema": True}),
    _tf(SAVER, "two steps in a folder", two_steps, reason="model.ckpt-3"),
    _tf(SAVER, "an older step, asked for", two_older, options={"step": 3}),
    *(
        _tf("Google's builds (compressed index)", f"checkpoint, blocks as of {how}", compressed(how))
        for how in tables.COMPRESSORS
    ),
    _tf("tf.train.Saver, format V1", "checkpoint in one file", first_version),
    _tf("tf.raw_ops.MergeV2Checkpoints", "data in three files", sharded),
    *(_tf("tf.raw_ops.SaveV2", f"{dtype} weights", stored_as(dtype)) for dtype in ("bfloat16", "float16", "float64")),
    _tf("tf.raw_ops.SaveV2", "text, complex, bool, uint16 tensors beside", with_strange_tensors),
    _tf("TF Hub, format of TF1", "module", hub),
    _tf(OBJECT, "model alone", tf2(slots=False)),
    _tf(OBJECT, "with Momentum", tf2(f"{NAME}.pretrain.momentum"), reason="optimizer"),
    _tf(OBJECT, "with Adam", tf2(f"{NAME}.pretrain.adam"), reason="optimizer"),
    _tf("Google's builds (compressed index)", "TF2 object checkpoint", tf2(slots=False, compress=True)),
    _tf(SAVED, "SavedModel", saved_model()),
    _tf(SAVED, "SavedModel whose variables only lists lead to", saved_model(attributes=False)),
    _tf("Google's builds (compressed index)", "SavedModel", saved_model(compress=True)),
    _tf("official bucket", "r18_1x_sk0/saved_model/ below a folder", saved_model(inside="r18_1x_sk0/saved_model")),
    _tf("TensorFlow Serving", "version folder 1/", saved_model(inside="1")),
    _tf("TF Hub", "SavedModel as .tar.gz, files at the top", packed("hub.tar.gz")),
    _tf("zip", "SavedModel in a .zip", packed("release.zip")),
    _refused("damage", "a bit among the weights", broken(_flip(".data-00000-of-00001", 0.5)), reason="checksum"),
    _refused("damage", "a bit in the index", broken(_flip(".index", 0.3)), reason="checksum|damaged|whole"),
    _refused(
        "damage", "a bit in a compressed index", broken(_flip(".index", 0.3), compressed("google")), reason="checksum"
    ),
    _refused("damage", "the data cut off", broken(_cut(".data-00000-of-00001")), reason="cut off"),
    _refused("damage", "the index cut off", broken(_cut(".index")), reason="whole|cut|must"),
    _refused("damage", "the data file missing", broken(_remove_data), reason="must exist"),
    _refused("a download", "a Git-LFS pointer as data", broken(_lfs), reason="Git-LFS"),
    _refused("tf-slim", "resnet_v1_50", slim, reason="must hold a ResNet"),
    _refused(SAVER, "one weight missing", one_missing, reason="batch_normalization_5/beta"),
    _refused(
        "a user", "an address that only a browser takes", named("ftp://mine/r50.zip"), reason="curl -LO ftp://mine"
    ),
    _refused("a user", "the last part of an official name", named("r50_1x_sk0"), reason="did you mean simclrv2/"),
    _refused("a user", "a path where nothing is", named("/nowhere/at/all"), reason="must exist"),
    _refused("TensorFlow Lite", "model.tflite", lite, reason="TensorFlow Lite"),
]
