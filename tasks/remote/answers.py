"""Checks the answers to a download: status, headers and version."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from tasks.console import address
from tasks.system.errors import StageError

_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_LONGEST_NUMBER = 18  # digits; more are not a size


@dataclass(frozen=True)
class Request:
    """A file to fetch; ``table`` names the table of the configuration with its address.

    ``url`` can contain a password, so it is only for the request; ``shown`` is for everything else.
    ``headers`` go to the address itself, not to a host that it redirects to. ``identity``
    identifies the file in records; without it, ``shown`` does.
    """

    url: str = field(repr=False)
    sha256: str | None = None
    size: int | None = None
    table: str = "the configuration"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    identity: str = ""

    @property
    def shown(self) -> str:
        """The address without secrets; see `tasks.console.address`."""
        return address.shown(self.url)

    @property
    def server(self) -> str:
        """Host and port."""
        return urlsplit(self.shown).netloc


class Retry(Exception):
    """An attempt failed that is worth repeating, ``after`` the seconds that the server requests."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


class StartOver(Exception):
    """The part on disk does not belong to the server's file; start from the first byte."""


def check_answer(
    status: int, headers: Mapping[str, str], offset: int, request: Request
) -> int | None:
    """Check an answer, and return the size of the whole file from it, or None."""
    if status in _RETRIED:
        raise Retry(f"the server answered {status}", _retry_after(headers.get("Retry-After")))
    start, total = _content_range(headers.get("Content-Range", ""))
    if status == 416:
        if total == offset:
            return total  # the part is already complete
        raise StartOver(f"the server has {total} bytes, the part on disk {offset}")
    if status not in (200, 206):
        raise StageError(
            f"{request.shown} cannot be downloaded: the server answered {status}. Correct the url "
            f"in {request.table}, or check that the file can be read without logging in."
        )
    if headers.get("Content-Type", "").startswith("text/html"):
        raise StageError(answered_with_page(request))
    if headers.get("Content-Encoding", "identity") != "identity":
        raise StageError(
            f"{request.shown} comes with Content-Encoding {headers['Content-Encoding']!r}; "
            "expected the file's own bytes. Use an address that serves the file unencoded."
        )
    if status == 206 and start != offset:
        raise StartOver(f"requested bytes from {offset}, got bytes from {start}")
    if status == 200:
        total = number(headers.get("Content-Length"))
    if request.size is not None and total is not None and total != request.size:
        raise StageError(wrong_size(request, total))
    return total


def check_version(noted: str | None, headers: Mapping[str, str]) -> None:
    """Refuse a rest from another version than the part: some servers ignore If-Range."""
    if noted is not None:
        kind = "ETag" if noted.startswith('"') else "Last-Modified"
        now = headers.get(kind, noted)
        if now != noted:
            raise StartOver(f"the file changed on the server: {kind} was {noted}, is now {now}")


def _content_range(value: str) -> tuple[int | None, int | None]:
    """Start and total of ``bytes 5-9/10`` or ``bytes */10``."""
    match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", value.strip())
    return (number(match[1]), number(match[2])) if match else (None, None)


def number(value: str | None) -> int | None:
    """A number of bytes; None if a header has none, or a number that no file can have."""
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


def validator_of(headers: Mapping[str, str]) -> str | None:
    """The validator for If-Range: a strong ETag, else the date (RFC 9110, 13.1.5)."""
    etag = headers.get("ETag")
    if etag and not etag.startswith("W/"):
        return etag
    return headers.get("Last-Modified")


def answered_with_page(request: Request) -> str:
    return (
        f"{request.shown} answers with a web page; expected a checkpoint. Correct the url in "
        f"{request.table}: it must be the address of the file itself, readable without logging in."
    )


def wrong_size(request: Request, size: int) -> str:
    return (
        f"{request.shown} is not the expected file: expected {request.size} bytes, found {size}. "
        f"If the file was replaced on purpose, correct size and sha256 in {request.table}."
    )
