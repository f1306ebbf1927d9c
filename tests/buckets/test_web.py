"""Pictures on the web: files of a server of Python's own, fetched as they are; nothing is written there."""

import contextlib
import functools
import http.server
import os
import tarfile
import threading
from urllib.parse import unquote

import pytest

from tests.commands import pictures
from tf_simclr import buckets
from tf_simclr.buckets.store import Store
from tf_simclr.data.shards.source import from_shards
from tf_simclr.errors import InputError

local = functools.partial(buckets.local, images=True)


class Web:
    """A server that knows some files, notes what it is asked for, and answers as a test wants.

    Attributes:
        files: path → content.
        asked: methods and paths.
        fault: method and path → a status in the place of the file, or None.
        headers: of all answers, besides the size.
        version: whether answers have an ETag.
        page: the kind of what an answer says that has no file.
    """

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []
        self.fault = lambda method, path: None
        self.headers: dict[str, str] = {}
        self.version = True
        self.page = "text/html"
        web = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                web.asked.append((self.command, self.path))
                content, status = web.files.get(unquote(self.path)), web.fault(self.command, self.path)
                status = status or (200 if content is not None else 404)
                if status == "cut":
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content[: len(content) // 2])
                    self.close_connection = True
                    return
                if status == "endless":
                    self.send_response(200)
                    self.end_headers()
                    self.close_connection = True
                    with contextlib.suppress(OSError):
                        while True:
                            self.wfile.write(bytes(1 << 16))
                body = content if status == 200 else b"no"
                self.send_response(status)
                if "Transfer-Encoding" not in web.headers:
                    self.send_header("Content-Length", str(len(body)))
                if web.version and status == 200:
                    self.send_header("ETag", f'"{hash(content)}"')
                if status != 200:
                    self.send_header("Content-Type", web.page)
                for name, value in web.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)
                self.close_connection |= "Transfer-Encoding" in web.headers

            do_GET = do_HEAD = answer

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def web():
    one = Web()
    thread = threading.Thread(target=one.server.serve_forever, daemon=True)
    thread.start()
    with one.server:
        yield one
        one.server.shutdown()
    thread.join()


def gets(web) -> list[str]:
    return [path for method, path in web.asked if method == "GET"]


def test_a_file_is_fetched_once_and_again_when_it_is_another(web):
    web.files = {"/pets/a b.tar": os.urandom(1000)}
    for content in (web.files["/pets/a b.tar"], os.urandom(1000)):
        web.files["/pets/a b.tar"] = content
        for _ in range(2):
            assert local(f"{web.address}/pets/a b.tar").read_bytes() == content
    assert len(gets(web)) == 2


def test_braces_mean_files_and_a_note_beside_them_comes_along(web):
    web.files = {f"/pets/train-{i:03}.tar": os.urandom(50 + i) for i in range(4)} | {"/pets/prepared.json": b"{}"}
    path = local(f"{web.address}/pets/train-{{000..002}}.tar")
    assert path.name == "train-{000..002}.tar"
    found = {one.name: one.read_bytes() for one in path.parent.iterdir()}
    assert found == {name.rsplit("/")[-1]: content for name, content in web.files.items() if "003" not in name}
    del web.files["/pets/train-001.tar"]
    local(f"{web.address}/pets/train-{{000..002}}.tar")
    assert not (path.parent / "train-001.tar").exists(), "what is gone there is gone here"


def test_shards_on_the_web_are_those_of_the_disk(web, tmp_path):
    pets = pictures.write(tmp_path / "pets", per_class=2, size=8)
    for number, half in enumerate((["blue"], ["green", "red"])):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as tar:
            for name in half:
                tar.add(pets / name, arcname=name)
        web.files[f"/x/{number}.tar"] = (tmp_path / f"{number}.tar").read_bytes()
    here, there = from_shards(tmp_path / "{0..1}.tar"), from_shards(f"{web.address}/x/{{0..1}}.tar")
    assert (there.num_examples, there.class_names) == (here.num_examples, here.class_names)
    assert (there.num_examples, there.class_names) == (6, ("blue", "green", "red"))
    with pytest.raises(InputError, match=r"2.tar"):
        from_shards(f"{web.address}/x/{{0..2}}.tar")


def test_without_a_version_it_is_fetched_each_time(web):
    web.version, web.files = False, {"/a.tar": b"1" * 9}
    assert local(f"{web.address}/a.tar").read_bytes() == b"1" * 9
    web.files = {"/a.tar": b"2" * 9}
    assert local(f"{web.address}/a.tar").read_bytes() == b"2" * 9


@pytest.mark.parametrize("page", ["text/plain", "text/html"])
@pytest.mark.parametrize("fault", [500, 503, 429, "cut"])
def test_a_server_that_fails_now_and_then_loses_nothing(web, fault, page):
    web.files, count = {"/a.tar": os.urandom(5000)}, [0]

    def now_and_then(method, path):
        count[0] += 1
        return fault if count[0] % 2 and (fault != "cut" or method == "GET") else None

    web.fault, web.page = now_and_then, page
    assert local(f"{web.address}/a.tar").read_bytes() == web.files["/a.tar"]


def test_a_file_that_never_ends_is_cut_off_and_refused(web):
    web.files, web.fault = {"/a.tar": b"x" * 9}, lambda method, path: "endless" if method == "GET" else None
    with pytest.raises(InputError, match="must be what was written there, but its content is another"):
        local(f"{web.address}/a.tar")


def test_who_answers_no_heads_is_asked_for_the_file(web):
    web.files, web.fault = {"/a.tar": b"x" * 99}, lambda method, path: 405 if method == "HEAD" else None
    assert local(f"{web.address}/a.tar").read_bytes() == b"x" * 99


def refused(address: str, message: str):
    with pytest.raises(InputError, match=message):
        local(address)


def test_what_cannot_be_read_is_a_sentence(web, monkeypatch):
    web.files = {"/a.tar": b"x"}
    refused(f"{web.address}/b.tar", r"/b.tar must exist: no file \(of a folder the web does not tell\) of that name")
    refused(f"{web.address}/b-{{0..9}}.tar", "must mean something that is there")
    refused(f"{web.address}/*.tar", r"must name its files by braces, such as \{000\.\.146\}")
    refused(f"{web.address}/a.tar?signed=1", r"must have no \? or #: download it")
    assert str(buckets.local("https://host/x.npz")) == "https:/host/x.npz", "of a checkpoint something else is said"
    refused("http://nowhere.invalid/a.tar", "must be on a server that can be asked")
    for status, message in {
        403: "must be open to you.*403",
        400: "must be a file that its server gives.*400",
    }.items():
        web.fault = lambda method, path, status=status: status
        refused(f"{web.address}/a.tar", message)
    web.fault, web.headers = lambda method, path: None, {"Content-Type": "text/html; charset=utf-8"}
    refused(f"{web.address}/a.tar", "must exist: no file")
    for headers in ({"Content-Encoding": "gzip"}, {"Transfer-Encoding": "chunked"}):
        web.headers = headers
        refused(f"{web.address}/a.tar", "tells the size of; download it")
    with pytest.raises(InputError, match="can only be read: name a place on this machine or in a bucket"):
        Store(f"{web.address}/out").put("x", b"x")
    with contextlib.suppress(FileNotFoundError):
        assert not [one for one in os.scandir(os.environ["TF_SIMCLR_CACHE"] + "/buckets") if one.is_file()]
