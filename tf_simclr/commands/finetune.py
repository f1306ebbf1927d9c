"""`tf-simclr finetune`: a classifier from a checkpoint, or from scratch, into a run folder.

Protocol: random crop and flip, no colour (SimCLRv2, Section 3.1); the centre crop to test on, once at the end unless
asked for more; the last network is kept, none is chosen by its test result.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import keras
import numpy as np

from tf_simclr.commands.parts.images import labelled_sources
from tf_simclr.commands.parts.networks import (
    check_channels,
    check_classifier_of,
    check_images,
    own_encoder,
    resnet_of,
    warn_of_new_stem,
)
from tf_simclr.commands.parts.plans import compile_on, optimizer_of, plan_of
from tf_simclr.commands.parts.runs import agree, begin_run, check_push, find_devices, in_folder, push
from tf_simclr.commands.supervised import Job, finished, summary, supervise
from tf_simclr.config import Finetune
from tf_simclr.data.sources import Source
from tf_simclr.data.subsets import labelled_part
from tf_simclr.errors import check
from tf_simclr.models.architecture import Architecture, Own
from tf_simclr.models.classifier import Classifier, MultiLabelClassifier, depth_factor, selected
from tf_simclr.models.network import build_encoder, build_projection, in_precision, plain, weights_by_name
from tf_simclr.models.normalization import Normalization, precision, share_statistics
from tf_simclr.optimizers.layerwise import layerwise
from tf_simclr.own import encoders
from tf_simclr.replicas import ONE_DEVICE, Devices
from tf_simclr.terminal import say, show
from tf_simclr.training import Plan
from tf_simclr.training.reporting import check_reports
from tf_simclr.weights import own_network, read_network


def run(config: Finetune) -> None:
    """Fine-tunes as configured, tests, and says where the network is."""
    devices = find_devices(config)
    with devices.together():  # what one process alone is refused, the others hear
        source, test = labelled_sources(config, several=True)
        check_push(config)
        check_reports(config)
    with in_folder(config, devices) as config:
        result = finetune(config, source, test=test, devices=devices)
    show(f"\n{summary(config, result)}")
    push(config, config.model_dir, devices=devices)


def finetune(config: Finetune, source: Source, *, test: Source, devices: Devices = ONE_DEVICE) -> dict:
    """Trains on a source, from the run folder's last checkpoint on, tests, and returns what `result.json` holds.

    Raises:
        InputError: the folder holds another run, the checkpoint does not fit, or the images do not make one batch.
    """
    # The order is `pretrain`'s: what can be refused is refused before anything is written, what is written before
    # anything is computed, and every random number comes after its seed.

    # 1. What is asked for: the network, of the checkpoint or of the knobs, with a classifier of the images' classes; an
    #    encoder of another kind is made at once.
    agree(config, source, devices=devices)
    if config.restore_logits_layer:
        check_classifier_of(config.checkpoint, source)
    keras.utils.set_random_seed(config.seed)
    given = start(config, devices=devices)
    architecture = describe(config, source.num_classes, given=given)

    def made() -> Classifier:
        with devices.scope(), precision(config.mixed_precision):
            return classifier(config, architecture, several=source.several, given=given)

    model = made() if isinstance(given, GivenOwn) else None
    blueprint = None if model is None else plain(model.network()).to_json()

    # 2. The run folder: begun now, or begun with the same options earlier; nothing is left to do in a finished one.
    folder = begin_run(config, source, test=test, architecture=architecture, devices=devices, blueprint=blueprint)
    if (there := finished(folder, config, test=test)) is not None:
        say(f"{folder.path} is finished; nothing is left to train")
        return there

    # 3. The images whose labels count; the length of the training and its rates follow from their number.
    source, drawn = labels(config, source)
    plan = plan_of(config, source.num_examples)

    # 4. The model.  The seed comes first: weights are drawn from it, in the order in which layers are built.
    keras.utils.set_random_seed(config.seed)
    model = model or made()
    with devices.scope():
        rule = optimizer_of(config, steps=plan.total_steps, num_examples=source.num_examples)
        compile_on(devices, model, optimizer=_by_depth(config, model, rule=rule), config=config)

    # 5. Weights to start from; those of the run's newest checkpoint, where there is one, take their place in 6.
    if given is not None:
        given.fill(model, head=config.restore_logits_layer)
    say(_introduction(config, source, architecture=architecture, plan=plan))
    warn_of_new_stem(architecture, config.image_size)

    # 6. The training, from the newest whole checkpoint on; then the test, the network, and last the result.
    job = Job(config, folder, plan=plan, test=test, notes={"labels": drawn}, devices=devices)
    return supervise(job, model, source=source)


@dataclass(frozen=True)
class Given:
    """A checkpoint to start from."""

    path: Path
    architecture: Architecture
    weights: dict[str, np.ndarray]
    """By name: `stem_conv1/kernel`."""

    @classmethod
    def read(cls, path: Path, *, ema: bool = False) -> "Given":
        """Opens a checkpoint of any kind.

        Raises:
            InputError: it is damaged, not whole, or of no known kind.
        """
        return cls(path, *read_network(path, ema=ema))

    def fill(self, model: Classifier, *, head: bool = False) -> None:
        """Sets the weights of the encoder, of the projection head if the model has one, and of the classifier if asked.

        Raises:
            InputError: the classifier is asked for, but the checkpoint has none, or one of other classes or inputs.
        """
        # By names, each of which must be there.
        parts = [model.encoder, *([] if model.projection is None else [model.projection])]
        for name, weight in (item for part in parts for item in weights_by_name(part).items()):
            weight.assign(self.weights[name])
        if head:
            theirs, ours = self.architecture, model.head.kernel.shape
            rule = f"{self.path} must have a classifier of this form to restore_logits_layer from"
            # The classifier's input: the features, or one of the projection layers.
            found = (theirs.feature_dim, *theirs.proj_dims)[theirs.ft_proj_selector], theirs.num_classes
            check(found == tuple(ours), rule, wanted=tuple(ours), found=found if theirs.num_classes else None)
            for weight in model.head.weights:
                weight.assign(self.weights[f"logits_sup/{weight.name}"])


@dataclass(frozen=True)
class GivenOwn:
    """An encoder of another kind to start from, with the heads that came with it; they hold their weights."""

    name: str
    """How messages and the run call it."""
    encoder: keras.Model
    projection: keras.Model | None = None
    head: tuple[np.ndarray, ...] = ()
    """Kernel and bias of the classifier, if there is one."""

    @classmethod
    def of(cls, network: keras.Model, *, name: str) -> "GivenOwn":
        """The parts of a network by its endpoints."""
        there = [layer for layer in network.layers if layer.name == "logits_sup"]
        head = tuple(there[0].get_weights()) if there else ()
        return cls(name, encoders.encoder_of(network), encoders.projection_of(network), head)

    @property
    def architecture(self) -> Own:
        """Its numbers, without a classifier."""
        layers = 0 if self.projection is None else len(self.projection.output) - 1
        return Own(self.name, self.encoder.output_shape[-1], num_proj_layers=layers)

    def fill(self, model: Classifier, *, head: bool = False) -> None:
        """Sets the classifier's weights if asked; those of the other parts are there.

        Raises:
            InputError: there is no classifier, or one of other classes or inputs.
        """
        if head:
            wanted = [tuple(weight.shape) for weight in model.head.weights]
            found = [weight.shape for weight in self.head]
            rule = f"{self.name} must have a classifier of this form to restore_logits_layer from"
            check(found == wanted, rule, wanted=wanted, found=found or None)
            model.head.set_weights(list(self.head))


def start(config: Finetune, *, devices: Devices = ONE_DEVICE) -> Given | GivenOwn | None:
    """What is fine-tuned: a checkpoint's network, or an encoder of another kind; None: a ResNet from scratch.

    Raises:
        InputError: the checkpoint is damaged, or the encoder cannot be made.
    """
    if config.checkpoint is None:
        encoder = own_encoder(config, devices=devices)
        return None if encoder is None else GivenOwn(config.encoder, encoder)
    with devices.scope():
        network = own_network(config.checkpoint)
    if network is None:
        rule = f"{config.checkpoint} holds a ResNet, which is taken; leave --encoder out"
        check(not config.encoder, rule, encoder=config.encoder)
        given_resnet = Given.read(config.checkpoint, ema=config.ema)
        check_channels(given_resnet.architecture.channels, config, what=str(config.checkpoint))
        return given_resnet
    rule = f"{config.checkpoint} has an encoder that is no ResNet of ours, and no averages: leave ema out"
    check(not config.ema, rule)
    check_images(network, config.image_size)
    check_channels(network.input_shape[-1], config, what=str(config.checkpoint))
    rule = f"layer_decay must be 1 for {config.checkpoint}: it goes by the block groups of a ResNet"
    check(config.layer_decay == 1, rule, layer_decay=config.layer_decay)
    given = GivenOwn.of(network, name=config.encoder or str(config.checkpoint))
    # In the precision of the command, whatever it was saved with.
    policy = "float32" if config.mixed_precision == "float32" else f"mixed_{config.mixed_precision}"
    for part in (given.encoder, given.projection):
        if part is not None:
            in_precision(part, policy)
            with devices.scope():
                told = share_statistics(part, global_bn=config.global_bn)
            # Said once, of the encoder.
            for line in told if part is given.encoder else []:
                say(line)
    return given


def describe(config: Finetune, num_classes: int, *, given: Given | GivenOwn | None) -> Architecture | Own:
    """The network: the checkpoint's, else the one that the knobs ask for; with a classifier on the selected layer.

    Raises:
        InputError: there is no such layer.
    """
    network: Architecture | Own = resnet_of(config) if given is None else given.architecture
    selector = selected(network.num_proj_layers, config.ft_proj_selector)
    return replace(network, num_classes=num_classes, ft_proj_selector=selector)


def classifier(
    config: Finetune, architecture: Architecture | Own, *, several: bool = False, given: Given | GivenOwn | None = None
) -> Classifier:
    """The model: the parts of an encoder of another kind, else new ones; `several`: images of any number of classes."""
    if isinstance(given, GivenOwn):
        encoder, projection = given.encoder, given.projection
    else:
        network = cast(Architecture, architecture)
        normalization = Normalization(batch_norm_decay=config.batch_norm_decay, global_bn=config.global_bn)
        encoder = build_encoder(network, normalization)
        projection = build_projection(network, normalization) if network.num_proj_layers else None
    kind = MultiLabelClassifier if several else Classifier
    return kind(
        encoder,
        projection,
        num_classes=architecture.num_classes,
        fine_tune_after_block=config.fine_tune_after_block,
        ft_proj_selector=architecture.ft_proj_selector,
        frozen_layers=config.frozen_layers,
        zero_init=config.zero_init_logits_layer,
        weight_decay=config.weight_decay,
    )


def _by_depth(config: Finetune, model: Classifier, *, rule: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """The optimizer, with slower groups below where `layer_decay` asks for them."""
    if config.layer_decay == 1:
        return rule
    # With a projection head below the classifier there is one group more to go down.
    projects = model.ft_proj_selector > 0
    return layerwise(rule, lambda name: depth_factor(name, config.layer_decay, projects=projects))


def labels(config: Any, source: Source) -> tuple[Source, dict[str, int] | None]:
    """The images whose labels count, and how many of each class; None, and no pass over the images, for all of them."""
    if config.labels_fraction == 1:
        return source, None
    rule = "labels_fraction takes each class alike, and these images have several each; `chest findings` draws patients"
    check(not source.several, rule, labels_fraction=config.labels_fraction)
    # One pass over the labels, which decodes nothing.
    part, drawn = labelled_part(source, config.labels_fraction, seed=config.labels_seed)
    few, many = min(drawn.values()), max(drawn.values())
    say(f"{part.origin} keep their labels: {few if few == many else f'{few} to {many}'} a class")
    return part, drawn


_FROZEN = {-1: "all of it trains", 0: "all but the stem trains", 4: "the classifier alone trains"}


def _introduction(config: Finetune, source: Source, *, architecture: Architecture | Own, plan: Plan) -> str:
    """What is about to happen."""
    origin = "from scratch" if config.checkpoint is None else f"from {config.checkpoint}"
    block = config.fine_tune_after_block
    trains = _FROZEN.get(block, f"block groups from {block + 1} on train")
    layer = architecture.ft_proj_selector
    fed = f"projection layer {layer}" if layer else "the pooled features"
    return (
        f"{architecture.title} {origin}, classifier of {architecture.num_classes} on "
        f"{fed}; {trains}: {source.num_examples:,} images of {source.origin} at {config.image_size} px, "
        f"{plan.total_steps:,} steps of {config.train_batch_size} images, into {config.model_dir}"
    )
