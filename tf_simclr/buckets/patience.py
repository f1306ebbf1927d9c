"""Patience with a store: what waiting cures is tried again, what it does not cure is said at once."""

import os
import random
import re
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from tf_simclr.errors import InputError
from tf_simclr.places import shown

_T = TypeVar("_T")

PATIENCE = float(os.environ.get("TF_SIMCLR_PATIENCE") or 180)
"""Seconds for which a request is tried again and again before the command ends."""
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
"""Seconds between two tries: doubled each time, and drawn from its upper half, so that many machines do not come at
once."""


_NO_FAILURE = (TypeError, AttributeError, LookupError, NameError, AssertionError, Warning)
"""Of a program, not of a store."""


def patiently(do: Callable[[], _T], address: str) -> _T:
    """What `do` returns, tried again with growing waits while the store fails.

    Args:
        do: one try.
        address: of what it is about, for people.

    Raises:
        InputError: it fails for `PATIENCE` seconds, or for a reason that waiting does not cure.
        FileNotFoundError: what it asks for is not there.
    """
    end, wait = time.monotonic() + PATIENCE, FIRST_WAIT
    # 1. One try.  2. What is a program's fault, or ours to say, goes through.  3. What waiting does not cure is
    # said.  4. Wait, twice as long each time, up to PATIENCE in all.
    while True:
        try:
            return do()
        except (InputError, FileNotFoundError, *_NO_FAILURE):
            raise
        except Exception as error:
            _raise_for_good(error, address)
            if time.monotonic() + wait > end:
                rule = f"{address} must be reachable, but the store failed for {PATIENCE:.0f} seconds"
                last = f"the last time: {_told(error)}"
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
"""Names of exceptions of the stores' packages, which need not be there."""


def _raise_for_good(error: Exception, address: str) -> None:
    """Raises a sentence for what waiting does not cure: rights, credentials, names, a missing package.

    Raises:
        InputError: so it is.
    """
    code, kind, text = _code_of(error), type(error).__name__, str(error)
    rights = isinstance(error, PermissionError) or text.startswith("Forbidden")
    if rights or getattr(error, "code", None) in (401, 403) or kind in _CREDENTIALS:
        rule = f"{address} must be open to you: give credentials as for the store's own tools (docs/buckets.md)"
        raise InputError(f"{rule}; it says: {_told(error)}") from error
    if isinstance(error, ImportError):
        raise InputError(f"{address} needs {error.name or text}: pip install {error.name or 'it'}") from error
    if code in _FOR_GOOD or kind == "ParamValidationError" or text.startswith(("Invalid bucket name", "Bad Request")):
        raise InputError(f"{address} must be a place that the store can have; it says: {_told(error)}") from error
    if isinstance(error, NotImplementedError | NotADirectoryError | IsADirectoryError):
        raise InputError(f"{address} cannot be used so; the store's package says: {_told(error)}") from error


def _told(error: BaseException) -> str:
    """An error on one line, shortened."""
    text = re.sub(r"\s+", " ", str(error)).strip() or type(error).__name__
    return shown(text if len(text) <= 200 else text[:200] + "…")
