"""What lies between a backend's client and the first process: bytes pass as they are, and only a loss is a loss."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from tests import golden
from tf_simclr.replicas import line
from tf_simclr.replicas.line import Line


@pytest.fixture
def ends(monkeypatch):
    """What is called instead of ending this process."""
    found = threading.Event()
    monkeypatch.setattr(line, "_GRACE", 0.2)
    monkeypatch.setattr(line, "end", lambda sentence: found.set())
    return found


class First:
    """The first process: it sends back what comes."""

    def __init__(self):
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.place = self.listening.getsockname()
        self.came: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                one, _ = self.listening.accept()
            except OSError:
                return
            self.came.append(one)
            threading.Thread(target=self._answer, args=(one,), daemon=True).start()

    def _answer(self, one):
        with contextlib.suppress(OSError):
            while data := one.recv(1 << 16):
                one.sendall(data)

    def close(self):
        self.listening.shutdown(socket.SHUT_RDWR)
        for one in (self.listening, *self.came):
            one.close()

    def die(self):
        for one in self.came:
            one.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def made():
    """Makes lines, which are parted from at the end."""
    found = []

    def make(place, **given):
        found.append(Line(place, **given))
        return found[-1]

    yield make
    for one in found:
        one.part()
        one.listening.shutdown(socket.SHUT_RDWR)
        one.listening.close()


@pytest.fixture
def connected():
    """Connects clients, which are closed at the end."""
    with contextlib.ExitStack() as stack:

        def connect(one: Line) -> socket.socket:
            client = socket.create_connection(("127.0.0.1", int(one.address.split(":")[1])))
            client.settimeout(5)
            stack.callback(client.close)
            return client

        yield connect


@pytest.fixture
def first():
    found = First()
    yield found
    found.close()


def told(client: socket.socket, data: bytes) -> bytes:
    client.sendall(data)
    found = b""
    while len(found) < len(data):
        found += client.recv(1 << 16)
    return found


def test_bytes_pass_and_a_loss_ends_the_process_whose_client_hears_nothing(ends, first, made, connected):
    one = made(first.place, number=1, count=2)
    clients = [connected(one) for _ in range(3)]
    data = os.urandom(300_000)
    assert [told(client, data) for client in clients] == [data] * 3
    first.die()
    assert ends.wait(5)
    assert one.lost.is_set()
    clients[0].settimeout(0.1)
    with pytest.raises(TimeoutError):
        clients[0].recv(1)


def test_a_client_that_hangs_up_has_lost_nobody(ends, first, made, connected):
    one = made(first.place, number=1, count=2)
    client = connected(one)
    assert told(client, b"good day") == b"good day"
    client.close()
    assert not ends.wait(0.5)
    assert not one.lost.is_set()
    assert told(connected(one), b"again") == b"again"


def test_who_parts_hears_that_the_first_one_has_gone_and_does_not_mind(ends, first, made, connected):
    one = made(first.place, number=1, count=2)
    client = connected(one)
    told(client, b"good day")
    one.part()
    first.die()
    assert client.recv(1) == b""
    assert not ends.wait(0.5)


def test_before_the_first_one_listens_the_client_is_sent_away_and_may_come_again(ends, made, connected):
    with socket.create_server(("127.0.0.1", 0)) as free:
        place = free.getsockname()
    one = made(place, number=1, count=2)
    assert connected(one).recv(1) == b""
    assert not ends.wait(0.3)


def test_a_process_that_waits_ends_with_a_sentence(first):
    program = f"""
import socket, time
from tf_simclr.replicas import line
line._GRACE = 0.1
one = line.Line({first.place!r}, number=3, count=4)
client = socket.create_connection(("127.0.0.1", int(one.address.split(":")[1])))
client.sendall(b"x")
client.recv(1)
print("met", flush=True)
time.sleep(60)
"""
    words = [sys.executable, "-c", program]
    with subprocess.Popen(words, cwd=golden.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "met\n"
        first.die()
        began = time.monotonic()
        _, said = process.communicate()
    assert process.returncode == 2
    assert time.monotonic() - began < 30
    assert "all 4 workers must stay reachable, but worker 3 lost worker 0, where they meet; start all of them" in said


def test_proxies_for_others_do_not_stand_between(monkeypatch):
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("no_grpc_proxy", raising=False)
    line._spare_proxies()
    assert "no_grpc_proxy" not in os.environ
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "node1,.cluster")
    line._spare_proxies()
    assert os.environ.get("no_grpc_proxy") == "node1,.cluster,127.0.0.1"  # noqa: SIM112
    monkeypatch.delenv("no_grpc_proxy")
