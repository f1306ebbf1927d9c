"""What is said never crashes a command and never loses a result, whatever terminal or pipe reads it."""

import io
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tf_simclr import terminal
from tf_simclr.terminal import Tally

ROOT = Path(__file__).parents[2]
TEXT = "→ 84.4–87.1 %, é, \udcff, 猫\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "cp437", "utf-8", "utf-16"])
def test_letters_that_a_stream_lacks_are_written_by_their_numbers(encoding):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, newline="")
    terminal.write(TEXT, stream)
    found = raw.getvalue().decode(encoding)
    assert found.encode().decode("unicode_escape").startswith(("→", "\\u2192")) or found.startswith("→")
    assert "84.4" in found
    assert "\\udcff" in found, "half a letter is none in any encoding"


class Broken(io.StringIO):
    """A stream whose reader has left."""

    def __init__(self, error: Exception):
        super().__init__()
        self.error = error

    def write(self, text):
        raise self.error


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(5, "the terminal is gone"), ValueError("closed file")])
def test_a_stream_that_takes_no_more_stops_nothing(error):
    terminal.write("a result\n", Broken(error))
    counter = Tally("features", 3, out=Broken(error))
    counter(3)


def test_no_console_at_all_takes_nothing(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    terminal.write("a result\n")


ENCODINGS = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}


def commands(folder: Path) -> dict[str, list[str]]:
    """Commands that say what is not ASCII, with names that are not, and that load no TensorFlow, or little."""
    source, target = folder / "naïve→.npz", folder / "out→.pth"
    return {
        "help": ["tf_simclr", "pretrain", "--help"],
        "overview": ["tf_simclr", "--help"],
        "presets": ["tf_simclr", "presets"],
        "list": ["tf_simclr", "checkpoints", "list"],
        "official flags": ["tf_simclr.run", "--help"],
        "compare": ["tf_simclr", "compare", str(folder / "café→"), "--figures", str(folder / "figures→")],
        "an error": ["tf_simclr", "pretrain", "--image_dir", str(source)],
        "an option's error": ["tf_simclr", "pretrain", "--image_size=→"],
        "inspect": ["converters.inspect", str(source)],
        "verify": ["converters.verify", str(source), str(target)],
        "tf2torch": ["converters.tf2torch", str(source), str(target)],
    }


NAMES = list(commands(Path()))
FAIL = {"an error": 2, "an option's error": 2, "inspect": 2, "verify": 2, "tf2torch": 2}
"""The file of these is none."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("ü")
    (place / "café→").mkdir()
    scores = {f"scores/lögistic{i}": np.eye(2, dtype=np.float32)[[0, 1, 0, 1]] for i in range(2)}
    np.savez(place / "café→" / "linear_eval.npz", names=np.array(list("abcd")), labels=np.array([0, 1, 0, 1]), **scores)
    (place / "café→" / "linear_eval.json").write_text("{}")
    return place


def run(words: list[str], *, stdout=subprocess.PIPE, **environment) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", *words],
        stdout=stdout,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, **environment},
        check=False,
    )


@pytest.mark.parametrize("name", NAMES)
def test_no_command_crashes_where_its_letters_cannot_be_shown(name, folder):
    for encoding, environment in list(ENCODINGS.items())[:: 3 if name == "compare" else 1]:
        done = run(commands(folder)[name], **environment)
        assert b"Traceback" not in done.stderr, (encoding, done.stderr)
        assert b"UnicodeEncodeError" not in done.stderr, encoding
        assert done.returncode == FAIL.get(name, 0), (encoding, done.stderr)
        assert done.stdout or done.returncode == 2, encoding
    assert name != "compare" or list((folder / "figures→").iterdir())


@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("name", ["list", "an option's error", "compare"])
def test_streams_that_are_closed_change_nothing_and_are_no_file_s(name, closed, folder):
    """Before: exit code 1 without a word, since there was no descriptor 2 to lead aside."""
    command = " ".join(map(shlex.quote, [sys.executable, "-m", *commands(folder)[name]]))
    done = subprocess.run(["bash", "-c", f"{command} {closed}"], capture_output=True, cwd=ROOT, check=False)
    assert done.returncode == FAIL.get(name, 0), done.stderr
    assert b"Traceback" not in done.stderr
    assert bool(done.stderr) is (done.returncode == 2 and "2>" not in closed)


@pytest.mark.parametrize("name", ["overview", "presets", "list", "official flags", "compare"])
def test_a_pipe_whose_reader_has_left_ends_nothing(name, folder):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = run(commands(folder)[name], stdout=writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
