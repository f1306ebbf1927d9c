"""A roll call names who is missing, came twice or counts otherwise; strangers at the port harm nobody."""

import contextlib
import json
import socket
import threading
import time

import pytest

from tests.replicas.test_workers import free_ports
from tf_simclr.errors import InputError
from tf_simclr.replicas.roll_call import answer, call


class Called:
    """A first process in a thread, and what it heard of it."""

    def __init__(self, count: int, *, seconds: float = 20, place: tuple[str, int] | None = None):
        self.place = place or ("127.0.0.1", free_ports(1)[0])
        self.error: Exception | None = None
        self.thread = threading.Thread(target=self.run, args=(count, seconds))
        self.thread.start()

    def run(self, count: int, seconds: float) -> None:
        try:
            call(self.place, count, seconds=seconds, who="test", more="or wait")
        except InputError as error:
            self.error = error

    def heard(self) -> str:
        self.thread.join()
        return str(self.error or "go")


def answers(place: tuple[str, int], *numbers: tuple[int, int], seconds: float = 20) -> list[str]:
    """What processes of these numbers and counts hear, all at once."""
    said = [""] * len(numbers)

    def one(row: int, number: int, count: int) -> None:
        try:
            answer(place, number, count=count, seconds=seconds)
            said[row] = "go"
        except InputError as error:
            said[row] = str(error)

    threads = [threading.Thread(target=one, args=(row, *pair)) for row, pair in enumerate(numbers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return said


def connected(place: tuple[str, int]) -> socket.socket:
    """As soon as somebody listens."""
    while True:
        try:
            return socket.create_connection(place, timeout=5)
        except OSError:
            time.sleep(0.02)


def test_all_go_on_when_all_have_come():
    first = Called(4)
    assert answers(first.place, (3, 4), (1, 4), (2, 4)) == ["go"] * 3
    assert first.heard() == "go"
    with socket.socket() as free:  # the backend listens there next
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(first.place)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="needs IPv6")
def test_others_may_come_by_ipv6():
    first = Called(3)
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        other = "::1"
    except OSError:  # no such address here
        other = "127.0.0.1"
    said = []
    for number, host in ((1, other), (2, "127.0.0.1")):
        place = (host, first.place[1])
        said.append(
            threading.Thread(target=lambda place=place, number=number: answer(place, number, count=3, seconds=9))
        )
    for thread in said:
        thread.start()
    assert first.heard() == "go"


def test_who_is_missing_is_named_by_all():
    first = Called(5, seconds=2)
    heard = answers(first.place, (1, 5), (4, 5))
    rule = "all processes must meet within 2 s (test), but this one could not join: processes 2, 3 of 5 have not come"
    assert all(text.startswith(rule) and "or wait" in text for text in (*heard, first.heard())), heard


@pytest.mark.parametrize("numbers", [[(1, 3), (1, 3)], [(0, 3)], [(3, 3)], [(-1, 3)]])
def test_two_of_one_number_or_one_that_is_none(numbers):
    first = Called(3)
    heard = answers(first.place, *numbers)
    rule = "each process must have another number from 0 to 2, but two came as "
    assert all(text.startswith(rule) for text in (*heard, first.heard())), heard


def test_another_number_of_processes():
    first = Called(2)
    rule = "all must be told the same number of processes, but 0 has 2 and 1 has 3"
    assert [*answers(first.place, (1, 3)), first.heard()] == [rule, rule]


def test_strangers_and_processes_that_were_started_again():
    first = Called(3)
    silent, gone = connected(first.place), connected(first.place)
    gone.sendall(json.dumps({"tf_simclr": [1, 3]}).encode() + b"\n")
    gone.close()  # it died, and comes again below
    for said in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01" * 3000, b'{"tf_simclr": [[1], 3]}\n', b"[" * 3000 + b"\n"):
        with connected(first.place) as stranger:
            stranger.sendall(said)
    time.sleep(0.1)
    assert answers(first.place, (1, 3), (2, 3)) == ["go", "go"]
    assert first.heard() == "go"
    silent.close()


def test_a_first_process_that_is_not_there_or_no_first_process_is_said():
    port = free_ports(1)[0]
    [heard] = answers(("127.0.0.1", port), (1, 2), seconds=0.5)
    assert heard.startswith(f"the coordinator 127.0.0.1:{port} must answer within 0 s, but process 1 does not reach it")
    with socket.socket() as other:  # listens, and hangs up
        other.bind(("127.0.0.1", 0))
        other.listen()
        other.settimeout(5)

        def hang_up() -> None:
            with contextlib.suppress(OSError):
                while True:
                    other.accept()[0].close()

        threading.Thread(target=hang_up, daemon=True).start()
        [heard] = answers(other.getsockname(), (1, 2), seconds=0.2)
    assert "process 1 does not reach it (" in heard


def test_a_first_process_that_comes_late_or_again_is_waited_for():
    place = ("127.0.0.1", free_ports(1)[0])
    with socket.socket() as before:  # one that died as soon as it was asked
        before.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        before.bind(place)
        before.listen()
        said: list[str] = []
        thread = threading.Thread(target=lambda: said.extend(answers(place, (1, 2))))
        thread.start()
        before.accept()[0].close()
    first = Called(2, place=place)
    thread.join()
    assert [*said, first.heard()] == ["go", "go"]
