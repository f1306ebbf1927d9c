"""Made-up radiographs for commands that are given none, so that their whole path can be seen on any machine."""

from pathlib import Path

from tf_simclr.chest.collections import prepare, siim, synthetic
from tf_simclr.data.radiographs.prepared import Prepared, load
from tf_simclr.terminal import say

_PATIENTS = 120
"""Made-up ones."""


def or_prepared(radiographs: str | Path, model_dir: Path, *, size: int, seed: int) -> Prepared:
    """The prepared radiographs of a folder; of `synthetic` made-up ones, which are written and prepared at first.

    These are of nobody, in SIIM's layout, and lie in the run folder.
    """
    if radiographs != "synthetic":
        return load(Path(radiographs))
    raw, out = model_dir / "synthetic", model_dir / "synthetic_prepared"
    # By the table that is written last.
    if not (raw / "train_image_level.csv").exists():
        say(f"making up {_PATIENTS} patients …")
        synthetic.write(raw, _PATIENTS, seed=seed)
    prepare.prepare(siim.collection(raw), out, size=size)
    return load(out)
