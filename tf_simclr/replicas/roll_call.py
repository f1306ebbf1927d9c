"""A roll call before processes join: who is missing, came twice, or counts otherwise is named.

Neither TensorFlow nor JAX tells that: they wait, or abort.  The first process listens at the address where it will be
met, until each of the others has given its number; then it tells them to go on, and leaves the port to the backend.
"""

import contextlib
import json
import selectors
import socket
import time
from dataclasses import dataclass, field
from typing import cast

from tf_simclr.errors import InputError

_LINE = 4096
"""Most bytes of what one process tells another."""
_GO = "go"


@dataclass
class _Roll:
    """Who has come so far, at the first process."""

    count: int
    listening: socket.socket
    came: dict[int, socket.socket] = field(default_factory=dict)
    speaking: dict[socket.socket, bytes] = field(default_factory=dict)
    """Connections that have not said their number yet → what they said; strangers among them."""

    def missing(self) -> list[int]:
        return [number for number in range(1, self.count) if number not in self.came]

    def turn(self, seconds: float) -> str | None:
        """Waits for whoever speaks, and returns what is wrong with a process that came, if anything is."""
        with selectors.DefaultSelector() as waiting:  # as many as the system has descriptors; `select` takes 1,024
            for one in (self.listening, *self.speaking, *self.came.values()):
                waiting.register(one, selectors.EVENT_READ)
            ready = [key.fileobj for key, _ in waiting.select(seconds)]
        for one in cast(list[socket.socket], ready):
            if one is self.listening:
                connection = one.accept()[0]
                connection.setblocking(False)
                self.speaking[connection] = b""
                continue
            said = b""
            with contextlib.suppress(OSError):
                said = one.recv(_LINE)
            if one in self.speaking and said:
                self.speaking[one] += said
                if b"\n" in self.speaking[one]:
                    wrong = self.note(one, self.speaking.pop(one))
                    if wrong is not None:
                        return wrong
                elif len(self.speaking[one]) > _LINE:
                    self.drop(one)
            elif not said:  # it is gone; it may be started again
                self.drop(one)
        return None

    def drop(self, one: socket.socket) -> None:
        self.speaking.pop(one, None)
        for number in [number for number, other in self.came.items() if other is one]:
            del self.came[number]
        one.close()

    def note(self, one: socket.socket, line: bytes) -> str | None:
        """Takes the number of a process that came; strangers are sent away."""
        try:
            number, count = map(int, json.loads(line)["tf_simclr"])
        except (ValueError, TypeError, LookupError, RecursionError):
            one.close()
            return None
        again = number in self.came or number == 0
        self.came[number if not again else -1 - len(self.came)] = one  # it hears what is wrong, too
        if count != self.count:
            return f"all must be told the same number of processes, but 0 has {self.count} and {number} has {count}"
        if again or not 0 < number < count:
            return f"each process must have another number from 0 to {self.count - 1}, but two came as {number}"
        return None

    def tell(self, line: str) -> None:
        """Tells all that came, and ends the roll call."""
        for one in (*self.came.values(), *self.speaking):
            with contextlib.suppress(OSError):
                one.setblocking(True)
                one.settimeout(5)
                one.sendall(json.dumps(line).encode() + b"\n")
                one.shutdown(socket.SHUT_WR)
            one.close()


def call(place: tuple[str, int], count: int, *, seconds: float, who: str, more: str) -> None:
    """The first process's part: returns when all others have come.

    Args:
        place: host and port, of which the port is listened at.
        count: how many processes there are.
        seconds: to wait.
        who: brought them together, for the message.
        more: what can be done where it takes longer, for the message.

    Raises:
        InputError: some have not come, or two have one number, or another number of processes.
    """
    end = time.monotonic() + seconds
    with _listening(place[1]) as listening:
        roll = _Roll(count, listening)
        wrong = None
        while wrong is None and roll.missing() and time.monotonic() < end:
            wrong = roll.turn(max(0.0, min(1.0, end - time.monotonic())))
        absent = roll.missing()
        if wrong is None and absent:
            named, have = ("process", "has") if len(absent) == 1 else ("processes", "have")
            reason = f"{named} {', '.join(map(str, absent))} of {count} {have} not come, or ended meanwhile"
            wrong = f"all processes must meet within {seconds:.0f} s ({who}), but this one could not join"
            wrong = f"{wrong}: {reason}; start all of them again, {more}"
        roll.tell(_GO if wrong is None else wrong)
    if wrong is not None:
        raise InputError(wrong)


def _listening(port: int) -> socket.socket:
    """By IPv4 and IPv6, whichever the others know this machine by."""
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
        return socket.create_server(("", port), backlog=1024)
    except OSError as error:
        raise InputError(f"port {port}, where processes are to meet, must be free ({error}); choose another") from error


def answer(place: tuple[str, int], number: int, *, count: int, seconds: float) -> None:
    """The part of any other process: returns when all have come.

    Raises:
        InputError: the first process refuses, or does not answer; a `TimeoutError` or another `OSError` is its cause.
    """
    end = time.monotonic() + seconds
    # Tried again until the time is over: the first process may start later, or its machine be slower.
    while True:
        try:
            with socket.create_connection(place, timeout=5) as connection:
                connection.sendall(json.dumps({"tf_simclr": [number, count]}).encode() + b"\n")
                # Whoever has come waits as long as the first one waits for the others, and a little longer.
                connection.settimeout(max(1.0, end - time.monotonic() + 5))
                with connection.makefile("rb") as file:
                    said = json.loads(file.readline(_LINE) or "null")
            if said == _GO:
                return
            if isinstance(said, str):
                raise InputError(said)
            raise ConnectionError("it ended, or something else listens there")
        except (OSError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            if time.monotonic() > end:
                rule = f"the coordinator {place[0]}:{place[1]} must answer within {seconds:.0f} s"
                advice = "start process 0 there, and look whether a firewall is between"
                raise InputError(f"{rule}, but process {number} does not reach it ({error}); {advice}") from error
        time.sleep(0.5)
