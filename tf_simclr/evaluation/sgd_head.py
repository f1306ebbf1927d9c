"""The linear evaluation of the official code: a classifier trained by SGD on augmented images, the encoder frozen.

Random crop and flip, other ones each epoch, so that features cannot be kept; BatchNorm in inference mode; the
classifier starts at zero.  SimCLR, Appendix B.6: 90 epochs, Nesterov momentum 0.9, a rate of 0.1 × batch / 256 with a
cosine and no warm-up, no weight decay (for a batch of 4096: 1.6); LARS with pretraining's knobs does as well.
"""

from collections.abc import Callable

import keras
import numpy as np

from tf_simclr.data import augment, pipeline
from tf_simclr.data.pipeline import Unreadable
from tf_simclr.data.sources import Source
from tf_simclr.errors import check
from tf_simclr.evaluation.logistic import LinearClassifier
from tf_simclr.models.classifier import ALL, Classifier


def train_head(
    encoder: keras.Model,
    source: Source,
    *,
    optimizer: keras.optimizers.Optimizer,
    steps: int,
    batch_size: int,
    image_size: int,
    weight_decay: float = 0.0,
    seed: int = 0,
    unreadable: Unreadable | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> LinearClassifier:
    """Trains a classifier on the features of randomly cropped and flipped images.

    Args:
        encoder: images to features `(n, d)`; its weights stay.
        source: labelled images.
        optimizer: with its rate or schedule.
        steps: batches to learn from, at least 1.
        batch_size: images a step.
        image_size: side in pixels.
        weight_decay: L2 that the optimizer leaves to the loss.
        seed: of the order and the augmentation.
        unreadable: receives the names of corrupt images.
        progress: called with the steps done and the running loss after each step.

    Raises:
        InputError: the source has no labels or too few images, or the loss is not finite.
    """
    check(source.labelled, f"{source.origin} must have labels to learn from")
    model = Classifier(
        encoder, num_classes=source.num_classes, fine_tune_after_block=ALL, zero_init=True, weight_decay=weight_decay
    )
    trains = [(layer, layer.trainable) for layer in [encoder, *encoder.layers]]
    variables = [(variable, variable.trainable) for variable in encoder.variables]
    model.compile(optimizer)
    batches = pipeline.training_batches(
        source,
        lambda image, draw: augment.crop_and_flip(image, size=image_size, seed=draw),
        batch_size=batch_size,
        buffer=pipeline.buffer_size(batch_size, image_size=image_size),
        seed=seed,
        unreadable=unreadable or Unreadable(),
    )
    model.fit(batches, epochs=1, steps_per_epoch=steps, shuffle=False, verbose=0, callbacks=[Steps(progress)])
    for item, before in trains + variables:
        item.trainable = before
    weights, bias = (np.asarray(keras.ops.convert_to_numpy(w)) for w in (model.head.kernel, model.head.bias))
    return LinearClassifier(weights=weights, bias=bias, converged=True)


class Steps(keras.callbacks.Callback):
    """Reports each step, and stops at a loss that is no number."""

    def __init__(self, progress: Callable[[int, float], None] | None):
        super().__init__()
        self.progress = progress

    def on_train_batch_end(self, batch, logs=None):
        check(np.isfinite(logs["loss"]), "the loss must stay finite; lower learning_rate", step=batch + 1)
        if self.progress:
            self.progress(batch + 1, float(logs["loss"]))
