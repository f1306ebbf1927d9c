"""Small image files for whole runs."""

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (0.1, 0.2, 0.9), "green": (0.1, 0.8, 0.2), "red": (0.9, 0.1, 0.1)}


def write(folder: Path, *, per_class: int, size: int = 32, wrong: int = 0) -> Path:
    """Writes noisy pictures of one colour into class folders; the first `wrong` of each lie in the next class's."""
    names = sorted(COLOURS)
    for number, name in enumerate(names):
        rng = np.random.default_rng(number)
        for i in range(per_class):
            place = folder / names[(number + (i < wrong)) % len(names)]
            place.mkdir(parents=True, exist_ok=True)
            picture = np.clip(COLOURS[name] + rng.normal(0, 0.08, (size, size, 3)), 0, 1)
            Image.fromarray((255 * picture).astype(np.uint8)).save(place / f"{name}_{i}.png")
    return folder


def splits(folder: Path, *, size: tuple[int, int], growing: int = 0) -> Path:
    """Writes noise of two classes, a and b, into the splits train and test; each picture has `growing` rows more."""
    rng = np.random.default_rng(0)
    for place in (folder / split / name for split in ("train", "test") for name in "ab"):
        place.mkdir(parents=True)
        for i in range(6):
            rows = size[0] + growing * i
            Image.fromarray(rng.integers(0, 256, (rows, size[1], 3), np.uint8)).save(place / f"{i}.png")
    return folder


def corrupt(path: Path) -> Path:
    """Writes a file that only looks like a picture."""
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    return path
