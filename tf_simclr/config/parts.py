"""Knobs that several commands share: data and encoder."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from tf_simclr.config.effects import RESNET, check_effect
from tf_simclr.config.ranges import check_ranges
from tf_simclr.errors import check, meant
from tf_simclr.files.places import Place, expand, hub_name
from tf_simclr.own.named import OF_LIBRARIES, application_names, is_named


class _Renaming(type):
    """Makes configurations that take options by the names that they had, too."""

    RENAMED: Mapping[str, str] = MappingProxyType({})

    def __call__(cls, **options: Any) -> Any:
        made = super().__call__(**{cls.RENAMED.get(name, name): value for name, value in options.items()})
        check_ranges(made)  # last: what a configuration says of a number itself is more to the point
        # Two sources are a contradiction in Python, too.  All options together are a copy, of which nobody typed any.
        if len(options) < len(fields(made)) and options.get("dataset", Images.dataset) != Images.dataset:
            check_effect(made, ["dataset"])
        return made


class Checked(metaclass=_Renaming):
    """End of the chain of `__post_init__`, by which each part of a configuration checks its own knobs.

    Every command's configuration has it, so that its paths are expanded before anything looks at them.
    """

    RENAMED: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Names that options had → what they are called now."""

    def __post_init__(self) -> None:
        expand(self)


@dataclass(frozen=True, kw_only=True)
class Images(Checked):
    """Where images come from."""

    dataset: str = "cifar10"
    """Any data set of TensorFlow Datasets, such as cifar10 or imagenet2012_subset/1pct; hf:user/name[:config] of the
    Hugging Face hub, which is downloaded once."""
    data_dir: Path | None = None
    """Folder of the data set; by default ~/tensorflow_datasets, or for hf: where HF_HOME says."""
    image_dir: Path | None = None
    """A folder of images instead; folders in it are classes.  Its splits are folders, too, such as train and test;
    one without splits is divided by its images' content.  Or shards: tar, TFRecord, ArrayRecord, Parquet, Arrow."""
    image_column: str | None = None
    """Column, feature or ending that holds the picture, where shards or a data set have several."""
    label_column: str | None = None
    """Column, feature, ending or key that holds the class, where none is found or several could be it."""
    validation_fraction: float | None = None
    """image_dir without splits: share of each class to test on; by default 0.2, or none where nothing is tested."""
    exif_orientation: bool = False
    """Turn images as their EXIF orientation says; the official code does not."""
    radiographs: Path | None = None
    """A folder made by `chest prepare` instead; its splits, which share no patient, are train, validation, test and
    all."""
    positive: str | None = None
    """radiographs: the class to tell from the rest; else all classes, where every image has exactly one."""
    split_seed: int = 0
    """Seed of the split of radiographs whose collection has none of its own, and of an image_dir without splits."""
    download: bool = False
    """Whether to download a data set that is not there."""
    image_size: int = 224
    """Side of the network's input in pixels; up to 32 the CIFAR stem is used."""
    cache: Literal["none", "resized"] = "none"
    """resized: every image is shrunk to cache_size once and kept on disk, where later runs find it by its content;
    reading then costs less CPU time, and small crops show less detail."""
    cache_size: int = 256
    """Pixels that the shorter side of a cached image has at most."""
    cache_format: Literal["jpeg", "raw"] = "jpeg"
    """How cached images are kept: JPEG of quality 90, 27 kB each at 256 px, or raw pixels, 260 kB, without loss."""

    def __post_init__(self) -> None:
        super().__post_init__()
        rule = "cache_size must be at least image_size, or all that the network sees would be enlarged"
        fits = self.cache == "none" or self.cache_size >= self.image_size
        check(fits, rule, cache_size=self.cache_size, image_size=self.image_size)
        given = [name for name in ("cache_size", "cache_format") if getattr(self, name) != getattr(Images, name)]
        rule = f"{' and '.join(given)} must be left out without --cache resized, which alone has such images"
        check(self.cache == "resized" or not given, rule, **{name: getattr(self, name) for name in given})
        one = self.image_dir is None or self.radiographs is None
        check(one, "images must come from image_dir or from radiographs, not both", image_dir=str(self.image_dir))
        columns = self.image_column is None and self.label_column is None
        rule = "image_column and label_column name columns of shards and data sets; radiographs have none"
        check(columns or self.radiographs is None, rule, radiographs=str(self.radiographs))
        named = self.positive is None or self.radiographs is not None
        check(named, "positive names a class of radiographs; give --radiographs, too", positive=self.positive)
        rule = "exif_orientation must be left out with radiographs: they are read as they were prepared"
        check(not self.exif_orientation or self.radiographs is None, rule, exif_orientation=True)
        share = self.validation_fraction
        rule = (
            "validation_fraction must be left out without image_dir: a data set has splits (train[:90%] and "
            "train[90%:] are parts of one), and radiographs are divided by patients"
        )
        divided = self.image_dir is not None or self.dataset.startswith("hf:")
        check(share is None or divided, rule, validation_fraction=share)


