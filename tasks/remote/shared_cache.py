"""A cache that several builds share: what a stage made, under the hash of all that decides it.

fsspec opens it: a folder, S3, SSH, WebDAV and so on. Below its address lie

* ``v1/entries/<stage>/<key>.json``: the SHA-256 and size of each output, and the stage's result;
* ``v1/files/<ab>/<sha256>``: their bytes, which entries may share.

Files come before the entry that names them, so an entry is whole or not there. What comes is held
to its SHA-256; whether it is *right* is for the proofs to say. A cache that fails costs a warning
and no build: only a mistake in its address is an error.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

from tasks.console import address
from tasks.console.progress import SILENT, Progress
from tasks.system.cache_settings import NO_CACHE, CacheSettings, local_folder
from tasks.system.errors import StageError
from tasks.system.fingerprint import FINGERPRINTS

FORMAT = "v1"
PATIENCE = 10.0  # seconds without a byte, after which a cache is done without
# Bytes in a second that a cache takes at least: not every file system says how far a file has come.
_SLOWEST = 1 << 18
_CHUNK = 1 << 20
_LARGEST_ENTRY = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")
_T = TypeVar("_T")

# botocore's own would wait five minutes for a server that is not there.
_S3 = {"connect_timeout": 5, "read_timeout": 30, "retries": {"max_attempts": 2}}


class Output(NamedTuple):
    """A file that a stage made: its SHA-256, and its size in bytes."""

    sha256: str
    size: int


class Entry(NamedTuple):
    """What a stage made and returned; ``stored`` is the time, UTC, in ISO 8601."""

    key: str
    outputs: tuple[Output, ...]
    result: Mapping[str, Any]
    stored: str


class CachedFile(NamedTuple):
    """A file of the cache; ``modified`` is None where the file system does not tell."""

    sha256: str
    size: int
    modified: datetime | None


class Broken(Exception):
    """Something in the cache is not what its name says."""


def key_of(stage: str, decided_by: Mapping[str, Any], paths: Mapping[str, str]) -> str:
    """The key of what a stage makes; pure.

    :param decided_by: all that shapes it, as JSON.
    :param paths: what to write in place of a path, which may be one of this machine alone.
    """

    def named(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(key): named(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [named(each) for each in value]
        return paths.get(value, value) if isinstance(value, str) else value

    text = json.dumps([FORMAT, stage, named(decided_by)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


class SharedCache:
    """A cache at one address, as this process uses it: what fails once is not tried again."""

    def __init__(self, settings: CacheSettings) -> None:
        self.settings = settings
        self.name = settings.shown
        self._opening = threading.Lock()  # which a server that does not answer may keep
        self._lock = threading.Lock()
        self._opened: tuple[Any, str] | None = None
        self._said: set[str] = set()
        self._whole: set[str] = set()  # files that are there as their names say
        self._reads = True
        self._writes = settings.write

    @property
    def is_remote(self) -> bool:
        """Whether it is on another machine, as far as the address tells."""
        return local_folder(self.settings.url) is None

    def open(self) -> tuple[Any, str]:
        """The file system and the folder in it.

        :raises StageError: when nothing can open such an address. A file system may raise anything.
        """
        with self._opening:
            if self._opened is None:
                self._opened = _open(self.settings)
            return self._opened

    def find(self, stage: str, key: str, count: int) -> Entry | None:
        """What a stage made in another build; None when there is none, or it cannot be read.

        :param count: of its outputs.
        :raises StageError: when nothing can open the cache's address.
        """
        if not self._reads:
            return None
        try:
            _import(self.settings)
            text = _attended(lambda alive: self._read_entry(stage, key, alive))
            return parse_entry(text, key, count)
        except FileNotFoundError:
            return None
        except StageError:
            raise
        except Broken as error:
            self.warn(f"{stage}: its entry {error}; it is built here")
        except Exception as error:
            self._reads = self._writes = False
            self.warn(f"{self.words(error)}; this build goes on without it")
        return None

    def _read_entry(self, stage: str, key: str, alive: Callable[[], None]) -> bytes:
        system, root = self.open()
        alive()
        return _read_small(system, entry_path(root, stage, key))

    def fetch(self, entry: Entry, destinations: Sequence[Path], progress: Progress) -> bool:
        """Write an entry's outputs; False, with a warning, unless each is what its hash says.

        :param progress: is told of bytes.
        """
        system, root = self.open()
        total = sum(each.size for each in entry.outputs)
        progress.start(total, 0)
        try:
            for output, destination in zip(entry.outputs, destinations, strict=True):
                _fetch(system, root, output, destination, progress)
            return True
        except (Broken, FileNotFoundError) as error:
            about = str(error) if isinstance(error, Broken) else "is not there"
            self.warn(f"the file {output.sha256[:12]} {about}; it is built here")
        except Exception as error:
            if isinstance(error, OSError) and error.filename in map(str, destinations):
                raise  # of this machine
            self._reads = self._writes = False
            self.warn(f"{self.words(error)}; this build goes on without it")
        finally:
            progress.finish()
        return False

    def store(
        self, stage: str, key: str, outputs: Sequence[Path], result: Mapping[str, Any]
    ) -> None:
        """Put what a stage made there, unless it is there; a failure is a warning."""
        if not self._writes:
            return
        told = tuple(Output(FINGERPRINTS.sha256(path), path.stat().st_size) for path in outputs)
        try:
            _import(self.settings)
            system, root = _attended(lambda alive: self.open())
            self._put_files(dict(zip(outputs, told, strict=True)))
            now = datetime.now(UTC).isoformat(timespec="seconds")
            with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
                file.write(entry_text(Entry(key, told, result, now)))
                file.flush()
                _put(system, root, Path(file.name), entry_path(root, stage, key))
        except StageError:
            raise
        except Exception as error:
            self._writes = False
            if isinstance(error, TimeoutError):  # the connection may still be in use
                self._reads = False
            self.warn(f"{self.words(error)}; what is built here does not go there")

    def _put_files(self, files: Mapping[Path, Output]) -> None:
        system, root = self.open()
        for path, output in files.items():
            known = output.sha256 in self._whole
            if not _holds(system, root, output, compare=not known):
                _put(system, root, path, file_path(root, output.sha256))
            self._whole.add(output.sha256)

    def hand_over(self, files: Mapping[Path, Output]) -> None:
        """Put files there for another machine to `take`.

        :raises StageError: when that is not possible.
        """
        with self._must("write to"):
            self._put_files(files)

    def take(self, files: Mapping[Path, Output]) -> None:
        """Write files that another machine has handed over.

        :raises StageError: when one is not there, or not what its hash says.
        """
        with self._must("read from"):
            system, root = self.open()
            for path, output in files.items():
                _fetch(system, root, output, path, SILENT)

    @contextmanager
    def _must(self, what: str) -> Iterator[None]:
        try:
            yield
        except StageError:
            raise
        except Exception as error:
            raise StageError(
                f"The cache {self.name} is how files come to workers that do not see the build "
                f"folder. This build could not {what} it: {self.words(error)}."
            ) from error

    def entries(self) -> tuple[dict[str, tuple[str, Entry]], dict[str, str]]:
        """Every entry with its stage, by its path; and what is wrong with the others."""
        system, root = self.open()
        found: dict[str, tuple[str, Entry]] = {}
        broken: dict[str, str] = {}
        for path in _below(system, f"{root}/{FORMAT}/entries"):
            stage, _, name = path.rpartition("/")
            try:
                entry = parse_entry(_read_small(system, path), name.removesuffix(".json"))
                found[path] = stage.rpartition("/")[2], entry
            except (Broken, FileNotFoundError) as error:
                broken[path] = str(error)
        return found, broken

    def files(self) -> dict[str, CachedFile]:
        """Every file of an output, whole or not, by its path."""
        system, root = self.open()
        return {
            path: CachedFile(path.rpartition("/")[2], int(told["size"]), _modified(told))
            for path, told in _below(system, f"{root}/{FORMAT}/files").items()
        }

    def remove(self, paths: Sequence[str]) -> None:
        """Remove entries and files; one that is gone already is no error."""
        system, _ = self.open()
        for path in paths:
            with suppress(FileNotFoundError):
                system.rm_file(path)

    def replace_only(self) -> None:
        """Do not read from now on: what is built takes the place of what is there."""
        self._reads = False

    def words(self, error: BaseException) -> str:
        """What went wrong, in a line that may be shown."""
        return _words(error, self.settings)

    def shown(self, path: str) -> str:
        """A path in it as it may be shown: of some file systems it has the whole address."""
        return address.without_secrets(path, self.settings.url, self.settings.options)

    def warn(self, text: str) -> None:
        """Say once what is wrong with it."""
        with self._lock:
            if text in self._said:
                return
            self._said.add(text)
        sys.stderr.write(f"warning: cache {self.name}: {text}.\n")


_REPLACED = False


def rebuild_all() -> None:
    """Take nothing from a cache in this process, as with ``doit -a``."""
    global _REPLACED
    _REPLACED = True


@cache
def opened_by(settings: CacheSettings) -> SharedCache:
    """The one cache of a configuration in this process."""
    found = SharedCache(settings)
    if _REPLACED:
        found.replace_only()
    return found


def entry_path(root: str, stage: str, key: str) -> str:
    """Where an entry lies."""
    return f"{root}/{FORMAT}/entries/{stage}/{key}.json"


def file_path(root: str, sha256: str) -> str:
    """Where a file lies."""
    return f"{root}/{FORMAT}/files/{sha256[:2]}/{sha256}"


def entry_text(entry: Entry) -> str:
    """An entry as it is written; pure."""
    return json.dumps(entry._asdict() | {"outputs": [each._asdict() for each in entry.outputs]})


def parse_entry(text: bytes, key: str, count: int | None = None) -> Entry:
    """Read an entry, of which nothing is believed; pure.

    :raises Broken: when it is none, or another's.
    """
    try:
        told = json.loads(text)
        outputs = tuple(Output(str(each["sha256"]), int(each["size"])) for each in told["outputs"])
        entry = Entry(str(told["key"]), outputs, dict(told["result"]), str(told["stored"]))
    except (ValueError, KeyError, TypeError):
        raise Broken("is cut off, or none") from None
    if entry.key != key:
        raise Broken("is that of something else")
    if not all(_SHA256.fullmatch(each.sha256) and each.size >= 0 for each in outputs):
        raise Broken("names files by what is no SHA-256")
    for name, kind in {"summary": str, "note": str, "peak_memory": int}.items():
        if not isinstance(entry.result.get(name), kind | None):
            raise Broken(f"has a {name} that is none")
    if count is not None and len(outputs) != count:
        raise Broken(f"has {len(outputs)} files, where {count} are expected")
    return entry._replace(result=_printable(entry.result))


def _printable(value: Any) -> Any:
    """JSON without what a terminal would obey."""
    if isinstance(value, str):
        return "".join(each for each in value if each.isprintable() or each == "\n")
    if isinstance(value, Mapping):
        return {_printable(key): _printable(each) for key, each in value.items()}
    return [_printable(each) for each in value] if isinstance(value, list) else value


def _import(settings: CacheSettings) -> None:
    """Import what opens such an address, which takes a while and asks no server.

    :raises StageError: when there is nothing.
    """
    import fsspec

    try:
        fsspec.get_filesystem_class(fsspec.utils.get_protocol(settings.url))
    except ValueError as error:
        raise _unusable(settings, error) from error
    except ImportError as error:
        raise _not_installed(settings, error) from error


def _open(settings: CacheSettings) -> tuple[Any, str]:
    import fsspec

    _import(settings)
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
        f"({_words(error, settings)}). Install it{extra}; `cache={NO_CACHE}` builds without it."
    )


def _unusable(settings: CacheSettings, error: Exception) -> StageError:
    return StageError(
        f"[cache] url: {settings.shown} cannot be opened: {_words(error, settings)}. Expected a "
        "folder, or an address that fsspec knows, as s3://bucket/folder; "
        f"`cache={NO_CACHE}` builds without it."
    )


def _attended(function: Callable[[Callable[[], None]], _T], more: float = 0) -> _T:
    """Call a function that may never come back from a server that does not answer.

    :param function: calls what it is handed whenever it got something.
    :param more: seconds to wait beyond `PATIENCE`.
    :raises TimeoutError: when it neither does nor ends for a while; it is left behind in a thread,
        where the next such call ends it.
    """
    found: list[_T] = []
    raised: list[BaseException] = []
    heard = threading.Event()
    given_up = threading.Event()

    def alive() -> None:
        if given_up.is_set():
            raise TimeoutError
        heard.set()

    def call() -> None:
        try:
            found.append(function(alive))
        except BaseException as error:
            raised.append(error)
        heard.set()

    patience = PATIENCE + more
    threading.Thread(target=call, daemon=True).start()
    while not found and not raised:
        if not heard.wait(patience):
            given_up.set()
            raise TimeoutError(f"no answer in {patience:.0f} s")
        heard.clear()
    if raised:
        raise raised[0]
    return found[0]


def _read_small(system: Any, path: str) -> bytes:
    """A whole file, unless it is larger than any entry."""
    content: bytes = system.cat_file(path, start=0, end=_LARGEST_ENTRY)
    return content


def _fetch(system: Any, root: str, output: Output, destination: Path, progress: Progress) -> None:
    """Write one file.

    :raises Broken: when it is not what its hash says.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    # Not in the thread: one that is given up must not open what a stage writes meanwhile.
    writing = destination.open("wb")

    def copy(alive: Callable[[], None]) -> None:
        with writing, system.open(file_path(root, output.sha256), "rb") as reading:
            _copy(reading, writing, output, progress, alive)

    _attended(copy)


