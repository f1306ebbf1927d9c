"""A student that learns from a teacher's answers: distillation and self-training.

References:
    Chen et al., SimCLRv2, arXiv:2006.10029, Section 2.3, Equations 2 and 3
    Hinton et al., Distilling the Knowledge in a Neural Network, arXiv:1503.02531
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from tf_simclr.errors import check
from tf_simclr.losses.similarity import check_scale, wide
from tf_simclr.models import labels as labelled
from tf_simclr.models import parts
from tf_simclr.models.base import share
from tf_simclr.models.classifier import Classifier, weighed

UNKNOWN = -1
"""Label of an image that has none."""


def distillation_loss(teacher_logits, student_logits, *, temperature: float = 1.0):
    """Cross entropy of the student's answers to the teacher's, both softened (Equation 2).

    Args:
        teacher_logits: `(n, classes)`.
        student_logits: `(n, classes)`.
        temperature: divides both, above 0; the loss is not multiplied by its square, as in the paper.

    Returns:
        `(n,)`, in nats.

    Example:
        >>> import numpy as np
        >>> distillation_loss(np.zeros((1, 4)), np.zeros((1, 4))).numpy().round(4)
        array([1.3863])
    """
    check_scale("temperature", temperature)
    teacher_logits, student_logits = wide(teacher_logits), wide(student_logits)
    # (n, classes) both.  The teacher's answers are a constant: no gradient flows to it.
    target = ops.softmax(teacher_logits / temperature, axis=-1)
    return -ops.sum(target * ops.log_softmax(student_logits / temperature, axis=-1), axis=-1)


@keras.saving.register_keras_serializable("tf_simclr")
class Distiller(Classifier):
    """A `Classifier` that learns from a teacher, and from labels where there are some.

    Of each image it takes `alpha` times `distillation_loss` and, if its label is known, `1 - alpha` times the cross
    entropy to it, both over the number of images in the batch: Equation 3, whose two sums are over all images and over
    those with labels.  With `alpha=1` labels count for nothing (Equation 2).

    `fit` takes batches of images, alone or with targets: labels `(n,)`, -1 where there is none, or a dict of `label`
    and `teacher_logits` `(n, num_classes)`.  Where a batch brings no such logits, the teacher answers for its images.

    Args:
        encoder: the student's.
        teacher: images to logits `(n, num_classes)`, such as a Keras model; it is no part of this model: neither
            trained nor saved with it.  None: the batches bring its answers.
        temperature: above 0; the paper has 1 for a smaller student, 0.1 for one of the teacher's size (Section 3.1).
        alpha: in (0, 1].
        **options: as `Classifier`.

    Metrics: `distillation_loss`; `agreement`, the share of images for which both prefer the same class; `weight_decay`;
    with `alpha` below 1 `supervised_loss` and `supervised_acc` over the images with labels, 0 while there was none.

    Raises:
        InputError: a value is outside its range.

    Example:
        >>> import numpy as np
        >>> from tf_simclr.models.resnet import resnet
        >>> images = np.random.uniform(size=(4, 32, 32, 3)).astype("float32")
        >>> model = Distiller(resnet(18, cifar_stem=True), teacher=lambda x: ops.mean(x, (1, 2)), num_classes=3)
        >>> model.compile(keras.optimizers.SGD(0.1))
        >>> history = model.fit(images, verbose=0)
        >>> round(history.history["distillation_loss"][0], 1)
        1.1
    """

    OPTIONS = (*Classifier.OPTIONS, "temperature", "alpha")
    METRICS = (*Classifier.METRICS, "distillation_loss", "agreement")

    def __init__(
        self,
        encoder: keras.Model,
        projection: keras.Model | None = None,
        *,
        num_classes: int,
        teacher: Callable | None = None,
        temperature: float = 1.0,
        alpha: float = 1.0,
        name: str = "distiller",
        **options,
    ):
        super().__init__(encoder, projection, num_classes=num_classes, name=name, **options)
        check_scale("temperature", temperature)
        check(0 < alpha <= 1, "alpha must lie in (0, 1]", alpha=alpha)
        self.temperature, self.alpha = temperature, alpha
        # Within a function Keras does not find the teacher's layers, which have the names of the student's.
        self.ask: Any = None if teacher is None else lambda images: answer(teacher, images)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The replica's part of the loss: the teacher's and the labels' cross entropies, and weight decay."""
        y_pred = ops.cast(y_pred, keras.config.floatx())
        labels = y.get("label") if isinstance(y, dict) else y
        wanted = self.wanted(x, y)
        # (n,): how often both would answer the same.
        self.observe("agreement", ops.equal(ops.argmax(wanted, -1), ops.argmax(y_pred, -1)))
        losses = distillation_loss(wanted, y_pred, temperature=self.temperature)
        self.observe("distillation_loss", losses)
        # (1 - α) CE(labels) + α CE(teacher), SimCLRv2, Section 2.3; α = 1 needs no label.
        total = self.alpha * share(weighed(losses, sample_weight))
        if labels is not None and self.alpha < 1:
            losses = self.label_losses(self.prepared(labels), y_pred)
            total += (1 - self.alpha) * share(weighed(losses, sample_weight))
        return total + self.observe_losses({"weight_decay": self.l2_loss()}, examples=ops.shape(y_pred)[0])

    def wanted(self, images, targets):
        """The teacher's logits for these images."""
        # Answers that were computed once and are read with the images, instead of a teacher in every step.
        if isinstance(targets, dict) and "teacher_logits" in targets:
            logits = targets["teacher_logits"]
        else:
            rule = "Distiller needs a teacher, or batches of (images, targets) with teacher_logits among the targets"
            check(self.ask is not None, rule)
            logits = ops.stop_gradient(self.ask(images))
        rule = f"a teacher must give logits (n, num_classes={self.num_classes})"
        check(len(logits.shape) == 2 and logits.shape[1] == self.num_classes, rule, shape=tuple(logits.shape))
        return ops.cast(logits, keras.config.floatx())

    def label_range(self) -> tuple[int, int] | None:
        """All classes, and -1 where there is none."""
        return self.num_classes, UNKNOWN

    def compiled_metrics(self, y, y_pred, *, sample_weight=None) -> None:
        """Refuses the metrics that `compile` took: images without a label are in no metric of Keras."""
        check(self._compile_metrics is None, "Distiller takes no metrics; evaluate its network, or a Classifier")

    def label_losses(self, labels, logits):
        """Cross entropy of each image to its label, 0 where there is none; counts the metrics over the others."""
        known = ops.ones_like(logits[:, 0])
        # (n,): an unlabelled image gets some class, and a loss of 0 for it.
        if len(labels.shape) == 1:
            known, labels = ops.cast(ops.not_equal(labels, UNKNOWN), logits.dtype), ops.maximum(labels, 0)
        losses = known * labelled.cross_entropy(labels, logits)
        self.observe("supervised_loss", losses, weight=known)
        self.observe("supervised_acc", labelled.hits(labels, logits), weight=known)
        return losses

    def get_metrics_result(self):
        """The running means; those of the labels where these count."""
        found = super().get_metrics_result()
        return {name: v for name, v in found.items() if self.alpha < 1 or not name.startswith("supervised_")}


def answer(teacher: Callable, images):
    """The teacher's logits in inference mode; of a network with endpoints those of its classifier."""
    # A teacher of one channel is asked grey images.
    images = parts.as_taken(images, teacher) if isinstance(teacher, keras.Model) else images
    outputs = teacher(images, training=False) if isinstance(teacher, keras.layers.Layer) else teacher(images)
    return outputs["logits_sup"] if isinstance(outputs, dict) and "logits_sup" in outputs else parts.one_of(outputs)
