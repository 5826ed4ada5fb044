"""A server that speaks as much of the Hugging Face hub's HTTP interface as publishing and loading a model need."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from data import hub as reach

TOKEN = "hf_a_token_of_the_test"
Files = dict[str, bytes]


@dataclass
class Repository:
    """Commits by branch, the latest last, each with all files; a repository begins with one that has none."""

    private: bool = False
    branches: dict[str, list[Files]] = field(default_factory=lambda: {"main": [{}]})


class Hub(ThreadingHTTPServer):
    """`refuse` gives a status to refuse a request with, or None."""

    daemon_threads = True
    refuse: Callable[[str, str], int | None]
    repositories: dict[str, Repository]
    stored: Files  # large files, by SHA-256
    tokens: set[str | None]
    requests: list[str]

    def use(self, patch: pytest.MonkeyPatch, cache: Path) -> None:
        """Have huggingface_hub use this hub, with a token."""
        files = "/{repo_id}/resolve/{revision}/{filename}"
        told = {"ENDPOINT": self.address, "HUGGINGFACE_CO_URL_TEMPLATE": self.address + files}
        told |= {"HF_HUB_CACHE": str(cache), "HF_HUB_DISABLE_XET": True, "HF_HUB_OFFLINE": False}
        for name, value in told.items():
            patch.setattr(constants, name, value)
        patch.setattr(reach, "_failed", {})
        patch.setenv("HF_TOKEN", TOKEN)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        self.server.tokens.add(self.headers["Authorization"])
        self.server.requests.append(f"{self.command} {path}")
        if status := self.server.refuse(self.command, path):
            self._send({"error": "it was told to refuse"}, status)
            return
        for pattern, method in ROUTES.items():
            if found := re.fullmatch(pattern, f"{self.command} {path}"):
                method(self, body, *found.groups())
                return
        self._send({"error": "not found"}, 404)

    def do_GET(self) -> None:
        self.do_POST()

    def do_HEAD(self) -> None:
        self.do_POST()

    def do_PUT(self) -> None:
        self.do_POST()

    def _create(self, body: bytes) -> None:
        told = json.loads(body)
        name = f"{told['organization']}/{told['name']}"
        there = name in self.server.repositories
        self.server.repositories.setdefault(name, Repository(told.get("visibility") == "private"))
        self._send({"url": f"{self.server.address}/{name}"}, 409 if there else 200)

    def _info(self, _: bytes, name: str, __: str | None, revision: str | None) -> None:
        if name not in self.server.repositories:
            self._send({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            return
        repository = self.server.repositories[name]
        sha, files = self._at(name, revision or "main")
        siblings = [{"rfilename": file} for file in files]
        self._send({"id": name, "private": repository.private, "sha": sha, "siblings": siblings})

    def _tree(self, _: bytes, name: str, revision: str) -> None:
        files = self._at(name, revision)[1]
        found = [{"type": "file", "path": p, "size": len(c), "oid": "0" * 40} for p, c in files.items()]
        self._send(found)

    def _branch(self, _: bytes, name: str, branch: str) -> None:
        branches = self.server.repositories[name].branches
        there = branch in branches
        branches.setdefault(branch, [branches["main"][-1]])
        self._send({}, 409 if there else 200)

    def _validate(self, body: bytes) -> None:
        wrong = "license: unheard-of" in json.loads(body)["content"]
        errors = [{"message": '"license" must be one of those that are known'}] if wrong else []
        self._send({"errors": errors, "warnings": []}, 400 if wrong else 200)

    def _preupload(self, body: bytes, _: str, __: str) -> None:
        def mode(path: str) -> str:
            return "lfs" if path.endswith(".safetensors") else "regular"

        paths = [file["path"] for file in json.loads(body)["files"]]
        self._send({"files": [{"path": p, "uploadMode": mode(p), "shouldIgnore": False} for p in paths]})

    def _batch(self, body: bytes, _: str) -> None:
        def stored(told: dict[str, Any]) -> dict[str, Any]:
            upload = {"upload": {"href": f"{self.server.address}/lfs/{told['oid']}"}}
            return told if told["oid"] in self.server.stored else told | {"actions": upload}

        self._send({"objects": [stored(told) for told in json.loads(body)["objects"]]})

    def _put(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.server.stored[oid] = body
        self._send({})

    def _commit(self, body: bytes, name: str, branch: str) -> None:
        files = dict(self._at(name, branch)[1])
        for line in map(json.loads, body.splitlines()):
            told = line["value"]
            if line["key"] == "file":
                files[told["path"]] = base64.b64decode(told["content"])
            elif line["key"] == "lfsFile":
                files[told["path"]] = self.server.stored[told["oid"]]
            elif line["key"] == "deletedFile":
                del files[told["path"]]
        commits = self.server.repositories[name].branches[branch]
        commits.append(files)
        sha = self._at(name, branch)[0]
        self._send({"commitUrl": f"{self.server.address}/{name}/commit/{sha}", "commitOid": sha})

    def _file(self, _: bytes, name: str, revision: str, path: str) -> None:
        sha, files = self._at(name, revision)
        if path not in files:
            self._send({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha})
            return
        etag = f'"{hashlib.sha256(files[path]).hexdigest()}"'
        self._send(files[path], 200, {"ETag": etag, "X-Repo-Commit": sha})

    def _at(self, name: str, revision: str) -> tuple[str, Files]:
        """The latest commit of a branch, or the commit of that name, with its files."""
        branches = self.server.repositories[name].branches
        known = {f"{branch} {n}": files for branch, commits in branches.items() for n, files in enumerate(commits)}
        found = {hashlib.sha1(key.encode()).hexdigest(): files for key, files in known.items()}
        if revision in branches:
            revision = hashlib.sha1(f"{revision} {len(branches[revision]) - 1}".encode()).hexdigest()
        return revision, found[revision]

    def _send(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *_: Any) -> None:
        """Nothing on the terminal."""


NAME = r"([\w.-]+/[\w.-]+)"
ROUTES: dict[str, Callable[..., None]] = {
    r"POST /api/repos/create": Handler._create,
    rf"GET /api/models/{NAME}(/revision/([^/]+))?": Handler._info,
    rf"GET /api/models/{NAME}/tree/([^/]+)": Handler._tree,
    rf"POST /api/models/{NAME}/branch/([^/]+)": Handler._branch,
    r"POST /api/validate-yaml": Handler._validate,
    rf"POST /api/models/{NAME}/preupload/([^/]+)": Handler._preupload,
    rf"POST /{NAME}\.git/info/lfs/objects/batch": Handler._batch,
    r"PUT /lfs/([0-9a-f]+)": Handler._put,
    rf"POST /api/models/{NAME}/commit/([^/]+)": Handler._commit,
    rf"(?:GET|HEAD) /{NAME}/resolve/([^/]+)/(.+)": Handler._file,
}


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub on this machine without repositories, which refuses nothing."""
    with Hub(("127.0.0.1", 0), Handler) as hub:
        hub.refuse = lambda method, path: None
        hub.repositories, hub.stored, hub.tokens, hub.requests = {}, {}, set(), []
        thread = threading.Thread(target=hub.serve_forever, args=(0.02,))
        thread.start()
        yield hub
        hub.shutdown()
        thread.join()
