"""Servers of the tests, on loopback."""

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def address(server: ThreadingHTTPServer) -> str:
    """Where it is asked."""
    return f"http://127.0.0.1:{server.server_port}"


@contextlib.contextmanager
def serving(monkeypatch, handler: type[BaseHTTPRequestHandler]) -> Iterator[ThreadingHTTPServer]:
    """Serves until the block ends, at `address(server)`; a proxy of this machine is not asked."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
