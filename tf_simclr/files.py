"""Files that appear whole or not at all."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from tf_simclr.errors import InputError


@contextlib.contextmanager
def replacing(*paths: str | Path) -> Iterator[list[BinaryIO]]:
    """Opens a temporary file beside each path, and puts them in place, in this order, when the block ends well.

    On any exception, an interrupt too, the temporary files are removed and what was at the paths stays.

    Raises:
        InputError: the folder cannot be written or the disk is full.
    """
    with contextlib.ExitStack() as stack:
        temporary = [stack.enter_context(replacing_path(path)) for path in reversed(paths)][::-1]
        with contextlib.ExitStack() as files:
            yield [files.enter_context(path.open("wb")) for path in temporary]


@contextlib.contextmanager
def replacing_path(path: str | Path) -> Iterator[Path]:
    """A temporary name beside the path, with its ending, for writers that want a name; else as `replacing`."""
    path = Path(path)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path} must be writable: {error.strerror or error}; choose another place") from error
    finally:
        with contextlib.suppress(OSError):  # the folder itself may be missing; the error above tells
            temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Writes plain types as JSON that a person can read."""
    with replacing(path) as [file]:
        file.write((json.dumps(content, indent=2, default=str) + "\n").encode())
