"""Reads, compares and puts files where fsspec finds them, as on a server that stops to answer."""

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

PATIENCE = 10.0  # seconds without a byte, after which a cache is done without
# Bytes in a second that a cache takes at least: not every file system says how far a file has come.
_SLOWEST = 1 << 18
_CHUNK = 1 << 20
_LARGEST_SMALL = 1 << 20
_T = TypeVar("_T")

# botocore's own would wait five minutes for a server that is not there.
_S3 = {"connect_timeout": 5, "read_timeout": 30, "retries": {"max_attempts": 2}}


class Broken(Exception):
    """Something in the cache is not what its name says."""


class Output(NamedTuple):
    """A file that a stage made: its SHA-256, and its size in bytes."""

    sha256: str
    size: int


def output_of(path: Path) -> Output:
    """What a file is now."""
    return Output(FINGERPRINTS.sha256(path), path.stat().st_size)


def import_file_system(settings: CacheSettings) -> None:
    """Import what opens such an address, which takes a while and asks no server."""
    import fsspec

    try:
        fsspec.get_filesystem_class(fsspec.utils.get_protocol(settings.url))
    except ValueError as error:
        raise _unusable(settings, error) from error
    except ImportError as error:
        raise _not_installed(settings, error) from error


def open_file_system(settings: CacheSettings) -> tuple[Any, str]:
    """fsspec's file system of a cache, and the cache's folder in it.

    :raises StageError: when nothing opens such an address. A file system may raise anything.
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
    except TypeError as error:  # options that a file system does not know, or a host that it needs
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
        "folder, or an address that fsspec knows, as s3://bucket/folder; "
        f"`cache={NO_CACHE}` builds without it."
    )


def attended(function: Callable[[Callable[[], None]], _T], more: float = 0) -> _T:
    """Call a function that may never come back from a server that does not answer.

    :param function: calls what it is handed whenever it got something.
    :param more: seconds to wait beyond `PATIENCE`.
    :raises TimeoutError: when it neither does nor ends for a while; its thread is left behind, and
        ends at the next such call.
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
    """Write one file; raises `Broken` when it is not what its hash says."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    # Not in the thread: one that is given up must not open what a stage writes meanwhile.
    writing = destination.open("wb")

    def copy(alive: Callable[[], None]) -> None:
        with writing, system.open(path, "rb") as reading:
            _copy(reading, writing, output, progress, alive)

    attended(copy)


def holds(system: Any, path: str, output: Output, compare: bool) -> bool:
    """Whether a file of that size is there; with ``compare``, of that hash too."""

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
    """Write what is read, if there is where to, and compare it with its hash."""

    def chunks() -> Iterator[bytes]:
        while chunk := reading.read(_CHUNK):
            alive()
            yield chunk

    digest = hashlib.sha256()
    size = write_and_hash(chunks(), writing, digest, limit=expected.size, advance=progress.advance)
    if size != expected.size or digest.hexdigest() != expected.sha256:
        raise Broken("is cut off, or was altered")


def files_below(system: Any, folder: str) -> dict[str, dict[str, Any]]:
    """The files below a folder with what the file system tells of them."""
    system.invalidate_cache()
    try:
        files: dict[str, dict[str, Any]] = system.find(folder, detail=True)
    except FileNotFoundError:
        return {}
    return files


def modified(info: Mapping[str, Any]) -> datetime | None:
    """When a file was written, in the ways that file systems tell it."""
    for key in ("LastModified", "mtime", "modified", "updated"):
        value = info.get(key)
        if isinstance(value, int | float):
            return datetime.fromtimestamp(value, UTC)
        if isinstance(value, datetime):
            return value if value.tzinfo else value.replace(tzinfo=UTC)
    return None


def put(system: Any, root: str, source: Path, path: str) -> None:
    """Write a file, whole or not at all; a `TimeoutError` after a time that fits its size."""
    from fsspec.callbacks import Callback

    folder = path.rpartition("/")[0]
    unfinished = f"{path}.{uuid.uuid4().hex}.part"

    def put(alive: Callable[[], None]) -> None:
        progress = Callback(hooks={"alive": lambda size, value: alive()})
        if system.async_impl:  # an object store, where a file appears whole
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
        raise  # whoever does not answer removes nothing
    except BaseException:
        if not system.async_impl:
            with suppress(Exception):
                system.rm_file(unfinished)
        raise


def _share(root: Path, folder: Path, file: Path) -> None:
    """Let whoever may write to a cache's folder use what lies in it, whatever this user's umask."""
    wanted = stat.S_IMODE(root.stat().st_mode)
    if not wanted & (stat.S_IWGRP | stat.S_IWOTH):
        return
    below = [each for each in (folder, *folder.parents) if root in each.parents]
    for path, mode in (*((each, wanted) for each in below), (file, wanted & 0o666)):
        if path.stat().st_uid == os.geteuid():  # of the others, their users have seen to
            with suppress(PermissionError):  # the root folder may be of a group that is not theirs
                os.chown(path, -1, root.stat().st_gid)
            path.chmod(mode)


def words(error: BaseException, settings: CacheSettings) -> str:
    """An error in a line without secrets: libraries of file systems raise what they like."""
    text = address.without_secrets(str(error), settings.url, settings.options)
    line = " ".join(text.split()) or type(error).__name__
    return line if len(line) < 300 else f"{line[:300]}…"
