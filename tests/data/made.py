"""Every kind of source, made of the same pictures: flat greys, so that a pixel tells the image.

`changed` makes one picture another grey: with the same names, numbers of bytes and labels, so that only the content
tells the two sets apart.
"""

import io
import string
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.chest import made as radiographs
from tf_simclr.data import sources, subsets, tfds_source
from tf_simclr.data.kept.resized import resized
from tf_simclr.data.shards import hub
from tf_simclr.data.shards.source import from_shards
from tf_simclr.data.sources import Source

COUNT = 60
FILES = 6
CLASSES = 3


def greys(count: int, changed: bool) -> np.ndarray:
    """A grey an image; one of them is another where the set is to be another."""
    found = np.arange(count) % 200
    found[count // 2] = 255 if changed else found[count // 2]
    return found.astype(np.uint8)


def picture(grey: int) -> np.ndarray:
    return np.full((4, 4, 3), grey, np.uint8)


def bmp(pixels: np.ndarray) -> bytes:
    """A file whose size does not hang on what it shows."""
    height, width, _ = pixels.shape
    size = 54 + 3 * height * width
    head = b"BM" + np.array([size, 0, 54, 40, width, height], "<u4").tobytes()
    rows = pixels[::-1, :, ::-1].tobytes()  # from below, blue first
    return head + np.array([1, 24], "<u2").tobytes() + bytes(24) + rows


def write_folder(place: Path, changed: bool = False, *, count: int = COUNT) -> Path:
    for number, grey in enumerate(greys(count, changed)):
        path = place / f"class{number % CLASSES}" / f"{number:03}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bmp(picture(int(grey))))
    return place


def write_tfds(place: Path, changed: bool = False, *, count: int = COUNT, files: int = FILES, ordered: bool = False):
    """Lets tfds prepare a set; each image of one grey."""
    import tensorflow_datasets as tfds

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {"image": tfds.features.Image(shape=(None, None, 3), encoding_format="png")}
            features["label"] = tfds.features.ClassLabel(num_classes=CLASSES)
            features = tfds.features.FeaturesDict(features)
            return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=ordered)

        def _split_generators(self, manager):
            images = enumerate(greys(count, changed))
            return {"train": ((number, {"image": picture(g), "label": number % CLASSES}) for number, g in images)}

        def _generate_examples(self):
            return iter(())

    Builder.name = "made"
    config = tfds.download.DownloadConfig(num_shards=files, try_download_gcs=False)
    Builder(data_dir=place).download_and_prepare(download_config=config)
    return place


def from_arrays(place: Path, changed: bool) -> Source:
    pixels = np.stack([picture(int(grey)) for grey in greys(COUNT, changed)])
    return sources.from_arrays(pixels, np.arange(COUNT) % CLASSES)


def from_folder(place: Path, changed: bool, **options) -> Source:
    return sources.from_folder(write_folder(place, changed), **options)


def from_tfds(place: Path, changed: bool, split: str = "train", **options) -> Source:
    return tfds_source.from_tfds("made", split, data_dir=write_tfds(place, changed, **options))


