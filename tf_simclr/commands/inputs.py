"""What every command does first: its images, devices and features, and a way to speak to the user."""

import contextlib
import importlib
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO, TypeVar

import keras
import numpy as np

from tf_simclr import replicas
from tf_simclr.buckets.mirror import mirrored
from tf_simclr.buckets.sending import send_now
from tf_simclr.buckets.staging import copied, filled
from tf_simclr.config import Distill, Finetune, Pretrain, plain, plain_defaults
from tf_simclr.config.evaluation import LinearEval, Probing, Transfer
from tf_simclr.config.first_look import data_set_folder, sizes
from tf_simclr.config.parts import WITH_OPACITY, Images, Placement, Publishing
from tf_simclr.contents import cache_folder, digests, of_bytes, silent
from tf_simclr.data import folders, images
from tf_simclr.data.pipeline import Unreadable, evaluation_batches
from tf_simclr.data.radiographs.settings import check_one_class
from tf_simclr.data.shards import opening
from tf_simclr.data.shards.hub import from_hub, is_hub, splits_of
from tf_simclr.data.shards.source import from_shards
from tf_simclr.data.sources import Source, from_folder, with_opacity
from tf_simclr.errors import InputError, check
from tf_simclr.evaluation.features import FeatureCache, Features, extract, source_digest, weights_digest
from tf_simclr.files import read_json
from tf_simclr.lock import hold
from tf_simclr.models.architecture import Architecture, Own
from tf_simclr.own import encoders
from tf_simclr.places import is_address, is_bucket, shown, written
from tf_simclr.run_folder import WEIGHTS, RunFolder
from tf_simclr.terminal import Line, say, show
from tf_simclr.training import publishing
from tf_simclr.training.about import known_of
from tf_simclr.weights import content_of_option, load_encoder, load_model, located

_OF_A_MACHINE: tuple[str, ...] = ("model_dir", "data_dir", "image_dir", "radiographs", "download", "cache_dataset")
_OF_A_MACHINE += ("coordinator", "process_id")
"""Options that may differ between the processes of one training: their machines' paths."""


def find_devices(config: Placement) -> replicas.Devices:
    """The devices that the knobs ask for, which it says; call it first: afterwards they cannot be divided or joined.

    Raises:
        InputError: they are not there.
    """
    where: dict[str, Any] = {"tpu_name": config.tpu_name, "zone": config.tpu_zone, "project": config.gcp_project}
    where |= {name: getattr(config, name) for name in ("coordinator", "num_processes", "process_id")}
    devices = replicas.find(config.strategy, num_replicas=config.num_replicas, **where)
    rule = "steps_per_execution must be 1 with KERAS_BACKEND=torch, whose steps Keras runs one by one"
    single = config.steps_per_execution == 1 or keras.backend.backend() != "torch"
    check(single, rule, steps_per_execution=config.steps_per_execution)
    say(f"devices: {devices.description}")
    return devices


_C = TypeVar("_C", Pretrain, Finetune, Distill)
_LATE = 30.0
"""Seconds after which what one machine has written in a network folder is seen by the others."""
SPLITS = ("split", "train_split", "eval_split")
"""Options that name splits."""


