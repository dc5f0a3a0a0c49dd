"""The server of the browser stage and of `doit serve`: it serves a page, a runtime and models.

It listens on 127.0.0.1 unless it gets another host, answers only the host names that it gets,
serves some folders and nothing above them, and isolates its pages, because onnxruntime-web's
threads need that (SharedArrayBuffer).
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request

HOST = "127.0.0.1"

HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",  # browsers store a file, but check its ETag on each request
}

# The system's table may lack these or have others, and a browser refuses a module or streamed
# WebAssembly with another type.
MEDIA_TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm"}


def application(
    folders: Mapping[str, Path],
    documents: Mapping[str, Callable[[], Any]] | None = None,
    files: Mapping[str, Path] | None = None,
    arrays: MutableMapping[str, bytes] | None = None,
    steps: Callable[[bytes], bytes] | None = None,
    names: Sequence[str] = (),
    isolated: bool = True,
) -> Starlette:
    """The web application.

    :param folders: by path, the longest first; ``/`` is the page's. A folder can appear later.
    :param documents: JSON made at each request, by path.
    :param files: single files from anywhere, by path.
    :param arrays: stores what a page posts to ``/arrays/<name>``; without it no page can post.
    :param steps: answers what a page posts to ``/steps``, in a thread; it may wait.
    :param names: further host names and addresses that requests may use, beside loopback's.
    :param isolated: whether its pages are cross-origin isolated, as onnxruntime-web's threads need.
    """
    import mimetypes

    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import FileResponse, JSONResponse, Response
    from starlette.routing import BaseRoute, Mount, Route
    from starlette.staticfiles import StaticFiles

    headers = {k: v for k, v in HEADERS.items() if isolated or not k.startswith("Cross-Origin")}
    for suffix, media_type in MEDIA_TYPES.items():
        mimetypes.add_type(media_type, suffix)

    class Folder(StaticFiles):
        async def check_config(self) -> None:
            """Skip the check: requests to a missing folder get 404, not an exception."""

        def file_response(self, *args: Any, **options: Any) -> Response:
            return with_headers(super().file_response(*args, **options))

    def with_headers(response: Response) -> Response:
        response.headers.update(headers)
        if isinstance(response, FileResponse):
            response.chunk_size = 1 << 20
        return response

    def file(path: Path) -> Callable[[Request], Response]:
        return lambda request: with_headers(FileResponse(path))

    def document(make: Callable[[], Any]) -> Callable[[Request], Response]:
        return lambda request: JSONResponse(make(), headers=headers)

    async def keep(request: Request) -> Response:
        assert arrays is not None
        arrays[request.path_params["name"]] = await request.body()
        return Response(status_code=204)

    async def next_step(request: Request) -> Response:
        assert steps is not None
        body = await request.body()
        return Response(await run_in_threadpool(steps, body), headers=headers)

    routes: list[BaseRoute] = [
        Route(path, document(make)) for path, make in (documents or {}).items()
    ]
    routes += [Route(path, file(each)) for path, each in (files or {}).items()]
    if arrays is not None:
        routes.append(Route("/arrays/{name}", keep, methods=["POST"]))
    if steps is not None:
        routes.append(Route("/steps", next_step, methods=["POST"]))
    routes += [
        Mount(path, Folder(directory=folder, html=path == "/", check_dir=False))
        for path, folder in folders.items()
    ]
    # Pages of another site whose name resolves to this machine must not read the models.
    bracketed = (f"[{name}]" if ":" in name else name for name in names)  # as in a request
    allowed = [HOST, "localhost", *bracketed]
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=allowed, www_redirect=False)
    return Starlette(routes=routes, middleware=[hosts])


@contextmanager
def serving(app: Starlette, port: int = 0, host: str = HOST) -> Iterator[str]:
    """Serve from a thread while the context lasts; yields the address, without a final slash.

    :param port: 0 for a free one; an `OSError` if it is taken.
    :param host: an address of this machine, or a name for one; an `OSError` if it is not.
    """
    import uvicorn

    (family, _, _, _, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)  # from here on, requests wait until the thread answers
        settings = uvicorn.Config(app, log_level="warning", lifespan="off", ws="none")
        server = uvicorn.Server(settings)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        try:
            shown = f"[{host}]" if ":" in host else host
            yield f"http://{shown}:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            server.force_exit = True
            thread.join()
