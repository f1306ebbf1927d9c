"""All random numbers of the views at any positions of a training stream, in NumPy: those that TensorFlow draws.

A stream is a function of (seed, position).  `tf_simclr.data.augment` draws image by image, within TensorFlow's graph;
this module draws for a whole batch at once and needs no TensorFlow, bit for bit the same: boxes of crops, and the
numbers in [0, 1) by which `tf_simclr.data.device_views` changes them.

    seed of a position        (hash(seed, VIEWS), position)              `fold_in`
    seed of its view v        split(seed of the position)[v]             `split`; of a single view the seed itself
    box of view v             sampled by the seed of the view            `boxes`
    draws of view v           row v of `numbers`, by the seed of the position "aside"

TensorFlow's stateless generator is Philox 4x32 with 10 rounds: a seed of two int64 is hashed by one call of it to a key
and to the upper half of a counter; the lower half counts calls, each of which gives four words of 32 bits.

References:
    Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011 (Philox)
    TensorFlow, core/kernels/stateless_random_ops.cc and core/kernels/image/sample_distorted_bounding_box_op.cc
"""

from collections.abc import Sequence

import numpy as np

from tf_simclr.data.recipe import Recipe, evaluation_proportion

DRAWS = (
    *("flip", "jitter", "order", "brightness", "contrast", "saturation", "hue", "grayscale", "blur", "sigma"),
    *("rotation", "quarters", "noise", "sobel", "cutout", "center_y", "center_x"),
)
"""What each of a view's numbers in [0, 1) decides.  Names of operators: applied where it is below their probability;
`order`: of the four colour changes, whose amounts follow; `sigma`: of the blur; `quarters`: of a turn, over 4;
`center_y`, `center_x`: of the cutout, over the view's side."""
MORE = ("rotation", "noise", "sobel", "cutout")
"""The operators that SimCLR's own recipe does not have; each has two seeds, of what it does and of whether it does."""
_COMMON = 10
"""So many of the numbers are drawn at once; the others are only drawn where the recipe needs them."""
_ATTEMPTS = 100
"""Boxes that are tried for a crop before all of the image is taken (reference)."""
_COVERED = 0.1
"""Share of the image in a crop at least, however little `crop_min_area` asks for (reference)."""
VIEWS, ORDER, FILES = 1, 2, 3
"""What the seed of a stream is for: the seeds of positions, the orders of examples, and those of files (`sources`)."""
PARTNER, SPARE = 1, 2
"""What the seed of a position is for, beside its views: which partner the image has, and which image takes its place if
it cannot be read (`examples`)."""

_HASH = np.array([0x3EC8F720, 0x02461E29], np.uint32)
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
ASIDE = 0x5EED
"""Turns a seed into another: a view's crop and its other draws must not come from one stream."""


def batch(
    seed: int,
    positions: np.ndarray,
    *,
    shapes: np.ndarray,
    size: int,
    recipe: Recipe,
    views: int = 2,
    central: bool = False,
) -> dict[str, np.ndarray]:
    """All that the views at positions of a stream depend on, besides the images.

    Args:
        seed: of the stream.
        positions: `(n,)` integers.
        shapes: height and width of the images, `(n, 2)`, or `(n, views, 2)` where each view is of an image of its own.
        size: side of the views in pixels.
        recipe: how they come about.
        views: of each position; with 1 they are those of `augment.crop_and_flip` and `augment.view`.
        central: whether the boxes are the squares that evaluation sees; else they are drawn.

    Returns:
        `boxes`, int32 `(n, views, 4)`: offset_y, offset_x, height, width; `draws`, float32 `(n, views, 17)`, see
        `DRAWS`; and where the recipe has noise, `noise`, float32 `(n, views, size, size, 3)`.
    """
    # Seeds of positions, one a place of the stream: whoever makes the batch, the numbers are the same.
    seeds = fold_in((seed, VIEWS), positions)
    return of_seeds(seeds, shapes=shapes, size=size, recipe=recipe, views=views, central=central)


