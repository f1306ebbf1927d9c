"""The knobs of `prepare-shards`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tf_simclr.config.parts import Checked


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
