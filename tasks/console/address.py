"""Addresses as they may be shown: user, password, query and fragment stay in the configuration.

`shown` is how every message, record and manifest writes an address; `without_secrets` is for texts
of others, who write it as they like. The real address goes to whoever asks for the file, and no
further.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

# `user:password@`. What a password may hold only if it is escaped (/ ? # @) does not show it
# either: where a colon stands before an @, all up to the last @ may be a password.
_USER = re.compile(r"://(?:(?!\[[\da-f:.]+\])[^/@:]*:.*@|[^/]*@)", re.IGNORECASE | re.DOTALL)
_NO_PORT = re.compile(r"(://[^/?#@:\[\]]*):(?!\d*(?:[/?#]|$))[^/]*")
_USER_WITHOUT_SCHEME = re.compile(r"^(?!hf:)[^@]*:[^@]*@")
_USER_OF_HUB = re.compile(r"^hf:[^@]*:.*@", re.DOTALL)
_QUERY = re.compile(r"[?#].*", re.DOTALL)

_ADDRESS = re.compile(r"[\w.+-]+(?:::[\w.+-]+)*://[^\s'\"<>]+")  # in a text
_QUERY_OF_PATH = re.compile(r"(?<=[\w/])\?[^\s'\"<>)]+")

# Parameters of a query that say who asks, and until when: they are new each time that an address is
# signed, and the file is the same.
_SIGNING = re.compile(
    r"x-(?:amz|goog|oss|cos)-.*|signature|sig|expires|(?:aws|oss)accesskeyid|googleaccessid"
    r"|key-pair-id|policy|(?:access_|auth_|private_|job_)?token|api[_-]?key|password",
    re.IGNORECASE,
)
# Azure's, beside a `sig`.
_SIGNED_BY_AZURE = frozenset(
    {"sv", "ss", "srt", "sp", "se", "st", "spr", "sip", "sr", "skoid", "sktid", "skt", "ske"}
    | {"sks", "skv"}
)


def shown(address: str) -> str:
    """An address, or the path of a file, as it may be shown."""
    if "://" in address:
        return _QUERY.sub("", _NO_PORT.sub(r"\1", _USER.sub("://", address)))
    if address.startswith("synthetic:"):  # is nobody's
        return address
    if address.startswith("hf:"):
        return _QUERY.sub("", _USER_OF_HUB.sub("hf:", address))
    return _USER_WITHOUT_SCHEME.sub("", address).partition("?")[0]


def is_ambiguous(address: str) -> bool:
    """Whether what stands before an @ may be a password, or a host and a path."""
    return any(set(each.removeprefix("://")) & set("/?#") for each in _USER.findall(address))


def query_of_file(address: str) -> str:
    """What of an address's query says which file it is; empty where its path says it all."""
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
    """A text of a library, without what is in an address, or options, that is not to be shown."""
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
    """What is not to be shown of an address, as libraries may write it."""
    import base64  # loading the graph needs none of this

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
    """The texts and numbers of options, however deep; of addresses, what is not to be shown."""
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
