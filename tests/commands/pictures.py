"""Small image files for whole runs."""

from pathlib import Path

import keras
import numpy as np

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
            keras.utils.save_img(place / f"{name}_{i}.png", 255 * picture, scale=False)
    return folder


def corrupt(path: Path) -> Path:
    """Writes a file that only looks like a picture."""
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    return path
