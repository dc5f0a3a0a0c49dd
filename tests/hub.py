"""A server on loopback that serves the files of repositories as the Hugging Face hub does.

Large files redirect to another host, with their SHA-256 and size in headers of the redirect, as
https://huggingface.co/docs/huggingface_hub describes and its client reads them.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from server import FileServer


@dataclass
class Repository:
    """``commits``: the files of each; ``branches``: their commits; ``token``: needed to read it."""

    commits: dict[str, dict[str, bytes]]
    branches: dict[str, str]
    token: str | None = None
    gated: bool = False


@dataclass
class Answer:
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Hub:
    """Repositories by name; ``storage`` is the other host, which has the large files."""

    def __init__(self, storage: FileServer) -> None:
        self.repositories: dict[str, Repository] = {}
        self.storage = storage
        self.requests: list[str] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send(owner.answer(self.command, self.path, dict(self.headers)))

            do_HEAD = do_GET

            def do_POST(self) -> None:
                answer = owner.take(self)
                if answer is None:
                    self.close_connection = True
                else:
                    self.send(answer)

            do_PUT = do_POST

            def send(self, answer: Answer) -> None:
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer.body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def take(self, request: BaseHTTPRequestHandler) -> Answer | None:
        """Answer an upload; None drops the connection. This hub accepts no uploads."""
        return Answer(405)

    def is_large(self, content: bytes) -> bool:
        """Whether a file is stored as a large one."""
        return len(content) >= 1000

    def answer(self, method: str, path: str, headers: dict[str, str]) -> Answer:
        self.requests.append(f"{method} {path}")
        owner, name, _, revision, file = path.lstrip("/").split("/", 4)
        repository = self.repositories.get(f"{owner}/{name}")
        sent = headers.get("Authorization", headers.get("authorization", ""))
        if repository is None:
            return Answer(401 if not sent else 404, {"X-Error-Code": "RepoNotFound"})
        if repository.token and sent != f"Bearer {repository.token}":
            code = "GatedRepo" if repository.gated else "RepoNotFound"
            return Answer(401, {"X-Error-Code": code})
        commit = repository.branches.get(unquote(revision), revision)
        if commit not in repository.commits:
            return Answer(404, {"X-Error-Code": "RevisionNotFound"})
        common = {"X-Repo-Commit": commit}
        content = repository.commits[commit].get(file)
        if content is None:
            return Answer(404, {**common, "X-Error-Code": "EntryNotFound"})
        sha256 = hashlib.sha256(content).hexdigest()
        if not self.is_large(content):
            return Answer(200, {**common, "ETag": f'"{sha256[:40]}"'}, content)
        self.storage.files[f"/{sha256}"] = content
        location = self.storage.url(f"/{sha256}").replace("127.0.0.1", "localhost")
        linked = {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(content))}
        return Answer(302, {**common, **linked, "Location": location})
