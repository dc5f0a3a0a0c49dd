"""A cache that several builds share: the outputs of stages, under a hash of all their inputs.

fsspec opens it: a folder, S3, SSH, WebDAV and so on. Below its address are

* ``v1/entries/<stage>/<key>.json``: the SHA-256 and size of each output, and the stage's result;
* ``v1/files/<ab>/<sha256>``: their bytes, which entries can share.

Files are stored before the entry that names them, so an entry is complete or missing. Fetched files
are checked against their SHA-256; the proofs check whether they are *right*. A failing cache causes
a warning, and the build continues: only a mistake in its address is an error.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from tasks.console import address
from tasks.console.progress import SILENT, Progress
from tasks.remote import storage
from tasks.remote.cache_settings import CacheSettings, local_folder
from tasks.remote.storage import Broken, Output
from tasks.system.errors import StageError

FORMAT = "v1"
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Entry(NamedTuple):
    """A stage's outputs and result; ``stored`` is the time in UTC, in ISO 8601."""

    key: str
    outputs: tuple[Output, ...]
    result: Mapping[str, Any]
    stored: str


class CachedFile(NamedTuple):
    """A file of the cache; ``modified`` is None if the file system does not report it."""

    sha256: str
    size: int
    modified: datetime | None


def key_of(stage: str, decided_by: Mapping[str, Any], paths: Mapping[str, str]) -> str:
    """The key of a stage's outputs; pure.

    :param decided_by: all inputs of the stage, as JSON.
    :param paths: replacements of paths, which can be specific to this machine.
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
    """A cache at one address, for this process: after a failure it is not tried again."""

    def __init__(self, settings: CacheSettings) -> None:
        self.settings = settings
        self.name = settings.shown
        self._opening = threading.Lock()  # a server that does not answer can hold it
        self._lock = threading.Lock()
        self._opened: tuple[Any, str] | None = None
        self._said: set[str] = set()
        self._whole: set[str] = set()  # files whose content matches their name
        self._reads = True
        self._writes = settings.write

    @property
    def is_remote(self) -> bool:
        """Whether it is on another machine, as far as the address shows."""
        return local_folder(self.settings.url) is None

    def open(self) -> tuple[Any, str]:
        """See `storage.open_file_system`."""
        with self._opening:
            if self._opened is None:
                self._opened = storage.open_file_system(self.settings)
            return self._opened

    def find(self, stage: str, key: str, count: int) -> Entry | None:
        """Find ``count`` outputs of a stage from another build; None if they are unavailable.

        :raises StageError: when the cache's address cannot be opened.
        """
        if not self._reads:
            return None
        try:
            storage.import_file_system(self.settings)
            text = storage.attended(lambda alive: self._read_entry(stage, key, alive))
            return parse_entry(text, key, count)
        except FileNotFoundError:
            return None
        except StageError:
            raise
        except Broken as error:
            self.warn(f"{stage}: its entry {error}; it is built here")
        except Exception as error:
            self._reads = self._writes = False
            self.warn(f"{self.words(error)}; this build continues without it")
        return None

    def _read_entry(self, stage: str, key: str, alive: Callable[[], None]) -> bytes:
        system, root = self.open()
        alive()
        return storage.read_small(system, _entry_path(root, stage, key))

    def fetch(self, entry: Entry, destinations: Sequence[Path], progress: Progress) -> bool:
        """Write an entry's outputs; False, with a warning, unless each matches its hash."""
        system, root = self.open()
        total = sum(each.size for each in entry.outputs)
        progress.start(total, 0)
        try:
            for output, destination in zip(entry.outputs, destinations, strict=True):
                storage.fetch(system, file_path(root, output.sha256), output, destination, progress)
            return True
        except (Broken, FileNotFoundError) as error:
            about = str(error) if isinstance(error, Broken) else "is missing"
            self.warn(f"the file {output.sha256[:12]} {about}; it is built here")
        except Exception as error:
            if isinstance(error, OSError) and error.filename in map(str, destinations):
                raise  # an error of this machine
            self._reads = self._writes = False
            self.warn(f"{self.words(error)}; this build continues without it")
        finally:
            progress.finish()
        return False

    def store(
        self, stage: str, key: str, outputs: Sequence[Path], result: Mapping[str, Any]
    ) -> None:
        """Store a stage's outputs, unless they are there; a failure is a warning."""
        if not self._writes:
            return
        hashed = tuple(map(storage.output_of, outputs))
        try:
            storage.import_file_system(self.settings)
            system, root = storage.attended(lambda alive: self.open())
            self._put_files(dict(zip(outputs, hashed, strict=True)))
            now = datetime.now(UTC).isoformat(timespec="seconds")
            entry = Entry(key, hashed, result, now)._asdict()
            entry["outputs"] = [each._asdict() for each in hashed]
            with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
                json.dump(entry, file)
                file.flush()
                storage.put(system, root, Path(file.name), _entry_path(root, stage, key))
        except StageError:
            raise
        except Exception as error:
            self._writes = False
            if isinstance(error, TimeoutError):  # the connection might still be in use
                self._reads = False
            self.warn(f"{self.words(error)}; this build stores nothing there")

    def _put_files(self, files: Mapping[Path, Output]) -> None:
        system, root = self.open()
        for path, output in files.items():
            place = file_path(root, output.sha256)
            if not storage.holds(system, place, output, compare=output.sha256 not in self._whole):
                storage.put(system, root, path, place)
            self._whole.add(output.sha256)

    def upload(self, files: Mapping[Path, Output]) -> None:
        """Store files for another machine to `download`; raises a `StageError`."""
        with self._must("write to"):
            self._put_files(files)

    def download(self, files: Mapping[Path, Output]) -> None:
        """Fetch files that another machine uploaded; raises a `StageError`."""
        with self._must("read from"):
            system, root = self.open()
            for path, output in files.items():
                storage.fetch(system, file_path(root, output.sha256), output, path, SILENT)

    @contextmanager
    def _must(self, what: str) -> Iterator[None]:
        try:
            yield
        except StageError:
            raise
        except Exception as error:
            raise StageError(
                f"Workers that do not see the build folder get their files through the cache "
                f"{self.name}. This build could not {what} it: {self.words(error)}."
            ) from error

    def entries(self) -> tuple[dict[str, tuple[str, Entry]], dict[str, str]]:
        """Every entry with its stage, by its path; and the problems of broken entries."""
        system, root = self.open()
        entries: dict[str, tuple[str, Entry]] = {}
        broken: dict[str, str] = {}
        for path in storage.files_below(system, f"{root}/{FORMAT}/entries"):
            stage, _, name = path.rpartition("/")
            try:
                entry = parse_entry(storage.read_small(system, path), name.removesuffix(".json"))
                entries[path] = stage.rpartition("/")[2], entry
            except (Broken, FileNotFoundError) as error:
                broken[path] = str(error)
        return entries, broken

    def files(self) -> dict[str, CachedFile]:
        """Every file of an output, complete or not, by its path."""
        system, root = self.open()
        return {
            path: CachedFile(path.rpartition("/")[2], int(info["size"]), storage.modified(info))
            for path, info in storage.files_below(system, f"{root}/{FORMAT}/files").items()
        }

    def remove(self, paths: Sequence[str]) -> None:
        """Remove entries and files; missing ones are not an error."""
        system, _ = self.open()
        for path in paths:
            with suppress(FileNotFoundError):
                system.rm_file(path)

    def replace_only(self) -> None:
        """Stop reading: from now on, outputs only replace the stored ones."""
        self._reads = False

    def words(self, error: BaseException) -> str:
        """The error's text in one line, without secrets."""
        return storage.words(error, self.settings)

    def shown(self, path: str) -> str:
        """A path in the cache without secrets: some file systems put the whole address in it."""
        return address.without_secrets(path, self.settings.url, self.settings.options)

    def warn(self, text: str) -> None:
        """Print a warning, once."""
        with self._lock:
            if text in self._said:
                return
            self._said.add(text)
        sys.stderr.write(f"warning: cache {self.name}: {text}.\n")


