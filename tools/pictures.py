"""Draws the pictures of the README and of docs/ anew: `python -m tools.pictures`, about ten minutes.

They are made small: at most 1,000 pixels wide, 128 colours.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from tools import architecture, rooms

HERE = Path(__file__).parents[1] / "docs" / "pictures"
WIDTH, COLOURS = 1000, 128
SHORT = ("--image_size", "64", "--pretrain_epochs", "20", "--seeds", "1", "--moco", "False", "--grid_epochs", "10")


def command(*words: str | Path) -> None:
    """Runs a command of the package."""
    subprocess.run([sys.executable, "-m", "tf_simclr", *map(str, words)], check=True)


def shrink(source: Path, target: Path) -> None:
    """Writes a picture small."""
    image = Image.open(source).convert("RGB")
    if image.width > WIDTH:
        image = image.resize((WIDTH, round(image.height * WIDTH / image.width)), Image.Resampling.LANCZOS)
    image.quantize(COLOURS).save(target, optimize=True)


def main() -> None:
    """Draws how the parts fit, the demo's page, augmented views, and an explanation of a made-up radiograph."""
    rooms.draw()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        architecture.draw(folder / "architecture.png")
        shrink(folder / "architecture.png", HERE / "architecture.png")
        command("demo", "--model_dir", folder / "demo")
        command("augmentations", "--out", folder / "augmentations.png")
        command("chest", "ards", *SHORT, "--model_dir", folder / "ards")
        radiograph = sorted((folder / "ards" / "synthetic").rglob("*.dcm"))[0]
        command("chest", "explain", "--model", folder / "ards", radiograph, "--out", folder / "explained")
        shrink(folder / "demo" / "demo.png", HERE / "demo.png")
        shrink(folder / "augmentations.png", HERE / "augmentations.png")
        shrink(next((folder / "explained").glob("*.png")), HERE / "explanation.png")


if __name__ == "__main__":
    main()
