"""One place in a bucket: listing, reading and conditional writing of objects, patient with a store that fails.

A store is asked through fsspec.  What fsspec has no words for, "write this only if the object is still the one that I
have read", is asked of S3 (`If-Match`, `If-None-Match`) and of Google Cloud Storage (`ifGenerationMatch`) directly; of
other stores the version is looked at just before, which leaves a moment for another writer (`Store.conditional`).
"""

import base64
import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import importlib
import json
import logging
import os
import re
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import quote

from tf_simclr.buckets import web
from tf_simclr.buckets.patience import is_refused, on_a_line, patiently
from tf_simclr.errors import InputError, check
from tf_simclr.files import contents
from tf_simclr.files.places import is_address, is_web, shown
from tf_simclr.frameworks import to_install

_T = TypeVar("_T")
_AT_ONCE = 16
"""Objects that are fetched or removed at the same time."""
_IN_MEMORY = 32 << 20
"""Bytes up to which an object is sent as one request, which a store can refuse by a condition, whole."""

_TRIES = 6
"""Downloads of an object that come to something else than what the store says, until it counts as damaged."""

ANY = "any"
"""Condition of a write that overwrites whatever is there."""
ABSENT = "absent"
"""Condition of a write that must not find anything."""

_PACKAGES = {"gs": "gcsfs", "s3": "s3fs", "abfs": "adlfs", "az": "adlfs", "http": "aiohttp", "https": "aiohttp"}
"""Protocol → the package that speaks it."""
_RENAMES = ("file", "sftp", "ssh", "ftp")
"""Disks, local and far, on which half a file can be seen."""
_ASIDE = re.compile(r"\.[0-9a-f]{32}\.part$")
"""How names end there of what is half sent."""
_ALIASES = {"gcs": "gs", "s3a": "s3", "local": "file", "abfss": "abfs"}


class Raced(InputError):
    """Somebody else has written what was to be written."""


@dataclasses.dataclass(frozen=True)
class Object:
    """What a store says of an object.

    Attributes:
        size: in bytes.
        version: changes whenever the content is written anew: a generation, an ETag, a time; "" where nothing tells.
        crc32c: of the content, where the store knows it.
    """

    size: int
    version: str
    crc32c: int | None = None


def normal(address: str | Path) -> str:
    """An address in its one form: `gcs:/b/x/` and `gs://b/x` are the same place.

    Example:
        >>> normal(Path("gcs://b/x/")), normal("file:///tmp/x"), normal("s3a://b")
        ('gs://b/x', 'file:///tmp/x', 's3://b')

    Raises:
        InputError: it has a part such as `..`, which is no name of an object.
    """
    protocol, _, rest = str(address).partition(":")
    protocol = _ALIASES.get(protocol.lower(), protocol.lower())
    # `zip://x.zip::s3://b`: fsspec would take what is in the archive for a folder, and write beside it.
    rule = "an address must name one store, not a chain of them (::): fetch what it is about, and give its path"
    check("::" not in str(address), rule, received=str(address))
    place = rest.strip("/")
    rule = "an address must have no password in it, as it is printed and kept: use a key (SFTP), or ~/.netrc (the web)"
    check(not re.match("[^/@]*:[^/@]*@", place), rule)
    # An empty part or `..` would be another place on this machine.
    odd = [part for part in place.split("/") if part in ("", ".", "..") or "\0" in part]
    rule = f"an address must be of the form {protocol}://BUCKET/FOLDER, without empty parts, . and .."
    check(place and not odd, rule, received=str(address))
    # S3's package takes what follows for a version, and would write one object and read another.
    check("?versionId=" not in place, "an address must name an object, not one of its versions", received=str(address))
    # It would be a part of the file's name, whose ending says what is in it.
    asks = is_web(f"{protocol}://") and re.search("[?#]", place)
    check(not asks, "an address of the web must have no ? or #: download it, and give the file", received=str(address))
    return f"{protocol}://{'/' if protocol == 'file' else ''}{place}"


