"""Reading what others wrote: one budget for every reader, and one list of exceptions that mean "damaged".

Every parser of foreign bytes runs inside `reading`:

    with reading(path, "an intact checkpoint index"):   # any exception of `DAMAGED` → one `InputError` with the path
        for key, value in rows(path.read_bytes()):
            spend(items=1, outline=len(key))              # before the key is made, not after

The outermost `reading` makes a `Budget` by the size of what is at the path; those within it draw from the same one, so
that its limits are on sums over the whole file, folder or archive.  It is found by a context variable: no reader hands
it on.  Outside of any `reading`, `spend` limits nothing.  What reads later (a tensor, when it is asked for) goes on
with the budget that its outline was read with: `reading(path, what, budget=…)`.

| to                                          | call                                          |
| ------------------------------------------- | --------------------------------------------- |
| count keys, nodes, fields, members          | `spend(items=…)`                              |
| count bytes that will be made, or unpacked  | `spend(made=…)`; for a tensor: `spend_tensor` |
| count bytes of names, texts, structures     | `spend(outline=…)`                            |
| go one level down                           | `with deeper():`                              |
| take a name on which others match, split, … | `checked_name(text)`                          |
| parse JSON                                  | `parse_json(data)`                            |
| read headers that claim any length          | `Headers(file)`                               |
| open a file that nobody may have linked     | `open_unlinked(path, flags)`                  |
"""

import contextlib
import csv
import itertools
import json
import lzma
import math
import os
import pickle
import stat
import struct
import tarfile
import time
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tf_simclr.errors import InputError, shortened

DAMAGED: tuple[type[Exception], ...] = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    EOFError,
    LookupError,  # KeyError, IndexError, unknown encodings
    MemoryError,
    OSError,
    RuntimeError,  # RecursionError, NotImplementedError; zipfile's passwords; h5py's and torch's own
    SyntaxError,  # NumPy's headers, Pillow's chunks, XML
    SystemError,  # a decoder in C
    TypeError,
    ValueError,  # UnicodeDecodeError, JSON
    csv.Error,
    lzma.LZMAError,
    pickle.UnpicklingError,
    struct.error,
    tarfile.TarError,
    tokenize.TokenError,  # NumPy's headers
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
)
"""What parsers raise at bytes that they did not expect."""

# By module name: an exception of a package that is imported here would cost its import in every command.
_PARSERS = frozenset({"PIL", "cramjam", "google", "h5py", "pandas", "pyarrow", "pydicom", "safetensors", "tensorflow"})
"""Packages whose own exceptions mean the same; they derive from `Exception` alone, and are not imported for it."""

ITEMS = 2_000_000
"""Keys, nodes, fields, members: the graph of a ResNet-152's training has some 500,000 fields."""
TENSOR = 32
"""Items that a tensor counts for: no more than 62,500 in a file.  A ResNet-152 with slots and averages has 4,000."""
_MADE = 64 << 20
"""Bytes that any file may become."""
_OUTLINE = 128 << 20
"""Bytes of names, texts and structures, however large the weights beside them are."""
AXES = 254
"""Axes of a tensor; TensorFlow knows no more."""
RATIO = 8
"""Bytes that a byte of a file may become: weights hardly compress, and fresh slots are zeros."""
DEPTH = 64
"""Levels: a weight of a Keras model inside another is some 15 down."""
SECONDS = 30.0
"""Computing time of the reading thread for the outline, not for the tensors' bytes."""
NAME = 2_000
"""Characters of a name: those of TensorFlow's generated functions have a few hundred."""
_HEADER = 1 << 20
"""Bytes that are read at once of a header."""
_CLOCK = 64
"""The clock is looked at once in so many calls."""
_ADVICE = "copy or download it again"
"""What to do about a damaged file, where nothing better is known."""


@dataclass
class Budget:
    """What reading one file, folder or archive may still cost.

    Attributes:
        made: bytes of content.
        outline: bytes of names, texts and structures.
        items: keys, nodes, fields, members.
        depth: levels.
        seconds: computing time of a thread.
    """

    made: int = _MADE
    outline: int = _OUTLINE
    items: int = ITEMS
    depth: int = DEPTH
    seconds: float = SECONDS
    _begin: float = field(default_factory=time.thread_time, repr=False)
    _calls: int = field(default=0, repr=False)

    def spend(self, *, made: int = 0, items: int = 0, outline: int = 0) -> None:
        """Takes from what is left.

        Raises:
            InputError: it does not suffice.
        """
        # A count of bytes, items and names is subtracted at every
        # part of a file; so this is the most called function here.
        self.made -= made
        self.items -= items
        self.outline -= outline
        self._calls += 1
        if self.made < 0 or self.outline < 0:
            raise InputError("its content would take far more memory than a file of its size can need")
        if self.items < 0:
            raise InputError("it has more parts than any checkpoint")
        # Asking the system for the time costs more than the arithmetic above.
        if self._calls % _CLOCK == 0 and time.thread_time() - self._begin > self.seconds:
            raise InputError(f"its outline takes more than {self.seconds:.0f} seconds to read")

    @contextlib.contextmanager
    def deeper(self) -> Iterator[None]:
        """One level down, as long as the block runs."""
        if self.depth <= 0:
            raise InputError("it is nested more deeply than any checkpoint")
        self.depth -= 1
        try:
            yield
        finally:
            self.depth += 1


