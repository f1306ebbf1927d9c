"""A training that is stopped anywhere and goes on equals one that was not; what is said, kept and refused."""

import csv
import io
import re
import threading
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import tiny_runs
from tests.tiny_runs import PLAN, Stop
from tf_simclr import training
from tf_simclr.commands.parts.plans import plan_of
from tf_simclr.config import Pretrain
from tf_simclr.data import pipeline
from tf_simclr.errors import InputError
from tf_simclr.run_folder import RunFolder
from tf_simclr.training import Plan, train
from tf_simclr.training import callbacks as progress_line
from tf_simclr.training.callbacks import Served


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    assert tiny_runs.run(folder) == []
    return folder


@pytest.fixture(autouse=True)
def quiet(capsys):
    """Progress lines go to the captured stderr."""


def assert_equals(folder, straight):
    tiny_runs.assert_same_bits(RunFolder(folder).checkpoint(20), RunFolder(straight).checkpoint(20))
    assert RunFolder(folder).history.read_bytes() == RunFolder(straight).history.read_bytes()


@pytest.mark.parametrize("per_epoch", [1, 3, 6, 25])
@pytest.mark.parametrize("total", [1, 6, 20])
def test_segments_cover_every_step_once_and_end_at_epochs_ends(total, per_epoch):
    plan = Plan(total_steps=total, steps_per_epoch=per_epoch, batch_size=8, checkpoint_steps=1)
    for start in range(total + 1):
        at = start
        for first, epoch, end, count in plan.segments(start):
            assert first == at
            assert epoch == at // per_epoch
            assert end == epoch + 1 or (at % per_epoch == 0 and count == per_epoch)
            at += (end - epoch) * count
            assert at == total or at % per_epoch == 0
        assert at == total


@pytest.mark.parametrize(
    ("examples", "batch", "epochs"), [(1437, 128, 6), (40, 16, 2), (190, 100, 6), (64, 64, 3), (9, 4, 1)]
)
def test_epochs_are_numbered_as_they_are_asked_for(examples, batch, epochs):
    plan = plan_of(Pretrain(train_batch_size=batch, train_epochs=epochs), examples)
    assert plan.total_steps == examples * epochs // batch + 1  # the reference's
    assert plan.last_epoch == epochs
    for start in range(plan.total_steps):
        ends = [plan.end(n) for _, epoch, end, _ in plan.segments(start) for n in range(epoch, end)]
        assert ends[-1] == plan.total_steps
        assert ends == sorted(set(ends))
        steps = sum((end - epoch) * count for _, epoch, end, count in plan.segments(start))
        assert start + steps == plan.total_steps
    assert [end for *_, end, _ in plan.segments(0)][-1] == epochs


def test_the_history_has_a_line_an_epoch_the_short_last_one_too(straight):
    with open(RunFolder(straight).history, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["step"], row["epoch"]) for row in rows] == [("6", "1"), ("12", "2"), ("18", "3"), ("20", "4")]
    assert {"loss", "contrast_loss", "contrast_acc", "supervised_acc", "learning_rate"} <= rows[0].keys()
    read = training.read_history(RunFolder(straight))
    assert read == [{name: float(value) for name, value in row.items()} for row in rows]


@pytest.mark.parametrize(
    ("stop", "newest"),
    [
        pytest.param(Stop(6, epoch=True), 6, id="an epoch's edge"),
        pytest.param(Stop(6), 4, id="before an epoch's edge is noted"),
        pytest.param(Stop(8), 8, id="mid-epoch, with its checkpoint"),
        pytest.param(Stop(9), 8, id="mid-epoch, after it"),
        pytest.param(Stop(19), 18, id="in the short last epoch"),
    ],
)
def test_a_resumed_run_equals_a_straight_one_bit_by_bit(tmp_path, straight, stop, newest):
    tiny_runs.run(tmp_path, stop=stop)
    assert tiny_runs.steps(tmp_path)[-1] == newest
    said = tiny_runs.run(tmp_path, start=1)  # other weights at first: all that counts comes from the checkpoint
    assert said == [f"resuming after step {newest} from {RunFolder(tmp_path).checkpoint(newest)}"]
    assert_equals(tmp_path, straight)


