"""Knobs of the commands that test features, and of those that look, list, download and prepare."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from tf_simclr.config.options import HIDDEN, POSITIONAL
from tf_simclr.config.parts import Checked, Data, Images, Optimization, OwnCode, Publishing, Viewing, check_encoder
from tf_simclr.errors import check
from tf_simclr.files.places import Place
from tf_simclr.own.named import is_code


@dataclass(frozen=True, kw_only=True)
class _Given(OwnCode):
    """A network that is looked at as it is."""

    checkpoint: Path
    """A run, a checkpoint of any kind, an official name (`checkpoints list`) or hf://user/repo."""
    ema: bool = False
    """Take the moving averages, where a checkpoint has them."""


@dataclass(frozen=True, kw_only=True)
class Probing(_Given):
    """Which features, and how they are tested."""

    RENAMED: ClassVar = {"endpoint": "layer"}

    layer: str = "final_avg_pool"
    """Features to test: final_avg_pool, or proj_1, proj_2 … of the projection head."""
    eval_batch_size: int = 256
    """Images at a time."""
    l2_strengths: int = 45
    """Strengths from 1e-6 to 1e5 to choose from, evenly spaced in their logarithm; the paper has 45."""
    cache_features: bool = True
    """Keep the features on disk, so that the next probe of the same network on the same images takes seconds."""
    cache_dir: Path | None = None
    """Where features are kept; by default ~/.cache/tf_simclr/features, which may be removed at any time."""
    seed: int = 0
    """Seed of the validation split, the random weights, the order of the images and the intervals."""


@dataclass(frozen=True, kw_only=True)
class LinearEval(Data, Optimization, Viewing, Probing):
    """Tests frozen features by logistic regression, nearest neighbours or a classifier trained by SGD."""

    protocol: Literal["transfer", "sgd", "knn"] = "transfer"
    """transfer: logistic regression by L-BFGS on features of the centre crop (SimCLR, Appendix B.8), and nearest
    neighbours; knn: these alone; sgd: the official code's classifier on augmented images (Appendix B.6)."""
    train_split: str = "train"
    """Split that the probes learn from; a tenth of it, drawn by the seed, chooses the L2 strength."""
    eval_split: str = "test"
    """Split to evaluate on."""
    knn: int = 200
    """Neighbours that vote (arXiv:1805.01978, Section 3.4)."""
    knn_temperature: float = 0.07
    """Temperature of the neighbours' votes."""
    train_epochs: int = 90
    """protocol sgd: passes over the images (Appendix B.6)."""
    learning_rate: float = 0.1
    """protocol sgd: rate for a batch of 256 (Appendix B.6)."""
    warmup_epochs: float = 0
    """protocol sgd: epochs of linear warm-up (Appendix B.6)."""
    weight_decay: float = 0.0
    """protocol sgd: weight decay, of which the paper has none (Appendix B.6)."""
    optimizer: Literal["lars", "momentum", "sgd", "adam"] = "momentum"
    """protocol sgd: momentum is TensorFlow 1's Nesterov, lars is as good (Appendix B.6), sgd is Keras'."""
    untrained: bool = True
    """Test the same network with random weights, too."""
    raw_pixels: bool = False
    """Test the image itself, too, averaged down to 16 pixels a side."""
    figures: Path | None = None
    """Folder for a map of the test images' features (t-SNE) and the nearest training images of some of them."""
    result: Path | None = None
    """File for the numbers; by default linear_eval.json (linear_eval_sgd.json, linear_eval_knn.json) in the run folder,
    else in the working directory."""

    def __post_init__(self) -> None:
        super().__post_init__()
        rule = "augment_on must be left out but with --protocol sgd, which alone augments"
        check(self.protocol == "sgd" or self.augment_on == "auto", rule, augment_on=self.augment_on)


@dataclass(frozen=True, kw_only=True)
class Transfer(Probing):
    """Tests frozen features on the data sets of SimCLR's Table 8, each with its splits and metric (Appendix B.8)."""

    datasets: str = "all"
    """Names with commas between them: food101, cifar10, cifar100, birdsnap, sun397, cars196, aircraft, voc2007, dtd,
    pets, caltech101, flowers102; all: those that TensorFlow Datasets has."""
    data_dir: Path | None = None
    """Folder of TensorFlow Datasets, if not ~/tensorflow_datasets."""
    image_dir: Path | None = None
    """Folder with data sets of your own, which come first: cars196/train/CLASS/…, cars196/test/CLASS/… in it; one
    without splits is divided by its images' content."""
    validation_fraction: float | None = None
    """Share of each class to test on, of data sets without splits; by default 0.2."""
    exif_orientation: bool = False
    """Turn images as their EXIF orientation says; the official code does not."""
    download: bool = False
    """Whether to download data sets that are not there."""
    image_size: int = 224
    """Side of the network's input in pixels; the paper has 224 for all sets, small pictures are enlarged."""
    result: Path | None = None
    """Folder for the numbers, a file per data set: what is finished in it is not computed again; by default transfer in
    the run folder, else in the working directory."""


