"""Reads, compares and stores files through fsspec, also on servers that stop answering."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

from tasks.console import address
from tasks.console.progress import SILENT, Progress
from tasks.remote.cache_settings import NO_CACHE, CacheSettings
from tasks.system.errors import StageError
from tasks.system.files import write_and_hash
from tasks.system.fingerprint import FINGERPRINTS

PATIENCE = 10.0  # seconds without a byte, after which a build continues without the cache
# The lowest rate of an upload in bytes per second: not every file system reports progress.
_SLOWEST = 1 << 18
_CHUNK = 1 << 20
_LARGEST_SMALL = 1 << 20
_T = TypeVar("_T")

# botocore's defaults would wait five minutes for a missing server.
_S3 = {"connect_timeout": 5, "read_timeout": 30, "retries": {"max_attempts": 2}}


class Broken(Exception):
    """A file or an entry of the cache does not match its name."""


class Output(NamedTuple):
    """A file that a stage made: its SHA-256, and its size in bytes."""

    sha256: str
    size: int


def output_of(path: Path) -> Output:
    """The hash and size of a file, read now."""
    return Output(FINGERPRINTS.sha256(path), path.stat().st_size)


def import_file_system(settings: CacheSettings) -> None:
    """Import the packages that open an address, which takes a while but makes no request."""
    import fsspec

    try:
        fsspec.get_filesystem_class(fsspec.utils.get_protocol(settings.url))
    except ValueError as error:
        raise _unusable(settings, error) from error
    except ImportError as error:
        raise _not_installed(settings, error) from error


def open_file_system(settings: CacheSettings) -> tuple[Any, str]:
    """fsspec's file system of a cache, and the cache's folder in it.

    :raises StageError: when no file system opens the address. A file system can raise any error.
    """
    import fsspec

    import_file_system(settings)
    options = dict(settings.options)
    if settings.url.startswith(("s3://", "s3a://")):
        options["config_kwargs"] = {**_S3, **options.get("config_kwargs", {})}
    try:
        system, root = fsspec.core.url_to_fs(settings.url, **options)
    except ImportError as error:
        raise _not_installed(settings, error) from error
    except TypeError as error:  # options that a file system does not know, or a missing host
        raise _unusable(settings, error) from error
    return system, root.rstrip("/")


def _not_installed(settings: CacheSettings, error: ImportError) -> StageError:
    extra = " (`uv sync --extra s3`)" if "s3" in settings.url[:4] else ""
    return StageError(
        f"[cache] url: {settings.shown} needs a package that is not installed "
        f"({words(error, settings)}). Install it{extra}; `cache={NO_CACHE}` builds without it."
    )


def _unusable(settings: CacheSettings, error: Exception) -> StageError:
    return StageError(
        f"[cache] url: {settings.shown} cannot be opened: {words(error, settings)}. Expected a "
        "folder, or an address that fsspec supports, as in s3://bucket/folder; "
        f"`cache={NO_CACHE}` builds without it."
    )


def attended(function: Callable[[Callable[[], None]], _T], more: float = 0) -> _T:
    """Call a function that never returns if a server does not answer.

    :param function: calls its argument whenever it received something.
    :param more: seconds to wait beyond `PATIENCE`.
    :raises TimeoutError: when it neither calls nor returns for a while; its thread stays behind,
        and ends at its next call.
    """
    from concurrent.futures import Future

    outcome: Future[_T] = Future()
    heard, given_up = threading.Event(), threading.Event()

    def alive() -> None:
        if given_up.is_set():
            raise TimeoutError
        heard.set()

    def call() -> None:
        try:
            outcome.set_result(function(alive))
        except BaseException as error:
            outcome.set_exception(error)
        heard.set()

    patience = PATIENCE + more
    threading.Thread(target=call, daemon=True).start()
    while not outcome.done():
        if not heard.wait(patience):
            given_up.set()
            raise TimeoutError(f"no answer in {patience:.0f} s")
        heard.clear()
    return outcome.result()


def read_small(system: Any, path: str) -> bytes:
    """A whole file, unless it is larger than 1 MiB."""
    content: bytes = system.cat_file(path, start=0, end=_LARGEST_SMALL)
    return content


def fetch(system: Any, path: str, output: Output, destination: Path, progress: Progress) -> None:
    """Write one file; raises `Broken` if it does not match its hash."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    # Not in the thread: an abandoned thread must not open a file that a stage writes meanwhile.
    writing = destination.open("wb")

    def copy(alive: Callable[[], None]) -> None:
        with writing, system.open(path, "rb") as reading:
            _copy(reading, writing, output, progress, alive)

    attended(copy)


