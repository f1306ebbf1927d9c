"""Kernels from TensorFlow's layout to PyTorch's and back: HWIO ↔ OIHW, (in, out) ↔ (out, in).

Results are contiguous: safetensors writes a transposed view's bytes in the wrong order.
"""

import numpy as np

TILE = 128
"""Rows and columns that are transposed at once; a tile fits the cache, which halves the time."""


class Memory:
    """Arrays in memory that is used again and again: fresh pages cost more time than a transposition."""

    def __init__(self) -> None:
        self._buffers: dict[str, np.ndarray] = {}
        self._turn = 0

    def take(self, shape: tuple[int, ...], dtype: np.dtype, *, use: str) -> np.ndarray:
        """An array with any content, in the memory of the former one of the same use."""
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        buffer = self._buffers.get(use)
        if buffer is None or buffer.size < size:
            buffer = self._buffers[use] = np.empty(size, np.uint8)
        return buffer[:size].view(dtype).reshape(shape)

    def result(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array that is valid until the next but one: while it is written, the next is laid out."""
        self._turn = 1 - self._turn
        return self.take(shape, dtype, use=f"result {self._turn}")


def to_layout(array: np.ndarray, *, torch: bool, memory: Memory | None = None) -> np.ndarray:
    """A hub array in the layout of a naming.

    Args:
        array: In TensorFlow's layout.
        torch: Whether the naming has PyTorch's layout.
        memory: If given, the result is valid until the next call but one.
    """
    if not torch or array.ndim < 2:
        return array
    memory = memory or Memory()
    *window, inputs, outputs = array.shape
    count = int(np.prod(window, dtype=np.int64))
    rows = array.reshape(count, inputs, outputs)
    if count > 1:
        rows = memory.take((inputs, count, outputs), array.dtype, use="rows")
        np.copyto(rows, array.reshape(count, inputs, outputs).transpose(1, 0, 2))
    result = memory.result((outputs, inputs * count), array.dtype)
    _transpose(rows.reshape(inputs * count, outputs), result)
    return result.reshape(outputs, inputs, *window)


def from_layout(array: np.ndarray, *, torch: bool) -> np.ndarray:
    """The inverse of `to_layout`."""
    if not torch or array.ndim < 2:
        return array
    outputs, inputs, *window = array.shape
    count = int(np.prod(window, dtype=np.int64))
    rows = np.empty((inputs * count, outputs), array.dtype)
    _transpose(array.reshape(outputs, inputs * count), rows)
    if count == 1:
        return rows.reshape(*window, inputs, outputs)
    return np.ascontiguousarray(rows.reshape(inputs, count, outputs).transpose(1, 0, 2)).reshape(
        *window, inputs, outputs
    )


def layout_shape(shape: tuple[int, ...], *, torch: bool) -> tuple[int, ...]:
    """A hub shape in the layout of a naming.

    Example:
        >>> layout_shape((7, 7, 3, 64), torch=True)
        (64, 3, 7, 7)
    """
    return (*reversed(shape[-2:]), *shape[:-2]) if torch and len(shape) > 1 else shape


def _transpose(source: np.ndarray, target: np.ndarray) -> None:
    for column in range(0, source.shape[1], TILE):
        for row in range(0, source.shape[0], TILE):
            tile = source[row : row + TILE, column : column + TILE]
            target[column : column + TILE, row : row + TILE] = tile.T
