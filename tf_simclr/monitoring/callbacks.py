"""Numbers that an epoch gets besides its losses: signs of collapse, and what the features are worth."""

import keras
import numpy as np
import tensorflow as tf

from tf_simclr.data.sources import Sequential, Source
from tf_simclr.evaluation.features import extract
from tf_simclr.evaluation.metrics import accuracy
from tf_simclr.evaluation.probes import knn_scores
from tf_simclr.monitoring.collapse import indicators

NEIGHBOURS = 200
"""That vote, if there are so many (arXiv:1805.01978, Section 3.4)."""


class Watch(keras.callbacks.Callback):
    """Adds numbers to the logs of an epoch, for the callbacks behind it: history, TensorBoard, progress."""

    def due(self, epoch: int) -> bool:
        """Whether the numbers are wanted after this epoch, the first one being 0."""
        return True

    def numbers(self) -> dict[str, float]:
        """What to add, by name."""
        raise NotImplementedError

    def on_epoch_end(self, epoch, logs=None):
        if self.due(epoch):
            logs.update(self.numbers())

    @property
    def network(self) -> "Inference":
        """The encoder and projection head of the model that trains; made once a model, for it is compiled."""
        if not hasattr(self.model, "inference"):
            images = keras.Input(self.model.encoder.input_shape[1:])
            features = self.model.encoder(images)
            outputs = {"features": features, "projections": self.model.projection(features)[-1]}
            self.model.inference = Inference(keras.Model(images, outputs, name="watched"))
        return self.model.inference


class Inference:
    """A model that computes on one device while another one, of the same weights, trains on any number of them.

    It is no layer, so as an attribute of that other one it adds nothing to its weights and state.
    """

    def __init__(self, model: keras.Model):
        self.model = model
        signature = [tf.TensorSpec(model.input_shape, "float32")]  # of any number of images: traced once
        self.compiled = tf.function(
            lambda images: model(images, training=False), input_signature=signature, autograph=False
        )

    def predict_on_batch(self, images):
        """What the method of Keras does on one device; on replicas that would run the batch on each of them."""
        if keras.backend.backend() == "tensorflow":
            return self.compiled(tf.convert_to_tensor(images))
        return self.model.predict_on_batch(np.asarray(images))


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
            outputs = self.network.predict_on_batch(tf.reshape(views, (2 * n, *views.shape[2:])))
            for name, rows in parts.items():
                rows.append(np.asarray(outputs[name], np.float32).reshape(n, 2, -1))
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
        votes = knn_scores(asked.values, (known.values, known.labels), k=min(NEIGHBOURS, len(known.values)))
        return {"knn_acc": accuracy(votes.argmax(axis=1), asked.labels)}


def sample(source: Source, count: int, *, seed: int, start: int = 0) -> Source:
    """Some examples of a source, drawn by the seed; those of another `start` are others, up to its number of examples.

    Args:
        source: examples.
        count: how many, at most as many as there are from `start` on.
        start: how many to pass over.
    """

    def records(_):
        return source.shuffled(seed, start=start, buffer=10 * count).take(count)

    return Sequential(
        origin=f"{count} of {source.origin}",
        num_examples=count,
        class_names=source.class_names,
        read=source.read,
        epoch=records,
    )


def parts(source: Source, other: Source | None, *, count: int, seed: int) -> tuple[Source, Source]:
    """Examples that vote and examples that are classified: of another source, else a fifth of those drawn."""
    if other is not None:
        return tuple(sample(one, min(count, one.num_examples), seed=seed) for one in (source, other))
    count = min(count, source.num_examples)
    asked = max(1, count // 5)
    return sample(source, count - asked, seed=seed, start=asked), sample(source, asked, seed=seed)