@dataclass(frozen=True, kw_only=True)
class Data(Images):
    """Where images to train on come from."""

    train_split: str = "train"
    """Split to train on, in TensorFlow Datasets' syntax: train, train[:10%], train+test."""


ENCODERS = ("encoder", "teacher_encoder")
"""Options that name an encoder."""
CODE = (*ENCODERS, "loss", "view")
"""Options that may name code of the user's own, `module:name`; it is run only if it stands on the command line."""


@dataclass(frozen=True, kw_only=True)
class OwnCode(Checked):
    """An encoder of another kind."""

    encoder: Place = ""
    """module:function that made the network of the checkpoint, where it has classes of its own: code that is run only
    if you name it."""
    channels: int = 0
    """Channels of the images, which the network must take: 3 RGB, 1 their luminance, 4 RGB and opacity, 2 luminance and
    opacity; 0: as many as the network takes, where that is 1 or 3."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_encoder(self.encoder)
        _check_channels(self.channels)


_CHANNELS = (0, 1, 2, 3, 4)
"""Of images as commands feed them: as the network takes them, grey, grey and opacity, RGB, RGBA."""
WITH_OPACITY = (2, 4)
"""Of these, those of which the opacity of pictures is one."""


def _check_channels(channels: int) -> None:
    """Refuses channels that no command can feed.

    Raises:
        InputError: so it is.
    """
    rule = (
        "channels must be 1 to 4: pictures are read as RGB, or with their opacity for 4, and made grey for 1 and 2; a "
        "network of more is trained in Python, and converted as any"
    )
    check(channels in _CHANNELS, rule, channels=channels)


def check_encoder(name: str) -> None:
    """Refuses words that name no encoder.

    Raises:
        InputError: so it is.
    """
    rule = (
        "encoder must be module:function, a .keras file, applications:NAME of keras.applications or keras_hub:PRESET; "
        "a ResNet is described by --resnet_depth and its other options"
    )
    known = name.split(":")[0] in OF_LIBRARIES and len(name.split(":", 1)[-1]) > 0 and ":" in name
    fits = not name or known or name.endswith(".keras") or is_named(name)
    near = "" if fits else meant(name, [f"applications:{one}" for one in application_names()])
    check(fits, f"{rule}{near}", encoder=name)


@dataclass(frozen=True, kw_only=True)
class Encoder(Checked):
    """The encoder: a ResNet, or another one."""

    encoder: Place = ""
    """Instead of a ResNet: module:function that makes a Keras model, a .keras file with its weights,
    applications:ConvNeXtTiny of keras.applications, or keras_hub:PRESET."""
    channels: int = 0
    """Channels of the images: 3 RGB, 1 their luminance, which is taken of the views, 4 RGB and opacity, 2 luminance and
    opacity; 0: as many as the checkpoint's run has, else 3."""
    resnet_depth: int = 50
    """Layers of the ResNet: 18, 34, 50, 101, 152 or 200."""
    width_multiplier: int = 1
    """Width of the ResNet, as a multiple: 1, 2, 3 or 4."""
    sk_ratio: float = 0.0
    """Selective kernels and ResNet-D, if above 0; SimCLRv2's best networks have 0.0625."""
    se_ratio: float = 0.0
    """Squeeze and excitation, if above 0, such as 0.0625."""
    batch_norm_decay: float = 0.9
    """Momentum of BatchNorm's moving statistics."""
    global_bn: bool = True
    """BatchNorm over all replicas (SimCLR, Section 2.2)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_encoder(self.encoder)
        _check_channels(self.channels)
        if self.encoder:
            set_here = [name for name in RESNET if getattr(self, name) != getattr(Encoder, name)]
            rule = f"{' and '.join(set_here)} must be left out with --encoder: these are options of a ResNet"
            check(not set_here, rule, encoder=self.encoder)


@dataclass(frozen=True, kw_only=True)
class Publishing(Checked):
    """Where a finished network goes besides the disk."""

    push_to: str | None = None
    """USER/NAME on the Hugging Face hub to send the network to, with a model card; needs the extra `hub` and a
    token."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.push_to is not None:
            object.__setattr__(self, "push_to", hub_name(self.push_to))


@dataclass(frozen=True, kw_only=True)
class Storage(Publishing):
    """What a training keeps in memory and on disk."""

    cache_dataset: bool = False
    """Keep the encoded images in memory."""
    checkpoint_epochs: int = 1
    """Epochs between two checkpoints."""
    checkpoint_steps: int = 0
    """Steps between two checkpoints instead, if above 0."""
    keep_checkpoint_max: int = 5
    """Checkpoints to keep, the newest; 0: all."""
    wandb: str | None = None
    """Weights & Biases project to report to."""
    mlflow: str | None = None
    """MLflow experiment to report to, on the server or in the folder that MLFLOW_TRACKING_URI names."""


@dataclass(frozen=True, kw_only=True)
class _Precision(Checked):
    """In which precision a step is computed."""

    mixed_precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """What the network computes in; weights, statistics and losses stay float32.  With float16 the loss is scaled."""


