"""The one exception that means: the user's input is wrong, not the program."""

import contextlib
import difflib
import errno
import operator
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from tf_simclr.terminal import forgive, write


class InputError(ValueError):
    """Something that the user gave cannot be used.

    The message is one sentence: what must hold, what came instead, and what to do.
    Command lines print it without a traceback and exit with code 2.
    """


def check(holds: object, rule: str, **received: object) -> None:
    """Raises `InputError` with the rule and what came instead, unless the rule holds.

    Example:
        >>> check(0.1 > 0, "temperature must be above 0", temperature=0.1)
    """
    if not holds:
        came = ", ".join(f"{name}={shortened(repr(value))}" for name, value in received.items())
        raise InputError(f"{rule}. Received: {came}" if came else rule)


def whole_number(value: Any, name: str, *, least: int | None = None, most: int | None = None) -> int:
    """A whole number where one is meant: 1.9 is none, nor is True or "1"; NumPy's integers are.

    Example:
        >>> whole_number(3, "step", least=0)
        3

    Raises:
        InputError: it is none, or outside of its range.
    """
    number = None
    # `operator.index` is Python's own question whether something counts, and refuses
    # "1" and 1.9. Only booleans answer it, too, and are no numbers to a person.
    with contextlib.suppress(TypeError):
        number = None if type(value).__name__ in ("bool", "bool_") else operator.index(value)
    fits = number is not None and (least is None or number >= least) and (most is None or number <= most)
    bounds = [f"at least {least}"] * (least is not None) + [f"at most {most}"] * (most is not None)
    rule = f"{name} must be a whole number{' of ' * bool(bounds)}{' and '.join(bounds)}"
    # The message names the last word of the name: of "the option epochs" `epochs=…` is what came.
    check(fits, rule, **{name.split()[-1]: value})
    return operator.index(value)


def shortened(text: str, most: int = 1000) -> str:
    """A text that fits a message: what comes from a file can have any length.

    Example:
        >>> shortened("abcdefgh", 4)
        'abcd…'
    """
    return text if len(text) <= most else f"{text[:most]}…"


def in_one_line(error: BaseException, most: int = 300) -> str:
    """What an error of a library says, in one line; where it says nothing, its kind.

    Example:
        >>> in_one_line(OSError("no\\n  network")), in_one_line(KeyError())
        ('no network', 'KeyError')
    """
    return " ".join(str(error).split())[:most] or type(error).__name__


def first_line(error: BaseException) -> str:
    """The first line of what an error says, of which some hold pages; where it says nothing, its kind."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def meant(word: str, names: Iterable[str], *, shown: str = "{}") -> str:
    """Which of some names may have been meant by a word that is none of them, to stand in a sentence.

    Example:
        >>> meant("traim", ["train", "test"]), meant("batch", ["train_batch_size", "seed"], shown="--{}")
        (' (did you mean train?)', ' (did you mean --train_batch_size?)')
        >>> meant("x", ["train"])
        ''
    """
    names = list(names)
    # Four attempts, from the surest to the boldest; a message without a suggestion is better than a wrong one.
    parts = [name for name in names if len(word) > 3 and word in name]  # what was left out is often a prefix
    near = sorted(parts, key=len)[:2] or difflib.get_close_matches(word, names, n=2, cutoff=0.7)
    near = near or [name for name in names if len(name) > 3 and name in word][:2]
    near = near or difflib.get_close_matches(word, names, n=1, cutoff=0.55)
    return f" (did you mean {' or '.join(shown.format(name) for name in near)}?)" if near else ""


_OF_RECORDS = ("DataLossError", "FailedPreconditionError")
_DAMAGED = re.compile(
    r"(truncated|corrupted) record at \d+|Input dataset was expected to contain \d+ elements but contained only \d+"
)
"""What TensorFlow, and TensorFlow Datasets by it, say of a file of records that is not what was written."""


@contextlib.contextmanager
def surfacing() -> Iterator[None]:
    """Raises what is the user's to mend as an `InputError`, where TensorFlow has made another error of it.

    That is an `InputError` that Python raised within a graph, and a file of records that is cut off or damaged.
    """
    try:
        yield
    # TensorFlow passes on the text of an exception that a Python function in a graph raised, and not the exception.
    except InputError:
        raise
    except Exception as error:
        found = re.search(rf"{InputError.__name__}: ([^\n]+)", str(error))
        if found is not None:
            raise InputError(found[1]) from error
        damaged = _DAMAGED.search(str(error)) if type(error).__name__ in _OF_RECORDS else None
        if damaged is None:
            raise
        rule = f"the data set's files must be whole, but one is cut off or damaged ({damaged[0]})"
        raise InputError(f"{rule}; prepare the data set again, or copy it anew") from error


@contextlib.contextmanager
def exit_on_input_error() -> Iterator[None]:
    """Turns an `InputError` or a full disk into a sentence and exit code 2, and an interrupt into exit code 130."""
    # Before anything is said: the sentence itself may have letters that the terminal lacks.
    forgive()
    try:
        with surfacing():
            yield
    except InputError as error:
        write(f"{error}\n", sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        # Whoever writes says so in a sentence of its own; this is for what libraries write, wherever they do.
        full = error.errno in (errno.ENOSPC, errno.EDQUOT) or "No usable temporary directory" in str(error)
        if not full:
            raise
        write(f"there must be room on the disk: {error}; make some, and begin again\n", sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        write("interrupted; nothing half-written is left\n", sys.stderr)
        raise SystemExit(130) from None
