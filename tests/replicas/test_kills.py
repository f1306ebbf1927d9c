"""Four processes of one fine-tuning, of which one is killed at a random moment: twenty times, from start to end.

All the others end, with a sentence and code 2, within seconds; the same command, on four processes again, goes on and
ends with the bits of a run that nobody disturbed.
"""

import dataclasses
import importlib.util
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import tiny_runs
from tests.commands import pictures
from tests.replicas.forked import Forks, Member, wait
from tests.replicas.test_workers import free_ports
from tf_simclr.run_folder import RunFolder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs the `jax` extra"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="forks"),
]
PROCESSES, STEPS, SEED = 4, 18, 2024
MEETING = 40
"""Seconds that processes wait for each other at the start; 300 unless it is said."""
BOUND = MEETING + 30.0
"""Seconds in which the others must have ended: those that meet when one is gone wait so long; else it was below 8 s."""
NET = """
import keras
from keras import layers


def tiny():
    return keras.Sequential([
        keras.Input((8, 8, 3)), layers.Conv2D(4, 3, use_bias=False), layers.BatchNormalization(), layers.ReLU(),
        layers.Flatten(), layers.Dense(200), layers.Dropout(0.1)])
"""
WORDS = ["finetune", "--image_dir", "images", "--encoder", "tinynet:tiny", "--image_size", "8", "--augment_on", "host"]
WORDS += ["--train_batch_size", "8", "--train_steps", str(STEPS), "--checkpoint_steps", "2", "--warmup_epochs", "0"]
WORDS += ["--optimizer", "momentum", "--learning_rate", "0.01", "--eval_epochs", "2", "--model_dir"]


def start(forks: Forks, place: Path, name: str) -> list[Member]:
    """The four processes of a run."""
    flags = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_ports(1)[0]}", "JAX_NUM_PROCESSES": str(PROCESSES)}
    flags |= {"TF_SIMCLR_MEETING_SECONDS": str(MEETING)}
    logs = [place / f"{name}.{len(list(place.glob(name + '.*.log')))}.{i}.log" for i in range(PROCESSES)]
    return [
        forks.start([*WORDS, name], log, folder=place, JAX_PROCESS_ID=str(i), **flags) for i, log in enumerate(logs)
    ]


@dataclasses.dataclass(frozen=True)
class Moment:
    """A moment of a run: what must have come, and the most seconds after it."""

    name: str
    came: Callable[[Path, list[Member]], bool]
    seconds: float


def _said(words: str) -> Callable[[Path, list[Member]], bool]:
    return lambda run, members: words in members[0].said()


def _saved(step: int) -> Callable[[Path, list[Member]], bool]:
    return lambda run, members: RunFolder(run).checkpoint(step).exists()