def open_source(config: Images, split: str, *, labelled: bool | None = None, several: bool = False) -> Source:
    """The examples of a split: of a folder of images or radiographs, if one is given, else of a tfds data set.

    What a user should know of them is said.

    Args:
        config: where the images are.
        split: its name; of a folder see `open_folder`.
        labelled: whether labels matter; by default they are taken where there are any.
        several: whether an image may be of any number of classes: its label is then a row of them.

    Raises:
        InputError: there is no such split, or nothing in it; labels matter, and it has none.
    """
    # 1. Prepared radiographs.  2. A set of TensorFlow Datasets.  3. The hub's, shards, or a folder of pictures.
    if config.radiographs is not None:
        from tf_simclr.data.radiographs import partition, prepared

        known = prepared.load(config.radiographs)
        source = partition.part(
            known, split, positive=config.positive, seed=config.split_seed, several=bool(labelled) and several
        )
        check_one_class(known.called, known.classes, single=source.labelled or not labelled)
    elif config.image_dir is None and not is_hub(config.dataset):
        from tf_simclr.data.tfds_source import from_tfds

        keys = {"image_key": config.image_column, "label_key": config.label_column}
        source = from_tfds(config.dataset, split, data_dir=config.data_dir, download=config.download, **keys)
        source = upright(source) if config.exif_orientation else source
    else:
        options: dict[str, Any] = {
            "labelled": labelled,
            "asked": [name for name in (getattr(config, part, None) for part in SPLITS) if name is not None],
            "fraction": config.validation_fraction,
            "whole": not labelled and not _holds_back(config),
            "seed": config.split_seed,
            "exif_orientation": config.exif_orientation,
        }
        columns = {name: getattr(config, name) for name in ("image_column", "label_column")}
        if config.image_dir is None:
            source = from_hub(config.dataset, split, data_dir=config.data_dir, say=say, **options, **columns)
        elif opening.are_at(config.image_dir):
            source = from_shards(config.image_dir, split, say=say, **options, **columns)
        else:
            given = {name: value for name, value in columns.items() if value is not None}
            rule = f"{' and '.join(given)} must be left out: {shown(config.image_dir)} holds pictures, and no shards"
            check(not given, rule, **given)
            source = open_folder(config.image_dir, split, **options)
        divided = source.division is not None or config.validation_fraction is None
        rule = f"validation_fraction must be left out: {source.origin} has splits of its own"
        check(divided, rule, validation_fraction=config.validation_fraction)
    # Then, for all of them: resized images from the disk, notes, and whether there is something to learn.
    if config.cache == "resized":
        from tf_simclr.data.kept.resized import resized

        source = resized(source, size=config.cache_size, kind=config.cache_format, say=say)
    if getattr(config, "channels", 0) in WITH_OPACITY:
        rule = "channels must be 1 or 3 with --cache resized and with radiographs, which keep no opacity"
        check(config.cache == "none" and config.radiographs is None, rule, channels=getattr(config, "channels", 0))
        source = with_opacity(source)
    for line in source.notes:
        say(line)
    if labelled:
        check_labels(source)
    return source


def _holds_back(config: Images) -> bool:
    """Whether a training without labels on a folder without splits leaves images to test on: if any are asked for."""
    return config.validation_fraction is not None or getattr(config, "eval_split", None) is not None


def open_folder(
    root: Path,
    split: str,
    *,
    labelled: bool | None = None,
    asked: Collection[str] = (),
    fraction: float | None = None,
    whole: bool = False,
    seed: int = 0,
    exif_orientation: bool = False,
) -> Source:
    """A split of a folder of images: the folder of that name in it, or where it has no splits a part of it.

    Without splits each class is divided by its images' content (`folders.Division`), so that what is tested on is
    never trained on.  A split that is missing beside others is an error: the test images would be among those to
    train on.

    Args:
        root: the folder.
        split: train, validation or test, or the name of a folder in it.
        labelled: whether folders are classes; by default they are where they alone hold images.
        asked: the splits that a command asks for.
        fraction: share of each class that test and validation have; by default `folders.HELD_OUT`.
        whole: whether train may be all of a folder without splits.
        seed: of the division.
        exif_orientation: whether pictures are turned as their EXIF orientation says.

    Raises:
        InputError: there is no such split, or nothing in it, or a layout that can be read in two ways.
    """
    # Where the split lies: in a folder of its own, or as a part of all.
    folder, part = folders.place_of(root, split, asked=asked)
    if part is None:
        return from_folder(folder, labelled=labelled, exif_orientation=exif_orientation)
    found = folders.look(root)
    # Nothing is held back from a training without labels that asks for no test.
    if whole and part == "train":
        return from_folder(found, labelled=labelled, exif_orientation=exif_orientation)
    labelled = not found.loose if labelled is None else labelled
    labels = found.labels() if labelled else np.zeros(len(found.files), np.int64)
    division = folders.Division.of(part, asked=asked, fraction=fraction, seed=seed)
    numbers = division.numbers(digests(found.files), labels, classes=found.classes if labelled else ())
    source = from_folder(found, labelled=labelled, numbers=numbers, exif_orientation=exif_orientation)
    images, of = len(numbers), len(found.files)
    return replace(
        source,
        origin=f"{source.origin} ({part} part)",
        notes=(*(source.notes if part == "train" else ()), division.told(shown(root), images, of=of)),
        roster=f"{source.roster} {part} {division.fraction} {seed}",
        division=division.noted(images, of=of),
    )