def _holds(system: Any, root: str, output: Output, compare: bool) -> bool:
    """Whether a file of that size is there.

    :param compare: its bytes too, with what its name says.
    """
    place = file_path(root, output.sha256)

    def look(alive: Callable[[], None]) -> bool:
        if _size(system, place) != output.size:
            return False
        if compare:
            with system.open(place, "rb") as reading:
                _copy(reading, None, output, SILENT, alive)
        return True

    try:
        return _attended(look)
    except (Broken, FileNotFoundError):
        return False


def _copy(
    reading: Any,
    writing: BinaryIO | None,
    expected: Output,
    progress: Progress,
    alive: Callable[[], None],
) -> None:
    """Write what is read, unless there is nowhere to; hold it to its hash."""
    digest, size = hashlib.sha256(), 0
    while chunk := reading.read(_CHUNK):
        alive()
        size += len(chunk)
        if size > expected.size:
            break
        digest.update(chunk)
        if writing is not None:
            try:
                writing.write(chunk)
            except OSError as error:
                error.filename = writing.name  # which a failed write does not name
                raise
        progress.advance(len(chunk))
    if size != expected.size or digest.hexdigest() != expected.sha256:
        raise Broken("is cut off, or was altered")


def _below(system: Any, folder: str) -> dict[str, dict[str, Any]]:
    """The files below a folder with what the file system tells of them."""
    system.invalidate_cache()
    try:
        found: dict[str, dict[str, Any]] = system.find(folder, detail=True)
    except FileNotFoundError:
        return {}
    return found


