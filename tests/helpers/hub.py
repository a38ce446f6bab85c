"""A model hub on this machine: as much of the protocol of huggingface.co as its client asks for, for a few files.

What the client sends and reads was taken from the source of huggingface_hub 2.4: the information about a model with
the sizes and checksums of its files (`/api/models/...?blobs=True`), and files by `/resolve/`, small ones as they are
with their git SHA-1 as ETag, those in LFS by redirection to another host with their SHA-256 in `X-Linked-Etag`.
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

REVISION = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_only_for_this_test"


@dataclass
class Repository:
    """Files at REVISION; with `token_needed`, files only for those who send TOKEN."""

    files: dict[str, bytes]
    licence: str | None = "mit"
    gated: str | bool = False
    token_needed: bool = False

    def in_lfs(self, path: str) -> bool:
        return path.endswith((".safetensors", ".bin", ".ckpt"))

    def info(self) -> dict[str, Any]:
        siblings = []
        for path, content in self.files.items():
            entry: dict[str, Any] = {"rfilename": path, "size": len(content), "blobId": git_sha1(content)}
            if self.in_lfs(path):
                entry["lfs"] = {"sha256": sha256(content), "size": len(content), "pointerSize": 134}
            siblings.append(entry)
        card = {"license": self.licence} if self.licence else {}
        return {"id": "owner/name", "sha": REVISION, "gated": self.gated, "cardData": card, "siblings": siblings}


@dataclass
class Hub:
    """What the server holds, what it was asked, and what goes wrong with it.

    Attributes:
        asked: (method, host, path, Authorization or Range header) of every request.
        served: Content sent in the place of that with a SHA-256.
        cut: How often the content with a SHA-256 still breaks off in the middle.
        broken: Status that the API answers with, whatever it is asked.
    """

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    asked: list[tuple[str, str, str, str | None]] = field(default_factory=list)
    served: dict[str, bytes] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    broken: int | None = None

    def content(self, digest: str) -> bytes:
        stored = (c for it in self.repositories.values() for c in it.files.values())
        return self.served.get(digest) or next(content for content in stored if sha256(content) == digest)

    def downloads(self) -> list[str]:
        """Paths of the files that were sent, not only asked about."""
        return [path for method, _, path, _ in self.asked if method == "GET" and "/api/" not in path]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def serve() -> Iterator[Hub]:
    """A running hub."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            _answer(self, hub)

        def do_GET(self) -> None:
            _answer(self, hub)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def use(monkeypatch: pytest.MonkeyPatch, hub: Hub, cache: Path) -> None:
    """Let this process's client, which read the environment when it was imported, use a hub and a cache."""
    from huggingface_hub import constants, file_download

    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "no_token"))
    monkeypatch.setattr(file_download.time, "sleep", lambda seconds: None)
    monkeypatch.delenv("HF_TOKEN", raising=False)


def _answer(request: BaseHTTPRequestHandler, hub: Hub) -> None:
    path = unquote(urlsplit(request.path).path)
    host = str(request.headers["Host"]).partition(":")[0]
    token = request.headers["Authorization"]
    hub.asked.append((request.command, host, path, token or request.headers["Range"]))
    if match := re.fullmatch(r"/cdn/([0-9a-f]{64})", path):
        return _send_content(request, hub, match[1])
    if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/([^/]+)", path):
        return _send_info(request, hub, match[1], match[2])
    if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
        return _send_file(request, hub, hub.repositories[match[1]], match[3], token)
    return _send(request, 404, {})


def _send_info(request: BaseHTTPRequestHandler, hub: Hub, model: str, revision: str) -> None:
    repository = hub.repositories.get(model)
    if hub.broken:
        _send(request, hub.broken, {})
    elif repository is None:
        _send(request, 401, {"X-Error-Code": "RepoNotFound"})
    elif revision != REVISION:
        _send(request, 404, {"X-Error-Code": "RevisionNotFound"})
    else:
        _send(request, 200, {"Content-Type": "application/json"}, json.dumps(repository.info()).encode())


def _send_file(request: BaseHTTPRequestHandler, hub: Hub, repository: Repository, path: str, token: str | None) -> None:
    if repository.token_needed and token != f"Bearer {TOKEN}":
        return _send(request, 403 if token else 401, {"X-Error-Code": "GatedRepo"})
    if path not in repository.files:
        return _send(request, 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": REVISION})
    content = repository.files[path]
    if not repository.in_lfs(path):
        return _send(request, 200, {"X-Repo-Commit": REVISION, "ETag": f'"{git_sha1(content)}"'}, content)
    digest = sha256(content)
    elsewhere = hub.url.replace("127.0.0.1", "localhost")
    headers = {
        "X-Repo-Commit": REVISION,
        "X-Linked-Etag": f'"{digest}"',
        "X-Linked-Size": str(len(content)),
        "Location": f"{elsewhere}/cdn/{digest}?signature=secret",
    }
    return _send(request, 302, headers)


def _send_content(request: BaseHTTPRequestHandler, hub: Hub, digest: str) -> None:
    content = hub.content(digest)
    start = int(re.sub(r"\D", "", request.headers["Range"] or "0"))
    headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
    rest = content[start:]
    if hub.cut.get(digest):
        hub.cut[digest] -= 1
        sent = rest[: len(rest) // 2]
        return _send(request, 206 if start else 200, headers, sent, length=len(rest))
    return _send(request, 206 if start else 200, headers, rest)


def _send(
    request: BaseHTTPRequestHandler,
    status: int,
    headers: Mapping[str, str],
    content: bytes = b"",
    length: int | None = None,
) -> None:
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(content) if length is None else length))
    request.end_headers()
    if request.command == "GET":
        request.wfile.write(content)
