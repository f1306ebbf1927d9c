"""SimCLR as a Keras model: `compile` and `fit` are the only loop.

References:
    Chen et al., SimCLR, arXiv:2002.05709, Section 2.1 and Algorithm 1.
"""

import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import keras
from keras import ops

from tf_simclr import replicas
from tf_simclr.errors import InputError, check
from tf_simclr.losses import NTXent, contrastive_metrics
from tf_simclr.models import labels as labelled
from tf_simclr.models import network, parts
from tf_simclr.models.base import MakesViews, Trained, share
from tf_simclr.models.gradient_cache import GradientCache, check_local, check_pieces
from tf_simclr.models.normalization import mixes
from tf_simclr.models.recomputation import recomputed_blocks
from tf_simclr.models.resnet import projection_head, supervised_head
from tf_simclr.replicas.fitting import strategy_of


@keras.saving.register_keras_serializable("tf_simclr")
class SimCLR(Trained):
    """Learns an encoder from two views of each image.

    `fit` takes batches of views `(n, 2, h, w, 3)` in [0, 1], alone or with integer labels `(n,)`.  Labels train a
    linear probe behind a stop-gradient on both views (SimCLR, Appendix B.9); they never reach the encoder, unless the
    loss asks for them (`needs_labels`, `SupCon`).

    Args:
        encoder: images to features `(n, d)`; `tf_simclr.resnet(...)`, or any Keras model of this kind, also one that
            gives feature maps `(n, h, w, d)`, which are averaged (`models.parts`).
        projection: features to the list of each projection layer's output, the last one `z`, or to `z` alone; by
            default three layers with 128 outputs (SimCLRv2).
        num_classes: classes of the probe, which needs labels; 0: no probe, labels are ignored.
        weight_decay: times half the squared length of the weights that the optimizer does not decay itself is added
            to the loss (docs/official-code.md#weight-decay): with LARS the probe's kernel, with AdamW and Lamb
            none, else all but BatchNorm's.
        microbatch_size: examples that are in the encoder at once at most while it trains, 0: all.  The loss sees the
            whole batch, BatchNorm one piece of it (`GradientCache`).
        remat: keeps the inputs of the encoder's blocks alone for the backward pass and computes the blocks again.
        views_of: makes the views of batches that are none yet, dictionaries of tensors with `n` rows each: such as
            `device_views.DeviceViews`, where the device augments.  It is not saved with the model.

    Labels may be one-hot rows `(n, num_classes)`, too.  Metrics that `compile` takes are of the probe, for both views.

    Metrics: `contrast_loss`; `contrast_acc` and `contrast_entropy`, how well the second view is found among those of
    all images; `supervised_loss`, `supervised_acc` and `supervised_top5_acc` (with fewer classes 1) of the probe;
    `weight_decay`, the loss's L2 term.

    Example:
        >>> import numpy as np
        >>> from tf_simclr import LARS, NTXent, resnet
        >>> model = SimCLR(resnet(18, cifar_stem=True))
        >>> model.compile(LARS(learning_rate=0.3, weight_decay=1e-4), loss=NTXent(temperature=0.5))
        >>> history = model.fit(np.random.uniform(size=(8, 2, 32, 32, 3)), batch_size=4, verbose=0)
        >>> sorted(history.history)
        ['contrast_acc', 'contrast_entropy', 'contrast_loss', 'loss', 'weight_decay']
    """

    OPTIONS: tuple[str, ...] = ("num_classes", "weight_decay", "microbatch_size", "remat")
    compares = True
    """Whether the loss compares the examples of a batch with one another, which replicas must then share evenly."""

    def __init__(
        self,
        encoder: keras.Model,
        projection: keras.Model | None = None,
        *,
        num_classes: int = 0,
        weight_decay: float = 0.0,
        microbatch_size: int = 0,
        remat: bool = False,
        views_of: MakesViews | None = None,
        name: str = "simclr",
        **kwargs,
    ):
        # Images may be stored as bytes or what views are made of: a cast here would change them before their views.
        super().__init__(name=name, autocast=False, **kwargs)  # what views are made of stays float32; parts cast
        self.views_of = views_of
        check(num_classes >= 0, "num_classes must be at least 0", num_classes=num_classes)
        check(weight_decay >= 0, "weight_decay must be at least 0", weight_decay=weight_decay)
        check(microbatch_size >= 0, "microbatch_size must be at least 0", microbatch_size=microbatch_size)
        self.encoder, self.projection = encoder, projection
        self.num_classes, self.weight_decay = num_classes, weight_decay
        self.microbatch_size, self.remat = microbatch_size, remat
        if keras.backend.backend() == "torch":
            rule = "microbatch_size and remat need KERAS_BACKEND=tensorflow or jax; give a smaller batch instead"
            check(not (microbatch_size or remat), rule, microbatch_size=microbatch_size, remat=remat)
        self.probe: keras.layers.Layer | None = None
        names = ["contrast_loss", "contrast_acc", "contrast_entropy", "weight_decay"]
        names += ["supervised_loss", "supervised_acc", "supervised_top5_acc"] if num_classes else []
        self.means = {metric: keras.metrics.Mean(name=metric) for metric in names}
        self.begin(encoder)

    def make_parts(self, width: int) -> None:
        """Makes and builds what takes features `(n, width)`."""
        # The default head: SimCLRv2's three layers.
        self.projection = self.projection or projection_head(width)
        parts.projections_spec(self.projection, width)
        if self.num_classes:
            # Behind the projection whether that was given or made: an optimizer's state is saved by the weights' order.
            self.probe = supervised_head(self.num_classes)
            self.probe.build((None, width))
        if self.microbatch_size:
            check_local([self.encoder, self.projection])
            check_pieces([self.encoder, self.projection], microbatch_size=self.microbatch_size)

    def build(self, views_shape):
        """Builds for a first batch of views what could not be built before."""
        if isinstance(views_shape, dict):
            views_shape = (None, 2, *self.maker(keys=sorted(views_shape)).shape)
        _check_views(views_shape)
        super().build(views_shape)

    def check_batches(self, x, *, batch_size: int | None, training: bool) -> None:
        """Refuses arrays of which one example would be alone in a batch; replicas see to it themselves."""
        rows = keras.tree.flatten(x)[0] if isinstance(x, dict) else x
        counted = hasattr(rows, "__array__") and len(rows.shape) and rows.shape[0]
        if batch_size and counted and strategy_of(self) is None and (rule := self.alone(training=training)):
            replicas.check_several(int(rows.shape[0]), batch_size=batch_size, rule=rule)

    def alone(self, *, training: bool) -> str:
        """What is said where an example is alone in a replica's batch; empty: it may be."""
        # Replicas that have as many each (`even`) compare with one another, and are never alone.
        if self.compares and getattr(self.contrastive_loss, "needs_others", False) and replicas.count() == 1:
            return replicas.ALONE
        return replicas.NORMALISED_ALONE if training and mixes([self.encoder, self.projection]) else ""

    def train_step(self, *inputs):
        """As Keras' own, of batches of several examples."""
        return super().train_step(*inputs[:-1], self.several(inputs[-1], training=True))

    def test_step(self, *inputs):
        """As Keras' own, of batches of several examples."""
        return super().test_step(*inputs[:-1], self.several(inputs[-1], training=False))

    def several(self, data, *, training: bool):
        """A batch, with its labels; of an example that is alone the step fails before it has moved anything."""
        # 1. A batch of one example.  2. A piece of one, which pieces of two leave of an odd number.
        rule, batch = self.alone(training=training), list(data) if isinstance(data, list | tuple) else [data]
        if rule:
            batch[0] = keras.tree.map_structure(functools.partial(replicas.several, rule=rule), batch[0])
        if training and self.microbatch_size == 2 and mixes([self.encoder, self.projection]):
            batch[0] = keras.tree.map_structure(replicas.in_twos, batch[0])
        return tuple(batch)

    # Only a probe or such a loss looks at labels: a stream may have any others.
    def label_range(self) -> tuple[int, int] | None:
        """The probe's classes; a loss that asks for labels takes any."""
        asked = getattr(getattr(self, "loss", None), "needs_labels", False)
        return (self.num_classes, 0) if self.num_classes or asked else None

    def given(self, y, options: Mapping = MappingProxyType({})):
        """The labels to use, as of every model here; weights are refused."""
        for name in ("class_weight", "sample_weight"):
            rule = f"SimCLR takes no {name}, as its loss is of pairs of images; a Classifier does"
            check(options.get(name) is None, rule)
        return super().given(y, options)

    @property
    def contrastive_loss(self) -> keras.losses.Loss:
        """What `compile` took as loss, called as `loss(z1, z2)`; without one `NTXent()`, temperature 0.1."""
        loss = getattr(self, "loss", None) or NTXent()
        if not isinstance(loss, keras.losses.Loss):
            raise InputError(f"loss must be a keras.losses.Loss of (z1, z2), like NTXent(). Received: loss={loss!r}")
        return loss

    def call(self, views, training=None):
        """Views `(n, 2, h, w, 3)` to projections `(n, 2, d)` and, with a probe, logits `(n, 2, num_classes)`."""
        views = views if training and self.microbatch_size else self.viewed(views)  # pieces are seen one by one
        views = shared_evenly(views) if training else views  # first: else what is refused has moved statistics
        embed = self.embed_cached if training and self.microbatch_size else self.embed
        projections, *features = embed(views, training)
        outputs = {"projections": projections}
        if self.probe:
            # The probe watches: its gradient ends here, and the encoder learns nothing of labels.
            outputs["logits_sup"] = self.probe(ops.stop_gradient(features[0]))
        return outputs

    def viewed(self, batch):
        """The views `(n, 2, h, w, 3)` of a batch, which may be what they are to be made of."""
        return _two_views(super().viewed(batch))

    def embed(self, views, training=None):
        """Views to projections `(n, 2, d)` and, for a probe, features; BatchNorm sees both views at once."""
        # (n, 2, h, w, 3) → (2n, h, w, 3), all first views before all second ones: one batch, as in Algorithm 1, for the
        # statistics of BatchNorm are of both views.
        images = ops.concatenate([views[:, 0], views[:, 1]], axis=0)
        encoder = recomputed_blocks(self.encoder) if training and self.remat else self.encoder
        features = parts.features_of(encoder, images, training=training or False)
        projections = parts.projections_of(self.projection, features, training=training or False)[-1]
        values = (projections, features) if self.probe else (projections,)
        return [ops.stack(ops.split(value, 2), axis=1) for value in values]  # (2n, d) → (n, 2, d)

    def embed_cached(self, views, training=True):
        """The same, with `microbatch_size` examples in memory at once."""
        # One call of the encoder for all pieces in turn; its outputs are those of the whole batch.
        cache = GradientCache(
            lambda part: self.embed(self.viewed(part), training),
            [self.encoder, self.projection],
            microbatch_size=self.microbatch_size,
            outputs=2 if self.probe else 1,
            compiled=bool(self.compiled and self.jit_compile),
        )
        outputs = cache(views)
        return outputs if self.probe else [outputs]

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The replica's part of the loss: contrastive, and with labels the probe's, and weight decay."""
        check(sample_weight is None, "SimCLR takes no sample weights: batches must be views, or (views, labels)")
        rule = f"a probe of num_classes={self.num_classes} needs labels: give (views, labels), or num_classes=0"
        check(not self.probe or y is not None, rule)
        metrics = "metrics are of the probe: give num_classes, or compile without metrics"
        check(self.probe or self._compile_metrics is None, metrics)
        if y is not None and self.label_range():
            y = self.prepared(y)
        # Losses are computed in float32, whatever the network computed in.
        projections = ops.cast(y_pred["projections"], keras.config.floatx())
        if self.compares and not training:
            projections = replicas.even(projections)
        z1, z2 = ops.unstack(projections, axis=1)  # (n, 2, d) → two of (n, d)
        losses = {"contrast_loss": self.contrast(z1, z2, labels=y), "weight_decay": self.l2_loss()}
        self.observe_contrast(z1, z2)
        if self.probe:
            losses["supervised_loss"] = self.supervised_loss(y, y_pred["logits_sup"])
        return self.observe_losses(losses, examples=ops.shape(z1)[0])

    def contrast(self, z1, z2, *, labels=None):
        """The compiled loss of this replica, `loss(z1, z2)`, or `loss(labels, (z1, z2))` if it needs them."""
        loss = self.contrastive_loss
        # A loss that draws, draws anew at each step, and the same again at the same step.
        loss = loss.at(self.clock.number) if hasattr(loss, "at") else loss
        if not getattr(loss, "needs_labels", False):
            return loss(z1, z2)
        check(labels is not None, "this loss needs labels: give batches of (views, labels)", loss=loss.name)
        return loss(labels, (z1, z2))

    def supervised_loss(self, labels, logits):
        """Cross entropy of the probe on both views, labels `(n,)` and logits `(n, 2, num_classes)`."""
        # (n,) and (n, 2, c) → (2n,) and (2n, c): a probe's mean is over both views.
        labels, logits = _of_views(labels, ops.cast(logits, keras.config.floatx()))
        self.observe("supervised_acc", labelled.hits(labels, logits))
        # Of four classes the five best are all: k is at most the number of classes.
        self.observe("supervised_top5_acc", labelled.top_hits(labels, logits, k=min(5, self.num_classes)))
        return share(labelled.cross_entropy(labels, logits))

    def observe_contrast(self, z1, z2):
        """Updates the contrastive metrics; for a loss that has no temperature at 1."""
        loss = self.contrastive_loss
        defaults = {"temperature": 1.0, "hidden_norm": True, "block_size": None}
        options: dict[str, Any] = {name: getattr(loss, name, default) for name, default in defaults.items()}
        accuracy, entropy = contrastive_metrics(z1, z2, **options)
        self.means["contrast_acc"].update_state(accuracy)
        self.means["contrast_entropy"].update_state(entropy)

    def l2_loss(self):
        """This replica's part of the weight decay that the optimizer leaves to the loss."""
        variables = [v for v in self.trainable_variables if v.name not in ("gamma", "beta")]
        return self.decay_of(variables, head=[self.probe.kernel] if self.probe else [])

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """The running means since the epoch began."""
        if self._compile_metrics is not None and self.probe:
            self.compiled_metrics(*_of_views(self.prepared(y), y_pred["logits_sup"]))
        return self.get_metrics_result()

    def network(self) -> keras.Model:
        """The same weights as a model from images `(n, h, w, 3)` to a dict of endpoints; see `network.build`."""
        return network.connect(self.encoder, self.projection, logits=self.probe, images=self.images_shape)


