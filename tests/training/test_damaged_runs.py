"""Runs whose folder, files or images were removed or damaged by others: one sentence, and on it goes where it can."""

import contextlib
import itertools
import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from tests import tiny_runs
from tests.commands import pictures
from tf_simclr.commands import pretrain
from tf_simclr.data.pipeline import Unreadable, training_views
from tf_simclr.data.sources import from_folder
from tf_simclr.errors import InputError, surfacing
from tf_simclr.machine.signals import EXIT_CODES, Stopping
from tf_simclr.models.architecture import Architecture
from tf_simclr.run_folder import RunFolder
from tf_simclr.training import read_history

HOSTILE = {
    "nothing": b"",
    "no text": b"\xff\xfe\x00\x80",
    "nested": b"[" * 100_000,
    "a list": b"[1, 2]",
    "cut off": b'{"images": 12, "ori',
    "other types": b'{"images": [1], "origin": {}, "step": "x", "seconds": null, "unreadable": [1]}',
    "huge numbers": b'{"images": 1e999, "step": 1e999, "seconds": ' + b"9" * 5000 + b', "unreadable": []}',
    "numbers as text": b"step,epoch,loss\nx,y,z\n",
    "longer lines": b"step,epoch\n1,2,3,4\n",
    "without steps": b"loss\n0.5\n",
    "zeros": bytes(1000),
}
"""What lies in a file instead of what was written."""


def damaged_history(folder: Path, content: bytes) -> None:
    RunFolder(folder).history.write_bytes(content)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    tiny_runs.run(folder)
    return folder


@pytest.mark.parametrize("kind", [kind for kind in HOSTILE if kind not in ("nothing",)])
def test_a_damaged_history_is_put_aside_and_the_run_goes_on_to_the_same_bits(tmp_path, straight, kind):
    tiny_runs.run(tmp_path, stop=tiny_runs.Stop(8))
    damaged_history(tmp_path, HOSTILE[kind])
    said = tiny_runs.run(tmp_path)
    damage = [line for line in said if "history.damaged.csv" in line]
    assert len(damage) == 1
    assert (tmp_path / "history.damaged.csv").read_bytes() == HOSTILE[kind]
    assert str(RunFolder(tmp_path).history) in damage[0]
    tiny_runs.assert_same_bits(RunFolder(tmp_path).checkpoint(20), RunFolder(straight).checkpoint(20))
    assert [row["step"] for row in read_history(RunFolder(tmp_path))] == [12, 18, 20]


ARCHITECTURE = Architecture(depth=18)


def begun(folder: Path, **changes) -> list[str]:
    """Begins, or resumes, and what that says."""
    said: list[str] = []
    notes = {"images": 12, "origin": "here", "roster": "abc"} | changes
    RunFolder(folder).begin({"command": "pretrain"}, ARCHITECTURE, data=notes, say=said.append)
    return said


@pytest.fixture
def run(tmp_path):
    """A run with a checkpoint."""
    begun(tmp_path)
    RunFolder(tmp_path).checkpoint(4).parent.mkdir()
    RunFolder(tmp_path).checkpoint(4).touch()
    return tmp_path


@pytest.mark.parametrize("kind", HOSTILE)
def test_damaged_notes_of_the_data_are_said_and_the_checkpoint_suffices(run, kind):
    RunFolder(run).data.write_bytes(HOSTILE[kind])
    if kind in ("other types", "huge numbers"):  # another number of images, as far as anybody can read it
        with contextlib.suppress(InputError):
            assert len(begun(run)) == 1
        return
    said = begun(run)
    assert len(said) == 1
    assert str(RunFolder(run).data) in said[0]
    assert begun(run) == [], "the notes are whole again"


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_damaged_configuration_is_one_sentence_that_names_it(run, kind):
    RunFolder(run).config.write_bytes(HOSTILE[kind])
    with pytest.raises(InputError) as caught:
        begun(run)
    assert str(run) in str(caught.value)


