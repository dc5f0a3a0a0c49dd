"""A proxy on loopback that tunnels as HTTP's CONNECT and SOCKS5 (RFC 1928) do."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from socketserver import StreamRequestHandler, ThreadingTCPServer


class Proxy:
    """Logs the requested hosts in `targets`, and connects to loopback instead."""

    def __init__(self) -> None:
        self.targets: list[str] = []
        owner = self

        class Handler(StreamRequestHandler):
            rbufsize = 0  # bytes after the handshake belong to the tunnel

            def handle(self) -> None:
                first = self.rfile.read(1)
                target, granted = (_socks if first == b"\x05" else _connect)(self)
                owner.targets.append(target)
                with socket.create_connection(("127.0.0.1", int(target.rpartition(":")[2]))) as to:
                    self.wfile.write(granted)
                    threading.Thread(target=_pump, args=(to, self.connection), daemon=True).start()
                    _pump(self.connection, to)

        self._server = ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def url(self, scheme: str) -> str:
        return f"{scheme}://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _socks(handler: StreamRequestHandler) -> tuple[str, bytes]:
    """Read a SOCKS5 request after its version byte; returns the target, and the answer to send."""
    handler.rfile.read(handler.rfile.read(1)[0])  # the client's login methods
    handler.wfile.write(b"\x05\x00")  # no login
    kind = handler.rfile.read(4)[3]
    if kind == 3:
        host = handler.rfile.read(handler.rfile.read(1)[0]).decode()
    else:
        host = socket.inet_ntoa(handler.rfile.read(4))
    port = int.from_bytes(handler.rfile.read(2), "big")
    return f"{host}:{port}", b"\x05\x00\x00\x01" + bytes(6)


def _connect(handler: StreamRequestHandler) -> tuple[str, bytes]:
    """Read a CONNECT request after its first letter; returns the target, and the answer to send."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += handler.rfile.read(1)
    return head.split()[1].decode(), b"HTTP/1.1 200 Connection established\r\n\r\n"


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while received := source.recv(1 << 16):
            target.sendall(received)
        target.shutdown(socket.SHUT_WR)
