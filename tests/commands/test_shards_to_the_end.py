"""Every command on every kind of shards, to its end; oracle: the same command on the folder that they hold.

The shards are written by others' writers, in the folder's own order: so not only features and accuracies are the same
bits, but the weights of every training, too.
"""

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import golden, hub
from tests.commands import pictures
from tests.commands.test_any_encoder import CODE
from tests.tiny_runs import assert_same_bits
from tf_simclr import cli
from tf_simclr.commands import embed, export
from tf_simclr.config import Embed, Export
from tf_simclr.data.sources import from_folder
from tf_simclr.own import named

SPLITS = {"train": 8, "test": 4}
"""Split → images of each of three classes."""
Example = tuple[bytes, int]


def listed(folder: Path) -> tuple[list[Example], tuple[str, ...]]:
    """Encoded image and class of each picture of a folder, in its order; and the names of the classes."""
    source = from_folder(folder)
    rows = source.rows
    return [(rows.encoded(i), int(rows.labels[i])) for i in range(len(rows))], source.class_names


def write_tars(place: Path, split: str, examples: list[Example], names: tuple[str, ...], mode: str = "w") -> None:
    for number, part in enumerate((examples[:5], [], examples[5:])):
        with tarfile.open(place / f"{split}-{number:06}.tar{'.gz' * (mode != 'w')}", mode) as tar:
            for key, (image, label) in enumerate(part):
                for ending, data in (("png", image), ("cls", str(label).encode())):
                    member = tarfile.TarInfo(f"{key:04}.{ending}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    (place / "classes.txt").write_text("".join(f"{name}\n" for name in names))


def tf_example(image: bytes, label: int, names: tuple[str, ...]) -> bytes:
    """As ImageNet's own files have it: classes from 1 on."""
    kinds = {
        "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
        "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label + 1])),
        "image/class/text": tf.train.Feature(bytes_list=tf.train.BytesList(value=[names[label].encode()])),
    }
    return tf.train.Example(features=tf.train.Features(feature=kinds)).SerializeToString()


def write_tfrecords(place: Path, split: str, examples: list[Example], names: tuple[str, ...]) -> None:
    for number, part in enumerate((examples[:5], [], examples[5:])):
        with tf.io.TFRecordWriter(str(place / f"{split}-{number:05}-of-00003")) as writer:
            for image, label in part:
                writer.write(tf_example(image, label, names))


def write_array_records(place: Path, split: str, examples: list[Example], names: tuple[str, ...]) -> None:
    from array_record.python.array_record_module import ArrayRecordWriter

    for number, part in enumerate((examples[:5], [], examples[5:])):
        writer = ArrayRecordWriter(str(place / f"pets-{split}.array_record-{number:05}-of-00003"), "group_size:1")
        for image, label in part:
            writer.write(tf_example(image, label, names))
        writer.close()


def dataset(examples: list[Example], names: tuple[str, ...]):
    import datasets

    kinds = datasets.Features({"image": datasets.Image(decode=False), "label": datasets.ClassLabel(names=list(names))})
    images = [{"bytes": image, "path": None} for image, _ in examples]
    return datasets.Dataset.from_dict({"image": images, "label": [label for _, label in examples]}, features=kinds)


def write_parquet(place: Path, split: str, examples: list[Example], names: tuple[str, ...]) -> None:
    for number, part in enumerate((examples[:5], [], examples[5:])):
        dataset(part, names).to_parquet(place / f"{split}-{number:05}-of-00003.parquet", batch_size=4)


def write_words(place: Path, split: str, examples: list[Example], names: tuple[str, ...]) -> None:
    """Compressed Parquet by pyarrow alone, whose classes are words."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"picture": [one for one, _ in examples], "category": [names[label] for _, label in examples]})
    pq.write_table(table, place / f"{split}.parquet", compression="zstd", row_group_size=7)


def write_arrow(place: Path, split: str, examples: list[Example], names: tuple[str, ...]) -> None:
    dataset(examples, names).save_to_disk(place / split, num_shards=2)


KINDS: dict[str, Callable[..., None]] = {
    "tar": write_tars,
    "tar.gz": lambda *given: write_tars(*given, mode="w:gz"),
    "tfrecord": write_tfrecords,
    "parquet": write_parquet,
    "parquet of words": write_words,
    "arrow": write_arrow,
    "arrayrecord": write_array_records,
}
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A working directory with a folder of pictures, and the same as shards of each kind."""
    pytest.importorskip("datasets", reason="Parquet and Arrow need the extra `shards`")
    found = tmp_path_factory.mktemp("shards")
    (found / "mynets.py").write_text(CODE)
    for split, count in SPLITS.items():
        folder = pictures.write(found / "folder" / "pets" / split, per_class=count, size=16)
        examples, names = listed(folder)
        for kind, write in KINDS.items():
            (found / kind / "pets").mkdir(parents=True, exist_ok=True)
            write(found / kind / "pets", split, examples, names)
    return found


@pytest.fixture
def at(place, monkeypatch, tmp_path) -> Callable[[str], Path]:
    """Goes to the folder of a kind, where commands then find `pets`."""
    monkeypatch.setenv("TF_SIMCLR_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(place))

    def go(kind: str) -> Path:
        monkeypatch.chdir(place / kind)
        return place / kind

    yield go
    sys.modules.pop("mynets", None)
    named.imported.clear()


@every_kind
def test_features_are_the_folder_s(at, kind, monkeypatch):
    """The cheapest command that goes all the way: from a shard's bytes to what a network gives."""
    images = keras.Input((None, None, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, name="conv")(images))
    network = keras.Model(images, {"final_avg_pool": pooled})
    monkeypatch.setattr(embed, "load_model", lambda path, ema: network)
    found = []
    for where in ("folder", kind):
        options = {"checkpoint": at(where), "image_dir": Path("pets"), "image_size": 16, "split": "test"}
        embed.run(Embed(**options, out=Path("alone.npz")))
        found.append(features(Path("alone.npz")))
    assert found[0]["labels"].tolist() == sorted([0, 1, 2] * SPLITS["test"])
    assert all(np.array_equal(found[0][name], found[1][name]) for name in found[0])


@every_kind
def test_an_export_is_compared_on_them(at, kind):
    """Before: shards were no images for `export`."""
    at("folder")
    config = Export(checkpoint=Path("x"), image_dir=Path("pets"), samples=36, image_size=16)
    there = export.pictures(config)[0]
    at(kind)
    here = export.pictures(config)[0]
    assert sorted(map(np.ndarray.tobytes, here)) == sorted(map(np.ndarray.tobytes, there))


def features(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return {name: file[name] for name in ("values", "labels")}


OWN = "--encoder mynets:tiny_convnext"
PRETRAIN = f"--image_size 16 --train_batch_size 8 --proj_out_dim 8 {OWN} --train_steps 4 --knn_epochs 1"
PROBE = f"linear-eval --checkpoint run {OWN} --no-untrained"
SHORT = f"{OWN} --train_batch_size 8 --train_steps 2"
COMMANDS = (
    f"pretrain {PRETRAIN} --eval_split test --image_dir pets --model_dir run",
    f"{PROBE} --protocol knn --result knn.json",
    f"{PROBE} --l2_strengths 2 --result logistic.json",
    f"embed --checkpoint run {OWN} --split test --out features.npz",
    "compare knn.json logistic.json --figures compared",
    f"finetune --checkpoint run {SHORT} --model_dir tuned",
    f"distill --teacher tuned --teacher_encoder mynets:tiny_convnext {SHORT} --self_distillation "
    "--teacher_views cached --eval_batch_size 8 --model_dir student",
    f"transfer --checkpoint run {OWN} --image_dir . --datasets pets --l2_strengths 2",
    f"export --checkpoint tuned {OWN} --to keras --out tuned.keras --samples 8 --image_dir pets",
    f"sweep --config plan.json {OWN} --model_dir sweep",
)
"""Every command that looks at images, in an order in which each finds what it needs."""
PLAN = {
    "command": "sweep",
    "task": "finetune",
    "options": {"checkpoint": "run", "image_dir": "pets", "image_size": 16, "train_batch_size": 8, "train_steps": 1}
    | {"train_split": "train", "eval_split": "test"},
    "search": {"learning_rate": [0.1]},
}


def everything() -> None:
    """Runs all commands in the working directory."""
    Path("plan.json").write_text(json.dumps(PLAN))
    for words in COMMANDS:
        cli.execute(words)


def numbers(path: str, *keys: str) -> object:
    """A part of a result."""
    found = json.loads(Path(path).read_text())
    for key in keys:
        found = found[key]
    return found


def outcome() -> dict[str, object]:
    """What was measured in the working directory."""
    return {
        "knn": numbers("knn.json", "results"),
        "logistic": numbers("logistic.json", "results"),
        "finetune": numbers("tuned/result.json", "top1"),
        "distill": numbers("student/result.json", "top1"),
        "transfer": numbers("run/transfer/pets.json", "results"),
        "sweep": numbers("sweep/result.json", "top1.accuracy"),
        "classes": numbers("run/about.json", "classes") if Path("run/about.json").exists() else None,
    }


@pytest.fixture(scope="module")
def reference(place, tmp_path_factory) -> tuple[Path, dict[str, object]]:
    """The folder's runs, and what was measured."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TF_SIMCLR_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("PYTHONPATH", f"{golden.ROOT}{os.pathsep}{place}")
        patch.syspath_prepend(str(place))
        patch.chdir(place / "folder")
        everything()
        return place / "folder", outcome()


@pytest.mark.slow
@every_kind
def test_every_command_to_its_end(at, reference, kind, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{golden.ROOT}{os.pathsep}{at(kind).parent}")
    everything()
    folder, known = reference
    assert outcome() == known
    for run, step in (("run", 4), ("tuned", 2), ("student", 2), ("sweep/trial-000", 1)):
        name = f"{run}/checkpoints/step-{step:08d}.npz"
        assert_same_bits(Path(name), folder / name)
    there, here = features(folder / "features.npz"), features(Path("features.npz"))
    assert all(np.array_equal(there[name], here[name]) for name in there)


@pytest.mark.slow
def test_every_command_on_a_data_set_of_the_hub(place, reference, tmp_path, monkeypatch):
    """In processes of their own, as a user types it: `hf:user/pets`, downloaded from a hub on loopback."""
    folder, known = reference
    monkeypatch.setenv("PYTHONPATH", f"{golden.ROOT}{os.pathsep}{place}")
    monkeypatch.setenv("TF_SIMCLR_CACHE", str(tmp_path / "cache"))
    files = {"README.md": b"---\nlicense: mit\n---\n# Pets\n"}
    for path in sorted((place / "parquet" / "pets").glob("*.parquet")):
        files[f"data/{path.name}"] = path.read_bytes()
    plan = PLAN | {"options": {name: value for name, value in PLAN["options"].items() if name != "image_dir"}}
    plan["options"]["dataset"] = "hf:user/pets"
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    monkeypatch.chdir(tmp_path)
    with hub.hub_on_loopback(monkeypatch, tmp_path, hub.DataSets):
        hub.Hub.repositories["user/pets", "main"] = files
        for words in COMMANDS:
            if words.startswith(("transfer", "export")):  # which take folders
                continue
            words = words.replace("--image_dir pets", "--dataset hf:user/pets")
            command = [sys.executable, "-m", "tf_simclr", *words.split()]
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ.copy())
            assert done.returncode == 0, done.stderr[-3000:]
    for run, step in (("run", 4), ("tuned", 2), ("student", 2), ("sweep/trial-000", 1)):
        name = f"{run}/checkpoints/step-{step:08d}.npz"
        assert_same_bits(Path(name), folder / name)
    for name in ("knn", "logistic"):
        assert numbers(f"{name}.json", "results") == known[name]
