"""A heat map of what the network sees, laid over what a viewer shows.

The network sees a square that was made of the radiograph; here its places are put back where they came from.
"""

import base64

import numpy as np
from PIL import Image

from tf_simclr.chest.files.squares import encoded
from tf_simclr.data.radiographs import Fit

COLOURS = np.array([[255, 214, 0], [255, 140, 0], [214, 30, 30]], np.float32)
"""From a little to the most: yellow, orange, red; grey radiographs hold none of them."""
_STRONGEST = 0.6
"""Opacity of the strongest place: the radiograph stays visible below."""
_FAINTEST = 0.15
"""Share of the strongest place below which nothing is coloured."""


def put_back(values: np.ndarray, shape: tuple[int, int], *, fit: Fit, crop_proportion: float = 1.0) -> np.ndarray:
    """A map of the network's square as one of the radiograph: float32 `shape`, 0 where the network saw nothing.

    Args:
        values: `(h', w')`, of any grid over the square.
        shape: of the radiograph as it is shown, `(h, w)`.
        fit: how it became square.
        crop_proportion: share of the square's side that the network sees, about its centre.
    """
    # In the order backwards of how the network's square was made: the map fills the central
    # crop, the crop lies in the square, the square is the radiograph squeezed, padded or cut.
    height, width = shape
    square = {"stretch": (height, width), "pad": (max(shape),) * 2, "crop": (min(shape),) * 2}[fit]
    inner = (max(1, round(square[0] * crop_proportion)), max(1, round(square[1] * crop_proportion)))
    # `F` is a picture of float32.
    picture = Image.fromarray(np.ascontiguousarray(values, np.float32), "F")
    seen = np.asarray(picture.resize((inner[1], inner[0]), Image.Resampling.BILINEAR))
    canvas = _centred(seen, square)
    return _centred(canvas, shape)


def _centred(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Cut or filled with zeros to this shape, about the centre."""
    for axis, (have, want) in enumerate(zip(values.shape, shape, strict=True)):
        start = abs(have - want) // 2
        if have >= want:
            values = np.take(values, np.arange(start, start + want), axis)
        else:
            around = [(0, 0), (0, 0)]
            around[axis] = (start, want - have - start)
            values = np.pad(values, around)
    return values


def overlay(shown: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A radiograph with a heat map over it, uint8 `(h, w, 3)`.

    Args:
        shown: uint8 `(h, w)`.
        heat: in [0, 1], `(h, w)`.
    """
    # Opacity a, colour c, grey g → a c + (1 − a) g, of (h, w, 4) and (h, w).
    painted = layer(heat) / np.float32(255)
    opacity = _STRONGEST * painted[..., 3:]
    return np.rint(255 * opacity * painted[..., :3] + (1 - opacity) * shown[..., None]).astype(np.uint8)


def layer(heat: np.ndarray) -> np.ndarray:
    """A heat map alone, to be laid over at an opacity of its own: uint8 `(h, w, 4)`, red, green, blue, opacity.

    Args:
        heat: in [0, 1], `(h, w)`.
    """
    places = np.linspace(0, 1, len(COLOURS))
    # Each channel for itself between the three colours.
    colours = np.stack([np.interp(heat, places, channel) for channel in COLOURS.T], -1)
    # From the faintest that is coloured up; the power below 1 makes what is weak better seen.
    opacity = 255 * np.clip((heat - _FAINTEST) / (1 - _FAINTEST), 0, 1)[..., None] ** 0.7
    return np.rint(np.concatenate([colours, opacity], -1)).astype(np.uint8)


def data_uri(pixels: np.ndarray) -> str:
    """A picture as text that a page can hold: 8-bit grey or RGB, as PNG."""
    return "data:image/png;base64," + base64.b64encode(encoded(pixels)).decode()