def prepared(place: Path, changed: bool):
    patients = "".join(2 * letter for letter in string.ascii_letters[: COUNT // 2])
    found = radiographs.folder(place, patients, shard=COUNT // FILES)
    if changed:  # the same names, classes and patients
        path = sorted(place.glob("records-*.tfrecord"))[FILES // 2]
        records = [record.numpy() for record in tf.data.TFRecordDataset(str(path))]
        example = tf.train.Example.FromString(records[0])
        values = example.features.feature["picture"].bytes_list.value
        values[0] = tf.io.encode_png(np.full((16, 16, 1), 255, np.uint8)).numpy()
        records[0] = example.SerializeToString()
        with tf.io.TFRecordWriter(str(path)) as writer:
            for record in records:
                writer.write(record)
    return found


def examples(changed: bool) -> list[tuple[str, bytes, int]]:
    """Key, encoded image and class of each example."""
    return [(f"{n:03}", bmp(picture(int(grey))), n % CLASSES) for n, grey in enumerate(greys(COUNT, changed))]


def shards_of(found: list) -> list[list]:
    """Uneven ones, and an empty one."""
    return [found[:25], [], *(found[start : start + 7] for start in range(25, len(found), 7))]


def write_tars(place: Path, changed: bool = False) -> Path:
    """WebDataset's layout, by Python's own writer."""
    place.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(shards_of(examples(changed))):
        with tarfile.open(place / f"train-{number:06}.tar", "w") as tar:
            for key, image, label in part:
                for name, data in ((f"{key}.bmp", image), (f"{key}.cls", str(label).encode()), (f"{key}.pyd", b"\x80")):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    return place


def tf_example(image: bytes, label: int) -> bytes:
    """As ImageNet's own files have it: classes from 1 on."""
    features = {
        "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
        "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label + 1])),
        "image/class/text": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"class %d" % label])),
        "image/object/bbox/xmin": tf.train.Feature(float_list=tf.train.FloatList(value=[0.5, 1.0])),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def write_tfrecords(place: Path, changed: bool = False) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    parts = shards_of(examples(changed))
    for number, part in enumerate(parts):
        with tf.io.TFRecordWriter(str(place / f"train-{number:05}-of-{len(parts):05}")) as writer:
            for _, image, label in part:
                writer.write(tf_example(image, label))
    return place


def features_of(found: list):
    """A data set of Hugging Face's library, whose pictures are bytes and names."""
    import datasets

    content = {"image": [{"bytes": image, "path": f"{key}.bmp"} for key, image, _ in found]}
    content["label"] = [label for _, _, label in found]
    kinds = {"image": datasets.Image(decode=False), "label": datasets.ClassLabel(names=["a", "b", "c"])}
    return datasets.Dataset.from_dict(content, features=datasets.Features(kinds))


def write_parquet(place: Path, changed: bool = False) -> Path:
    """By Hugging Face's library: a few rows in a group, not compressed."""
    place.mkdir(parents=True, exist_ok=True)
    parts = shards_of(examples(changed))
    for number, part in enumerate(parts):
        path = place / f"train-{number:05}-of-{len(parts):05}.parquet"
        features_of(part).to_parquet(path, batch_size=10)
    return place


def write_compressed_parquet(place: Path, changed: bool = False) -> Path:
    """By pyarrow alone: bytes and words, compressed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    place.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(shards_of(examples(changed))):
        pictures = pa.array([image for _, image, _ in part], pa.large_binary())
        words = pa.array([f"class {label}" for _, _, label in part], pa.string())
        table = pa.table({"picture": pictures, "category": words})
        pq.write_table(table, place / f"train-{number}.parquet", compression="zstd", row_group_size=8)
    return place


def write_arrow(place: Path, changed: bool = False) -> Path:
    import datasets

    place.mkdir(parents=True, exist_ok=True)
    saved = datasets.DatasetDict({"train": features_of(examples(changed))})
    saved.save_to_disk(place, num_shards={"train": FILES})
    return place


def write_array_records(place: Path, changed: bool = False) -> Path:
    from array_record.python.array_record_module import ArrayRecordWriter

    place.mkdir(parents=True, exist_ok=True)
    parts = shards_of(examples(changed))
    for number, part in enumerate(parts):
        name = f"made-train.array_record-{number:05}-of-{len(parts):05}"
        writer = ArrayRecordWriter(str(place / name), "group_size:1")
        for _, image, label in part:
            writer.write(tf_example(image, label))
        writer.close()
    return place


SHARDS = {
    "tar": write_tars,
    "tfrecord": write_tfrecords,
    "parquet": write_parquet,
    "parquet, compressed": write_compressed_parquet,
    "arrow": write_arrow,
    "arrayrecord": write_array_records,
}
"""Kind of shards → who writes them, in several files, some of them empty."""


def from_hub(place: Path, changed: bool) -> Source:
    """A part of two splits of a data set of the hub, as its library keeps it; `test_hub_sets` has the hub itself."""
    import datasets

    files, found = {}, examples(changed)
    place.mkdir(parents=True, exist_ok=True)
    for split, some in (("train", found[:35]), ("test", found[35:])):
        files[split] = str(place / f"{split}.parquet")
        features_of(some).to_parquet(files[split], batch_size=10)
    builder = datasets.load_dataset_builder("parquet", data_files=files, cache_dir=str(place / "library"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hub, "_builder", lambda dataset, data_dir: builder)
        return hub.from_hub("hf:user/made", "test+train[20%:]")


def from_radiographs(place: Path, changed: bool) -> Source:
    from tf_simclr.data.radiographs import partition

    return partition.part(prepared(place, changed), "all", positive="ARDS")


def from_pairs(place: Path, changed: bool) -> Source:
    from tf_simclr.data.radiographs import bags

    return bags.part(prepared(place, changed), "all", positive="ARDS")


def part(source: Source) -> Source:
    return subsets.labelled_part(source, 0.7)[0]


def far(source: Source) -> Source:
    """A part too large for memory, so that it is read where it lies."""
    before, subsets.HELD_BYTES = subsets.HELD_BYTES, 10
    try:
        return part(source)
    finally:
        subsets.HELD_BYTES = before


def retargeted(source: Source) -> Source:
    return subsets.with_targets(source, lambda record: record["label"] + 0)


def kept(source: Source, place: Path) -> Source:
    """Of a cache of smaller images; none is larger here, so that what is seen stays."""
    return resized(source, size=64, kind="raw", place=place / "resized")


Make = Callable[[Path, bool], Source]
SOURCES: dict[str, Make] = {
    "arrays": from_arrays,
    "folder": from_folder,
    "folder, unlabelled": lambda place, changed: from_folder(place, changed, labelled=False),
    "folder, cached": lambda place, changed: sources.cached(from_folder(place, changed)),
    "folder, few labels": lambda place, changed: part(from_folder(place, changed)),
    "folder, other targets": lambda place, changed: retargeted(from_folder(place, changed)),
    "tfds": from_tfds,
    "tfds, one file": lambda place, changed: from_tfds(place, changed, files=1),
    "tfds, stored in an order": lambda place, changed: from_tfds(place, changed, ordered=True),
    "tfds, cached": lambda place, changed: sources.cached(from_tfds(place, changed)),
    "tfds, slice": lambda place, changed: from_tfds(place, changed, "train[20%:]"),
    "tfds, few labels in memory": lambda place, changed: part(from_tfds(place, changed)),
    "tfds, few labels on disk": lambda place, changed: far(from_tfds(place, changed)),
    "tars": lambda place, changed: from_shards(write_tars(place, changed)),
    "tars, few labels": lambda place, changed: part(from_shards(write_tars(place, changed))),
    "TFRecord": lambda place, changed: from_shards(write_tfrecords(place, changed)),
    "Parquet": lambda place, changed: from_shards(write_parquet(place, changed)),
    "Parquet, compressed": lambda place, changed: from_shards(write_compressed_parquet(place, changed)),
    "of the hub": from_hub,
    "Arrow": lambda place, changed: from_shards(write_arrow(place, changed)),
    "ArrayRecord": lambda place, changed: from_shards(write_array_records(place, changed)),
    "radiographs": from_radiographs,
    "radiographs, smaller": lambda place, changed: prepared(place, changed).source(np.arange(COUNT), side=8),
    "radiographs, pairs": from_pairs,
    "folder, resized": lambda place, changed: kept(from_folder(place, changed), place),
    "tfds, resized": lambda place, changed: kept(from_tfds(place, changed), place),
    "radiographs, resized": lambda place, changed: kept(from_radiographs(place, changed), place),
    "folder, resized, few labels": lambda place, changed: part(kept(from_folder(place, changed), place)),
}
"""Every kind of source; a new kind is a line here, and is held to all properties."""
