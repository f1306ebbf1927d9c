"""Where in a radiograph a network looks: Grad-CAM, and two checks that it is not arbitrary.

Grad-CAM reads the network's gradients.  Occlusion does not: it covers a part of the image and sees how the answer
falls.  Where both agree, the map says something of the answer; and a map that stays as it is when the network's
weights are shuffled says nothing of the network.  None of them says that the network is right.

References:
    Selvaraju et al., Grad-CAM, 2017, arXiv:1610.02391, Section 3; Zeiler and Fergus, Visualizing and Understanding
    Convolutional Networks, 2014, arXiv:1311.2901, Section 4.2; Adebayo et al., Sanity Checks for Saliency Maps, 2018,
    arXiv:1810.03292, Section 3
"""

import contextlib
import functools
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from scipy.stats import spearmanr

from tf_simclr.chest.model.heads import log_odds
from tf_simclr.errors import check
from tf_simclr.models.network import leaves, plain
from tf_simclr.models.parts import as_taken

_Score = Callable[[Any], Any]
"""Features `(n, d)`, or images, to one number each, `(n,)`: the larger, the more speaks for the class."""


def grad_cam(encoder: keras.Model, score: _Score, *, image: np.ndarray) -> np.ndarray:
    """How much each place of a layer speaks for the class, float32 `(h', w')`; below 0 it speaks against.

    The channels of the layer, each times the mean gradient of the score by that channel, added up.  Selvaraju et al.
    (Equation 2) set negative places to 0; they are kept here for the checks, and `shades` leaves them out.  It is
    the last layer with places that the score hangs on; of a transformer its tokens are places.

    Args:
        encoder: images `(n, h, w, 3)`, or grey ones, to features `(n, d)`.
        score: of features.
        image: `(h, w, 3)` in [0, 1].

    Returns:
        The map; one place of 0 where no layer has places.
    """
    return grad_cams(encoder, [score], image=image)[0]


def grad_cams(encoder: keras.Model, scores: Sequence[_Score], *, image: np.ndarray) -> list[np.ndarray]:
    """The same for several scores of the same features: the encoder runs once."""
    # Grad-CAM (Selvaraju et al. 2017): 1. the maps A, (1, h', w', c), and the scores y that follow from them;
    # 2. weights α, (1, 1, 1, c): the mean over places of ∂y/∂A, as far as each channel speaks for the class;
    # 3. Σ α A over channels, (h', w'). The paper then cuts below 0; here the sign is kept for the checks.
    images = tf.constant(image[None], tf.float32)
    with _heard(encoder) as heard, tf.GradientTape(persistent=True) as tape:
        tape.watch(images)  # else nothing is recorded of a frozen encoder
        features = encoder(as_taken(images, encoder), training=False)
        totals = [tf.reduce_sum(score(features)) for score in scores]
    maps = _with_places(heard, image.shape[:2])
    if not maps:
        return [np.zeros((1, 1), np.float32) for _ in scores]
    found: list[np.ndarray] = []
    for total in totals:
        every = tape.gradient(total, [x for x, _ in maps], unconnected_gradients="zero")
        # Of a class token's last block nothing but the token counts: the last layer counts whose places do.
        own = [(_at_places(x, grid), _at_places(by, grid)) for (x, grid), by in zip(maps, every, strict=True)]
        activations, gradients = next((pair for pair in reversed(own) if np.any(pair[1])), own[-1])
        found.append((gradients.mean(axis=(0, 1)) * activations).sum(axis=-1, dtype=np.float32))
    return found


_Grid = tuple[int, int, int]
"""Rows and columns of places, and tokens before the first of them that stand for none."""
_TOKENS, _FIRST = 16, 5
"""Fewest places, and most tokens before them, of a transformer that does not show how it cuts an image into squares."""


_LISTENING = threading.Lock()


