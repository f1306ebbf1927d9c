"""Decoding in processes that may die: what a hostile or damaged file can do ends with the process that opened it.

Native decoders crash, loop and allocate.  So no file is opened where the program runs.  A *worker* is a process that
has imported what decodes and waits.  On Linux it forks for each file; the fork costs milliseconds, has a limit of
memory and of processor time, may write no file, and ends with its file, so nothing that a file did to its decoder meets
the next one.  A worker that is late is killed with its fork and replaced.  Answers come back as plain bytes, so that
nothing a decoder was made to do reaches the parent but a picture.

    parent  ── request, payload ──▶  worker  ── fork ──▶  decoder of one file
            ◀── + bytes, - reason, ! how it died ──       ◀── bytes ──
"""

import contextlib
import functools
import json
import os
import queue
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import IO, Any, cast

from tf_simclr.errors import InputError, check

SECONDS = 60.0
"""Longest time for one file."""
_MEMORY = 4 * 2**30
"""Largest address space of a decoder in bytes; 64 million pixels in float64 with a copy or two fit."""
_LARGEST = 512 * 2**20
"""Most bytes of an answer."""
_STARTING = 300.0
"""Longest time for a worker's imports, on a machine that is busy."""
FORKS = sys.platform == "linux"
"""Elsewhere a worker reads file after file itself: a fork behind native libraries is not safe on every system."""
_BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from tf_simclr.chest.files.worker import main; main()"
"""What a worker runs: never the caller's own script, which need not be written to be imported."""
_LENGTH = struct.Struct("<Q")


def _search_path() -> list[str]:
    """Where a worker imports from: as the caller, but not beside the caller's script, where anything may lie."""
    own = str(Path(__file__).parents[3])  # what holds this package, a checkout or site-packages
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    beside = {"", str(Path.cwd()), *([str(Path(main).resolve().parent)] if main else [])}
    return [own, *(place for place in sys.path if place not in beside and place != own)]


class _Worker:
    """One process that answers one request at a time.

    Args:
        function: `module:name`, called with a request's items; returns bytes, raises `InputError` to refuse.
        memory: largest address space of a decoder in bytes.
        seconds: longest time for one request, from the moment that the worker has started.
    """

    def __init__(self, function: str, *, memory: int = _MEMORY, seconds: float = SECONDS):
        self.function, self.memory, self.seconds = function, memory, seconds
        self.start()

    def start(self) -> None:
        """Starts the process; its imports go on while this returns."""
        settings = {"function": self.function, "memory": self.memory, "seconds": self.seconds}
        # Isolated (`-I`): neither variables nor the folder that it is started in bring code.
        command = [sys.executable, "-I", "-c", _BOOT, json.dumps(_search_path()), json.dumps(settings)]
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # a fork keeps no threads
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment, start_new_session=True)
        self.requests, self.replies = cast(IO[bytes], self.process.stdin), cast(IO[bytes], self.process.stdout)
        self.ready = False

    def ask(self, request: dict[str, Any], payload: bytes | bytearray | None = None) -> None:
        """Hands over one request of JSON types, with bytes that the function gets as its first argument."""
        parts = [json.dumps({"request": request, "payload": payload is not None}).encode()]
        with contextlib.suppress(BrokenPipeError):  # it died: `answer` says so
            # The request, and behind it the bytes if there are any: each as a frame of its own.
            for part in parts if payload is None else [*parts, payload]:
                send(self.requests, part)

    def answer(self) -> bytes:
        """Waits for the answer to the request.

        Raises:
            InputError: the file was refused; or its decoder died or was late.
        """
        try:
            # The first answer takes as long as imports do, and is "ready".
            if not self.ready:
                self.next_frame(_STARTING)
                self.ready = True
            reply = self.next_frame(self.seconds)
        except InputError:
            self.close()
            self.start()
            raise
        # `!` and a code: the child died. `+` and content: done. `-` and a sentence: refused.
        if reply[:1] == b"!":
            raise InputError(_death(int(reply[1:]), seconds=self.seconds))
        check(reply[:1] == b"+", reply[1:].decode(errors="replace"))
        return reply[1:]

    def next_frame(self, seconds: float) -> bytes:
        """What the process sends next.

        Raises:
            InputError: it ended first, or it was late and was killed.
        """
        late = threading.Event()

        def end() -> None:
            late.set()
            self.kill()

        # Reading a pipe has no time limit that works everywhere: whoever is late is ended, which ends the reading.
        timer = threading.Timer(seconds, end)
        timer.start()
        try:
            return frame(self.replies)
        except EOFError:
            self.process.wait()
            raise InputError(_death(None if late.is_set() else self.process.returncode, seconds=seconds)) from None
        finally:
            timer.cancel()

    def kill(self) -> None:
        """Ends the process and what it forked."""
        if os.name == "posix":
            with contextlib.suppress(ProcessLookupError):
                # Its whole group, which it leads since `start_new_session`.
                os.killpg(self.process.pid, signal.SIGKILL)
        else:
            self.process.kill()

    def close(self) -> None:
        """Ends the process, if it has not ended."""
        self.kill()
        self.process.wait()
        for pipe in (self.requests, self.replies):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def _death(code: int | None, *, seconds: float) -> str:
    """Why a decoder ended, as the sentence of a refusal; without a code it was late."""
    if code is None or (FORKS and code == -signal.SIGXCPU):
        return f"the file must be decodable within {seconds:.0f} seconds"
    return f"the file must be decodable, but its decoder crashed (ended with code {code})"


