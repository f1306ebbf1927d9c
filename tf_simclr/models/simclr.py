"""SimCLR as a Keras model: `compile` and `fit` are the only loop.

References:
    Chen et al., SimCLR, arXiv:2002.05709, Section 2.1 and Algorithm 1.
"""

import keras
from keras import ops

from tf_simclr import replicas
from tf_simclr.errors import InputError, check
from tf_simclr.losses import NTXent, contrastive_metrics
from tf_simclr.models import network
from tf_simclr.models.gradient_cache import GradientCache, check_local
from tf_simclr.models.heads import projection_head, supervised_head
from tf_simclr.models.recomputation import recomputed_blocks
from tf_simclr.optimizers import left_to_loss

OPTIONS = ("num_classes", "weight_decay", "microbatch_size", "remat")
"""Arguments of `SimCLR` that are plain values."""


@keras.saving.register_keras_serializable("tf_simclr")
class SimCLR(replicas.FitOnReplicas, keras.Model):
    """Learns an encoder from two views of each image.

    `fit` takes batches of views `(n, 2, h, w, 3)` in [0, 1], alone or with integer labels `(n,)`.  Labels train a
    linear probe behind a stop-gradient on both views (SimCLR, Appendix B.9); they never reach the encoder, unless the
    loss asks for them (`needs_labels`, `SupCon`).

    Args:
        encoder: images to features `(n, d)`; `tf_simclr.resnet(...)`, or any Keras model of this kind.
        projection: features to the list of each projection layer's output, the last one `z`; by default three layers
            with 128 outputs (SimCLRv2).
        num_classes: classes of the probe; 0: no probe, labels are ignored.
        weight_decay: times half the squared length of the weights that the optimizer does not decay itself is added
            to the loss (fact 12): with LARS the probe's kernel, with AdamW and Lamb none, else all but BatchNorm's.
        microbatch_size: examples that are in the encoder at once at most while it trains, 0: all.  The loss sees the
            whole batch, BatchNorm one piece of it (`GradientCache`).
        remat: keeps the inputs of the encoder's blocks alone for the backward pass and computes the blocks again.

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

    def __init__(
        self,
        encoder: keras.Model,
        projection: keras.Model | None = None,
        *,
        num_classes: int = 0,
        weight_decay: float = 0.0,
        microbatch_size: int = 0,
        remat: bool = False,
        name: str = "simclr",
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        check(num_classes >= 0, "num_classes must be at least 0", num_classes=num_classes)
        check(weight_decay >= 0, "weight_decay must be at least 0", weight_decay=weight_decay)
        check(microbatch_size >= 0, "microbatch_size must be at least 0", microbatch_size=microbatch_size)
        self.encoder = encoder
        self.projection = projection or projection_head(encoder.output_shape[-1])
        self.num_classes, self.weight_decay = num_classes, weight_decay
        self.microbatch_size, self.remat = microbatch_size, remat
        if microbatch_size:
            check_local([self.encoder, self.projection])
        self.probe = supervised_head(num_classes) if num_classes else None
        if self.probe:
            self.probe.build((None, encoder.output_shape[-1]))
        names = ["contrast_loss", "contrast_acc", "contrast_entropy", "weight_decay"]
        names += ["supervised_loss", "supervised_acc", "supervised_top5_acc"] if num_classes else []
        self.means = {metric: keras.metrics.Mean(name=metric) for metric in names}

    def build(self, views_shape):
        """Nothing is left to build: the parts are."""

    @property
    def contrastive_loss(self) -> keras.losses.Loss:
        """What `compile` took as loss, called as `loss(z1, z2)`; without one `NTXent()`, temperature 0.1."""
        loss = getattr(self, "loss", None) or NTXent()
        if not isinstance(loss, keras.losses.Loss):
            raise InputError(f"loss must be a keras.losses.Loss of (z1, z2), like NTXent(). Received: loss={loss!r}")
        return loss

    def call(self, views, training=None):
        """Views `(n, 2, h, w, 3)` to projections `(n, 2, d)` and, with a probe, logits `(n, 2, num_classes)`."""
        check(len(views.shape) == 5, "views must have the shape (n, 2, h, w, 3)", shape=tuple(views.shape))
        embed = self.embed_cached if training and self.microbatch_size else self.embed
        projections, *features = embed(views, training)
        outputs = {"projections": projections}
        if self.probe:
            outputs["logits_sup"] = self.probe(ops.stop_gradient(features[0]))
        return outputs

    def embed(self, views, training=None):
        """Views to projections `(n, 2, d)` and, for a probe, features; BatchNorm sees both views at once."""
        images = ops.concatenate([views[:, 0], views[:, 1]], axis=0)
        encoder = recomputed_blocks(self.encoder) if training and self.remat else self.encoder
        features = encoder(images, training=training)
        projections = self.projection(features, training=training)[-1]
        values = (projections, features) if self.probe else (projections,)
        return [ops.stack(ops.split(value, 2), axis=1) for value in values]

    def embed_cached(self, views, training=True):
        """The same, with `microbatch_size` examples in memory at once."""
        cache = GradientCache(
            lambda part: self.embed(part, training),
            [self.encoder, self.projection],
            microbatch_size=self.microbatch_size,
            outputs=2 if self.probe else 1,
            compiled=bool(self.compiled and self.jit_compile),
        )
        outputs = cache(views)
        return outputs if self.probe else [outputs]

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The replica's part of the loss: contrastive, and with labels the probe's, and weight decay."""
        check(sample_weight is None, "SimCLR takes no sample weights", sample_weight=sample_weight)
        z1, z2 = ops.unstack(ops.cast(y_pred["projections"], keras.config.floatx()), axis=1)
        losses = {"contrast_loss": self.contrast(z1, z2, labels=y), "weight_decay": self.l2_loss()}
        self.observe_contrast(z1, z2)
        if self.probe and y is not None:
            losses["supervised_loss"] = self.supervised_loss(y, y_pred["logits_sup"])
        for name, loss in losses.items():
            self.means[name].update_state(loss * replicas.count(), sample_weight=1 / replicas.count())
        return sum(losses.values())

    def contrast(self, z1, z2, *, labels=None):
        """The compiled loss of this replica, `loss(z1, z2)`, or `loss(labels, (z1, z2))` if it needs them."""
        loss = self.contrastive_loss
        if not getattr(loss, "needs_labels", False):
            return loss(z1, z2)
        check(labels is not None, "this loss needs labels: give batches of (views, labels)", loss=loss.name)
        return loss(labels, (z1, z2))

    def supervised_loss(self, labels, logits):
        """Cross entropy of the probe on both views, labels `(n,)` and logits `(n, 2, num_classes)`."""
        labels = ops.repeat(ops.expand_dims(labels, 1), logits.shape[1], axis=1)
        self.means["supervised_acc"].update_state(keras.metrics.sparse_categorical_accuracy(labels, logits))
        scores = ops.cast(logits, "float32")  # the only type that TensorFlow's in_top_k takes
        best = keras.metrics.sparse_top_k_categorical_accuracy(labels, scores, k=min(5, self.num_classes))
        self.means["supervised_top5_acc"].update_state(best)
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, logits)

    def observe_contrast(self, z1, z2):
        """Updates the contrastive metrics; for a loss that has no temperature at 1."""
        defaults = {"temperature": 1.0, "hidden_norm": True, "block_size": None}
        options = {name: getattr(self.contrastive_loss, name, default) for name, default in defaults.items()}
        accuracy, entropy = contrastive_metrics(z1, z2, **options)
        self.means["contrast_acc"].update_state(accuracy)
        self.means["contrast_entropy"].update_state(entropy)

    def l2_loss(self):
        """This replica's part of the weight decay that the optimizer leaves to the loss."""
        variables = [v for v in self.trainable_variables if v.name not in ("gamma", "beta")]
        variables = left_to_loss(self.optimizer, variables, head=[self.probe.kernel] if self.probe else [])
        squares = sum(ops.sum(ops.square(v)) for v in variables) if self.weight_decay else 0.0
        return ops.cast(0.5 * self.weight_decay * squares / replicas.count(), keras.config.floatx())

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """The running means since the epoch began."""
        return self.get_metrics_result()

    def network(self) -> keras.Model:
        """The same weights as a model from images `(n, h, w, 3)` to a dict of endpoints; see `network.build`."""
        return network.connect(self.encoder, self.projection, logits=self.probe)

    def get_config(self):
        parts = {n: keras.saving.serialize_keras_object(getattr(self, n)) for n in ("encoder", "projection")}
        return super().get_config() | parts | {name: getattr(self, name) for name in OPTIONS}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        parts = {n: keras.saving.deserialize_keras_object(config[n], custom_objects) for n in ("encoder", "projection")}
        return cls(**config | parts)
