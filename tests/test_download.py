"""Downloads from a real server that misbehaves in every way that the build promises to handle."""

from __future__ import annotations

import hashlib
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from server import Fault, FileServer

from tasks.remote.answers import Request
from tasks.remote.download import Fetched, RetryPolicy, check, fetch
from tasks.system.errors import StageError

CONTENT = bytes(range(256)) * 4096
SHA256 = hashlib.sha256(CONTENT).hexdigest()
CHUNK = 1 << 16


class Download:
    """A file on the server, and its place on disk."""

    def __init__(self, server: FileServer, folder: Path) -> None:
        server.files["/model.pt"] = CONTENT
        self.server = server
        self.target = folder / "model.pt"
        self.part = folder / "model.pt.part"
        self.waits: list[float] = []

    def fetch(
        self,
        sha256: str | None = SHA256,
        size: int | None = len(CONTENT),
        path: str = "/model.pt",
        attempts: int = 4,
    ) -> Fetched:
        return fetch(
            Request(self.server.url(path), sha256, size, "[models.x]"),
            self.target,
            policy=RetryPolicy(attempts=attempts, first_wait=2.0),
            sleep=self.waits.append,
        )

    def refused(self, **keys: object) -> str:
        with pytest.raises(StageError) as refusal:
            self.fetch(**keys)  # type: ignore[arg-type]
        return str(refusal.value)


@pytest.fixture
def download(server: FileServer, tmp_path: Path) -> Download:
    return Download(server, tmp_path)


def test_a_download_returns_the_complete_file_and_its_hash(download: Download) -> None:
    assert download.fetch() == Fetched(SHA256, len(CONTENT))
    assert download.target.read_bytes() == CONTENT
    assert [path.name for path in download.target.parent.iterdir()] == ["model.pt"]


def test_a_dropped_connection_is_resumed_where_it_broke(download: Download) -> None:
    download.server.faults.append(Fault(drop_after=300_000))
    assert download.fetch().sha256 == SHA256
    assert download.server.ranges() == [None, f"bytes={300_000 // CHUNK * CHUNK}-"]


def test_dropped_connections_are_retried_as_long_as_bytes_arrive(download: Download) -> None:
    for _ in range(8):
        download.server.faults.append(Fault(drop_after=2 * CHUNK - 1))
    assert download.fetch(attempts=2).sha256 == SHA256
    assert len(download.server.requests) == 9


def test_a_partial_file_of_an_earlier_run_is_resumed(download: Download) -> None:
    download.server.faults += [Fault(drop_after=300_000), Fault(status=404)]
    assert "answered 404" in download.refused()
    kept = download.part.stat().st_size
    assert kept > 0
    assert download.fetch() == Fetched(SHA256, len(CONTENT) - kept)


def test_a_partial_file_is_restarted_if_the_file_on_the_server_changed(download: Download) -> None:
    download.server.faults += [Fault(drop_after=300_000), Fault(status=404)]
    download.refused(sha256=None)
    download.server.files["/model.pt"] = CONTENT[::-1]
    assert download.fetch(sha256=None).sha256 == hashlib.sha256(CONTENT[::-1]).hexdigest()
    assert download.server.requests[-1][1]["If-Range"]


def test_the_rest_of_another_version_is_never_appended_to_a_partial_file(
    download: Download,
) -> None:
    """Some servers ignore If-Range; without a hash, nothing else would detect the wrong rest."""
    download.server.faults += [Fault(drop_after=300_000), Fault(status=404)]
    download.refused(sha256=None, size=None)
    changed = CONTENT[::-1]
    download.server.files["/model.pt"] = changed
    download.server.faults.append(Fault(ignore_if_range=True))
    fetched = download.fetch(sha256=None, size=None)
    assert download.target.read_bytes() == changed
    assert fetched.sha256 == hashlib.sha256(changed).hexdigest()


def test_a_partial_file_is_resumed_from_a_mirror_with_the_same_hash(download: Download) -> None:
    download.server.faults += [Fault(drop_after=300_000), Fault(status=404)]
    download.refused()
    download.server.files["/mirror.pt"] = CONTENT
    assert download.fetch(path="/mirror.pt").sha256 == SHA256
    assert "If-Range" not in download.server.requests[-1][1]
    assert download.server.ranges()[-1] is not None


def test_a_partial_file_of_another_file_is_not_resumed(download: Download) -> None:
    download.server.faults += [Fault(drop_after=300_000), Fault(status=404)]
    download.refused()
    download.server.files["/other.pt"] = CONTENT[::-1]
    digest = hashlib.sha256(CONTENT[::-1]).hexdigest()
    assert download.fetch(sha256=digest, path="/other.pt").sha256 == digest
    assert download.server.ranges()[-1] is None


def test_a_corrupt_partial_file_is_discarded_once(download: Download) -> None:
    download.server.faults += [Fault(drop_after=300_000), Fault(status=404)]
    download.refused()
    download.part.write_bytes(b"spoilt" + download.part.read_bytes()[6:])
    assert download.fetch().sha256 == SHA256


def test_a_partial_file_that_is_complete_is_not_downloaded_again(download: Download) -> None:
    download.server.faults += [Fault(drop_after=300_000), Fault(status=404)]
    download.refused()
    download.part.write_bytes(CONTENT)
    assert download.fetch() == Fetched(SHA256, 0)


