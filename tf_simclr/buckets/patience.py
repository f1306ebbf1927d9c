"""Patience with a store: what waiting cures is tried again, what it does not cure is said at once."""

import math
import os
import random
import re
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from tf_simclr.errors import InputError, check
from tf_simclr.files.places import shown

_T = TypeVar("_T")

PATIENCE = 180.0
"""Seconds for which a request is tried again and again before the command ends, where `_VARIABLE` says no others."""
_VARIABLE = "TF_SIMCLR_PATIENCE"
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
"""Seconds between two tries: doubled each time, and drawn from its upper half, so that many machines do not come at
once."""


_NO_FAILURE = (TypeError, AttributeError, LookupError, NameError, AssertionError, Warning)
"""Of a program, not of a store."""


def _patience(environment: Mapping[str, str] = os.environ) -> float:
    """Seconds for which a request is tried again.

    Raises:
        InputError: the environment has something else there.

    Example:
        >>> _patience({}), _patience({"TF_SIMCLR_PATIENCE": "0.5"})
        (180.0, 0.5)
    """
    given = environment.get(_VARIABLE, "")
    if not given:
        return PATIENCE
    try:
        seconds = float(given)
    except ValueError:
        seconds = -1.0
    check(0 <= seconds < math.inf, f"{_VARIABLE} must be a number of seconds, at least 0", **{_VARIABLE: given})
    return seconds


def patiently(do: Callable[[], _T], address: str) -> _T:
    """What `do` returns, tried again with growing waits while the store fails.

    Args:
        do: one try.
        address: of what it is about, for people.

    Raises:
        InputError: it fails for all the seconds of patience, or for a reason that waiting does not cure.
        FileNotFoundError: what it asks for is not there.
    """
    patience, wait = _patience(), FIRST_WAIT
    end = time.monotonic() + patience
    while True:
        try:
            return do()
        except (InputError, FileNotFoundError, *_NO_FAILURE):  # a program's fault, or ours to say
            raise
        except Exception as error:
            _raise_for_good(error, address)  # what waiting does not cure
            if time.monotonic() + wait > end:
                rule = f"{address} must be reachable, but the store failed for {patience:.0f} seconds"
                last = f"the last time: {on_a_line(error)}"
                raise InputError(f"{rule}; {last}; the same command goes on later") from error
        # Drawn, so that a thousand machines that failed together do not come back together.
        time.sleep(random.uniform(wait / 2, wait))
        wait = min(2 * wait, LONGEST_WAIT)


def _code_of(error: BaseException | None) -> str:
    """S3's code of an error, wherever in its causes; "" where it has none."""
    # fsspec wraps the store's own error, whose code it is.
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, Mapping):
            return str(response.get("Error", {}).get("Code", ""))
        error = error.__cause__
    return ""


def is_refused(error: BaseException) -> bool:
    """Whether a store has refused a write by its condition."""
    return isinstance(error, FileExistsError) or _code_of(error) in ("PreconditionFailed", "412")


_FOR_GOOD = {"AuthorizationHeaderMalformed", "InvalidBucketName", "PermanentRedirect", "301", "MethodNotAllowed"}
_FOR_GOOD |= {"IllegalLocationConstraintException", "InvalidToken"}
_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError", "ProfileNotFound"}
_CREDENTIALS |= {"AuthenticationException"}
"""Names of exceptions of the stores' packages, which need not be there."""


def _raise_for_good(error: Exception, address: str) -> None:
    """Raises a sentence for what waiting does not cure: rights, credentials, names, a missing package.

    Raises:
        InputError: so it is.
    """
    code, kind, text = _code_of(error), type(error).__name__, str(error)
    rights = isinstance(error, PermissionError) or text.startswith(("Forbidden", "530 "))
    status = getattr(error, "status", None) or getattr(error, "code", None)
    if rights or status in (401, 403) or kind in _CREDENTIALS:
        rule = f"{address} must be open to you: give credentials as for the store's own tools (docs/buckets.md)"
        raise InputError(f"{rule}; it says: {on_a_line(error)}") from error
    if isinstance(error, ImportError):
        raise InputError(f"{address} needs {error.name or text}: pip install {error.name or 'it'}") from error
    if code in _FOR_GOOD or kind == "ParamValidationError" or text.startswith(("Invalid bucket name", "Bad Request")):
        raise InputError(f"{address} must be a place that the store can have; it says: {on_a_line(error)}") from error
    if isinstance(error, NotImplementedError | NotADirectoryError | IsADirectoryError):
        raise InputError(f"{address} cannot be used so; the store's package says: {on_a_line(error)}") from error


def on_a_line(error: BaseException) -> str:
    """An error on one line, shortened."""
    text = re.sub(r"\s+", " ", str(error)).strip() or type(error).__name__
    return shown(text if len(text) <= 200 else text[:200] + "…")
