"""Proxies and certificates from the environment, with real proxies and a real authority."""

from __future__ import annotations

import base64
import ipaddress
import os
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import huggingface_hub
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from proxy import Proxy
from server import FileServer

from tasks.remote import network
from tasks.remote.answers import Request
from tasks.remote.download import Fetched, RetryPolicy, fetch
from tasks.system.errors import StageError

CONTENT = bytes(range(256)) * 1024


@dataclass
class Authority:
    """The certificate file of an authority, and the TLS context of a server that it certified."""

    file: Path
    server: ssl.SSLContext


def make_authority(folder: Path) -> Authority:
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, each)])
        for each in (str(folder)[-40:], "host")
    ]
    now = datetime.now(UTC)
    certificates = [
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(names[0])
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=name is names[0], path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName(
                [
                    x509.DNSName("files.invalid"),
                    x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
                ]
            ),
            critical=False,
        )
        .sign(keys[0], hashes.SHA256())
        for key, name in zip(keys, names, strict=True)
    ]
    folder.mkdir()
    pems = [each.public_bytes(serialization.Encoding.PEM) for each in certificates]
    (folder / "ca.pem").write_bytes(pems[0])
    (folder / "host.pem").write_bytes(pems[1])
    (folder / "key.pem").write_bytes(
        keys[1].private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "host.pem", folder / "key.pem")
    return Authority(folder / "ca.pem", context)


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("company") / "ca")


@pytest.fixture(scope="module")
def secure(company: Authority) -> Iterator[FileServer]:
    """A server whose certificate the company's authority has signed."""
    server = FileServer(company.server)
    server.files["/model.pt"] = CONTENT
    yield server
    server.close()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    made = Proxy()
    yield made
    made.close()


VARIABLES = (
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NETRC"),
)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without proxies and certificates."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return monkeypatch


def download(url: str, folder: Path, attempts: int = 1) -> Fetched:
    policy = RetryPolicy(attempts=attempts)
    return fetch(Request(url), folder / "model.pt", policy=policy, sleep=lambda seconds: None)


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_a_file_is_downloaded_through_a_socks_proxy(
    tmp_path: Path,
    server: FileServer,
    proxy: Proxy,
    scheme: str,
    environment: pytest.MonkeyPatch,
) -> None:
    server.files["/model.pt"] = CONTENT
    environment.setenv("ALL_PROXY", proxy.url(scheme))
    download(server.url("/model.pt").replace("127.0.0.1", "files.invalid"), tmp_path)
    assert (tmp_path / "model.pt").read_bytes() == CONTENT
    assert [each.split(":")[0] for each in proxy.targets] == ["files.invalid"]


def test_a_file_is_downloaded_over_https_through_a_proxy(
    tmp_path: Path,
    secure: FileServer,
    company: Authority,
    proxy: Proxy,
    environment: pytest.MonkeyPatch,
) -> None:
    environment.setenv("HTTPS_PROXY", proxy.url("http"))
    environment.setenv("SSL_CERT_FILE", str(company.file))
    download(secure.url("/model.pt").replace("127.0.0.1", "files.invalid"), tmp_path)
    assert (tmp_path / "model.pt").read_bytes() == CONTENT
    assert [each.split(":")[0] for each in proxy.targets] == ["files.invalid"]


def test_hosts_in_no_proxy_bypass_the_proxy(
    tmp_path: Path, server: FileServer, proxy: Proxy, environment: pytest.MonkeyPatch
) -> None:
    server.files["/model.pt"] = CONTENT
    environment.setenv("ALL_PROXY", proxy.url("socks5"))
    environment.setenv("NO_PROXY", "127.0.0.1")
    download(server.url("/model.pt"), tmp_path)
    assert proxy.targets == []


def test_an_unusable_proxy_is_refused_without_showing_its_password(
    tmp_path: Path, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("ALL_PROXY", "socks://me:secret@127.0.0.1:1")
    with pytest.raises(StageError, match="ALL_PROXY are unusable") as refusal:
        download("http://127.0.0.1:9/model.pt", tmp_path)
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize("separator", ["/x", "#", "?"])
def test_a_proxy_with_an_unescaped_password_is_reported_only_by_its_variable(
    tmp_path: Path, separator: str, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("https_proxy", f"http://me:secret{separator}@proxy:3128")
    with pytest.raises(
        StageError, match="The proxy settings in https_proxy are unusable"
    ) as refusal:
        download("https://127.0.0.1:9/model.pt", tmp_path)
    assert "secret" not in str(refusal.value)
    assert "HTTPS_PROXY" not in str(refusal.value)


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_either_variable_makes_a_companys_certificate_authority_trusted(
    tmp_path: Path,
    secure: FileServer,
    company: Authority,
    variable: str,
    environment: pytest.MonkeyPatch,
) -> None:
    environment.setenv(variable, str(company.file))
    download(secure.url("/model.pt"), tmp_path)
    assert (tmp_path / "model.pt").read_bytes() == CONTENT
    huggingface_hub.close_session()
    assert network.hub_client().get(secure.url("/model.pt")).content == CONTENT
    huggingface_hub.close_session()


def test_the_certificate_authorities_of_all_variables_are_trusted(
    tmp_path: Path, secure: FileServer, company: Authority, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("SSL_CERT_FILE", str(make_authority(tmp_path / "other").file))
    environment.setenv("REQUESTS_CA_BUNDLE", str(company.file))
    download(secure.url("/model.pt"), tmp_path)


def test_an_untrusted_certificate_is_refused_without_retries_and_with_advice(
    tmp_path: Path, secure: FileServer, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("SSL_CERT_FILE", str(make_authority(tmp_path / "other").file))
    waits: list[float] = []
    with pytest.raises(StageError) as refusal:
        fetch(Request(secure.url("/model.pt")), tmp_path / "model.pt", sleep=waits.append)
    assert "its certificate is not trusted" in str(refusal.value)
    assert "set SSL_CERT_FILE or REQUESTS_CA_BUNDLE to" in str(refusal.value)
    assert waits == []


@pytest.mark.parametrize("content", [None, b"no certificate"])
def test_a_file_without_certificates_is_refused_with_the_name_of_its_variable(
    tmp_path: Path, content: bytes | None, environment: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "ca.pem"
    if content is not None:
        bundle.write_bytes(content)
    environment.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    with pytest.raises(StageError, match=f"REQUESTS_CA_BUNDLE names {bundle}"):
        download("https://127.0.0.1:9/model.pt", tmp_path)


@pytest.mark.parametrize(
    ("address", "login"), [("127.0.0.1", "me:word"), ("you:own@127.0.0.1", "you:own")]
)
def test_the_netrc_login_is_sent_to_its_host_unless_the_url_has_a_login(
    tmp_path: Path,
    server: FileServer,
    address: str,
    login: str,
    environment: pytest.MonkeyPatch,
) -> None:
    server.files["/model.pt"] = CONTENT
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password word\n")
    environment.setenv("NETRC", os.fspath(tmp_path / "netrc"))
    download(server.url("/model.pt").replace("127.0.0.1", address), tmp_path)
    sent = server.requests[0][1]["Authorization"]
    assert sent == f"Basic {base64.b64encode(login.encode()).decode()}"
