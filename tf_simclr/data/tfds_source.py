"""Examples of a TensorFlow Datasets data set, under its name, configuration, version and split syntax."""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from tf_simclr.data.sources import AT_ONCE, Records, Sequential, Source, in_graph, missing_labels
from tf_simclr.errors import InputError, check, first_line
from tf_simclr.files import contents
from tf_simclr.files.contents import Say, silent
from tf_simclr.files.places import expanded

LOOKED_AT = 1000
"""Examples whose labels tell whether a split has any: tfds shuffles when it prepares a set."""


def from_tfds(
    name: str,
    split: str = "train",
    *,
    data_dir: str | Path | None = None,
    image_key: str | None = None,
    label_key: str | None = None,
    download: bool = False,
) -> Source:
    """A split of a data set that tfds knows, or that lies prepared in `data_dir`.

    Args:
        name: `cifar10`, `imagenet2012_subset/1pct`, `cifar10:3.0.2`, …
        split: in tfds' syntax: `train`, `train[:10%]`, `train+test`.
        data_dir: tfds' folder; by default tfds' own, `~/tensorflow_datasets`.
        image_key: feature with the image; by default the set's input, else its only image.
        label_key: feature with the class; by default the set's target, else its only class; none: it is unlabelled,
            and so is a split whose labels are -1, which is tfds' word for none.
            One with any number of classes an example must be named: then labels are `(classes,)` of 1, 0, and -1 for
            what `<label_key>_no_difficult` leaves out (PASCAL VOC).
        download: whether to download and prepare a set that is not there.

    Raises:
        InputError: unknown set, split or feature, a set that is not prepared, or an empty split.
    """
    builder = _builder(name, data_dir)
    if not builder.is_prepared() and not download:
        rule = f"the data set {name} must be prepared, but is not in {builder.data_dir}"
        raise InputError(f"{rule}; allow its download, or point data_dir to where it is")
    _prepare(builder)
    features = builder.info.features
    image = _image_key(builder, image_key)
    label = _label_key(builder, label_key)

    def examples(seed: tf.Tensor | None) -> Records:
        # tfds' own small cache would be filled anew in each epoch; `sources.cached` is the one to use.
        reading = tfds.ReadConfig(add_tfds_id=True, try_autocache=False)
        # For a training files in the order of the seed, records of many taken in turn.
        if seed is not None:  # a set that is stored in an order is no exception: in training nothing may hang on it
            mixed = {"interleave_cycle_length": AT_ONCE, "interleave_block_length": 1, "enable_ordering_guard": False}
            reading = reading.replace(shuffle_seed=seed, **mixed)
        encoded = {image: tfds.decode.SkipDecoding()}
        return builder.as_dataset(split=split, shuffle_files=seed is not None, decoders=encoded, read_config=reading)

    @in_graph
    def record(example: dict[str, Any]) -> dict[str, tf.Tensor]:
        # The image is encoded, as it is stored: decoding is the stream's.
        target = {} if label is None else {"label": _label(example, label, kind=features[label])}
        return {"image": example[image], "name": example["tfds_id"]} | target

    origin, size = f"{name} ({split})", _split_size(builder, split)
    note, only = "", ""
    if label is not None and not isinstance(features[label], tfds.features.Sequence):
        chosen = label
        # A thousand labels are looked at: all -1 means none.
        every = examples(None).map(in_graph(lambda example: tf.cast(example[chosen], tf.int64)))
        first = np.fromiter(every.take(LOOKED_AT).as_numpy_iterator(), np.int64)
        note = missing_labels(first, origin)
        label = None if note else label
        if not note and (first == first[0]).all():  # a set that is stored in an order: is there another class at all?
            others = every.skip(len(first)).filter(in_graph(lambda one: one != first[0])).take(1)
            only = "" if list(others.as_numpy_iterator()) else _classes(features[chosen]).names[int(first[0])]
    return Sequential(
        origin=origin,
        num_examples=size,
        class_names=() if label is None else tuple(_classes(features[label]).names),
        only=only,
        notes=tuple(filter(None, [note, _made_up(builder, origin)])),
        identity=lambda say=silent: [builder.info.full_name, image, label, *_files(builder, split, say=say)],
        epoch=lambda seed: examples(seed).map(record),
        example_bytes=_example_bytes(builder),
        sides=_sides(features[image]),
    )


def _made_up(builder: tfds.core.DatasetBuilder, origin: str) -> str:
    """What the metadata of a set say of its being made up, as those of `siim_covid19` of made-up radiographs."""
    said = (builder.info.metadata or {}).get("made_up")
    return f"{origin}: {said}" if isinstance(said, str) and said else ""


def _sides(kind: tfds.features.FeatureConnector) -> tuple[int, int] | None:
    """Height and width of every image, where the set says that they are the same."""
    height, width = kind.shape[:2]
    return None if height is None or width is None else (height, width)


def _classes(kind: tfds.features.FeatureConnector) -> tfds.features.ClassLabel:
    """The classes of a label, or of each of a list of labels."""
    return kind.feature if isinstance(kind, tfds.features.Sequence) else kind


