"""A network that is compiled once and trained with `fit` from the same start as often as asked.

The study's six rows on two splits with several seeds are dozens of fits of a few small models; to compile each anew
would cost more than to train it.
"""

import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_simclr.chest.covid.rows import Fit, Row, head
from tf_simclr.chest.model.seen import answers
from tf_simclr.data.images import evaluation_view
from tf_simclr.data.pipeline import Unreadable, training_batches
from tf_simclr.data.radiographs.prepared import Prepared
from tf_simclr.models.classifier import check_freezable, group_of, settle
from tf_simclr.models.network import leaves
from tf_simclr.optimizers import LARS

_RATES = {"sgd": 0.01, "lars": 0.1}
"""Keras' default for SGD, which the study took; of LARS, whose steps are relative to the weights, our choice."""


class Learner:
    """A head, on features or on an encoder of which it trains the upper block groups.

    Args:
        features: width of the features.
        row: of the study: width of the head and whether it has dropout.
        classes: 1 for a probability, else the number of classes.
        optimizer: of all that trains, `sgd` or `lars`.
        learning_rate: constant; by default the optimizer's of `_RATES`.
        encoder: images to features; its weights are copied.  None: `fit` takes features.
        after_block: block groups of the encoder up to this one stay as they are; -1: all train, 4: none.

    Raises:
        InputError: the encoder has no groups to freeze.
    """

    def __init__(
        self,
        features: int,
        row: Row,
        *,
        classes: int = 1,
        optimizer: str = "sgd",
        learning_rate: float | None = None,
        encoder: keras.Model | None = None,
        after_block: int = -1,
    ):
        self.form: dict[str, Any] = {"features": features, "row": row, "classes": classes}
        self.head = self.model = head(**self.form)
        if encoder is not None:
            self.model = _joined(encoder, self.head, after_block=after_block)
        rate = _RATES[optimizer] if learning_rate is None else learning_rate
        kinds = {"sgd": keras.optimizers.SGD, "lars": LARS}
        loss = "binary_crossentropy" if classes == 1 else "sparse_categorical_crossentropy"
        # Batches of several sizes would each be compiled by XLA.
        self.model.compile(kinds[optimizer](rate), loss=loss, metrics=["accuracy"], jit_compile=False)
        self.model.optimizer.build(self.model.trainable_variables)
        # Everything that a training changes, and a copy of it: a new start is an assignment and no compilation.
        self.state = [*self.model.variables, *self.model.optimizer.variables]
        self.start = [np.array(variable) for variable in self.state]

    def restart(self, seed: int) -> None:
        """Back to the start, with a new head."""
        # Keras' own generators, too: dropout and the head are drawn by them.
        keras.utils.set_random_seed(seed)
        for variable, value in zip(self.state, self.start, strict=True):
            variable.assign(value)
        # The head is drawn anew by this seed; the encoder begins with its weights.
        for variable, fresh in zip(self.head.variables, head(**self.form).variables, strict=True):
            variable.assign(fresh)

    def on_features(
        self,
        values: np.ndarray,
        labels: np.ndarray,
        *,
        parts: dict[str, np.ndarray],
        patients: np.ndarray,
        epochs: int,
        seed: int,
        batch_size: int = 32,
    ) -> Fit:
        """Trains the head on features `(n, d)` of the `train` rows: cross entropy, no schedule, as the study did."""
        self.restart(seed)
        train, test = parts["train"], parts["test"]
        # (n,) → (n, 1), as the head gives (n, 1).
        targets = labels.astype(np.float32)[:, None]
        pace = Pace()
        history = self.model.fit(
            values[train],
            targets[train],
            batch_size=min(batch_size, len(train)),
            epochs=epochs,
            validation_data=(values[test], targets[test]),
            callbacks=[pace],
            verbose=0,
        )
        answers = self.model.predict(values[test], verbose=0)
        return self.fitted(pace, answers, labels=labels[test], patients=patients[test], history=history)

    def on_images(
        self,
        data: Prepared,
        labels: np.ndarray,
        *,
        parts: dict[str, np.ndarray],
        sizes: tuple[int, int],
        epochs: int,
        seed: int,
        batch_size: int = 32,
    ) -> Fit:
        """Trains on the images of the `train` rows as they are, neither cropped nor changed.

        Args:
            data: the radiographs.
            labels: int, one for each of them.
            parts: `train` and `test` rows.
            sizes: pixels to which images are made smaller, and those to which they are then enlarged for the encoder.
            epochs: passes over the images.
            seed: of the new weights and the order.
            batch_size: images a step.
        """
        self.restart(seed)
        names = tuple(map(str, range(int(labels.max()) + 1)))
        train = data.source(parts["train"], labels, class_names=names, side=sizes[0])
        batch_size, pace = min(batch_size, len(parts["train"])), Pace()
        history = self.model.fit(
            batches(train, size=sizes[1], batch_size=batch_size, seed=seed),
            epochs=epochs,
            # The batches have no end: an epoch is as many steps as there are whole batches.
            steps_per_epoch=max(1, len(parts["train"]) // batch_size),
            callbacks=[pace],
            shuffle=False,  # the batches are, already
            verbose=0,
        )
        rows = np.sort(parts["test"])
        seen: dict[str, Any] = {"image_size": sizes[1], "crop_proportion": 1.0, "batch_size": batch_size}
        said = answers(self.model, data, rows=rows, side=sizes[0], **seen)
        return self.fitted(pace, said, labels=labels[rows], patients=data.patients[rows], history=history)

    def fitted(
        self, pace: "Pace", answers: np.ndarray, *, labels: np.ndarray, patients: np.ndarray, history: Any
    ) -> Fit:
        """What came of a training."""
        probabilities = answers[:, 0] if self.form["classes"] == 1 else answers
        return Fit(history.history, probabilities, labels, patients, pace.seconds)

    def trained_head(self) -> keras.Model:
        """The head as the last training left it, as a model of its own."""
        model = head(**self.form)
        model.set_weights(self.head.get_weights())
        return model


class Pace(keras.callbacks.Callback):
    """Notes how long epochs take."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self.began = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.began = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seconds.append(time.monotonic() - self.began)


def _joined(encoder: keras.Model, classifier: keras.Model, *, after_block: int) -> keras.Model:
    """A copy of the encoder under the head: images to probabilities; groups up to `after_block` do not change."""
    # What is trained must be a copy: the encoder is another line's start.
    check_freezable(encoder, after_block)
    own = keras.models.clone_model(encoder)
    own.set_weights(encoder.get_weights())
    # Batch statistics of the pretrained encoder stay, as the classifier meets them.
    for layer in leaves(own):
        if layer.weights:
            settle(layer, trains=group_of(layer.name) > after_block, still=True)
    return keras.Model(own.input, classifier(own.output), name="tuned")


def batches(source: Any, *, size: int, batch_size: int, seed: int) -> tf.data.Dataset:
    """Endless shuffled batches of whole images."""

    def view(image: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
        # The whole image: the study neither cropped nor changed it.
        return evaluation_view(image, size=size, crop_proportion=1.0)

    return training_batches(
        source,
        view,
        batch_size=batch_size,
        buffer=source.num_examples,
        seed=seed,
        unreadable=Unreadable(),
        cache=True,
    )
