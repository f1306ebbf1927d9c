"""Writing to a terminal, a pipe or a notebook: no result is lost by saying it.

A letter that the terminal's encoding lacks (`LC_ALL=C`, Latin-1, Windows' code pages) is written as `\\u2192`, a pipe
whose reader has left (`| head`) or a terminal that is gone takes no more, and the command goes on and ends as if all
had been read.  Everything that this project says goes through `write`; what libraries say (help, warnings) is made as
patient by `forgive`, which every program calls first.
"""

import contextlib
import os
import sys
from typing import Any, TextIO


def write(text: str, stream: TextIO | None = None) -> None:
    """Writes a text at once, as far as the stream can take it; never raises for what the stream cannot do.

    Args:
        text: with its line ends.
        stream: by default standard output; None there (no console) takes nothing.
    """
    stream = sys.stdout if stream is None else stream
    if stream is None:
        return
    try:
        try:
            stream.write(text)
        except UnicodeEncodeError:
            encoding = stream.encoding or "ascii"
            stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except (OSError, ValueError):  # nobody reads any more: a closed pipe, a terminal that is gone, a closed stream
        abandon(stream)


def abandon(stream: TextIO) -> None:
    """Lets a stream lead nowhere, so that Python does not complain of what is left in it when it ends."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, stream.fileno())
        finally:
            os.close(nowhere)


def forgive() -> None:
    """Has standard output and errors write letters that they lack as `\\u2192`, whoever writes them."""
    streams: tuple[Any, ...] = (sys.stdout, sys.stderr)
    for stream in streams:
        if hasattr(stream, "reconfigure"):
            with contextlib.suppress(OSError, ValueError):
                stream.reconfigure(errors="backslashreplace")
