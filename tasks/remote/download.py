"""Downloads one file over HTTP: resumed, retried, hashed on the way, put in place when complete.

Until then, ``<target>.part`` and ``<target>.part.json`` lie beside the target. The JSON has the
validator (ETag or Last-Modified) that identifies the part's version to the server.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from tasks.console import address
from tasks.console.progress import SILENT, Progress
from tasks.console.sizes import mebibytes
from tasks.remote import network
from tasks.remote.answers import (
    Request,
    Retry,
    StartOver,
    answered_with_page,
    check_answer,
    check_version,
    number,
    validator_of,
    wrong_size,
)
from tasks.system.errors import StageError
from tasks.system.files import write_and_hash, write_record

if TYPE_CHECKING:
    import httpx2

_CHUNK = 1 << 16  # bytes that a dropped connection can lose at most
_SPARE_DISK = 64 << 20

# The beginnings of a web page (https://mimesniff.spec.whatwg.org/#identifying-a-resource-with-an-unknown-mime-type).
_PAGE = re.compile(
    rb"(\xef\xbb\xbf)?[\t\n\f\r ]*<(\?xml|!--|(!doctype html|html|head|script|iframe|h1|div|font|"
    rb"table|a|style|title|b|body|br|p|meta|error)[\s>])",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class RetryPolicy:
    """When to give up: ``attempts`` in a row without a new byte; waits in seconds."""

    attempts: int = 6
    first_wait: float = 1.0
    longest_wait: float = 300.0

    def wait_before(self, attempt: int, jitter: float) -> float:
        """Exponential backoff: doubled each time, shortened by up to half by ``jitter``."""
        return min(self.first_wait * 2.0 ** (attempt - 1), self.longest_wait) * (1 - jitter / 2)


class Fetched(NamedTuple):
    """The SHA-256 of the fetched file, and the number of bytes received over the network."""

    sha256: str
    received: int


class _NoConnection(Retry):
    """No connection to the server: no network, no such host, nothing listening."""


class Unreachable(StageError):
    """No connection to the server of an address; ``reported`` if an earlier message had it."""

    def __init__(self, reason: str, reported: bool = False) -> None:
        super().__init__(reason)
        self.reported = reported


def fetch(
    request: Request,
    target: Path,
    progress: Progress = SILENT,
    policy: RetryPolicy | None = None,
    sleep: Callable[[float], None] = time.sleep,
    unreachable: dict[str, bool] | None = None,
) -> Fetched:
    """Download a file to ``target``, replacing it only when the new file is complete and correct.

    :param unreachable: servers that do not answer, and whether the build gave up on them, so that
        only one of several files there waits.
    :raises Unreachable: when no connection to the server is possible.
    :raises StageError: when the server refuses, keeps failing, or sends another file than expected;
        an earlier good ``target`` stays. The received part of a good file stays too, and the next
        call resumes it.
    """
    unreachable = {} if unreachable is None else unreachable
    if unreachable.get(request.server):
        raise Unreachable(f"{request.server} cannot be reached, see above.", reported=True)
    policy = policy or RetryPolicy()
    target.parent.mkdir(parents=True, exist_ok=True)
    download = _Download(request, target, progress)
    failures = fresh_starts = 0
    with _client(request) as client:
        while True:
            before = download.length()
            try:
                digest = download.attempt(client)
                break
            except Retry as problem:
                failures = 1 if download.length() > before else failures + 1
                tries = f"{failures} attempts"
                if failures < policy.attempts:
                    sleep(_wait_after(problem, request, failures, policy, unreachable))
                elif isinstance(problem, _NoConnection):
                    unreachable[request.server] = True
                    raise Unreachable(
                        f"{request.server} cannot be reached: {problem} ({tries}). Check the "
                        f"network and the url in {request.table}, then run the same command again."
                    ) from problem
                else:
                    raise StageError(
                        f"{request.shown} could not be downloaded: {problem} "
                        f"({tries}; {mebibytes(download.length())} are kept). Check the address "
                        "and the network, then run the same command to resume."
                    ) from problem
            except StartOver as problem:
                download.discard()
                fresh_starts += 1
                if fresh_starts > 2:
                    raise StageError(
                        f"{request.shown} keeps changing while it is downloaded ({problem}). "
                        "Try again later, or use another address."
                    ) from problem
    download.part.replace(target)
    download.discard()
    return Fetched(digest, download.received)


def _wait_after(
    problem: Retry,
    request: Request,
    failures: int,
    policy: RetryPolicy,
    unreachable: dict[str, bool],
) -> float:
    """The server's requested wait, else exponential backoff, in seconds; prints a message."""
    seconds = policy.wait_before(failures, random.random())
    if problem.after is not None:
        seconds = max(problem.after, 0.0)
        if seconds > policy.longest_wait:
            raise StageError(
                f"{request.shown}: {problem}, and the server requests a wait of {seconds:.0f} s. "
                "Run the same command after that to resume."
            ) from problem
    if not isinstance(problem, _NoConnection):
        sys.stderr.write(f"{request.shown}: {problem}; trying again in {seconds:.1f} s\n")
    elif request.server not in unreachable:
        unreachable[request.server] = False
        longest = sum(policy.wait_before(each, 0) for each in range(1, policy.attempts))
        sys.stderr.write(
            f"{request.server} cannot be reached: {problem}; trying for up to {longest:.0f} s\n"
        )
    return seconds


