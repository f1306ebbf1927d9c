"""Knobs of the commands for chest radiographs.  For research, not for diagnosis."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from tf_simclr.config.options import HIDDEN, POSITIONAL
from tf_simclr.config.parts import Checked, OwnCode
from tf_simclr.data.radiographs import MODALITIES, Fit
from tf_simclr.errors import check
from tf_simclr.files.places import Place


@dataclass(frozen=True, kw_only=True)
class _OwnEncoder(OwnCode):
    """An encoder of another kind, which takes radiographs as it needs them: in three equal channels, or in one."""

    encoder: Place = ""
    """Without a checkpoint: an encoder with random weights instead of a ResNet, named as `pretrain` takes it; with one:
    module:function that made it, where it has classes of its own."""
    channels: Annotated[int, HIDDEN] = 0


@dataclass(frozen=True, kw_only=True)
class _OwnModel(_OwnEncoder):
    """A model whose encoder may be of any kind."""

    encoder: Place = ""
    """What made the model's encoder, where it has more than plain layers of Keras: module:function or keras_hub:PRESET;
    code is run only if you name it."""
    model: Path
    """A run of `chest covid`, `chest ards` or `chest findings`, or the folder of the model in it."""


@dataclass(frozen=True, kw_only=True)
class ChestPrepare(Checked):
    """Turns radiographs (DICOM, PNG, JPEG) into records once, with a report; no epoch touches a DICOM again."""

    raw: Annotated[Path, POSITIONAL]
    """Folder of the collection; of a csv collection the file."""
    out: Annotated[Path, POSITIONAL]
    """Folder for the records; the same command goes on where it was stopped."""
    source: Literal["siim", "nih", "chexpert", "folder", "csv", "synthetic"] = "folder"
    """siim: SIIM-FISABIO-RSNA COVID-19; nih: ChestX-ray14; chexpert: CheXpert; folder: classes are folders;
    csv: columns path, label and patient; synthetic: made-up ones in SIIM's layout, written to RAW first where it is
    empty."""
    size: int = 224
    """Side of the squares that are kept, in pixels; the COVID-19 study had 64."""
    fit: Fit = "stretch"
    """How a radiograph becomes square: sides scaled apart (as the study did), black bars, or its centre."""
    windowed: bool = True
    """Apply a DICOM's own window or VOI LUT; otherwise the full range of its stored bits."""
    modalities: tuple[str, ...] = MODALITIES
    """DICOM modalities to read: computed and digital radiography and film; others, such as OT, only if named; any:
    all."""
    boxless_siblings: bool = True
    """siim: keep images without boxes of studies that have another image with boxes."""
    path_column: str = "path"
    """csv: column with the file, beside the csv file or absolute."""
    label_column: str = "label"
    """csv: column with the class; a|b means both."""
    label_columns: tuple[str, ...] = ()
    """csv: columns that are a finding each instead: 1, 0, -1 where it is uncertain, empty where it is not mentioned."""
    patient_column: str = "patient"
    """csv: column with the patient, without which no honest split is possible; empty: the DICOMs name theirs."""
    workers: int = 0
    """Processes that decode; 0: as many as there are cores."""
    seconds: float = 60.0
    """Longest time for one image; one that takes longer is refused."""
    patients: int = 120
    """synthetic: how many are made up."""
    seed: int = 0
    """synthetic: seed of everything in them."""


