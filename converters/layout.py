"""Kernels from TensorFlow's layout to PyTorch's and back: HWIO ↔ OIHW, (in, out) ↔ (out, in).

Results are contiguous: safetensors writes a transposed view's bytes in the wrong order.
"""

from collections.abc import Iterator

import numpy as np

_STRIP = 1 << 23
"""Bytes of the result that are made at once: what comes after, checksum and writing, finds them in the cache."""

ROWS, _COLUMNS, _PAD = 512, 256, 16
"""Elements that are transposed at once, and between its rows: a tile fits the second cache, and its columns, being no
power of two apart, do not drive each other out of the first one."""


def to_layout(array: np.ndarray, *, torch: bool) -> np.ndarray:
    """A hub array in the layout of a naming.

    Args:
        array: In TensorFlow's layout.
        torch: Whether the naming has PyTorch's layout.
    """
    if not torch or array.ndim < 2:
        return array
    result = np.empty(layout_shape(array.shape, torch=True), array.dtype)
    start = 0
    for chunk in chunks_in_layout(array, torch=True):
        result[start : start + len(chunk)] = chunk
        start += len(chunk)
    return result


def chunks_in_layout(array: np.ndarray, *, torch: bool) -> Iterator[np.ndarray]:
    """The same, some outputs at a time; each chunk is valid until the next."""
    if not torch or array.ndim < 2:
        yield array
        return
    # (h, w, in, out) or (in, out): any axes before the last two are the window, which is one axis here.
    *window, inputs, outputs = array.shape
    # (h, w, in, out): h · w positions of the window; of a dense kernel one.
    count = int(np.prod(window, dtype=np.int64))
    # (h·w, in, out), a view: nothing is copied yet.
    source = _numbers(array.reshape(count, inputs, outputs))
    # As many outputs as fill a strip, in steps of 16 float32s: a line of the cache.
    width = max(16, _STRIP // (count * inputs * array.itemsize) // 16 * 16)
    strip = np.empty((min(width, outputs), inputs, count), source.dtype)
    for start in range(0, outputs, width):
        part = source[:, :, start : start + width]
        target = strip[: part.shape[2]]
        _to_torch(part, target)
        # (outputs of this strip, in, h·w) → (outputs, in, h, w)
        yield target.view(array.dtype).reshape(-1, inputs, *window)


def from_layout(array: np.ndarray, *, torch: bool) -> np.ndarray:
    """The inverse of `to_layout`."""
    if not torch or array.ndim < 2:
        return array
    # (out, in, h, w) or (out, in)
    outputs, inputs, *window = array.shape
    count = int(np.prod(window, dtype=np.int64))
    result = np.empty((*window, inputs, outputs), array.dtype)
    _from_torch(_numbers(array.reshape(outputs, inputs, count)), _numbers(result.reshape(count, inputs, outputs)))
    return result


def layout_shape(shape: tuple[int, ...], *, torch: bool) -> tuple[int, ...]:
    """A hub shape in the layout of a naming.

    Example:
        >>> layout_shape((7, 7, 3, 64), torch=True)
        (64, 3, 7, 7)
    """
    return (*reversed(shape[-2:]), *shape[:-2]) if torch and len(shape) > 1 else shape


def _numbers(array: np.ndarray) -> np.ndarray:
    """The array as whole numbers of its size: NumPy copies these fastest, bfloat16 most of all slowly."""
    return array.view(f"u{array.itemsize}")


def _to_torch(source: np.ndarray, target: np.ndarray) -> None:
    """`(window, in, out)` → `(out, in, window)`, tile by tile through a padded one."""
    count, inputs, outputs = source.shape
    # As many inputs as make about ROWS rows of a tile.
    step = max(1, ROWS // count)
    # The pad shifts each row by some cache lines, else a column's elements all fall into one set of the cache.
    tile = np.empty((step * count, outputs + _PAD), source.dtype)
    for i in range(0, inputs, step):
        # (h·w, in, out) → (in, h·w, out): whole rows of outputs are copied, which is fast in both.
        part = source[:, i : i + step].transpose(1, 0, 2)
        rows = tile[: part.shape[0] * count, :outputs].reshape(part.shape)  # splits an axis: a view
        np.copyto(rows, part)
        # (in, h·w, out) → (out, in, h·w): the slow direction, out of a tile that lies in the cache.
        np.copyto(target[:, i : i + step], rows.transpose(2, 0, 1))


def _from_torch(source: np.ndarray, target: np.ndarray) -> None:
    """`(out, in, window)` → `(window, in, out)`, likewise."""
    outputs, inputs, count = source.shape
    step = max(1, _COLUMNS // count)
    tile = np.empty((ROWS, step * count + _PAD), source.dtype)
    # 1. A block of outputs and inputs, in the order of the file, into the tile; 2. the tile across into the result.
    for i in range(0, inputs, step):
        for o in range(0, outputs, ROWS):
            part = source[o : o + ROWS, i : i + step]
            rows = tile[: part.shape[0], : part.shape[1] * count].reshape(part.shape)
            np.copyto(rows, part)
            # (out, in, h·w) → (h·w, in, out)
            np.copyto(target[:, i : i + step, o : o + ROWS], rows.transpose(2, 1, 0))
