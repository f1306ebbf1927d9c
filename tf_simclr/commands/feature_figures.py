"""What features look like: a map of the test images, and the training images that are nearest to some of them."""

from pathlib import Path

import numpy as np

from tf_simclr import diagnostics, plots
from tf_simclr.data.pipeline import Unreadable, evaluation_batches
from tf_simclr.data.sources import Source
from tf_simclr.evaluation.features import Features
from tf_simclr.evaluation.maps import planar
from tf_simclr.evaluation.probes import nearest

MAPPED = 2000
"""Images at most on a map, drawn by the seed; t-SNE of more takes minutes."""
QUERIES, NEIGHBOURS = 6, 7


def draw(
    found: tuple[Features, Features], sources: tuple[Source, Source], *, folder: Path, image_size: int, seed: int
) -> list[Path]:
    """Draws `feature_map.png` and `neighbours.png` into the folder.

    Args:
        found: features of the training and of the test images, with labels and names.
        sources: where those images are.
        folder: of the figures.
        image_size: side of the pictures that are drawn.
        seed: of the images that are drawn.
    """
    train, test = found
    order = np.random.default_rng(seed).permutation(len(test.values))
    mapped, asked = order[:MAPPED], order[:QUERIES]
    names = sources[1].class_names
    places = planar(test.values[mapped], seed=seed)
    figures = {"feature_map": diagnostics.feature_map(places, test.labels[mapped], class_names=names, method="t-SNE")}
    close, cosines = nearest(test.values[asked], train.values, k=min(NEIGHBOURS, len(train.values)))
    queries = pictures(sources[1], test.names[asked], image_size=image_size)
    others = pictures(sources[0], train.names[close.ravel()], image_size=image_size)
    others = others.reshape(*close.shape, *others.shape[1:])
    same = train.labels[close] == test.labels[asked][:, None]
    figures["neighbours"] = plots.nearest_neighbours(queries, others, cosines=cosines, same=same)
    return [plots.save(figure, folder / f"{name}.png") for name, figure in figures.items()]


def pictures(source: Source, names: np.ndarray, *, image_size: int) -> np.ndarray:
    """The images with these names `(n, size, size, 3)` in [0, 1], in their order; read front to back, once."""
    wanted, found = set(names.tolist()), {}
    batches = evaluation_batches(
        source, batch_size=64, image_size=image_size, crop_proportion=1.0, unreadable=Unreadable()
    )
    for images, _, given in batches.as_numpy_iterator():
        for image, name in zip(images, given, strict=True):
            if name.decode() in wanted:
                found[name.decode()] = image
        if len(found) == len(wanted):
            break
    return np.stack([found[name] for name in names.tolist()])
