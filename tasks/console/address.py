"""Addresses without secrets: user, password, query and fragment stay in the configuration.

Every message, record and manifest writes an address with `shown`. `without_secrets` is for texts of
libraries, which can write an address in any way. Only requests for the file use the real address.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

# `user:password@`. An unescaped / ? # or @ in a password must not reveal it either: if a colon
# stands before an @, everything up to the last @ could be a password.
_USER = re.compile(r"://(?:(?!\[[\da-f:.]+\])[^/@:]*:.*@|[^/]*@)", re.IGNORECASE | re.DOTALL)
_NO_PORT = re.compile(r"(://[^/?#@:\[\]]*):(?!\d*(?:[/?#]|$))[^/]*")
_USER_WITHOUT_SCHEME = re.compile(r"^(?!hf:)[^@]*:[^@]*@")
_USER_OF_HUB = re.compile(r"^hf:[^@]*:.*@", re.DOTALL)
_QUERY = re.compile(r"[?#].*", re.DOTALL)

_ADDRESS = re.compile(r"[\w.+-]+(?:::[\w.+-]+)*://[^\s'\"<>]+")  # in a text
_QUERY_OF_PATH = re.compile(r"(?<=[\w/])\?[^\s'\"<>)]+")

# Parameters of a query that identify the user and the time limit: they change each time that an
# address is signed, but the file stays the same.
_SIGNING = re.compile(
    r"x-(?:amz|goog|oss|cos)-.*|signature|sig|expires|(?:aws|oss)accesskeyid|googleaccessid"
    r"|key-pair-id|policy|(?:access_|auth_|private_|job_)?token|api[_-]?key|password",
    re.IGNORECASE,
)
# Azure's parameters, besides `sig`.
_SIGNED_BY_AZURE = frozenset(
    {"sv", "ss", "srt", "sp", "se", "st", "spr", "sip", "sr", "skoid", "sktid", "skt", "ske"}
    | {"sks", "skv"}
)


def shown(address: str) -> str:
    """An address without secrets, or the path of a file."""
    if "://" in address:
        return _QUERY.sub("", _NO_PORT.sub(r"\1", _USER.sub("://", address)))
    if address.startswith("synthetic:"):  # has no secrets
        return address
    if address.startswith("hf:"):
        return _QUERY.sub("", _USER_OF_HUB.sub("hf:", address))
    return _USER_WITHOUT_SCHEME.sub("", address).partition("?")[0]


def is_ambiguous(address: str) -> bool:
    """Whether the text before an @ could be a password, or a host and a path."""
    return any(set(each.removeprefix("://")) & set("/?#") for each in _USER.findall(address))


def query_of_file(address: str) -> str:
    """The part of an address's query that identifies the file; empty if the path suffices."""
    if address.startswith("synthetic:"):
        return ""
    pairs = list(filter(None, _query(address).split("&")))
    names = {each.partition("=")[0].lower() for each in pairs}
    signing = _SIGNED_BY_AZURE if "sig" in names else frozenset()
    return "&".join(
        each
        for each in pairs
        if not _SIGNING.fullmatch(name := each.partition("=")[0]) and name.lower() not in signing
    )


def without_secrets(text: str, address: str = "", options: Mapping[str, Any] | None = None) -> str:
    """A library's text without the secrets of an address, or of options."""
    if address:
        text = text.replace(address, shown(address))
    pieces = {*_pieces(address), *_values(options or {})} - {""}
    for piece in sorted(pieces, key=len, reverse=True):
        pattern = re.escape(piece)
        text = re.sub(pattern if len(piece) > 5 else rf"(?<!\w){pattern}(?!\w)", "…", text)
    text = _ADDRESS.sub(lambda match: shown(match[0]), text)
    return _QUERY_OF_PATH.sub("", text)


def _query(address: str) -> str:
    return _USER.sub("://", address).partition("#")[0].partition("?")[2]


def _pieces(address: str) -> Iterator[str]:
    """The secrets of an address, in all forms that libraries could write."""
    import base64  # loading the graph does not need these modules

    for each in _USER.findall(address):
        user = each.removeprefix("://").removesuffix("@")
        name, _, password = user.partition(":")
        for each in (user, name, password):
            yield from (each, unquote(each))
        yield base64.b64encode(unquote(user).encode()).decode()
    query = _query(address)
    values = [each.partition("=")[2] for each in query.split("&")]
    for each in (query, address.partition("#")[2], *values):
        if len(each) > 3:
            yield from (each, unquote(each))


def _values(options: Any) -> Iterator[str]:
    """The texts and numbers of nested options; of addresses, only the secrets."""
    if isinstance(options, Mapping):
        for each in options.values():
            yield from _values(each)
    elif isinstance(options, list | tuple):
        for each in options:
            yield from _values(each)
    elif isinstance(options, str) and "://" in options:
        yield from _pieces(options)
    elif isinstance(options, str | int) and not isinstance(options, bool) and len(str(options)) > 3:
        yield str(options)
