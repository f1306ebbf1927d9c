"""Tensors that are described but not yet read, and the file that they came from."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import ml_dtypes
import numpy as np


def dtype_of(name: str) -> np.dtype:
    """NumPy's dtype of a name; `bfloat16` is `ml_dtypes`'."""
    return np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)


@dataclass(frozen=True)
class Stored:
    """One tensor of a file.

    Attributes:
        shape: As the file has it.
        dtype: NumPy's name of the element type; `bfloat16` is `ml_dtypes`'.
        read: Reads it; no array is kept.
        parts: Reads it bit by bit, in the order of its bytes; each part is valid until the next. None: at once.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]
    parts: Callable[[], Iterator[np.ndarray]] | None = None

    def pieces(self) -> Iterator[memoryview]:
        """Its bytes, without gaps, as they are read."""
        for part in self.parts() if self.parts else (self.read(),):
            yield np.ascontiguousarray(part).reshape(-1).view(np.uint8).data

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return int(np.prod(self.shape, dtype=np.int64)) * dtype_of(self.dtype).itemsize


@dataclass
class Source:
    """What a file or folder holds, before names are understood.

    Attributes:
        path: As the user gave it.
        container: What it is, in words.
        tensors: Key → tensor; optimizer slots are keys that end in the slot's name.
        slots: Keys of optimizer state, where the container tells them from weights.
        step: Training step, where stored.
        selector: `ft_proj_selector`, where a stored graph or file tells.
        selector_from: The file that tells.
        architecture: Stored architecture as a dictionary; empty: none.
        notes: What the user should know.
        close: Releases files.
    """

    path: Path
    container: str
    tensors: dict[str, Stored]
    slots: frozenset[str] = frozenset()
    step: int | None = None
    selector: int | None = None
    selector_from: str = ""
    architecture: dict = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    close: Callable[[], None] = lambda: None
