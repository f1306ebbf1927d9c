"""A Hugging Face hub on this machine, which huggingface_hub's own client reads from and commits to."""

import base64
import contextlib
import json
from http.server import BaseHTTPRequestHandler
from typing import ClassVar

import pytest

from tests import loopback

LARGE = (".h5", ".safetensors", ".onnx", ".keras")
"""Endings of files that go by LFS there."""


class Hub(BaseHTTPRequestHandler):
    """What a snapshot needs (what a revision holds, and a file) and what a commit needs, large files by LFS, too."""

    repositories: ClassVar[dict] = {}  # (name, revision) -> file -> content
    asked: ClassVar[list] = []
    created: ClassVar[list] = []
    kept: ClassVar[dict] = {}  # digest -> content, of LFS
    refuse: ClassVar[dict] = {}  # part of a path -> status
    token = "hf_good"
    commit = "0123456789abcdef0123456789abcdef01234567"

    def do_GET(self):
        self.asked.append(self.path)
        path = self.path.split("?")[0].lstrip("/")
        if path == "api/whoami-v2":
            known = self.headers.get("Authorization") == f"Bearer {self.token}"
            return self.answer(b'{"type": "user", "name": "user"}') if known else self.fail(401)
        for (name, revision), files in self.repositories.items():
            for known in (revision, self.commit):
                if path in (f"api/models/{name}/revision/{known}", f"api/models/{name}") and known is not None:
                    listed = [{"rfilename": file} for file in files]
                    return self.answer(json.dumps({"id": name, "sha": self.commit, "siblings": listed}).encode())
                if path.startswith(f"api/models/{name}/tree/{known}"):
                    tree = [
                        {"type": "file", "path": file, "size": len(content), "oid": str(number)}
                        for number, (file, content) in enumerate(files.items())
                    ]
                    return self.answer(json.dumps(tree).encode())
                for file, content in files.items():
                    if path == f"{name}/resolve/{known}/{file}":
                        return self.answer(content)
        return self.fail(404)

    do_HEAD = do_GET

    def do_POST(self):
        path, content = self.path.split("?")[0].lstrip("/"), self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append(self.path)
        status = next((code for part, code in self.refuse.items() if part in path), None)
        if status is not None or self.headers.get("Authorization") != f"Bearer {self.token}":
            return self.fail(status or 401)
        if path == "api/validate-yaml":
            return self.answer(b'{"errors": [], "warnings": []}')
        if path == "api/repos/create":
            given = json.loads(content)
            name = f"{given.get('organization') or 'user'}/{given['name']}"
            self.created.append((name, given.get("private", given.get("visibility") == "private")))
            self.repositories.setdefault((name, "main"), {})
            return self.answer(json.dumps({"url": f"{self.base}/{name}"}).encode())
        if "/preupload/" in path:
            modes = [
                {"path": one["path"], "uploadMode": "lfs" if one["path"].endswith(LARGE) else "regular"}
                for one in json.loads(content)["files"]
            ]
            return self.answer(json.dumps({"files": [mode | {"shouldIgnore": False} for mode in modes]}).encode())
        if path.endswith("/info/lfs/objects/batch"):
            objects = [
                one | {"actions": {"upload": {"href": f"{self.base}/lfs/{one['oid']}"}}}
                for one in json.loads(content)["objects"]
            ]
            return self.answer(json.dumps({"transfer": "basic", "objects": objects}).encode())
        if "/commit/" in path:
            name = path.removeprefix("api/models/").split("/commit/")[0]
            files = dict(self.repositories[name, "main"])
            for line in map(json.loads, content.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = self.kept[value["oid"]]
            self.repositories[name, "main"] = files
            url = f"{self.base}/{name}/commit/{self.commit}"
            return self.answer(json.dumps({"commitOid": self.commit, "commitUrl": url}).encode())
        return self.fail(404)

    def do_PUT(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if "lfs" in self.refuse:
            return self.fail(self.refuse["lfs"])
        self.kept[self.path.rsplit("/", 1)[1]] = content
        return self.answer(b"{}")

    @property
    def base(self):
        return f"http://127.0.0.1:{self.server.server_port}"

    def fail(self, status):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        if status == 404:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()

    def answer(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hash(content) & 0xFFFFFFFF:08x}"')
        self.send_header("X-Repo-Commit", self.commit)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *args):
        """Says nothing."""


class DataSets(Hub):
    """The same for data sets, of which one folder after the other is asked for."""

    def do_GET(self):
        self.path = self.path.replace("/api/datasets/", "/api/models/", 1).replace("/datasets/", "/", 1)
        place, _, folder = self.path.split("?")[0].partition("/tree/")
        files = self.repositories.get((place.removeprefix("/api/models/"), "main"))
        if files is None or not folder:
            return super().do_GET()
        folder = folder.partition("/")[2]
        start = f"{folder}/" if folder else ""
        found = {}
        for file, content in files.items():
            name, *below = file.removeprefix(start).split("/")
            if file.startswith(start):
                if "recursive=true" in self.path.lower():
                    name, below = file.removeprefix(start), []
                kind = {"type": "directory", "size": 0} if below else {"type": "file", "size": len(content)}
                found[name] = kind | {"path": start + name, "oid": str(len(found))}
        return self.answer(json.dumps(list(found.values())).encode())

    do_HEAD = do_GET

    def fail(self, status):
        known = any(f"/{name}/" in self.path for name, _ in self.repositories)
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
        self.end_headers()


@contextlib.contextmanager
def hub_on_loopback(monkeypatch, folder, handler=Hub):
    """Serves one with no repositories, for processes that are started meanwhile; its cache is in the folder."""
    pytest.importorskip("huggingface_hub", reason="the hub's tests need the extra `hub`")
    for name, value in {"asked": [], "created": [], "repositories": {}, "kept": {}, "refuse": {}}.items():
        monkeypatch.setattr(Hub, name, value)
    with loopback.serving(monkeypatch, handler) as server:
        monkeypatch.setenv("HF_ENDPOINT", loopback.address(server))
        monkeypatch.setenv("HF_HOME", str(folder / "hf"))
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        monkeypatch.setenv("HF_TOKEN", Hub.token)
        yield server