MOMENTS = [
    Moment("start", lambda run, members: True, 1.0),
    Moment("meeting", _said("devices: JAX: process"), 0.5),
    Moment("compilation", _said("into "), 2.0),
    Moment("training", _saved(2), 1.0),
    Moment("writing", lambda run, members: _saved(4)(run, members) and any((run / "checkpoints").glob(".*")), 0.002),
    Moment("evaluation", _saved(STEPS), 0.5),
    Moment("end", lambda run, members: (run / "result.json").exists(), 0.1),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A working directory with images and a network's code."""
    folder = tmp_path_factory.mktemp("kills")
    pictures.write(folder / "images" / "train", per_class=8, size=8)
    pictures.write(folder / "images" / "test", per_class=4, size=8)
    (folder / "tinynet.py").write_text(NET)
    return folder


@pytest.fixture(scope="module")
def forks(place):
    """What forks processes, after a run that nobody disturbed."""
    with Forks("jax") as made:
        began = time.monotonic()
        undisturbed = start(made, place, "straight")
        assert wait(undisturbed, 300), [member.said() for member in undisturbed]
        assert [member.code for member in undisturbed] == [0] * PROCESSES, undisturbed[0].said()
        note("| killed in | process | others' codes | seconds | went on from | bits | orphans |\n" + "| --- " * 7 + "|")
        note(f"| nobody | | 0 | {time.monotonic() - began:.1f} | | | |")
        yield made


def note(line: str) -> None:
    """Adds a line to the table, in the file KILLS_TABLE if there is one."""
    sys.stderr.write(f"{line}\n")
    if "KILLS_TABLE" in os.environ:
        with open(os.environ["KILLS_TABLE"], "a") as file:
            file.write(f"{line}\n")


@pytest.mark.parametrize("number", range(20))
def test_one_of_four_is_killed_at_a_random_moment(forks, place, number):
    drawn = random.Random(SEED + number)
    moment, victim = MOMENTS[number % len(MOMENTS)], drawn.randrange(PROCESSES)
    found = one(forks, place, f"run{number}", moment=moment, victim=victim, delay=drawn.random())
    note(found["line"])
    assert not found["problems"], "\n".join(found["problems"])


def one(forks: Forks, place: Path, name: str, *, moment: Moment, victim: int, delay: float) -> dict:
    """Kills one process, has the command run again, and says what came of both."""
    run = place / name
    members = start(forks, place, name)
    until = time.monotonic() + 300
    while not moment.came(run, members) and all(member.poll() is None for member in members):
        assert time.monotonic() < until, (moment.name, [member.said() for member in members])
        time.sleep(0.001)
    time.sleep(delay * moment.seconds)
    done = [member.poll() for member in members]
    if done[victim] is None:
        members[victim].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    ended = wait(members, BOUND)
    others = [member for i, member in enumerate(members) if i != victim]
    took = max(member.ended for member in others) - killed if ended else float("inf")
    problems = [] if ended else [f"{name} ({moment.name}, {victim}): some still run after {BOUND} s"]
    for member in members:
        if member.code is None:
            os.killpg(member.number, signal.SIGKILL)
    wait(members, 10)
    finished = (run / "result.json").exists()
    for i, member in enumerate(members):
        last = (member.said().strip().splitlines() or [""])[-1]
        fits = member.code == 2 and (
            "all 4 workers must stay reachable" in last or "one could not join" in last or "does not reach it" in last
        )
        fits |= finished and member.code == 0
        fits |= i == victim and member.code == -signal.SIGKILL
        if not fits or "Traceback" in member.said():
            problems.append(f"{name} ({moment.name}, {victim}): {i} ended with {member.code}: {member.said()[-2000:]}")
    orphans = sum(member.orphans() for member in members)
    newest = tiny_runs.steps(run)[-1:] if run.exists() else []
    codes = ", ".join(str(member.code) for member in others)
    again = start(forks, place, name)
    whole = wait(again, 300) and [member.code for member in again] == [0] * PROCESSES
    if not whole:
        problems.append(f"{name}: again: {[(m.code, m.said()[-1500:]) for m in again]}")
    bits = whole and same(run, place / "straight")
    problems += [] if bits or not whole else [f"{name} ({moment.name}, {victim}): other bits"]
    problems += [f"{name}: {orphans} orphans"] * bool(orphans)
    line = f"| {moment.name} | {victim} | {codes} | {took:.1f} | {newest[0] if newest else 'the beginning'} | "
    line += f"{'equal' if bits else 'OTHER'} | {orphans} |"
    return {"line": line, "problems": problems}


def same(run: Path, expected: Path) -> bool:
    """Whether two runs hold the same last state, bit by bit, and the same accuracy."""
    ours, theirs = (tiny_runs.arrays(RunFolder(folder).checkpoint(STEPS)) for folder in (run, expected))
    bits = ours.keys() == theirs.keys() and all(ours[k].tobytes() == v.tobytes() for k, v in theirs.items())
    results = [json.loads((folder / "result.json").read_text())["top1"] for folder in (run, expected)]
    return bits and results[0] == results[1]
