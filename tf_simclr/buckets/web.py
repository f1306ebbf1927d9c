"""The web (`https://…`) as a store that is only read: an address is a file, whose size and version its server tells.

fsspec's own way to ask takes every failure for a file that is not there; its downloads have five minutes and no end.
"""

import socket
from pathlib import Path
from typing import Any

from tf_simclr.errors import InputError, check

_CONNECTING, _SILENT = 30, 60
"""Seconds to connect, and between two pieces of a download, however long all of it takes."""
_AS_IT_IS = {"Accept-Encoding": "identity"}
"""Asks for a file that is not compressed on the way: the size is its own."""
_GONE = (404, 410)
_LATER = (408, 425, 429)
"""What servers answer to who should come again, besides 500 and more."""


def opened(kind: Any) -> Any:
    """fsspec's file system of the web, which minds proxies and `~/.netrc`."""
    from aiohttp import ClientTimeout

    patient = ClientTimeout(total=None, sock_connect=_CONNECTING, sock_read=_SILENT)
    return kind(skip_instance_cache=True, client_kwargs={"trust_env": True, "timeout": patient})


def told(fs: Any, url: str) -> dict[str, Any]:
    """What a server says of a file, as fsspec has it: `type`, `size` in bytes, `ETag`.

    Raises:
        FileNotFoundError: there is none, or a page.
        InputError: there is no such server, or it does not say how large the file is, or refuses to.
        OSError: it may answer later.
    """
    from aiohttp import ClientConnectorCertificateError, ClientConnectorError, InvalidURL
    from fsspec.asyn import sync

    try:
        return sync(fs.loop, _told, fs, url)
    except (ClientConnectorCertificateError, ClientConnectorError, InvalidURL) as error:
        unknown = isinstance(error, ClientConnectorError) and isinstance(error.os_error, socket.gaierror)
        if type(error) is ClientConnectorError and not unknown:  # it may be back later
            raise
        raise InputError(f"{url} must be on a server that can be asked: {error}") from error


def fetch(fs: Any, url: str, *, path: Path, size: int) -> None:
    """Downloads a file, as far as it has the size that was told.

    Raises:
        FileNotFoundError: it is gone.
        Exception: aiohttp's, or of the disk.
    """
    from fsspec.asyn import sync

    sync(fs.loop, _fetch, fs, url, path, size)


async def _fetch(fs: Any, url: str, path: Path, size: int) -> None:
    session = await fs.set_session()
    async with session.get(fs.encode_url(url), headers=_AS_IT_IS) as answer:
        if answer.status in _GONE:
            raise FileNotFoundError(url)
        answer.raise_for_status()
        with path.open("wb") as file:
            async for piece in answer.content.iter_chunked(1 << 20):
                file.write(piece)
                if file.tell() > size:  # it would never end
                    return


async def _told(fs: Any, url: str) -> dict[str, Any]:
    session = await fs.set_session()
    for method in ("HEAD", "GET"):  # some servers give what they do not tell of
        how = {"allow_redirects": True, "headers": _AS_IT_IS}
        async with session.request(method, fs.encode_url(url), **how) as answer:
            status, headers = answer.status, answer.headers
            if status < 400 or status in _GONE:
                break
    if status in (401, 403):
        raise PermissionError(f"{status} {answer.reason}")
    if status >= 500 or status in _LATER:
        raise OSError(f"{status} {answer.reason}")
    # A page is no file: it lists some, or says that there is none.
    if status in _GONE or (status < 400 and headers.get("Content-Type", "").startswith("text/html")):
        raise FileNotFoundError(url)
    rule = f"{url} must be a file that its server gives, and tells the size of"
    check(status < 400, f"{rule}; it answers: {status} {answer.reason}")
    plain = headers.get("Content-Encoding", "identity") in ("identity", "")
    check("Content-Length" in headers and plain, f"{rule}; download it, and give the file")
    version = headers.get("ETag") or headers.get("Last-Modified")
    return {"type": "file", "size": int(headers["Content-Length"]), "ETag": version}