_CURRENT: ContextVar[Budget | None] = ContextVar("budget", default=None)
"""The budget of the `reading` that is going on; outside of any nothing is limited."""


def spend(*, made: int = 0, items: int = 0, outline: int = 0) -> None:
    """Takes from the budget of the `reading` that is going on; see `Budget.spend`."""
    budget = _CURRENT.get()
    if budget is not None:
        budget.spend(made=made, items=items, outline=outline)


def spend_tensor(shape: tuple[int, ...], itemsize: int) -> int:
    """Takes a tensor from the budget: by its shape, whatever the file holds of it.

    Returns:
        Its bytes.
    """
    if len(shape) > AXES:
        raise InputError(f"a tensor in it has {len(shape):,} axes, more than {AXES}")
    # `math.prod` computes in whole numbers of any size: no shape overflows to a small product.
    size = math.prod(shape) * itemsize
    spend(made=size, items=TENSOR)
    return size


def deeper() -> contextlib.AbstractContextManager[None]:
    """One level down in the budget of the `reading` that is going on."""
    budget = _CURRENT.get()
    return contextlib.nullcontext() if budget is None else budget.deeper()


def checked_name(text: str) -> str:
    """A name that can be split, matched and printed.

    Raises:
        InputError: it is not.
    """
    if len(text) > NAME:
        raise InputError(f"a name in it has {len(text):,} characters, more than {NAME:,}: {text[:40]!r}…")
    if not text.isprintable():
        raise InputError(f"a name in it has letters that cannot be printed: {text[:40]!r}")
    spend(outline=len(text))
    return text


@contextlib.contextmanager
def archived(path: Path, what: str, *, advice: str) -> Iterator[Any]:
    """The arrays of an `.npz` by name, as NumPy's archive; errors and arguments are those of `reading`."""
    import numpy as np

    # Opened here: NumPy leaves what it opens itself open where it is damaged.
    with reading(path, what, advice=advice), path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        yield stored


@contextlib.contextmanager
def reading(
    path: str | Path,
    what: str = "an intact file",
    *,
    budget: Budget | None = None,
    advice: str = _ADVICE,
) -> Iterator[Budget]:
    """Runs a parser of foreign bytes: within a budget, and with one sentence for whatever it raises.

    Args:
        path: what is read; named in every message.
        what: completes "PATH must be …".
        budget: goes on with this one.  By default that of the `reading` around, else a new one for the size of what
            is at the path.
        advice: what to do about a damaged one.

    Raises:
        InputError: an exception of `DAMAGED`, with the path; an `InputError` is passed on, with the path before it
            where it does not name it; a pipe, a socket or a device lies at the path.
    """
    # One `reading` within another spends from the outer's budget: a folder of files does not get a budget a file.
    budget = budget or _CURRENT.get() or Budget(made=max(_MADE, RATIO * size_at(Path(path))), items=ITEMS)
    # Before anything is opened: a pipe without a writer, in the place of a file, would be waited for without an end.
    if _is_stream(path):
        raise InputError(f"{path} must be {what}, but is a pipe, socket or device; put what it gives into a file")
    token = _CURRENT.set(budget)
    try:
        yield budget
    except InputError as error:
        # The sentence names the file once, and holds nothing that a terminal would obey.
        name, text = Path(path).name, _printable(str(error))
        if name and name in text and text == str(error):
            raise
        raise InputError(text if name and name in text else f"{path} must be {what}, but {text}") from error
    except Exception as error:
        # An interrupt, or a fault of this program, stays what it is.
        if not means_damaged(error):
            raise
        raise InputError(sentence(path, what, error=error, advice=advice)) from error
    finally:
        _CURRENT.reset(token)


def _is_stream(path: str | Path) -> bool:
    """Whether what lies at a path gives its bytes once, or never."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode) or stat.S_ISBLK(mode)


def means_damaged(error: BaseException) -> bool:
    """Whether an exception in a parser tells of the bytes, not of the program's end."""
    return isinstance(error, DAMAGED) or (
        isinstance(error, Exception) and type(error).__module__.partition(".")[0] in _PARSERS
    )


