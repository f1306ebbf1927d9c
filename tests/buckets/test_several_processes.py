"""Several processes whose run lies in a bucket: the first sends, the others have copies; oracle: the same on a path.

Each process has a cache of its own, as machines have, or all share one.
"""

import importlib.util
import json
import os
import signal
import time

import numpy as np
import pytest

from tests import tiny_runs
from tests.buckets.test_commands import sent, state_in
from tests.commands import pictures
from tests.replicas.forked import Forks, wait
from tests.replicas.test_other_numbers import STOPS
from tests.replicas.test_signals import COMMON, LONG, NET, ended, start
from tf_simclr.buckets.locks import Lock
from tf_simclr.buckets.mirror import read_manifest
from tf_simclr.buckets.store import Store
from tf_simclr.files.lock import Beat
from tf_simclr.run_folder import RunFolder

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")]
STEPS = 12
TRAINED = f"{COMMON} --train_steps {STEPS} --checkpoint_steps 3".split()
COMMANDS = {
    "pretrain": "--knn_epochs 0 --collapse_images 0 --proj_out_dim 4",
    "finetune": "--eval_epochs 1",
    "distill": "--teacher BUCKET/teacher --teacher_views cached",
}


def steps(bucket: str) -> list[int]:
    """Of the checkpoints that the bucket's manifest names."""
    found = read_manifest(Store(bucket))
    names = [] if found is None else [name for name in found.files if name.startswith("checkpoints/")]
    return sorted(int(name.split("-")[1].split(".")[0]) for name in names)


@pytest.mark.parametrize(
    ("backend", "command", "proxy"),
    [("jax", "finetune", "s3"), ("jax", "distill", "gs"), ("tensorflow", "pretrain", "s3")],
    indirect=["proxy"],
)
def test_a_run_of_two_processes_lies_in_a_bucket(proxy, bucket, tmp_path, backend, command):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"needs {backend}")
    pictures.write(tmp_path / "images" / "train", per_class=8, size=8)
    pictures.write(tmp_path / "images" / "test", per_class=4, size=8)
    (tmp_path / "tinynet.py").write_text(NET + STOPS)
    sent(tmp_path / "images", f"{bucket}/images")
    words = [command, *TRAINED, *COMMANDS[command].replace("BUCKET", bucket).split(), "--model_dir"]
    in_bucket = [word if word != "images" else f"{bucket}/images" for word in words]

    def machine(number: int) -> dict[str, str]:
        return {"TF_SIMCLR_CACHE": str(tmp_path / f"machine{number}")}

    with Forks(backend) as forks:
        if command == "distill":
            taught = ["finetune", *TRAINED, "--model_dir", f"{bucket}/teacher"]
            one = forks.start(taught, tmp_path / "teacher.log", folder=tmp_path)
            assert wait([one], 300)
            assert one.code == 0, one.said()
        ended(start(forks, backend, [*words, "run"], tmp_path, "path"), code=0)

        # 1. Stopped behind its first checkpoint: it is in the bucket when the processes end.
        in_bucket.append(f"{bucket}/run")
        said = ended(start(forks, backend, in_bucket, tmp_path, "first", own=machine, STOPS="1"), code=143)
        newest = steps(f"{bucket}/run")[-1]
        assert newest < STEPS
        assert all(f"step {newest} is saved in {bucket}/run/checkpoints" in text for text in said), said
        assert "lock" not in Store(f"{bucket}/run").find()

        # 2. On other machines, of which each has a cache of its own, or all have one: it goes on from there.
        said = ended(start(forks, backend, in_bucket, tmp_path, "second"), code=0)
        assert all(f"resuming after step {newest} from {bucket}/run" in text for text in said), said
        assert "buckets/written" not in "".join(said)
        assert "buckets/read" not in "".join(said)
        found = Store(f"{bucket}/run").find()
        assert {"config.json", "history.csv", "network.keras", "result.json"} <= found.keys()
        assert "lock" not in found
        ours = state_in(f"{bucket}/run", STEPS)
        theirs = tiny_runs.arrays(RunFolder(tmp_path / "run").checkpoint(STEPS))
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[key], value) for key, value in theirs.items())

        # 3. A finished run, and one of other options: all say the same.
        said = ended(start(forks, backend, in_bucket, tmp_path, "third", own=machine), code=0)
        assert all(f"{bucket}/run is finished" in text for text in said), said
        for text in ended(start(forks, backend, [*in_bucket, "--seed", "9"], tmp_path, "other"), code=2):
            assert f"{bucket}/run holds a run with other options" in text
    there = json.loads(Store(f"{bucket}/run").read("result.json")[0])
    here = json.loads((tmp_path / "run" / "result.json").read_text())
    assert there.keys() == here.keys()
    for name in ("loss", "top1", "step"):
        assert there.get(name) == here.get(name)


