"""Real stores on loopback, moto's S3 and the emulator of Google Cloud Storage, behind a proxy that makes them fail.

The emulator knows no conditions (`ifGenerationMatch`): the proxy holds to them in its place, one request at a time.
"""

import contextlib
import http.client
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, urlsplit

Fault = Callable[[str, str, bytes], str | None]
"""Method, path and body of a request → what becomes of it: a status such as "500"; "cut": it does not arrive whole;
"lost": it is done, but the answer is cut; "half": half of the answer comes; "stale": the listing of before; None."""


class Proxy(ThreadingHTTPServer):
    """Between a client and a store.

    Attributes:
        fault: what becomes of each request.
        count: faults so far.
        writes: method and path of what was written or removed, in its order.
    """

    daemon_threads = True

    def __init__(self, upstream: int, *, conditions: bool):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream, self.conditions = upstream, conditions
        self.fault: Fault = lambda method, path, body: None
        self.count, self.writes = 0, []
        self.listings: dict[str, tuple[int, list, bytes]] = {}
        self.alone = threading.RLock()

    def handle_error(self, request, client_address):
        """Clients that were cut off are meant to be."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def log_message(self, format, *args):
        pass

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            pieces = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _ask(self, method: str, path: str, body: bytes) -> tuple[int, list, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.upstream, timeout=60)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("transfer-encoding", "connection")}
        headers["Content-Length"] = str(len(body))
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        found = answer.status, answer.getheaders(), answer.read()
        connection.close()
        return found

    def _handle(self) -> None:
        body, method = self._body(), self.command
        kind = self.server.fault(method, self.path, body)
        listing = method == "GET" and ("list-type" in self.path or urlsplit(self.path).path.endswith("/o"))
        if kind == "stale" and listing:
            if self.path in self.server.listings:
                self.server.count += 1
                return self._answer(method, *self.server.listings[self.path])
            kind = None
        if kind is not None:
            self.server.count += 1
        if kind is not None and kind.isdigit():
            return self._answer(method, int(kind), [("Content-Type", "text/plain")], b"made to fail")
        if kind == "cut":
            return self._cut()
        with self.server.alone if self.server.conditions else contextlib.nullcontext():
            wanted = parse_qs(urlsplit(self.path).query).get("ifGenerationMatch") if self.server.conditions else None
            if wanted and method == "POST" and self._generation(body) != wanted[0]:
                return self._answer(method, 412, [("Content-Type", "application/json")], b'{"error": {"code": 412}}')
            if method != "GET" and method != "HEAD":
                self.server.writes.append((method, self.path))
            found = self._ask(method, self.path, body)
        if listing and self.path not in self.server.listings:
            self.server.listings[self.path] = found
        if kind == "lost":
            return self._cut()
        return self._answer(method, *found, half=kind == "half")

    def _generation(self, body: bytes) -> str:
        """Of the object that an upload names, as it is there; "0": it is not."""
        parts = urlsplit(self.path)
        bucket = parts.path.split("/b/")[1].split("/")[0]
        name = parse_qs(parts.query).get("name", [None])[0]
        if name is None:
            name = json.loads(body.split(b"\r\n\r\n", 1)[1].split(b"\r\n--")[0] if b"\r\n" in body else body)["name"]
        status, _, content = self._ask("GET", f"/storage/v1/b/{bucket}/o/{quote(name, safe='')}", b"")
        return json.loads(content)["generation"] if status == 200 else "0"

    def _answer(self, method: str, status: int, headers: list, content: bytes, *, half: bool = False) -> None:
        self.send_response(status)
        length = next((v for k, v in headers if k.lower() == "content-length"), str(len(content)))
        for key, value in headers:
            if key.lower() == "location":  # of an upload in parts: through the proxy, too
                value = value.replace(f":{self.server.upstream}", f":{self.server.server_port}")
            if key.lower() not in ("content-length", "transfer-encoding", "connection", "server", "date"):
                self.send_header(key, value)
        self.send_header("Content-Length", length if method == "HEAD" else str(len(content)))
        self.end_headers()
        if method != "HEAD":
            self.wfile.write(content[: len(content) // 2] if half else content)
        if half:
            self._cut()

    def _cut(self) -> None:
        self.wfile.flush()
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(2)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_PATCH = _handle


@contextlib.contextmanager
def _proxied(upstream: int, *, conditions: bool) -> Iterator[Proxy]:
    proxy = Proxy(upstream, conditions=conditions)
    threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()


@contextlib.contextmanager
def s3(environment: dict[str, str]) -> Iterator[Proxy]:
    """moto's S3 with a bucket `bucket`; what a process needs to find it goes into the environment."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    port = server.get_host_and_port()[1]
    with _proxied(port, conditions=False) as proxy:
        environment |= {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.server_port}",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "no_proxy": "127.0.0.1",
        }
        _asked(port, "PUT", "/bucket")
        yield proxy
    server.stop()


@contextlib.contextmanager
def gs(environment: dict[str, str]) -> Iterator[Proxy]:
    """The emulator of Google Cloud Storage with a bucket `bucket`; likewise."""
    from gcp_storage_emulator.server import create_server

    server = create_server("127.0.0.1", 0, in_memory=True, default_bucket="bucket")
    server.start()
    port = server._api._httpd.server_port
    with _proxied(port, conditions=True) as proxy:
        environment |= {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{proxy.server_port}", "no_proxy": "127.0.0.1"}
        yield proxy
    server.stop()


STORES = {"s3": s3, "gs": gs}


def _asked(port: int, method: str, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request(method, path)
    assert connection.getresponse().status == 200
    connection.close()