def _entry_path(root: str, stage: str, key: str) -> str:
    return f"{root}/{FORMAT}/entries/{stage}/{key}.json"


def file_path(root: str, sha256: str) -> str:
    """The path of a file."""
    return f"{root}/{FORMAT}/files/{sha256[:2]}/{sha256}"


def parse_entry(text: bytes, key: str, count: int | None = None) -> Entry:
    """Read an entry, and check everything in it; pure.

    :raises Broken: when it is not an entry, or belongs to another key.
    """
    try:
        content = json.loads(text)
        outputs = tuple(
            Output(str(each["sha256"]), int(each["size"])) for each in content["outputs"]
        )
        entry = Entry(str(content["key"]), outputs, dict(content["result"]), str(content["stored"]))
    except (ValueError, KeyError, TypeError):
        raise Broken("is cut off, or is not an entry") from None
    if entry.key != key:
        raise Broken("belongs to another key")
    if not all(_SHA256.fullmatch(each.sha256) and each.size >= 0 for each in outputs):
        raise Broken("names files without a SHA-256")
    for name, kind in {"summary": str, "note": str, "peak_memory": int}.items():
        if not isinstance(entry.result.get(name), kind | None):
            raise Broken(f"has an invalid {name}")
    if count is not None and len(outputs) != count:
        raise Broken(f"has {len(outputs)} files, expected {count}")
    return entry._replace(result=_printable(entry.result))


def _printable(value: Any) -> Any:
    """JSON without the control characters of a terminal."""
    if isinstance(value, str):
        return "".join(each for each in value if each.isprintable() or each == "\n")
    if isinstance(value, Mapping):
        return {_printable(key): _printable(each) for key, each in value.items()}
    return [_printable(each) for each in value] if isinstance(value, list) else value
