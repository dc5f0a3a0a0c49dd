"""A real HTTP server on loopback that serves bytes, and misbehaves on request."""

from __future__ import annotations

import re
import shutil
import ssl
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Fault:
    """How the next answer goes wrong. Each fault is used up by one request."""

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    drop_after: int | None = None
    ignore_range: bool = False
    ignore_if_range: bool = False
    claimed_length: int | str | None = None


class FileServer:
    """Serves `files` (bytes with ETag and ranges, or a file on disk).

    Logs GET requests in `requests`, and the paths of HEAD requests in `heads`. For a path in
    `stalled` it sends the headers, and nothing more until it is reset.

    :param tls: the server's certificate, for https.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.files: dict[str, bytes | Path] = {}
        self.etags: dict[str, str] = {}
        self.faults: deque[Fault] = deque()
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.heads: list[str] = []
        self.stalled: set[str] = set()
        self._released = threading.Event()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                owner.answer(self)

            def do_HEAD(self) -> None:
                owner.answer_head(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._scheme = "https" if tls else "http"
        if tls:
            self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        serve = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        serve.start()

    def url(self, path: str) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}{path}"

    def close(self) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()

    def reset(self) -> None:
        """Remove all files and faults, and clear the logs."""
        self.files.clear()
        self.etags.clear()
        self.faults.clear()
        self.requests.clear()
        self.heads.clear()
        self.stalled.clear()
        self._released.set()
        self._released = threading.Event()

    def ranges(self) -> list[str | None]:
        """The Range header of each request so far."""
        return [headers.get("Range") for _, headers in self.requests]

    def answer_head(self, handler: BaseHTTPRequestHandler) -> None:
        self.heads.append(handler.path)
        fault = self.faults.popleft() if self.faults else Fault()
        content = self.files.get(handler.path)
        status = fault.status or (404 if content is None else 200)
        length = len(content) if isinstance(content, bytes) else 0
        claimed = length if fault.claimed_length is None else fault.claimed_length
        self._send(handler, status, {}, b"", Fault(claimed_length=claimed))

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.requests.append((handler.path, dict(handler.headers)))
        fault = self.faults.popleft() if self.faults else Fault()
        content = self.files.get(handler.path)
        if fault.status is not None or fault.body is not None:
            self._send(handler, fault.status or 200, fault.headers, fault.body or b"no", fault)
            return
        if content is None:
            self._send(handler, 404, {}, b"not here", fault)
            return
        if isinstance(content, Path):
            length = content.stat().st_size
            self._send(handler, 200, {}, content, Fault(claimed_length=length))
            return
        etag = self.etags.get(handler.path, f'"{hash(content)}"')
        headers = {**({"ETag": etag} if etag else {}), "Content-Type": "application/octet-stream"}
        wanted = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        same_version = handler.headers.get("If-Range", etag) == etag or fault.ignore_if_range
        if wanted and same_version and not fault.ignore_range:
            start = int(wanted[1])
            if start >= len(content):
                headers["Content-Range"] = f"bytes */{len(content)}"
                self._send(handler, 416, headers, b"", fault)
                return
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self._send(handler, 206, headers, content[start:], fault)
            return
        self._send(handler, 200, headers, content, fault)

    def _send(
        self,
        handler: BaseHTTPRequestHandler,
        status: int,
        headers: dict[str, str],
        body: bytes | Path,
        fault: Fault,
    ) -> None:
        handler.send_response(status)
        for name, value in {**headers, **fault.headers}.items():
            handler.send_header(name, value)
        length = fault.claimed_length
        if length is None:
            length = len(body) if isinstance(body, bytes) else 0
        handler.send_header("Content-Length", str(length))
        handler.send_header("Connection", "close")
        handler.end_headers()
        if handler.command == "GET" and handler.path in self.stalled:
            handler.wfile.flush()
            self._released.wait()
        with suppress(BrokenPipeError, ConnectionResetError):  # the client may have disconnected
            if isinstance(body, Path):
                with body.open("rb") as file:
                    shutil.copyfileobj(file, handler.wfile, 1 << 20)
            else:
                handler.wfile.write(body if fault.drop_after is None else body[: fault.drop_after])
            handler.wfile.flush()
        handler.close_connection = True