def test_the_same_images_resume_elsewhere_and_others_do_not(run):
    assert begun(run, origin="there") == []
    with pytest.raises(InputError, match="12 of there, with other names; bring those back"):
        begun(run, roster="xyz", origin="there")
    with pytest.raises(InputError, match="must resume on the images it was begun with, 12 of here"):
        begun(run, images=13)
    content = json.loads(RunFolder(run).data.read_text())
    del content["roster"]  # as older versions have left it
    RunFolder(run).data.write_text(json.dumps(content))
    assert begun(run, roster="xyz") == []


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_damaged_result_is_counted_anew_or_named(run, kind, capsys):
    folder = RunFolder(run)
    folder.result.write_bytes(HOSTILE[kind])
    folder.network.touch()
    assert pretrain.finished_result(folder) is None
    assert f"{folder.result} must" in capsys.readouterr().err
    result = pretrain.Result(folder, Unreadable())
    assert result.before == {"seconds": 0, "unreadable": []}
    written = result.write()
    assert written["step"] == 4
    assert pretrain.finished_result(folder) == written
    folder.result.write_bytes(HOSTILE[kind])
    folder.checkpoint(4).unlink()
    with pytest.raises(InputError, match=r"result\.json must"):
        pretrain.finished_result(folder)


class Remove(tiny_runs.Stop):
    """Removes the run's folder at a step; `again`: and makes it anew."""

    def __init__(self, folder: Path, step: int, *, again: bool = False):
        super().__init__(step)
        self.folder, self.again = folder, again

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations.numpy()) == self.step:
            while self.folder.exists():
                shutil.rmtree(self.folder, ignore_errors=True)  # a checkpoint may be written there meanwhile
            if self.again:
                self.folder.mkdir()

    def on_epoch_end(self, epoch, logs=None): ...


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("step", [3, 6, 9, 19])
def test_a_folder_that_is_removed_in_mid_training_is_an_error_and_is_not_made_again(tmp_path, step, again):
    folder = tmp_path / "run"
    with pytest.raises(InputError, match="must stay while a training writes there, but it was removed or made anew"):
        tiny_runs.run(folder, stop=Remove(folder, step, again=again))
    left = [path for path in folder.rglob("*") if path.is_file()] if folder.exists() else []
    assert not [path for path in left if "events" not in path.name]


def test_images_that_are_all_gone_in_mid_training_are_one_sentence(tmp_path):
    pictures.write(tmp_path / "pets", per_class=4, size=16)
    source = from_folder(tmp_path / "pets")
    unreadable = Unreadable()
    stream = training_views(source, batch_size=4, image_size=16, seed=0, unreadable=unreadable)
    batches = iter(stream)
    next(batches)
    for path in (tmp_path / "pets").rglob("*.png"):
        path.unlink()
    rule = "must stay readable while it is trained on, but none is any more"
    with pytest.raises(InputError, match=rf"^at least one image of {tmp_path}/pets {rule}$"), surfacing():
        list(itertools.islice(batches, 20))
    assert len(unreadable.names) > 0


def test_some_images_that_are_gone_are_replaced_and_named(tmp_path):
    pictures.write(tmp_path / "pets", per_class=4, size=16)
    unreadable = Unreadable()
    source = from_folder(tmp_path / "pets")
    batches = iter(training_views(source, batch_size=4, image_size=16, seed=0, unreadable=unreadable))
    next(batches)
    gone = tmp_path / "pets" / "red" / "red_0.png"
    gone.unlink()
    for _ in range(12):
        views, _ = next(batches)
        assert np.isfinite(views).all()
    assert unreadable.names == [str(gone)]


def test_a_lost_terminal_stops_a_training_as_a_preemption_does():
    assert EXIT_CODES[signal.SIGHUP] == 129
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whatever the tests were started with
    try:
        with pytest.raises(SystemExit) as caught, Stopping():
            signal.raise_signal(signal.SIGHUP)
        assert caught.value.code == 129
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup: whoever wants the training to outlive the terminal
        with Stopping():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
