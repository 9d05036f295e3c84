"""A server that speaks the Hub's HTTP API, as far as its client asks: info, tree, files by commit, and its refusals."""

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

LFS = (".safetensors", ".parquet", ".bin")


def commit_of(files: dict[str, bytes]) -> str:
    digest = hashlib.sha1(usedforsecurity=False)
    for name, data in sorted(files.items()):
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()


@dataclass
class Repository:
    """The files of each commit, and the branches and tags."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    token: str = ""
    gated: bool = False


@dataclass
class Hub:
    """A running server, its repositories (models as `ORG/NAME`, data as `datasets/ORG/NAME`) and its moods."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    endpoint: str = ""
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Method and path of each request, without those to the CDN."""
    tokens_at_cdn: list[str] = field(default_factory=list)
    failures: list[int] = field(default_factory=list)
    """Statuses that the next requests get instead of an answer."""
    cuts: Counter[str] = field(default_factory=Counter)
    """By file name, how many times it breaks off in its middle."""
    trickles: set[str] = field(default_factory=set)
    """Files that come one byte at a time."""
    trickling: threading.Event = field(default_factory=threading.Event)
    replaced: dict[str, bytes] = field(default_factory=dict)
    """Bytes that a file has other than those that are listed."""

    def put(self, name: str, files: dict[str, bytes], revision: str = "main", **settings: Any) -> str:
        repository = self.repositories.setdefault(name, Repository(**settings))
        commit = commit_of(files)
        repository.commits[commit] = files
        repository.refs[revision] = commit
        return commit

    def put_folder(self, name: str, folder: Path, more: dict[str, bytes] | None = None, **settings: Any) -> str:
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        return self.put(name, files | (more or {}), **settings)


@contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()

    class Handler(_Handler):
        server_hub = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_hub: Hub

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub, path = self.server_hub, unquote(urlsplit(self.path).path)
        if path.startswith("/cdn/"):
            hub.tokens_at_cdn.append(self.headers.get("Authorization", ""))
            _, _, kind, org, name, commit, file = path.split("/", 6)
            repository = f"{org}/{name}" if kind == "models" else f"datasets/{org}/{name}"
            return self._send_file(file, hub.repositories[repository].commits[commit][file])
        hub.requests.append((self.command, path))
        if hub.failures:
            return self._refuse(hub.failures.pop(0))
        if path.startswith("/api/"):
            kind, org, name, *rest = path.removeprefix("/api/").split("/")
            revision = "/".join(rest[1:]) if rest[:1] == ["revision"] else "main"
            found = self._find(kind, f"{org}/{name}", revision)
            return None if found is None else self._send_info(f"{org}/{name}", *found)
        kind = "datasets" if path.startswith("/datasets/") else "models"
        org, name, _, revision, file = path.removeprefix("/datasets").removeprefix("/").split("/", 4)
        found = self._find(kind, f"{org}/{name}", revision)
        if found is None:
            return None
        commit, files = found
        if file not in files:
            return self._refuse(404, "EntryNotFound")
        data = files[file]
        if not file.endswith(LFS):
            return self._send_file(file, data, commit)
        headers = {
            "Location": f"{hub.endpoint.replace('127.0.0.1', 'localhost')}/cdn/{kind}/{org}/{name}/{commit}/{file}",
            "X-Linked-Size": str(len(data)),
            "X-Linked-Etag": f'"{hashlib.sha256(data).hexdigest()}"',
            "X-Repo-Commit": commit,
        }
        return self._send(302, b"", headers)

    def _find(self, kind: str, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        repository = self.server_hub.repositories.get(name if kind == "models" else f"datasets/{name}")
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if repository is None or (repository.token and not repository.gated and token != repository.token):
            self._refuse(404 if token else 401, "RepoNotFound")
            return None
        if repository.gated and token != repository.token:
            self._refuse(403 if token else 401, "GatedRepo")
            return None
        commit = repository.refs.get(revision, revision)
        if commit not in repository.commits:
            self._refuse(404, "RevisionNotFound")
            return None
        return commit, repository.commits[commit]

    def _send_info(self, name: str, commit: str, files: dict[str, bytes]) -> None:
        siblings: list[dict[str, Any]] = []
        for file, data in files.items():
            blob = hashlib.sha1(f"blob {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()
            entry: dict[str, Any] = {"rfilename": file, "size": len(data), "blobId": blob}
            if file.endswith(LFS):
                entry["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
            siblings.append(entry)
        self._send(200, json.dumps({"id": name, "sha": commit, "siblings": siblings}).encode())

    def _send_file(self, name: str, data: bytes, commit: str = "") -> None:
        hub = self.server_hub
        etag = hashlib.sha256(data).hexdigest()
        data = hub.replaced.get(name, data)
        headers = {"ETag": f'"{etag}"', "Accept-Ranges": "bytes"} | ({"X-Repo-Commit": commit} if commit else {})
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        status = 206 if start else 200
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        body = data[start:]
        if self.command == "HEAD":
            return self._send(status, body, headers)
        if hub.cuts[name] > 0:
            hub.cuts[name] -= 1
            self._send(status, body[: len(body) // 2], headers | {"Content-Length": str(len(body))})
            self.close_connection = True
            return None
        if name in hub.trickles:
            self._send(status, b"", headers | {"Content-Length": str(len(body))})
            hub.trickling.set()
            for byte in body:
                if not self._write(bytes([byte])):
                    return None
                time.sleep(0.05)
            return None
        return self._send(status, body, headers)

    def _refuse(self, status: int, code: str = "") -> None:
        self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": "secret words"} if code else {})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self._write(body)

    def _write(self, data: bytes) -> bool:
        try:
            self.wfile.write(data)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        return not self.close_connection
