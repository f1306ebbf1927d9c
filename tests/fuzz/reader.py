"""A process that reads files through a door, and says what came of it, how long it took and how much memory.

Run as a program it is that process: lines of JSON in, lines of JSON out.
"""

import contextlib
import json
import os
import select
import subprocess
import sys
import time
import traceback
import warnings
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECONDS, BYTES = 5.0, 500 << 20
"""What reading a small file may take at most, the seconds of a processor whose `pace` is 1."""
_LOOP = 1_000_000
_LOOP_SECONDS = 0.1
"""Turns of a loop of Python, and what they take of that processor."""
PATIENCE = 30.0
"""Seconds of computing at one file after which the process is ended; waiting, on a busy machine, ten times that."""
IMPORTED = ("h5py", "torch", "converters", "converters.keras_files.source", "converters.networks.in_torch")
IMPORTED += ("converters.tensorflow.source", "tf_simclr.models.network", "tf_simclr.chest.files.reading")
"""What is imported while a file is read would count as its memory."""
SPACE = 6 << 30
"""Address space of the process beyond what its imports took: what asks for more fails there and not on the machine."""


@dataclass(frozen=True)
class Outcome:
    """What came of reading a file.

    Attributes:
        kind: `read`, `refused` (one sentence that names the file) or `traceback`.
        text: the digest, the sentence, or the traceback.
        seconds: of computing, of a processor whose `pace` is 1.
        memory: bytes that the process grew by at most.
    """

    kind: str
    text: str
    seconds: float = 0.0
    memory: int = 0

    @property
    def slow(self) -> bool:
        return self.seconds > SECONDS

    @property
    def large(self) -> bool:
        return self.memory > BYTES


class Reader:
    """The other process; it is replaced when it dies or hangs."""

    def __init__(self) -> None:
        self.process = self.start()

    def start(self) -> subprocess.Popen:
        command = [sys.executable, "-W", "ignore", "-m", "tests.fuzz.reader"]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert process.stdout.readline() == b"ready\n", "the reading process must start"
        return process

    def read(self, door: str, path: Path) -> Outcome:
        """Reads a path through a door of `doors.py`."""
        self.process.stdin.write(json.dumps([door, str(path)]).encode() + b"\n")
        self.process.stdin.flush()
        line = self.answer()
        if line:
            return Outcome(**json.loads(line))
        self.process.kill()
        code = self.process.wait()
        self.process = self.start()
        if line is None:
            return Outcome("refused", "it was never refused", seconds=PATIENCE)
        return Outcome("traceback", f"the process died with code {code}")

    def answer(self) -> bytes | None:
        """The next line; empty when the process has died, None when it takes too long."""
        begin, end = self.computed(), time.monotonic() + 10 * PATIENCE
        while time.monotonic() < end and self.computed() - begin < PATIENCE:
            if select.select([self.process.stdout], [], [], 0.5)[0]:
                return self.process.stdout.readline()
        return None

    def computed(self) -> float:
        """Seconds that the process has computed, where the system tells."""
        with contextlib.suppress(OSError, ValueError):
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return 0.0

    def close(self) -> None:
        self.process.stdin.close()
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def outcome(door: str, path: Path) -> Outcome:
    """Reads a path in this process."""
    from tests.fuzz.doors import DOORS
    from tf_simclr.errors import InputError

    before, begin = reset_peak(), time.process_time()
    try:
        kind, text = "read", DOORS[door](path)
    except InputError as error:
        kind, text = (
            ("refused", str(error)) if is_sentence(str(error), path) else ("traceback", f"no sentence: {error}")
        )
    except BaseException:
        kind, text = "traceback", traceback.format_exc()
    seconds, memory = time.process_time() - begin, peak() - before
    # A slow or a busy processor is no fault of the code: where it matters, its pace counts.
    return Outcome(kind, text, seconds / max(1.0, pace()) if seconds > SECONDS / 2 else seconds, memory)


def pace() -> float:
    """How much longer than `_LOOP_SECONDS` a loop of Python takes this processor now."""
    begin, names = time.process_time(), {}
    for number in range(_LOOP):
        names[number & 255] = str(number)
    return (time.process_time() - begin) / _LOOP_SECONDS


def is_sentence(text: str, path: Path) -> bool:
    """Whether a message is one line of some length and names the file, or one of a folder's."""
    names = [path.name, *(one.name for one in path.rglob("*"))] if path.is_dir() else [path.name, path.stem]
    return text.isprintable() and 20 < len(text) < 4000 and any(name in text for name in names)


def reset_peak() -> int:
    """Forgets the most memory that this process had; returns what it has now."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return peak()


def peak() -> int:
    """The most memory that this process had, in bytes: since `reset_peak` on Linux, ever elsewhere."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most << 10


def limit() -> None:
    """Bounds the address space of this process."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + SPACE, used + SPACE))


def serve() -> None:
    """Answers one line for each line."""
    warnings.simplefilter("ignore")
    for name in IMPORTED:
        import_module(name)
    limit()
    answers = os.fdopen(os.dup(1), "w")  # Keras and TensorFlow write to the standard output
    os.dup2(2, 1)
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        door, path = json.loads(line)
        answers.write(json.dumps(vars(outcome(door, Path(path)))) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve()
