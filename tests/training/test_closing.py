"""What is done behind the last step: by one process, and a signal or a refusal ends all alike."""

import os
import signal
from pathlib import Path

import pytest

from tf_simclr import replicas
from tf_simclr.errors import InputError
from tf_simclr.machine.signals import Interrupted, Stopped, Stopping
from tf_simclr.run_folder import RunFolder
from tf_simclr.training.closing import Closing

SAVED = "step 9 is saved in run/checkpoints/step-00000009.npz; the same command goes on from there"


@pytest.fixture
def said():
    return []


def closing(stopping: Stopping, said: list[str]) -> Closing:
    return Closing(stopping, devices=replicas.ONE_DEVICE, run=RunFolder(Path("run")), step=9, say=said.append)


def test_what_the_chief_makes_it_has_and_the_others_wait_for(monkeypatch, said):
    with Stopping() as stopping:
        assert closing(stopping, said).by_chief(lambda: 3) == 3
        monkeypatch.setattr(replicas.Devices, "process", (1, 2))
        monkeypatch.setattr(replicas.Devices, "collect", lambda _, value: [None, value])
        monkeypatch.setattr(replicas.Devices, "first_signal", lambda _, here: here)
        assert closing(stopping, said).by_chief(lambda: pytest.fail("it is not the chief")) is None
    assert said == []


@pytest.mark.parametrize("number", [0, 1])
def test_what_the_chief_refuses_all_refuse(monkeypatch, number):
    def refused():
        raise InputError("the folder must be writable")

    told = []

    def collect(_, value):
        told.append(value)
        return ["the folder must be writable", None]

    monkeypatch.setattr(replicas.Devices, "process", (number, 2))
    monkeypatch.setattr(replicas.Devices, "collect", collect)
    monkeypatch.setattr(replicas.Devices, "part", lambda _: None)
    with pytest.raises(InputError, match="the folder must be writable"):
        replicas.ONE_DEVICE.by_chief(refused)
    assert told == [None if number else "the folder must be writable"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, None)])
def test_a_signal_ends_the_work_where_it_is(said, number, code):
    done = []

    def work():
        os.kill(os.getpid(), number)
        done.append("all")

    # Started in the background, a shell lets its programs ignore Ctrl-C: then there is nothing to interrupt.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit if code else KeyboardInterrupt) as caught, Stopping() as stopping:
            closing(stopping, said).by_chief(work)
    finally:
        signal.signal(signal.SIGINT, before)
    assert done == []
    assert code is None or caught.value.code == code
    name = number.name
    assert said == [
        f"{name}: step 9 is saved in run/checkpoints/step-00000009.npz; the same command goes on from there"
    ]


def test_a_signal_that_came_before_lets_no_work_begin(said):
    stopping = Stopping()
    stopping.note(signal.SIGTERM, None)
    with pytest.raises(SystemExit):
        closing(stopping, said).by_chief(lambda: pytest.fail("it began"))
    assert len(said) == 1


def test_another_process_s_signal_ends_this_one(monkeypatch, said):
    monkeypatch.setattr(replicas.Devices, "first_signal", lambda _, here: here or signal.SIGTERM)
    with pytest.raises(SystemExit) as caught, Stopping() as stopping:
        closing(stopping, said).by_chief(lambda: 3)
    assert caught.value.code == 143
    assert said == [
        "SIGTERM: step 9 is saved in run/checkpoints/step-00000009.npz; the same command goes on from there"
    ]


def test_an_end_that_no_signal_asked_for_is_not_swallowed(said):
    def work():
        raise SystemExit(7)

    with pytest.raises(SystemExit) as caught, Stopping() as stopping:
        closing(stopping, said).by_chief(work)
    assert caught.value.code == 7


def test_nobody_says_that_a_step_is_saved_before_it_lies_where_the_next_start_looks(monkeypatch, said):
    monkeypatch.setattr(RunFolder, "send", lambda run: said.append(f"{run.path} is sent"))
    monkeypatch.setattr(replicas.Devices, "part", lambda _: said.append("all are here"))
    stopping = Stopping(signal.SIGTERM)
    with pytest.raises(Stopped):
        closing(stopping, said).stop()
    assert said == ["run is sent", f"SIGTERM: {SAVED}", "all are here"]


@pytest.mark.parametrize("number", [0, 1])
def test_all_say_that_the_bucket_lacks_what_is_saved(monkeypatch, said, number):
    def send(_run):
        raise InputError("s3://b must answer")

    monkeypatch.setattr(RunFolder, "send", send)
    monkeypatch.setattr(replicas.Devices, "process", (number, 2))
    monkeypatch.setattr(replicas.Devices, "collect", lambda _, told: [told or "s3://b must answer", None])
    monkeypatch.setattr(replicas.Devices, "first_signal", lambda _, here: signal.SIGINT)
    monkeypatch.setattr(replicas.Devices, "part", lambda _: None)
    with pytest.raises(Interrupted):
        closing(Stopping(), said).stop()
    where = "on the machine of worker 0 alone, where the same command goes on from it"
    assert said == [f"SIGINT: step 9 is saved {where}: s3://b must answer"]
