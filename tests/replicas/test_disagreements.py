"""Processes that were not started alike do not train: each says what differs, or which other one ended, and why."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests import golden
from tests.backends import blocked
from tests.commands import pictures
from tests.replicas.forked import Forks, wait
from tests.replicas.test_signals import COMMON, NET, prepare, start
from tests.replicas.test_workers import free_ports

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")]
WORDS = ["pretrain", *COMMON.split(), "--train_steps", "2", "--proj_out_dim", "4", "--knn_epochs", "0"]
WORDS += ["--collapse_images", "0"]


@pytest.fixture(scope="module", params=["jax", "tensorflow"])
def forks(request):
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"needs {request.param}")
    with Forks(request.param) as made:
        yield request.param, made


def ended(forks, place: Path, *different: str, prepare=lambda place, number: None) -> list[str]:
    """What two processes say, each in a folder of its own, the second one with other words; both must end with 2."""
    backend, made = forks
    for number in range(2):
        here = place / str(number)
        pictures.write(here / "images" / "train", per_class=4, size=8)
        (here / "tinynet.py").write_text(NET)
        prepare(here, number)
    words = [*WORDS, "--model_dir", str(place / "run")]
    members = start(made, backend, [words, [*words, *different]], place, "run", TF_SIMCLR_MEETING_SECONDS="90")
    assert wait(members, 300)
    texts = [member.said() for member in members]
    assert [member.code for member in members] == [2, 2], "\n\n".join(texts)
    assert "Traceback" not in "".join(texts)
    return texts


def said(forks, place: Path, *different: str, **options) -> list[str]:
    """As `ended`; nothing must have been trained."""
    texts = ended(forks, place, *different, **options)
    assert not (place / "run" / "checkpoints").exists()
    return texts


def test_another_option(forks, tmp_path):
    for text in said(forks, tmp_path, "--seed", "7", "--temperature", "0.5"):
        rule = "the options must be the same for every worker, but worker 0 has {"
        assert rule in text
        assert "'seed': 0" in text
        assert "'temperature': 0.5" in text


def test_a_cache_that_one_alone_keeps(forks, tmp_path):
    """What is cached is read in another order: of an epoch some images would be seen twice, and others never."""
    for text in said(forks, tmp_path, "--cache_dataset", "True"):
        assert "the options must be the same for every worker, but worker 0 has {'cache_dataset': False}" in text


@pytest.mark.parametrize(
    ("variables", "missing", "told"),
    [
        ({"JAX_ENABLE_X64": "1"}, "-", "{'jax_enable_x64': 'False'}; worker 1 has {'jax_enable_x64': 'True'}"),
        ({}, blocked.NO_TENSORFLOW, f"{{'version of tensorflow': '{tf.__version__}'}}; worker 1 has {{'version of"),
    ],
    ids=["numbers of two sizes", "one without TensorFlow"],
)
def test_other_settings_of_the_environment(tmp_path, variables, missing, told):
    """What counts while a framework loads, so not by forks.

    Before, numbers of two sizes ended one of them by SIGABRT; and of more images than are shuffled at once one without
    TensorFlow took others than its share.
    """
    prepare(tmp_path, "jax")
    flags = {"KERAS_BACKEND": "jax", "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_ports(1)[0]}"}
    flags |= {"JAX_NUM_PROCESSES": "2", "PYTHONPATH": f"{golden.ROOT}{os.pathsep}{tmp_path}"}
    started = []
    for number in range(2):
        own = {"JAX_PROCESS_ID": str(number)} | (variables if number else {})
        words = [sys.executable, "-m", "tests.backends.blocked", missing if number else "-", "tf_simclr", *WORDS]
        options = {"cwd": tmp_path, "env": os.environ | flags | own, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen([*words, "--model_dir", "run"], **options))
    for one in started:
        text = one.communicate(timeout=300)[1]
        assert one.returncode == 2, text
        assert f"worker 0 has {told}" in text
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_other_images_of_the_same_number(forks, tmp_path):
    def rename(place: Path, number: int) -> None:
        if number:
            one = next(path for path in (place / "images").rglob("*") if path.is_file())
            one.rename(one.with_name("another" + one.suffix))

    for text in said(forks, tmp_path, prepare=rename):
        assert "the options must be the same for every worker, but worker 0 has {'their names': " in text


def test_other_content_under_the_same_names(forks, tmp_path):
    def other(place: Path, number: int) -> None:
        one, two = sorted(path for path in (place / "images").rglob("*") if path.is_file())[:2]
        if number:
            one.write_bytes(two.read_bytes())

    for text in said(forks, tmp_path, prepare=other):
        assert "the images must be the same for every worker, but worker 0 has {'to train on': " in text


def test_what_one_process_alone_is_refused_the_other_repeats(forks, tmp_path):
    """What can be seen before they meet, such as a folder that is not there, ends a process before that."""

    def broken(place: Path, number: int) -> None:
        if number:
            (place / "tinynet.py").write_text("def tiny():\n    raise ValueError('no such block')\n")

    here, other = said(forks, tmp_path, prepare=broken)
    reason = other.strip().splitlines()[-1]
    assert "no such block" in reason
    assert "all 2 workers must stay reachable, but worker 0 lost worker 1, which ended with: " in here
    assert "no such block" in here


def test_a_folder_that_one_does_not_share(forks, tmp_path):
    words = ["--model_dir", str(tmp_path / "elsewhere")]
    for text in said(forks, tmp_path, *words):
        assert (
            "which all must see) must be the same for every worker, but worker 0 has the first one's; worker 1" in text
        )
    assert not (tmp_path / "elsewhere").exists()


def test_a_run_of_other_options_is_refused_by_all(forks, tmp_path):
    def other_run(place: Path, number: int) -> None:
        if number == 0:
            (tmp_path / "run" / "checkpoints").mkdir(parents=True)
            (tmp_path / "run" / "config.json").write_text('{"command": "pretrain", "seed": 5}')
            np.savez(tmp_path / "run" / "checkpoints" / "step-00000001.npz", a=np.zeros(1))

    texts = [text.strip().splitlines()[-1] for text in ended(forks, tmp_path, prepare=other_run)]
    assert texts[0] == texts[1]  # the first process alone has looked
    assert "start in another folder" in texts[0]
