"""Who may ask the page, and for what: each request is looked at here before a byte of its content is read.

The page has no accounts, so whoever reaches its address may use it.  What is kept out is everybody's *browser* when it
acts for somebody else: a page elsewhere that posts files here (its `Origin` is not ours), or one whose name was made to
point at this machine (its `Host` is not ours).

References:
    Fetch Standard, 3.2 (`Origin` header); W3C Fetch Metadata Request Headers (`Sec-Fetch-Site`); RFC 9112, 3.2 (request
    target) and 6 (length of a message); OWASP, Cross-Site Request Forgery Prevention.
"""

import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tf_simclr.errors import InputError, check

UPLOAD = "/read"
_TEXTS = ("/", "/page.css", "/page.js", "/viewer.js")
_ROUTES = dict.fromkeys(_TEXTS, ("GET", "HEAD")) | {UPLOAD: ("POST",)}
"""Everything that there is, and how it may be asked."""
CONTENT = "application/octet-stream"
"""Of an upload; a form cannot send it, and a script elsewhere would have to ask first, which is refused."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}
"""On every answer.  By the first the browser itself refuses to fetch from, or send to, any other machine."""
_ONCE = (b"host", b"origin", b"sec-fetch-site", b"content-length", b"content-type", b"transfer-encoding")
"""Headers that count only where they stand once: of two, a proxy may have looked at the other."""
LOCAL = ("127.0.0.1", "localhost", "::1")
_ANY = ("0.0.0.0", "::", "")
"""Addresses that mean every one of this machine."""


class Refused(Exception):
    """A request that is not answered.

    Args:
        status: of HTTP.
        sentence: for whoever asked.
        kind: for the log; never holds what was sent.
        headers: more of the answer's.
    """

    def __init__(self, status: int, sentence: str, *, kind: str, headers: dict[str, str] | None = None):
        super().__init__(sentence)
        self.status, self.sentence, self.kind, self.headers = status, sentence, kind, headers or {}


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What is let in.

    Args:
        host: address that the server listens on.
        port: of it.
        max_bytes: of an upload.
        origin: address by which browsers reach a proxy before the page, `https://page.hospital.example`; or empty.
    """

    host: str
    port: int
    max_bytes: int
    origin: str = ""

    def __post_init__(self) -> None:
        check_origin(self.origin)

    def look(self, scope: dict[str, Any]) -> int:
        """Lets an HTTP request in.

        Args:
            scope: ASGI's.

        Returns:
            The bytes of its content: those of an upload, 0 for other requests.

        Raises:
            Refused: it is not let in.
        """
        # In order: the name it was asked by, the address, the method, who sent it, how long it is.
        headers = _single(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        if host not in self.names(scope):
            sentence = "This page must be asked by its own address; behind a proxy it is started with --origin."
            raise Refused(403, sentence, kind="asked by another name")
        path = scope["raw_path"].decode("latin-1")  # as it was sent: nothing is decoded and then compared
        if path not in _ROUTES or (path != "/" and scope["query_string"]):
            raise Refused(404, "There is nothing here.", kind="an address that does not exist")
        methods = _ROUTES[path]
        if scope["method"] not in methods:
            sentence = f"This address answers {' and '.join(methods)} only."
            raise Refused(405, sentence, kind="a method that is not answered", headers={"Allow": ", ".join(methods)})
        self.check_source(headers, host=host, upload=path == UPLOAD)
        return self.length(headers) if path == UPLOAD else 0

    def names(self, scope: dict[str, Any]) -> set[str]:
        """What `Host` may be, letter by letter: browsers write it in one way."""
        hosts = set(LOCAL if self.host in (*LOCAL, *_ANY) else (self.host,))
        if self.host in _ANY and scope.get("server"):
            hosts.add(scope["server"][0])  # the address that was called; a number cannot be pointed elsewhere
        hosts = {f"[{host}]" if ":" in host else host for host in hosts}
        names = {f"{host}:{self.port}" for host in hosts} | (hosts if self.port == 80 else set())
        return names | ({urlsplit(self.origin).netloc} if self.origin else set())

    def check_source(self, headers: dict[bytes, bytes], *, host: str, upload: bool) -> None:
        """Refuses what a page of somebody else made a browser ask.

        Raises:
            Refused: it did.
        """
        # Browsers tell which site a request comes from; by this a page elsewhere cannot use a visitor's browser to ask.
        site, mode = headers.get(b"sec-fetch-site", b"none"), headers.get(b"sec-fetch-mode", b"navigate")
        own = site == b"same-origin" if upload else site in (b"same-origin", b"none") or mode == b"navigate"
        if b"sec-fetch-site" not in headers:  # no browser of today; an older one names its origin
            own = True
        if upload and b"origin" in headers:
            allowed = {f"http://{host}", *([self.origin] if self.origin else [])}
            own = own and headers[b"origin"].decode("latin-1") in allowed
        if not own:
            raise Refused(403, "Only this page itself may send files here.", kind="another page's upload")

    def length(self, headers: dict[bytes, bytes]) -> int:
        """The bytes that an upload says it has.

        Raises:
            Refused: it does not say, is empty or too large, or is no plain content.
        """
        # A type that forms cannot send, and no encoding that would unpack to more.
        if headers.get(b"content-type", b"") != CONTENT.encode() or b"content-encoding" in headers:
            raise Refused(415, f"An upload must be plain bytes: Content-Type: {CONTENT}.", kind="not plain bytes")
        stated = headers.get(b"content-length", b"")
        if b"transfer-encoding" in headers or not stated.isdigit():
            raise Refused(411, "An upload must state its length.", kind="no length")
        # Fifteen digits at most: longer ones take time to read as a number.
        if len(stated) > 15 or int(stated) > self.max_bytes:
            raise Refused(413, f"A file must have at most {self.max_bytes >> 20} MB.", kind="too large")
        if int(stated) == 0:
            raise Refused(400, "A file must not be empty.", kind="empty")
        return int(stated)


def _single(headers: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Headers by name.

    Raises:
        Refused: one of `_ONCE` stands twice.
    """
    found = dict(headers)
    for name in _ONCE:
        if sum(name == other for other, _ in headers) > 1:
            raise Refused(400, f"The header {name.decode()} must stand once.", kind="a header twice")
    return found


def check_origin(origin: str) -> None:
    """Refuses what is not the address of a site, as browsers write it.

    Raises:
        InputError: it is none.
    """
    if not origin:
        return
    # As browsers write it: small letters, without a port that is the scheme's own.
    try:
        parts = urlsplit(origin)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
        usual = {"http": 80, "https": 443}.get(parts.scheme)  # which browsers leave out
        plain = origin == f"{parts.scheme}://{parts.netloc}" == origin.lower() and parts.port != usual
    except ValueError as error:
        raise InputError(f"origin must be the page's address, e.g. https://page.hospital.example ({error})") from error
    check(whole and plain, "origin must be the page's address alone, e.g. https://page.hospital.example", origin=origin)


def listen(host: str, port: int) -> socket.socket:
    """A socket at this address.

    Raises:
        InputError: it is taken, or not this machine's.
    """
    check(0 <= port < 65536, "port must be between 0 and 65535", port=port)
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=256)
    except OSError as error:
        raise InputError(f"port {port} of {host} must be free ({error.strerror}); choose another --port") from error