@dataclass(frozen=True, kw_only=True)
class Compare(Checked):
    """Prints evaluations side by side, with paired differences from the first, and draws them."""

    runs: Annotated[tuple[Path, ...], POSITIONAL] = ()
    """Run folders, or results of evaluations (*.json); the others are compared with the first."""
    figures: Path | None = None
    """Folder for figures: confusion matrices, and for two classes ROC, precision-recall and reliability."""
    seed: int = 0
    """Seed of the intervals."""


@dataclass(frozen=True, kw_only=True)
class Sweep(Checked):
    """Searches options of another command; the plan is a JSON file with its own options: `--config sweep.json`."""

    task: str = "finetune"
    """Command whose options are searched."""
    model_dir: Path = Path("runs/sweep")
    """Folder for the search, with a run folder per trial; the same command goes on where it was stopped."""
    options: Annotated[dict[str, Any], HIDDEN] = field(default_factory=dict)
    search: Annotated[dict[str, Any], HIDDEN] = field(default_factory=dict)
    final: Annotated[dict[str, Any], HIDDEN] = field(default_factory=dict)
    metric: str = "top1.accuracy"
    """What to maximise in a trial's result.json, names with dots between them; it must come from validation images."""
    method: Literal["grid", "random", "tpe"] = "grid"
    """Every combination, combinations at random, or where Parzen estimators expect most (Optuna)."""
    trials: int = 0
    """How many trials; 0: all combinations of a grid, else 20."""
    seed: int = 0
    """Seed of the search; trials have an option of their own for theirs."""
    encoder: Place = ""
    """Encoder of all trials, as their command takes it.  Code that the plan names (encoder, loss, view) runs only if
    you name it or its module here, too."""
    loss: str = ""
    """Loss of all trials, likewise: module:Class."""
    view: str = ""
    """View of all trials, likewise: module:function."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_encoder(self.encoder)
        for name in ("loss", "view"):
            value = getattr(self, name)
            check(not value or is_code(value), f"{name} must have the form module:name", **{name: value})


@dataclass(frozen=True, kw_only=True)
class Export(_Given, Publishing):
    """Writes a network for another runtime, and puts the file in place if it answers there as the network does here."""

    RENAMED: ClassVar = {"endpoints": "layer", "endpoint": "layer"}

    to: Literal["keras", "savedmodel", "onnx", "tflite", "tflite-int8"] = "savedmodel"
    """Format; onnx and tflite need the extra `export`."""
    out: Path | None = None
    """File or folder to write; by default beside the run, or in the working directory, under the checkpoint's name."""
    layer: str = ""
    """Which outputs, with commas between them; by default final_avg_pool, and logits_sup where there is one."""
    image_size: int = 224
    """Side of the images that onnx and tflite are made for, and of those that are compared."""
    resize: bool = False
    """Whether the file takes images of any size, and makes of them what evaluation sees: the central crop, bicubic."""
    uint8: bool = False
    """Whether images are bytes of 0 to 255 instead of numbers in [0, 1]."""
    image_dir: Path | None = None
    """Images for the comparison and for the ranges of int8; by default made-up ones, with which int8 rarely passes."""
    image_column: str | None = None
    """image_dir of shards: column, feature or ending that is the picture, where there are several."""
    exif_orientation: bool = False
    """Turn images as their EXIF orientation says."""
    samples: int = 64
    """How many images are compared."""
    seed: int = 0
    """Seed of made-up images."""


@dataclass(frozen=True, kw_only=True)
class Embed(Images, _Given):
    """Writes the features of every image of a folder or a data set to one file, with the images' names."""

    RENAMED: ClassVar = {"train_split": "split"}

    layer: str = "final_avg_pool"
    """Which features: final_avg_pool, proj_1, proj_2 … of the projection head, or logits_sup."""
    split: str = "train"
    """Split whose images are taken, in TensorFlow Datasets' syntax: train, train[:10%], train+test."""
    out: Path = Path("features.npz")
    """File to write: .npz (values, names, labels) or .parquet (columns name, label, features)."""
    eval_batch_size: int = 256
    """Images at a time."""

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = self.out.suffix in (".npz", ".parquet")
        check(fits, "out must end in .npz or .parquet", out=str(self.out))


