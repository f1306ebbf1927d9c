"""A classifier on an encoder, with groups of layers frozen: `compile` and `fit` are the only loop.

References:
    Chen et al., SimCLR, arXiv:2002.05709, Section 4 and Appendix B.5 (fine-tuning)
    Chen et al., SimCLRv2, arXiv:2006.10029, Section 2.2 (fine-tuning from a layer of the projection head)
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import keras
from keras import ops

from tf_simclr.errors import check
from tf_simclr.models import labels as labelled
from tf_simclr.models import network, parts
from tf_simclr.models.base import Trained, no_loss_of_ones_own, share
from tf_simclr.models.resnet import supervised_head
from tf_simclr.optimizers import left_to_loss

_FrozenLayers = Literal["still", "tf1", "tf2"]
_GROUP = re.compile(r"group([1-4])_")
# The L2 term is of kernels and biases; BatchNorm's four are spared, as upstream.
_NOT_DECAYED = ("gamma", "beta", "moving_mean", "moving_variance")
ALL = 4
"""`fine_tune_after_block` that leaves the classifier alone to be trained."""


@keras.saving.register_keras_serializable("tf_simclr")
class Classifier(Trained):
    """Learns classes from labelled images, with all of the encoder or with its upper block groups.

    `fit` takes batches of images `(n, h, w, 3)` in [0, 1] and labels: integers `(n,)`, or rows `(n, num_classes)`,
    one-hot or the shares of the classes; weights of classes and examples weigh the loss.

    Args:
        encoder: images to features `(n, d)`; `tf_simclr.resnet(...)`, `tf_simclr.load_encoder(...)`, or any Keras model
            of this kind (of one without block groups only all or nothing can be frozen), also one that gives feature
            maps `(n, h, w, d)`, which are averaged (`models.parts`).
        projection: features to the list of each projection layer's output, or to the last one alone; needed if
            `ft_proj_selector` is not 0.
        num_classes: at least 2.
        fine_tune_after_block: groups up to this one are frozen: -1 none (but what the encoder itself has frozen), 0 the
            stem, 1 to 3, 4 all but the classifier.
        ft_proj_selector: projection layer that feeds the classifier; 0: the features, -1: the last
            (docs/official-code.md#classifier-input).
        frozen_layers: `still`: nothing in a frozen group changes, and its BatchNorm uses its moving statistics; the
            projection head trains up to the layer that feeds the classifier, unless all is frozen.  `tf1`, `tf2`: as
            the reference's codes do (docs/official-code.md#frozen-batch-norm): BatchNorm of frozen groups uses and
            updates the batch's statistics (TF1: not with all frozen); the projection head does not train (TF1), or
            trains whatever is frozen, its layers above the classifier by weight decay alone (TF2); TF1's loss counts
            frozen weights, too.
        zero_init: start the classifier at zero.
        weight_decay: times half the squared length of the weights that the optimizer does not decay itself is added
            to the loss (docs/official-code.md#weight-decay): with LARS the classifier's kernel, with AdamW and Lamb
            none, otherwise all that train but BatchNorm's.

    Metrics: `supervised_loss`, `supervised_acc`, `weight_decay` (the loss's L2 term).

    Raises:
        InputError: a value is outside its range, or the encoder has no groups to freeze.

    Example:
        >>> import numpy as np
        >>> from tf_simclr.models.resnet import resnet
        >>> model = Classifier(resnet(18, cifar_stem=True), num_classes=3, fine_tune_after_block=3)
        >>> model.compile(keras.optimizers.SGD(0.1))
        >>> history = model.fit(np.random.uniform(size=(4, 32, 32, 3)), np.arange(4) % 3, verbose=0)
        >>> sorted(history.history)
        ['loss', 'supervised_acc', 'supervised_loss', 'weight_decay']
    """

    OPTIONS: tuple[str, ...] = (
        "num_classes",
        "fine_tune_after_block",
        "ft_proj_selector",
        "frozen_layers",
        "zero_init",
        "weight_decay",
    )
    METRICS: tuple[str, ...] = ("supervised_loss", "supervised_acc", "weight_decay")
    FEWEST = 2
    """Classes, at least; see `TOO_FEW`."""
    TOO_FEW = "num_classes must be at least 2: of one, every guess is right"
    LABELS = "labels"

    def __init__(
        self,
        encoder: keras.Model,
        projection: keras.Model | None = None,
        *,
        num_classes: int,
        fine_tune_after_block: int = -1,
        ft_proj_selector: int = 0,
        frozen_layers: _FrozenLayers = "still",
        zero_init: bool = False,
        weight_decay: float = 0.0,
        name: str = "classifier",
        **kwargs,
    ):
        super().__init__(name=name, autocast=False, **kwargs)  # what views are made of stays float32; parts cast
        check(num_classes >= self.FEWEST, self.TOO_FEW, num_classes=num_classes)
        check(weight_decay >= 0, "weight_decay must be at least 0", weight_decay=weight_decay)
        check(frozen_layers in ("still", "tf1", "tf2"), "frozen_layers must be still, tf1 or tf2", got=frozen_layers)
        check_freezable(encoder, fine_tune_after_block)
        self.encoder, self.projection = encoder, projection
        self.num_classes, self.weight_decay, self.zero_init = num_classes, weight_decay, zero_init
        self.fine_tune_after_block, self.frozen_layers = fine_tune_after_block, frozen_layers
        self.ft_proj_selector = ft_proj_selector
        self.head = supervised_head(num_classes, zero=zero_init)
        self.means = {metric: keras.metrics.Mean(name=metric) for metric in self.METRICS}
        self.begin(encoder)

    def make_parts(self, width: int) -> None:
        """Builds what takes features `(n, width)`."""
        # Output lengths by layer, 0 the features: what the classifier takes depends on the layer that feeds it.
        widths = [width]
        if self.projection is not None:
            widths = [output.shape[-1] for output in parts.projections_spec(self.projection, width)]
        self.ft_proj_selector = selected(len(widths) - 1, self.ft_proj_selector)
        self.head.build((None, widths[self.ft_proj_selector]))
        # Compiled before it was built: what `compile` could not settle is settled now.
        if self.compiled:
            freeze(self)

    def label_range(self) -> tuple[int, int] | None:
        """All classes, from 0 on."""
        return self.num_classes, 0

    def compile(self, optimizer="sgd", loss=None, **kwargs):
        """As Keras' own, and settles which weights train: some do by the loss's weight decay alone."""
        no_loss_of_ones_own(loss, what=f"the loss of {type(self).__name__} is the softmax cross entropy of its logits")
        super().compile(optimizer, **kwargs)
        # Behind Keras' own, as which weights decay hangs on the optimizer.
        if self.built:
            freeze(self)

    def call(self, images, training=None):
        """Images `(n, h, w, 3)` to logits `(n, num_classes)`."""
        images = self.viewed(images)
        rank = images.shape.rank if hasattr(images.shape, "rank") else len(images.shape)  # may not be known yet
        rule = f"{type(self).__name__} takes images (n, h, w, 3), not views: give one of each image, as views[:, 0]"
        check(rank != 5, rule, shape=tuple(images.shape) if rank else None)
        training = training or False  # else a layer such as Resizing, for which None means True, hands that on
        features = parts.features_of(self.encoder, images, training=training)
        # All of the projection head runs: the reference's moving statistics move above the selected layer, too.
        head = self.projection
        layers = [features] if head is None else parts.projections_of(head, features, training=training)
        return self.head(layers[self.ft_proj_selector])

    def train_step(self, *inputs):
        """As of every model here, on images: a step makes them once, for the network and for a teacher."""
        *state, data = inputs
        if isinstance(data, list | tuple) and data and isinstance(data[0], dict):
            data = (self.viewed(data[0]), *data[1:])
        return super().train_step(*state, data)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The replica's part of the loss: cross entropy and weight decay."""
        check(y is not None, f"{type(self).__name__} needs labels: give batches of (images, {self.LABELS})")
        # Logits in float32: a softmax of float16 loses the small classes.
        logits = ops.cast(y_pred, keras.config.floatx())
        # Sample weights weigh the loss; accuracy counts every image once, as Keras' own metrics do.
        cross_entropy = share(weighed(self.losses_and_accuracy(self.prepared(y), logits), sample_weight))
        losses = {"supervised_loss": cross_entropy, "weight_decay": self.l2_loss()}
        return self.observe_losses(losses, examples=ops.shape(logits)[0])

    def losses_and_accuracy(self, y, logits):
        """The loss of each example, `(n,)`, from prepared labels; counts its accuracy."""
        self.observe("supervised_acc", labelled.hits(y, logits))
        return labelled.cross_entropy(y, logits)

    def l2_loss(self):
        """This replica's part of the weight decay that the optimizer leaves to the loss."""
        # TF1's decay counts frozen variables, too: they are part of the loss's value, and still do not move.
        variables = self.weights if self.frozen_layers == "tf1" else self.trainable_variables
        return self.decay_of([v for v in variables if v.name not in _NOT_DECAYED], head=[self.head.kernel])

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """The running means since the epoch began."""
        self.compiled_metrics(y, y_pred, sample_weight=sample_weight)
        return self.get_metrics_result()

    def network(self) -> keras.Model:
        """The same weights as a model from images `(n, h, w, 3)` to a dict of endpoints; see `network.build`."""
        selected = self.ft_proj_selector
        return network.connect(
            self.encoder, self.projection, logits=self.head, ft_proj_selector=selected, images=self.images_shape
        )


@keras.saving.register_keras_serializable("tf_simclr")
class MultiLabelClassifier(Classifier):
    """A `Classifier` of images that may have any number of findings: a logistic regression each, on one encoder.

    Labels are rows `(n, num_classes)`: 1 present, 0 absent, -1 unknown, which neither trains nor counts.  The loss of
    an image is the sum of its known findings' binary cross entropies over `num_classes`.  Arguments and metrics are
    those of `Classifier`, except that `num_classes` may be 1: one finding, which is there or not.  `supervised_acc` is
    the share of known findings on the right side of one half.
    """

    FEWEST = 1
    TOO_FEW = "num_classes must be at least 1: the findings to tell"
    LABELS = "rows of findings"

    def label_range(self) -> tuple[int, int] | None:
        """None: labels are rows of findings."""
        return None

    def prepared(self, y):
        """Rows of findings."""
        return labelled.findings(y, classes=self.num_classes)

    def given(self, y, options: Mapping = MappingProxyType({})):
        """The rows to use, once they were looked at."""
        super().given(y, options)
        labelled.check_findings(y, classes=self.num_classes)
        return y

    def losses_and_accuracy(self, y, logits):
        """The mean over the findings of an image, `(n,)`, from rows; counts the accuracy of what is known."""
        known, present = ops.cast(y >= 0, logits.dtype), ops.cast(y > 0, logits.dtype)
        # log(1 + e^x) - x y, in the form that neither overflows nor rounds a small loss away
        # (n, classes), 0 where nothing is known of a finding.
        losses = ops.softplus(ops.where(present > 0, -logits, logits)) * known
        right = ops.cast(ops.equal(logits > 0, present > 0), logits.dtype) * known
        count = ops.sum(known, axis=1)  # an image of which nothing is known weighs nothing
        # (n,): the share of an image's known findings that is right, weighed by how many these are.
        self.observe("supervised_acc", ops.sum(right, axis=1) / ops.maximum(count, 1), weight=count)
        # Divided by all findings, not by the known ones: else one known finding would weigh as much as fourteen.
        return ops.sum(losses, axis=1) / self.num_classes


def group_of(name: str) -> int:
    """Block group of a layer of the encoder by its name, 1 to 4; 0: the stem.

    Example:
        >>> group_of("group3_block1_conv2"), group_of("stem_bn1")
        (3, 0)
    """
    found = _GROUP.match(name)
    return int(found[1]) if found else 0


def depth_factor(name: str, decay: float, *, projects: bool = False) -> float:
    """Factor of a layer's learning rate: 1 for the classifier, times `decay` for each group further down.

    Args:
        name: of the layer.
        decay: in (0, 1].
        projects: whether a projection layer feeds the classifier; the head is then a group between it and group 4.

    Example:
        >>> [depth_factor(name, 0.5) for name in ("logits_sup", "group4_block1_conv1", "group1_block1_bn1", "stem_bn1")]
        [1.0, 0.5, 0.0625, 0.03125]
    """
    if name == "logits_sup":
        return 1.0
    # Of four groups group 4 is the last: the stem has decay⁵, and with a projection head one more.
    return decay ** (1 if name.startswith("proj") else 5 - group_of(name) + projects)


def check_freezable(encoder: keras.Model, block: int) -> None:
    """Raises `InputError` unless the encoder's groups up to this one can be frozen."""
    check(-1 <= block <= ALL, "fine_tune_after_block must lie in -1..4", fine_tune_after_block=block)
    grouped = any(group_of(layer.name) for layer in getattr(encoder, "layers", []))
    rule = "fine_tune_after_block must be -1 or 4 for an encoder without block groups"
    check(grouped or block in (-1, ALL), rule, fine_tune_after_block=block)


def weighed(losses, weights):
    """Losses `(n,)` times the examples' weights, if there are any."""
    if weights is None:
        return losses
    weights = ops.cast(weights, losses.dtype)
    # Keras gives weights (n, 1) at times.
    return losses * (ops.reshape(weights, (-1,)) if len(weights.shape) > 1 else weights)


def selected(last: int, selector: int) -> int:
    """The projection layer, of 0 to `last`, that a selector means; below 0 they are counted from the last.

    Raises:
        InputError: there is no such layer.
    """
    rule = f"ft_proj_selector must lie in {-last - 1}..{last}: there are {last} projection layers"
    check(-last - 1 <= selector <= last, rule, ft_proj_selector=selector)
    # -1 the last layer, as Python counts.
    return selector if selector >= 0 else last + 1 + selector


def freeze(model: Classifier) -> None:
    """Sets which weights train and which BatchNorm layers stay in inference mode."""
    if model.fine_tune_after_block >= 0:  # else what the encoder itself has frozen stays so, and nothing more
        all_frozen = model.fine_tune_after_block == ALL
        # Whether frozen layers of the encoder keep their moving statistics.
        still = all_frozen if model.frozen_layers == "tf1" else model.frozen_layers == "still"
        for layer in network.leaves(model.encoder):
            if layer.weights:
                settle(layer, trains=group_of(layer.name) > model.fine_tune_after_block, still=still)
    if model.projection is not None:
        # The head trains with the encoder; how far, the three ways of freezing have different rules.
        for layer in network.leaves(model.projection):
            if layer.weights:
                found = re.match(r"proj(\d+)_", layer.name)
                _settle_projection(model, layer, place=int(found[1]) if found else 1)


def _settle_projection(model: Classifier, layer: keras.layers.Layer, *, place: int) -> None:
    """Settles a layer of the projection head by its place, from 1 on."""
    # Layers above the one that feeds the classifier have no gradient.
    used = place <= model.ft_proj_selector
    if model.frozen_layers == "still":
        settle(layer, trains=used and model.fine_tune_after_block < ALL, still=True)
    elif model.frozen_layers == "tf1":
        settle(layer, trains=False, still=False)
    else:
        settle(layer, trains=used, still=False)
        # TF2's decay moves kernels that no gradient reaches: unless the optimizer decays itself, they train.
        decayed = [weight for weight in layer.weights if weight.name == "kernel" and model.weight_decay]
        for weight in left_to_loss(model.optimizer, [] if used else decayed):
            weight.trainable = True


def settle(layer: keras.layers.Layer, *, trains: bool, still: bool) -> None:
    """Lets a layer train or not; a frozen BatchNorm that is not still goes on with the batch's statistics."""
    # A BatchNorm layer with `trainable=False` goes into inference mode, in Keras; hence layers that are not still
    # remain trainable, and their weights alone are frozen.
    layer.trainable = trains or not still
    if not trains:
        for weight in layer.weights:
            weight.trainable = False


def thaw(model: keras.Model) -> keras.Model:
    """Lets every layer train again, as of a network that was never frozen; Keras saves that mark with a layer."""
    for layer in network.leaves(model):
        layer.trainable = True
    return model
