"""A process's line to the first one, where all meet: whoever loses it ends with a sentence.

JAX's client ends its process by an abort, in its own words, as soon as its connection to the first process closes; what
it calls instead, if it is given something, cannot be Python's (it ends by `std::bad_cast`).  So the client is given a
port of this machine: what comes there is passed on to the first process, and what that one answers is passed back.
When it is gone, the client hears nothing, and this process has some seconds to end by
itself: the step that fails says more.
"""

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator

from tf_simclr.terminal import write

_GRACE = 8.0
"""Seconds in which a process that has lost the first one may end by what it computes with it."""
_BLOCK = 1 << 16


class Line:
    """Between JAX's client in this process and the first process.

    Args:
        place: host and port of the first process.
        number: of this process.
        count: of processes.

    Attributes:
        lost: set when the first process is gone.
        silent: seconds since it said something; whoever watches counts them (`life`).
    """

    def __init__(self, place: tuple[str, int], *, number: int, count: int):
        self.place, self.number, self.count = place, number, count
        self.parting, self.lost, self.silent = threading.Event(), threading.Event(), 0.0
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listening.getsockname()[1]}"
        _spare_proxies()
        _begin(self._accept)

    def part(self) -> None:
        """This process is done: from now on the first one may go, and the client hears of it."""
        self.parting.set()

    def _accept(self) -> None:
        while True:
            try:
                here, _ = self.listening.accept()
            except OSError:  # nobody listens any more
                return
            try:
                there = socket.create_connection(self.place, timeout=10)
            except OSError:  # it does not listen yet: the client tries again
                here.close()
                continue
            there.settimeout(None)
            for one in (here, there):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            hung_up = threading.Event()
            _begin(self._forth, here, there, hung_up)
            _begin(self._back, there, here, hung_up)

    def _forth(self, here: socket.socket, there: socket.socket, hung_up: threading.Event) -> None:
        """What the client says, until it hangs up."""
        for _ in _passed(here, there):
            pass
        hung_up.set()
        _shut(there)

    def _back(self, there: socket.socket, here: socket.socket, hung_up: threading.Event) -> None:
        """What the first process says; where it said something, and hangs up before the client does, it is gone."""
        answered = False
        for _ in _passed(there, here):
            answered, self.silent = True, 0.0
        there.close()
        if answered and not hung_up.is_set() and not self.parting.is_set():
            # Of several connections the first tells it; each is kept open, so that the client hears nothing.
            told = self.lost.is_set()
            self.lost.set()
            if not told and not self.parting.wait(_GRACE):
                end(lost(self.number, count=self.count, who="worker 0, where they meet"))
            self.parting.wait()
        _shut(here)
        here.close()


def lost(number: int, *, count: int, who: str) -> str:
    """The sentence of a process that has lost another one."""
    return (
        f"all {count} workers must stay reachable, but worker {number} lost {who}; start all of them again with the "
        "same commands: they go on from the last checkpoint"
    )


def end(sentence: str) -> None:
    """Ends this process at once, with code 2."""
    write(f"{sentence}\n", sys.stderr)
    os._exit(2)  # not sys.exit: other threads wait for who is gone, or compute what nobody needs any more


def _spare_proxies() -> None:
    """Has gRPC reach this machine without the proxies that are set for others."""
    others = [os.environ[name] for name in ("no_grpc_proxy", "no_proxy") if os.environ.get(name)]
    if any(name.lower() in ("grpc_proxy", "https_proxy", "http_proxy") for name in os.environ):
        os.environ["no_grpc_proxy"] = ",".join([*others[:1], "127.0.0.1"])  # noqa: SIM112


def _begin(work: Callable[..., None], *given: object) -> None:
    threading.Thread(target=work, args=given, daemon=True).start()


def _passed(source: socket.socket, target: socket.socket) -> Iterator[int]:
    """Passes on what comes until there is no more; yields how many bytes, each time that some came."""
    with contextlib.suppress(OSError):
        while data := source.recv(_BLOCK):
            yield len(data)
            target.sendall(data)


def _shut(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