@dataclass(frozen=True, kw_only=True)
class Viewing(Checked):
    """Who makes what the network sees."""

    augment_on: Literal["auto", "host", "device"] = "auto"
    """Where views are made: device: the host only decodes, which takes it a fourth of the time, and pads images to one
    size (512 × 512 for 224 px; larger ones are shrunk to fit); auto: device where an accelerator trains, else host."""


@dataclass(frozen=True, kw_only=True)
class Supervision(Storage, Viewing, _Precision):
    """What training and testing with labels share."""

    labels_fraction: float = 1.0
    """Share of the training images whose labels are used, of each class the same."""
    augment: bool = True
    """Random crop and flip, as in the papers; without it the view that evaluation takes."""
    eval_split: str = "test"
    """Split to evaluate on."""
    eval_batch_size: int = 256
    """Images at a time."""
    eval_epochs: int = 0
    """Epochs between two evaluations; 0: only at the end.  The network kept is always the last one."""


@dataclass(frozen=True, kw_only=True)
class Optimization(Checked):
    """How long, with which optimizer, at which rate."""

    train_batch_size: int = 512
    """Images a step; the paper's best results have 4096."""
    train_epochs: int = 100
    """Passes over the data; the paper goes up to 1000."""
    train_steps: int = 0
    """Steps instead of epochs, if above 0."""
    learning_rate: float = 0.3
    """Rate for a batch of 256 (linear scaling; SimCLR, Section 2.3) or of one (sqrt scaling: 0.075, Appendix B.1)."""
    learning_rate_scaling: Literal["linear", "sqrt"] = "linear"
    """How the rate grows with the batch; sqrt is better for small batches and few epochs (Appendix B.1)."""
    warmup_epochs: float = 10
    """Epochs of linear warm-up before the cosine (Section 2.3)."""
    weight_decay: float = 1e-6
    """Weight decay (SimCLR, Section 2.3); SimCLRv2 has 1e-4 (Section 3.1)."""
    optimizer: Literal["lars", "momentum", "sgd", "adam", "adamw", "lamb"] = "lars"
    """momentum is TensorFlow 1's Nesterov, from which the paper's numbers come; sgd is Keras' (the TF2 code's)."""
    momentum: float = 0.9
    """Momentum of the optimizers lars, momentum and sgd."""


@dataclass(frozen=True, kw_only=True)
class Memory(_Precision):
    """How much of a batch is in memory, in which precision, and what is computed twice to keep less."""

    microbatch_size: int = 0
    """Most images of a replica that are in the network at once, with both views of each; 0: all. The loss sees the
    whole batch, BatchNorm one piece of it. Costs a second forward pass. Where XLA compiles, the batch must be a
    multiple of it."""
    remat: bool = False
    """Compute the activations of each residual block again in the backward pass instead of keeping them."""


@dataclass(frozen=True, kw_only=True)
class Monitoring(Checked):
    """What is watched."""

    knn_epochs: int = 10
    """Epochs between two tests of the features by nearest neighbours, if there are labels; 0: none."""
    knn_images: int = 2000
    """Images that such a test looks at: a fifth of them is classified by the rest; with eval_split, so many of its
    images by as many others of the training split."""
    eval_split: str | None = None
    """Split whose images are classified in the test by nearest neighbours; by default those of the training split that
    do not vote."""
    collapse_images: int = 128
    """Images whose projections show each epoch whether they collapse; 0: none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = self.collapse_images == 0 or self.collapse_images >= 2
        check(fits, "collapse_images must be 0 or at least 2", collapse_images=self.collapse_images)


@dataclass(frozen=True, kw_only=True)
class Placement(Checked):
    """The devices and how steps are run on them."""

    strategy: Literal["auto", "one", "mirrored", "multi_worker", "tpu", "data_parallel"] = "auto"
    """Devices that share each step: one; mirrored: all GPUs, else the CPU; multi_worker: the processes of the
    environment variable TF_CONFIG; tpu; data_parallel: all devices of JAX; auto looks and says what it found."""
    num_replicas: int = 0
    """Devices to take; 0: all.  A CPU is divided into as many logical ones."""
    tpu_name: str | None = None
    """Name or grpc address of the TPU, or local; by default what the environment says."""
    tpu_zone: str | None = None
    """The TPU's Google Cloud zone; by default that of this machine."""
    gcp_project: str | None = None
    """The TPU's Google Cloud project; by default that of this machine."""
    coordinator: str | None = None
    """host:port of the first of several processes of JAX that share the training, if not what the environment says
    (JAX_COORDINATOR_ADDRESS, torchrun, Slurm, Open MPI, Cloud TPU); auto: JAX looks for it."""
    num_processes: int | None = None
    """How many processes share the training, with coordinator."""
    process_id: int | None = None
    """Which of them this is, from 0 on; 0 runs where the coordinator is and writes."""
    steps_per_execution: int = 1
    """Steps between two looks at the metrics; more of them keep accelerators busy."""
    jit_compile: bool | None = None
    """Compile the step with XLA; None: as Keras does, on a single accelerator, and always with JAX."""
