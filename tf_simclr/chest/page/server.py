"""The page's server: this machine only, unless told otherwise, and nobody holds a connection for nothing."""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Iterator
from typing import Any

from tf_simclr.chest.page.app import Page
from tf_simclr.frameworks import imported
from tf_simclr.machine.signals import ENDINGS

_CONNECTIONS = 512
"""Most at a time; further ones are closed at once."""


class Times:
    """How long a connection may do nothing, in seconds."""

    head = 15.0
    """From its beginning, or the end of an answer, to the end of the next request's headers."""
    taking = 30.0
    """In which nothing of an answer is taken; then it is dropped, and what was kept for it with it."""


class _Patience:
    """Ends a connection unless something happens in time."""

    def __init__(self, connection: Any):
        self.connection = connection
        self.timer: asyncio.TimerHandle | None = None

    def begin(self, seconds: float) -> None:
        """From now on."""
        self.end()
        self.timer = self.connection.loop.call_later(seconds, self.connection.transport.abort)

    def end(self) -> None:
        """It has happened."""
        if self.timer is not None:
            self.timer.cancel()


def _timed(times: type[Times] = Times) -> type[asyncio.Protocol]:
    """uvicorn's HTTP/1.1, of which half-open and half-asleep connections are closed."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Timed(H11Protocol):
        """One connection."""

        def __init__(self, *args: Any, **options: Any):
            super().__init__(*args, **options)
            self.asking, self.taking = _Patience(self), _Patience(self)

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            # Closed, not queued: who opens hundreds of connections must not keep others out.
            if len(self.connections) > _CONNECTIONS:
                transport.abort()
            else:
                self.asking.begin(times.head)

        def connection_lost(self, exc: Exception | None) -> None:
            self.asking.end()
            self.taking.end()
            super().connection_lost(exc)

        def handle_events(self) -> None:
            before = self.cycle
            super().handle_events()
            if self.cycle is not before and not self.cycle.response_complete:
                self.asking.end()  # a request has come; its content is the page's to wait for

        def on_response_complete(self) -> None:
            self.asking.begin(times.head)  # first: the next request may have come already, and is looked at in there
            super().on_response_complete()

        def pause_writing(self) -> None:
            super().pause_writing()
            self.taking.begin(times.taking)

        def resume_writing(self) -> None:
            super().resume_writing()
            self.taking.end()

    return Timed


def serve(page: Page, listening: socket.socket) -> None:
    """Serves the page until it is interrupted, and ends its decoders; it tells its address when it can be opened.

    Args:
        page: the application.
        listening: a socket at the address of its gate.

    Raises:
        InputError: uvicorn is not installed.
    """
    server, gate = server_of(page), page.gate
    # They end the program as Ctrl+C does, and so the decoders, too.
    for number in ENDINGS:
        signal.signal(number, signal.default_int_handler)  # uvicorn ends well and then raises the signal anew
    with contextlib.closing(page), _quiet_end(server), contextlib.suppress(KeyboardInterrupt):
        shown = f"[{gate.host}]" if ":" in gate.host else gate.host
        page.say(f"open http://{shown}:{gate.port} in a browser; Ctrl+C ends it")
        server.run(sockets=[listening])


def server_of(page: Page, *, times: type[Times] = Times) -> Any:
    """uvicorn's server of a page.

    Args:
        page: the application.
        times: how long a connection may do nothing.
    """
    uvicorn = imported("uvicorn", "the page")
    # Neither sockets of another kind, nor logs of who asks, nor headers of proxies that anybody could send.
    settings = uvicorn.Config(
        page,
        http=_timed(times),
        ws="none",
        lifespan="off",
        log_level="critical",  # the page says itself what there is to say, and who asks must not fill the log
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=1,
    )
    return uvicorn.Server(settings)


@contextlib.contextmanager
def _quiet_end(server: Any) -> Iterator[None]:
    """Keeps to itself what uvicorn logs of a page that is still open in a browser when the server ends."""

    def told(record: logging.LogRecord) -> bool:
        return not server.should_exit

    logger = logging.getLogger("uvicorn.error")
    logger.addFilter(told)
    try:
        yield
    finally:
        logger.removeFilter(told)