def _modified(told: Mapping[str, Any]) -> datetime | None:
    """When a file was written, in the ways that file systems tell it."""
    for key in ("LastModified", "mtime", "modified", "updated"):
        value = told.get(key)
        if isinstance(value, int | float):
            return datetime.fromtimestamp(value, UTC)
        if isinstance(value, datetime):
            return value if value.tzinfo else value.replace(tzinfo=UTC)
    return None


def _size(system: Any, path: str) -> int | None:
    """The size of a file in bytes; None where there is none."""
    try:
        return int(system.info(path)["size"])
    except FileNotFoundError:
        return None


def _put(system: Any, root: str, source: Path, path: str) -> None:
    """Write a file; a whole one or none.

    :raises TimeoutError: when the cache does not take it in a time that fits its size.
    """
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
        _attended(put, source.stat().st_size / _SLOWEST)
    except TimeoutError:
        raise  # whoever does not answer removes nothing
    except BaseException:
        if not system.async_impl:
            with suppress(Exception):
                system.rm_file(unfinished)
        raise


def _share(root: Path, folder: Path, file: Path) -> None:
    """Let whoever may write to a cache's folder use what lies in it, whatever this user's umask.

    :param folder: that of ``file``, below ``root``.
    """
    wanted = stat.S_IMODE(root.stat().st_mode)
    if not wanted & (stat.S_IWGRP | stat.S_IWOTH):
        return
    below = [each for each in (folder, *folder.parents) if root in each.parents]
    for path, mode in (*((each, wanted) for each in below), (file, wanted & 0o666)):
        if path.stat().st_uid == os.geteuid():  # of the others, their users have seen to
            with suppress(PermissionError):  # the root folder may be of a group that is not theirs
                os.chown(path, -1, root.stat().st_gid)
            path.chmod(mode)


def _words(error: BaseException, settings: CacheSettings) -> str:
    """An error in a line: libraries of file systems raise what they like."""
    said = address.without_secrets(str(error), settings.url, settings.options)
    text = " ".join(said.split()) or type(error).__name__
    return text if len(text) < 300 else f"{text[:300]}…"