def test_a_run_that_is_stopped_again_and_again_equals_a_straight_one(tmp_path, straight):
    for stop in (1, 5, 7, 13):
        tiny_runs.run(tmp_path, stop=Stop(stop))
    tiny_runs.run(tmp_path)
    assert_equals(tmp_path, straight)


def test_a_finished_run_stays_as_it_is(tmp_path, straight):
    tiny_runs.run(tmp_path)
    before = RunFolder(tmp_path).checkpoint(20).stat().st_mtime_ns
    tiny_runs.run(tmp_path)
    assert RunFolder(tmp_path).checkpoint(20).stat().st_mtime_ns == before
    assert_equals(tmp_path, straight)


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_taken(tmp_path, straight):
    tiny_runs.run(tmp_path, stop=Stop(12, epoch=True))
    damaged = RunFolder(tmp_path).checkpoint(12)
    damaged.write_bytes(damaged.read_bytes()[:-100])
    refused, resumed = tiny_runs.run(tmp_path, start=1)
    assert re.match(f"refused: {damaged} must be a whole checkpoint, but it is damaged .*; remove it", refused)
    assert resumed == f"resuming after step 10 from {RunFolder(tmp_path).checkpoint(10)}"
    assert_equals(tmp_path, straight)


def test_a_run_whose_checkpoints_are_all_damaged_does_not_start_anew_by_itself(tmp_path):
    tiny_runs.run(tmp_path, stop=Stop(4))
    for path in RunFolder(tmp_path).checkpoints():
        path.write_bytes(b"")
    with pytest.raises(InputError, match=f"{tmp_path} has checkpoints, but none is whole; remove its checkpoints"):
        tiny_runs.run(tmp_path)


@pytest.mark.parametrize("version", [None, 1, 99])  # None: as runs were saved before there were versions
def test_a_run_whose_images_came_in_another_order_is_not_resumed(tmp_path, version):
    tiny_runs.run(tmp_path, stop=Stop(4))
    for path in RunFolder(tmp_path).checkpoints():
        arrays = tiny_runs.arrays(path)
        del arrays["stream/version"]
        np.savez(path, **arrays | ({} if version is None else {"stream/version": np.int64(version)}))
    rule = f"order of version {version or 1}, and this is 2.*start in another folder, from these weights"
    with pytest.raises(InputError, match=rule):
        tiny_runs.run(tmp_path)


def test_what_a_killed_run_was_writing_is_removed_and_nothing_else(tmp_path):
    tiny_runs.run(tmp_path, stop=Stop(2))
    left = [tmp_path / "checkpoints" / ".4711.step-00000004.npz", tmp_path / ".4711.network.keras"]
    others = [tmp_path / ".hidden", tmp_path / "notes.txt"]
    for path in left + others:
        path.write_bytes(b"half")
    tiny_runs.run(tmp_path, stop=Stop(3))
    assert [path.exists() for path in left + others] == [False, False, True, True]


class Look(keras.callbacks.Callback):
    """Looks into the folder while a run trains there."""

    def __init__(self, folder):
        super().__init__()
        self.folder, self.found = folder, set()

    def on_train_batch_end(self, batch, logs=None):
        self.found |= {path.name for path in self.folder.iterdir()}


def test_a_run_holds_its_folder_while_it_trains(tmp_path):
    look = Look(tmp_path)
    tiny_runs.run(tmp_path, stop=Stop(2))
    assert not (tmp_path / "lock").exists()
    train(tiny_runs.model(), tiny_runs.stream, plan=PLAN, run=RunFolder(tmp_path), say=[].append, callbacks=[look])
    assert "lock" in look.found
    assert not (tmp_path / "lock").exists()