def sentence(path: str | Path, what: str, *, error: Exception, advice: str) -> str:
    """What a user is told instead of a traceback."""
    if isinstance(error, MemoryError):
        reason = "reading it takes more memory than there is"
    elif isinstance(error, RecursionError):
        reason = "it is nested too deeply"
    elif isinstance(error, OSError) and error.strerror:
        reason = f"it cannot be read: {error.strerror}"
    else:
        text = _printable(" ".join(str(error)[:200].split()))
        reason = f"it is damaged ({type(error).__name__}{f': {text}' if text else ''})"
    return f"{path} must be {what}, but {reason}; {advice}"


def _printable(text: str) -> str:
    """A text without letters that could move a terminal's cursor, and not without end.

    Example:
        >>> _printable("no tensor a\\x1b[2J\\n")
        'no tensor a\\\\x1b[2J\\\\n'
    """
    text = shortened(text, 3000)
    return text if text.isprintable() else "".join(x if x.isprintable() else ascii(x)[1:-1] for x in text)


class Headers:
    """A file as a reader of its headers takes it: of which no more is read at once than a header can need."""

    def __init__(self, file: IO[bytes]):
        self.file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        """So many bytes; refused where that is as much as no name has, since headers claim any length."""
        if not 0 <= size <= _HEADER:
            raise InputError("a header of it is longer than any name")
        return self.file.read(size)


def is_plain(path: str) -> bool:
    """Whether a path stays below the folder that it is joined to, on every system.

    Example:
        >>> is_plain("hub/saved_model.pb"), is_plain("../x"), is_plain("/x"), is_plain("a:b")
        (True, False, False, False)
    """
    # Also what Windows alone refuses or takes for another folder: `C:x`, `a\b`.
    parts = path.split("/")
    return all(part not in ("", ".", "..") for part in parts) and not set(path) & set('\\:*?"<>|\0')


def size_at(path: Path, *, most: int = 10_000) -> int:
    """Bytes of a file, of all files below a folder, or of those whose names begin so (a checkpoint's prefix)."""
    total = 0
    with contextlib.suppress(OSError, ValueError):
        # A file, a prefix of several files, or a folder with all below it.
        if path.is_file():
            return path.stat().st_size
        if not path.is_dir():
            files = (one for one in path.parent.iterdir() if one.name.startswith(path.name) and one.is_file())
            return sum(one.stat().st_size for one in itertools.islice(files, most))
        for folder, _, names in os.walk(path):
            most -= len(names)
            if most < 0:
                break
            for name in names:
                with contextlib.suppress(OSError):  # dangling links
                    total += os.stat(os.path.join(folder, name)).st_size
    return total


def parse_json(data: bytes | str) -> Any:
    """Parses JSON whose keys are each there once, and counts its parts before they are made.

    Raises:
        InputError: it has more parts than the budget.
        ValueError, RecursionError: it is no JSON; inside `reading` one sentence.
    """
    data = data.encode() if isinstance(data, str) else data
    # Each of the four signs can begin a part; those within strings count, too,
    # which errs to the safe side. Python's objects take some twice of the text.
    spend(outline=2 * len(data), items=2 * sum(map(data.count, (b",", b"[", b"{", b":"))))
    return json.loads(data, object_pairs_hook=_once)


def dictionaries(node: Any) -> Iterator[dict[str, Any]]:
    """Every dictionary in a nest of JSON types, however deep."""
    # By a list of what waits, and not by calls: a deep nest would end Python's stack.
    waiting = [node]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            yield found
        waiting += found.values() if isinstance(found, dict) else found if isinstance(found, list | tuple) else ()


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise InputError(f"its JSON has the key {key[:40]!r} more than once")
        content[key] = value
    return content


def read_json(path: Path, what: str = "intact JSON", *, advice: str = _ADVICE) -> Any:
    """A small file's JSON.

    Raises:
        InputError: it is missing or no JSON.
    """
    with reading(path, what, advice=advice):
        # The budget first: it looks at the size before the bytes are in memory.
        spend(outline=path.stat().st_size)
        return parse_json(path.read_bytes())


def open_unlinked(path: str | Path, flags: int) -> int:
    """Opens a plain file by its own name, as `os.open`: not what a link at that name leads to, no pipe, no device.

    Raises:
        OSError: it is a link, no plain file, or cannot be opened.
    """
    # No link at the name itself, no waiting for the other end of a pipe, no descriptor left to programs started.
    extra = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    file = os.open(path, flags | extra | getattr(os, "O_BINARY", 0), 0o644)
    # After opening, by the descriptor: what is looked at is what was opened, whoever renames meanwhile.
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(22, "it is no plain file", str(path))
    return file