class Store:
    """The objects at an address and below it.

    Attributes:
        address: in its normal form.
        conditional: whether the store itself can refuse a write by a condition.
        at_once: objects that are fetched or removed at the same time.
        lists: whether it says what it has; else an address is one file, which is read alone.
    """

    def __init__(self, address: str | Path):
        """Opens it: of stores of objects nothing is asked yet, to a server's disk (SFTP) it connects.

        Raises:
            InputError: the address is of no known kind, or the package that speaks to it is missing.
        """
        check(is_address(address), "it must be an address such as s3://bucket/folder", received=str(address))
        self.address = normal(address)
        protocol = self.address.partition(":")[0]
        self._fs = _filesystem(protocol, self.address)
        fs = _patiently(self._fs, self.address)
        # Of connections that are made for one thread a server gives a few.
        self.at_once = _AT_ONCE if fs.async_impl or protocol in ("file", "memory") else 4
        self.root = str(fs._strip_protocol(self.address)).rstrip("/")
        self.protocol = protocol
        # Only these two refuse a write by a condition; elsewhere a look before the write has to do.
        self.conditional = protocol in ("gs", "s3")
        self.lists = not is_web(self.address)

    @property
    def fs(self) -> Any:
        """fsspec's file system, which this thread may use."""
        return self._fs()

    def at(self, name: str) -> str:
        """The address of an object of this place, for people."""
        return f"{self.address}/{name}" if name else self.address

    def find(self) -> dict[str, Object]:
        """Every object below the address by its name there, asked of the store now; the object at the address is "".

        Raises:
            InputError: the store cannot be asked, there is no such bucket, or a name could not be one of a file.
        """
        if not self.lists:
            return self.named([""])

        def ask() -> Mapping[str, Any]:
            # fsspec remembers listings; others write meanwhile.
            self.fs.invalidate_cache()
            try:
                return self.fs.find(self.root, detail=True)
            except FileNotFoundError:
                self._check_bucket()
                return {}

        found = _patiently(ask, self.address)
        if not found:
            # Nothing: an empty folder, or no bucket?
            _patiently(self._check_bucket, self.address)
        return self._named(found, self.root)

    def named(self, names: Iterable[str]) -> dict[str, Object]:
        """Those of some objects that are there, each asked for alone.

        Raises:
            InputError: the store cannot be asked.
        """
        every = list(names)
        with concurrent.futures.ThreadPoolExecutor(self.at_once) as pool:
            found = zip(every, pool.map(self.stat, every), strict=True)
            return {name: one for name, one in found if one is not None}

    def prefixed(self) -> dict[str, Object]:
        """Objects beside the address whose names begin with its last part and a dot, by their whole last parts.

        Raises:
            InputError: as `find`.
        """
        folder, _, stem = self.root.rpartition("/")
        if not self.lists:
            return {}

        def ask() -> Mapping[str, Any]:
            self.fs.invalidate_cache()
            with contextlib.suppress(FileNotFoundError):
                found = self.fs.ls(folder, detail=True) if folder.strip("/") else []
                return {one["name"]: one for one in found if one.get("type") == "file"}
            return {}

        names = self._named(_patiently(ask, self.address), folder)
        return {name: one for name, one in names.items() if name.startswith(stem + ".")}

    def stat(self, name: str) -> Object | None:
        """What the store says of one object; None: it is not there.

        Raises:
            InputError: the store cannot be asked.
        """

        def ask() -> Object | None:
            self.fs.invalidate_cache()
            try:
                info = self.fs.info(self._path(name)) if self.lists else web.told(self.fs, self._path(name))
            except FileNotFoundError:
                return None
            return _object(info) if info.get("type") == "file" else None

        return _patiently(ask, self.at(name))

    def read(self, name: str) -> tuple[bytes, str] | None:
        """The content of a small object, and its version; None: it is not there.

        Raises:
            InputError: the store cannot be asked.
        """

        def ask() -> tuple[bytes, str] | None:
            # Looked at before and behind: the content belongs to the version that is returned.
            before = self.stat(name)
            if before is None:
                return None
            try:
                content = self.fs.cat_file(self._path(name))
            except FileNotFoundError:
                return None
            if self.stat(name) != before or len(content) != before.size:
                raise OSError("it was written anew while it was read")
            return bytes(content), before.version

        return _patiently(ask, self.at(name))

    def patiently_get(self, name: str, path: Path, *, wanted: Object, exact: bool = False) -> Object | None:
        """Downloads an object to a path, until its size, and its checksum where one is known, are what they must be.

        Args:
            name: of the object.
            path: overwritten.
            wanted: what the listing said.
            exact: whether the object must be that; else one that was written anew since is taken as it is now.

        Returns:
            What was fetched; None: it is gone.

        Raises:
            InputError: the store cannot be asked, or the object is damaged.
        """
        left = _TRIES

        def ask() -> Object | None:
            nonlocal wanted, left
            try:
                if self.lists:
                    self.fs.get_file(self._path(name), str(path))
                else:
                    web.fetch(self.fs, self._path(name), path=path, size=wanted.size)
            except FileNotFoundError:
                return None
            # Cut downloads are common and look whole: size and checksum decide.
            if path.stat().st_size == wanted.size and (wanted.crc32c is None or wanted.crc32c == crc32c(path)):
                return wanted
            left -= 1
            rule = f"{self.at(name)} must be what was written there, but its content is another: it is damaged"
            check(left > 0, f"{rule}; remove it, or what names it")
            # It may have been written anew meanwhile: then its new version is what is expected.
            wanted = (None if exact else self.stat(name)) or wanted
            raise OSError("what came is not what the store has: it was cut, or written anew meanwhile")

        return _patiently(ask, self.at(name))

    def put(self, name: str, content: bytes | Path, *, only: str = ANY) -> str:
        """Writes an object, whole or not at all, and returns its version.

        A write that came through although its answer was lost is tried again, and then finds the object written:
        whoever wrote it is told by its content.

        Args:
            name: of the object.
            content: bytes, or a file of them.
            only: ANY, ABSENT, or the version that it must have until then.

        Raises:
            Raced: so it is not.
            FileNotFoundError: the file to send is gone.
            InputError: the store cannot be asked.
        """
        check(self.lists, f"{self.at(name)} can only be read: name a place on this machine or in a bucket to write to")
        # Small ones as one request, which a store can refuse whole.
        if isinstance(content, Path) and content.stat().st_size <= _IN_MEMORY:
            content = content.read_bytes()

        def ask() -> str:
            try:
                return self._put(name, content, only)
            except FileNotFoundError:
                if isinstance(content, Path) and not content.exists():
                    # The file itself is gone, which its caller knows to handle.
                    raise
                self._check_bucket()
                if only in (ANY, ABSENT):
                    raise
            except Exception as error:
                if not is_refused(error):
                    raise
            # Refused: by an earlier try of our own, whose answer was lost?  Then the content is ours.
            there = self.stat(name)
            if there is not None and self._holds(name, content, there=there):
                return there.version
            raise Raced(f"{self.at(name)} was written by somebody else meanwhile")

        return _patiently(ask, self.at(name))

    def delete(self, names: Iterable[str]) -> None:
        """Removes objects; those that are not there any more are no error.

        Raises:
            InputError: the store cannot be asked.
        """

        def remove(name: str) -> None:
            with contextlib.suppress(FileNotFoundError):
                self.fs.rm_file(self._path(name))

        with concurrent.futures.ThreadPoolExecutor(self.at_once) as pool:
            list(pool.map(lambda name: _patiently(lambda: remove(name), self.at(name)), names))

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    def _named(self, found: Mapping[str, Any], folder: str) -> dict[str, Object]:
        """Listed objects by their names below a folder, without those that stand for folders."""
        objects = {}
        for path, info in found.items():
            # Stores list with or without a slash in front.
            name = str(path).lstrip("/").removeprefix(folder.lstrip("/")).lstrip("/")
            # Objects that stand for folders end with a slash; what is half sent is none yet.
            if info.get("type") != "file" or str(info.get("name", path)).endswith("/") or _ASIDE.search(name):
                continue
            odd = any(part in ("", ".", "..") or "\0" in part for part in name.split("/")) and name
            check(not odd, f"names at {self.address} must be names of files, too", name=shown(name))
            objects[name] = _object(info)
        return objects

    def _check_bucket(self) -> None:
        """Refuses a bucket that is not there: of a folder that is empty the same is listed, nothing.

        Raises:
            InputError: so it is.
        """
        bucket = self.root.split("/")[0]
        try:
            if self.protocol == "s3":
                self.fs.call_s3("list_objects_v2", Bucket=bucket, MaxKeys=1)
            elif self.protocol == "gs":
                self.fs.call("GET", "b/{}/o", bucket, maxResults=1, json_out=True)
        except FileNotFoundError as error:
            rule = f"{self.address} must be in a bucket that is there: {self.protocol}://{bucket} is not"
            raise InputError(rule) from error

    def _put(self, name: str, content: bytes | Path, only: str) -> str:
        """One try at `put`; a refusal is whatever the store's package makes of it (`is_refused`)."""
        path = self._path(name)
        bucket, _, key = path.partition("/")
        if isinstance(content, bytes) and self.protocol == "s3":
            # Any, only if absent, or only if still this version.
            when = {} if only == ANY else {"IfNoneMatch": "*"} if only == ABSENT else {"IfMatch": only}
            return str(self.fs.call_s3("put_object", Bucket=bucket, Key=key, Body=content, **when)["ETag"])
        if isinstance(content, bytes) and self.protocol == "gs":
            return _put_gs(self.fs, bucket, key, content, only)
        # What the store does not compare itself is looked at just before, which leaves a moment: all of other stores,
        # and versions of large objects, which S3 and Google take in parts.
        if only != ANY and not (self.conditional and only == ABSENT):
            there = self.stat(name)
            if (there.version if there is not None else ABSENT) != only:
                raise FileExistsError(path)
        # Stores have no folders; disks have.
        with contextlib.suppress(NotImplementedError):
            self.fs.makedirs(self.fs._parent(path), exist_ok=True) if not self.conditional else None
        mode = {"mode": "create"} if self.conditional and only == ABSENT else {}
        if self.protocol in _RENAMES:
            # Under its name when it is whole; stores of objects do so by themselves.
            aside = f"{path}.{uuid.uuid4().hex}.part"
            self._put_plainly(aside, content)
            self.fs.mv(aside, path)
        else:
            self._put_plainly(path, content, **mode)
        there = self.stat(name)
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        # A store may accept a part and say nothing.
        if there is None or there.size != size:
            raise OSError("what was sent is not what the store has")
        if only != ANY and not there.version:
            if only == ABSENT:  # what was made just now
                self.fs.rm_file(path)
            rule = f"{self.address} must be in a store that tells when something is written anew"
            raise InputError(f"{rule}, else two writers pass for one: write to a bucket or to this machine")
        return there.version

    def _put_plainly(self, path: str, content: bytes | Path, **mode: str) -> None:
        if isinstance(content, bytes):
            self.fs.pipe_file(path, content)
        else:
            self.fs.put_file(str(content), path, **mode)

    def _holds(self, name: str, content: bytes | Path, *, there: Object) -> bool:
        """Whether an object has this content."""
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        if there.size != size:
            return False
        mine = crc32c(content)
        if there.crc32c is not None:
            return there.crc32c == mine
        with self.fs.open(self._path(name), "rb") as file:
            return _crc32c_of_stream(file) == mine


