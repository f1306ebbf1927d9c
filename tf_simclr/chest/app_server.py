"""The page's server: this machine only, no request to another one, nothing left behind."""

import contextlib
import logging
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from tf_simclr.chest.app import build, import_gradio
from tf_simclr.chest.app_page import HIDE, STYLE
from tf_simclr.chest.deployed import Deployed
from tf_simclr.errors import InputError, check

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'self'"
)
"""By this the browser itself refuses to fetch from, or send to, any other machine; Gradio's scripts are inline."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
OPEN = ("/assets/", "/static/", "/gradio_api/upload", "/gradio_api/queue/", "/gradio_api/heartbeat/", "/svelte/")
"""What begins so is served; of the rest only what `EXACT` names."""
EXACT = ("/", "/config", "/theme.css", "/manifest.json", "/favicon.ico", "/gradio_api/startup-events")
LOCAL = ("127.0.0.1", "localhost")
KEPT_SECONDS = 300.0
"""An upload that nobody asked about in this time is removed."""
PROMPT = 30.0
"""Seconds between two looks at the uploads."""
ENDINGS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""Signals on which the folder of uploads is removed, too; Windows has no second one."""
FORM_BYTES = 4096
"""What a form adds to its file."""

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Gate:
    """Lets requests for the page through and nothing else, and marks each answer with `HEADERS`.

    Args:
        app: the page, an ASGI application.
        max_bytes: of an upload; longer ones are refused before a byte of them is kept.
        hosts: names by which this server may be called, against pages of others that point their name at this machine;
            empty: any.
    """

    def __init__(self, app: Any, *, max_bytes: int, hosts: tuple[str, ...]):
        self.app, self.max_bytes, self.hosts = app, max_bytes, hosts

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        async def marked(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                own = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [pair for pair in message["headers"] if pair[0] not in dict(own)] + own
            await send(message)

        status = self.refused(scope)
        if status:
            await marked({"type": "http.response.start", "status": status, "headers": []})
            await marked({"type": "http.response.body", "body": b"refused"})
        else:
            await self.app(scope, receive, marked)

    def refused(self, scope: dict[str, Any]) -> int:
        """The status with which a request is refused, or 0."""
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode(errors="replace").rsplit(":", 1)[0]
        if self.hosts and host not in self.hosts:
            return 403
        if scope["path"] not in EXACT and not scope["path"].startswith(OPEN):
            return 404
        length = headers.get(b"content-length", b"")
        if scope["method"] == "POST" and not length.isdigit():
            return 411
        return 413 if length.isdigit() and int(length) > self.max_bytes + FORM_BYTES else 0


@contextlib.contextmanager
def uploads() -> Iterator[Path]:
    """A folder for uploads, in memory where the system has such a place, emptied as it goes and removed at the end."""
    memory = Path("/dev/shm")  # Linux; elsewhere the system's folder for temporary files
    place = memory if memory.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="tf_simclr_", dir=place, ignore_cleanup_errors=True) as name:
        folder, done = Path(name), threading.Event()
        threading.Thread(target=sweep, args=(folder, done), daemon=True).start()
        try:
            yield folder
        finally:
            done.set()


def sweep(folder: Path, done: threading.Event, *, every: float = PROMPT, seconds: float = KEPT_SECONDS) -> None:
    """Removes files that are older than `seconds`, until the event is set."""
    while not done.wait(every):
        for path in [path for path in folder.rglob("*") if path.is_file()]:
            with contextlib.suppress(OSError):  # another one may have removed it
                if time.time() - path.stat().st_mtime > seconds:
                    path.unlink()


def serve(
    deployed: Deployed,
    *,
    host: str,
    port: int,
    max_bytes: int,
    neighbours: int = 5,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Serves the page until it is interrupted.

    Args:
        deployed: the model.
        host: address to listen on.
        port: 0 for any that is free.
        max_bytes: of an upload.
        neighbours: training cases to show.
        say: told the page's address when it can be opened.

    Raises:
        InputError: Gradio is not installed, or nobody can listen there.
    """
    with uploads() as cache:
        import_gradio(cache)
        import uvicorn

        listening = listen(host, port)
        app = application(deployed, cache=cache, host=host, max_bytes=max_bytes, neighbours=neighbours, say=say)
        for number in ENDINGS:
            signal.signal(number, interrupted)  # uvicorn ends well and then raises the signal anew
        settings = uvicorn.Config(
            app, log_level="warning", access_log=False, lifespan="on", timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(settings)
        with contextlib.closing(listening), quiet_end(server), contextlib.suppress(KeyboardInterrupt):
            say(f"open http://{host}:{listening.getsockname()[1]} in a browser; Ctrl+C ends it")
            server.run(sockets=[listening])


@contextlib.contextmanager
def quiet_end(server: Any) -> Iterator[None]:
    """Keeps to itself what uvicorn logs of a page that is still open in a browser when the server ends."""

    def told(record: logging.LogRecord) -> bool:
        return not server.should_exit

    logger = logging.getLogger("uvicorn.error")
    logger.addFilter(told)
    try:
        yield
    finally:
        logger.removeFilter(told)


def interrupted(number: int, frame: Any) -> None:
    """Ends the program as Ctrl+C does."""
    raise KeyboardInterrupt


def listen(host: str, port: int) -> socket.socket:
    """A socket at this address.

    Raises:
        InputError: it is taken, or not this machine's.
    """
    check(0 <= port < 65536, "port must be between 0 and 65535", port=port)
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise InputError(f"port {port} of {host} must be free ({error.strerror}); choose another --port") from error


def application(
    deployed: Deployed, *, cache: Path, host: str, max_bytes: int, neighbours: int, say: Callable[[str], None]
) -> Gate:
    """The page behind its gate, as an ASGI application."""
    gradio = import_gradio(cache)
    import fastapi

    page = build(deployed, cache=cache, neighbours=neighbours, say=say)
    theme = gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    app = gradio.mount_gradio_app(
        fastapi.FastAPI(openapi_url=None, docs_url=None, redoc_url=None),
        page,
        path="/",
        server_name=host,
        footer_links=[],
        run_history=False,
        max_file_size=max_bytes,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        show_error=False,
        theme=theme,
        css=STYLE,
        js=HIDE,
    )
    return Gate(app, max_bytes=max_bytes, hosts=LOCAL if host in LOCAL else ())