def upright(source: Source) -> Source:
    """The same images, each turned as its EXIF orientation says."""
    known = source.identity
    identity = None if known is None else lambda say=silent: [known(say), "upright"]
    square = source.sides is not None and source.sides[0] == source.sides[1]
    # A picture on its side changes places of height and width.
    sides = source.sides if square else None  # what lies on its side is turned
    read = lambda image: images.upright(source.read(image))  # noqa: E731
    return replace(source, read=read, identity=identity, sides=sides, largest=None)


def check_labels(source: Source) -> None:
    """Refuses images that nothing can be learned of or tested on: without labels, or all of one class.

    Raises:
        InputError: so it is.
    """
    check(source.labelled, f"{source.origin} must have labels to learn from or to test on")
    rule = f"{source.origin} must have at least two classes: whatever it is asked, one class is always right"
    check(source.num_classes >= 2, rule, classes=list(source.class_names))
    check(not source.only, rule, all_images_are=source.only)


def begin_run(
    config: Pretrain | Finetune | Distill,
    source: Source,
    *,
    architecture: Architecture | Own,
    devices: replicas.Devices,
    test: Source | None = None,
    notes: dict[str, Any] | None = None,
    blueprint: str | None = None,
) -> RunFolder:
    """A training's folder, with its options noted in it; or the one that lies there, to go on with.

    Args:
        config: the command's options.
        source: the images to train on.
        architecture: of the network.
        devices: to train on; of several processes the chief alone writes.
        test: the images to test on.
        notes: what `config.json` holds in the place of the options.
        blueprint: what a network with an encoder of another kind is made of.

    Raises:
        InputError: the folder holds another run, not all processes see it, the devices cannot share a batch, or
            processes have different images.
    """
    # What cannot be divided, and processes that disagree, before anything is written.
    devices.check_batch(config.train_batch_size)
    weights = _weights_of(config)
    folder, noted = RunFolder(Path(config.model_dir)), notes or plain(config)
    devices.by_chief(lambda: folder.check_options(noted, plain_defaults(noted["command"])))

    # All images are read once, to be known by their content; a later start finds that remembered.
    content = source_digest(source, say)
    tested = None if test is None else source_digest(test, say)
    devices.agree("the images", {"to train on": content, "to test on": tested})

    def begin() -> None:
        folder.begin(
            noted,
            architecture,
            blueprint=blueprint,
            defaults=plain_defaults(noted["command"]),
            images=source.num_examples,
            origin=source.origin,
            roster=source.roster,
            content=content,
            classes=source.class_names,
            weights=weights,
            say=say,
        )

    devices.by_chief(begin)
    see(folder, devices)
    _check_shared(folder, devices)
    return folder


def see(folder: RunFolder, devices: replicas.Devices) -> None:
    """Brings what the first process has written in the folder of a run to the others, where that lies in a bucket.

    On a path that all share there is nothing to do.  All must call it.

    Raises:
        InputError: the store cannot be asked.
    """
    if devices.process[1] == 1 or not is_bucket(address := written(folder.path)):
        return
    devices.by_chief(lambda: send_now(folder.path))
    if not devices.chief:
        mirrored(address)


