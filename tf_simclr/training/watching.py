"""What is watched besides the losses: signs of collapse, what features are worth, and a sheet of augmented pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tf_simclr.data import in_python
from tf_simclr.data.sources import Records, Rows, Sequential, Source, in_graph
from tf_simclr.data.subsets import lookup, of_rows
from tf_simclr.errors import check
from tf_simclr.evaluation.features import extract
from tf_simclr.evaluation.metrics import accuracy
from tf_simclr.evaluation.probes import knn_scores
from tf_simclr.frameworks import has_tensorflow, tf
from tf_simclr.models.parts import as_taken
from tf_simclr.replicas import alone, settle
from tf_simclr.run_folder import RunFolder
from tf_simclr.training.collapse import indicators
from tf_simclr.training.curves import Summaries

_NEIGHBOURS = 200
"""That vote, if there are so many (arXiv:1805.01978, Section 3.4)."""
PAIRS = 8
"""Images on the sheet of augmented pairs."""


class Watch(keras.callbacks.Callback):
    """Adds numbers to the logs of an epoch, for the callbacks behind it: history, TensorBoard, progress."""

    def due(self, epoch: int) -> bool:
        """Whether the numbers are wanted after this epoch, the first one being 0."""
        return True

    def numbers(self) -> dict[str, float]:
        """What to add, by name."""
        raise NotImplementedError

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.due(epoch):
            # Between two epochs the weights of this epoch.
            settle(self.model)
            with alone(self.model):
                logs.update(self.numbers())

    @property
    def network(self) -> _Inference:
        """The encoder and projection head of the model that trains; made once a model, for it is compiled."""
        if not hasattr(self.model, "inference"):
            # The encoder and projection that train, called in inference: the same variables.
            images = keras.Input(self.model.encoder.input_shape[1:])
            features = self.model.encoder(images)
            outputs = {"features": features, "projections": self.model.projection(features)[-1]}
            self.model.inference = _Inference(keras.Model(images, outputs, name="watched"))
        return self.model.inference


class _Inference:
    """A model that computes on one device while another one, of the same weights, trains on any number of them.

    It is no layer, so as an attribute of that other one it adds nothing to its weights and state.
    """

    def __init__(self, model: keras.Model):
        self.model = model
        if keras.backend.backend() == "tensorflow":
            # None for the number of images: one trace serves every batch.
            signature = [tf.TensorSpec(model.input_shape, "float32")]
            self.compiled = tf.function(
                lambda images: model(images, training=False), input_signature=signature, autograph=False
            )

    @property
    def input_shape(self):
        """Of the images that it takes."""
        return self.model.input_shape

    def predict_on_batch(self, images):
        """What the method of Keras does on one device; on replicas that would run the batch on each of them."""
        images = as_taken(images, self.model)
        if keras.backend.backend() == "tensorflow":
            return self.compiled(tf.convert_to_tensor(images))
        return self.model.predict_on_batch(keras.ops.convert_to_numpy(images))


class Collapse(Watch):
    """Tells each epoch whether features or projections collapse (`collapse.indicators`).

    Args:
        views: the same batches of views `(n, 2, h, w, 3)`, first in a tuple, each time that it is iterated.
    """

    def __init__(self, views: tf.data.Dataset):
        super().__init__()
        self.views = views

    def numbers(self):
        parts: dict[str, list[np.ndarray]] = {"features": [], "projections": []}
        for views, *_ in self.views:
            n = len(views)
            # (n, 2, h, w, 3) → (2n, h, w, 3), and the outputs back to (n, 2, d).
            images = keras.ops.reshape(views, (2 * n, *views.shape[2:]))
            outputs = self.network.predict_on_batch(images)
            for name, rows in parts.items():
                rows.append(keras.ops.convert_to_numpy(outputs[name]).astype(np.float32).reshape(n, 2, -1))
        return indicators(**{name: np.concatenate(rows) for name, rows in parts.items()})


class Neighbours(Watch):
    """Tests the features by weighted nearest neighbours every few epochs, and after the last one: `knn_acc`.

    Args:
        known: batches `(images, labels, …)` of those that vote.
        asked: batches of those that are classified.
        every: epochs between two tests.
        epochs: of the training, the short last one too.
    """

    def __init__(self, known: tf.data.Dataset, asked: tf.data.Dataset, *, every: int, epochs: int):
        super().__init__()
        self.known, self.asked, self.every, self.epochs = known, asked, every, epochs

    def due(self, epoch):
        return (epoch + 1) % self.every == 0 or epoch + 1 == self.epochs

    def numbers(self):
        known, asked = (extract(self.network, part, endpoint="features") for part in (self.known, self.asked))
        # As many neighbours as there are, at most 200.
        votes = knn_scores(asked.values, (known.values, known.labels), k=min(_NEIGHBOURS, len(known.values)))
        return {"knn_acc": accuracy(votes.argmax(axis=1), asked.labels)}


def parts(source: Source, other: Source | None, *, count: int, seed: int) -> tuple[Source, Source]:
    """Examples that vote and examples that are classified, drawn by the seed; no example is both.

    Without another source they are pieces of one draw, of which a fifth is classified.  With one, those of it are drawn
    first, and none of them votes: the two may be overlapping parts of one data set.  Examples without a label (-1) are
    neither.

    Args:
        source: labelled training images.
        other: labelled images to classify, or None.
        count: how many, at most: of both together, or, with another source, of each.
        seed: of the draws.

    Raises:
        InputError: there is nothing to classify, or nothing that may vote.
    """
    if not has_tensorflow():
        return _parts_of_rows(source, other, count=count, seed=seed)
    # One source: a fifth of what is drawn is asked, the rest votes.
    if other is None:
        both = draw(source, count, seed=seed)
        found = len(_keys(both))
        asked = max(1, found // 5)
        rule = f"{source.origin} must have at least two labelled images for a test by neighbours"
        check(found > 1, rule, found=found)
        return _piece(source, both.skip(asked), count=found - asked), _piece(source, both.take(asked), count=asked)
    # Two sources: what is asked first, then what votes, without what is asked.
    tested = draw(other, count, seed=seed)
    taken = _keys(tested)
    check(len(taken) > 0, f"{other.origin} must have labelled images for a test by neighbours")
    known = draw(source, count, seed=seed, without=taken)
    found = len(_keys(known))
    check(found > 0, f"{source.origin} must have labelled images besides the {len(taken):,} of {other.origin}")
    return _piece(source, known, count=found), _piece(other, tested, count=len(taken))


def _parts_of_rows(source: Source, other: Source | None, *, count: int, seed: int) -> tuple[Source, Source]:
    """`parts` without TensorFlow, of sources whose list memory holds."""

    def drawn(one: Source, without: frozenset = frozenset()) -> np.ndarray:
        rows = in_python.rows_of(one)
        # The order of the seed's first epoch, as of a training.
        order = in_python.order(seed, 0, count=len(rows))
        known = order[np.asarray(rows.labels)[order] >= 0]
        return np.array([i for i in known if not without or _key_of(rows, i) not in without][:count], np.int64)

    tested_of, known_of = source if other is None else other, source
    tested = drawn(tested_of)
    if other is None:
        rule = f"{source.origin} must have at least two labelled images for a test by neighbours"
        check(len(tested) > 1, rule, found=len(tested))
        tested, known = np.split(tested, [max(1, len(tested) // 5)])
    else:
        check(len(tested) > 0, f"{other.origin} must have labelled images for a test by neighbours")
        rows = in_python.rows_of(other)
        known = drawn(source, frozenset(_key_of(rows, i) for i in tested))
        rule = f"{source.origin} must have labelled images besides the {len(tested):,} of {other.origin}"
        check(len(known) > 0, rule)
    pairs = ((known_of, known), (tested_of, tested))
    first, second = (of_rows(one, rows, names=in_python.rows_of(one).names[rows]) for one, rows in pairs)
    return first, second


def _key_of(rows: Rows, number: int) -> tuple[str, bytes]:
    """What tells a row from any other, of two sources, too."""
    image = rows.images[number]
    return str(rows.names[number]), image if isinstance(image, bytes) else image.tobytes()


def draw(source: Source, count: int, *, seed: int, without: Sequence[bytes] = ()) -> Records:
    """So many records, or all, of one epoch: of those with a label, and without those that have one of the keys."""
    # More than is needed is shuffled, as some have no label.
    records = source.shuffled(seed, buffer=2 * count).take(source.num_examples)
    if records.element_spec["label"].shape.rank == 0:
        records = records.filter(in_graph(lambda record: record["label"] >= 0))
    if without:
        taken = lookup(np.array(without))
        records = records.filter(in_graph(lambda record: taken.lookup(_key(record)) < 0))
    return records.take(count)


def _keys(records: Records) -> list[bytes]:
    """What tells records from any others, of two sources, too."""
    return list(records.map(in_graph(_key)).as_numpy_iterator())


def _key(record: dict[str, tf.Tensor]) -> tf.Tensor:
    """Name, and a hash of the path, the bytes or the pixels: images in memory have numbers for names."""
    image = record["image"]
    content = image if image.dtype == tf.string else tf.io.serialize_tensor(image)
    # Strong hashes with a fixed key: equal in every process.
    hashed = tf.strings.to_hash_bucket_strong(content, 2**62, [18, 45])
    return tf.strings.join([record["name"], " ", tf.strings.as_string(hashed)])


def _piece(source: Source, records: Records, *, count: int) -> Source:
    """These records of a source as a source."""
    return Sequential(
        origin=f"{count} of {source.origin}",
        num_examples=count,
        class_names=source.class_names,
        read=source.read,
        epoch=lambda _: records,
        channels=source.channels,
    )


def draw_pairs(views: np.ndarray, run: RunFolder, *, made_up: bool = False) -> Path:
    """Writes `pairs.png` in the run folder and the same picture, `augmented_pairs`, for TensorBoard.

    Args:
        views: `(n, 2, h, w, channels)` in [0, 1].
        run: whose folder the picture is for.
        made_up: whether they are of made-up radiographs, which the picture then says.
    """
    from tf_simclr import plots  # matplotlib is slow to import

    path = plots.save(plots.view_pairs(views), run.path / "pairs.png", dpi=100, made_up=made_up)
    if not has_tensorflow():
        Summaries(run.logs / "train", suffix=".pairs").image("augmented_pairs", path.read_bytes())
        return path
    # In a file of its own, beside the training's.
    writer = tf.summary.create_file_writer(str(run.logs / "train"), filename_suffix=".pairs")
    with writer.as_default():
        tf.summary.image("augmented_pairs", tf.io.decode_png(path.read_bytes(), channels=3)[None], step=0)
    writer.close()
    return path
