"""Knobs of the commands that take a network out: to other runtimes, and as features of images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tf_simclr.config.parts import Checked, Data
from tf_simclr.errors import check


@dataclass(frozen=True, kw_only=True)
class Export(Checked):
    """Writes a network for another runtime, and puts the file in place if it answers there as the network does here."""

    checkpoint: Path
    """A run folder or a checkpoint of any kind that converters reads."""
    ema: bool = False
    """Take the moving averages, where a checkpoint has them."""
    to: Literal["keras", "savedmodel", "onnx", "tflite", "tflite-int8"] = "savedmodel"
    """Format; onnx and tflite need the extra `export`."""
    out: Path | None = None
    """File or folder to write; by default beside the run, or in the working directory, under the checkpoint's name."""
    endpoints: str = ""
    """Which outputs, with commas between them; by default final_avg_pool, and logits_sup where there is one."""
    image_size: int = 224
    """Side of the images that onnx and tflite are made for, and of those that are compared."""
    resize: bool = False
    """Whether the file takes images of any size, and makes of them what evaluation sees: the central crop, bicubic."""
    uint8: bool = False
    """Whether images are bytes of 0 to 255 instead of numbers in [0, 1]."""
    image_dir: Path | None = None
    """Images for the comparison and for int8's ranges; by default made-up ones, with which int8 seldom passes."""
    exif_orientation: bool = False
    """Turn them as their EXIF orientation says."""
    samples: int = 64
    """How many of them."""
    seed: int = 0
    """Of made-up images."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("image_size", "samples"):
            check(getattr(self, name) >= 8, f"{name} must be at least 8", **{name: getattr(self, name)})


@dataclass(frozen=True, kw_only=True)
class Embed(Data):
    """Writes the features of every image of a folder or a data set to one file, with the images' names."""

    checkpoint: Path
    """A run folder or a checkpoint of any kind that converters reads."""
    ema: bool = False
    """Take the moving averages, where a checkpoint has them."""
    layer: str = "final_avg_pool"
    """Which features: final_avg_pool, proj_1, proj_2 … of the projection head, or logits_sup."""
    out: Path = Path("features.npz")
    """File to write: .npz (values, names, labels) or .parquet (columns name, label, features)."""
    eval_batch_size: int = 256
    """Images at a time."""

    def __post_init__(self):
        super().__post_init__()
        fits = self.out.suffix in (".npz", ".parquet")
        check(fits, "out must end in .npz or .parquet", out=str(self.out))
        check(self.eval_batch_size >= 1, "eval_batch_size must be at least 1", eval_batch_size=self.eval_batch_size)