def shared_evenly(batch):
    """The batch, whose step fails unless every replica has as many examples, whatever the loss makes of them."""
    return keras.tree.map_structure(replicas.even, batch)


def _two_views(views):
    """Views `(n, 2, h, w, 3)` as they are; any other number of them is refused, and none is left out.

    Where the number is not known while a step is traced, the step itself sees to it.
    """
    _check_views(views.shape)
    if views.shape[1] is None and keras.backend.backend() == "tensorflow" and not keras.utils.is_keras_tensor(views):
        import tensorflow as tf

        return tf.ensure_shape(views, (None, 2, None, None, None))
    return views


def _check_views(shape) -> None:
    """Raises `InputError` unless this is the shape of a batch of two views; their number may not be known yet."""
    rule = "views must have the shape (n, 2, h, w, 3); of more views of an image give two at a time"
    check(len(shape) == 5 and shape[1] in (2, None), rule, shape=tuple(shape))


def _of_views(labels, logits):
    """Labels `(n, …)` and logits `(n, views, classes)` as one batch of views: `(n * views, …)` each."""
    # (n, v, c) → (n·v, c), view by view of an example; labels repeat likewise.
    views, classes = logits.shape[1:]
    return ops.repeat(labels, views, axis=0), ops.reshape(logits, (-1, classes))
