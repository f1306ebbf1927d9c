"""Files that appear whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tf_simclr.errors import InputError


@contextlib.contextmanager
def replacing(*paths: str | Path) -> Iterator[list[BinaryIO]]:
    """Opens a temporary file beside each path, and puts them in place, in this order, when the block ends well.

    On any exception, an interrupt too, the temporary files are removed and what was at the paths stays.

    Raises:
        InputError: the folder cannot be written or the disk is full.
    """
    targets = [Path(path) for path in paths]
    temporary = [path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in targets]
    try:
        with contextlib.ExitStack() as stack:
            yield [stack.enter_context(path.open("wb")) for path in temporary]
        for source, path in zip(temporary, targets, strict=True):
            source.replace(path)
    except OSError as error:
        raise InputError(f"{targets[0]} must be writable: {error.strerror or error}; choose another place") from error
    finally:
        for path in temporary:
            with contextlib.suppress(OSError):  # the folder itself may be missing; the error above tells
                path.unlink(missing_ok=True)
