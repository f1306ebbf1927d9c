"""Killed at any moment, the same command ends with the same bits; quickly by faults, slowly by killing processes."""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from tests import golden, killed_run, tiny_runs
from tests.tiny_runs import PLAN
from tf_simclr import files
from tf_simclr import run_folder as checkpoint
from tf_simclr.machine.signals import Stopping
from tf_simclr.run_folder import RunFolder
from tf_simclr.training import callbacks, read_history, train

KILLS = 26
rng = random.Random(0)


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def half_written(monkeypatch, path: Path) -> None:
    """Dies in the midst of writing a checkpoint, and leaves what was written."""
    write = np.savez

    def savez(file, **arrays):
        write(file, **arrays)
        if path.name in file.name:
            file.truncate(file.tell() // 2)
            shutil.copy(file.name, path.with_name(f".4711.{path.name}"))
            raise Killed

    monkeypatch.setattr(checkpoint.np, "savez", savez)


def not_yet_in_place(monkeypatch, path: Path) -> None:
    """Dies with a whole checkpoint that has not got its name."""
    replace = files.os.replace

    def die(source, target):
        if target == path:
            shutil.copy(source, path.with_name(f".4711.{path.name}"))
            raise Killed
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", die)


def not_yet_saved(monkeypatch, path: Path) -> None:
    """Dies before a checkpoint is begun; at an epoch's end its line of the history is written."""
    save = callbacks.write_state

    def die(target, *args, **options):
        if target == path:
            raise Killed
        save(target, *args, **options)

    monkeypatch.setattr(callbacks, "write_state", die)


def just_saved(monkeypatch, path: Path) -> None:
    """Dies before the oldest checkpoint is removed."""
    save = callbacks.write_state

    def die(target, *args, **options):
        save(target, *args, **options)
        if target == path:
            raise Killed

    monkeypatch.setattr(callbacks, "write_state", die)


@pytest.fixture(autouse=True)
def ctrl_c():
    """Ctrl-C ends this process, also where a shell has started the tests in the background and it would be ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    tiny_runs.run(folder)
    return folder


def assert_equals(folder: Path, straight: Path, step: int = PLAN.total_steps) -> None:
    tiny_runs.assert_same_bits(RunFolder(folder).checkpoint(step), RunFolder(straight).checkpoint(step))
    assert RunFolder(folder).history.read_bytes() == RunFolder(straight).history.read_bytes()
    assert not [path for path in folder.rglob(".*") if path.is_file()]
    assert not (folder / "lock").exists()


@pytest.mark.parametrize("step", [8, 12], ids=["mid-epoch", "an epoch's end"])
@pytest.mark.parametrize("fault", [half_written, not_yet_in_place, not_yet_saved, just_saved])
def test_a_run_that_dies_around_a_checkpoint_ends_as_a_straight_one(tmp_path, straight, monkeypatch, fault, step):
    path = RunFolder(tmp_path).checkpoint(step)
    with monkeypatch.context() as patch:
        fault(patch, path)
        with pytest.raises(Killed):
            tiny_runs.run(tmp_path)
    newest = step if fault is just_saved else step - 2
    assert RunFolder(tmp_path).checkpoints()[0] == RunFolder(tmp_path).checkpoint(newest)
    assert [row["step"] for row in read_history(RunFolder(tmp_path))] == ([6, 12] if step == 12 else [6])
    said = tiny_runs.run(tmp_path, start=1)
    assert said == [f"resuming after step {newest} from {RunFolder(tmp_path).checkpoint(newest)}"]
    assert_equals(tmp_path, straight)


class Send(keras.callbacks.Callback):
    """Sends this process a signal within a step."""

    def __init__(self, number: signal.Signals, *, step: int):
        super().__init__()
        self.number, self.step = number, step

    def on_train_batch_begin(self, batch, logs=None):
        if int(self.model.optimizer.iterations.numpy()) == self.step - 1:
            signal.raise_signal(self.number)


def stopped(folder: Path, number: signal.Signals, *, step: int) -> tuple[BaseException, list[str]]:
    """What a run raises and says that gets a signal."""
    said: list[str] = []
    options = {"plan": PLAN, "run": RunFolder(folder), "say": said.append}
    with pytest.raises((SystemExit, KeyboardInterrupt)) as caught:
        train(tiny_runs.model(), tiny_runs.stream, **options, callbacks=[Send(number, step=step)])
    return caught.value, said


@pytest.mark.parametrize("step", [9, 12, 20], ids=["mid-epoch", "an epoch's end", "the last step"])
def test_sigterm_lets_the_step_end_saves_it_and_exits_with_143(tmp_path, straight, step):
    before = signal.getsignal(signal.SIGTERM)
    raised, said = stopped(tmp_path, signal.SIGTERM, step=step)
    assert isinstance(raised, SystemExit)
    assert raised.code == 143
    path = RunFolder(tmp_path).checkpoint(step)
    assert said == [f"SIGTERM: step {step} is saved in {path}; the same command goes on from there"]
    assert RunFolder(tmp_path).checkpoints()[0] == path
    assert signal.getsignal(signal.SIGTERM) == before
    assert tiny_runs.run(tmp_path, start=1) == [f"resuming after step {step} from {path}"]
    assert_equals(tmp_path, straight)


def test_ctrl_c_saves_the_step_too(tmp_path, straight):
    raised, said = stopped(tmp_path, signal.SIGINT, step=7)
    assert isinstance(raised, KeyboardInterrupt)
    assert said == [
        f"SIGINT: step 7 is saved in {RunFolder(tmp_path).checkpoint(7)}; the same command goes on from there"
    ]
    tiny_runs.run(tmp_path, start=1)
    assert_equals(tmp_path, straight)


def test_a_second_ctrl_c_is_obeyed_at_once():
    with Stopping() as stopping:
        signal.raise_signal(signal.SIGINT)
        assert stopping.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        stopping.signal = None


def test_a_signal_after_the_last_step_is_obeyed_at_the_end():
    with pytest.raises(SystemExit), Stopping():
        signal.raise_signal(signal.SIGTERM)


def test_signals_that_the_process_ignores_stay_ignored():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as under nohup
    try:
        with Stopping() as stopping:
            signal.raise_signal(signal.SIGTERM)
        assert stopping.signal is None
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_training_in_another_thread_leaves_signals_alone():
    entered = []

    def run():
        with Stopping() as stopping:
            entered.append(stopping.before)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert entered == [{}]


@pytest.fixture
def nursery():
    """Starts trainings, which another process has made all imports for."""
    command = [sys.executable, "-m", "tests.killed_run"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=golden.ROOT, text=True, **pipes) as process:
        said: list[str] = []
        threading.Thread(target=lambda: said.extend(process.stderr), daemon=True).start()

        def start(folder: Path) -> "Child":
            process.stdin.write(f"{folder}\n")
            process.stdin.flush()
            return Child(int(process.stdout.readline()), RunFolder(folder), process, said)

        yield start
        process.stdin.close()


class Child:
    """A training that another process has forked."""

    def __init__(self, number: int, run: RunFolder, parent: subprocess.Popen, said: list[str]):
        self.number, self.run, self.parent, self.said = number, run, parent, said

    def wait_for(self, reached) -> None:
        """Waits until something has happened in the run's folder."""
        while not reached():
            assert (Path("/proc") / str(self.number)).exists(), f"it has ended by itself: {self.said[-5:]}"
            time.sleep(0.0005)

    def kill(self, how: str, *, step: int) -> int:
        """Kills it in one of several ways, not before a step's checkpoint, and returns its exit code."""
        if how == "startup":
            time.sleep(rng.uniform(0, 3))
        else:
            self.wait_for(lambda: self.newest() >= step)
        if how == "write":
            self.wait_for(lambda: unfinished(self.run))
        elif how == "moment":
            time.sleep(rng.uniform(0, 0.05))
        signals = {"SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
        signal.pidfd_send_signal(descriptor := os.pidfd_open(self.number), signals.get(how, signal.SIGKILL))
        os.close(descriptor)
        return self.code()

    def newest(self) -> int:
        """The step of its newest checkpoint."""
        return max((int(path.stem[5:]) for path in self.run.checkpoints()), default=0)

    def code(self) -> int:
        """Its exit code, once it has ended; a signal's number negative."""
        return int(self.parent.stdout.readline())


def unfinished(run: RunFolder) -> list[Path]:
    """Checkpoints that are being written, or never will be."""
    return list((run.path / "checkpoints").glob(".*.step-*.npz"))


@pytest.mark.slow
def test_processes_that_are_killed_at_random_moments_end_as_one_that_was_not(tmp_path, nursery, capsys):
    straight, killed = RunFolder(tmp_path / "straight"), RunFolder(tmp_path / "killed")
    assert nursery(straight.path).code() == 0
    ways = ["write", "moment", "write", "SIGTERM", "moment", "write", "startup", "moment", "write", "SIGINT"]
    counts: dict[str, int] = {}
    halves = 0
    for i in range(KILLS):
        how = ways[i % len(ways)]
        code = nursery(killed.path).kill(how, step=(i + 1) * killed_run.STEPS // (KILLS + 3))
        assert code == {"SIGTERM": 143, "SIGINT": 130}.get(how, -signal.SIGKILL)
        counts[how] = counts.get(how, 0) + 1
        halves += bool(unfinished(killed))
        if i == KILLS // 2:  # the disk fails, too
            newest = killed.checkpoints()[0]
            newest.write_bytes(newest.read_bytes()[:-1000])
    last = nursery(killed.path)
    assert last.code() == 0, last.said[-5:]
    assert_equals(killed.path, straight.path, killed_run.STEPS)
    assert halves > 0
    assert sum(line.startswith("refused: ") for line in last.said) == 1
    with capsys.disabled():
        ways = ", ".join(f"{count} {how}" for how, count in sorted(counts.items()))
        sys.stdout.write(
            f"\n{sum(counts.values())} processes killed ({ways}); {halves} left a half-written checkpoint\n"
        )