@dataclass(frozen=True, kw_only=True)
class PrepareShards(Checked):
    """Makes shards of a folder of images, or of other shards: splits, classes and the pictures' bytes stay."""

    image_dir: Path
    """A folder of images, or of shards."""
    out: Path
    """Folder for the shards, which must not be there yet; what was stopped goes on."""
    format: Literal["tar", "tfrecord", "parquet", "arrayrecord"] = "tar"
    """tar: WebDataset's; parquet: as Hugging Face's data sets have it; arrayrecord: as Grain reads it."""
    shard_size: int = 256
    """MiB of pictures in a shard at most."""
    seed: int = 0
    """Seed of the order of each split's images."""
    image_column: str | None = None
    """image_dir of shards: column, feature or ending that is the picture, where there are several."""
    label_column: str | None = None
    """image_dir of shards: column, feature, ending or key that is the class."""


@dataclass(frozen=True, kw_only=True)
class CheckpointsList(Checked):
    """Lists the official checkpoints: network, accuracy, what the classifier reads, and addresses."""

    match: str = ""
    """Only names with this text in them, such as pretrained/r50; if that is one alone, everything that is known of
    it."""
    remote: str = ""
    """A gs:// folder of a bucket whose content is listed instead, such as gs://simclr-checkpoints/simclrv2."""

    def __post_init__(self) -> None:
        super().__post_init__()
        address = not self.remote or self.remote.startswith("gs://")
        check(address, "remote must be an address such as gs://simclr-checkpoints/simclrv2", remote=self.remote)


@dataclass(frozen=True, kw_only=True)
class CheckpointsGet(Checked):
    """Downloads an official checkpoint, whole or not at all: goes on where it was stopped, and compares checksums."""

    name: Annotated[str, POSITIONAL]
    """One of `checkpoints list`, or a gs:// address of another one."""
    tf2: bool = False
    """The TF2 SavedModel instead of the TF1 checkpoint."""
    cache_dir: Path | None = None
    """Where it is kept, by default in ~/.cache/tf_simclr; the folder may be removed at any time."""


@dataclass(frozen=True, kw_only=True)
class CheckpointsConvert(CheckpointsGet):
    """Downloads an official checkpoint, unless it is there, and converts it, with proof, as `converters.tf2torch`."""

    target: Annotated[Path | None, POSITIONAL] = None
    """File or folder to write; by default in the working directory, named as the checkpoint."""
    to: str | None = None
    """Format: pth, safetensors, huggingface, tf1, tf2, savedmodel, keras or h5; by default as the target's ending
    says."""
    naming: str | None = None
    """Names to write, such as twin, torchvision or tonylins; by default what the format has."""
    part: Literal["encoder", "encoder+projection", "all"] = "all"
    """What to convert."""
    ema: bool = False
    """Take the moving averages of encoder and projection head."""
    selector: int | None = None
    """Projection layer that feeds the classifier; by default as the stored graph says, else as the catalogue does."""
    verify: bool = True
    """Compare every weight and every endpoint of what was written with the source's."""


@dataclass(frozen=True, kw_only=True)
class Demo(Checked):
    """Pretrains on scikit-learn's digits, tests, converts to PyTorch and draws: the whole line in minutes."""

    image_size: ClassVar = 32
    """Side of the network's input in pixels."""

    model_dir: Path = Path("runs/demo")
    """Run folder; what is there already is not done again."""
    train_epochs: int = 20
    """Passes over the 1,437 training images."""
    labels_per_class: int = 10
    """Labels that a probe learns from."""
    label_draws: int = 10
    """How often those labels are drawn anew."""
    seed: int = 0
    """Seed of everything random."""


@dataclass(frozen=True, kw_only=True)
class Doctor(Checked):
    """Looks at this machine: versions, devices, what each framework sees, free disk, a training of two steps.

    The exit code is 1 where something would keep a training from running, or from using an accelerator.
    """

    train: bool = True
    """Train for two steps, too."""
    json: bool = False
    """Print JSON, for a report of a problem or another program."""
    seconds: float = 300
    """Longest time for a framework to load, and for the training."""
