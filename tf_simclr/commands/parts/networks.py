"""The networks of a command: what its options name, and whether the images are what they take."""

from typing import Any

import keras

from tf_simclr.config import Distill, Finetune, Pretrain
from tf_simclr.config.evaluation import LinearEval, Probing, Transfer
from tf_simclr.config.parts import WITH_OPACITY
from tf_simclr.data.sources import Source
from tf_simclr.errors import check
from tf_simclr.evaluation.features import Extractor
from tf_simclr.files import read_json
from tf_simclr.files.places import is_address, shown
from tf_simclr.models.architecture import Architecture, Own
from tf_simclr.models.network import in_precision
from tf_simclr.models.normalization import precision, share_statistics
from tf_simclr.models.resnet import resnet
from tf_simclr.own import encoders, named
from tf_simclr.replicas import ONE_DEVICE, Devices
from tf_simclr.run_folder import RunFolder
from tf_simclr.terminal import say
from tf_simclr.training.about import known_of
from tf_simclr.weights import load_encoder, load_model, located

_SMALL = 32
"""Side of images, in pixels, up to which networks are built with the stem for small ones."""
_POOLED = "final_avg_pool"
NO_IDENTITY: tuple[str, ...] = ("checkpoint", "ema", "encoder", "image_dir", "data_dir", "radiographs", "download")
NO_IDENTITY += ("datasets", "eval_batch_size", "cache_features", "cache_dir", "out", "result")
"""Knobs that do not change features and what is measured of them, or do so by weights and images, which are told by
content."""


def code_of(encoder: str) -> list[str]:
    """The words by which a command is told again whose code a network is made of; none where it needs no telling."""
    return ["--encoder", encoder] if named.is_named(encoder) and encoder.split(":")[0] not in named.OF_LIBRARIES else []


def resnet_of(config: Any, **heads: Any) -> Architecture:
    """The ResNet that the knobs of a training ask for, with these heads."""
    return Architecture(
        depth=config.resnet_depth,
        width=config.width_multiplier,
        sk_ratio=config.sk_ratio,
        se_ratio=config.se_ratio,
        cifar_stem=config.image_size <= _SMALL,
        channels=config.channels or 3,
        **heads,
    )


def encoder_from(config: Any) -> keras.Model | None:
    """The encoder of a command that begins with one: of the checkpoint, or what --encoder names with random weights.

    Args:
        config: with `checkpoint`, `ema`, `encoder` and `image_size`.

    Returns:
        Images to features; None where neither is given.

    Raises:
        InputError: it cannot be read or made.
    """
    if config.checkpoint is not None:
        return load_encoder(config.checkpoint, ema=config.ema)
    return encoders.build(config.encoder, image_size=config.image_size, say=say) if config.encoder else None


def own_encoder(config: Pretrain | Finetune | Distill, *, devices: Devices = ONE_DEVICE) -> keras.Model | None:
    """The encoder that --encoder names, with its weights; None where a ResNet is asked for.

    Raises:
        InputError: it cannot be found or made, or takes or gives something else than an encoder.
    """
    if not config.encoder:
        return None
    with devices.scope(), precision(config.mixed_precision):
        encoder = encoders.build(
            config.encoder, image_size=config.image_size, say=say, channels=config.channels or None
        )
        in_precision(encoder, keras.config.dtype_policy().name)
        for line in share_statistics(encoder, global_bn=config.global_bn):
            say(line)
    return encoder


def drawn_encoder(config: Any) -> keras.Model:
    """What --encoder names, or a ResNet of --resnet_depth, with random weights: images to features.

    Raises:
        InputError: it cannot be found or made.
    """
    if config.encoder:
        return encoders.build(config.encoder, image_size=config.image_size, say=say)
    return resnet(config.resnet_depth, cifar_stem=config.image_size <= _SMALL)


def encoder_name(config: Any) -> str:
    """How the encoder of a command was named that is no ResNet of ours: on its command line, or in the run it is of."""
    if config.encoder or config.checkpoint is None:
        return str(config.encoder)
    noted = RunFolder(config.checkpoint).architecture
    return str(read_json(noted).get("encoder", "")) if noted.is_file() else ""


def load_features_network(config: LinearEval | Transfer) -> keras.Model:
    """The checkpoint's network from images to the features that are asked for.

    Raises:
        InputError: the checkpoint cannot be read, or has no such features.
    """
    if config.layer == _POOLED:
        return fitting(load_encoder(config.checkpoint, ema=config.ema), config)
    model = fitting(load_model(config.checkpoint, ema=config.ema), config)
    flat = [name for name, output in model.output.items() if len(output.shape) == 2]
    check(config.layer in flat, f"layer must be one of {', '.join(flat)}", layer=config.layer)
    return keras.Model(model.input, model.output[config.layer], name="features")


