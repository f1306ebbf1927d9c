"""Workers: order, refusals, and what happens to those that crash, hang or eat memory."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tf_simclr.chest.files.worker import FORKS, Crew, each, once
from tf_simclr.errors import InputError

BEHAVE = "tests.chest.crew:behave"
forks = pytest.mark.skipif(not FORKS, reason="only on Linux each file has a process of its own")


def test_answers_come_in_the_order_of_the_requests_whatever_becomes_of_some():
    kinds = ["echo", "crash", "echo", "refuse", "eat", "echo", "echo", "fail"]
    requests = [{"kind": kind, "value": i} for i, kind in enumerate(kinds)]
    results = list(each(BEHAVE, requests, workers=2))
    assert [r for r in results if isinstance(r, bytes)] == [b"0", b"2", b"5", b"6"]
    crash, refusal, hunger, failure = (results[i] for i in (1, 3, 4, 7))
    assert "its decoder crashed (ended with code -11)" in str(crash)
    assert str(refusal) == "no, because"
    assert "memory" in str(hunger)
    assert "its decoder crashed (ended with code 1)" in str(failure)


def test_a_file_that_takes_too_long_is_refused_and_the_next_one_is_read():
    requests = [{"kind": "hang"}, {"kind": "echo", "value": 7}]
    hung, answer = each(BEHAVE, requests, workers=1, seconds=3)
    assert "within 3 seconds" in str(hung)
    assert answer == b"7"


def test_one_request_alone_raises_its_reason():
    assert once(BEHAVE, {"kind": "echo", "value": 3}) == b"3"
    with pytest.raises(InputError, match="no, because"):
        once(BEHAVE, {"kind": "refuse"})


@forks
def test_no_file_meets_what_the_one_before_it_left_and_none_may_write_or_be_heard(tmp_path, capfd):
    name = f"tf-simclr-test-{os.getpid()}"
    requests = [{"kind": "remember", "value": i} for i in range(3)]
    requests += [{"kind": "write", "value": name}, {"kind": "print"}]
    *remembered, written, printed = each(BEHAVE, requests)
    assert remembered == [b"1"] * 3
    assert "crashed" in str(written)
    assert not Path("/tmp", name).exists() or not Path("/tmp", name).read_bytes()
    Path("/tmp", name).unlink(missing_ok=True)
    assert printed == b"printed"
    assert capfd.readouterr() == ("", "")


@forks
def test_a_loop_ends_by_its_own_processor_time_even_where_nobody_waits():
    (late,) = each(BEHAVE, [{"kind": "loop"}], seconds=1)
    assert "within 1 seconds" in str(late)


def hang(crew):
    with pytest.raises(InputError):
        crew({"kind": "hang"})


def test_a_crew_answers_many_threads_each_its_own_and_one_that_hangs_keeps_no_other_waiting():
    crew = Crew("tests.chest.crew:measure", workers=2, seconds=20)
    try:
        crew({"times": 1}, b"")  # started
        results = {}

        def ask(number):
            results[number] = crew({"times": 2}, bytes(number))

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == {number: b"%d" % (2 * number) for number in range(40)}
    finally:
        crew.close()
    slow = Crew(BEHAVE, workers=2, seconds=30)
    try:
        hanging = threading.Thread(target=hang, args=(slow,))
        hanging.start()
        began = time.monotonic()
        assert [slow({"kind": "echo", "value": i}) for i in range(10)] == [b"%d" % i for i in range(10)]
        assert hanging.is_alive()
        assert time.monotonic() - began < 25
    finally:
        slow.workers[0].kill()
        slow.workers[1].kill()
        hanging.join()
        slow.close()


def test_a_plain_script_without_a_main_guard_may_ask(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from tf_simclr.chest.files.worker import each\n"
        f"print(list(each({BEHAVE!r}, [{{'kind': 'echo', 'value': 1}}], workers=2)))\n"
    )
    root = Path(__file__).parents[2]
    result = subprocess.run(
        [sys.executable, script],
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    assert result.stdout == "[b'1']\n"
    assert result.stderr == ""