def holds(system: Any, path: str, output: Output, compare: bool) -> bool:
    """Whether a file with that size exists; with ``compare``, also with that hash."""

    def look(alive: Callable[[], None]) -> bool:
        if system.info(path)["size"] != output.size:
            return False
        if compare:
            with system.open(path, "rb") as reading:
                _copy(reading, None, output, SILENT, alive)
        return True

    try:
        return attended(look)
    except (Broken, FileNotFoundError):
        return False


def _copy(
    reading: IO[bytes],
    writing: IO[bytes] | None,
    expected: Output,
    progress: Progress,
    alive: Callable[[], None],
) -> None:
    """Copy a stream, or only read it without a destination, and compare it with its hash."""

    def chunks() -> Iterator[bytes]:
        while chunk := reading.read(_CHUNK):
            alive()
            yield chunk

    digest = hashlib.sha256()
    size = write_and_hash(chunks(), writing, digest, limit=expected.size, advance=progress.advance)
    if size != expected.size or digest.hexdigest() != expected.sha256:
        raise Broken("is cut off, or was altered")


def files_below(system: Any, folder: str) -> dict[str, dict[str, Any]]:
    """The files below a folder, with the file system's information about them."""
    system.invalidate_cache()
    try:
        files: dict[str, dict[str, Any]] = system.find(folder, detail=True)
    except FileNotFoundError:
        return {}
    return files


def modified(info: Mapping[str, Any]) -> datetime | None:
    """The time when a file was written, from any of the keys that file systems use."""
    for key in ("LastModified", "mtime", "modified", "updated"):
        value = info.get(key)
        if isinstance(value, int | float):
            return datetime.fromtimestamp(value, UTC)
        if isinstance(value, datetime):
            return value if value.tzinfo else value.replace(tzinfo=UTC)
    return None


def put(system: Any, root: str, source: Path, path: str) -> None:
    """Write a file completely or not at all; a `TimeoutError` after a time that fits its size."""
    from fsspec.callbacks import Callback

    folder = path.rpartition("/")[0]
    unfinished = f"{path}.{uuid.uuid4().hex}.part"

    def put(alive: Callable[[], None]) -> None:
        progress = Callback(hooks={"alive": lambda size, value: alive()})
        if system.async_impl:  # an object store, where files appear only complete
            system.put_file(str(source), path, callback=progress)
            return
        system.makedirs(folder, exist_ok=True)
        system.put_file(str(source), unfinished, callback=progress)
        if getattr(system, "local_file", False):
            _share(Path(root), Path(folder), Path(unfinished))
        alive()
        system.mv(unfinished, path)

    try:
        attended(put, source.stat().st_size / _SLOWEST)
    except TimeoutError:
        raise  # a server that does not answer cannot remove the file either
    except BaseException:
        if not system.async_impl:
            with suppress(Exception):
                system.rm_file(unfinished)
        raise


def _share(root: Path, folder: Path, file: Path) -> None:
    """Give all users with write access to a cache's folder its files, despite this user's umask."""
    wanted = stat.S_IMODE(root.stat().st_mode)
    if not wanted & (stat.S_IWGRP | stat.S_IWOTH):
        return
    below = [each for each in (folder, *folder.parents) if root in each.parents]
    for path, mode in (*((each, wanted) for each in below), (file, wanted & 0o666)):
        if path.stat().st_uid == os.geteuid():  # other users set the modes of their own files
            with suppress(PermissionError):  # the root folder's group might not include this user
                os.chown(path, -1, root.stat().st_gid)
            path.chmod(mode)


def words(error: BaseException, settings: CacheSettings) -> str:
    """An error's text in one line without secrets; file systems raise errors of any class."""
    text = address.without_secrets(str(error), settings.url, settings.options)
    line = " ".join(text.split()) or type(error).__name__
    return line if len(line) < 300 else f"{line[:300]}…"
