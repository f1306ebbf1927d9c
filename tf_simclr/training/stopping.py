"""SIGTERM, which preemptible machines send before they vanish, SIGHUP, which a lost terminal sends, and Ctrl-C.

They are noted at once and obeyed after a step.
"""

import signal
import threading
from typing import NoReturn

EXIT_CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}
if hasattr(signal, "SIGHUP"):  # not on Windows
    EXIT_CODES[signal.SIGHUP] = 129
"""What a stopped command ends with, as shells count: 128 and the signal's number."""


class Stopping:
    """A block in which SIGTERM, SIGHUP and Ctrl-C set `signal` instead of ending the process; a second Ctrl-C ends it.

    Outside of the main thread, where Python cannot receive signals, and for signals that the process ignores (`nohup`),
    nothing changes.
    """

    def __init__(self):
        self.signal: signal.Signals | None = None
        self.before: dict = {}

    def __enter__(self) -> "Stopping":
        if threading.current_thread() is threading.main_thread():
            for number in EXIT_CODES:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self.before[number] = signal.signal(number, self.note)
        return self

    def __exit__(self, kind, *_):
        for number, handler in self.before.items():
            signal.signal(number, handler)
        if self.signal and kind is None:  # it came after the last step, and all is saved
            self.obey()

    def note(self, number: int, _frame) -> None:
        """Keeps a signal for later, unless it is the second Ctrl-C."""
        if self.signal == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)

    def obey(self) -> NoReturn:
        """Ends the command as the signal that came asks for: `KeyboardInterrupt`, or `SystemExit` with its code."""
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(EXIT_CODES[self.signal])
