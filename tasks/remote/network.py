"""The HTTP client of a build: httpx2's, for the hub and for every other address.

Proxies are those of ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``. Certificates
are checked against those that ``SSL_CERT_FILE``, ``SSL_CERT_DIR`` and ``REQUESTS_CA_BUNDLE`` name,
else against the system's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tasks.console import address
from tasks.system.errors import StageError

if TYPE_CHECKING:
    import ssl

    import httpx2

# Seconds to wait for a connection, for the hub's answer (that to a commit of many files takes a
# while), and for the next bytes of a download.
_CONNECT, ANSWER, _BYTES = 15, 300, 60

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")

# httpx2 by itself reads the first two alone, requests and curl the others.
_BUNDLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def client(netrc_login: bool) -> httpx2.Client:
    """A client for any address; with ``netrc_login`` it sends the login of ``~/.netrc``.

    :raises StageError: when the environment names a proxy or certificates that cannot be used.
    """
    import netrc

    import httpx2

    auth = None
    if netrc_login:  # which would take the place of any other login
        with suppress(OSError, netrc.NetrcParseError):
            auth = httpx2.NetRCAuth(os.environ.get("NETRC"))
    return _make(_BYTES, auth=auth)


def hub_client() -> httpx2.Client:
    """The client that huggingface_hub uses from now on; ``HF_HUB_OFFLINE`` stops its requests.

    :raises StageError: when the environment's hub, proxy or certificates cannot be used.
    """
    import huggingface_hub
    from huggingface_hub import constants

    try:
        parts = urlsplit(constants.ENDPOINT)
        _ = parts.port
        is_server = parts.scheme in ("http", "https") and parts.hostname
    except ValueError:
        is_server = False
    if not is_server or address.is_ambiguous(constants.ENDPOINT):
        raise StageError(
            "HF_ENDPOINT names no hub. Expected https://HOST or http://HOST:PORT, with / written "
            "%2F, ? %3F, # %23 and @ %40 in a user or a password. Correct or unset the variable, "
            "then run the same command again."
        )
    _configure_hub()
    return huggingface_hub.get_session()


@cache  # a further time would close the client under another thread
def _configure_hub() -> None:
    import huggingface_hub
    from huggingface_hub.utils._http import hf_request_event_hook

    hooks = {"request": [hf_request_event_hook]}
    huggingface_hub.set_client_factory(lambda: _make(ANSWER, event_hooks=hooks))


def _make(patience: float, **options: object) -> httpx2.Client:
    import httpx2

    context = _trust(tuple((name, path) for name in _BUNDLES if (path := os.environ.get(name))))
    try:
        return httpx2.Client(
            verify=context,
            follow_redirects=True,
            timeout=httpx2.Timeout(patience, connect=_CONNECT),
            **options,  # type: ignore[arg-type]
        )
    except (ValueError, ImportError, httpx2.InvalidURL):  # whose words may hold the password
        names = [each for name in _PROXIES for each in (name, name.lower()) if os.environ.get(each)]
        raise StageError(
            f"What {' or '.join(names) or 'the system'} names cannot be used. A proxy is expected "
            "as http://HOST:PORT, https://HOST:PORT, socks5://HOST:PORT or socks5h://HOST:PORT, "
            "with / written %2F, ? %3F, # %23 and @ %40 in a user or a password; NO_PROXY as "
            "hosts, with commas between them. Correct the variable, then run the same command "
            "again."
        ) from None


@cache  # reading the system's takes a tenth of a second
def _trust(bundles: tuple[tuple[str, str], ...]) -> ssl.SSLContext:
    """Trust the certificates that variables name, by name and value, else the system's."""
    import ssl

    if not bundles:
        import httpx2

        return httpx2.create_ssl_context()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for name, path in bundles:
        try:
            folder = name == "SSL_CERT_DIR" or Path(path).is_dir()
            context.load_verify_locations(**{"capath" if folder else "cafile": path})
        except OSError as error:  # ssl.SSLError is one
            raise StageError(
                f"{name} names {path}, from which no certificates can be read: {error}. Expected "
                "a file in PEM, or a folder that `openssl rehash` prepared. Correct the variable, "
                "then run the same command again."
            ) from error
    return context


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those behind it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def in_words(error: Exception) -> str:
    """The system's own words for what went wrong, where httpx2 wraps them; what to do, if clear."""
    import ssl

    for each in causes(error):
        if isinstance(each, ssl.SSLCertVerificationError):
            return (
                f"its certificate is not trusted ({each.verify_message}). If a company's proxy or "
                "server has a certificate of its own, let SSL_CERT_FILE or REQUESTS_CA_BUNDLE name "
                "the file of the authority that signed it (PEM)."
            )
        if isinstance(each, OSError) and each.strerror:
            return each.strerror
    return str(error) or type(error).__name__
