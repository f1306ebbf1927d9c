"""Whole commands on two processes, of JAX and of TensorFlow, end as one process of two devices; the first alone writes.

Two devices take their sums in the same order wherever they are; beside one device there is rounding (`test_rounding`).
"""

import importlib.util
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import tiny_runs
from tests.commands import pictures
from tests.replicas.forked import Forks, wait
from tests.replicas.test_signals import NET, start
from tf_simclr.run_folder import RunFolder
from tf_simclr.training import read_history

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")]
STEPS = 5
COMMON = "--image_dir images --image_size 8 --train_batch_size 8 --warmup_epochs 0 --optimizer momentum "
COMMON += f"--learning_rate 0.01 --train_steps {STEPS} --checkpoint_steps 2 "
TEACHER = "--encoder tinynet:tiny --augment_on host --learning_rate 0.1 --model_dir teacher"
COMMANDS = {
    "simclr": "pretrain --encoder tinynet:tiny --augment_on host --knn_epochs 1 --knn_images 12 --proj_out_dim 8",
    "device": "pretrain --encoder tinynet:tiny --augment_on device --knn_epochs 0 --proj_out_dim 8",
    "moco": "pretrain --encoder tinynet:tiny --augment_on host --method moco --queue_length 16 --knn_epochs 1 "
    "--knn_images 12 --proj_out_dim 8",
    "resized": "pretrain --encoder tinynet:tiny --augment_on host --cache resized --cache_size 8 --knn_epochs 0 "
    "--proj_out_dim 8",
    "pieces": "pretrain --encoder tinynet:tiny --augment_on host --microbatch_size 4 --knn_epochs 0 --proj_out_dim 8 "
    "--global_bn False",  # TensorFlow's replicas need it
    "finetune": "finetune --encoder tinynet:tiny --augment_on host --eval_epochs 1",
    "distill": "distill --encoder tinynet:tiny --augment_on host --teacher teacher --teacher_views cached --alpha 0.5",
    "live": "distill --encoder tinynet:tiny --augment_on host --teacher teacher --teacher_views same",
}
EQUAL = 1e-5
"""Of the state and the history, in float32, of the largest magnitude of a kind: kernels, an optimizer's averages.  Of
each variable alone it could not be: a bias before a BatchNorm has no gradient but rounding."""
ROUNDING = 1e-4
"""What it may be at most where `EQUAL` is not met."""
DEVICES = {
    "jax": ([], {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}),
    "tensorflow": (["--num_replicas", "2"], {}),
}
"""Backend → options and environment of one process with two devices."""


@pytest.fixture(scope="module", params=["jax", "tensorflow"])
def one(request, tmp_path_factory):
    """A backend, what forks its processes, and a folder with images and a teacher."""
    backend = request.param
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"needs {backend}")
    place = tmp_path_factory.mktemp(backend)
    pictures.write(place / "images" / "train", per_class=8, size=8)
    pictures.write(place / "images" / "test", per_class=4, size=8)
    (place / "tinynet.py").write_text(NET)
    with Forks(backend, TF_SIMCLR_CACHE=str(place / "cache")) as forks:
        words = ["finetune", *COMMON.split(), *TEACHER.split()]
        member = forks.start(words, place / "teacher.log", folder=place)
        assert wait([member], 300)
        assert member.code == 0, member.said()
        yield backend, forks, place


def words_of(name: str, folder: str) -> list[str]:
    """A command's."""
    words = [*COMMANDS[name].split(), *COMMON.split(), "--model_dir", folder]
    return words + ["--collapse_images", "0"] * (words[0] == "pretrain")


def trained(one, name: str) -> tuple[Path, Path, list[str]]:
    """Folders of a run by one process and by two, and what the two said."""
    backend, forks, place = one
    options, variables = DEVICES[backend]
    words = [*words_of(name, f"{name}-1"), *options]
    alone = forks.start(words, place / f"{name}-1.log", folder=place, **variables)
    assert wait([alone], 300)
    assert alone.code == 0, alone.said()
    members = start(forks, backend, words_of(name, f"{name}-2"), place, f"{name}-2")
    assert wait(members, 300)
    said = [member.said() for member in members]
    assert [member.code for member in members] == [0, 0], "\n\n".join(said)
    return place / f"{name}-1", place / f"{name}-2", said


def _kind(key: str) -> str:
    """Of `model/conv/kernel` model and kernel; of an optimizer's `optimizer/0005/momentum/…` optimizer and momentum."""
    parts = key.split("/")
    return f"{parts[0]} {parts[2] if parts[0] == 'optimizer' and len(parts) > 2 else parts[-1]}"


def apart(one: Path, other: Path) -> dict[str, float]:
    """Variable of the last step → largest difference between two runs, of the largest magnitude of its kind."""
    ours, theirs = (tiny_runs.arrays(RunFolder(folder).checkpoint(STEPS)) for folder in (one, other))
    assert ours.keys() == theirs.keys()
    largest: dict[str, float] = {}
    for key, value in theirs.items():
        largest[_kind(key)] = max(largest.get(_kind(key), 1e-3), float(np.abs(value).max()))
    return {k: float(np.abs(ours[k].astype(float) - v).max() / largest[_kind(k)]) for k, v in theirs.items()}


def alone(one, name: str) -> Path:
    """The folder of a run by one process with one device."""
    _, forks, place = one
    member = forks.start(words_of(name, f"{name}-0"), place / f"{name}-0.log", folder=place)
    assert wait([member], 300)
    assert member.code == 0, member.said()
    return place / f"{name}-0"


@pytest.mark.parametrize("name", COMMANDS)
def test_two_processes_equal_one(one, name):
    single, double, said = trained(one, name)
    assert ["images/s" in lines for lines in said] == [True, False]
    assert tiny_runs.steps(double) == tiny_runs.steps(single)
    far = apart(double, single)
    lines = list(zip(*(read_history(RunFolder(folder)) for folder in (double, single)), strict=True))
    logs = {key: abs(a[key] - b[key]) / max(abs(b[key]), 1.0) for a, b in lines for key in a.keys() & b.keys()}
    report = f"{one[0]} {name}: state {max(far.values()):.1e}, history {max(logs.values()):.1e}\n"
    sys.stderr.write(report)
    if "EQUALITY_TABLE" in os.environ:
        with open(os.environ["EQUALITY_TABLE"], "a") as file:
            file.write(report)
    if max(far.values()) > EQUAL:  # not more than rounding: what one device makes otherwise than two
        rounding = max(apart(alone(one, name), single).values())
        assert max(far.values()) <= min(rounding, ROUNDING), (rounding, far)
    assert max(logs.values()) <= EQUAL, logs
    assert [a.keys() == b.keys() for a, b in lines] == [True] * len(lines)
    results = [json.loads((folder / "result.json").read_text()) for folder in (double, single)]
    assert results[0].keys() == results[1].keys()
    for tested in ("top1", "knn_acc"):
        assert results[0].get(tested) == results[1].get(tested)
    assert sorted(path.name for path in double.iterdir()) == sorted(path.name for path in single.iterdir())
