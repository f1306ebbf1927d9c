"""Workers: order, refusals, and what happens to those that crash, hang or eat memory."""

import pytest

from tf_simclr.chest.bounded import each, once
from tf_simclr.errors import InputError

BEHAVE = "tests.chest.crew:behave"


def test_answers_come_in_the_order_of_the_requests_whatever_becomes_of_some():
    kinds = ["echo", "crash", "echo", "refuse", "eat", "echo", "echo"]
    requests = [{"kind": kind, "value": i} for i, kind in enumerate(kinds)]
    results = list(each(BEHAVE, requests, workers=2))
    assert [r for r in results if isinstance(r, bytes)] == [b"0", b"2", b"5", b"6"]
    crash, refusal, hunger = (results[i] for i in (1, 3, 4))
    assert "its decoder crashed (ended with code -11)" in str(crash)
    assert str(refusal) == "no, because"
    assert "memory" in str(hunger)


def test_a_file_that_takes_too_long_is_refused_and_the_next_one_is_read():
    requests = [{"kind": "hang"}, {"kind": "echo", "value": 7}]
    hung, answer = each(BEHAVE, requests, workers=1, seconds=8)
    assert "within 8 seconds" in str(hung)
    assert answer == b"7"


def test_one_request_alone_raises_its_reason():
    assert once(BEHAVE, {"kind": "echo", "value": 3}) == b"3"
    with pytest.raises(InputError, match="no, because"):
        once(BEHAVE, {"kind": "refuse"})