@pytest.mark.parametrize(
    ("backend", "command", "told"),
    [("jax", "pretrain", 0), ("jax", "finetune", 1), ("tensorflow", "finetune", 0), ("tensorflow", "pretrain", 1)],
)
def test_a_signal_ends_none_before_all_is_in_the_bucket(proxy, bucket, tmp_path, backend, command, told):
    """A launcher ends those that are left some seconds after the first one has ended: then nothing may be missing."""
    pictures.write(tmp_path / "images" / "train", per_class=8, size=8)
    pictures.write(tmp_path / "images" / "test", per_class=4, size=8)
    (tmp_path / "tinynet.py").write_text(NET)
    words = [command, *COMMON.split(), *LONG.split(), *COMMANDS[command].split(), "--model_dir", f"{bucket}/run"]
    slow: list[bool] = []

    def fault(method, path, body):
        if slow and method in ("PUT", "POST") and "checkpoints" in path:
            slow.clear()
            time.sleep(15)  # longer than JAX's processes wait for each other at their exit

    proxy.fault = fault
    with Forks(backend) as forks:
        members = start(forks, backend, words, tmp_path, "first", TF_SIMCLR_CACHE=str(tmp_path / "cache"))
        end = time.monotonic() + 300
        while not steps(f"{bucket}/run") and all(member.poll() is None for member in members):
            assert time.monotonic() < end
            time.sleep(0.1)
        slow.append(True)
        members[told].send_signal(signal.SIGTERM)
        while all(member.poll() is None for member in members):
            assert time.monotonic() < end
            time.sleep(0.02)
        newest, there = steps(f"{bucket}/run"), Store(f"{bucket}/run").find()
        said = ended(members, code=143)
    assert all(f"SIGTERM: step {newest[-1]} is saved in {bucket}/run/checkpoints" in text for text in said), said
    assert "lock" not in there


@pytest.mark.parametrize("backend", ["jax", "tensorflow"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_first_process_before_the_training_frees_the_bucket(bucket, tmp_path, backend, number):
    """SIGTERM ended it where it was, and its lock stayed; by Ctrl-C it ended well, and JAX aborted the other one."""
    pictures.write(tmp_path / "images" / "train", per_class=8, size=8)
    (tmp_path / "tinynet.py").write_text(NET)
    words = ["pretrain", *TRAINED, *COMMANDS["pretrain"].split(), "--model_dir", f"{bucket}/run"]
    place = "tf_simclr.commands.parts.runs:source_digest"
    with Forks(backend) as forks:
        members = start(forks, backend, words, tmp_path, "first", WAIT_IN=place)
        end = time.monotonic() + 300
        while not (tmp_path / "waits").exists():
            assert time.monotonic() < end
            assert all(member.poll() is None for member in members)
            time.sleep(0.02)
        assert "lock" in Store(f"{bucket}/run").find()
        members[0].send_signal(number)
        assert wait(members[:1], 60)
        assert members[0].code == 128 + number, members[0].said()
        assert "lock" not in Store(f"{bucket}/run").find()
        (tmp_path / "go").touch()
        assert wait(members, 120)
        assert members[1].code == 2, members[1].said()
        assert "worker 0" in members[1].said()
        assert "Traceback" not in "".join(member.said() for member in members)


def test_a_bucket_in_use_and_one_that_only_some_name_are_refused_by_all(bucket, tmp_path):
    for number in range(2):
        pictures.write(tmp_path / str(number) / "images" / "train", per_class=8, size=8)
        (tmp_path / str(number) / "tinynet.py").write_text(NET)
    words = ["pretrain", *TRAINED, *COMMANDS["pretrain"].split(), "--model_dir"]
    with Forks("jax") as forks:
        each = [[*words, f"{bucket}/run"], [*words, str(tmp_path / "run")]]
        for text in ended(start(forks, "jax", each, tmp_path, "some"), code=2):
            assert "model_dir, where it lies in a bucket, must be the same for every worker" in text
        assert not Store(f"{bucket}/run").find()
        assert not (tmp_path / "run").exists()
        held = Lock(Store(f"{bucket}/held"), say=print)
        held.take()
        with Beat(held.renew, seconds=0.5):
            each = [[*words, f"{bucket}/held"]] * 2
            said = ended(start(forks, "jax", each, tmp_path, "held"), code=2)
        assert all(f"{bucket}/held is in use by process {os.getpid()}" in text for text in said), said
        assert {*Store(f"{bucket}/held").find()} == {"lock"}
