"""The HTTP client of a build: httpx2's, for the hub and for all other addresses.

Proxies come from ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``. Trusted
certificates come from ``SSL_CERT_FILE``, ``SSL_CERT_DIR`` and ``REQUESTS_CA_BUNDLE``, else from the
system.
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

# Seconds to wait for a connection, for the hub's answer (slow after a commit of many files), and
# for the next bytes of a download.
_CONNECT, ANSWER, _BYTES = 15, 300, 60

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")

# httpx2 itself reads only the first two; requests and curl read the others.
_BUNDLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def client(netrc_login: bool) -> httpx2.Client:
    """A client for any address; with ``netrc_login`` it sends the login of ``~/.netrc``.

    :raises StageError: when the environment names an unusable proxy or certificate file.
    """
    import netrc

    import httpx2

    auth = None
    if netrc_login:  # it would replace any other login
        with suppress(OSError, netrc.NetrcParseError):
            auth = httpx2.NetRCAuth(os.environ.get("NETRC"))
    return _make(_BYTES, auth=auth)


def hub_client() -> httpx2.Client:
    """The client that huggingface_hub uses from now on; ``HF_HUB_OFFLINE`` stops its requests.

    :raises StageError: when the environment's hub, proxy or certificates are unusable.
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
            "HF_ENDPOINT is not the address of a hub. Expected https://HOST or http://HOST:PORT, "
            "with / as %2F, ? as %3F, # as %23 and @ as %40 in a user or a password. Correct or "
            "unset the variable, then run the same command again."
        )
    _configure_hub()
    return huggingface_hub.get_session()


@cache  # a second call would close the client that another thread uses
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
    except (ValueError, ImportError, httpx2.InvalidURL):  # their texts can contain the password
        names = [each for name in _PROXIES for each in (name, name.lower()) if os.environ.get(each)]
        raise StageError(
            f"The proxy settings in {' or '.join(names) or 'the system'} are unusable. Expected "
            "http://HOST:PORT, https://HOST:PORT, socks5://HOST:PORT or socks5h://HOST:PORT, with "
            "/ as %2F, ? as %3F, # as %23 and @ as %40 in a user or a password; in NO_PROXY hosts, "
            "separated by commas. Correct the variable, then run the same command again."
        ) from None


@cache  # reading the system's certificates takes a tenth of a second
def _trust(bundles: tuple[tuple[str, str], ...]) -> ssl.SSLContext:
    """Trust the certificates of variables, given as name and value, else the system's."""
    import ssl

    if not bundles:
        import httpx2

        return httpx2.create_ssl_context()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for name, path in bundles:
        try:
            folder = name == "SSL_CERT_DIR" or Path(path).is_dir()
            context.load_verify_locations(**{"capath" if folder else "cafile": path})
        except OSError as error:  # includes ssl.SSLError
            raise StageError(
                f"{name} names {path}, which has no readable certificates: {error}. Expected a "
                "file in PEM, or a folder that `openssl rehash` prepared. Correct the variable, "
                "then run the same command again."
            ) from error
    return context


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and its causes."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def in_words(error: Exception) -> str:
    """The system's message behind httpx2's, and what to do if that is clear."""
    import ssl

    for each in causes(error):
        if isinstance(each, ssl.SSLCertVerificationError):
            return (
                f"its certificate is not trusted ({each.verify_message}). If a company's proxy or "
                "server has its own certificate, set SSL_CERT_FILE or REQUESTS_CA_BUNDLE to the "
                "certificate file (PEM) of the authority that signed it."
            )
        if isinstance(each, OSError) and each.strerror:
            return each.strerror
    return str(error) or type(error).__name__