@dataclass(frozen=True, kw_only=True)
class ChestCovid(_OwnEncoder):
    """The COVID-19 study: a small head on a frozen SimCLR encoder, as it was, and with patients kept apart."""

    RENAMED: ClassVar = {"data": "radiographs", "random_baseline": "untrained"}

    radiographs: Place = "synthetic"
    """A folder of `chest prepare`, or synthetic: made-up radiographs, to see the whole path."""
    checkpoint: Path | None = None
    """A run, a checkpoint of any kind, an official name (`checkpoints list`) or hf://user/repo;
    without one an untrained ResNet-50 is tested.  The study's is simclrv2/finetuned_100pct/r50_1x_sk0."""
    study: Literal["table", "beyond", "all"] = "table"
    """table: the study's six rows; beyond: larger inputs, LARS, unfrozen groups, from scratch, four classes; all: both.
    beyond trains whole networks, which takes a GPU."""
    positive: str = "Typical Appearance"
    """Class of the collection that the head learns to recognise, such as Pneumonia of NIH."""
    model_dir: Path = Path("runs/covid")
    """Folder for the result, the figures, and the model that `chest app` opens; finished trainings are kept in `fits`,
    so that the same command goes on where it was stopped."""
    pixels: int = 64
    """Side in pixels to which radiographs are shrunk first, as in the study; at most the side at which they were
    prepared."""
    image_size: int = 224
    """Side in pixels to which they are then enlarged for the encoder."""
    seeds: int = 3
    """How often splits and heads are drawn anew."""
    seed: int = 0
    """The first seed."""
    test_share: float = 934 / 6334
    """Share of the images to test on; the study had 934 of 6,334."""
    optimizer: Literal["sgd", "lars"] = "sgd"
    """Optimizer of the head; the study had SGD, and named LARS as future work."""
    learning_rate: float | None = None
    """Learning rate of all that trains; by default 0.01 for SGD, which is Keras' default and was the study's, and 0.1
    for LARS."""
    train_batch_size: int = 32
    """Images a step, Keras' default."""
    eval_batch_size: int = 64
    """Images at a time through the encoder."""
    untrained: bool = True
    """Test an encoder with random weights, too."""
    ema: bool = False
    """Take the moving averages, where a checkpoint has them."""
    adapted: Path | None = None
    """beyond: an encoder that went on with SimCLR on radiographs; the command that makes one is printed."""
    direct: tuple[int, ...] = (224, 512)
    """beyond: sides at which the encoder sees radiographs as they were prepared, as far as they have so many pixels."""
    unfreeze: tuple[int, ...] = (3, 2, -1)
    """beyond: block groups up to this one stay frozen, the others train: 3, 2 and 1, 0 the stem alone, -1 none."""
    scratch: bool = True
    """beyond: train the same network from random weights, too."""
    tuning_epochs: int = 10
    """beyond: passes over the images where the encoder trains."""
    tuning_seeds: int = 1
    """beyond: seeds where the encoder trains."""
    cache_dir: Path = Path("~/.cache/tf_simclr/features")
    """Where features are kept; the folder may be removed at any time."""

    def __post_init__(self) -> None:
        super().__post_init__()
        rate = self.learning_rate
        check(rate is None or rate > 0, "learning_rate must be above 0", learning_rate=rate)


@dataclass(frozen=True, kw_only=True)
class ChestArds(_OwnEncoder):
    """Eight stages from an encoder to a report: SimCLR on radiographs, fine-tuning, a search, a test beside other ways.

    The same command goes on where it was stopped; --stage runs one of them alone.
    """

    stage: Literal["all", "initial", "pretrain", "linear", "finetune", "grid", "evaluate", "compare", "report"] = "all"
    """All eight, or one alone, which needs those before it."""
    radiographs: Place = "synthetic"
    """A folder of `chest prepare`, or synthetic: made-up radiographs, to see the whole path."""
    positive: str | None = None
    """Class to tell from the rest, such as ARDS, or Pneumonia of NIH; synthetic has Typical Appearance."""
    pretrain_radiographs: Path | None = None
    """Another prepared folder to pretrain on, such as ChestX-ray14, without the patients to choose by or to test on; by
    default the training patients of the same folder."""
    split_seed: int = 0
    """Seed of the split by patient, where the collection has none of its own."""
    checkpoint: Path | None = None
    """Encoder to begin with, of any kind that converters reads, such as an official ImageNet SimCLR; none: from
    scratch."""
    ema: bool = False
    """Take the moving averages, where a checkpoint has them."""
    model_dir: Path = Path("runs/ards")
    """Folder for all stages, one folder each; the same command goes on where it was stopped."""
    image_size: int = 96
    """Side of the network's input in pixels; the papers have 224."""
    resnet_depth: int = 18
    """18, 34, 50, 101, 152 or 200, from scratch; the papers have 50 and more.  A checkpoint has its own."""
    pairs: Literal["image", "patient"] = "image"
    """What SimCLR and MoCo take as a positive pair: two views of an image, or of two images of a patient where there
    are several (MICLe, arXiv:2101.05224)."""
    pretrain_epochs: int = 100
    """Passes over the radiographs without labels; SimCLR's best results have 1000."""
    pretrain_steps: int = 0
    """Steps instead of epochs, if above 0."""
    pretrain_batch_size: int = 64
    """Images a step; at most as many as there are."""
    pretrain_learning_rate: float = 0.075
    """Rate of LARS, times the square root of the batch (SimCLR, Appendix B.1)."""
    temperature: float = 0.2
    """Temperature of the contrastive loss."""
    moco: bool = True
    """Compare with MoCo v2 on the same radiographs for as many steps."""
    moco_queue: int = 0
    """Keys in MoCo's queue; 0: half as many as there are radiographs, so that few are of the query's own image, at
    most 65,536 (arXiv:1911.05722, Section 4.1)."""
    moco_momentum: float = 0.99
    """Momentum with which MoCo's second encoder follows the first; the paper's 0.999 is for hundreds of thousands of
    steps."""
    finetune_epochs: int = 20
    """Passes over the radiographs in the fine-tuning before the search."""
    finetune_learning_rate: float = 0.1
    """Rate of the fine-tuning before the search, for a batch of 256; it grows with the batch."""
    finetune_batch_size: int = 32
    """Images a step of fine-tuning and of training from scratch."""
    grid_learning_rates: tuple[float, ...] = (0.05, 0.2)
    """Rates to search, for a batch of 256."""
    grid_weight_decays: tuple[float, ...] = (1e-4,)
    """Weight decays to search."""
    grid_epochs: tuple[int, ...] = (10, 30)
    """Lengths to search."""
    seeds: int = 3
    """Trainings of each way in the comparison, with what the search has chosen for it."""
    mixed_precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """What the networks compute in."""
    seed: int = 0
    """The first seed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("grid_learning_rates", "grid_weight_decays", "grid_epochs"):
            check(len(getattr(self, name)) > 0, f"{name} must have at least one value", **{name: getattr(self, name)})
        check(self.image_size >= 32, "image_size must be at least 32", image_size=self.image_size)
        named = self.positive is not None or self.radiographs == "synthetic"
        check(named, "positive must name the class to tell from the rest; the preparation's report lists them")


@dataclass(frozen=True, kw_only=True)
class ChestExplain(_OwnModel):
    """Explains what a model says of radiographs: probability, heat map with its checks, nearest training cases."""

    images: Annotated[tuple[Path, ...], POSITIONAL]
    """DICOM, PNG or JPEG files."""
    finding: str = ""
    """Finding to draw, where the model has several; by default the likeliest.  Numbers are given for all."""
    out: Path = Path("explained")
    """Folder for a figure and a JSON file per image; those of the same name are replaced."""
    neighbours: int = 5
    """Training cases to show, at most one of each patient."""
    shuffle: bool = True
    """Also check whether the heat map changes when the network's weights are shuffled, at the cost of one map per
    block."""
    seed: int = 0
    """Seed of the shuffling."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(len(self.images) > 0, "images must name at least one file")
        names = [path.stem for path in self.images]
        check(len(set(names)) == len(names), "images must have different names, since results are named after them")


