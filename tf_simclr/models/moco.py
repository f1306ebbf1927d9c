"""MoCo v2 on the parts of SimCLR: a queue of keys instead of a large batch.

References:
    He et al., MoCo, arXiv:1911.05722, Section 3 and Algorithm 1
    Chen et al., MoCo v2, arXiv:2003.04297
"""

from typing import Any

import keras
from keras import ops

from tf_simclr import replicas
from tf_simclr.errors import InputError, check
from tf_simclr.losses.info_nce import InfoNCE, info_nce_logits
from tf_simclr.losses.similarity import normalize
from tf_simclr.models import parts
from tf_simclr.models.recomputation import recomputed_blocks
from tf_simclr.models.simclr import SimCLR, shared_evenly

_PREFIX = "key_"
"""In front of the layers' names of the encoder of keys."""


@keras.saving.register_keras_serializable("tf_simclr")
class Queue(keras.layers.Layer):
    """The keys of the last batches, `(length, dim)`, each of length 1, the newest first; random ones at the start.

    Args:
        length: keys in it, at least 1.
        dim: length of a key.

    Raises:
        InputError: the length is below 1.
    """

    def __init__(self, length: int, dim: int, *, name: str = "queue", **kwargs):
        check(length >= 1, "queue_length must be at least 1", queue_length=length)
        super().__init__(name=name, **kwargs)
        self.length, self.dim = length, dim
        self.keys = self.add_weight(shape=(length, dim), initializer=_random_keys, trainable=False, name="keys")
        self.built = True

    def add(self, keys):
        """Puts a batch of keys `(n, dim)` at the front; as many fall out at the end."""
        kept = ops.concatenate([ops.cast(keys, self.keys.dtype), self.keys])[: self.length]
        self.keys.assign(ops.reshape(kept, (self.length, self.dim)))

    def get_config(self):
        return super().get_config() | {"length": self.length, "dim": self.dim}


def _random_keys(shape, dtype=None):
    """Points on the unit sphere, the start of the queue."""
    return normalize(keras.random.normal(shape, dtype=dtype))