@contextlib.contextmanager
def _heard(encoder: keras.Model) -> Iterator[list[Any]]:
    """Within, what each layer gives, as they are called; of networks within networks, too."""
    found: list[Any] = []
    learned, listener = not encoder.weights, threading.get_ident()

    def listened(layer: keras.layers.Layer) -> Callable[..., Any]:
        own = layer.call

        @functools.wraps(own)
        def call(*args: Any, **options: Any) -> Any:
            nonlocal learned
            outputs = own(*args, **options)
            if threading.get_ident() != listener:  # another thread's image
                return outputs
            # What only scales or pads an image has its places, and nothing of what was learned.
            learned |= bool(layer.weights) and not isinstance(layer, keras.layers.Normalization)
            if learned and tf.is_tensor(outputs):
                found.append(outputs)
            return outputs

        return call

    layers = list(dict.fromkeys(leaves(encoder)))
    # One listener at a time: layers that two networks share have one `call`.
    with _LISTENING:
        try:
            for layer in layers:
                layer.call = listened(layer)
            yield found
        finally:
            for layer in layers:
                vars(layer).pop("call", None)


def _with_places(heard: Sequence[Any], sides: tuple[int, ...]) -> list[tuple[Any, _Grid]]:
    """What layers give that has more than one place, in their order, with its grid."""
    found: list[tuple[Any, _Grid]] = []
    squares: set[tuple[int, int]] = set()
    for x in heard:
        grid = None
        if len(x.shape) == 4:
            rows, columns = int(x.shape[1]), int(x.shape[2])
            # Of an image's own proportions: attention and channels that come first have four axes, too.
            if rows * columns > 1 and abs(rows - columns * sides[0] / sides[1]) < 1:
                grid = (rows, columns, 0)
                squares.add((rows, columns))
        elif len(x.shape) == 3:
            grid = _of_tokens(int(x.shape[1]), squares)
        if grid is not None:
            found.append((x, grid))
    return found


def _of_tokens(count: int, squares: Iterable[tuple[int, int]]) -> _Grid | None:
    """How tokens lie in the image, by maps before them; without such as a square."""
    for rows, columns in squares:
        if 0 <= count - rows * columns <= _FIRST:
            return rows, columns, count - rows * columns
    for first in range(_FIRST + 1) if not squares else ():
        side = math.isqrt(max(count - first, 0))
        if side * side == count - first >= _TOKENS:
            return side, side, first
    return None


def _at_places(x: Any, grid: _Grid) -> np.ndarray:
    """Maps `(1, h', w', c)`, or tokens `(1, t, c)`, as `(h', w', c)`."""
    rows, columns, first = grid
    # Tokens in front of the grid, such as the class's, are of no place: (t, c) without them → (rows, columns, c).
    values = x.numpy().astype(np.float32)
    return np.asarray(values[0] if values.ndim == 4 else values[0, first:].reshape(rows, columns, -1))


def shades(values: np.ndarray) -> np.ndarray:
    """What a heat map shows: places that speak for the class over the one that does most, float32 in [0, 1].

    Example:
        >>> shades(np.array([[-1.0, 1.0, 2.0]])).tolist()
        [[0.0, 0.5, 1.0]]
    """
    # Over this map's own largest value: two pictures' colours cannot be compared.
    kept = np.maximum(values, 0).astype(np.float32)
    return kept / kept.max() if kept.max() > 0 else kept


def occlusion(score: _Score, image: np.ndarray, *, grid: int = 7, batch_size: int = 16) -> np.ndarray:
    """How much the score falls when a square of the image is covered by its mean: float32 `(grid, grid)`.

    Args:
        score: of images, `(n,)`; or several of each, `(n, k)`, for `(k, grid, grid)`.
        image: `(h, w, 3)` in [0, 1].
        grid: squares a side; they do not overlap and leave no gap.
        batch_size: covered images at a time.

    Raises:
        InputError: more squares than pixels.
    """
    height, width = image.shape[:2]
    check(1 <= grid <= min(height, width), "grid must be between 1 and the image's side", grid=grid)
    # Rounded edges: the squares differ by at most one pixel, cover all of it and do not overlap.
    rows, columns = (np.linspace(0, side, grid + 1).round().astype(int) for side in (height, width))
    whole = np.asarray(score(tf.constant(image[None], tf.float32)), float)[0]
    boxes = [(rows[i], rows[i + 1], columns[j], columns[j + 1]) for i in range(grid) for j in range(grid)]
    fallen: list[np.ndarray] = []
    for start in range(0, len(boxes), batch_size):
        covered = np.stack([_cover(image, box) for box in boxes[start : start + batch_size]])
        fallen.append(whole - np.asarray(score(tf.constant(covered, tf.float32)), float))
    # Row by row, as `reshape` puts them back.
    values = np.concatenate(fallen).astype(np.float32)  # (grid², ) or (grid², k)
    return values.reshape(grid, grid) if values.ndim == 1 else values.T.reshape(-1, grid, grid)