def test_a_loss_that_is_no_number_stops_the_run_and_is_not_saved(tmp_path):
    def stream(step):
        return tiny_runs.stream(step, bad_step=7)

    with pytest.raises(InputError, match=r"^the loss must stay finite, but it is nan at step 8; .*lower learning_rate"):
        train(tiny_runs.model(), stream, plan=PLAN, run=RunFolder(tmp_path), say=[].append)
    assert tiny_runs.steps(tmp_path) == [2, 4, 6]
    newest = tiny_runs.arrays(RunFolder(tmp_path).checkpoint(6))
    assert all(np.isfinite(array).all() for array in newest.values())


def test_weights_that_overflow_in_a_step_whose_loss_was_finite_are_not_saved(tmp_path):
    plan = Plan(total_steps=20, steps_per_epoch=6, batch_size=8, checkpoint_steps=1)
    broken = tiny_runs.model(rate=np.inf)
    with pytest.raises(InputError, match=r"every number of a checkpoint must be finite; .*=\['model/dense/kernel"):
        train(broken, tiny_runs.stream, plan=plan, run=RunFolder(tmp_path), say=[].append)
    assert tiny_runs.steps(tmp_path) == []


@pytest.mark.parametrize(("keep", "kept"), [(1, [20]), (3, [16, 18, 20]), (0, list(range(2, 21, 2)))])
def test_the_newest_checkpoints_are_kept(tmp_path, keep, kept):
    plan = Plan(total_steps=20, steps_per_epoch=6, batch_size=8, checkpoint_steps=2, keep_checkpoint_max=keep)
    tiny_runs.run(tmp_path, plan=plan)
    assert tiny_runs.steps(tmp_path) == kept


def test_the_last_step_is_saved_whatever_the_pace(tmp_path, straight):
    plan = Plan(total_steps=20, steps_per_epoch=6, batch_size=8, checkpoint_steps=13)
    tiny_runs.run(tmp_path, plan=plan)
    assert tiny_runs.steps(tmp_path) == [13, 20]
    assert_equals(tmp_path, straight)


def test_four_steps_at_once_give_the_same_checkpoints_as_one(tmp_path, straight):
    tiny_runs.run(tmp_path, at_once=4)  # which divides neither an epoch nor the rest
    assert tiny_runs.steps(tmp_path) == tiny_runs.steps(straight)
    for step in tiny_runs.steps(tmp_path):
        tiny_runs.assert_same_bits(RunFolder(tmp_path).checkpoint(step), RunFolder(straight).checkpoint(step))
    assert RunFolder(tmp_path).history.read_bytes() == RunFolder(straight).history.read_bytes()


