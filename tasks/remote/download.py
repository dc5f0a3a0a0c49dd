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
import ssl
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from tasks.console import address
from tasks.console.progress import SILENT, Progress
from tasks.console.sizes import mebibytes
from tasks.remote import network
from tasks.system.errors import StageError
from tasks.system.files import write_record

if TYPE_CHECKING:
    import httpx2

_CHUNK = 1 << 16  # what a dropped connection can lose at most
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_SPARE_DISK = 64 << 20
_LONGEST_NUMBER = 18  # digits; what has more is no size

# How a web page begins (https://mimesniff.spec.whatwg.org/#identifying-a-resource-with-an-unknown-mime-type).
_PAGE = re.compile(
    rb"(\xef\xbb\xbf)?[\t\n\f\r ]*<(\?xml|!--|(!doctype html|html|head|script|iframe|h1|div|font|"
    rb"table|a|style|title|b|body|br|p|meta|error)[\s>])",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Request:
    """What is to be fetched; ``table`` is where the configuration says so.

    ``url`` is for the request alone: it may hold a password; ``shown`` is for everything else.
    ``headers`` are sent along to the address itself, and not where another host is answered with.
    ``identity`` tells the file from others, as it may be recorded; without it, ``shown`` does.
    """

    url: str = field(repr=False)
    sha256: str | None = None
    size: int | None = None
    table: str = "the configuration"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    identity: str = ""

    @property
    def shown(self) -> str:
        """The address as it may be shown; see `tasks.console.address`."""
        return address.shown(self.url)

    @property
    def recorded(self) -> str:
        """What tells the file from others, as it may be recorded."""
        return self.identity or self.shown

    @property
    def server(self) -> str:
        """Host and port."""
        return urlsplit(self.shown).netloc


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


class _Retry(Exception):
    """This attempt failed in a way that another may not; ``after`` is the server's wish."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


class _NoConnection(_Retry):
    """No connection to the server came about: no network, no such host, nothing listening."""


class Unreachable(StageError):
    """The server of an address could not be reached at all; ``told`` where that was said before."""

    def __init__(self, reason: str, told: bool) -> None:
        super().__init__(reason)
        self.told = told


# Servers that this process could not reach, and those that it has given up on: of several files
# there, one is worth waiting for.
_told: set[str] = set()
_unreachable: set[str] = set()


class _StartOver(Exception):
    """The part on disk does not belong to what the server has; start from the first byte."""


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
        raise Unreachable(f"{server} cannot be reached, as said above.", told=True)
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
            except _Retry as problem:
                failures = 1 if part.length() > before else failures + 1
                if failures >= policy.attempts:
                    if isinstance(problem, _NoConnection):
                        _unreachable.add(server)
                        raise Unreachable(
                            f"{server} cannot be reached: {problem} ({failures} attempts). Check "
                            f"the network and the url in {request.table}, then run the same "
                            "command again.",
                            told=False,
                        ) from problem
                    raise StageError(
                        f"{request.shown} could not be downloaded: {problem} "
                        f"({failures} attempts; {mebibytes(part.length())} are kept). "
                        "Check the address and the network, then run the same command: it resumes."
                    ) from problem
                _wait(request, problem, failures, policy, sleep)
            except _StartOver as problem:
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
    problem: _Retry,
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

    :returns: what speaks against it or keeps it from being told, to follow the address in a
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
        return f"is no address of it: the server answers {answer.status_code}"
    length = _number(answer.headers.get("Content-Length"))
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
        total = _check_answer(response.status_code, response.headers, offset, request)
        if response.status_code == 206:
            _check_version(headers.get("If-Range"), response.headers)
        if response.status_code == 200:
            offset = 0
        digest = part.digest() if offset else hashlib.sha256()
        if response.status_code != 416:  # else the part is whole already
            if total is not None:
                _check_disk(total - offset, part.path)
            progress.start(total, offset)
            _receive(response, request, part, offset, digest, progress)
    if total is not None and part.length() < total:
        raise _Retry(f"the answer ended after {part.length()} of {total} bytes")
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
    length = offset
    with part.path.open("ab" if offset else "wb") as file:
        part.note(request, _validator(response.headers))
        for chunk in response.iter_raw(_CHUNK):
            if not length and _PAGE.match(chunk):
                raise StageError(_answered_with_page(request))
            file.write(chunk)
            digest.update(chunk)
            length += len(chunk)
            progress.advance(len(chunk))
            if request.size is not None and length > request.size:
                return


def _check_content(request: Request, part: _Part, sha256: str, resumed: bool) -> None:
    """Refuse a received file that is not the one that was asked for.

    A part that was resumed may itself be what is wrong, so it gets one more try without it.
    """
    if request.size is not None and part.length() != request.size:
        complaint = _wrong_size(request, str(part.length()))
    elif request.sha256 is not None and sha256 != request.sha256:
        complaint = _wrong_sha256(request, sha256, part.length())
    else:
        return
    if resumed:
        raise _StartOver(complaint)
    part.discard()
    raise StageError(complaint)


def _check_answer(
    status: int, headers: Mapping[str, str], offset: int, request: Request
) -> int | None:
    """Decide what an answer's status and headers allow.

    :returns: the size of the whole file as the server tells it, or None.
    """
    if status in _RETRIED:
        raise _Retry(f"the server answered {status}", _retry_after(headers.get("Retry-After")))
    start, total = _content_range(headers.get("Content-Range", ""))
    if status == 416:
        if total == offset:
            return total  # the part is whole already
        raise _StartOver(f"the server has {total} bytes, the part on disk {offset}")
    if status not in (200, 206):
        raise StageError(
            f"{request.shown} cannot be had: the server answered {status}. Correct the url in "
            f"{request.table}, or check that it may be read without logging in."
        )
    if headers.get("Content-Type", "").startswith("text/html"):
        raise StageError(_answered_with_page(request))
    if headers.get("Content-Encoding", "identity") != "identity":
        raise StageError(
            f"{request.shown} comes with Content-Encoding {headers['Content-Encoding']!r}; "
            "expected the file's own bytes. Give an address that serves it as it is."
        )
    if status == 206 and start != offset:
        raise _StartOver(f"asked for bytes from {offset}, got them from {start}")
    if status == 200:
        total = _number(headers.get("Content-Length"))
    if request.size is not None and total is not None and total != request.size:
        raise StageError(_wrong_size(request, str(total)))
    return total


def _check_version(noted: str | None, headers: Mapping[str, str]) -> None:
    """Refuse a rest that is of another version than the part: some servers ignore If-Range."""
    if noted is None:
        return
    kind = "ETag" if noted.startswith('"') else "Last-Modified"
    found = headers.get(kind)
    if found is not None and found != noted:
        raise _StartOver(f"the rest is of another version: {kind} was {noted}, is {found}")


def _content_range(value: str) -> tuple[int | None, int | None]:
    """Start and total of ``bytes 5-9/10`` or ``bytes */10``."""
    match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", value.strip())
    if not match:
        return None, None
    return _number(match[1]), _number(match[2])


def _number(value: str | None) -> int | None:
    """A number of bytes; None when a header has none, or one that no file can have."""
    value = (value or "").strip()
    return int(value) if value.isdecimal() and len(value) <= _LONGEST_NUMBER else None


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header, given as a number or a date (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError):
        return None


def _validator(headers: Mapping[str, str]) -> str | None:
    """What If-Range may name: a strong ETag, else the date (RFC 9110, 13.1.5)."""
    etag = headers.get("ETag")
    if etag and not etag.startswith("W/"):
        return etag
    return headers.get("Last-Modified")


def _check_disk(needed: int, part: Path) -> None:
    free = shutil.disk_usage(part.parent).free
    if free < needed + _SPARE_DISK:
        raise StageError(
            f"not enough disk: {part.parent.absolute()} has {mebibytes(free)} free, and "
            f"{mebibytes(needed)} are to come. Make room and run the same command again."
        )


def _wrong_sha256(request: Request, found: str, length: int) -> str:
    return (
        f"{request.shown} is not the expected file ({length} bytes came):\n"
        f"expected sha256 {request.sha256}\n"
        f"found    sha256 {found}\n"
        f"If the file was replaced on purpose, put the found value into {request.table}; "
        "if not, do not use it."
    )


def _answered_with_page(request: Request) -> str:
    return (
        f"{request.shown} answers with a web page; expected a checkpoint. Correct the url in "
        f"{request.table}: it must be the file's own address, readable without logging in."
    )


def _wrong_size(request: Request, found: str) -> str:
    return (
        f"{request.shown} is not the expected file: expected {request.size} bytes, found {found}. "
        f"If the file was replaced on purpose, correct size and sha256 in {request.table}."
    )


def _client(request: Request) -> httpx2.Client:
    has_login = "Authorization" in request.headers or "@" in urlsplit(request.url).netloc
    return network.client(netrc_login=not has_login)


def _timeouts(policy: RetryPolicy) -> httpx2.Timeout:
    import httpx2

    return httpx2.Timeout(policy.read_timeout, connect=policy.connect_timeout)


@contextmanager
def _network_errors_as_retry(request: Request) -> Iterator[None]:
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
        raise (_Retry if connected else _NoConnection)(words) from error
    except httpx2.RequestError as error:
        raise _Retry(_in_words(error, request)) from error


def _in_words(error: Exception, request: Request) -> str:
    """What went wrong, without what is secret in the address."""
    return address.without_secrets(network.in_words(error), request.url)