def _check_shared(folder: RunFolder, devices: replicas.Devices) -> None:
    """Refuses processes that do not see what the first one has noted in a run's folder.

    Raises:
        InputError: so it is; a network folder that shows it late is waited for.
    """

    def seen() -> str | None:
        return of_bytes(folder.config.read_bytes()) if folder.config.exists() else None

    wanted = devices.collect(seen())[0]
    until = time.monotonic() + _LATE
    while seen() != wanted and time.monotonic() < until:
        time.sleep(0.5)
    here = "the first one's" if seen() == wanted else "another"
    devices.agree(f"the folder of the run ({folder.path}, which all must see)", here)


def agree(config: Pretrain | Finetune | Distill, source: Source, *, devices: replicas.Devices) -> None:
    """Refuses processes that were not started alike; call it before anything is built, which needs the same of all.

    Raises:
        InputError: so it is, with what each has.
    """
    if devices.process[1] == 1:
        return
    weights = _weights_of(config)  # these may lie elsewhere on each machine
    same = {name: value for name, value in plain(config).items() if name not in {*_OF_A_MACHINE, *weights}}
    seen = {"images": source.num_examples, "their names": source.roster, "classes": list(source.class_names)}
    devices.agree("the options", same | seen | _versions())
    devices.agree("the weights that options name", weights)


def _versions() -> dict[str, str]:
    """Of what computes and draws: processes of other versions would not train the same network."""
    backend = keras.backend.backend()
    packages = ("tf_simclr", "keras", "numpy", *([backend] if backend != "numpy" else []))
    found = {name: getattr(importlib.import_module(name), "__version__", "") for name in packages}
    return {"version of Python": ".".join(map(str, sys.version_info[:2]))} | {
        f"version of {name}": str(version) for name, version in found.items()
    }


def _weights_of(config: Any) -> dict[str, str]:
    """Option → what tells the weights that it means from others, wherever they lie; of those that are given.

    Raises:
        InputError: they cannot be read.
    """
    given = {name: value for name in WEIGHTS if (value := getattr(config, name, None))}
    told = {name: content_of_option(name, value, ema=getattr(config, "ema", False)) for name, value in given.items()}
    return {name: content for name, content in told.items() if content is not None}


def check_push(config: Publishing) -> None:
    """Refuses a repository of the hub that cannot be pushed to, before the time of a training is spent."""
    if config.push_to is not None:
        publishing.check_can_push(config.push_to)


def push(
    config: Publishing, network: Path, *, devices: replicas.Devices = replicas.ONE_DEVICE, files: Sequence[Path] = ()
) -> None:
    """Sends what is finished to the hub, where that is asked for, and says how it is loaded from there.

    Raises:
        InputError: it cannot be sent; what lies on the disk is whole.
    """
    if config.push_to is None or not devices.chief:
        return
    say(f"sending to hf://{config.push_to} …")
    address = publishing.push_to_hub(network, config.push_to, files=files)
    show(f'hub:      {address}; import tf_simclr; keras.saving.load_model("hf://{config.push_to}")')