def fitting(network: keras.Model, config: Any) -> keras.Model:
    """The network of a command's checkpoint, if it takes its images; what is unlike its training's is said.

    Args:
        network: of the checkpoint.
        config: with `checkpoint`, `image_size` and `channels`.

    Raises:
        InputError: it takes images of another size or of other channels.
    """
    warn_of_stem(network, config.image_size)
    check_channels(network.input_shape[-1], config, what=str(config.checkpoint))
    return network


def extractor_of(config: Probing, network: keras.Model, *, label: str = "") -> Extractor:
    """What takes a network's features, and keeps them as the knobs say."""
    return Extractor(
        network,
        label,
        endpoint=config.layer,
        batch_size=config.eval_batch_size,
        keep=config.cache_features,
        folder=config.cache_dir,
    )


def check_classifier_of(checkpoint: Any, source: Source) -> None:
    """Refuses a checkpoint whose classifier tells other classes apart than the images have, in as many columns.

    What a run or a pushed network notes of its classes is believed; of other checkpoints nothing is known, and numbers
    are no names.

    Raises:
        InputError: the classes or their order differ.
    """
    known = known_of(located(checkpoint) if is_address(checkpoint) else checkpoint)["classes"]
    here = list(source.class_names)
    named = not any(all(name.isdecimal() for name in names) for names in (known, here))
    # Another number of classes is another form, which whoever takes the classifier sees.
    same = known == here or len(known) != len(here) or not named
    rule = f"{shown(checkpoint)} must tell the classes of {source.origin} apart, in this order"
    check(same, rule, there=known[:5], here=here[:5])


def check_channels(channels: int | None, config: Any, *, what: str) -> None:
    """Refuses a network of other channels than --channels names, and of such as images of files do not have.

    Args:
        channels: of the network.
        config: with `channels`; 0: as the network takes them.
        what: the network.

    Raises:
        InputError: so it is.
    """
    rule = f"{what} takes images of {channels} channels: leave --channels out, or name another network"
    check(config.channels in (0, channels), rule, channels=config.channels)
    rule = f"{what} takes images of {channels} channels, of which one is their opacity: give --channels {channels}"
    check(channels not in WITH_OPACITY or config.channels == channels, rule, channels=config.channels)
    rule = f"{what} must take images of 1 to 4 channels, as they are read of files; use it in Python, or convert it"
    check(channels in (1, 2, 3, 4), rule, channels=channels)


def check_images(network: keras.Model, image_size: int) -> None:
    """Refuses images of a size that an encoder of another kind was not made for.

    Raises:
        InputError: so it is.
    """
    sides = network.input_shape[1:3]
    fits = all(side in (None, image_size) for side in sides)
    rule = f"the network takes images of {sides[0]} × {sides[1]} pixels: give --image_size {sides[0]}"
    check(fits, rule, image_size=image_size)


def _stem_warning(cifar_stem: bool, image_size: int) -> str:
    """What to say of a network whose first layers are for images of another size; nothing where they fit.

    Example:
        >>> _stem_warning(True, 32), _stem_warning(False, 224)
        ('', '')
    """
    if cifar_stem and image_size > 2 * _SMALL:
        return (
            f"the network's stem is for images of {_SMALL} px (no stride, no pooling), but they are seen at "
            f"{image_size} px: other features than it was trained for, at 16 times the work; is --image_size {_SMALL} "
            "meant?"
        )
    if not cifar_stem and image_size <= _SMALL:
        return (
            f"the network's stem is for images of 224 px, but they are seen at {image_size} px, of which it leaves "
            f"{-(-image_size // 32)} × {-(-image_size // 32)} places; is a larger --image_size meant?"
        )
    return ""


def warn_of_new_stem(architecture: Architecture | Own, image_size: int) -> None:
    """As `warn_of_stem`, of a network that is to be built."""
    if isinstance(architecture, Architecture) and (warning := _stem_warning(architecture.cifar_stem, image_size)):
        say(warning)


def warn_of_stem(network: keras.Model, image_size: int) -> None:
    """Says where a ResNet's stem is for images of another size; of other networks nothing is known."""
    # Named as ours, or of another kind.
    layers = {layer.name: layer for layer in network.layers}
    if not layers.get("stem_conv1"):
        check_images(network, image_size)
        if encoders.RANGE in {layer.name for layer in network._flatten_layers()}:
            say("images in [0, 1] are brought to the range that the encoder's own first layers take")
    # Stride 1 is the stem for small images.
    strides = getattr(layers.get("stem_conv1"), "strides", None)
    if strides is not None and (warning := _stem_warning(tuple(strides) == (1, 1), image_size)):
        say(warning)
