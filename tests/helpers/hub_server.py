"""A small stand-in for the Hugging Face hub on the loopback: what its client asks for to upload and download models."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_these_tests"
LARGE = (".safetensors",)
"""What goes the way of large files."""


@dataclass
class Repository:
    """The commits of a repository by their hash, the latest last; each holds all files."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    @property
    def head(self) -> str:
        return next(reversed(self.commits))

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[self.head]

    def commit(self, files: dict[str, bytes]) -> str:
        text = repr((len(self.commits), sorted(files.items()))).encode()
        sha = hashlib.sha1(text, usedforsecurity=False).hexdigest()
        self.commits[sha] = files
        return sha


@dataclass
class Hub:
    """What the server holds; `requests`: the method and path of each."""

    endpoint: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)


@contextmanager
def hub_server() -> Iterator[Hub]:
    """A hub without repositories on a free port, until the end of the block."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Refused(Exception):  # noqa: N818
    """An answer with another status than 200."""

    def __init__(self, status: int, code: str = "", data: bytes = b"{}") -> None:
        self.status, self.code, self.data = status, code, data


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None:
            pass

        def do_GET(self) -> None:
            self.answer()

        def do_HEAD(self) -> None:
            self.answer()

        def do_POST(self) -> None:
            self.answer()

        def do_PUT(self) -> None:
            self.answer()

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = unquote(urlsplit(self.path).path)
            hub.requests.append(f"{self.command} {path}")
            may_see = self.headers.get("Authorization") == f"Bearer {TOKEN}"
            headers: dict[str, str] = {}
            try:
                status, data, headers = 200, *_routed(hub, self.command, path, body, may_see)
            except _Refused as refused:
                status, data = refused.status, refused.data
                headers = {"X-Error-Code": refused.code, "X-Error-Message": refused.code}
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

    return Handler


_Answer = tuple[bytes, dict[str, str]]


def _routed(hub: Hub, method: str, path: str, body: bytes, may_see: bool) -> _Answer:
    for wanted, pattern, answer in _ROUTES:
        if method in wanted and (found := re.fullmatch(pattern, path)):
            return answer(hub, found.groupdict(), body, may_see)
    raise _Refused(404)


def _repository(hub: Hub, values: dict[str, str], may_see: bool) -> Repository:
    found = hub.repositories.get(values["repo"])
    if found is None or (found.private and not may_see):
        raise _Refused(404 if may_see else 401, "RepoNotFound")
    return found


def _files(repository: Repository, revision: str) -> tuple[str, dict[str, bytes]]:
    sha = repository.head if revision in ("", "main") else revision
    if sha not in repository.commits:
        raise _Refused(404, "RevisionNotFound")
    return sha, repository.commits[sha]


def _json(value: Any) -> _Answer:
    return json.dumps(value).encode(), {"Content-Type": "application/json"}


def _create(hub: Hub, values: dict[str, str], body: bytes, may_see: bool) -> _Answer:
    if not may_see:
        raise _Refused(401)
    asked = json.loads(body)
    name = f"{asked['organization']}/{asked['name']}"
    if name in hub.repositories:
        raise _Refused(409, data=_json({"url": f"{hub.endpoint}/{name}"})[0])
    hub.repositories[name] = Repository(private=asked.get("visibility") == "private")
    hub.repositories[name].commit({".gitattributes": b""})
    return _json({"url": f"{hub.endpoint}/{name}", "id": name})


def _info(hub: Hub, values: dict[str, str], body: bytes, may_see: bool) -> _Answer:
    repository = _repository(hub, values, may_see)
    sha, files = _files(repository, values.get("revision") or "")
    siblings = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
    return _json({"id": values["repo"], "sha": sha, "private": repository.private, "siblings": siblings})


def _tree(hub: Hub, values: dict[str, str], body: bytes, may_see: bool) -> _Answer:
    _, files = _files(_repository(hub, values, may_see), values["revision"])
    return _json(
        [
            {"type": "file", "path": name, "size": len(data), "oid": _etag(data)}
            for name, data in files.items()
        ]
    )


def _preupload(hub: Hub, values: dict[str, str], body: bytes, may_see: bool) -> _Answer:
    _repository(hub, values, may_see)
    modes = [
        {
            "path": file["path"],
            "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
            "shouldIgnore": False,
        }
        for file in json.loads(body)["files"]
    ]
    return _json({"files": modes})


def _batch(hub: Hub, values: dict[str, str], body: bytes, may_see: bool) -> _Answer:
    _repository(hub, values, may_see)
    objects = [
        {
            "oid": one["oid"],
            "size": one["size"],
            "actions": {"upload": {"href": f"{hub.endpoint}/objects/{one['oid']}"}},
        }
        for one in json.loads(body)["objects"]
    ]
    return _json({"transfer": "basic", "objects": objects})


def _put(hub: Hub, values: dict[str, str], body: bytes, may_see: bool) -> _Answer:
    assert hashlib.sha256(body).hexdigest() == values["oid"]
    hub.objects[values["oid"]] = body
    return b"", {}


def _commit(hub: Hub, values: dict[str, str], body: bytes, may_see: bool) -> _Answer:
    repository = _repository(hub, values, may_see)
    files = dict(repository.files)
    for line in body.splitlines():
        entry = json.loads(line)
        key, value = entry["key"], entry["value"]
        if key == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif key == "lfsFile":
            files[value["path"]] = hub.objects[value["oid"]]
        elif key == "deletedFile":
            del files[value["path"]]
        else:
            assert key == "header"
    sha = repository.commit(files)
    return _json(
        {
            "commitUrl": f"{hub.endpoint}/{values['repo']}/commit/{sha}",
            "commitOid": sha,
            "pullRequestUrl": f"{hub.endpoint}/{values['repo']}/discussions/1",
        }
    )


def _resolve(hub: Hub, values: dict[str, str], body: bytes, may_see: bool) -> _Answer:
    sha, files = _files(_repository(hub, values, may_see), values["revision"])
    if values["name"] not in files:
        raise _Refused(404, "EntryNotFound")
    data = files[values["name"]]
    return data, {"X-Repo-Commit": sha, "ETag": f'"{_etag(data)}"'}


def _etag(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


_REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"
_REVISION = r"(?P<revision>[^/]+)"
_ROUTES: list[tuple[tuple[str, ...], str, Callable[..., _Answer]]] = [
    (("POST",), "/api/repos/create", _create),
    (("POST",), "/api/validate-yaml", lambda *given: _json({})),
    (("GET",), f"/api/models/{_REPO}(/revision/{_REVISION})?", _info),
    (("GET",), f"/api/models/{_REPO}/tree/{_REVISION}", _tree),
    (("POST",), f"/api/models/{_REPO}/preupload/{_REVISION}", _preupload),
    (("POST",), rf"/{_REPO}\.git/info/lfs/objects/batch", _batch),
    (("PUT",), "/objects/(?P<oid>[0-9a-f]{64})", _put),
    (("POST",), f"/api/models/{_REPO}/commit/{_REVISION}", _commit),
    (("GET", "HEAD"), f"/{_REPO}/resolve/{_REVISION}/(?P<name>.+)", _resolve),
]
