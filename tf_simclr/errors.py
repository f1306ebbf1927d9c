"""The one exception that means: the user's input is wrong, not the program."""

import contextlib
import sys
from collections.abc import Iterator


class InputError(ValueError):
    """Something that the user gave cannot be used.

    The message is one sentence: what must hold, what came instead, and what to do.
    Command lines print it without a traceback and exit with code 2.
    """


def check(holds: bool, rule: str, **received: object) -> None:
    """Raises `InputError` with the rule and what came instead, unless the rule holds.

    Example:
        >>> check(0.1 > 0, "temperature must be above 0", temperature=0.1)
    """
    if not holds:
        came = ", ".join(f"{name}={value!r}" for name, value in received.items())
        raise InputError(f"{rule}. Received: {came}" if came else rule)


@contextlib.contextmanager
def exit_on_input_error() -> Iterator[None]:
    """Turns an `InputError` into its message on stderr and exit code 2, and an interrupt into exit code 130."""
    try:
        yield
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; nothing half-written is left\n")
        raise SystemExit(130) from None
