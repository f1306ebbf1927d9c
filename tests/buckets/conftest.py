"""Stores on loopback for all tests of this room: one server of each kind a session."""

import logging
import os
import uuid

import pytest

from tests import stores
from tf_simclr.buckets import locks, patience, sending
from tf_simclr.buckets.store import Store


@pytest.fixture(scope="session")
def servers():
    """Kind → its proxy, started when it is first asked for."""
    import contextlib

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        running = {}

        def start(kind):
            if kind not in running:
                found: dict[str, str] = {}
                running[kind] = stack.enter_context(stores.STORES[kind](found))
                for name, value in found.items():
                    patch.setenv(name, value)
            return running[kind]

        yield start


@pytest.fixture
def proxy(request, servers):
    """What is between the tests and the store of `kind`; nothing fails after the test."""
    kind = getattr(request, "param", "s3")
    one = servers(kind)
    one.kind = kind
    yield one
    one.fault, one.count = (lambda method, path, body: None), 0


@pytest.fixture
def bucket(proxy):
    """An address that nothing lies at."""
    return f"{proxy.kind}://bucket/{uuid.uuid4().hex}"


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """A cache of the test's own, and waits in hundredths of a second."""
    monkeypatch.setenv("TF_SIMCLR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(patience, "PATIENCE", 20.0)
    monkeypatch.setattr(patience, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(patience, "LONGEST_WAIT", 0.05)
    monkeypatch.setattr(sending, "LOOKS", 0.05)
    monkeypatch.setattr(locks, "SILENCE", 0.5)


def filled(address: str, files: dict[str, bytes]) -> Store:
    """A place with these objects."""
    store = Store(address)
    for name, content in files.items():
        store.put(name, content)
    return store


assert os.environ.get("TF_SIMCLR_PATIENCE") is None, "the tests' own patience is meant"
