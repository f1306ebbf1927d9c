"""The page on a real port, and clients that ask it as browsers, scripts and attackers do."""

import contextlib
import json
import socket
import threading
import time

import httpx

from tf_simclr.chest.page import server as app_server
from tf_simclr.chest.page.app import Limits, Page
from tf_simclr.chest.page.gate import CONTENT, Gate, listen

PLAIN = {"Content-Type": CONTENT}
SECONDS = 120
"""Longest wait; a quiet machine needs one."""


class Served:
    """A page that is being served: its address, what it said, and itself."""

    def __init__(self, page, port, said):
        self.page, self.port, self.said = page, port, said
        self.host = f"127.0.0.1:{port}"
        self.url = f"http://{self.host}"

    def post(self, content, *, headers=None, timeout=SECONDS, path="/read"):
        return httpx.post(self.url + path, content=content, headers=PLAIN | (headers or {}), timeout=timeout)

    def lines(self, content, **options):
        """The lines of an answer."""
        response = self.post(content, **options)
        assert response.status_code == 200, response.text
        return [json.loads(line) for line in response.text.splitlines()]

    def raw(self, sent, *, wait=10.0):
        """Everything that comes back for these bytes until the server closes, or for so many seconds."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=wait) as connection:
            connection.sendall(sent)
            return everything(connection)

    def idle(self, seconds=SECONDS):
        """Waits until nothing is held any more."""
        page, until = self.page, time.monotonic() + seconds
        rooms = (page.bytes, page.decoding, page.asking)
        while page.line or any(room.free != room.size or room.waiting for room in rooms):
            assert time.monotonic() < until, (page.line, [room.free for room in rooms])
            time.sleep(0.02)


def everything(connection):
    received = b""
    with contextlib.suppress(TimeoutError, ConnectionResetError):
        while part := connection.recv(65536):
            received += part
    return received


@contextlib.contextmanager
def serving(model, *, host="127.0.0.1", max_bytes=2**20, origin="", times=app_server.Times, function=None, **limits):
    """Serves a page from a thread of this process.

    Args:
        model: deployed; or several, of a finding each.
        host: address to listen on.
        max_bytes: of an upload.
        origin: see `Gate`.
        times: of connections.
        function: asked of the decoders instead of the real one.
        limits: of `Limits`.
    """
    from tf_simclr.chest.page import app

    said, real = [], app.PICTURED
    app.PICTURED = function or real
    listening = listen(host, 0)
    port = listening.getsockname()[1]
    gate = Gate(host=host, port=port, max_bytes=max_bytes, origin=origin)
    page = Page(
        model if isinstance(model, tuple) else (model,),
        gate=gate,
        neighbours=3,
        limits=Limits(**limits),
        say=said.append,
    )
    app.PICTURED = real
    server = app_server.server_of(page, times=times)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield Served(page, port, said)
    finally:
        server.should_exit = server.force_exit = True
        thread.join()
        page.close()
        listening.close()