def of_seeds(
    seeds: np.ndarray, *, shapes: np.ndarray, size: int, recipe: Recipe, views: int, central: bool = False
) -> dict[str, np.ndarray]:
    """As `batch`, by the seeds `(n, 2)` of the positions."""
    # One shape an image for all views, or one a view.
    shapes = np.broadcast_to(shapes if np.ndim(shapes) == 3 else shapes[:, None], (len(seeds), views, 2))
    if central:
        taken = central_boxes(shapes, proportion=evaluation_proportion(size))
    else:
        own = split(seeds, views) if views > 1 else seeds[:, None]
        taken = boxes(own, shapes, min_area=recipe.crop_min_area, max_aspect=recipe.crop_max_aspect)
    drawn = {"boxes": taken, "draws": numbers(seeds, recipe, views=views)}
    return drawn | ({"noise": noise(seeds, recipe, views=views, size=size)} if recipe.noise_probability > 0 else {})


def numbers(seeds: np.ndarray, recipe: Recipe, *, views: int) -> np.ndarray:
    """The draws (`DRAWS`) of views, float32 `(n, views, 17)` in [0, 1), by the seeds `(n, 2)` of their positions."""
    found = np.zeros((len(seeds), views, len(DRAWS)), np.float32)
    # (n, views · 10) → (n, views, 10): drawn at once, as TensorFlow's views are.
    found[..., :_COMMON] = uniform(aside(seeds), views * _COMMON).reshape(-1, views, _COMMON)
    for name, (own, whether) in _seeds_of_more(seeds, recipe, views=views).items():
        found[..., DRAWS.index(name)] = uniform(whether, 1)[..., 0]
        if name == "rotation":
            # Four turns: a word modulo 4, as an integer below 4 is drawn.
            found[..., DRAWS.index("quarters")] = (words(own, 1)[..., 0] % 4) / 4
        if name == "cutout":
            found[..., DRAWS.index("center_y") :] = uniform(own, 2)
    return found


def noise(seeds: np.ndarray, recipe: Recipe, *, views: int, size: int) -> np.ndarray:
    """Standard normal numbers, float32 `(n, views, size, size, 3)`, for a recipe that has noise."""
    own, _ = _seeds_of_more(seeds, recipe, views=views)["noise"]
    # (n, views, size · size · 3), each view from a seed of its own → images.
    return normal(own, size * size * 3).reshape(len(seeds), views, size, size, 3)


