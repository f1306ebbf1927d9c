"""A prepared folder without a preparation: flat pictures, each of its own grey, so that a view tells its image."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import tensorflow as tf

from tf_simclr.chest.collections import prepare
from tf_simclr.data.radiographs.prepared import Prepared, load
from tf_simclr.files import write_json

CLASSES = ("ARDS", "No Finding")


def folder(
    place: Path,
    patients: str,
    *,
    size: int = 16,
    corrupt: tuple[int, ...] = (),
    shard: int = 5,
    splits: Mapping[str, str] = MappingProxyType({}),
) -> Prepared:
    """Writes an image a letter, in a grey of its own; a letter is a patient, and there are up to 62 letters.

    Args:
        place: where to.
        patients: such as `aab`; every second patient, with all images, has the first class.
        size: side in pixels.
        corrupt: images that no decoder takes.
        shard: images a file.
        splits: of the collection's own split the part of each patient.
    """
    names = sorted(set(patients))
    rows, pictures = [], []
    for number, patient in enumerate(patients):
        pixels = np.full((size, size, 1), grey(number), np.uint8)
        pictures.append(b"\x89PNG not" if number in corrupt else tf.io.encode_png(pixels).numpy())
        label = names.index(patient) % 2  # 1 of every second patient: ARDS
        row = {"image": f"{number:03d}", "study": f"s{number}", "patient": patient, "boxes": 0}
        row |= {"split": splits.get(patient, "")}
        rows.append(row | {"labels": [label, 1 - label], "refused": "", "hash": f"{number:064x}"})
    parts = [slice(i, i + shard) for i in range(0, len(rows), shard)]
    for i, part in enumerate(parts):
        path = place / f"records-{i:05d}-of-{len(parts):05d}.tfrecord"
        place.mkdir(parents=True, exist_ok=True)
        with tf.io.TFRecordWriter(str(path)) as writer:
            for row, picture in zip(rows[part], pictures[part], strict=True):
                writer.write(prepare.record(row, picture))
        write_json(path.with_suffix(".json"), {"rows": rows[part]})
    settings = {"name": "made", "classes": CLASSES, "images": len(rows), "size": size, "fit": "stretch"}
    write_json(place / "settings.json", settings | {"windowed": True})
    return load(place)


def grey(number: int) -> int:
    """The grey of an image, of 255."""
    return 4 * (number + 1)


def number(view: np.ndarray) -> int:
    """The image that a flat view in [0, 1] is of."""
    return round(float(view.mean()) * 255 / 4) - 1