def _cover(image: np.ndarray, box: Sequence[int]) -> np.ndarray:
    """The image with its mean over a box of (top, bottom, left, right)."""
    covered = np.array(image, np.float32)
    covered[box[0] : box[1], box[2] : box[3]] = image.mean(axis=(0, 1))
    return covered


def agreement(first: np.ndarray, second: np.ndarray) -> float:
    """Rank correlation of two maps, the finer one averaged to the coarser's grid; 0 where one is flat.

    Example:
        >>> agreement(np.arange(4.0).reshape(2, 2), np.arange(4.0).reshape(2, 2) ** 3)
        1.0
    """
    # On the coarser grid: finer places of one map have no counterpart in the other.
    side = min(*first.shape, *second.shape)
    ranked = [averaged(values, side).ravel() for values in (first, second)]
    # A flat map has no order, and the correlation would be not a number.
    if any(np.ptp(values) == 0 for values in ranked):
        return 0.0
    return float(np.round(spearmanr(*ranked).statistic, 6))


def averaged(values: np.ndarray, side: int) -> np.ndarray:
    """A map on another square grid, each place the mean of what lies in it: float64 `(side, side)`."""
    # Along rows and along columns apart: (side, h') · (h', w') · (w', side) → (side, side).
    weights = [_overlaps(length, side) for length in values.shape]
    return np.asarray(weights[0] @ values.astype(float) @ weights[1].T)


def _overlaps(length: int, side: int) -> np.ndarray:
    """Share of each of `side` equal parts that each of `length` places covers: `(side, length)`, rows sum to 1."""
    edges, places = np.linspace(0, length, side + 1), np.arange(length)
    # The end of the first minus the beginning of the last: (side, length), below 0 where they do not meet.
    covered = np.minimum(edges[1:, None], places + 1) - np.maximum(edges[:-1, None], places)
    return np.asarray(np.maximum(covered, 0) * side / length)


def shuffled_networks(
    encoder: keras.Model, heads: Sequence[keras.Model], *, seed: int = 0
) -> Iterator[tuple[str, keras.Model, _Score]]:
    """Copies of a network whose weights are shuffled from the top down: `(what was shuffled last, encoder, score)`.

    The heads first, then the encoder's blocks of layers, the last one first, each beside all above it (Adebayo et
    al.'s cascading randomization). Each array keeps its own values in another order, so that scales stay.

    Args:
        encoder: functional; it is left as it is.
        heads: of it.
        seed: of the orders.
    """
    # Adebayo et al. 2018: a map that stays the same with random weights shows the picture, not
    # what was learned. Shuffled and not drawn anew, so that the sizes of the weights stay.
    rng = np.random.default_rng(seed)
    heads = [plain(head) for head in heads]
    for head in heads:
        head.set_weights([shuffled(weight, rng) for weight in head.get_weights()])

    def score(features: Any) -> Any:
        # Of each head (n, 1) → (heads, n) → their mean (n,).
        return tf.reduce_mean(tf.stack([log_odds(head, features)[:, 0] for head in heads]), axis=0)

    # From the output downwards: each copy keeps what was shuffled before.
    yield "heads", encoder, score
    copy = plain(encoder)
    for block, layers in _blocks(copy).items():
        for layer in layers:
            layer.set_weights([shuffled(weight, rng) for weight in layer.get_weights()])
        yield block, copy, score


def _blocks(encoder: keras.Model) -> dict[str, list[keras.layers.Layer]]:
    """Layers with weights by the first word of their names (`group4`, …, `stem`), the last ones first."""
    found: dict[str, list[keras.layers.Layer]] = {}
    for layer in reversed(list(leaves(encoder))):
        if layer.weights:
            # Dictionaries keep the order in which keys came, here from the top of the network down.
            found.setdefault(layer.name.split("_")[0], []).append(layer)
    return found


def shuffled(weight: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same numbers in another order."""
    return rng.permutation(weight.ravel()).reshape(weight.shape)