@contextlib.contextmanager
def in_folder(config: _C, devices: replicas.Devices) -> Iterator[_C]:
    """A training's block: no other one has its folder meanwhile, and a process that it has lost is reported.

    What is refused before its first step leaves nothing in a folder that was empty or missing before.  Of several
    processes and a folder in a bucket the first one fills its working folder, the others have copies (`see`).

    Args:
        config: the command's options.
        devices: to train on.

    Yields:
        The same with the folder where this process finds it.

    Raises:
        InputError: another process trains there, or one of several that share this training is gone.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(devices.together())
        sending = stack.enter_context(contextlib.ExitStack())
        place, address = config.model_dir, written(config.model_dir)
        # Asked of all before any does what the others would wait for.
        devices.agree("model_dir, where it lies in a bucket,", address if is_bucket(place) else "")
        if is_bucket(place):
            place = devices.by_chief(lambda: sending.enter_context(filled(address, say=say))) or copied(address)
        folder = RunFolder(place)
        # Before anything is written there.
        devices.by_chief(lambda: stack.enter_context(hold(folder.path, say=say)))
        begun = folder.config.exists()
        try:
            yield config if place is config.model_dir else replace(config, model_dir=place)
            # All is in the bucket before any process says that it is done.
            devices.by_chief(sending.close)
            # Returns when all processes are done: the lock is held until then.
            devices.part()
        except InputError:
            # Refused before its first step: what was noted for it is no run.
            if devices.chief and not begun:
                folder.forget()
            raise


def labelled_sources(config: Any, *, several: bool = False) -> tuple[Source, Source]:
    """The images to learn from and to test on: `train_split` and `eval_split`; `several` as of `open_source`.

    Raises:
        InputError: one of them has no labels, or their classes differ.
    """
    splits, options = (config.train_split, config.eval_split), {"labelled": True, "several": several}
    train, test = (open_source(config, split, **options) for split in splits)
    same_classes(train, test)
    return train, test


def stem_warning(cifar_stem: bool, image_size: int) -> str:
    """What to say of a network whose first layers are for images of another size; nothing where they fit.

    Example:
        >>> stem_warning(True, 32), stem_warning(False, 224)
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


_SMALL = 32
"""Side of images, in pixels, up to which networks are built with the stem for small ones."""


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
    if strides is not None and (warning := stem_warning(tuple(strides) == (1, 1), image_size)):
        say(warning)


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


def encoder_name(config: Any) -> str:
    """How the encoder of a command was named that is no ResNet of ours: on its command line, or in the run it is of."""
    if config.encoder or config.checkpoint is None:
        return str(config.encoder)
    noted = RunFolder(config.checkpoint).architecture
    return str(read_json(noted).get("encoder", "")) if noted.is_file() else ""


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


def beside(checkpoint: Path) -> Path:
    """Where a command leaves what it makes of a checkpoint: in its run folder, else in the working directory."""
    return checkpoint if RunFolder(checkpoint).config.exists() else Path()


def check_images(network: keras.Model, image_size: int) -> None:
    """Refuses images of a size that an encoder of another kind was not made for.

    Raises:
        InputError: so it is.
    """
    sides = network.input_shape[1:3]
    fits = all(side in (None, image_size) for side in sides)
    check(
        fits,
        f"the network takes images of {sides[0]} × {sides[1]} pixels: give --image_size {sides[0]}",
        image_size=image_size,
    )


def splits_to_test(config: Any) -> list[str]:
    """Options by which `linear-eval` and `finetune` learn and test on the images of a training without labels.

    What is left out is what they take by themselves; nothing where no images to test on are known.

    Raises:
        LookupError: no images to test on are known.
    """
    # By what is there, not by what is usual: splits of prepared radiographs, shards, folders, sets.
    train, other = config.train_split, config.eval_split if hasattr(config, "eval_split") else None
    if other in (None, train) and config.radiographs is not None:
        other = "test" if train != "test" else "validation"
    elif other in (None, train) and config.image_dir is not None and opening.are_at(config.image_dir):
        there = opening.splits_in(config.image_dir)
        other = next((name for name in ("test", "validation") if name in there and name != train), None)
        if not there and train == "train":  # divided by content
            other = "test"
    elif other in (None, train) and config.image_dir is not None:
        there = folders.splits_of(config.image_dir, asked=[train])
        kinds = {folders.PARTS[name.lower()]: name for name in there if name != train}
        other = kinds.get("test", kinds.get("validation"))
        if not there and train.lower() in folders.PARTS:  # divided by content
            other = "test" if folders.PARTS[train.lower()] != "test" else "validation"
    elif other in (None, train):
        hub = is_hub(config.dataset)
        there = splits_of(config.dataset, data_dir=config.data_dir) if hub else list(sizes(data_set_folder(config)))
        other = next((name for name in ("test", "validation") if name in there and name != train), None)
        if other is None and train in there:
            # A tenth of the training images where there is nothing else.
            train, other = f"{train}[:90%]", f"{train}[90%:]"
    if other is None:
        raise LookupError("no split to test on is known")
    # Words that are the default need not be typed.
    words = ["--train_split", train] if train != "train" else []
    return [*words, "--eval_split", other] if other != "test" else words