def _seeds_of_more(seeds: np.ndarray, recipe: Recipe, *, views: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Operators beyond SimCLR's that a recipe has → the seeds `(n, views, 2)` of what they do and of whether."""
    chosen = [name for name in MORE if getattr(recipe, f"{name}_probability") > 0]
    if not chosen:
        return {}
    pairs = split(split(aside(aside(seeds)), views), 2 * len(chosen))  # (n, views, 2 × operators, 2)
    return {name: (pairs[..., 2 * i, :], pairs[..., 2 * i + 1, :]) for i, name in enumerate(chosen)}


def boxes(seeds: np.ndarray, shapes: np.ndarray, *, min_area: float, max_aspect: float) -> np.ndarray:
    """Random parts of images for square views: int32 (offset_y, offset_x, height, width), `(…, 4)`.

    An attempt draws an aspect ratio, then a height between those that the bounds of the area give, then a place; the
    first attempt that fits counts.  The numbers of an attempt follow each other in the seed's words, and how many it
    takes depends on what it meets, so each box has a place of its own in its words.

    Args:
        seeds: `(…, 2)`.
        shapes: height and width of the images, `(…, 2)`.
        min_area: least share of the image.
        max_aspect: longest side ratio.
    """
    lead = seeds.shape[:-1]
    # All views of all images in one row, whatever axes they came in; `lead` brings them back.
    seeds, (full_h, full_w) = seeds.reshape(-1, 2), np.asarray(shapes, np.int64).reshape(-1, 2).T
    # All of the image, where no attempt fits.
    found = np.stack([0 * full_h, 0 * full_h, full_h, full_w], -1)
    low, high = np.float32(1 / max_aspect), np.float32(max_aspect)
    # Those without a box yet; how many words each has used, and the words, 16 at first.
    open_, at, drawn = np.arange(len(seeds)), np.zeros(len(seeds), np.int64), words(seeds, 16)
    for _ in range(_ATTEMPTS):
        if not len(open_):
            break
        # An attempt takes four words at most.
        if at[open_].max() + 4 > drawn.shape[1]:
            drawn = words(seeds, 4 * drawn.shape[1])
        shape = full_h[open_], full_w[open_]
        box, ok, at[open_] = _attempt(drawn[open_], at[open_], shape=shape, aspects=(low, high), min_area=min_area)
        found[open_[ok]] = box[ok]
        open_ = open_[~ok]
    return found.astype(np.int32).reshape(*lead, 4)


def _attempt(
    drawn: np.ndarray, at: np.ndarray, *, shape: tuple[np.ndarray, np.ndarray], aspects: tuple, min_area: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes `(n, 4)`, whether they fit `(n,)`, and the place behind the words that they took; in float32, as there."""
    full_h, full_w = shape
    at = at.copy()

    def below(limit: np.ndarray, where: np.ndarray) -> np.ndarray:
        """An integer below a limit; a word is taken only where one is needed."""
        # The word at each one's own place.
        word = drawn[np.arange(len(at)), at].astype(np.int64)
        at[where] += 1
        return np.where(where, word % np.maximum(limit, 1), 0)

    # In float32 throughout: the comparisons have to fall as TensorFlow's kernel has them.
    area = np.float32(full_w) * np.float32(full_h)  # exact for images that fit into a memory
    least, most = np.float32(min_area) * np.float32(full_w) * np.float32(full_h), area
    ratio = unit(drawn[np.arange(len(at)), at]) * (aspects[1] - aspects[0]) + aspects[0]
    at += 1
    # The least and the largest height of a box of this ratio with an area in range.
    height, tallest = (np.rint(np.sqrt(a / ratio)).astype(np.int64) for a in (least, most))
    too_wide = np.rint(np.float32(tallest) * ratio) > full_w
    # The tallest box that is no wider than the image, by the kernel's own formula.
    fitting = ((full_w + 0.5 - np.float64(np.float32(1e-7))) / np.float64(ratio)).astype(np.int64)
    tallest = np.minimum(np.where(too_wide, fitting, tallest), full_h)
    height = np.minimum(height, tallest)
    height = height + below(tallest - height + 1, height < tallest)

    def width_of(height: np.ndarray) -> np.ndarray:
        return np.rint(np.float32(height) * ratio).astype(np.int64)

    height += np.float32(width_of(height) * height) < least  # rounding; one pixel more, or less, may fit
    height -= np.float32(width_of(height) * height) > most
    width = width_of(height)
    own = np.float32(width * height)
    # Rounding may have made it too large, too small or too wide: then the attempt is lost.
    ok = (own >= least) & (own <= most) & (width <= full_w) & (height <= full_h) & (width > 0) & (height > 0)
    y = below(full_h - height, ok & (height < full_h))
    x = below(full_w - width, ok & (width < full_w))
    # A tenth of the object must be covered, which is the whole image.
    ok &= own / area >= np.float32(_COVERED)
    return np.stack([y, x, height, width], -1), ok, at


def central_boxes(shapes: np.ndarray, *, proportion: float) -> np.ndarray:
    """The central squares that evaluation sees (`images.central_box`), int32 `(…, 4)`, of images of `(…, 2)` pixels."""
    # In the same precision, so that the box is the same.
    shapes = np.asarray(shapes, np.int32)
    side = np.float32(proportion) * shapes.min(-1, keepdims=True).astype(np.float32)
    extent = np.clip(np.rint(side).astype(np.int32), 1, shapes)
    return np.concatenate([(shapes - extent + 1) // 2, extent], -1)


def fold_in(seed: Sequence[int], positions: np.ndarray) -> np.ndarray:
    """The seeds `(n, 2)` of positions `(n,)`, as `tf.random.experimental.stateless_fold_in` makes them."""
    # TensorFlow's fold_in hashes the seed and puts the number beside it.
    hashed = int64s(np.array(seed, np.int64), 1)
    positions = np.asarray(positions, np.int64)
    return np.stack([np.broadcast_to(hashed, positions.shape), positions], -1)


def split(seeds: np.ndarray, count: int) -> np.ndarray:
    """Seeds `(…, 2)` to `(…, count, 2)`, as `tf.random.split`."""
    return int64s(seeds, 2 * count).reshape(*seeds.shape[:-1], count, 2)


def aside(seeds: np.ndarray) -> np.ndarray:
    """Other seeds: a view's crop and its other draws must not come from one stream."""
    return seeds * np.array([1, 3]) + np.array([0, ASIDE])


def uniform(seeds: np.ndarray, count: int) -> np.ndarray:
    """float32 `(…, count)` in [0, 1), as `tf.random.stateless_uniform`."""
    return unit(words(seeds, count))


def normal(seeds: np.ndarray, count: int) -> np.ndarray:
    """float32 `(…, count)`, as `tf.random.stateless_normal` up to rounding (Box and Muller)."""
    # Box and Muller: two uniform numbers make two normal ones.
    pairs = unit(words(seeds, count + count % 2)).reshape(*seeds.shape[:-1], -1, 2)
    radius = np.sqrt(-2 * np.log(np.maximum(pairs[..., 0], np.float32(1e-7))))
    angle = np.float32(2 * np.pi) * pairs[..., 1]
    found = np.stack([np.sin(angle) * radius, np.cos(angle) * radius], -1)
    return found.reshape(*seeds.shape[:-1], -1)[..., :count]


def int64s(seeds: np.ndarray, count: int) -> np.ndarray:
    """int64 `(…, count)` over their full range, as `tf.random.stateless_uniform` without bounds."""
    # Two words a number, the lower one first.
    pairs = words(seeds, 2 * count).astype(np.uint64)
    return (pairs[..., ::2] | pairs[..., 1::2] << _HALF).view(np.int64)


def unit(found: np.ndarray) -> np.ndarray:
    """Words as float32 in [0, 1): their lowest 23 bits behind the point of 1, less 1."""
    return ((found & np.uint32(0x7FFFFF)) | np.uint32(127 << 23)).view(np.float32) - np.float32(1)


def words(seeds: np.ndarray, count: int) -> np.ndarray:
    """The first uint32 of seeds `(…, 2)`, `(…, count)`."""
    seeds = np.asarray(seeds, np.int64).view(np.uint64)
    # A seed is two 64-bit numbers: four words, hashed by Philox itself to a key and the start of a counter.
    halves = np.stack([seeds & _LOW, seeds >> _HALF], -1).reshape(*seeds.shape[:-1], 4)
    mixed = _philox(_HASH, halves)
    counters = np.zeros((*mixed.shape[:-1], -(-count // 4), 4), np.uint32)
    # The counter counts blocks of four words; its upper half is the hash's.
    counters[..., 0] = np.arange(counters.shape[-2])
    counters[..., 2:] = mixed[..., None, 2:]
    return _philox(mixed[..., None, :2], counters).reshape(*mixed.shape[:-1], -1)[..., :count]


def _philox(key: np.ndarray, counter: np.ndarray) -> np.ndarray:
    """Philox 4x32-10: keys `(…, 2)` and counters `(…, 4)` to four words `(…, 4)`, all of 32 bits."""
    k0, k1 = (np.asarray(key[..., i], np.uint64) for i in range(2))
    c0, c1, c2, c3 = (np.asarray(counter[..., i], np.uint64) for i in range(4))
    # Ten rounds: two products of 32 bits, whose upper and lower halves change places.
    for _ in range(10):
        one, other = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)  # below 2^64: nothing is lost
        c0, c1, c2, c3 = (other >> _HALF) ^ c1 ^ k0, other & _LOW, (one >> _HALF) ^ c3 ^ k1, one & _LOW
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & _LOW, (k1 + np.uint64(0xBB67AE85)) & _LOW
    return np.stack([c0, c1, c2, c3], -1).astype(np.uint32)
