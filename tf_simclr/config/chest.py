"""Knobs of the commands for chest radiographs.  For research, not for diagnosis."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from tf_simclr.config.parts import Checked
from tf_simclr.errors import check
from tf_simclr.places import Place


@dataclass(frozen=True, kw_only=True)
class ChestPrepare(Checked):
    """Turns radiographs (DICOM, PNG, JPEG) into records once, with a report; no epoch touches a DICOM again."""

    raw: tyro.conf.Positional[Path]
    """Folder of the collection; of a csv collection the file."""
    out: tyro.conf.Positional[Path]
    """Folder for the records; the same command goes on where it was stopped."""
    source: Literal["siim", "nih", "folder", "csv", "synthetic"] = "folder"
    """siim: SIIM-FISABIO-RSNA COVID-19; nih: ChestX-ray14; folder: classes are folders; csv: columns path, label and
    patient; synthetic: made-up ones in SIIM's layout, written to RAW first if it is empty."""
    size: int = 224
    """Side of the squares that are kept, in pixels; the COVID-19 study had 64."""
    fit: Literal["stretch", "pad", "crop"] = "stretch"
    """How a radiograph becomes square: sides scaled apart (as the study did), black bars, or its centre."""
    windowed: bool = True
    """Apply a DICOM's own window or VOI LUT; otherwise the full range of its stored bits."""
    boxless_siblings: bool = True
    """siim: keep images without boxes of studies that have another image with boxes."""
    path_column: str = "path"
    """csv: column with the file, beside the csv file or absolute."""
    label_column: str = "label"
    """csv: column with the class; a|b means both."""
    patient_column: str = "patient"
    """csv: column with the patient, without which no honest split is possible."""
    workers: int = 0
    """Processes that decode; 0: as many as there are cores."""
    seconds: float = 60.0
    """Longest time for one image; one that takes longer is refused."""
    patients: int = 120
    """synthetic: how many are made up."""
    seed: int = 0
    """synthetic: of everything in them."""

    def __post_init__(self):
        super().__post_init__()
        check(8 <= self.size <= 4096, "size must be between 8 and 4096", size=self.size)
        check(self.workers >= 0, "workers must be at least 0", workers=self.workers)
        check(self.seconds > 0, "seconds must be above 0", seconds=self.seconds)


@dataclass(frozen=True, kw_only=True)
class ChestCovid(Checked):
    """The COVID-19 study: a small head on a frozen SimCLR encoder, as it was, and with patients kept apart."""

    data: Place = "synthetic"
    """A folder of `chest prepare`, or synthetic: made-up radiographs, to see the whole path."""
    checkpoint: Path | None = None
    """A run folder or a checkpoint of any kind that converters reads; without one an untrained ResNet-50 is tested."""
    study: Literal["table", "beyond", "all"] = "table"
    """table: the study's six rows; beyond: larger inputs, LARS, unfrozen groups, from scratch, four classes; all: both.
    Beyond trains whole networks, for which a GPU is good."""
    positive: str = "Typical Appearance"
    """Class that the head is to recognise, of the collection's; of NIH for example Pneumonia."""
    model_dir: Path = Path("runs/covid")
    """Folder for the result, the figures, and the model that `chest app` opens; finished trainings are kept in `fits`,
    so that the same command goes on where it was stopped."""
    pixels: int = 64
    """Side to which radiographs are made smaller first, the study's; fewer where fewer were prepared."""
    image_size: int = 224
    """Side to which they are then enlarged for the encoder."""
    seeds: int = 3
    """How often splits and heads are drawn anew."""
    seed: int = 0
    """The first seed."""
    test_share: float = 934 / 6334
    """Share of the images to test on; the study had 934 of 6,334."""
    optimizer: Literal["sgd", "lars"] = "sgd"
    """Of the head; the study had SGD, and named LARS as future work."""
    learning_rate: float | None = None
    """Of all that trains; by default 0.01 for SGD, which is Keras' default and was the study's, and 0.1 for LARS."""
    train_batch_size: int = 32
    """Images a step, Keras' default."""
    eval_batch_size: int = 64
    """Images at a time through the encoder."""
    random_baseline: bool = True
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

    def __post_init__(self):
        super().__post_init__()
        check(0 < self.test_share < 1, "test_share must lie between 0 and 1", test_share=self.test_share)
        for name in ("seeds", "train_batch_size", "eval_batch_size", "tuning_epochs", "tuning_seeds"):
            check(getattr(self, name) >= 1, f"{name} must be at least 1", **{name: getattr(self, name)})
        for name, sides in (("pixels", [self.pixels]), ("image_size", [self.image_size]), ("direct", self.direct)):
            check(all(side >= 8 for side in sides), f"{name} must be at least 8", **{name: sides})
        fits = all(-1 <= block <= 3 for block in self.unfreeze)
        check(fits, "unfreeze must lie in -1..3, the last group that stays frozen", unfreeze=self.unfreeze)
        rate = self.learning_rate
        check(rate is None or rate > 0, "learning_rate must be above 0", learning_rate=rate)
