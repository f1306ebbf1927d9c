"""A place beside the target for what is not proven yet: the target changes at the end, and only if all is well."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from converters.tensorflow.folders import STATE
from tf_simclr.errors import InputError


@contextlib.contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A temporary path with the target's ending, for a file or a folder; put in place when the block ends well.

    On any exception, an interrupt too, what was written is removed and what was at the target stays.

    Raises:
        InputError: the block's, naming the target; or the target cannot be written.
    """
    place = target.with_name(f".{os.getpid()}.{target.name}")
    try:
        yield place
        _settle(place, target)
    except InputError as error:
        raise InputError(str(error).replace(str(place), str(target))) from error
    except OSError as error:
        raise InputError(f"{target} must be writable: {error.strerror or error}; choose another place") from error
    finally:
        _remove(place)


def _settle(place: Path, target: Path) -> None:
    """Moves a file, or a folder's files into a folder that may hold others."""
    if not (place.is_dir() and target.is_dir()):
        place.replace(target)
        return
    files = [path for path in place.rglob("*") if path.is_file()]
    for path in sorted(files, key=lambda path: path.name == STATE):  # it names the others: last
        goal = target / path.relative_to(place)
        goal.parent.mkdir(parents=True, exist_ok=True)
        path.replace(goal)


def _remove(place: Path) -> None:
    if place.is_dir():
        shutil.rmtree(place)
    else:
        with contextlib.suppress(OSError):  # the folder itself may be missing; the error tells
            place.unlink(missing_ok=True)
