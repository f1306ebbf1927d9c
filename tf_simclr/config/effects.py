"""Which options have an effect beside which others: one that has none where it stands is refused, not passed over.

A row of the table names options, when they have an effect, and what is said where they have none.  It holds for every
command that has them and the options that decide.  What a preset or a file sets is no contradiction, since nobody has
typed it there: it is said (`passed_over`), and the command goes on.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterator
from typing import Any

from tf_simclr.data.recipe import Augmentation
from tf_simclr.errors import check


@dataclasses.dataclass(frozen=True)
class Row:
    """Options of which all have an effect, or none.

    Attributes:
        names: the options.
        by: the options that decide; a command without one of them is not meant.
        holds: of a configuration, whether the options have an effect.
        why: what a person is told where they have none, behind their names.
        refused: whether they are refused there, or the command goes on and says it.
    """

    names: tuple[str, ...]
    by: tuple[str, ...]
    holds: Callable[[Any], Any]
    why: str
    refused: bool = True


def _absent(name: str) -> Callable[[Any], bool]:
    """Whether an option of a configuration is not given."""
    return lambda config: not getattr(config, name)


_SGD: tuple[str, ...] = ("train_batch_size", "train_epochs", "train_steps", "learning_rate", "learning_rate_scaling")
_SGD += ("warmup_epochs", "weight_decay", "optimizer", "momentum")
_TUNED = ("train_epochs", "train_batch_size", "learning_rate", "weight_decay", "augment", "mixed_precision")
RESNET = ("resnet_depth", "width_multiplier", "sk_ratio", "se_ratio")
"""Options that say what a ResNet is made of."""
_JITTER = ("brightness", "contrast", "saturation", "hue", "color_jitter_strength", "additive_brightness")
_VIEWS = tuple(field.name for field in dataclasses.fields(Augmentation))
WITHOUT_TEMPERATURE = ("margin_triplet", "hadsell")
"""Losses that divide similarities by nothing; a test compares them with `config.training.LOSSES`."""

ROWS = (
    # which images
    *(Row(("dataset",), (source,), _absent(source), f"with --{source}: both name the images; give one of them")
      for source in ("image_dir", "radiographs")),
    *(Row(("data_dir", "download"), (source, "dataset"), _absent(source),
        f"with --{source}: they are of --dataset's images, and these come from elsewhere", refused=False)
      for source in ("image_dir", "radiographs")),
    Row(("split_seed",), ("dataset", "image_dir", "radiographs"),
        lambda c: c.image_dir or c.radiographs or c.dataset.startswith("hf:"),
        "with a data set of TensorFlow Datasets, which has its splits: train[:90%] and train[90%:] are parts of one"),
    Row(("eval_split",), ("knn_epochs", "image_dir"),
        lambda c: c.knn_epochs > 0 or c.image_dir or c.dataset.startswith("hf:"),
        "with --knn_epochs 0: nothing is tested, and what has splits of its own leaves none out for it"),
    Row(("validation_fraction",), ("datasets", "image_dir"), lambda c: c.image_dir,
        "without --image_dir, whose data sets alone may have no splits"),
    Row(("image_column", "exif_orientation"), ("to", "image_dir", "samples"), lambda c: c.image_dir,
        "without --image_dir: made-up images are compared"),
    Row(("exif_orientation",), ("draws", "images"), lambda c: c.images, "without images: a picture of ours is drawn"),
    Row(("seed",), ("to", "image_dir", "samples"), lambda c: not c.image_dir,
        "with --image_dir: it is of made-up images"),
    # how long, and by which rule
    Row(("train_epochs",), ("train_steps",), lambda c: not c.train_steps,
        "with --train_steps: both say how long to train; give one of them"),
    Row(("pretrain_epochs",), ("pretrain_steps",), lambda c: not c.pretrain_steps,
        "with --pretrain_steps: both say how long to train; give one of them"),
    Row(("checkpoint_epochs",), ("checkpoint_steps",), lambda c: not c.checkpoint_steps,
        "with --checkpoint_steps: both say when to write; give one of them"),
    Row(("momentum",), ("optimizer",), lambda c: c.optimizer in ("lars", "momentum", "sgd"),
        "but with the optimizers lars, momentum and sgd, which alone have one"),
    # the method
    Row(("queue_length", "key_momentum"), ("method",), lambda c: c.method == "moco",
        "without --method moco, which alone has a queue and a second encoder"),
    Row(("temperature",), ("method", "loss"),
        lambda c: c.method == "moco" or c.loss not in WITHOUT_TEMPERATURE,
        "with this loss, which divides by none"),
    Row(("num_proj_layers",), ("proj_head_mode",), lambda c: c.proj_head_mode == "nonlinear",
        "without --proj_head_mode nonlinear: a linear head is one layer"),
    Row(("proj_out_dim",), ("proj_head_mode",), lambda c: c.proj_head_mode != "none",
        "with --proj_head_mode none: there is no head"),
    Row(_VIEWS, ("view",), lambda c: not c.view, "with --view, which makes the views instead of the augmentation"),
    Row(_JITTER, ("jitter_probability", "view"), lambda c: c.jitter_probability > 0,
        "with --jitter_probability 0: no colour is changed"),
    Row(("brightness", "contrast", "saturation", "hue"), ("color_jitter_strength", "view"),
        lambda c: c.color_jitter_strength > 0, "with --color_jitter_strength 0, which multiplies them"),
    Row(("knn_images",), ("knn_epochs",), lambda c: c.knn_epochs > 0, "with --knn_epochs 0: nothing is tested"),
    # the network
    Row(RESNET, ("frozen_layers", "checkpoint"), lambda c: not c.checkpoint,
        "with --checkpoint, whose network is taken"),
    Row(RESNET, ("teacher", "checkpoint"), lambda c: not c.checkpoint, "with --checkpoint, whose encoder is taken"),
    Row(RESNET, ("teacher", "self_distillation"), lambda c: not c.self_distillation,
        "with --self_distillation, by which the student has the teacher's encoder"),
    Row(("batch_norm_decay",), ("encoder", "labels_fraction"), lambda c: not c.encoder,
        "with --encoder, whose layers have their own"),
    Row(("resnet_depth",), ("checkpoint", "radiographs", "seeds"), lambda c: not (c.checkpoint or c.encoder),
        "with --checkpoint or --encoder, whose network is taken"),
    Row(("ema",), ("checkpoint",), lambda c: c.checkpoint or hasattr(c, "teacher"),
        "without --checkpoint, of which they are the averages"),
    Row(("labels_seed",), ("labels_fraction",), lambda c: c.labels_fraction < 1,
        "without a labels_fraction below 1: all labels count"),
    # which probe
    Row(_SGD, ("protocol",), lambda c: c.protocol == "sgd", "without --protocol sgd, which alone trains in steps"),
    Row(("l2_strengths",), ("protocol",), lambda c: c.protocol == "transfer",
        "without --protocol transfer, which alone has a logistic regression", refused=False),
    Row(("knn", "knn_temperature"), ("protocol",), lambda c: c.protocol != "sgd",
        "with --protocol sgd, by which no neighbours are looked for"),
    Row(("cache_dir",), ("cache_features",), lambda c: c.cache_features, "without --cache_features: nothing is kept"),
    # where it is computed
    Row(("num_replicas",), ("strategy",), 
        lambda c: c.strategy in ("auto", "mirrored", "data_parallel") or c.num_replicas in (0, c.strategy == "one"),
        "with this strategy, which says itself how many devices take part"),
    Row(("tpu_name", "tpu_zone", "gcp_project"), ("strategy",), lambda c: c.strategy in ("auto", "tpu"),
        "with this strategy, by which no TPU computes"),
    # the catalogue
    Row(("match",), ("remote",), _absent("remote"), "with --remote, all of whose folders are listed"),
    # a search
    Row(("seed",), ("method", "search"), lambda c: c.method != "grid",
        "with --method grid, which takes combinations as they come; the seed of trials is an option in the plan"),
    # radiographs
    Row(("boxless_siblings",), ("source", "raw"), lambda c: c.source == "siim", "without --source siim"),
    Row(("path_column", "label_column", "label_columns", "patient_column"), ("source", "raw"),
        lambda c: c.source == "csv", "without --source csv, whose table has such columns"),
    Row(("label_column",), ("label_columns",), lambda c: not c.label_columns,
        "with --label_columns: both say where the classes are; give one of them"),
    Row(("patients", "seed"), ("source", "raw"), lambda c: c.source in ("synthetic",),
        "without --source synthetic: nothing is made up"),
    Row(("adapted", "scratch", "tuning_epochs", "tuning_seeds"), ("study",), lambda c: c.study != "table",
        "with --study table: it is of what goes beyond"),
    Row(("direct", "unfreeze"), ("study",), lambda c: c.study != "table",
        "with --study table: it is of what goes beyond", refused=False),
    Row(("moco_queue", "moco_momentum"), ("moco",), lambda c: c.moco, "without --moco"),
    Row(("l2_strengths",), ("ways",), lambda c: "linear" in c.ways, "without the way linear"),
    Row(_TUNED, ("ways",), lambda c: "finetune" in c.ways, "without the way finetune: nothing trains in steps"),
    Row(("at_least",), ("operating_point",), lambda c: c.operating_point != "youden",
        "with --operating_point youden, which asks for no least"),
    Row(("split_seed",), ("split", "others"), lambda c: c.split != "all", "with --split all: nothing is divided"),
    Row(("seed",), ("shuffle",), lambda c: c.shuffle, "without --shuffle, of which it is"),
)  # fmt: skip
"""Every option that has an effect only beside others, but for those whose own part of a configuration says so."""


def without(config: Any, names: Collection[str]) -> Iterator[tuple[tuple[str, ...], Row]]:
    """Yields which of some options have no effect in a configuration, those of a row together, and the row."""
    for row in ROWS:
        idle = tuple(name for name in row.names if name in names and _says_something(config, name))
        if idle and all(hasattr(config, name) for name in row.by) and not row.holds(config):
            yield idle, row


def _says_something(config: Any, name: str) -> bool:
    """Whether an option that is given can contradict others: one that is off, as it would be, does not."""
    known = {field.name: field.default for field in dataclasses.fields(config)}
    return name in known and (getattr(config, name) is not False or known[name] is True)


def check_effect(config: Any, typed: Collection[str]) -> None:
    """Refuses options that were typed where they have no effect.

    Args:
        config: of any command, with all its options.
        typed: those that somebody has typed.

    Raises:
        InputError: so it is.
    """
    for idle, row in without(config, typed):
        rule = f"{' and '.join(idle)} must be left out {row.why}"
        check(not row.refused, f"{rule}. Received: {_values(config, idle)}")


def _values(config: Any, names: Collection[str]) -> str:
    """Options and their values, for people."""
    return ", ".join(f"{name}={getattr(config, name)}" for name in names)


def passed_over(config: Any, *, typed: Collection[str]) -> list[str]:
    """What to say of options without effect that are not refused: a preset or a file sets them, or their row says so.

    Args:
        config: with all its options.
        typed: those that somebody has typed.
    """
    usual = {field.name: field.default for field in dataclasses.fields(config)}
    changed = [name for name in usual if getattr(config, name) != usual[name]]
    return [
        f"without effect {row.why}: {_values(config, others)}"
        for idle, row in without(config, {*changed, *typed})
        if (others := [name for name in idle if name not in typed or not row.refused])
    ]
