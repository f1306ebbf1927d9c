"""Signals that stop a command: SIGTERM, SIGHUP and Ctrl-C, which end it where nothing is lost by that."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

ENDINGS: tuple[signal.Signals, ...] = (signal.SIGTERM,)
if hasattr(signal, "SIGHUP"):  # not on Windows
    ENDINGS += (signal.SIGHUP,)
"""Signals of preemption, of launchers and of a lost terminal; Ctrl-C is Python's own."""
EXIT_CODES: dict[int, int] = {number: 128 + number for number in (*ENDINGS, signal.SIGINT)}
"""What a stopped command ends with, as shells count: 128 and the signal's number."""


class Stopped(SystemExit):
    """A signal ends all processes of a training, behind the same step."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C to one process ends all processes of a training, behind the same step."""


class Stopping:
    """A block in which SIGTERM, SIGHUP and Ctrl-C set `signal` instead of ending the process; a second Ctrl-C ends it.

    Outside of the main thread, where Python cannot receive signals, and for signals that the process ignores (`nohup`),
    nothing changes.

    Args:
        signal: one that has come before; a Ctrl-C is then the second one.
    """

    def __init__(self, signal: signal.Signals | None = None) -> None:
        self.signal = signal
        self.before: dict = {}
        self.impatient = False

    def __enter__(self) -> "Stopping":
        # Python lets only the main thread handle signals.
        if threading.current_thread() is threading.main_thread():
            for number in EXIT_CODES:
                # Ignored by whoever started it, as by nohup: it stays so.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self.before[number] = signal.signal(number, self.note)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        if self.signal and kind is None:  # it came after the last step, and all is saved
            self.obey()

    def note(self, number: int, _frame: Any) -> None:
        """Keeps a signal for later, unless it is the second Ctrl-C."""
        # Asked twice, it ends at once.
        if self.signal == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
        if self.impatient:
            self.obey()

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """A block that a signal ends where it is: nothing is lost by that."""
        if self.signal is not None:
            self.obey()
        self.impatient = True
        try:
            yield
        finally:
            self.impatient = False

    def obey(self, *, together: bool = False) -> NoReturn:
        """Ends the command as the signal that came asks for: `KeyboardInterrupt`, or `SystemExit` with its code.

        Args:
            together: all processes of the training do so, and their exceptions say that (`Stopped`, `Interrupted`).
        """
        if self.signal == signal.SIGINT:
            raise Interrupted if together else KeyboardInterrupt
        raise (Stopped if together else SystemExit)(EXIT_CODES[int(self.signal or signal.SIGTERM)])


@contextlib.contextmanager
def raising() -> Iterator[None]:
    """A block that SIGTERM and SIGHUP end by `SystemExit`, so that what it began is brought to its end.

    Who ignores a signal, or handles it, goes on doing so.
    """

    def end(number: int, _frame: Any) -> None:
        raise SystemExit(EXIT_CODES[number])

    able = threading.current_thread() is threading.main_thread()
    taken = [number for number in ENDINGS if able and signal.getsignal(number) == signal.SIG_DFL]  # `nohup` stays
    for number in taken:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)
