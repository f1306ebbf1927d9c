"""A signal to any one of several processes stops all of them after the same step, which is saved, in each command.

So it does wherever they are: before the first step, in a test between two epochs, while a checkpoint is written, and
behind the last step, where one process computes and the others wait.
"""

import importlib.util
import json
import os
import signal
import time
from collections.abc import Callable

import pytest

from tests import tiny_runs
from tests.commands import pictures
from tests.replicas.forked import Forks, Member, wait
from tests.replicas.test_workers import free_ports
from tf_simclr.run_folder import RunFolder

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")]
NET = """
import importlib
import os
import time

import keras
from keras import layers


def tiny():
    return keras.Sequential([
        keras.Input((8, 8, 3)), layers.Conv2D(4, 3, use_bias=False), layers.BatchNormalization(), layers.ReLU(),
        layers.Flatten(), layers.Dense(6)])


def wait_in(module, name):
    module = importlib.import_module(module)
    work = getattr(module, name)

    def waits(*given, **named):
        open("waits", "w").close()
        end = time.monotonic() + 60
        while not os.path.exists("go") and time.monotonic() < end:
            time.sleep(0.02)
        return work(*given, **named)

    setattr(module, name, waits)


if os.environ.get("WAIT_IN"):
    wait_in(*os.environ["WAIT_IN"].split(":"))
"""
"""An encoder's code, which has a function of the package wait until a file appears."""
STEPS = 400
COMMON = "--image_dir images --encoder tinynet:tiny --image_size 8 --augment_on host --train_batch_size 4 "
COMMON += "--warmup_epochs 0 --optimizer momentum --learning_rate 0.01 "
LONG = f"--train_steps {STEPS} --checkpoint_steps 3 "
COMMANDS = {
    "pretrain": "--knn_epochs 0 --collapse_images 0 --proj_out_dim 4",
    "finetune": "",
    "distill": "--teacher teacher",
}
CASES = [
    ("tensorflow", "pretrain", signal.SIGTERM, 1),
    ("tensorflow", "finetune", signal.SIGINT, 1),
    ("tensorflow", "distill", signal.SIGINT, 0),
    ("jax", "pretrain", signal.SIGINT, 1),
    ("jax", "finetune", signal.SIGTERM, 0),
    ("jax", "distill", signal.SIGHUP, 1),
]
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129}


def start(
    forks: Forks,
    backend: str,
    words: list,
    place,
    name: str,
    *,
    count: int = 2,
    own: Callable[[int], dict[str, str]] = lambda number: {},
    **more: str,
) -> list[Member]:
    """Processes of a command, or of one each, in folders of their own; `own`: number → variables of this one."""
    each = words if isinstance(words[0], list) else [words] * count
    ports = free_ports(count)
    members = []
    for number in range(count):
        config = {
            "cluster": {"worker": [f"127.0.0.1:{port}" for port in ports]},
            "task": {"type": "worker", "index": number},
        }
        variables = {
            "tensorflow": {"TF_CONFIG": json.dumps(config)},
            "jax": {
                "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{ports[0]}",
                "JAX_NUM_PROCESSES": str(count),
                "JAX_PROCESS_ID": str(number),
            },
        }[backend]
        folder = place / str(number) if each is words else place
        variables |= more | own(number)
        members.append(forks.start(each[number], place / f"{name}.{number}.log", folder=folder, **variables))
    return members