def test_a_server_without_ranges_sends_the_whole_file_again(download: Download) -> None:
    download.server.faults += [Fault(drop_after=300_000), Fault(ignore_range=True)]
    assert download.fetch().sha256 == SHA256
    assert download.target.read_bytes() == CONTENT


def test_a_503_is_retried_after_the_wait_in_retry_after(download: Download) -> None:
    download.server.faults.append(Fault(status=503, headers={"Retry-After": "7"}))
    download.fetch()
    assert download.waits == [7.0]


def test_waits_grow_without_a_retry_after_header(download: Download) -> None:
    download.server.faults += [Fault(status=500), Fault(status=502), Fault(status=429)]
    download.fetch()
    first, second, third = download.waits
    assert 1 <= first <= 2 <= second <= 4 <= third <= 8


def test_a_server_that_stays_down_is_an_error_with_a_remedy(download: Download) -> None:
    for _ in range(4):
        download.server.faults.append(Fault(status=503))
    message = download.refused()
    assert download.server.url("/model.pt") in message
    assert "answered 503 (4 attempts" in message
    assert "run the same command" in message


def test_a_retry_after_of_an_hour_is_refused_without_waiting(download: Download) -> None:
    download.server.faults.append(Fault(status=429, headers={"Retry-After": "3600"}))
    assert "requests a wait of 3600 s" in download.refused()
    assert download.waits == []


def test_an_unreachable_host_is_named_with_the_table_that_configures_it(
    tmp_path: Path,
) -> None:
    gone = FileServer()
    download = Download(gone, tmp_path)
    gone.close()
    problem = download.refused(attempts=2)
    assert f"{download.server.url('').removeprefix('http://')} cannot be reached" in problem
    assert "the url in [models.x]" in problem


def test_a_missing_file_is_refused_without_a_retry(download: Download) -> None:
    message = download.refused(path="/gone.pt")
    assert "answered 404" in message
    assert "[models.x]" in message
    assert download.waits == []


@pytest.mark.parametrize(
    "fault",
    [
        Fault(body=b"<!doctype html>", headers={"Content-Type": "text/html; charset=utf-8"}),
        Fault(body=b"\n <html>", headers={"Content-Type": "application/octet-stream"}),
        Fault(body=b"<!DOCTYPE HTML PUBLIC>", headers={"Content-Type": "binary/octet-stream"}),
        Fault(body=b'\xef\xbb\xbf<?xml version="1.0"?><Error>'),
    ],
)
def test_a_web_page_is_refused(download: Download, fault: Fault) -> None:
    download.server.faults.append(fault)
    message = download.refused(size=None)
    assert "web page; expected a checkpoint" in message
    assert download.server.url("/model.pt") in message


def test_a_safetensors_file_that_starts_like_a_tag_is_not_taken_for_a_web_page(
    download: Download,
) -> None:
    """Its first bytes are the length of its header, which can read as `` <``."""
    content = int.from_bytes(b" <", "little").to_bytes(8, "little") + b'{"a":' + bytes(1000)
    download.server.files["/model.pt"] = content
    digest = hashlib.sha256(content).hexdigest()
    assert download.fetch(sha256=digest, size=None).sha256 == digest


@pytest.mark.parametrize(
    "fault",
    [
        Fault(claimed_length="9" * 5000),
        Fault(status=206, headers={"Content-Range": f"bytes 0-9/{'9' * 5000}"}, body=b"0" * 10),
        Fault(status=503, headers={"Retry-After": "9" * 5000}),
    ],
    ids=["Content-Length", "Content-Range", "Retry-After"],
)
def test_a_header_number_of_5000_digits_is_an_error_without_a_traceback(
    download: Download, fault: Fault
) -> None:
    download.server.faults += [fault] * 4
    assert download.server.url("/model.pt") in download.refused()


def test_a_size_of_5000_digits_leaves_the_url_unchecked(download: Download) -> None:
    download.server.faults.append(Fault(claimed_length="9" * 5000))
    problem = check(Request(download.server.url("/model.pt"), size=len(CONTENT)))
    assert problem is not None
    assert "was not checked" in problem


def test_a_wrong_hash_is_refused_with_both_hashes(download: Download) -> None:
    message = download.refused(sha256="0" * 64)
    assert "0" * 64 in message
    assert SHA256 in message
    assert not download.part.exists()


@pytest.mark.parametrize("size", [len(CONTENT) - 1, len(CONTENT) + 1])
def test_a_wrong_size_is_refused_with_both_sizes(download: Download, size: int) -> None:
    message = download.refused(size=size)
    assert f"expected {size} bytes, found {len(CONTENT)}" in message


def test_a_response_shorter_than_its_content_length_is_refused(download: Download) -> None:
    for _ in range(6):
        download.server.faults.append(Fault(claimed_length=len(CONTENT) + 100))
    download.server.etags["/model.pt"] = ""
    assert "could not be downloaded" in download.refused(sha256=None, size=None)
    assert not download.target.exists()


def test_an_existing_file_is_kept_when_the_new_download_is_refused(download: Download) -> None:
    download.target.write_bytes(b"good")
    download.refused(sha256="0" * 64)
    assert download.target.read_bytes() == b"good"


def test_too_little_disk_space_is_reported_before_the_download(
    download: Download, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 1000, 1000))
    message = download.refused()
    assert "not enough disk" in message
    assert "the download needs 1.0 MiB" in message
    assert not download.part.exists()
