"""The page for physicians: drop a radiograph, read the answer.  An ASGI application that keeps nothing.

One request brings one file and takes one answer away.  A file is bytes in this process' memory from its first byte to
its decoding; it has no name, no place on a disk and no address, so nobody can ask for another one's, two equal ones are
two, and when the request ends, however it ends, nothing of it is left.  The answer comes as lines of JSON, as it is
found.

    browser ──POST /read──▶ gate ▶ a place in line ▶ room in memory ▶ a decoder's process ▶ the network ──lines──▶

What is bounded: who is in line, the bytes of all uploads together, the time that a sender may take, and for each
decoder time and memory.
"""

import asyncio
import base64
import contextlib
import dataclasses
import itertools
import json
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tf_simclr.chest.files.squares import PICTURED, Picture, picture_of
from tf_simclr.chest.files.worker import Crew
from tf_simclr.chest.model.deployed import Deployed
from tf_simclr.chest.model.explain import Explanation, ask_all, checked_all
from tf_simclr.chest.page import html as app_page
from tf_simclr.chest.page.gate import HEADERS, UPLOAD, Gate, Refused
from tf_simclr.chest.page.room import Room
from tf_simclr.errors import InputError

_Message = dict[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_Tell = Callable[[_Message], Awaitable[None]]
"""Takes one line of an answer."""
_Found = tuple[Explanation, ...]
"""What was found of one file, for each finding."""

_TEXT = {"/": "text/html; charset=utf-8", "/page.css": "text/css; charset=utf-8"}
SCRIPT = "text/javascript; charset=utf-8"
_PART = 3 * 2**16
"""Bytes of a picture in one line."""
_FULL = "Too many files are waiting. Nothing was read of yours; try again in a minute."
_SLOW = "The file came too slowly and was not read. Try again."
_FAILED = "the program failed on this file; whoever runs it can see why"
_ANSWERS, _CHECKS = 0, 1
"""Ranks at the network: an answer is awaited, its check can wait."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the page takes upon itself at a time."""

    places: int = 64
    """Uploads in line; the next one is told to come again."""
    all_bytes: int = 512 * 2**20
    """Of all uploads in memory, and as many again of all pictures on their way out; who comes later waits for room."""
    decoders: int = 2
    """Files that are decoded at a time, each in a process of its own."""
    seconds: float = 30.0
    """For decoding one file."""
    memory: int = 3 * 2**30
    """Address space of a decoder in bytes; 64 million pixels of 16 bits, the most that is decoded, fit."""
    silence: float = 10.0
    """Seconds without a byte of an upload after which it is given up."""
    rate: float = 128 * 2**10
    """Bytes a second that an upload must bring, after as many seconds as `silence`."""
    news: float = 2.0
    """Seconds between two words to who waits; they also show that nobody waits any more."""


class _Gone(Exception):
    """Who asked has left."""


class Page:
    """The application.

    Args:
        models: the model, a part for each finding (`chest.model.opened`).
        gate: what is let in.
        neighbours: training cases to show.
        limits: see there.
        say: told one line for each upload that is refused: why, never what was in it or how it was called.
    """

    def __init__(
        self,
        models: Sequence[Deployed],
        *,
        gate: Gate,
        neighbours: int = 5,
        limits: Limits | None = None,
        say: Callable[[str], None] = lambda line: None,
    ):
        self.models, self.gate, self.neighbours, self.say = tuple(models), gate, neighbours, say
        self.limits = limits or Limits()
        # Made once: the page is the same for all.
        self.texts = {
            "/": app_page.document(self.models, max_bytes=gate.max_bytes).encode(),
            "/page.css": app_page.STYLE.encode(),
            "/page.js": app_page.SCRIPT.encode(),
            "/viewer.js": app_page.VIEWER.encode(),
        }
        self.tickets = itertools.count()
        # Who waits, by number; what is in memory, by bytes; how many decode and ask.
        self.line: set[int] = set()
        self.bytes = Room(max(self.limits.all_bytes, gate.max_bytes))
        self.pictures = Room(self.limits.all_bytes)
        self.decoding, self.asking = Room(self.limits.decoders), Room(1)
        self.crew = Crew(PICTURED, workers=self.limits.decoders, memory=self.limits.memory, seconds=self.limits.seconds)
        self.threads = ThreadPoolExecutor(self.limits.decoders + 1, thread_name_prefix="page")

    def close(self) -> None:
        """Ends the decoders."""
        self.crew.close()
        self.threads.shutdown(wait=False, cancel_futures=True)

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """One request."""
        if scope["type"] != "http":  # no other kind is spoken here; the server does not wait for this one
            return
        upload = scope["raw_path"] == UPLOAD.encode() and scope["method"] == "POST"
        try:
            # Before a byte of the content is read.
            length = self.gate.look(scope)
            if upload:
                await self.read(length, receive, send)
            else:
                path = scope["raw_path"].decode()
                await respond(send, 200, self.texts[path], kind=_TEXT.get(path, SCRIPT))
        except Refused as refused:
            if upload:
                self.say(f"an upload was refused: {refused.kind}")
            body = json.dumps({"refused": refused.sentence}).encode()
            await respond(send, refused.status, body, kind="application/json", headers=refused.headers)
        except _Gone:
            return

    async def read(self, length: int, receive: _Receive, send: _Send) -> None:
        """Answers one upload.

        Raises:
            Refused: there is no place in line, or the file does not come.
            _Gone: who sent it has left.
        """
        # Too many: told at once and not after minutes.
        if len(self.line) >= self.limits.places:
            raise Refused(429, _FULL, kind="too many in line", headers={"Retry-After": "60"})
        ticket = next(self.tickets)
        self.line.add(ticket)
        try:
            # The room for an upload's bytes is held until the decoder has made a picture of them.
            async with contextlib.AsyncExitStack() as room:
                await room.enter_async_context(self.bytes.held(length))
                content = await self.whole(length, receive)
                await send(started(200, kind="application/x-ndjson"))

                async def tell(content: _Message) -> None:
                    await send(line(content))

                answering = self.answer(content, done=room.aclose, tell=tell)
                del content
                await self.accompany(answering, ticket, receive=receive, tell=tell)
                await send({"type": "http.response.body", "body": b""})
        finally:
            self.line.discard(ticket)

    async def whole(self, length: int, receive: _Receive) -> bytearray:
        """The content of an upload.

        Raises:
            Refused: it comes too slowly, or in another length than it stated.
            _Gone: it ends in the middle.
        """
        # Time counts only while this waits for the sender.
        content, waited, clock = bytearray(), 0.0, asyncio.get_running_loop().time
        more = True
        while more:
            began = clock()
            try:
                message = await asyncio.wait_for(receive(), self.limits.silence)
            except asyncio.TimeoutError:
                raise Refused(408, _SLOW, kind="too slow", headers={"Connection": "close"}) from None
            waited += clock() - began
            if message["type"] != "http.request":
                raise _Gone
            content += message.get("body", b"")
            more = message.get("more_body", False)
            if waited > self.limits.silence + len(content) / self.limits.rate:
                raise Refused(408, _SLOW, kind="too slow", headers={"Connection": "close"})
            if len(content) > length:
                break
        if len(content) != length:
            raise Refused(400, "The file must have the length that was stated.", kind="another length than stated")
        return content

    async def accompany(
        self, answering: Coroutine[Any, Any, None], ticket: int, *, receive: _Receive, tell: _Tell
    ) -> None:
        """Lets an answer come, says meanwhile how many are before it, and ends it when nobody waits any more.

        Raises:
            _Gone: nobody does.
        """
        # Two things to wait for: the answer, and that the asker leaves.
        work, leaving = asyncio.ensure_future(answering), asyncio.ensure_future(receive())
        try:
            while not work.done():
                await asyncio.wait([work, leaving], timeout=self.limits.news, return_when=asyncio.FIRST_COMPLETED)
                if leaving.done() and not work.done():
                    raise _Gone
                if not work.done():
                    await tell({"before": sum(other < ticket for other in self.line)})
            work.result()
        finally:
            for task in (work, leaving):
                task.cancel()
            await asyncio.wait([work, leaving])

    async def answer(self, content: bytearray, *, done: Callable[[], Awaitable[None]], tell: _Tell) -> None:
        """What the page shows for one file, step by step: that it works, the answer, the answer with its check.

        Args:
            content: of the file.
            done: called as soon as nothing of it is needed any more.
            tell: takes a line.
        """
        try:
            # 1. Decoded, in a process of its own. 2. Every pixel, for the viewer.
            #    3. The answer. 4. The check, which takes fifty times as long.
            await tell({"step": "reading the file"})
            async with contextlib.AsyncExitStack() as outgoing:
                picture = await self.decoded(content, outgoing=outgoing)
                del content
                await done()
                patience = self.limits.silence + len(picture.full) / self.limits.rate
                await asyncio.wait_for(pictured(picture, tell), patience)
                picture = dataclasses.replace(picture, full=b"")
            await tell({"step": "asking the network"})
            found = await self.asked(lambda: ask_all(self.models, picture, neighbours=self.neighbours), rank=_ANSWERS)
            await tell(await self.shown(found))
            found = await self.asked(lambda: checked_all(self.models, found), rank=_CHECKS)
            await tell(await self.shown(found))
        except asyncio.TimeoutError:
            raise _Gone from None  # who takes a picture that slowly
        except InputError as error:
            self.say("an upload was refused: not a radiograph that can be read")
            await tell({"refused": app_page.sentence(str(error).replace("the upload", "the file"))})
        except Exception as error:  # whatever it is, the physician must not be left with an old answer in view
            self.say(f"an upload could not be answered: {where(error)}")
            await tell({"refused": app_page.sentence(_FAILED)})

    async def decoded(self, content: bytearray, *, outgoing: contextlib.AsyncExitStack) -> Picture:
        """What a decoder made of a file.  It takes no other one before there is room for the picture, which is held."""
        about = self.models[0].about
        request = {"size": about["kept_size"], "fit": about["fit"], "windowed": about["windowed"], "full": True}
        async with self.decoding.held():
            answer = await self.apart(lambda: self.crew(request, content))
            await outgoing.enter_async_context(self.pictures.held(min(len(answer), self.pictures.size)))
        return await self.apart(lambda: picture_of(answer))

    async def asked(self, job: Callable[[], _Found], *, rank: int) -> _Found:
        """What the network says, one image at a time."""
        async with self.asking.held(rank=rank):
            return await self.apart(job)

    async def shown(self, found: _Found) -> _Message:
        """A line with a finished answer; drawn aside, for pictures take long to compress."""
        html = await self.apart(lambda: app_page.result(self.models, found))
        said = app_page.in_sentences(self.models, found)
        numbers = [
            {
                "class": model.positive,
                "probability": one.verdict.probability,
                "low": one.verdict.low,
                "high": one.verdict.high,
                "doubts": one.doubts,
            }
            for model, one in zip(self.models, found, strict=True)
        ]
        return {"html": html, "said": said, "checked": found[0].correlation is not None, "numbers": numbers}

    async def apart(self, job: Callable[[], Any]) -> Any:
        """A job in another thread, which is waited for even when the answer is not wanted any more.

        Whoever holds room for the job must hold it until the job has ended.
        """
        # A thread cannot be ended: the place that it takes is given back only when it has.
        running = asyncio.get_running_loop().run_in_executor(self.threads, job)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait([running])
            if not running.cancelled():
                running.exception()  # seen
            raise


async def pictured(picture: Picture, tell: _Tell) -> None:
    """Tells every pixel of a picture: what is to be known of it, and its PNG in parts."""
    sides = app_page.sides(picture.orientation)
    about = {"width": picture.width, "height": picture.height, "bits": picture.bits, "window": picture.window}
    said = app_page.header_says(picture.view, sides)
    await tell({"picture": about | {"view": picture.view, "sides": sides, "said": said}})
    # In parts, so that one picture does not keep others from their answers.
    for start in range(0, len(picture.full), _PART):
        await tell({"part": base64.b64encode(picture.full[start : start + _PART]).decode()})
        await asyncio.sleep(0)  # others have their turn between two parts


def where(error: Exception) -> str:
    """An error's kind and the place in the program; what it says could name a patient."""
    places = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__} in {Path(places[-1].filename).name}, line {places[-1].lineno}"


def line(content: _Message) -> _Message:
    """A line of an answer, as ASGI sends it."""
    return {"type": "http.response.body", "body": json.dumps(content).encode() + b"\n", "more_body": True}


def started(status: int, *, kind: str, headers: dict[str, str] | None = None) -> _Message:
    """The beginning of an answer, with `HEADERS`."""
    # Security headers come first and can only be added to.
    whole = HEADERS | {"Content-Type": kind} | (headers or {})
    pairs = [(name.lower().encode(), value.encode()) for name, value in whole.items()]
    return {"type": "http.response.start", "status": status, "headers": pairs}


async def respond(send: _Send, status: int, body: bytes, *, kind: str, headers: dict[str, str] | None = None) -> None:
    """A whole answer."""
    await send(started(status, kind=kind, headers={"Content-Length": str(len(body))} | (headers or {})))
    await send({"type": "http.response.body", "body": body})