def prepare(place, backend: str) -> None:
    """Writes images and the encoder's code."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"needs {backend}")
    pictures.write(place / "images" / "train", per_class=4, size=8)
    pictures.write(place / "images" / "test", per_class=2, size=8)
    (place / "tinynet.py").write_text(NET)


def ended(members: list[Member], *, code: int) -> list[str]:
    """What they said; all must end so."""
    done = wait(members, 900)
    said = [member.said() for member in members]
    assert [done, *(member.code for member in members)] == [True, code, code], "\n\n".join(said)
    assert "Traceback" not in "".join(said)
    return said


@pytest.mark.parametrize(("backend", "command", "sent", "told"), CASES)
def test_a_signal_to_one_of_two(tmp_path, backend, command, sent, told):
    prepare(tmp_path, backend)
    words = [command, *COMMON.split(), *LONG.split(), *COMMANDS[command].split(), "--model_dir", "run"]
    with Forks(backend) as forks:
        if command == "distill":
            taught = [*COMMON.split(), "--train_steps", "2", "--model_dir", "teacher"]
            one = forks.start(["finetune", *taught], tmp_path / "teacher.log", folder=tmp_path)
            assert wait([one], 300)
            assert one.code == 0, one.said()
        members = start(forks, backend, words, tmp_path, "first")
        run, end = RunFolder(tmp_path / "run"), time.monotonic() + 300
        while not run.checkpoints() and time.monotonic() < end and all(member.poll() is None for member in members):
            time.sleep(0.05)
        members[told].send_signal(sent)
        said = ended(members, code=CODES[sent])
        newest = tiny_runs.steps(tmp_path / "run")[-1]
        assert newest < STEPS
        assert all(f"{sent.name}: step {newest} is saved in" in text for text in said), said
        again = start(forks, backend, words, tmp_path, "again")
        while not wait(again, 0.05) and tiny_runs.steps(tmp_path / "run")[-1] <= newest:
            time.sleep(0.05)
        assert all(f"resuming after step {newest} from" in member.said() for member in again), again[0].said()
        for member in again:
            member.send_signal(signal.SIGTERM)  # to all, as a cluster does
        ended(again, code=143)


MOMENTS = {
    "before the first step": ("tf_simclr.training.loop:_begin", "pretrain", "--knn_epochs 0"),
    "a test between epochs": ("tf_simclr.training.watching:extract", "pretrain", "--knn_epochs 1"),
    "a checkpoint": ("tf_simclr.training.callbacks:write_state", "finetune", ""),
    "the test at the end": ("tf_simclr.commands.supervised:extract", "finetune", ""),
    "the network's file": ("tf_simclr.commands.pretrain:save_network", "pretrain", "--knn_epochs 0"),
}
"""Where a process waits when another one, or it, is sent a signal."""


@pytest.mark.parametrize(
    ("backend", "moment", "told"),
    [
        ("jax", "before the first step", 1),
        ("jax", "a test between epochs", 1),
        ("jax", "a checkpoint", 1),
        ("jax", "the test at the end", 0),
        ("jax", "the test at the end", 1),
        ("jax", "the network's file", 1),
        ("tensorflow", "a test between epochs", 0),
        ("tensorflow", "the test at the end", 1),
        ("tensorflow", "the network's file", 0),
    ],
)
def test_a_signal_while_one_of_two_is_at_work(tmp_path, backend, moment, told):
    place, command, options = MOMENTS[moment]
    prepare(tmp_path, backend)
    words = [command, *COMMON.split(), "--train_steps", "12", "--checkpoint_steps", "4", "--model_dir", "run"]
    words += [*options.split(), *(["--collapse_images", "0", "--proj_out_dim", "4"] if command == "pretrain" else [])]
    last = moment in ("the test at the end", "the network's file")
    with Forks(backend) as forks:
        members = start(forks, backend, words, tmp_path, "first", WAIT_IN=place)
        end = time.monotonic() + 300
        while not (tmp_path / "waits").exists() and all(member.poll() is None for member in members):
            assert time.monotonic() < end
            time.sleep(0.02)
        members[told].send_signal(signal.SIGTERM)
        if told or not last:  # else the one that works ends where it is
            (tmp_path / "go").touch()
        said = ended(members, code=143)
        newest = tiny_runs.steps(tmp_path / "run")[-1]
        assert newest == 12 if last else newest < 12
        assert all(f"SIGTERM: step {newest} is saved in" in text for text in said), said
        (tmp_path / "go").touch()
        ended(start(forks, backend, words, tmp_path, "again", WAIT_IN=place), code=0)
        assert (tmp_path / "run" / "result.json").exists()


def test_a_signal_before_the_training_begins_ends_the_process_that_gets_it(tmp_path):
    """JAX's own service took it, between the meeting and the training, and both trained to their end."""
    prepare(tmp_path, "jax")
    words = ["pretrain", *COMMON.split(), "--train_steps", "12", "--proj_out_dim", "4", "--knn_epochs", "0"]
    words += ["--collapse_images", "0", "--model_dir", "run"]
    with Forks("jax") as forks:
        members = start(forks, "jax", words, tmp_path, "first", WAIT_IN="tf_simclr.commands.parts.runs:source_digest")
        end = time.monotonic() + 300
        while not (tmp_path / "waits").exists() and all(member.poll() is None for member in members):
            assert time.monotonic() < end
            time.sleep(0.02)
        members[1].send_signal(signal.SIGTERM)
        assert wait(members[1:], 30)
        assert members[1].code in (-signal.SIGTERM, 143)
        (tmp_path / "go").touch()
        assert wait(members, 120)
        assert members[0].code == 2, members[0].said()
        assert "Traceback" not in members[0].said()
        assert not (tmp_path / "run" / "result.json").exists()