def _label(example: dict[str, Any], key: str, *, kind: tfds.features.FeatureConnector) -> tf.Tensor:
    """The class of an example, or 1, 0 or -1 for each class."""
    if not isinstance(kind, tfds.features.Sequence):
        label = tf.cast(example[key], tf.int64)
        # Seldom, since the first images were looked at; an error by TensorFlow's own means would hide the sentence.
        refused = tf.cond(label < 0, lambda: tf.numpy_function(_refuse, [key], tf.int64), lambda: label)
        return tf.ensure_shape(refused, ())
    lists = [example[key], example.get(f"{key}_no_difficult", example[key])]
    present, certain = (tf.reduce_sum(tf.one_hot(one, kind.feature.num_classes), 0) > 0 for one in lists)
    # Both lists have it: 1.  Only the list with difficult ones: 0 · 2 - 1 = -1, unknown.  Neither: 0.
    return 2 * tf.cast(certain, tf.int64) - tf.cast(present, tf.int64)


def _refuse(key: bytes) -> np.int64:
    """Never a label."""
    rule = f"each image must have a label, or none of the first {LOOKED_AT:,}, but a {key.decode()} further on is -1"
    raise InputError(f"{rule}; give a split whose images have labels")


def _files(builder: tfds.core.DatasetBuilder, split: str, *, say: Say) -> list[list[Any]]:
    """What a split reads: name, content and first and number of records of each file.

    Of a file in a bucket the address, size and time stand for its content: it cannot be changed, only written anew.
    """
    parts = builder.info.splits[split].file_instructions
    local = [part.filename for part in parts if not re.match(r"\w{2,}://", part.filename)]
    known = dict(zip(local, contents.digests(local, say=say), strict=True))

    def content(name: str) -> Any:
        if name in known:
            return known[name]
        # A bucket's file by its name, length and time, as nobody reads it for its digest.
        status = tf.io.gfile.stat(name)
        return [name, status.length, status.mtime_nsec]

    return [[os.path.basename(part.filename), content(part.filename), part.skip, part.take] for part in parts]


def _example_bytes(builder: tfds.core.DatasetBuilder) -> int:
    """What an example takes, about; 0 where the set does not tell."""
    splits = [one for one in builder.info.splits.values() if one.num_bytes]
    # Bytes an example, rounded up, over all splits that tell.
    return -(-sum(one.num_bytes for one in splits) // max(1, sum(one.num_examples for one in splits)))


def is_prepared(name: str, *, data_dir: str | Path | None = None) -> bool:
    """Whether a data set that tfds knows lies ready to be read."""
    return bool(_builder(name, data_dir).is_prepared())


def _builder(name: str, data_dir: str | Path | None) -> tfds.core.DatasetBuilder:
    try:
        return tfds.builder(name, data_dir=None if data_dir is None else _place(data_dir))
    except (ValueError, AssertionError, ImportError) as error:
        # tfds lists every set it knows below the first line.
        rule = "the data set must be one that tfds finds"
        raise InputError(f"{rule}. Received: {name!r} ({first_line(error)})") from error


def _place(data_dir: str | Path) -> str:
    """The folder as tfds takes it; a bucket's address, of which a `Path` leaves one slash only, too."""
    return re.sub(r"^(\w{2,}):/+", r"\1://", str(expanded(data_dir)))


def _prepare(builder: tfds.core.DatasetBuilder) -> None:
    """Downloads and prepares a set; does nothing where it is prepared."""
    try:
        builder.download_and_prepare()
    except (OSError, AssertionError, tfds.download.DownloadError) as error:  # no network; files to be put by hand
        raise InputError(
            f"the data set {builder.name} must be prepared in {builder.data_dir}, but preparing it failed "
            f"({first_line(error)}); do what its page at tensorflow.org/datasets says, or point data_dir to where it is"
        ) from error


def _split_size(builder: tfds.core.DatasetBuilder, split: str) -> int:
    splits = ", ".join(sorted(builder.info.splits))
    try:
        size = builder.info.splits[split].num_examples
    except (ValueError, KeyError, AssertionError) as error:
        raise InputError(f"the split must be one of {splits}, or a part of these. Received: {split!r}") from error
    check(size > 0, f"the split must hold examples (the splits are {splits})", split=split)
    return size


def _image_key(builder: tfds.core.DatasetBuilder, key: str | None) -> str:
    kinds = [key for key, feature in builder.info.features.items() if isinstance(feature, tfds.features.Image)]
    return _chosen(builder, key, kinds=kinds, what="image", supervised=0)


def _label_key(builder: tfds.core.DatasetBuilder, key: str | None) -> str | None:
    # A list of classes only by its name: most that trains takes one class an image.
    looked_at = {n: f if key is None else _classes(f) for n, f in builder.info.features.items()}
    kinds = [name for name, feature in looked_at.items() if isinstance(feature, tfds.features.ClassLabel)]
    return _chosen(builder, key, kinds=kinds, what="label", supervised=1) if kinds or key else None


def _chosen(builder: tfds.core.DatasetBuilder, key: str | None, *, kinds: list[str], what: str, supervised: int) -> str:
    """The feature asked for, else the set's own input or target, else the one named `what`, else the only one."""
    pair = builder.info.supervised_keys
    usual = [pair[supervised]] if isinstance(pair, tuple) and len(pair) == 2 else []
    preferred = [name for name in (*usual, what) if name in kinds]
    choice = key or next(iter(preferred or (kinds if len(kinds) == 1 else [])), None)
    known = ", ".join(kinds) or "there is none"
    check(choice in kinds, f"{what}_key must name one of the {what} features of {builder.name} ({known})", key=key)
    return str(choice)