def crc32c(content: bytes | Path) -> int:
    """The checksum of bytes, or of a file's.

    Example:
        >>> hex(crc32c(b"123456789"))
        '0xe3069283'
    """
    if isinstance(content, bytes):
        return contents.crc32c(content)
    with content.open("rb") as file:
        return _crc32c_of_stream(file)


def _crc32c_of_stream(file: BinaryIO) -> int:
    """The checksum of what a file still holds, a MiB at a time."""
    checksum = 0
    while piece := file.read(1 << 20):
        checksum = contents.crc32c(piece, checksum)
    return checksum


def _patiently(do: Callable[[], _T], address: str) -> _T:
    """`patiently`, each time with a new connection where this thread had one of its own, which may be what failed."""

    def one() -> _T:
        try:
            return do()
        except (InputError, FileNotFoundError):
            raise
        except Exception:
            _OWN.made.clear()
            raise

    return patiently(one, address)


def _filesystem(protocol: str, address: str) -> Callable[[], Any]:
    """What gives fsspec's file system for a protocol, without its memory of listings, which others change.

    Raises:
        InputError: there is none.
    """
    package = _PACKAGES.get(protocol)
    try:
        import fsspec

        kind = fsspec.get_filesystem_class(protocol)
        if protocol == "gs":  # not the one that asks gRPC of the bucket's kind
            kind = importlib.import_module("gcsfs.core").GCSFileSystem
        if is_web(address):
            importlib.import_module("aiohttp")
    except ImportError as error:
        if package is None and error.name != "fsspec":  # its own word for what another store needs
            raise InputError(f"{address} needs a package that is not installed; fsspec says: {error}") from error
        package = package or "fsspec"
        raise InputError(f"{address} needs {package}: {to_install(package)}") from error
    except ValueError as error:
        rule = "an address must be of a store that fsspec knows, such as gs://bucket/folder or s3://bucket/folder"
        raise InputError(f"{rule}. Received: {address!r}") from error
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it writes tracebacks of what is tried again
    if protocol == "memory":  # it lives in the process, by fsspec's own instance
        return kind
    # What an address says of its server, such as `sftp://user@host:22/folder`.
    told = tuple(sorted(kind._get_kwargs_from_urls(address).items()))

    def given() -> Any:
        # The environment is part of the key: another endpoint is another file system.
        key = kind, protocol, told, tuple(os.environ.get(name) for name in _ENDPOINTS)
        try:
            if kind.async_impl or protocol == "file":
                return _shared(*key)
            # A connection of SFTP or FTP in two threads at once hangs, or mixes up answers.
            if key not in _OWN.made:
                _OWN.made[key] = _made(*key)
            return _OWN.made[key]
        except (TypeError, ValueError, LookupError, AttributeError) as error:  # what its package misses
            rule = f"{address} must be what its store's package can open; it says: {on_a_line(error)}"
            raise InputError(f"{rule}; else copy what is there, or mount it, and give its path") from error

    return given