def check(request: Request) -> str | None:
    """Check with one HEAD request that a file exists and has the expected size.

    :returns: the problem, as a predicate after the address; None if there is none.
    """
    import httpx2

    try:
        with _client(request) as client:
            answer = client.head(request.url, headers={"Accept-Encoding": "identity"})
    except (httpx2.RequestError, httpx2.InvalidURL) as error:
        return f"was not checked: {_in_words(error, request)}"
    if answer.status_code in (405, 501):
        return f"was not checked: the server answers {answer.status_code} to HEAD"
    if answer.status_code != 200:
        return f"does not have it: the server answers {answer.status_code}"
    length = number(answer.headers.get("Content-Length"))
    if length is None:
        return "was not checked: the server does not send the size"
    if request.size not in (None, length):
        return f"is another file: expected {request.size} bytes, found {length}"
    return None


class _Download:
    """A download in progress: the received part, and a record of its version."""

    def __init__(self, request: Request, target: Path, progress: Progress) -> None:
        self.request = request
        self.progress = progress
        self.part = target.with_name(target.name + ".part")
        self.note = target.with_name(target.name + ".part.json")
        self.identity = request.identity or request.shown
        self.received = 0

    def length(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def discard(self) -> None:
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def attempt(self, client: httpx2.Client) -> str:
        """Make one request, append to the part, and return the SHA-256 of the complete file."""
        # Ranges and sizes count the file's own bytes.
        headers = {**self.request.headers, "Accept-Encoding": "identity"}
        resume = self._resume_headers()
        offset = self.length() if resume else 0
        headers |= resume
        with (
            _network_errors_as_retry(self.request),
            client.stream("GET", self.request.url, headers=headers) as response,
        ):
            total = check_answer(response.status_code, response.headers, offset, self.request)
            if response.status_code == 206:
                check_version(headers.get("If-Range"), response.headers)
            if response.status_code == 200:
                offset = 0
            digest = self._digest() if offset else hashlib.sha256()
            if response.status_code != 416:  # otherwise the part is already complete
                self._receive(response, offset, total, digest)
        if total is not None and self.length() < total:
            raise Retry(f"the answer ended after {self.length()} of {total} bytes")
        self._check_content(digest.hexdigest(), resumed=offset > 0)
        return digest.hexdigest()

    def _resume_headers(self) -> dict[str, str]:
        """Headers that request the rest; empty if the part might not fit the request."""
        if not self.length():
            return {}
        try:
            note = json.loads(self.note.read_text())
        except (OSError, ValueError):
            return {}
        headers = {"Range": f"bytes={self.length()}-"}
        if note.get("url") == self.identity and note.get("validator"):
            return {**headers, "If-Range": note["validator"]}
        if self.request.sha256 is not None and note.get("sha256") == self.request.sha256:
            return headers  # from a mirror, or a server without validators: the hash decides
        return {}

    def _digest(self) -> hashlib._Hash:
        with self.part.open("rb") as file:
            return hashlib.file_digest(file, "sha256")

    def _receive(
        self, response: httpx2.Response, offset: int, total: int | None, digest: hashlib._Hash
    ) -> None:
        """Append the body of an answer to the part (or restart it at offset 0), and hash it."""
        request = self.request
        if total is not None:
            self._check_disk(total - offset)
        chunks = response.iter_raw(_CHUNK)
        limit = None if request.size is None else request.size - offset
        self.progress.start(total, offset)
        try:
            with self.part.open("ab" if offset else "wb") as file:
                note = {"url": self.identity, "sha256": request.sha256}
                note["validator"] = validator_of(response.headers)
                write_record(self.note, json.dumps(note))
                if not offset:
                    chunks = _without_page(chunks, request)
                write_and_hash(chunks, file, digest, limit=limit, advance=self._advance)
        finally:
            self.progress.finish()

    def _advance(self, count: int) -> None:
        self.received += count
        self.progress.advance(count)

    def _check_disk(self, needed: int) -> None:
        free = shutil.disk_usage(self.part.parent).free
        if free < needed + _SPARE_DISK:
            raise StageError(
                f"not enough disk space: {self.part.parent.absolute()} has {mebibytes(free)} free, "
                f"the download needs {mebibytes(needed)}. Free some space and run the same command "
                "again."
            )

    def _check_content(self, sha256: str, resumed: bool) -> None:
        """Refuse a received file that is not the expected one.

        A resumed part can be the cause, so the download is repeated once without it.
        """
        request = self.request
        if request.size not in (None, self.length()):
            complaint = wrong_size(request, self.length())
        elif request.sha256 not in (None, sha256):
            complaint = (
                f"{request.shown} is not the expected file ({self.length()} bytes received):\n"
                f"expected sha256 {request.sha256}\n"
                f"found    sha256 {sha256}\n"
                f"If the file was replaced on purpose, set sha256 in {request.table} to the found "
                "value; if not, do not use the file."
            )
        else:
            return
        if resumed:
            raise StartOver(complaint)
        self.discard()
        raise StageError(complaint)


def _without_page(chunks: Iterator[bytes], request: Request) -> Iterator[bytes]:
    """The chunks of a file from its beginning, which must not look like a web page."""
    first = next(chunks, b"")
    if _PAGE.match(first):
        raise StageError(answered_with_page(request))
    yield first
    yield from chunks


def _client(request: Request) -> httpx2.Client:
    has_login = "Authorization" in request.headers or "@" in urlsplit(request.url).netloc
    return network.client(netrc_login=not has_login)


@contextmanager
def _network_errors_as_retry(request: Request) -> Iterator[None]:
    import ssl

    import httpx2

    try:
        yield
    except (
        httpx2.InvalidURL,
        httpx2.UnsupportedProtocol,
        httpx2.LocalProtocolError,
        httpx2.TooManyRedirects,
    ) as error:
        words = address.without_secrets(str(error), request.url)
        raise StageError(
            f"{request.shown} cannot be used: {words}. Correct the url in {request.table}."
        ) from error
    except httpx2.ConnectTimeout as error:
        raise _NoConnection("it does not answer") from error
    except (httpx2.ConnectError, httpx2.ProxyError) as error:
        words = _in_words(error, request)
        causes = list(network.causes(error))
        if any(isinstance(each, ssl.SSLCertVerificationError) for each in causes):
            raise StageError(f"{request.shown} cannot be downloaded: {words}") from error
        connected = any(isinstance(each, ssl.SSLError) for each in causes)
        raise (Retry if connected else _NoConnection)(words) from error
    except httpx2.RequestError as error:
        raise Retry(_in_words(error, request)) from error


def _in_words(error: Exception, request: Request) -> str:
    """The error's text, without the secrets of the address."""
    return address.without_secrets(network.in_words(error), request.url)
