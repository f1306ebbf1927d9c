"""A local server that speaks as much of Google Cloud Storage as a download needs, and can be made to fail."""

import base64
import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, unquote, urlsplit

import google_crc32c

from converters.published import bucket as buckets
from converters.published import download
from tests import loopback


@dataclass
class Bucket:
    """What the server holds, how it misbehaves, and what it was asked.

    Attributes:
        files: bucket/path → content.
        page: files in one page of the listing.
        cut: path → bytes after which connections are cut, one number a connection, then no more.
        checksums: path → fields of the listing that replace the true ones.
        ranges: whether the server knows Range.
        refuse: path (or `listing`) → status codes to answer, one a request, then no more.
        moved: path (or `listing`) → address that requests are sent on to.
        said: what the listing answers, whatever the bucket holds.
        asked: paths of requests for files, with their Range.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    page: int = 1000
    cut: dict[str, list[int]] = field(default_factory=dict)
    checksums: dict[str, dict] = field(default_factory=dict)
    ranges: bool = True
    refuse: dict[str, list[int]] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    said: bytes | None = None
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def described(self, key: str) -> dict:
        """As the real listing describes a file."""
        content = self.files[key]
        crc = google_crc32c.value(content).to_bytes(4, "big")
        true = {
            "name": key.split("/", 1)[1],
            "size": str(len(content)),
            "md5Hash": base64.b64encode(hashlib.md5(content).digest()).decode(),
            "crc32c": base64.b64encode(crc).decode(),
        }
        return {name: value for name, value in (true | self.checksums.get(key, {})).items() if value is not None}

    def listing(self, bucket: str, query: dict[str, list[str]]) -> dict:
        """One page; its token is a number."""
        prefix, start = query["prefix"][0], int(query.get("pageToken", ["0"])[0])
        found = [key for key in sorted(self.files) if key.startswith(f"{bucket}/{prefix}")]
        answer: dict = {}
        if "delimiter" in query:
            rest = {key: key.removeprefix(f"{bucket}/{prefix}") for key in found}
            answer["prefixes"] = sorted({prefix + text.split("/")[0] + "/" for text in rest.values() if "/" in text})
            found = [key for key in found if "/" not in rest[key]]
        if start + self.page < len(found):
            answer["nextPageToken"] = str(start + self.page)
        return answer | {"items": [self.described(key) for key in found[start : start + self.page]]}


def handler(bucket: Bucket) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            url = urlsplit(self.path)
            if url.path.startswith("/storage/v1/b/"):
                if not self.refused("listing"):
                    page = bucket.listing(url.path.split("/")[4], parse_qs(url.query))
                    self.answer(200, json.dumps(page).encode() if bucket.said is None else bucket.said)
                return
            key = unquote(url.path[1:])
            bucket.asked.append((key, self.headers.get("Range")))
            if not self.refused(key):
                self.file(key)

        def refused(self, key: str) -> bool:
            if key in bucket.moved:
                self.answer(302, b"", headers={"Location": bucket.moved[key]})
                return True
            codes = bucket.refuse.get(key, [])
            if codes:
                self.answer(codes.pop(0), b"no")
                return True
            if key != "listing" and key not in bucket.files:
                self.answer(404, b"no")
                return True
            return False

        def file(self, key: str) -> None:
            content, asked = bucket.files[key], self.headers.get("Range")
            if asked is None or not bucket.ranges:
                self.answer(200, content, key=key)
            else:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                told = f"bytes {start}-{len(content) - 1}/{len(content)}"
                self.answer(206, content[start:], key=key, headers={"Content-Range": told})

        def answer(self, code: int, content: bytes, *, key: str = "", headers: dict | None = None) -> None:
            self.send_response(code)
            self.send_header("Content-Length", str(len(content)))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            cuts = bucket.cut.get(key, [])
            with contextlib.suppress(ConnectionError):  # whoever asked may have left
                self.wfile.write(content[: cuts.pop(0)] if cuts else content)
            self.close_connection = True

        def log_message(self, *args):
            """Says nothing."""

    return Handler


@contextlib.contextmanager
def serving(monkeypatch, bucket: Bucket) -> Iterator[Bucket]:
    """Runs the server, and has downloads ask it instead of the real one."""
    with loopback.serving(monkeypatch, handler(bucket)) as server:
        monkeypatch.setattr(buckets, "HOST", loopback.address(server))
        monkeypatch.setattr(download, "PAUSE", 0.0)
        yield bucket
