"""Stores of any other kind that fsspec knows: an address says where its server is, and none ends in a traceback."""

import threading
from pathlib import Path
from typing import ClassVar

import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.registry import _registry, known_implementations
from fsspec.utils import infer_storage_options

from tf_simclr.buckets import local, store
from tf_simclr.buckets.store import ABSENT, Raced, Store
from tf_simclr.errors import InputError
from tf_simclr.files.places import is_bucket, is_web

_ASKED = ("gs", "gcs", "s3", "s3a", "hdfs")
"""Those that ask the network, or start Java, before anything can be known."""


@pytest.mark.parametrize("rest", ["host:9/folder/x", "/folder"])
def test_every_kind_of_address_is_read_or_a_sentence(monkeypatch, rest):
    monkeypatch.setenv("TF_SIMCLR_PATIENCE", "0")
    for protocol in sorted(known_implementations.keys() - set(_ASKED)):
        address = f"{protocol}://{rest}"
        if is_bucket(address) or is_web(address):
            try:
                path = local(address, images=True)
            except InputError:
                continue
            pytest.fail(f"{address} is nowhere, and was found: {path}")


@pytest.mark.parametrize("address", ["zip://pets::s3://b/a.zip", "s3://b/a::x", "memory://x::memory://y"])
def test_a_chain_of_stores_is_refused(address):
    with pytest.raises(InputError, match=r"must name one store, not a chain of them"):
        Store(address)


@pytest.mark.parametrize("address", ["sftp://me:secret@host/x", "https://me:secret@host/x.tar", "s3://KEY:secret@b/x"])
def test_a_password_is_refused_and_not_said(address):
    with pytest.raises(InputError, match=r"must have no password in it") as refused:
        Store(address)
    assert "secret" not in str(refused.value)


class Far(LocalFileSystem):
    """A server's disk, as SFTP has it: it is named in the address, and a connection is one thread's alone."""

    root = ""
    made: ClassVar[list["Far"]] = []
    broken = 0

    def __init__(self, host, username=None, port=22, **options):
        super().__init__(**options)
        self.host, self.username, self.port, self.thread = host, username, port, threading.get_ident()
        self.dead = False
        Far.made.append(self)

    @classmethod
    def _strip_protocol(cls, path):
        return cls.root + infer_storage_options(path)["path"] if "://" in str(path) else str(path)

    @staticmethod
    def _get_kwargs_from_urls(url):
        told = infer_storage_options(url)
        return {name: value for name, value in told.items() if name not in ("path", "protocol")}

    def info(self, path, **options):
        assert self.thread == threading.get_ident(), "two threads in one connection"
        if Far.broken:
            Far.broken, self.dead = Far.broken - 1, True
        if self.dead:
            raise OSError("Socket is closed")
        return {name: value for name, value in super().info(path, **options).items() if name != "ino"}


@pytest.fixture
def far(tmp_path, monkeypatch):
    """What lies at `sftp://me@host:2222/`, on this disk."""
    monkeypatch.setattr(Far, "root", str(tmp_path / "far"))
    monkeypatch.setattr(Far, "made", [])
    monkeypatch.setitem(_registry, "sftp", Far)
    yield Path(Far.root)
    store._OWN.made.clear()


def test_an_address_says_where_its_server_is_and_each_thread_has_a_connection(far):
    one = Store("sftp://me@host:2222/pets")
    files = {f"{i}.bin": bytes([i]) * 9 for i in range(20)}
    for name, content in files.items():
        one.put(name, content)
    assert {path.name: path.read_bytes() for path in (far / "pets").iterdir()} == files, "and nothing half written"
    (far / "pets" / f"20.bin.{32 * 'a'}.part").write_bytes(b"half")
    assert one.find().keys() == files.keys()
    assert {path.name: path.read_bytes() for path in local("sftp://me@host:2222/pets").iterdir()} == files
    assert {(made.host, made.username, made.port) for made in Far.made} == {("host", "me", 2222)}
    assert len({made.thread for made in Far.made}) == len(Far.made) > 1
    with pytest.raises(Raced):
        one.put("1.bin", b"other", only=ABSENT)


def test_a_connection_that_broke_is_made_anew(far):
    one = Store("sftp://me@host:2222/pets")
    one.put("a.bin", b"1")
    made, Far.broken = len(Far.made), 1
    assert one.stat("a.bin") is not None
    assert len(Far.made) == made + 1


def test_what_tells_no_version_is_fetched_each_time(far, monkeypatch):
    one = Store("sftp://me@host:2222/pets")
    monkeypatch.setattr(store, "_VERSIONS", ())
    for content in (b"1" * 9, b"2" * 9):
        (far / "pets").mkdir(parents=True, exist_ok=True)
        (far / "pets" / "a.bin").write_bytes(content)
        assert (local(one.address) / "a.bin").read_bytes() == content
    one.put("b.bin", b"whoever was last")
    with pytest.raises(InputError, match="else two writers pass for one"):
        one.put("lock", b"mine", only=ABSENT)
    assert one.stat("lock") is None
