"""Cheap mistakes, with every command and option: one sentence, code 2, at once, before a framework loads."""

import json
import subprocess
import sys

from tests import golden
from tf_simclr.config import ranges
from tf_simclr.models.architecture import BLOCKS

SECONDS = 1.0
"""Of a processor whose `pace` is 1, within a process that has loaded this program."""


def found(folder) -> list[dict]:
    """What came of each mistake."""
    command = [sys.executable, "-m", "tests.commands.mistakes", str(folder)]
    done = subprocess.run(command, cwd=golden.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_each_mistake_is_answered_in_a_sentence_before_a_framework_loads(tmp_path):
    rows = found(tmp_path)
    assert len(rows) > 2000
    kinds = {"command", "stray", "left out", "batch", "option", "no value", "choice", "number", "checkpoint", "model"}
    kinds |= {"output", "source", "split", "program", "blank", "long", "over"}
    assert {row["kind"] for row in rows} == kinds
    wrong = [
        f"{row['kind']}: {row['words']} → {row['code']} {row['said'][:200]!r}"
        for row in rows
        if row["code"] != 2 or row["out"] or row["said"].count("\n") != 1 or len(row["said"]) < 20
    ]
    assert not wrong, "\n".join(wrong)
    assert max(row["seconds"] for row in rows) < SECONDS
    near = [
        row for row in rows if row["kind"] in ("command", "option", "choice", "split") and "=maybe" not in row["words"]
    ]
    assert not [row["words"] for row in near if "did you mean" not in row["said"]]


def test_what_is_repeated_without_frameworks_is_the_same():
    assert tuple(BLOCKS) == ranges.DEPTHS