@dataclass(frozen=True, kw_only=True)
class ChestApp(_OwnModel):
    """Serves a page on this machine that reads one radiograph at a time; nothing is stored or sent anywhere."""

    host: str = "127.0.0.1"
    """Address to listen on; any other than 127.0.0.1 lets other machines in, unencrypted and without a password."""
    origin: str = ""
    """Address of a proxy before the page, as browsers see it: https://page.hospital.example (docs/page-security.md)."""
    port: int = 7860
    """Port to listen on; 0: any that is free."""
    max_megabytes: int = 64
    """Largest file that is accepted."""
    all_megabytes: int = 512
    """Size of all files that are in memory at a time; whoever comes later waits."""
    places: int = 64
    """Files that may wait at a time; the next one is told to come back in a minute."""
    decoders: int = 2
    """Files that are decoded at a time, each in a process of its own with limits of time and memory."""
    neighbours: int = 5
    """Training cases to show, at most one of each patient."""

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = self.max_megabytes <= self.all_megabytes <= 16384
        check(fits, "all_megabytes must be between max_megabytes and 16384", all_megabytes=self.all_megabytes)


@dataclass(frozen=True, kw_only=True)
class ChestFindings(_OwnEncoder):
    """Tells several findings of a radiograph, such as NIH's fourteen: on frozen features and fine-tuned, with a report.

    The collection's own split is taken where it has one (NIH's train_val_list.txt and test_list.txt), else patients are
    drawn.  Choices are made on validation patients; test patients are asked about once.  The same command goes on where
    it was stopped.
    """

    RENAMED: ClassVar = {"data": "radiographs"}

    radiographs: Place = "synthetic"
    """A folder of `chest prepare`, or synthetic: made-up radiographs, to see the whole path."""
    checkpoint: Path | None = None
    """A run, a checkpoint of any kind, an official name (`checkpoints list`) or hf://user/repo;
    none: an untrained ResNet."""
    ema: bool = False
    """Take the moving averages, where a checkpoint has them."""
    ways: tuple[Literal["linear", "finetune"], ...] = ("linear",)
    """linear: a logistic regression a finding on frozen features; finetune: all of the network trains."""
    untrained: bool = True
    """Do the same with random weights of the same network."""
    findings: tuple[str, ...] = ()
    """Classes to tell; by default all but No Finding and its like."""
    uncertain: Literal["ignore", "ones", "zeros"] = "ignore"
    """What an uncertain label (-1 of CheXpert) counts as: nothing, present, absent.  Test images always ignore it."""
    not_mentioned: Literal["zeros", "ignore"] = "zeros"
    """What an empty label counts as: absent, or nothing."""
    labels_fractions: tuple[float, ...] = (1.0,)
    """Shares of the patients whose labels are learned and chosen from, each with its own fits: 0.01 0.1 1."""
    seeds: int = 1
    """How many times the patients of a share are drawn, and the networks trained."""
    model_dir: Path = Path("runs/findings")
    """Folder for the report, the numbers, the fits and the model that `chest evaluate` asks."""
    image_size: int = 224
    """Side of the network's input in pixels."""
    resnet_depth: int = 50
    """18, 34, 50, 101, 152 or 200, where no checkpoint is given."""
    l2_strengths: int = 12
    """linear: strengths from 1e-4 to 1e5 to choose from by the mean AUC on validation patients."""
    train_epochs: int = 30
    """finetune: passes over the images."""
    train_batch_size: int = 64
    """finetune: images a step; at most as many as there are."""
    learning_rate: float = 0.05
    """finetune: rate for a batch of 256; it grows with the batch."""
    weight_decay: float = 1e-4
    """finetune: decay of the weights."""
    augment: bool = True
    """finetune: random crops and flips."""
    mixed_precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """What networks that train compute in."""
    eval_batch_size: int = 64
    """Images at a time where nothing trains."""
    cache_dir: Path = Path("~/.cache/tf_simclr/features")
    """Where features are kept; the folder may be removed at any time."""
    split_seed: int = 0
    """Seed of the split by patient, where the collection has none of its own, and of the validation patients."""
    seed: int = 0
    """The first seed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(len(self.ways) > 0, "ways must name at least one of linear and finetune")
        shares = self.labels_fractions
        fits = len(shares) > 0 and all(0 < share <= 1 for share in shares)
        check(fits, "labels_fractions must be shares above 0 and at most 1", labels_fractions=shares)


@dataclass(frozen=True, kw_only=True)
class ChestEvaluate(_OwnModel):
    """Asks a finished model about another hospital's radiographs: what holds there, what has moved, and for whom.

    AUC, calibration, the operating point carried over, decision curve, subgroups, and the drift of grey levels and
    features from what the model learned from.  Nothing is trained.
    """

    RENAMED: ClassVar = {"data": "radiographs", "part": "split"}

    radiographs: Path
    """The other hospital's radiographs, made by `chest prepare` at the size that the model learned from."""
    others: tuple[Path, ...] = ()
    """Further models to compare the first one with, in pairs, on the same radiographs."""
    out: Path = Path("evaluated")
    """Folder for the page, the numbers and the table of subgroups."""
    split: Literal["all", "train", "validation", "test"] = "all"
    """Which of the radiographs the model is asked about."""
    classes: tuple[str, ...] = ()
    """What the model's findings are called in these radiographs, where the names differ: Pneumonia=pneumonia."""
    operating_point: Literal["youden", "sensitivity", "specificity"] = "youden"
    """How the threshold is chosen on the model's own held-out patients: youden has the largest sum of sensitivity and
    specificity, the others at least so much of one of them."""
    at_least: float = 0.9
    """How much of it, where operating_point is sensitivity or specificity."""
    subgroups: tuple[str, ...] = ("sex", "age", "view", "device")
    """Columns of the prepared folder or of subgroup_table; ages are decades."""
    subgroup_table: Path | None = None
    """A csv file with a column image, as the prepared folder names it, and any others to make subgroups of."""
    fewest: int = 10
    """Patients with and without the finding that a subgroup has at least to be shown; smaller ones are counted."""
    not_mentioned: Literal["zeros", "ignore"] = "zeros"
    """What an empty label counts as: absent, or nothing; uncertain ones count as nothing."""
    permutations: int = 500
    """Permutations from which the p-values of the drift are computed."""
    split_seed: int = 0
    """Seed of the split by patient, where split names one."""
    eval_batch_size: int = 64
    """Images at a time."""
    seed: int = 0
    """Seed of all draws."""

    def __post_init__(self) -> None:
        super().__post_init__()
        pairs = all(
            name.count("=") == 1 and not name.startswith("=") and not name.endswith("=") for name in self.classes
        )
        check(pairs, "classes must be pairs such as Pneumonia=pneumonia", classes=self.classes)
