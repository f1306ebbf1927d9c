"""Decoding in processes that may die: what a hostile or damaged file can do ends with the process that opened it.

Native decoders crash, loop and allocate.  Each worker has a limit of memory, each file one of time; a worker that dies
is replaced and its file refused.  Answers come back as plain bytes, so that nothing a decoder was made to do reaches
the parent but a picture.
"""

import json
import multiprocessing
import os
from collections.abc import Iterable, Iterator
from importlib import import_module
from multiprocessing.connection import Connection, wait
from typing import Any

from tf_simclr.errors import InputError, check

SECONDS = 60.0
"""Longest time for one file."""
MEMORY = 4 * 2**30
"""Largest address space of a worker in bytes; 64 million pixels in float64 with a copy or two fit."""


class Worker:
    """One process that answers one request at a time."""

    def __init__(self, function: str, *, memory: int = MEMORY):
        self.function, self.memory = function, memory
        self.connection, self.process = self.start()

    def start(self) -> tuple[Connection, Any]:
        """A process and this end of its pipe."""
        context = multiprocessing.get_context("spawn")  # a fork would carry TensorFlow's locks along
        ours, theirs = context.Pipe()
        process = context.Process(
            target=serve, args=(theirs, self.function), kwargs={"memory": self.memory}, daemon=True
        )
        process.start()
        theirs.close()
        return ours, process

    def ask(self, request: dict[str, Any]) -> None:
        """Hands over one request of JSON types."""
        self.connection.send_bytes(json.dumps(request).encode())

    def answer(self) -> bytes:
        """Waits for the answer to the request.

        Raises:
            InputError: the file was refused; or its decoder died, and there is a new worker in its place.
        """
        try:
            reply = self.connection.recv_bytes()
        except (EOFError, OSError):
            self.process.join()
            died = f"ended with code {self.process.exitcode}"
            self.restart()
            raise InputError(f"the file must be decodable, but its decoder crashed ({died})") from None
        check(reply[:1] == b"+", reply[1:].decode(errors="replace"))
        return reply[1:]

    def restart(self) -> None:
        """Ends the process, if it has not ended, and starts another."""
        self.close()
        self.connection, self.process = self.start()

    def close(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.join()
        self.connection.close()


def serve(connection: Connection, function: str, *, memory: int) -> None:
    """A worker's life: requests in, `+` and bytes or `-` and the reason out, until nobody asks any more."""
    limit_memory(memory)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    module, name = function.split(":")
    call = getattr(import_module(module), name)
    while True:
        try:
            request = json.loads(connection.recv_bytes())
        except (EOFError, OSError):
            return
        try:
            reply = b"+" + call(**request)
        except (InputError, MemoryError) as error:
            reply = b"-" + (str(error) or "the file must be decodable in the memory that a decoder may have").encode()
        connection.send_bytes(reply)


def limit_memory(memory: int) -> None:
    """Bounds the address space of this process, where the system can (not on Windows)."""
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def each(
    function: str,
    requests: Iterable[dict[str, Any]],
    *,
    workers: int = 1,
    seconds: float = SECONDS,
    memory: int = MEMORY,
) -> Iterator[bytes | InputError]:
    """Yields for each request, in their order, what a function made of it, or the reason why it could not.

    Args:
        function: `module:name`, called with a request's items; returns bytes, raises `InputError` to refuse.
        requests: JSON types.
        workers: processes at a time.
        seconds: longest time for one request.
        memory: largest address space of a process in bytes.
    """
    check(workers >= 1, "workers must be at least 1", workers=workers)
    crew = [Worker(function, memory=memory) for _ in range(workers)]
    asked = 0
    try:
        for request in requests:
            worker = crew[asked % workers]
            if asked >= workers:
                yield outcome(worker, seconds)
            worker.ask(request)
            asked += 1
        for number in range(max(0, asked - workers), asked):
            yield outcome(crew[number % workers], seconds)
    finally:
        for worker in crew:
            worker.close()


def outcome(worker: Worker, seconds: float) -> bytes | InputError:
    """What a worker answers within the time, else the reason."""
    try:
        if not wait([worker.connection], seconds):
            worker.restart()
            raise InputError(f"the file must be decodable within {seconds:.0f} seconds")
        return worker.answer()
    except InputError as error:
        return error


def once(function: str, request: dict[str, Any], *, seconds: float = SECONDS, memory: int = MEMORY) -> bytes:
    """One request in a process of its own.

    Raises:
        InputError: the reason why it was refused.
    """
    result = next(each(function, [request], seconds=seconds, memory=memory))
    if isinstance(result, InputError):
        raise result
    return result
