"""Writing to a terminal, a pipe or a notebook: no result is lost by saying it.

A letter that the terminal's encoding lacks (`LC_ALL=C`, Latin-1, Windows' code pages) is written as `\\u2192`, a pipe
whose reader has left (`| head`) or a terminal that is gone takes no more, and the command goes on and ends as if all
had been read.  Everything that this project says goes through `write`; what libraries say (help, warnings) is made as
patient by `forgive`, which every program calls first.
"""

import contextlib
import os
import re
import shlex
import sys
import time
from pathlib import Path
from typing import Any, TextIO

_STANDING: dict[str, str] = {}
"""Path of this machine → the address in a bucket that it stands for."""


def stand_for(path: str, address: str) -> None:
    """Has people see an address wherever a path is told of, or anything below it."""
    _STANDING[path] = address


def forget(path: str) -> None:
    """Has them see the path again."""
    _STANDING.pop(path, None)


def addressed(text: str) -> str:
    """A text with addresses in the place of the paths that stand for them.

    Example:
        >>> stand_for("/cache/b/run", "gs://b/run")
        >>> addressed("into /cache/b/run, not /cache/b/run2: /cache/b/run/x"), forget("/cache/b/run")
        ('into gs://b/run, not /cache/b/run2: gs://b/run/x', None)
    """
    # Sorted and reversed: `/a/b` comes before `/a`, which would otherwise take its beginning.
    for path, address in sorted(_STANDING.items(), reverse=True):
        if path in text:
            # Only where the path ends or goes on below: `/a/run` must not be replaced in `/a/run2`.
            text = re.sub(re.escape(path) + r"(?=[/\s'\",;:)\]]|\.\W|\.?$)", lambda _, to=address: to, text)  # type: ignore[misc]
    return text


_REDRAWN = 0.5
"""Seconds between two drawings of a line that stays in its place."""


def write(text: str, stream: TextIO | None = None) -> None:
    """Writes a text at once, as far as the stream can take it; never raises for what the stream cannot do.

    Args:
        text: with its line ends.
        stream: by default standard output; None there (no console) takes nothing.
    """
    stream = sys.stdout if stream is None else stream
    if stream is None:
        return
    text = addressed(text) if _STANDING else text
    try:
        # What the stream's encoding lacks is written as escapes; the rest of the text stays.
        try:
            stream.write(text)
        except UnicodeEncodeError:
            encoding = stream.encoding or "ascii"
            stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except (OSError, ValueError):  # nobody reads any more: a closed pipe, a terminal that is gone, a closed stream
        _abandon(stream)


def say(line: str) -> None:
    """Writes a line to the user, beside the line of progress and apart from results that are piped on."""
    write(line + "\n", sys.stderr)


def show(text: str) -> None:
    """Writes a result to standard output."""
    write(text + "\n")


class Line:
    """A line that tells how far something is: on a terminal redrawn in place until one stays; a file gets those alone.

    Args:
        out: by default standard errors, apart from results that are piped on.
        now: the time, in seconds of whatever clock the caller goes by.
    """

    def __init__(self, out: TextIO | None = None, *, now: float):
        self.out = sys.stderr if out is None else out
        self.drawn = now

    @property
    def in_place(self) -> bool:
        """Whether it can be redrawn: a person watches a terminal."""
        return self.out is not None and self.out.isatty()

    def due(self, now: float) -> bool:
        """Whether it is time to draw again: seldom enough for a reader, and for what is being done."""
        return self.in_place and now - self.drawn > _REDRAWN

    def draw(self, text: str, *, now: float) -> None:
        """Draws it in the place of the one before; ask `due` first."""
        self.drawn = now
        write(f"\r{text}\x1b[K", self.out)  # what the line before had behind this one's end is cleared

    def keep(self, text: str) -> None:
        """Writes it so that it stays, in the place of what was drawn."""
        write(("\r\x1b[K" if self.in_place else "") + text + "\n", self.out)


class Tally(Line):
    """Tells how many images are done: one line redrawn on a terminal, elsewhere one at the end."""

    def __init__(self, what: str, total: int, *, out: TextIO | None = None):
        self.what, self.total, self.began = what, total, time.monotonic()
        super().__init__(out, now=self.began)

    def __call__(self, done: int) -> None:
        """Notes that so many are done."""
        now = time.monotonic()
        if done < self.total and not self.due(now):
            return
        seconds = now - self.began
        rate = done / max(seconds, 1e-9)
        if done >= self.total:
            self.keep(f"{self.what}: {done:,} in {seconds:,.0f} s ({rate:,.0f} images/s)")
            return
        left = (self.total - done) / rate
        self.draw(f"{self.what}: {done:,}/{self.total:,}, {rate:,.0f} images/s, {left:,.0f} s left", now=now)


def typed(*words: object, program: str = "python -m tf_simclr") -> str:
    """A command of this project as it is to be typed: whole, each word as the shell takes it.

    A path that begins with a dash is written so that no program takes it for an option.

    Example:
        >>> typed("linear-eval", "--checkpoint", "my runs/pets")
        "python -m tf_simclr linear-eval --checkpoint 'my runs/pets'"
        >>> typed(Path("-x"), program="simclr-convert inspect")
        'simclr-convert inspect ./-x'
    """
    dashed = [f"./{word}" if isinstance(word, Path) and str(word).startswith("-") else str(word) for word in words]
    return f"{program} {shlex.join(dashed)}"


def _abandon(stream: TextIO) -> None:
    """Lets a stream lead nowhere, so that Python does not complain of what is left in it when it ends."""
    # The descriptor itself is led to nowhere, as Python flushes the stream once more at its end.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, stream.fileno())
        finally:
            os.close(nowhere)


def forgive() -> None:
    """Has standard output and errors write letters that they lack as `\\u2192`, whoever writes them.

    Where one of the three streams is closed (`2>&-`, a daemon) it leads to nowhere from here on: the next file to be
    opened would take its number, and what native libraries write to that number would stand in a checkpoint.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    streams: tuple[Any, ...] = (sys.stdout, sys.stderr)
    for stream in streams:
        if hasattr(stream, "reconfigure"):
            with contextlib.suppress(OSError, ValueError):
                stream.reconfigure(errors="backslashreplace")
