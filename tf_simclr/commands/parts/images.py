"""The images of a command: the split that its options name, opened, looked at, and said."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tf_simclr.config.first_look import SPLITS, data_set_folder, sizes
from tf_simclr.config.parts import WITH_OPACITY, Images
from tf_simclr.data import folders, images
from tf_simclr.data.radiographs.settings import check_one_class
from tf_simclr.data.shards import opening
from tf_simclr.data.shards.hub import from_hub, here, is_hub, splits_of
from tf_simclr.data.shards.source import from_shards
from tf_simclr.data.sources import Source, from_folder, with_opacity
from tf_simclr.errors import check
from tf_simclr.files.contents import digests, silent
from tf_simclr.files.places import shown
from tf_simclr.terminal import say


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
        told_seed(source.origin, config.split_seed, drawn=partition.draws(known, split))
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
            opening.check_without_columns(config.image_dir, **columns)
            source = open_folder(config.image_dir, split, **options)
        divided = source.division is not None or config.validation_fraction is None
        rule = f"validation_fraction must be left out: {source.origin} has splits of its own"
        check(divided, rule, validation_fraction=config.validation_fraction)
        told_seed(source.origin, config.split_seed, drawn=source.division is not None)
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


def told_seed(origin: str, seed: int, *, drawn: bool) -> None:
    """Says of a `split_seed` that somebody has chosen that nothing is drawn by it, where that is so."""
    if seed and not drawn:
        say(f"without effect: split_seed={seed}; {origin} has splits of its own, or is taken whole")


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
    sides = source.sides if square else None
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


def labelled_sources(config: Any, *, several: bool = False) -> tuple[Source, Source]:
    """The images to learn from and to test on: `train_split` and `eval_split`; `several` as of `open_source`.

    Raises:
        InputError: one of them has no labels, or their classes differ.
    """
    splits, options = (config.train_split, config.eval_split), {"labelled": True, "several": several}
    train, test = (open_source(config, split, **options) for split in splits)
    same_classes(train, test)
    return train, test


def same_classes(train: Source, test: Source) -> None:
    """Refuses sources whose labels do not mean the same: what was learned as one class would be tested as another.

    Raises:
        InputError: the classes or their order differ.
    """
    differing = sorted(set(train.class_names) ^ set(test.class_names))
    rule = f"{train.origin} and {test.origin} must have the same classes" + ", in the same order" * (not differing)
    orders = {"here": train.class_names[:5], "there": test.class_names[:5]}
    check(train.class_names == test.class_names, rule, **({"differing": differing} if differing else orders))


def splits_to_test(config: Any) -> list[str]:
    """Options by which `linear-eval` and `finetune` learn and test on the images of a training without labels.

    What is left out is what they take by themselves; nothing where no images to test on are known.

    Raises:
        LookupError: no images to test on are known.
    """
    # By what is there, not by what is usual: splits of prepared radiographs, shards, folders, sets.
    train, other = config.train_split, config.eval_split if hasattr(config, "eval_split") else None
    root = config.image_dir or here(config.dataset)
    if other in (None, train) and config.radiographs is not None:
        other = "test" if train != "test" else "validation"
    elif other in (None, train) and root is not None and opening.are_at(root):
        there = opening.splits_in(root)
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
