"""A training goes on while its checkpoint is written; what is written is the state of its step, or nothing."""

import signal
import threading

import keras
import pytest

from tests import tiny_runs
from tests.tiny_runs import PLAN
from tf_simclr.errors import InputError
from tf_simclr.run_folder import RunFolder
from tf_simclr.training import callbacks, steps_done, train


class Steps(keras.callbacks.Callback):
    """Calls something after a step."""

    def __init__(self, step: int, call):
        super().__init__()
        self.step, self.call = step, call

    def on_train_batch_end(self, batch, logs=None):
        if steps_done(self.model) == self.step:
            self.call()


@pytest.fixture
def slow_disk(monkeypatch):
    """A disk on which the checkpoint of step 8 waits until it is let go."""
    write, go = callbacks.write_state, threading.Event()

    def later(path, arrays):
        if "00000008" in path.name:
            assert go.wait(60)
        write(path, arrays)

    monkeypatch.setattr(callbacks, "write_state", later)
    yield go
    go.set()


def run(folder, *watching) -> None:
    options = {"plan": PLAN, "run": RunFolder(folder), "say": lambda line: None}
    train(tiny_runs.model(), tiny_runs.stream, **options, callbacks=list(watching))


def test_steps_are_taken_while_a_checkpoint_is_written_and_it_holds_what_it_would_have_held(tmp_path, slow_disk):
    run(tmp_path / "straight", Steps(1, slow_disk.set))
    slow_disk.clear()
    there = []

    def look():
        there.extend(tiny_runs.steps(tmp_path / "slow"))
        slow_disk.set()

    run(tmp_path / "slow", Steps(9, look))  # step 10 is to be saved next, and would wait
    assert there == [2, 4, 6]
    for step in tiny_runs.steps(tmp_path / "straight"):
        ours, theirs = (RunFolder(tmp_path / name).checkpoint(step) for name in ("slow", "straight"))
        tiny_runs.assert_same_bits(ours, theirs)


@pytest.fixture
def slower_disk(monkeypatch):
    """A disk on which each checkpoint takes longer than a step."""
    write = callbacks.write_state

    def slowly(path, arrays):
        threading.Event().wait(0.2)
        write(path, arrays)

    monkeypatch.setattr(callbacks, "write_state", slowly)


def test_a_training_ends_when_its_last_checkpoint_is_written(tmp_path, slower_disk):
    run(tmp_path)
    assert tiny_runs.steps(tmp_path) == list(range(2, 21, 2))


def test_a_stopped_one_ends_when_its_step_is_saved(tmp_path, slower_disk):
    with pytest.raises(SystemExit) as caught:
        run(tmp_path, Steps(8, lambda: signal.raise_signal(signal.SIGTERM)))
    assert caught.value.code == 143
    assert tiny_runs.steps(tmp_path) == [2, 4, 6, 8]


@pytest.mark.parametrize("step", [8, 20], ids=["in the midst", "the last one"])
def test_a_checkpoint_that_cannot_be_written_is_told_soon_and_leaves_the_one_before(tmp_path, monkeypatch, step):
    write = callbacks.write_state

    def full(path, arrays):
        if f"{step:08d}" in path.name:
            raise InputError(f"{path} must be writable: No space left on device; choose another place")
        write(path, arrays)

    monkeypatch.setattr(callbacks, "write_state", full)
    with pytest.raises(InputError, match="No space left on device"):
        run(tmp_path)
    assert tiny_runs.steps(tmp_path)[-1] == step - 2
    assert not (tmp_path / "lock").exists()
    monkeypatch.undo()
    run(tmp_path)
    assert tiny_runs.steps(tmp_path)[-1] == 20


def test_a_loss_that_is_no_number_names_the_checkpoint_that_was_just_written(tmp_path, slower_disk):
    def stream(step):
        return tiny_runs.stream(step, bad_step=8)

    with pytest.raises(InputError, match=r"the last good checkpoint: .*step-00000008.npz"):
        train(tiny_runs.model(), stream, plan=PLAN, run=RunFolder(tmp_path), say=lambda line: None)
