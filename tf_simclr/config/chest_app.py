"""Knobs of the commands that ask a finished model for radiographs.  For research, not for diagnosis."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from tf_simclr.config.parts import Checked
from tf_simclr.errors import check


@dataclass(frozen=True, kw_only=True)
class ChestExplain(Checked):
    """Explains what a model says of radiographs: probability, heat map with its checks, nearest training cases."""

    images: tyro.conf.Positional[tuple[Path, ...]]
    """DICOM, PNG or JPEG files."""
    model: Path
    """A run of `chest covid` or `chest ards`, or the folder `deployed` in it."""
    out: Path = Path("explained")
    """Folder for a figure and a JSON file an image; those of the same name are replaced."""
    neighbours: int = 5
    """Training cases to show, at most one of each patient."""
    shuffle: bool = True
    """Check, too, whether the heat map changes when the network's weights are shuffled; it costs a map a block."""
    seed: int = 0
    """Of the shuffling."""

    def __post_init__(self):
        super().__post_init__()
        check(len(self.images) > 0, "images must name at least one file")
        check(self.neighbours >= 1, "neighbours must be at least 1", neighbours=self.neighbours)
        names = [path.stem for path in self.images]
        check(len(set(names)) == len(names), "images must have different names, by which results are called")


@dataclass(frozen=True, kw_only=True)
class ChestApp(Checked):
    """A page on this machine for one radiograph at a time; nothing is stored or sent anywhere."""

    model: Path
    """A run of `chest covid` or `chest ards`, or the folder `deployed` in it."""
    host: str = "127.0.0.1"
    """Address to listen on; any other than 127.0.0.1 lets other machines in, unencrypted and without a password."""
    origin: str = ""
    """Address of a proxy before the page, as browsers see it: https://page.hospital.example (docs/page-security.md)."""
    port: int = 7860
    """Port to listen on; 0: any that is free."""
    max_megabytes: int = 64
    """Largest file that is taken."""
    all_megabytes: int = 512
    """Of all files that are in memory at a time; who comes later waits."""
    places: int = 64
    """Files in line at a time; the next one is told to come again in a minute."""
    decoders: int = 2
    """Files that are decoded at a time, each in a process of its own with limits of time and memory."""
    neighbours: int = 5
    """Training cases to show, at most one of each patient."""

    def __post_init__(self):
        super().__post_init__()
        check(0 <= self.port < 65536, "port must be between 0 and 65535", port=self.port)
        check(1 <= self.max_megabytes <= 256, "max_megabytes must be 1 to 256", max_megabytes=self.max_megabytes)
        fits = self.max_megabytes <= self.all_megabytes <= 16384
        check(fits, "all_megabytes must be max_megabytes to 16384", all_megabytes=self.all_megabytes)
        check(1 <= self.places <= 400, "places must be 1 to 400", places=self.places)
        check(1 <= self.decoders <= 32, "decoders must be 1 to 32", decoders=self.decoders)
        check(self.neighbours >= 1, "neighbours must be at least 1", neighbours=self.neighbours)