@keras.saving.register_keras_serializable("tf_simclr")
class MoCo(SimCLR):
    """Learns an encoder by telling the key of each image's other view from a queue of keys.

    `fit` takes batches as `SimCLR` does.  First views go through the encoder to queries, second views through another
    one to keys: a copy that follows the encoder's weights slowly and has no gradient.  The probe sees the queries'
    features.

    BatchNorm sees the batch of all replicas, queries and keys apart, as SimCLR's does, instead of MoCo's shuffled
    parts of it: both keep a replica from finding its keys by their statistics (SimCLR, Section 2.2).  The projection
    head is SimCLR's, with BatchNorm; two layers are MoCo v2's number.

    Args:
        encoder: images to features `(n, d)`, as for `SimCLR`; one of a class of your own needs a `get_config`.
        projection: features to the list of each projection layer's output, as for `SimCLR`.
        queue_length: keys to tell each query's own one from.
        key_momentum: of the weights of the keys' encoder, in [0, 1); 0.999 in the paper (Section 4.1).
        num_classes: classes of the probe; 0: no probe, labels are ignored.
        weight_decay: as for `SimCLR`.
        remat: as for `SimCLR`, of the queries' encoder; the keys' encoder keeps nothing.

    Raises:
        InputError: a number is out of its range, or the gradient is to be computed in pieces (`microbatch_size`), for
            which a queue leaves no need.

    Example:
        >>> import numpy as np
        >>> from tf_simclr import LARS, resnet
        >>> model = MoCo(resnet(18, cifar_stem=True), queue_length=64)
        >>> model.compile(LARS(learning_rate=0.3), loss=InfoNCE(temperature=0.2))
        >>> history = model.fit(np.random.uniform(size=(8, 2, 32, 32, 3)), batch_size=4, verbose=0)
        >>> sorted(history.history)
        ['contrast_acc', 'contrast_entropy', 'contrast_loss', 'loss', 'weight_decay']
    """

    OPTIONS = (*SimCLR.OPTIONS, "queue_length", "key_momentum")
    compares = False  # with the queue; in training each replica adds as many keys to it

    def __init__(
        self,
        encoder: keras.Model,
        projection: keras.Model | None = None,
        *,
        queue_length: int = 65536,
        key_momentum: float = 0.999,
        name: str = "moco",
        **kwargs,
    ):
        check(0 <= key_momentum < 1, "key_momentum must lie in [0, 1)", key_momentum=key_momentum)
        self.queue_length, self.key_momentum = queue_length, key_momentum  # the parts are made by SimCLR's constructor
        super().__init__(encoder, projection, name=name, **kwargs)
        rule = "microbatch_size must be 0 with MoCo, whose batch need not be large"
        check(self.microbatch_size == 0, rule, microbatch_size=self.microbatch_size)

    def make_parts(self, width: int) -> None:
        """Makes and builds what takes features `(n, width)`, the copies for the keys and the queue."""
        super().make_parts(width)
        self.key_encoder: Any = parts.copied(self.encoder, prefix=_PREFIX)
        self.key_projection: Any = parts.copied(self.projection, prefix=_PREFIX)
        # A model that Keras has loaded knows the shapes that it was built for; its configuration does not.
        known = self.encoder.get_build_config()
        if known and not self.key_encoder.built:  # a loaded encoder of one size, which `images_shape` does not tell
            self.key_encoder.build_from_config(known)
        parts.features_spec(self.key_encoder, self.images_shape)
        key = parts.projections_spec(self.key_projection, width)[-1]
        # Before the first step both encoders are the same; later the keys' one follows.
        self.catch_up()
        for copy in (self.key_encoder, self.key_projection):
            for weight in copy.weights:
                weight.trainable = False  # not the layers, which decide whether BatchNorm takes the batch's statistics
        self.queue = Queue(self.queue_length, key.shape[-1])

    @property
    def contrastive_loss(self) -> InfoNCE:
        """What `compile` took as loss; without one `InfoNCE()`, temperature 0.2."""
        loss = getattr(self, "loss", None) or InfoNCE()
        if not isinstance(loss, InfoNCE):
            raise InputError(f"loss must be InfoNCE(temperature) with MoCo. Received: loss={loss!r}")
        return loss

    def call(self, views, training=None):
        """Views `(n, 2, h, w, 3)` to queries and keys `(n, 2, d)` and, with a probe, logits `(n, 1, num_classes)`.

        In training the keys' encoder takes its step first, towards the weights that the last step has left.
        """
        # A step of Algorithm 1: the keys' encoder follows; queries of first views; keys of second ones, without
        # gradient; the loss against the queue as it is (`contrast`); and only then the keys enter it (`compute_loss`),
        # so that no query meets its own key twice.
        views = self.viewed(views)
        # None would mean training to some of Keras' layers.
        training = training or False
        if training:
            views = shared_evenly(views)  # first: else what is refused has moved the keys' encoder
            self.follow()
        encoder = recomputed_blocks(self.encoder) if training and self.remat else self.encoder
        features = parts.features_of(encoder, views[:, 0], training=training)
        queries = parts.projections_of(self.projection, features, training=training)[-1]
        # (n, h, w, 3) → (n, d), likewise the keys: each encoder's BatchNorm sees one view of the whole batch.
        keys = parts.features_of(self.key_encoder, views[:, 1], training=training)
        keys = parts.projections_of(self.key_projection, keys, training=training)[-1]
        # No gradient reaches the keys' encoder: it follows by `follow` alone.
        outputs = {"projections": ops.stack([queries, ops.stop_gradient(keys)], axis=1)}
        if self.probe:
            outputs["logits_sup"] = ops.expand_dims(self.probe(ops.stop_gradient(features)), 1)
        return outputs

    def pairs(self) -> tuple[tuple[Any, Any], ...]:
        """The encoder and the projection, each with the one of the keys that follows it."""
        return (self.encoder, self.key_encoder), (self.projection, self.key_projection)

    def catch_up(self):
        """Gives the keys' encoder the encoder's weights, after these were set from elsewhere."""
        for model, copy in self.pairs():
            # A model by its constructor may be made of other layers the second time, as at random.
            shapes, theirs = ([tuple(w.shape) for w in one.weights] for one in (model, copy))
            rule = f"{type(model).__name__}'s get_config() must make a model with the same weights, for the keys"
            check(shapes == theirs, rule)
            copy.set_weights(model.get_weights())

    def follow(self):
        """Moves the weights of the keys' encoder towards the encoder's; BatchNorm's statistics are its own."""
        for model, copy in self.pairs():
            for weight, behind in zip(model.weights, copy.weights, strict=True):
                # Weights that train; moving statistics are of what each encoder sees itself.
                if weight.trainable:
                    # θ_k ← m θ_k + (1 - m) θ_q (MoCo, Equation 2)
                    behind.assign(behind * self.key_momentum + weight * (1 - self.key_momentum))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """As SimCLR's; then, in training, the keys of all replicas enter the queue."""
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        if training:
            # The second of the stack, (n, d): the queue holds lengths of 1.
            keys = normalize(ops.cast(y_pred["projections"][:, 1], keras.config.floatx()))
            self.queue.add(replicas.gather(keys))
        return loss

    def contrast(self, z1, z2, *, labels=None):
        """The compiled loss of this replica's queries and keys."""
        keys = self.queue.keys
        if keras.backend.backend() == "torch":  # writes into a variable, whose values the gradient needs afterwards
            keys = ops.copy(keys)
        return self.contrastive_loss(z1, (z2, keys))

    def observe_contrast(self, z1, z2):
        """Updates the share of queries whose own key is the nearest, and the entropy of the softmax over all keys."""
        logits = ops.stop_gradient(info_nce_logits(z1, z2, self.queue.keys, self.contrastive_loss.temperature))
        # (n, 1 + K): the own key is in column 0.
        p = ops.softmax(logits, axis=1)
        self.means["contrast_acc"].update_state(ops.cast(ops.equal(ops.argmax(logits, axis=1), 0), logits.dtype))
        self.means["contrast_entropy"].update_state(-ops.sum(p * ops.log(p + 1e-8), axis=1))
