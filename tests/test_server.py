"""The loopback server: what it serves, how, and what it never serves."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tasks.web.server import application, serving


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret.txt").write_text("not for you")
    page = tmp_path / "page"
    (page / "models").mkdir(parents=True)
    (page / "index.html").write_text("<!doctype html>")
    for name in ("script.mjs", "page.js", "runtime.wasm", "encoder.onnx"):
        (page / "models" / name).write_bytes(bytes(range(200)))
    (page / "models/link.txt").symlink_to(tmp_path / "secret.txt")
    return page


@pytest.fixture
def address(folder: Path) -> Iterator[str]:
    folders = {"/m": folder / "models", "/later": folder / "later", "/": folder}
    with serving(application(folders, {"/list.json": lambda: ["tiny"]})) as address:
        yield address


def test_the_server_listens_on_loopback_only(address: str) -> None:
    assert address.startswith("http://127.0.0.1:")
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None)}
    for other in others - {"127.0.0.1", "::1"}:
        with pytest.raises(httpx2.TransportError):
            httpx2.get(address.replace("127.0.0.1", str(other)), timeout=1)


def test_pages_are_cross_origin_isolated_for_wasm_threads(address: str) -> None:
    headers = httpx2.get(address).headers
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("script.mjs", "text/javascript"),
        ("page.js", "text/javascript"),
        ("runtime.wasm", "application/wasm"),
    ],
)
def test_modules_and_webassembly_have_the_types_that_browsers_require(
    address: str, name: str, media_type: str
) -> None:
    assert httpx2.get(f"{address}/m/{name}").headers["Content-Type"].split(";")[0] == media_type


def test_an_unchanged_file_is_not_sent_again(address: str, folder: Path) -> None:
    url = f"{address}/m/encoder.onnx"
    etag = httpx2.get(url).headers["ETag"]
    assert httpx2.get(url, headers={"If-None-Match": etag}).status_code == 304
    (folder / "models/encoder.onnx").write_bytes(b"another")
    assert httpx2.get(url, headers={"If-None-Match": etag}).content == b"another"


def test_a_range_request_gets_that_part_of_a_file(address: str) -> None:
    answer = httpx2.get(f"{address}/m/encoder.onnx", headers={"Range": "bytes=10-19"})
    assert answer.status_code == 206
    assert answer.content == bytes(range(10, 20))
    assert answer.headers["Content-Range"] == "bytes 10-19/200"


@pytest.mark.parametrize("path", ["/m/nothing.onnx", "/nothing", "/later/encoder.onnx"])
def test_a_missing_file_is_404_without_an_html_page(address: str, path: str) -> None:
    answer = httpx2.get(address + path)
    assert answer.status_code == 404
    assert "<" not in answer.text


@pytest.mark.parametrize(
    "path", ["/../secret.txt", "/%2e%2e/secret.txt", "/m/..%2f..%2fsecret.txt"]
)
def test_nothing_above_a_folder_is_served(address: str, path: str) -> None:
    connection = http.client.HTTPConnection(address.removeprefix("http://"))
    connection.request("GET", path)  # other clients would remove the dots
    assert connection.getresponse().status == 404
    connection.close()


def test_a_link_out_of_a_folder_is_not_followed(address: str) -> None:
    assert httpx2.get(f"{address}/m/link.txt").status_code == 404


def test_a_file_that_appears_later_is_served(address: str, folder: Path) -> None:
    (folder / "later").mkdir()
    (folder / "later/encoder.onnx").write_bytes(b"built")
    assert httpx2.get(f"{address}/later/encoder.onnx").content == b"built"


def test_a_request_for_another_host_name_is_refused(address: str) -> None:
    answer = httpx2.get(address, headers={"Host": "rebound.example"})
    assert answer.status_code == 400


def test_a_document_is_generated_at_each_request(address: str) -> None:
    assert httpx2.get(f"{address}/list.json").json() == ["tiny"]


def test_a_port_that_is_taken_is_an_error(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="in use"), serving(application({"/": folder}), port):
            pass


@pytest.mark.parametrize("name", ["lab42.example", "10.0.0.7", "LAB42.example"])
def test_only_requests_for_the_given_names_are_answered(folder: Path, name: str) -> None:
    app = application({"/": folder}, names=["lab42.example", "10.0.0.7"])
    with serving(app, host="0.0.0.0") as address:
        port = address.rpartition(":")[2]
        url = f"http://127.0.0.1:{port}/"
        assert httpx2.get(url, headers={"Host": f"{name}:{port}"}).status_code == 200
        for other in ("rebound.example", "www.lab42.example", "lab42.example.net", "0.0.0.0"):
            assert httpx2.get(url, headers={"Host": other}).status_code == 400


def test_an_ipv6_address_is_served_and_written_in_brackets(folder: Path) -> None:
    try:
        with serving(application({"/": folder}, names=["::1"]), host="::1") as address:
            assert address.startswith("http://[::1]:")
            assert httpx2.get(address).status_code == 200
    except OSError:
        pytest.skip("this machine has no IP 6")