def test_tensorboard_gets_each_epochs_loss_and_rate(straight):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(RunFolder(straight).logs / "train"), size_guidance={"tensors": 0}).Reload()
    rows = training.read_history(RunFolder(straight))
    for tag, column in (("epoch_loss", "loss"), ("epoch_learning_rate", "learning_rate")):
        values = [tf.make_ndarray(event.tensor_proto) for event in events.Tensors(tag)]
        np.testing.assert_allclose(values, [row[column] for row in rows], rtol=1e-6)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets."""

    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(progress_line, "time", clock)
    return clock


@pytest.fixture
def progress(monkeypatch):
    """Of a run that resumed after step 6, on a terminal or in a file."""

    def make(out):
        progress = progress_line.Progress(PLAN, 6, out=out)
        monkeypatch.setattr(progress_line, "steps_done", lambda model: 10)
        return progress

    return make


LOGS = {"loss": 9.0, "contrast_loss": 4.5678, "contrast_acc": 0.25, "weight_decay": 9.0}
LINE = "step 10/20  contrast_loss 4.568 contrast_acc 0.250  16 images/s  0:00:05 left"


def test_the_progress_line_tells_step_metrics_pace_and_time_left(clock, progress):
    shown = progress(out := Terminal())
    clock.now += 2  # for four steps of eight images
    shown.on_train_batch_end(3, LOGS)
    assert out.getvalue() == f"\r{LINE}\x1b[K"
    clock.now += 0.4
    shown.on_train_batch_end(4, LOGS)
    assert out.getvalue().count("\r") == 1  # not redrawn more than twice a second


def test_the_first_estimate_leaves_the_compilation_out(clock, monkeypatch):
    shown = progress_line.Progress(PLAN, 6, out=(out := Terminal()))
    for step, seconds in ((7, 60), (8, 1)):  # a minute for the first step, a second for the next one
        monkeypatch.setattr(progress_line, "steps_done", lambda model, step=step: step)
        clock.now += seconds
        shown.on_train_batch_end(step, LOGS)
    assert out.getvalue().count("\r") == 1
    assert "8 images/s  0:00:12 left" in out.getvalue()


def test_a_file_gets_one_progress_line_an_epoch(clock, progress):
    shown = progress(out := io.StringIO())
    clock.now += 2
    shown.on_train_batch_end(3, LOGS)
    assert out.getvalue() == ""
    shown.on_epoch_end(0, LOGS)
    assert out.getvalue() == f"{LINE}\n"
    clock.now += 60
    shown.on_train_batch_end(4, LOGS)
    assert out.getvalue().count("\n") == 1
    clock.now += 1
    shown.on_train_batch_end(5, LOGS)
    assert out.getvalue().count("\n") == 2  # an epoch of hours is not silent


def test_of_epochs_of_a_moment_the_line_of_each_test_and_the_last_stay(clock, progress, monkeypatch):
    shown = progress(out := io.StringIO())
    shown.on_epoch_end(0, LOGS)
    clock.now += 4
    shown.on_epoch_end(1, LOGS)
    assert out.getvalue().count("\n") == 1
    shown.on_epoch_end(2, LOGS | {"knn_acc": 0.5})
    assert out.getvalue().count("knn_acc 0.500") == 1
    monkeypatch.setattr(progress_line, "steps_done", lambda model: PLAN.total_steps)
    shown.on_train_batch_end(0, LOGS)
    shown.on_epoch_end(3, LOGS)
    assert out.getvalue().count("\n") == 3


@pytest.mark.slow
def test_a_step_that_waits_for_the_data_service_is_told_of_and_goes_on_with_a_new_worker():
    service = tf.data.experimental.service
    head = service.DispatchServer(service.DispatcherConfig(port=0, worker_timeout_ms=1000))
    address = head.target.split("://")[1]
    workers = [service.WorkerServer(service.WorkerConfig(dispatcher_address=address))]
    endless = tf.data.Dataset.range(10**9).map(lambda i: (tf.fill((8, 1000), tf.cast(i, tf.float32)), tf.zeros(8)))
    said: list[str] = []

    class Strike(keras.callbacks.Callback):
        """The only worker is gone after the third step, and another one comes when that was told of."""

        def on_train_batch_end(self, batch, logs=None):
            if batch == 2:
                workers.clear()
                threading.Thread(target=self.mend, daemon=True).start()

        def mend(self):
            while not said:
                time.sleep(0.1)
            workers.append(service.WorkerServer(service.WorkerConfig(dispatcher_address=address)))

    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile(loss="mse")
    with Served(address, say=said.append, seconds=1) as served:
        model.fit(
            pipeline.distributed(endless, address),
            steps_per_epoch=300,
            epochs=1,
            verbose=0,
            shuffle=False,
            callbacks=[Strike(), served],
        )
    assert re.match(
        rf"a step has waited \d+ s for data_service at {address}: are the dispatcher and its workers", said[0]
    )
    assert said[-1] == f"data_service at {address} gives batches again"


def test_steps_that_do_not_wait_are_not_told_of():
    said: list[str] = []
    with Served("here:1", say=said.append, seconds=0.1) as served:
        for _ in range(3):
            served.on_train_batch_begin(0)
            served.on_train_batch_end(0)
            time.sleep(0.2)  # between two steps, as in an evaluation
        assert said == []
        served.on_train_batch_begin(0)
        time.sleep(0.35)
        served.on_train_batch_end(0)
    assert len(said) >= 3, said
    assert said[-1] == "data_service at here:1 gives batches again"