_ENDPOINTS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE", "STORAGE_EMULATOR_HOST")
"""Variables of the environment by which a file system is another one; fsspec's own memory does not look at them."""


class _Own(threading.local):
    """File systems of each thread alone."""

    def __init__(self) -> None:
        self.made: dict[Any, Any] = {}


_OWN = _Own()


def _made(kind: Any, protocol: str, told: tuple[tuple[str, Any], ...], _: tuple[str | None, ...]) -> Any:
    """A file system; where its package can be told, it does not try again by itself: patience is had in one place."""
    if protocol == "s3":
        once = {"retries": {"total_max_attempts": 1, "mode": "standard"}}
        found = kind(skip_instance_cache=True, use_listings_cache=False, config_kwargs=once)
        found.retries = 1
        return found
    if protocol == "gs":
        return kind(skip_instance_cache=True, use_listings_cache=False)
    if is_web(f"{protocol}://"):
        return web.opened(kind)
    return kind(skip_instance_cache=True, **dict(told))


_shared = functools.cache(_made)


_VERSIONS = (
    *("generation", "ETag", "etag", "created", "mtime"),
    *("modify", "modified", "LastModified", "last_modified", "modificationTime"),
)
"""What stores call what changes with an object's content."""


def _object(info: Mapping[str, Any]) -> Object:
    """What fsspec says of an object, whatever the store calls it."""
    # Google's generation, S3's ETag, a time: whatever changes with the content.
    version = next((info[name] for name in _VERSIONS if info.get(name)), "")
    if hasattr(version, "timestamp"):  # listed it is a number
        version = version.timestamp()
    if "ino" in info:  # a local file: replaced within a tick of its clock, it is another one
        version = f"{version}-{info['ino']}"
    known = info.get("crc32c")
    try:
        # Google gives the checksum in base64.
        checksum = int.from_bytes(base64.b64decode(known), "big") if isinstance(known, str) and known else None
    except ValueError:
        checksum = None
    return Object(int(info.get("size") or 0), str(version), checksum)


def _put_gs(fs: Any, bucket: str, key: str, content: bytes, only: str) -> str:
    """Writes to Google Cloud Storage on a condition, with the checksum by which it refuses what was damaged."""
    value = base64.b64encode(contents.crc32c(content).to_bytes(4, "big")).decode()
    header = json.dumps({"name": key, "crc32c": value})
    # A mark between both parts of the request, which must not occur in them.
    mark = hashlib.blake2b(content, digest_size=16).hexdigest()
    start = f"--{mark}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{header}\r\n"
    start += f"--{mark}\r\nContent-Type: application/octet-stream\r\n\r\n"
    body = b"".join([start.encode(), content, f"\r\n--{mark}--\r\n".encode()])
    when = {} if only == ANY else {"ifGenerationMatch": "0" if only == ABSENT else only}
    sent = {"headers": {"Content-Type": f'multipart/related; boundary="{mark}"'}, "data": body, "json_out": True}
    place = f"{fs._location}/upload/storage/v1/b/{quote(bucket)}/o"
    return str(fs.call("POST", place, uploadType="multipart", **sent, **when)["generation"])
