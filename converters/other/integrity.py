"""Checksums of what this project writes into formats that have none: one of each tensor, one of what describes them.

A seal is hexadecimal text that a file carries in metadata of its own: eight digits of the description – the tensors'
names, dtypes, shapes and checksums, and what else the file says of itself – then eight of each tensor's bytes, in the
order of names.  All are CRC-32C's: they find damage, and are no signature.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from converters.tensors import Stored, bytes_of
from tf_simclr.errors import InputError, check
from tf_simclr.files.contents import crc32c

ABOUT = "tf_simclr"
"""Name under which a file describes itself, where its format has metadata: JSON; everything else there is others'."""
SEAL = "tf_simclr_crc32c"
"""Name under which it carries the seal.  A file of this project has both; damage to one name leaves the other."""
_DIGITS = 8

Outline = Mapping[str, tuple[str, tuple[int, ...]]]
"""Name → NumPy's name of the dtype, and shape, as the file has them."""


def outline_of(tensors: Mapping[str, Stored]) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {name: (stored.dtype, tuple(stored.shape)) for name, stored in tensors.items()}


def checksum(chunks: Iterable[bytes | memoryview], crc: int = 0) -> int:
    """The checksum of a tensor's little-endian bytes, which may come in chunks; goes on with `crc`."""
    for chunk in chunks:
        crc = crc32c(chunk, crc)
    return crc


def length(count: int) -> int:
    """Characters of the seal of so many tensors."""
    return _DIGITS * (count + 1)


def seal(outline: Outline, checksums: Mapping[str, int], *, description: str = "") -> str:
    """The text that a file carries.

    Args:
        outline: Of all tensors.
        checksums: Name → `checksum` of its bytes.
        description: What else the file says of itself, letter by letter.

    Example:
        >>> seal({"w": ("float32", (2,))}, {"w": checksum([bytes(8)])})
        '4d562b988c28b28a'
    """
    rows = [[name, outline[name][0], list(outline[name][1]), checksums[name]] for name in sorted(outline)]
    # The checksums are part of what is described: exchanging two tensors' checksums is told, too.
    described = crc32c(json.dumps([description, rows]).encode())
    return "".join(f"{number:08x}" for number in (described, *(checksums[name] for name in sorted(outline))))


def unseal(text: str, outline: Outline, *, path: Path, description: str = "") -> dict[str, int]:
    """Compares a seal with what the file describes.

    Returns:
        Name → the checksum that its bytes must have; `compared_when_read` looks when they are read.

    Raises:
        InputError: they differ; the file was changed after this project wrote it.
    """
    names = sorted(outline)
    # Length and letters first: a text that is cut off must not be read as fewer tensors.
    whole = len(text) == length(len(names)) and re.fullmatch("[0-9a-f]*", text)
    # Eight digits each: the first of what is described, then one a tensor in the order of names.
    numbers = [int(text[i : i + _DIGITS], 16) for i in range(_DIGITS, len(text), _DIGITS)] if whole else []
    checksums = dict(zip(names, numbers, strict=False))
    if not whole or seal(outline, checksums, description=description) != text:
        raise InputError(
            f"the names, types, shapes and description in {path} must match the checksum that this project wrote with "
            "them, but do not; copy the file again, or remove the metadata that begin with tf_simclr if you changed it"
        )
    return checksums


def compared_when_read(stored: Stored, crc: int, *, name: str, path: Path) -> Stored:
    """The tensor, whose bytes are compared with their checksum whenever it is read."""

    def compared(array: np.ndarray) -> np.ndarray:
        check(
            crc32c(bytes_of(array)) == crc,
            f"tensor {name} of {path} must match the checksum that this project wrote with it, but its bytes were "
            "changed; copy the file again",
        )
        return array

    return stored.changed(compared)
