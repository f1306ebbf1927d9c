"""Commands as processes of their own, many in a minute: one process imports and forks another for each.

`python -m tests.replicas.forked` reads requests from stdin, JSON, one a line, and answers each on stdout; `Forks` is
what tests use.  A fork runs `python -m tf_simclr WORDS` to its very end, with what runs at an interpreter's exit.
"""

import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import golden


@dataclass
class Member:
    """A process that a fork became."""

    forks: "Forks"
    number: int
    """The operating system's, also of its group: whoever it starts is in that."""
    log: Path
    code: int | None = None
    """What it ended with, −9 if it was killed; None: it runs."""
    ended: float = 0.0
    """When that was seen, by `time.monotonic()`."""

    def poll(self) -> int | None:
        """As of `subprocess.Popen`."""
        if self.code is None:
            self.code = self.forks.ask(poll=self.number)
            self.ended = time.monotonic()
        return self.code

    def send_signal(self, number: int) -> None:
        """Sends a signal to this process alone."""
        os.kill(self.number, number)

    def said(self) -> str:
        """All that it wrote so far."""
        return self.log.read_text(errors="replace")

    def orphans(self) -> bool:
        """Whether something that it started outlives it."""
        try:
            os.killpg(self.number, 0)
        except ProcessLookupError:
            return False
        return True


class Forks:
    """The process that forks, on a backend; as a context it and all that are left of its forks end with the block."""

    def __init__(self, backend: str, **environment: str):
        self.environment = (
            os.environ
            | {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": backend, "PYTHONPATH": str(golden.ROOT)}
            | environment
        )
        self.members: list[Member] = []

    def __enter__(self) -> "Forks":
        self.server = subprocess.Popen(
            [sys.executable, "-m", "tests.replicas.forked"],
            cwd=golden.ROOT,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_):
        for member in self.members:
            if member.poll() is None:
                os.killpg(member.number, signal.SIGKILL)
        self.server.communicate()

    def ask(self, **request: Any) -> Any:
        """What the server answers."""
        assert self.server.stdin
        assert self.server.stdout
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        return json.loads(self.server.stdout.readline())

    def start(
        self, words: Sequence[Any], log: Path, *, folder: Path, module: str = "tf_simclr", **environment: str
    ) -> Member:
        """The process of a command, or of another module, in a working directory, with environment variables."""
        request = {"words": list(map(str, words)), "log": str(log), "folder": str(folder), "environment": environment}
        request |= {"module": module}
        self.members.append(Member(self, self.ask(**request), log))
        return self.members[-1]


def wait(members: Sequence[Member], seconds: float) -> bool:
    """Waits until all have ended, or for some seconds; whether they did."""
    end = time.monotonic() + seconds
    while None in [member.poll() for member in members]:  # looks at all: each notes when it was seen to have ended
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def _serve() -> dict[str, Any] | None:
    """Answers requests; returns in each fork with the one that it is for, and None at the end of all."""
    for line in sys.stdin:
        request = json.loads(line)
        answer: int | None
        if "poll" in request:
            number, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if number else None
        else:
            number = os.fork()
            if number == 0:
                return request
            answer = number
        sys.stdout.write(f"{json.dumps(answer)}\n")
        sys.stdout.flush()
    return None


def main() -> None:
    """Imports what commands need, without computing anything, then forks."""
    import keras
    import tensorflow  # noqa: F401
    from tensorboard.compat import tf2  # noqa: F401

    from tf_simclr import cli

    for command in ("distill", "finetune", "pretrain"):
        importlib.import_module(f"tf_simclr.{cli.place(command)}")
    if keras.backend.backend() == "jax":
        importlib.import_module("jax.experimental.multihost_utils")

    request = _serve()
    if request is None:
        return
    os.setpgid(0, 0)
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.path.insert(0, request["folder"])
    for stream, mode in ((sys.stdin, os.O_RDONLY), (sys.stdout, os.O_WRONLY), (sys.stderr, os.O_WRONLY)):
        place = os.devnull if stream is sys.stdin else request["log"]
        file = os.open(place, mode | (0 if stream is sys.stdin else os.O_CREAT | os.O_APPEND), 0o600)
        os.dup2(file, stream.fileno())
        os.close(file)
    sys.argv = [request["module"], *request["words"]]
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
