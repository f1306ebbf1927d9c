"""PyTorch's files by PyTorch: what `torch_state.py` leaves to it, without running what a pickle may hold."""

import argparse
import pickle
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
import torch

from converters.stored import Source, Stored
from converters.torch_state import flatten
from tf_simclr.errors import InputError

_NUMPY = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
    torch.int64: "int64",
    torch.int32: "int32",
    torch.int16: "int16",
    torch.int8: "int8",
    torch.uint8: "uint8",
    torch.bool: "bool",
}


def open_torch(path: Path) -> Source:
    """Reads the outline of a `.pth`, `.pt` or `.ckpt` file; nested dictionaries' keys are joined with dots.

    Raises:
        InputError: the file is damaged, or would run code when loaded.
    """
    content = _load(path)
    tensors = {key: _stored(tensor) for key, tensor in flatten(content, torch.Tensor)}
    step = content.get("global_step") if isinstance(content, Mapping) else None
    return Source(path, "PyTorch file", tensors, step=step if isinstance(step, int) else None)


def _load(path: Path):
    with torch.serialization.safe_globals([argparse.Namespace]):  # plain options that training scripts store
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
        except pickle.UnpicklingError as error:
            raise InputError(
                f"{path} must hold tensors and plain values only, but its pickle asks for other code, which was not "
                f"run ({_first_line(error)}); if you trust it, save its state_dict() alone where it came from"
            ) from error
        except (RuntimeError, EOFError, ValueError, OSError, KeyError, IndexError, AttributeError, TypeError) as error:
            raise InputError(f"{path} must be a whole PyTorch file, but PyTorch says: {_first_line(error)}") from error


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    marks = [line.strip() for line in text.splitlines() if "GLOBAL" in line or "global" in line]
    return (marks or text.splitlines() or [type(error).__name__])[0][:200]


def _stored(tensor: torch.Tensor) -> Stored:
    if tensor.dtype not in _NUMPY:
        return Stored(tuple(tensor.shape), "float32", lambda: tensor.to(torch.float32).numpy())
    return Stored(tuple(tensor.shape), _NUMPY[tensor.dtype], lambda: to_numpy(tensor))


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """The tensor's values; NumPy has no bfloat16 of its own, `ml_dtypes` does."""
    tensor = tensor.detach().contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def to_torch(array: np.ndarray) -> torch.Tensor:
    """The inverse of `to_numpy`; shares the array's memory where it can be written to."""
    array = np.require(array, requirements=("C", "W"))
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