def same_classes(train: Source, test: Source) -> None:
    """Refuses sources whose labels do not mean the same: what was learned as one class would be tested as another.

    Raises:
        InputError: the classes or their order differ.
    """
    differing = sorted(set(train.class_names) ^ set(test.class_names))
    rule = f"{train.origin} and {test.origin} must have the same classes"
    check(train.class_names == test.class_names, rule, differing=differing)


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


_POOLED = "final_avg_pool"
WHOLE = 1.0
"""Share of the shorter side that the transfer protocol keeps: all of it (SimCLR, Appendix B.8)."""


def load_features_network(config: LinearEval | Transfer) -> keras.Model:
    """The checkpoint's network from images to the features that are asked for.

    Raises:
        InputError: the checkpoint cannot be read, or has no such features.
    """
    whole = config.layer == _POOLED
    model = load_encoder(config.checkpoint, ema=config.ema) if whole else load_model(config.checkpoint, ema=config.ema)
    warn_of_stem(model, config.image_size)
    check_channels(model.input_shape[-1], config, what=str(config.checkpoint))
    if whole:
        return model
    flat = [name for name, output in model.output.items() if len(output.shape) == 2]
    check(config.layer in flat, f"layer must be one of {', '.join(flat)}", layer=config.layer)
    return keras.Model(model.input, model.output[config.layer], name="features")


@dataclass
class Extractor:
    """The features of one network, of any number of sources.

    Attributes:
        config: which features, and where they are kept.
        network: images to features `(n, d)`.
        label: what a line to the user calls it.
        unreadable: names of the images that could not be read, of all sources so far.
    """

    config: Probing
    network: keras.Model
    label: str = ""
    unreadable: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        # Once a network: the key of all its features.
        self.weights = weights_digest(self.network)
        self.cache = FeatureCache(self.config.cache_dir or cache_folder() / "features", say)

    def features(self, source: Source, *, image_size: int, crop_proportion: float | None = WHOLE) -> Features:
        """Features of every readable image, in the source's order."""
        seen: dict[str, Any] = {"image_size": image_size, "crop_proportion": crop_proportion}

        def compute() -> tuple[Features, list[str]]:
            unreadable = Unreadable()
            batches = evaluation_batches(source, batch_size=self.config.eval_batch_size, unreadable=unreadable, **seen)
            progress = Counter(f"features of {source.origin}{self.label}", source.num_examples)
            return extract(self.network, batches, progress=progress), unreadable.names

        # None: nobody can tell these images from others, so that nothing is kept.
        data = source_digest(source, say) if self.config.cache_features else None
        if data is None:
            found, unreadable = compute()
        else:
            key = {"weights": self.weights, "endpoint": self.config.layer, "data": data, **seen}
            found, unreadable = self.cache.fetch(
                key, compute, place=source.place, settled=lambda: source_digest(source, say) == data
            )
        self.unreadable += unreadable
        return found


class Counter(Line):
    """Tells how many images are done: one line redrawn on a terminal, elsewhere one at the end."""

    def __init__(self, what: str, total: int, *, out: TextIO | None = None):
        self.what, self.total, self.began = what, total, time.monotonic()
        super().__init__(out, now=self.began)

    def __call__(self, done: int) -> None:
        """Notes that so many are done."""
        now = time.monotonic()
        if done < self.total and not self.due(now):
            return
        seconds = now - self.began
        rate = done / max(seconds, 1e-9)
        if done >= self.total:
            self.keep(f"{self.what}: {done:,} in {seconds:,.0f} s ({rate:,.0f} images/s)")
            return
        left = (self.total - done) / rate
        self.draw(f"{self.what}: {done:,}/{self.total:,}, {rate:,.0f} images/s, {left:,.0f} s left", now=now)
