"""Public buckets of Google Cloud Storage by HTTPS: what a folder holds, and a file's bytes from any point on.

References:
    cloud.google.com/storage/docs/json_api/v1/objects/list (the listing) and .../access-public-data (the files)
"""

import contextlib
import http.client
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from tf_simclr.errors import InputError, check
from tf_simclr.foreign import checked_name, is_plain, parse_json, reading

HOST = "https://storage.googleapis.com"
"""Nobody else is asked: a redirection to another host, or to a connection without encryption, is refused."""
_SECONDS = 60.0
"""Longest silence of the server."""
BLOCK = 1 << 20
_PAGE, PAGES = 16 << 20, 200
"""Longest page of a listing in bytes, and how many there may be; a page has a thousand files in some 200 kB."""


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Follows the server to itself alone."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        """The request to the new address.

        Raises:
            InputError: it is somebody else's.
        """
        # A redirection could send the request into a private network, or without encryption.
        to = urllib.parse.urlsplit(newurl)
        if f"{to.scheme}://{to.netloc}" != HOST:
            raise InputError(f"{HOST} must answer itself, but sends to {to.scheme}://{to.netloc}, which was not asked")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class Interrupted(Exception):
    """The connection broke, or could not be made; trying again may help."""


@dataclass(frozen=True)
class Remote:
    """A file in a bucket.

    Attributes:
        bucket: of the file.
        path: in the bucket.
        relative: below the folder that was listed.
        size: in bytes.
        md5: checksum, base64; empty where the bucket has none (composed files).
        crc32c: checksum, big-endian bytes in base64.
    """

    bucket: str
    path: str
    relative: str
    size: int
    md5: str
    crc32c: str


def split(address: str) -> tuple[str, str]:
    """Bucket and path of an address.

    Example:
        >>> split("gs://simclr-checkpoints/simclrv2/pretrained/")
        ('simclr-checkpoints', 'simclrv2/pretrained')

    Raises:
        InputError: it is none.
    """
    bucket, _, path = address.removeprefix("gs://").strip("/").partition("/")
    rule = "an address must be gs://BUCKET/FOLDER"
    check(address.startswith("gs://") and bool(bucket) and is_plain(bucket), rule, address=address)
    check(not path or is_plain(path), rule, address=address)
    return bucket, path


def files(address: str) -> list[Remote]:
    """Every file at or below an address.

    Raises:
        InputError: there is none, the bucket cannot be listed or reached, or a name would lead out of the folder.
    """
    bucket, path = split(address)
    listed = list(pages(bucket, prefix=path))
    with reading(address, "a folder that its bucket lists as it should"):
        items = (item for page in listed for item in page.get("items", []))
        found = [remote(bucket, path, item=item) for item in items if not item["name"].endswith("/")]
    # The listing is by prefix: `r50_1x` begins `r50_1x_sk1` as well.
    inside = [one for one in found if one.path == path or one.path.startswith(f"{path}/" if path else "")]
    check(bool(inside), f"{address} must hold a file; there is none in the bucket")
    return inside


def remote(bucket: str, folder: str, *, item: dict[str, Any]) -> Remote:
    """A listed file.

    Raises:
        InputError: its name would lead out of the folder.
    """
    # Below the folder, or the file itself; a name that would lead out of the folder is refused.
    path = item["name"]
    relative = PurePosixPath(path).name if path == folder else path[len(folder) :].removeprefix("/")
    rule = f"files in gs://{bucket} must have plain names; nothing was downloaded"
    check(is_plain(relative), rule, name=path)
    size, md5, crc = int(item["size"]), item.get("md5Hash", ""), item.get("crc32c", "")
    check(size >= 0, f"files in gs://{bucket} must have sizes; nothing was downloaded", size=size, name=path)
    return Remote(bucket, checked_name(path), relative, size, str(md5), str(crc))


def folders(address: str) -> list[str]:
    """What lies directly in a folder: addresses, of folders with a slash behind.

    Raises:
        InputError: the bucket cannot be listed or reached.
    """
    bucket, path = split(address)
    below = f"{path}/" if path else ""
    found = list(pages(bucket, prefix=below, delimiter="/"))
    with reading(address, "a folder that its bucket lists as it should"):
        names = [name for page in found for name in page.get("prefixes", [])]
        names += [item["name"] for page in found for item in page.get("items", []) if item["name"] != below]
        return [f"gs://{bucket}/{checked_name(name)}" for name in names]


def pages(bucket: str, **query: str) -> Iterator[dict[str, Any]]:
    """The answers of the listing, until one names no next page."""
    # Only the fields that are used: a page is a fifth as long.
    wanted = {"fields": "items(name,size,md5Hash,crc32c),prefixes,nextPageToken", "maxResults": "1000", **query}
    for _ in range(PAGES):
        url = f"{HOST}/storage/v1/b/{urllib.parse.quote(bucket, safe='')}/o?{urllib.parse.urlencode(wanted)}"
        try:
            with _opened(url) as answer:
                content = answer.read(_PAGE + 1)
        except (Interrupted, OSError, http.client.HTTPException) as error:
            raise InputError(unreachable(error)) from error
        check(len(content) <= _PAGE, f"{HOST} must list a bucket in pages of at most {_PAGE >> 20} MB")
        with reading(f"gs://{bucket}", "a bucket that is listed as JSON"):
            page = parse_json(content)
            check(type(page) is dict, "its listing must be an object", received=type(page).__name__)
        yield page
        if not page.get("nextPageToken"):
            return
        wanted["pageToken"] = page["nextPageToken"]
    raise InputError(f"{HOST} must list gs://{bucket} in at most {PAGES} pages; name a folder in it")


def unreachable(error: Exception) -> str:
    """The sentence for a network that is cut."""
    return f"{HOST} must be reachable, but is not ({error}); run the same command again when it is"


@contextlib.contextmanager
def _opened(url: str, *, start: int = 0) -> Iterator[http.client.HTTPResponse]:
    """The answer to a request, for a part of a file from the byte `start` on.

    Raises:
        InputError: the server refuses.
        Interrupted: it cannot be reached, or is at its limits.
    """
    # Only where something is there already: some servers answer a wish for everything with another status.
    headers = {"Range": f"bytes={start}-"} if start else {}
    try:
        opener = urllib.request.build_opener(_SameHost)
        with opener.open(urllib.request.Request(url, headers=headers), timeout=_SECONDS) as answer:
            yield answer
    except urllib.error.HTTPError as error:
        error.close()
        # The server's trouble may pass; a refusal will not.
        if error.code >= 500 or error.code in (408, 429):
            raise Interrupted(f"the server answered {error.code}") from error
        place = url.partition("?")[0]
        raise InputError(
            f"{place} must be there for everyone to read. Received: {error.code} {error.reason}"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise Interrupted(getattr(error, "reason", None) or error) from error


def read(file: Remote, start: int) -> Iterator[tuple[int, bytes]]:
    """A file's bytes from `start` on, with where each block begins: 0 first, if the server sends all of it.

    Raises:
        InputError: the server refuses.
        Interrupted: the connection broke.
    """
    url = f"{HOST}/{file.bucket}/{urllib.parse.quote(file.path)}"
    with _opened(url, start=start) as answer:
        # Without it the answer begins at the file's first byte.
        partial = answer.status == http.client.PARTIAL_CONTENT
        position = start if partial else 0
        told = answer.headers.get("Content-Range", "")
        check(not partial or told.startswith(f"bytes {start}-"), f"{url} must send bytes from {start} on", sent=told)
        while block := answer.read(BLOCK):
            yield position, block
            position += len(block)
