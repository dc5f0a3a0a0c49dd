"""Downloads one file over HTTP: resumed, retried, hashed on the way, and put in place only whole.

Beside the target lie, until it is whole, ``<target>.part`` and ``<target>.part.json``: the
validator (ETag or Last-Modified) that tells the server which version the part belongs to.
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
    wrong_sha256,
    wrong_size,
)
from tasks.system.errors import StageError
from tasks.system.files import write_and_hash, write_record

if TYPE_CHECKING:
    import httpx2

_CHUNK = 1 << 16  # what a dropped connection can lose at most
_SPARE_DISK = 64 << 20

# How a web page begins (https://mimesniff.spec.whatwg.org/#identifying-a-resource-with-an-unknown-mime-type).
_PAGE = re.compile(
    rb"(\xef\xbb\xbf)?[\t\n\f\r ]*<(\?xml|!--|(!doctype html|html|head|script|iframe|h1|div|font|"
    rb"table|a|style|title|b|body|br|p|meta|error)[\s>])",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class RetryPolicy:
    """When to give up: ``attempts`` in a row without a new byte; times in seconds."""

    attempts: int = 6
    first_wait: float = 1.0
    longest_wait: float = 300.0
    connect_timeout: float = 15.0
    read_timeout: float = 60.0

    def wait_before(self, attempt: int, jitter: float) -> float:
        """Exponential backoff: doubled each time, shortened by up to half by ``jitter``."""
        return min(self.first_wait * 2.0 ** (attempt - 1), self.longest_wait) * (1 - jitter / 2)


class Fetched(NamedTuple):
    """The SHA-256 of the file in place, and how many bytes came over the network for it."""

    sha256: str
    received: int


class _NoConnection(Retry):
    """No connection to the server came about: no network, no such host, nothing listening."""


class Unreachable(StageError):
    """No connection to the server of an address; ``reported`` where a message said so before."""

    def __init__(self, reason: str, reported: bool) -> None:
        super().__init__(reason)
        self.reported = reported


# Servers that this process could not reach, and those that it has given up on: of several files
# there, one is worth waiting for.
_told: set[str] = set()
_unreachable: set[str] = set()


def fetch(
    request: Request,
    target: Path,
    progress: Progress = SILENT,
    policy: RetryPolicy | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Fetched:
    """Download a file to ``target``, replacing it only when the new one is whole and right.

    :raises Unreachable: when no connection to the server comes about.
    :raises StageError: when the server refuses, keeps failing, or sends something else than
        expected; an earlier good ``target`` stays. What was received of a good file stays too
        and is resumed by the next call.
    """
    server = request.server
    if server in _unreachable:
        raise Unreachable(f"{server} cannot be reached, as said above.", reported=True)
    policy = policy or RetryPolicy()
    part = _Part(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    received = 0
    failures = 0
    fresh_starts = 0
    with _client(request) as client:
        while True:
            before = part.length()
            try:
                try:
                    digest = _attempt(client, request, part, progress, policy)
                    break
                finally:
                    received += max(0, part.length() - before)
                    progress.finish()
            except Retry as problem:
                failures = 1 if part.length() > before else failures + 1
                if failures >= policy.attempts:
                    if isinstance(problem, _NoConnection):
                        _unreachable.add(server)
                        raise Unreachable(
                            f"{server} cannot be reached: {problem} ({failures} attempts). Check "
                            f"the network and the url in {request.table}, then run the same "
                            "command again.",
                            reported=False,
                        ) from problem
                    raise StageError(
                        f"{request.shown} could not be downloaded: {problem} "
                        f"({failures} attempts; {mebibytes(part.length())} are kept). "
                        "Check the address and the network, then run the same command: it resumes."
                    ) from problem
                _wait(request, problem, failures, policy, sleep)
            except StartOver as problem:
                part.discard()
                fresh_starts += 1
                if fresh_starts > 2:
                    raise StageError(
                        f"{request.shown} keeps changing while it is downloaded ({problem}). "
                        "Try again later, or give another address."
                    ) from problem
    part.path.replace(target)
    part.discard()
    return Fetched(digest, received)


def _wait(
    request: Request,
    problem: Retry,
    failures: int,
    policy: RetryPolicy,
    sleep: Callable[[float], None],
) -> None:
    """Sleep as long as the server asks, else by exponential backoff."""
    seconds = policy.wait_before(failures, random.random())
    if problem.after is not None:
        seconds = max(problem.after, 0.0)
        if seconds > policy.longest_wait:
            raise StageError(
                f"{request.shown}: {problem}, and the server asks to wait {seconds:.0f} s. "
                "Run the same command after that; it resumes."
            ) from problem
    if isinstance(problem, _NoConnection):
        server = request.server
        if server not in _told:
            _told.add(server)
            longest = sum(policy.wait_before(each, 0) for each in range(1, policy.attempts))
            sys.stderr.write(
                f"{server} cannot be reached: {problem}; trying for up to {longest:.0f} s\n"
            )
    else:
        sys.stderr.write(f"{request.shown}: {problem}; trying again in {seconds:.1f} s\n")
    sleep(seconds)


def check(request: Request, policy: RetryPolicy | None = None) -> str | None:
    """Ask once, without fetching it, whether a file is at an address and has the size it should.

    :returns: what speaks against it or prevents the check, to follow the address in a
        sentence; None when the server has a file of that size.
    """
    import httpx2

    try:
        with _client(request) as client:
            answer = client.head(
                request.url,
                headers={"Accept-Encoding": "identity"},
                timeout=_timeouts(policy or RetryPolicy()),
            )
    except (httpx2.RequestError, httpx2.InvalidURL) as error:
        return f"was not checked: {_in_words(error, request)}"
    if answer.status_code in (405, 501):
        return f"was not checked: the server answers {answer.status_code} to HEAD"
    if answer.status_code != 200:
        return f"does not have it: the server answers {answer.status_code}"
    length = number(answer.headers.get("Content-Length"))
    if length is None:
        return "was not checked: the server does not tell the size"
    if request.size is not None and length != request.size:
        return f"is another file: expected {request.size} bytes, found {length}"
    return None


class _Part:
    """The bytes received so far, and a note of which version of which file they are."""

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(target.name + ".part")
        self._note = target.with_name(target.name + ".part.json")

    def length(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def note(self, request: Request, validator: str | None) -> None:
        note = {"url": request.recorded, "sha256": request.sha256, "validator": validator}
        write_record(self._note, json.dumps(note))

    def resume_headers(self, request: Request) -> dict[str, str] | None:
        """Headers that ask for the rest; None when this part is not known to fit ``request``."""
        try:
            note = json.loads(self._note.read_text())
        except (OSError, ValueError):
            return None
        headers = {"Range": f"bytes={self.length()}-"}
        if note.get("url") == request.recorded and note.get("validator"):
            return {**headers, "If-Range": note["validator"]}
        if request.sha256 is not None and note.get("sha256") == request.sha256:
            return headers  # from a mirror, or a server without validators: the hash will tell
        return None

    def digest(self) -> hashlib._Hash:
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256")

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)


def _attempt(
    client: httpx2.Client,
    request: Request,
    part: _Part,
    progress: Progress,
    policy: RetryPolicy,
) -> str:
    """One request: append to the part what is missing. Returns the SHA-256 of the whole."""
    # Ranges and sizes count the file's own bytes.
    headers = {**request.headers, "Accept-Encoding": "identity"}
    offset = part.length()
    if offset:
        resume = part.resume_headers(request)
        offset = 0 if resume is None else offset
        headers |= resume or {}
    with (
        _network_errors_as_retry(request),
        client.stream("GET", request.url, headers=headers, timeout=_timeouts(policy)) as response,
    ):
        total = check_answer(response.status_code, response.headers, offset, request)
        if response.status_code == 206:
            check_version(headers.get("If-Range"), response.headers)
        if response.status_code == 200:
            offset = 0
        digest = part.digest() if offset else hashlib.sha256()
        if response.status_code != 416:  # else the part is whole already
            if total is not None:
                _check_disk(total - offset, part.path)
            progress.start(total, offset)
            _receive(response, request, part, offset, digest, progress)
    if total is not None and part.length() < total:
        raise Retry(f"the answer ended after {part.length()} of {total} bytes")
    _check_content(request, part, digest.hexdigest(), resumed=offset > 0)
    return digest.hexdigest()


def _receive(
    response: httpx2.Response,
    request: Request,
    part: _Part,
    offset: int,
    digest: hashlib._Hash,
    progress: Progress,
) -> None:
    """Append the body of an answer to the part (or begin it anew at offset 0), and hash it."""
    chunks = response.iter_raw(_CHUNK)
    with part.path.open("ab" if offset else "wb") as file:
        part.note(request, validator_of(response.headers))
        if not offset:
            chunks = _without_page(chunks, request)
        limit = None if request.size is None else request.size - offset
        write_and_hash(chunks, file, digest, limit=limit, advance=progress.advance)


def _without_page(chunks: Iterator[bytes], request: Request) -> Iterator[bytes]:
    """Chunks of a file from its beginning.

    :raises StageError: when it begins as a web page does.
    """
    first = next(chunks, b"")
    if _PAGE.match(first):
        raise StageError(answered_with_page(request))
    yield first
    yield from chunks


def _check_content(request: Request, part: _Part, sha256: str, resumed: bool) -> None:
    """Refuse a received file that is not the wanted one.

    A part that was resumed may itself be what is wrong, so it gets one more try without it.
    """
    if request.size is not None and part.length() != request.size:
        complaint = wrong_size(request, str(part.length()))
    elif request.sha256 is not None and sha256 != request.sha256:
        complaint = wrong_sha256(request, sha256, part.length())
    else:
        return
    if resumed:
        raise StartOver(complaint)
    part.discard()
    raise StageError(complaint)


def _check_disk(needed: int, part: Path) -> None:
    free = shutil.disk_usage(part.parent).free
    if free < needed + _SPARE_DISK:
        raise StageError(
            f"not enough disk: {part.parent.absolute()} has {mebibytes(free)} free, and "
            f"{mebibytes(needed)} are to come. Make room and run the same command again."
        )


def _client(request: Request) -> httpx2.Client:
    has_login = "Authorization" in request.headers or "@" in urlsplit(request.url).netloc
    return network.client(netrc_login=not has_login)


def _timeouts(policy: RetryPolicy) -> httpx2.Timeout:
    import httpx2

    return httpx2.Timeout(policy.read_timeout, connect=policy.connect_timeout)


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
        if network.is_distrust(error):
            raise StageError(f"{request.shown} cannot be had: {words}") from error
        connected = any(isinstance(each, ssl.SSLError) for each in network.causes(error))
        raise (Retry if connected else _NoConnection)(words) from error
    except httpx2.RequestError as error:
        raise Retry(_in_words(error, request)) from error


def _in_words(error: Exception, request: Request) -> str:
    """What went wrong, without what is secret in the address."""
    return address.without_secrets(network.in_words(error), request.url)