def frame(pipe: IO[bytes]) -> bytes:
    """A length and as many bytes.

    Raises:
        EOFError: the other side ended, or claims more than is taken.
    """
    # A pipe that ends in the midst is an end, whatever was read of it.
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size or (length := _LENGTH.unpack(head)[0]) > _LARGEST:
        raise EOFError
    content = pipe.read(length)
    if len(content) < length:
        raise EOFError
    return content


def main() -> None:
    """A worker's life: imports, then requests in and replies out, until nobody asks any more."""
    settings = json.loads(sys.argv[2])
    # 1. The pipes under other numbers, 0 and 1 lead nowhere. 2. The function. 3. Requests, one after the other.
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "r+b") as nothing:  # what decoders print would be read as a reply, and could name a patient
        os.dup2(nothing.fileno(), 0)
        os.dup2(nothing.fileno(), 1)
    module, name = settings.pop("function").split(":")
    call = getattr(import_module(module), name)
    send(replies, b"ready")
    while True:
        try:
            request = json.loads(frame(requests))
            payload = frame(requests) if request["payload"] else None
        except EOFError:
            return
        arguments = () if payload is None else (payload,)
        job = functools.partial(call, *arguments, **request["request"])
        reply = _in_a_fork(job, private=(requests, replies), **settings) if FORKS else _reply(job)
        # A file's bytes are let go before the next are read.
        del payload, arguments, job
        send(replies, reply)


def send(pipe: IO[bytes], content: bytes | bytearray) -> None:
    """Writes what `frame` reads."""
    pipe.write(_LENGTH.pack(len(content)))
    pipe.write(content)
    pipe.flush()


def _reply(job: Callable[[], bytes]) -> bytes:
    """`+` and what a job returns, or `-` and the reason why it does not."""
    try:
        return b"+" + job()
    except (InputError, MemoryError) as error:
        reason = str(error) or "the file must be decodable in the memory that a decoder may have"
        return b"-" + reason.encode(errors="replace")


def _in_a_fork(job: Callable[[], bytes], *, private: tuple[IO[bytes], ...], memory: int, seconds: float) -> bytes:
    """The reply, computed in a child with its limits; `!` and a code where the child died.

    Args:
        job: what to call.
        private: pipes that the child must not hold.
        memory: largest address space in bytes.
        seconds: of processor time.
    """
    # The child computes and ends; the parent reads until the pipe is closed, which the child's end does.
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            # What runs hostile bytes must reach neither the requests nor the replies of others.
            for pipe in private:
                os.close(pipe.fileno())
            os.close(reading)
            with open(os.devnull, "wb") as nothing:
                os.dup2(nothing.fileno(), 2)  # decoders print what they find, too
            limit(memory, seconds=seconds)
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(_reply(job))
            code = 0
        finally:
            os._exit(code)  # without the worker's own clean-up
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        reply = answer.read(_LARGEST)
    # Read first, waited for afterwards: a full pipe would keep the child from ending.
    status = os.waitpid(child, 0)[1]
    code = os.waitstatus_to_exitcode(status)
    return b"!%d" % code if code else reply


def limit(memory: int, *, seconds: float) -> None:
    """Bounds this process: address space, processor time, no core file and no file written."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # No byte into any file: pipes are not bounded by it.
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    # SIGXCPU at the first limit, which tells why; SIGKILL at the second.
    whole = int(seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (whole, whole + 1))


class Crew:
    """Workers that several threads may ask: each question goes to one that is free, or waits until one is.

    Args:
        function: see `_Worker`.
        workers: processes.
        memory: of each file's decoder, in bytes.
        seconds: for each file.
    """

    def __init__(self, function: str, *, workers: int, memory: int = _MEMORY, seconds: float = SECONDS):
        check(workers >= 1, "workers must be at least 1", workers=workers)
        self.workers = [_Worker(function, memory=memory, seconds=seconds) for _ in range(workers)]
        self.free: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        for worker in self.workers:
            self.free.put(worker)

    def __call__(self, request: dict[str, Any], payload: bytes | bytearray | None = None) -> bytes:
        """The answer to one request.

        Raises:
            InputError: the reason why it was refused.
        """
        worker = self.free.get()
        try:
            worker.ask(request, payload)
            return worker.answer()
        finally:
            self.free.put(worker)

    def close(self) -> None:
        """Ends the processes."""
        for worker in self.workers:
            worker.close()


def each(
    function: str,
    requests: Iterable[dict[str, Any]],
    *,
    workers: int = 1,
    seconds: float = SECONDS,
) -> Iterator[bytes | InputError]:
    """Yields for each request, in their order, what a function made of it, or the reason why it could not.

    Args:
        function: `module:name`, called with a request's items; returns bytes, raises `InputError` to refuse.
        requests: JSON types.
        workers: processes at a time.
        seconds: longest time for one request.
    """
    check(workers >= 1, "workers must be at least 1", workers=workers)
    crew = [_Worker(function, seconds=seconds) for _ in range(workers)]
    asked = 0
    try:
        for request in requests:
            worker = crew[asked % workers]
            if asked >= workers:
                yield _outcome(worker)
            worker.ask(request)
            asked += 1
        for number in range(max(0, asked - workers), asked):
            yield _outcome(crew[number % workers])
    finally:
        for worker in crew:
            worker.close()


def _outcome(worker: _Worker) -> bytes | InputError:
    """What a worker answers, else the reason why it does not."""
    try:
        return worker.answer()
    except InputError as error:
        return error


def once(function: str, request: dict[str, Any]) -> bytes:
    """One request in a process of its own.

    Raises:
        InputError: the reason why it was refused.
    """
    result = next(each(function, [request]))
    if isinstance(result, InputError):
        raise result
    return result
