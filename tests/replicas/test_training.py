"""`train` on replicas: stopped and resumed as on one device; of several processes the chief alone writes."""

import contextlib

import numpy as np
import pytest

from tests import tiny_runs
from tests.replicas import tiny
from tf_simclr import replicas
from tf_simclr.errors import InputError
from tf_simclr.run_folder import RunFolder, state
from tf_simclr.training import Plan, train

PLAN = Plan(total_steps=6, steps_per_epoch=4, batch_size=tiny.BATCH, checkpoint_steps=2, keep_checkpoint_max=0)


@pytest.fixture(scope="module")
def devices():
    return replicas.find("mirrored", num_replicas=2)


@pytest.fixture(scope="module")
def run(devices):
    """Trains the same model, two steps at once, from its first weights or other ones, in a folder, until it stops."""
    model = tiny.model(devices)
    model.steps_per_execution = 2
    initial = {name: variable.numpy() for name, variable in state(model).items()}

    def train_in(folder, *, stop=None, start=0, on=devices):
        for name, variable in state(model).items():
            variable.assign(initial[name] + np.asarray(start, variable.dtype))
        said, callbacks = [], [] if stop is None else [tiny_runs.Stop(stop, epoch=True)]
        with contextlib.suppress(KeyboardInterrupt) if callbacks else contextlib.nullcontext():
            options = {"plan": PLAN, "run": RunFolder(folder), "say": said.append, "callbacks": callbacks}
            train(model, tiny.stream, **options, devices=on)
        return said

    return train_in


@pytest.mark.slow
def test_a_training_on_replicas_resumes_bit_by_bit(tmp_path, run):
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    assert run(straight) == []
    run(stopped, stop=4)
    assert run(stopped, start=1) == [f"resuming after step 4 from {RunFolder(stopped).checkpoint(4)}"]
    assert tiny_runs.steps(stopped) == tiny_runs.steps(straight) == [2, 4, 6]
    tiny_runs.assert_same_bits(RunFolder(stopped).checkpoint(6), RunFolder(straight).checkpoint(6))
    assert RunFolder(stopped).history.read_bytes() == RunFolder(straight).history.read_bytes()


def test_a_process_that_is_not_the_chief_writes_nothing(tmp_path, run, devices, monkeypatch):
    monkeypatch.setattr(replicas.Devices, "process", (1, 2))
    monkeypatch.setattr(replicas.Devices, "collect", lambda _, value: [value, value])
    run(tmp_path)
    assert list(tmp_path.rglob("*")) == []


def test_processes_that_see_different_folders_do_not_begin(tmp_path, run, monkeypatch):
    monkeypatch.setattr(replicas.Devices, "collect", lambda _, value: [value, 4])
    with pytest.raises(InputError, match=r"the same folder for all of them\?\) must be the same for every worker, but"):
        run(tmp_path)
